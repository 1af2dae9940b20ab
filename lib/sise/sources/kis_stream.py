"""KIS's ticks: the WebSocket for the shares that rank highest, the quote of 30 shares for the rest."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

from websockets.sync.client import ClientConnection, connect

from sise.calendars import ZONES
from sise.sources.kis import quotes_of
from sise.sources.kis_rest import KisRest
from sise.sources.live import Share
from sise.sources.outcome import Failed
from sise.sources.settings import SourceSettings
from sise.topics import Tick, with_reference

__all__ = ["KisPoll", "KisStream", "read_frame", "with_clock"]

_KR, _US = "H0STCNT0", "HDFSCNT0"
# Fields of one trade; KIS may add some at its end.
_WIDTH = {_KR: 46, _US: 26}
_US_KEYS = {"NASDAQ": "DNAS", "NYSE": "DNYS"}
_BATCH = 30
# KIS names 15 minutes for free quotes, and at present none for the US: too much of it only keeps a connection longer.
_US_DELAY = timedelta(minutes=15)
_REGULAR = {"0", ""}  # hour class: the session


class KisStream:
    """Registers as many of ``shares`` as one connection may (SISE_KIS_REGISTRATIONS), in their order; those that are
    registered and confirmed are in ``registered``."""

    source = "kis"
    label = "kis stream"
    polls = False

    def __init__(self, rest: KisRest, shares: Sequence[Share], settings: SourceSettings):
        self.rest, self.settings = rest, settings
        self.wanted = {_key(share): share for share in shares[: settings.kis_stream_limit]}
        self.countries = frozenset(share.country for share in self.wanted.values())
        self.delay = _US_DELAY if "US" in self.countries else timedelta(0)
        self.registered: set[tuple[str, str]] = set()
        self.heard = self._heard = 0.0  # any frame, a frame of trades
        self.refused: dict[str, str] = {}
        self.bad_frames = 0
        self._socket: ClientConnection | None = None

    def run(self, put: Callable[[Tick], None], stop: Callable[[], bool]) -> None:
        approval = self.rest.approval_key()
        timeout = self.settings.http_timeout
        # KIS asks by messages of its own (PINGPONG), and does not say that it answers the protocol's: the feed judges
        # its silence.
        url = self.settings.kis_stream_url
        with connect(url, open_timeout=timeout, close_timeout=1, ping_interval=None, proxy=None) as link:
            self._socket, self.heard = link, time.monotonic()
            try:
                for (kind, key), _ in self.wanted.items():
                    link.send(_registration(approval, kind, key))
                while not stop():
                    try:
                        text = link.recv(timeout=0.5)
                    except TimeoutError:
                        continue
                    self.heard = time.monotonic()
                    self._take(str(text), link, put)
            finally:
                self._socket = None
                self.registered.clear()

    def served(self) -> set[tuple[str, str]]:
        """Shares that the stream delivers now: none while it is silent, so that they are polled."""
        silent = time.monotonic() - self._heard > self.settings.silence_seconds
        return set() if silent else set(self.registered)

    def cut(self) -> None:
        if (link := self._socket) is not None:
            with suppress(OSError):  # it has ended by itself
                link.socket.shutdown(socket.SHUT_RDWR)

    def _take(self, text: str, link: ClientConnection, put: Callable[[Tick], None]) -> None:
        if text[:1] in "01":
            try:
                self._heard = time.monotonic()
                for tick in read_frame(text, self.wanted):
                    put(with_clock(tick, int(time.time() * 1000)))
            except ValueError:
                self.bad_frames += 1
            return
        try:
            told = json.loads(text)
            header, body = told["header"], told.get("body") or {}
            if not isinstance(header, dict) or not isinstance(body, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            self.bad_frames += 1
            return
        if header.get("tr_id") == "PINGPONG":
            link.send(text)
            return
        share = self.wanted.get((str(header.get("tr_id")), str(header.get("tr_key"))))
        if str(body.get("rt_cd")) == "0":
            if share is not None:
                self.registered.add((share.country, share.symbol))
        elif share is not None:
            self.refused[share.symbol] = str(body.get("msg1"))
        else:
            raise Failed(f"KIS refuses the connection: {body.get('msg_cd', '')} {body.get('msg1', '')}")


def read_frame(text: str, wanted: Mapping[tuple[str, str], Share]) -> list[Tick]:
    """The trades of one data frame: enc|TR_ID|count|fields. The fields of ``count`` trades follow each other in one
    flat list, each trade with as many as the transaction has, and maybe more. Raises ValueError for what is none."""
    parts = text.split("|", 3)
    if len(parts) != 4 or parts[0] != "0" or parts[1] not in _WIDTH:
        raise ValueError("not a frame of trades that is known and plain")
    kind, fields = parts[1], parts[3].split("^")
    count = int(parts[2])
    if count < 1 or len(fields) % count or (width := len(fields) // count) < _WIDTH[kind]:
        raise ValueError(f"{len(fields)} fields are not {count} trades")
    read = _korean if kind == _KR else _american
    ticks = []
    for n in range(count):
        trade = fields[n * width : (n + 1) * width]
        share = wanted.get((kind, trade[0]))
        if share is None:
            raise ValueError(f"{trade[0]!r} was not registered: the fields are not where they should be")
        if (tick := read(share, trade)) is not None:
            ticks.append(tick)
    return ticks


def _korean(share: Share, trade: Sequence[str]) -> Tick | None:
    if trade[43] not in _REGULAR or trade[35] == "Y":
        return None
    tick = _tick(share, trade[33] + trade[1], float(trade[2]), int(trade[12]), int(trade[13]))
    return with_reference(tick, _reference(tick["price"], trade[3], trade[4]))


def _american(share: Share, trade: Sequence[str]) -> Tick | None:
    if trade[25] not in ("1", ""):
        return None
    tick = _tick(share, trade[4] + trade[5], float(trade[11]), int(trade[19]), int(trade[20]))
    return with_reference(tick, _reference(tick["price"], trade[12], trade[13]))


def _reference(price: float, sign: Any, change: Any) -> float:
    """``change``: against the reference price, sometimes without its sign; ``sign``: 1 and 2 up, 3 none, 4 and 5 down.
    NaN where they are neither."""
    by, direction = _float(change), {"1": 1, "2": 1, "3": 0, "4": -1, "5": -1}.get(str(sign).strip())
    return math.nan if by is None or direction is None else price - direction * abs(by)


def _tick(share: Share, moment: str, price: float, volume: int, total: int) -> Tick:
    """``moment``: YYYYMMDDHHMMSS at the exchange."""
    at = datetime.strptime(moment, "%Y%m%d%H%M%S").replace(tzinfo=ZONES[share.country])
    return {
        "country": share.country,
        "symbol": share.symbol,
        "market": share.market,
        "price": price,
        "volume": volume,
        "day_volume": total,
        "timestamp": int(at.timestamp() * 1000),
        "session": str(at.date()),
        "source": "kis",
    }


def with_clock(tick: Tick, now: int) -> Tick:
    """A delayed trade is judged by the time that the feed is at, which nobody tells: its own, within the delay."""
    if tick["country"] != "US" or tick["timestamp"] >= now:
        return tick
    return tick | {"clock": max(tick["timestamp"], now - int(_US_DELAY.total_seconds() * 1000))}


def _key(share: Share) -> tuple[str, str]:
    if share.country == "KR":
        return _KR, share.symbol
    return _US, f"{_US_KEYS[share.market]}{share.symbol}"


def _registration(approval: str, kind: str, key: str) -> str:
    header = {"approval_key": approval, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
    return json.dumps({"header": header, "body": {"input": {"tr_id": kind, "tr_key": key}}})


class KisPoll:
    """Asks for the prices of the Korean shares that the stream does not deliver, 30 at a time, round and round, within
    the rate limit. A price's time is that of the answer: KIS does not say when it was traded."""

    source = "kis"
    label = "kis poll"
    polls = True
    delay, heard = timedelta(0), 0.0
    countries = frozenset({"KR"})

    def __init__(
        self,
        rest: KisRest,
        shares: Iterable[Share],
        streamed: Callable[[], set[tuple[str, str]]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self.rest, self.streamed, self.now = rest, streamed, now
        self.shares = [share for share in shares if share.country == "KR"]
        self._known: dict[str, tuple[date, float, int]] = {}  # of the session: what was told yesterday is told again
        self._cut = False

    def run(self, put: Callable[[Tick], None], stop: Callable[[], bool]) -> None:
        self._cut = False
        while not stop() and not self._cut:
            streamed = self.streamed()
            rest = [share for share in self.shares if (share.country, share.symbol) not in streamed]
            if not rest:
                time.sleep(0.5)
            started = time.monotonic()
            for n in range(0, len(rest), _BATCH):
                if stop() or self._cut:
                    return
                self._ask({share.symbol: share for share in rest[n : n + _BATCH]}, put)
            time.sleep(max(0.0, min(1.0, started + 1.0 - time.monotonic())))  # a short list is not asked all the time

    def cut(self) -> None:
        self._cut = True

    def _ask(self, shares: Mapping[str, Share], put: Callable[[Tick], None]) -> None:
        moment = self.now()
        for row in quotes_of(self.rest, list(shares)):
            share = shares.get(str(row.get("inter_shrn_iscd") or "").strip())
            price, total = _float(row.get("inter2_prpr")), _float(row.get("acml_vol"))
            if share is None or not price or not total:
                continue  # without a trade today the price is the last session's
            day = moment.astimezone(ZONES["KR"])
            before, known = self._known.get(share.symbol), (day.date(), price, int(total))
            if before == known:
                continue
            self._known[share.symbol] = known
            new = known[2] - before[2] if before and before[0] == known[0] else 0
            tick = _tick(share, f"{day:%Y%m%d%H%M%S}", price, max(0, new), int(total))
            reference = _reference(price, row.get("prdy_vrss_sign"), row.get("inter2_prdy_vrss"))
            put(with_reference(tick, reference) | {"source": "kis-poll"})


def _float(text: Any) -> float | None:
    try:
        return float(str(text).replace(",", ""))
    except ValueError:
        return None
