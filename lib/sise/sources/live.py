"""Ticks from vendors, several at once: connections that are kept up, one source a market at a time, no tick twice.

Each source has channels (a stream, a poll) in threads of their own. Of a country's sources the first that delivers is
taken; when it falls silent in the session the next one is, until it is back. For a share that it does not deliver (KIS
has 41 at most of the US ones) the others' ticks go out meanwhile.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Any, Protocol

from sise.calendars import Calendar
from sise.redact import redact
from sise.sources.settings import SourceSettings
from sise.topics import Tick

__all__ = ["Channel", "LiveFeed", "Share", "session_of"]

# A closing auction's trades are printed after the bell.
_GRACE = timedelta(minutes=5)
_EARLY = timedelta(minutes=5)
_BATCH = 10_000


@dataclass(frozen=True)
class Share:
    """A share that is wanted, in the order of its rank."""

    country: str
    symbol: str
    market: str


class Channel(Protocol):
    """One way to a vendor's ticks. ``source``: whose; ``label``: for messages; ``countries``: whose shares it gives."""

    source: str
    label: str
    countries: frozenset[str]
    polls: bool  # it asks: its silence is the market's
    delay: timedelta  # its ticks come so long after the trade
    heard: float  # when the connection was made or last said anything, a tick or not

    def run(self, put: Callable[[Tick], None], stop: Callable[[], bool]) -> None:
        """Delivers until the connection ends (it returns or raises) or ``stop()``."""

    def cut(self) -> None:
        """Ends the connection from another thread."""


@dataclass
class _Line:
    """A channel's life: when it connected and last delivered, and what went wrong."""

    channel: Channel
    connected: float = 0.0
    delivered: float = 0.0
    excused: float = 0.0  # until then its silence meant nothing
    connects: int = 0
    cuts: int = 0
    trouble: str = ""


@dataclass
class _Last:
    """A share's newest tick."""

    timestamp: int = 0
    volumes: set[int] = field(default_factory=set)
    day_volume: int = 0
    source: str = ""
    price: float = 0.0


class LiveFeed:
    """``stop``: ends the feed; ``always``: connect outside the sessions, too; ``on_pause``: called while none comes."""

    def __init__(
        self,
        channels: Sequence[Channel],
        shares: Sequence[Share],
        calendars: Mapping[str, Calendar],
        settings: SourceSettings,
        stop: Callable[[], bool],
        always: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self.name = ",".join(dict.fromkeys(channel.source for channel in channels))
        self.calendars, self.settings, self.stop, self.always, self.now = calendars, settings, stop, always, now
        self.shares = {(share.country, share.symbol): share for share in shares}
        self.counts: Counter[str] = Counter()
        self.on_pause: Callable[[], None] = lambda: None
        self._lines = [_Line(channel) for channel in channels]
        self._last: dict[tuple[str, str], _Last] = {}
        self._queue: queue.Queue[tuple[_Line, Tick]] = queue.Queue(_BATCH)
        self._heard: dict[tuple[str, str], float] = {}  # (source, country) → when its last good tick came
        self._shown: dict[tuple[str, str, str], tuple[int, int, float]] = {}  # source, share → time, volume, when heard
        self._active: dict[str, str] = {}
        self._ended = threading.Event()

    def ticks(self) -> Iterator[Tick]:
        started = time.monotonic()
        for line in self._lines:
            for country in line.channel.countries:
                self._heard.setdefault((line.channel.source, country), started)
            threading.Thread(target=self._keep_up, args=(line,), name=line.channel.label, daemon=True).start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            while not self.stop():
                try:
                    line, tick = self._queue.get(timeout=0.25)
                except queue.Empty:
                    self.on_pause()
                    continue
                if self._accept(line, tick):
                    yield tick
        finally:
            self._ended.set()
            for line in self._lines:
                line.channel.cut()

    def delivering(self, source: str, country: str) -> bool:
        """Whether a source gave a tick of a country within SISE_SILENCE."""
        return time.monotonic() - self._heard.get((source, country), 0.0) < self.settings.silence_seconds

    def channel_delivers(self, label: str) -> bool:
        """Whether a channel is up and not silent."""
        now = time.monotonic()
        limit = self.settings.silence_seconds
        return any(
            x.connected and now - max(x.connected, x.delivered) < limit for x in self._lines if x.channel.label == label
        )

    def status(self) -> dict[str, Any]:
        """What a person wants to know: by country the source and the coverage, the prices' age in seconds, and counts:
        ticks, duplicates, late, off_hours, standby, missed (ticks whose volume the day's volume shows), unknown."""
        now_ms = self.now().timestamp() * 1000
        countries: dict[str, Any] = {}
        for country in sorted({share.country for share in self.shares.values()}):
            keys = [key for key in self.shares if key[0] == country]
            ages = sorted((now_ms - self._last[key].timestamp) / 1000 for key in keys if key in self._last)
            countries[country] = {
                "source": self._active.get(country),
                "shares": len(keys),
                "with_price": len(ages),
                "coverage": round(len(ages) / len(keys), 4),
                "age_median": round(ages[len(ages) // 2], 1) if ages else None,
                "age_p95": round(ages[int(len(ages) * 0.95)], 1) if ages else None,
                "age_max": round(ages[-1], 1) if ages else None,
            }
        lines = {
            line.channel.label: {"connects": line.connects, "cuts": line.cuts, "trouble": line.trouble}
            for line in self._lines
        }
        return {"countries": countries, "channels": lines, "counts": dict(self.counts)}

    def ages(self) -> dict[str, tuple[int, str]]:
        """By share (KR:005930): its newest tick's time, ms, and its source."""
        return {f"{c}:{s}": (last.timestamp, last.source) for (c, s), last in self._last.items()}

    def _accept(self, line: _Line, tick: Tick) -> bool:
        """Whether a tick goes out; else the reason is counted."""
        key = (tick["country"], tick["symbol"])
        if (share := self.shares.get(key)) is None:
            return self._count("unknown")
        hours = session_of(self.calendars[key[0]], tick["timestamp"])
        if hours is None:
            return self._count("off_hours")
        if tick["price"] <= 0:
            return self._count("no_price")
        known = self._last.get(key)
        if known is not None and tick["timestamp"] < known.timestamp:
            return self._count("late")  # nor does its source deliver: a delayed one would silence a live one
        self._hear(line.channel.source, key, tick)
        chosen = self._choose(key[0])
        if line.channel.source != chosen and self._delivers_share(chosen, key):
            return self._count("standby")
        last = self._last.setdefault(key, _Last())
        at, total = tick["timestamp"], tick["day_volume"]
        if at == last.timestamp and total in last.volumes:
            return self._count("duplicates")
        if last.source == tick["source"] and 0 < last.day_volume < total - tick["volume"]:
            self.counts["missed"] += 1
        if at > last.timestamp:
            last.volumes.clear()
        last.volumes.add(total)
        last.timestamp, last.day_volume, last.source, last.price = at, total, tick["source"], tick["price"]
        tick["market"], tick["session"] = share.market, hours
        # When it came: while Kafka is away ticks wait here, and are not too old for it afterwards.
        tick.setdefault("clock", int(self.now().timestamp() * 1000))
        self.counts["ticks"] += 1
        return True

    def _hear(self, source: str, key: tuple[str, str], tick: Tick) -> None:
        """A source is alive by what is new: a quote that it repeats for ever says nothing."""
        shown = tick["timestamp"], tick["day_volume"]
        if self._shown.get((source, *key), (None, None))[:2] != shown:
            now = time.monotonic()
            self._shown[source, *key] = *shown, now
            self._heard[source, key[0]] = now

    def _delivers_share(self, source: str, key: tuple[str, str]) -> bool:
        known = self._shown.get((source, *key))
        return known is not None and time.monotonic() - known[2] < self.settings.silence_seconds

    def _count(self, what: str) -> bool:
        self.counts[what] += 1
        return False

    def _choose(self, country: str) -> str:
        """The source whose ticks of a country go out: the first that delivers."""
        order = list(dict.fromkeys(x.channel.source for x in self._lines if country in x.channel.countries))
        chosen = next((source for source in order if self.delivering(source, country)), order[0])
        if self._active.get(country) != chosen:
            if country in self._active:
                self.counts["failovers"] += 1
            self._active[country] = chosen
        return chosen

    def _keep_up(self, line: _Line) -> None:
        """One connection after another, with growing waits between those that are refused; one that stood and was cut
        for its silence is none."""
        failures = 0

        def put(tick: Tick) -> None:
            line.delivered = time.monotonic()
            self._queue.put((line, tick))

        def over() -> bool:
            return self._ended.is_set() or not self._open(line)

        while not self._ended.is_set():
            if not self._open(line):
                self._ended.wait(1.0)
                continue
            line.connected = began = time.monotonic()
            line.connects += 1
            line.delivered = 0.0
            try:
                line.channel.run(put, over)
                line.trouble = "the connection ended"
            except Exception as problem:  # whatever it is: a feed goes on
                line.trouble = redact(f"{type(problem).__name__}: {problem}")[:300]
            if self._ended.is_set():
                return
            stood = line.delivered or time.monotonic() - began > self.settings.silence_seconds
            failures = 0 if stood else failures + 1
            wait = min(self.settings.backoff_cap_seconds, self.settings.backoff_seconds * 2 ** min(failures, 10))
            line.connected = 0.0
            self._ended.wait(uniform(wait / 2, wait))

    def _watch(self) -> None:
        """Cuts connections that accept and say nothing while there is trade."""
        while not self._ended.wait(min(1.0, self.settings.silence_seconds / 4)):
            now = time.monotonic()
            for line in self._lines:
                since = max(line.connected, line.delivered, line.channel.heard, line.excused)
                if not line.connected or line.channel.polls or not self._trading(line):
                    line.excused = now
                elif now - since > self.settings.silence_seconds:
                    line.cuts += 1
                    line.excused = now  # the next one has its time, too
                    line.channel.cut()

    def _trading(self, line: _Line) -> bool:
        """Whether a line's ticks are due: not before the open, and not in what is left after the close."""
        then = self.now() - line.channel.delay
        hours = [_hours(self.calendars[country], then) for country in line.channel.countries]
        return any(found is not None and found[0] <= then <= found[1] for found in hours)

    def _open(self, line: _Line) -> bool:
        delay = line.channel.delay
        return self.always or any(in_session(self.calendars[c], self.now(), delay) for c in line.channel.countries)


def in_session(calendar: Calendar, now: datetime, delay: timedelta) -> bool:
    """Whether a connection is of use: some minutes before the open to some after the close's ticks have come."""
    hours = _hours(calendar, now)
    return hours is not None and hours[0] - _EARLY <= now <= hours[1] + _GRACE + delay


def session_of(calendar: Calendar, timestamp: int) -> str | None:
    """The session that a moment (ms, UTC) is in; None outside the regular hours."""
    moment = datetime.fromtimestamp(timestamp / 1000, UTC)
    hours = _hours(calendar, moment)
    return str(calendar.today(moment)) if hours is not None and hours[0] <= moment <= hours[1] + _GRACE else None


def _hours(calendar: Calendar, moment: datetime) -> tuple[datetime, datetime] | None:
    """When the exchange opens and closes on the moment's day."""
    day = calendar.today(moment)
    return calendar.hours(day) if calendar.is_session(day) else None
