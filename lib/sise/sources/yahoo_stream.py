"""Yahoo's ticks: its stream through yfinance's WebSocket, and its quotes as a fallback while the stream is down."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from sise.calendars import ZONES
from sise.sources.live import Share
from sise.sources.settings import SourceSettings
from sise.sources.yahoo import QUOTED_AT_ONCE, YahooVendor, yahoo_symbol
from sise.topics import Tick, with_reference

__all__ = ["YahooPoll", "YahooStream"]

_REGULAR = 1  # yfinance's market_hours: 0 before, 1 in, 2 after the session
_SUBSCRIBE = 200  # names a message
_AGAIN = 15.0  # seconds until Yahoo is told again, as yfinance's other client does


class YahooStream:
    """One connection for all shares. yfinance's sync client ends with the first error, and that is what is wanted:
    the supervisor makes the next one."""

    source = "yahoo"
    label = "yahoo stream"
    polls = False
    delay = timedelta(0)

    def __init__(self, shares: Sequence[Share], settings: SourceSettings):
        self.settings = settings
        self.wanted = {yahoo_symbol(share.market, share.symbol): share for share in shares}
        self.countries = frozenset(share.country for share in shares)
        self.bad_messages = 0
        self.heard = self._subscribed = 0.0
        self._client: Any = None

    def run(self, put: Callable[[Tick], None], stop: Callable[[], bool]) -> None:
        import yfinance

        yfinance.config.debug.hide_exceptions = False  # an error ends the connection instead of being printed
        client = yfinance.WebSocket(self.settings.yahoo_stream_url, verbose=False)
        self._client = client
        try:
            self._subscribe(client)
            self.heard = time.monotonic()
            client.listen(lambda message: self._take(message, put, stop))
        except _Over:
            pass
        finally:
            self._client = None
            client.close()

    def _subscribe(self, client: Any) -> None:
        names = list(self.wanted)
        for n in range(0, len(names), _SUBSCRIBE):
            client._subscriptions.clear()  # else each message has all names so far
            client.subscribe(names[n : n + _SUBSCRIBE])
        self._subscribed = time.monotonic()

    def cut(self) -> None:
        if (client := self._client) is not None and client._ws is not None:
            with suppress(OSError):  # it has ended by itself
                client._ws.socket.shutdown(socket.SHUT_RDWR)

    def _take(self, message: Mapping[str, Any], put: Callable[[Tick], None], stop: Callable[[], bool]) -> None:
        self.heard = time.monotonic()
        if stop():
            raise _Over
        if time.monotonic() - self._subscribed > _AGAIN and self._client is not None:
            self._subscribe(self._client)
        share = self.wanted.get(str(message.get("id")))
        try:
            if share is None or int(message.get("market_hours", 0)) != _REGULAR:
                return
            # prices are 32-bit floats: what is beyond four decimals is not Yahoo's
            price, at = round(float(message["price"]), 4), int(message["time"])
            tick = _tick(share, price, int(message.get("last_size", 0)), int(message.get("day_volume", 0)), at, "yahoo")
            before = message.get("previous_close") or price - float(message.get("change", "nan"))
            put(with_reference(tick, float(before)))  # of a split's day, too, on the basis of today's prices
        except (KeyError, TypeError, ValueError):
            self.bad_messages += 1


class _Over(Exception):
    pass


class YahooPoll:
    """Quotes of a hundred shares at a time, for as long as the stream delivers nothing."""

    source = "yahoo"
    label = "yahoo poll"
    polls = True
    delay, heard = timedelta(0), 0.0

    def __init__(self, vendor: YahooVendor, shares: Sequence[Share], streaming: Callable[[], bool]):
        self.vendor, self.streaming = vendor, streaming
        self.wanted = {yahoo_symbol(share.market, share.symbol): share for share in shares}
        self.countries = frozenset(share.country for share in shares)
        self._known: dict[str, int] = {}
        self._cut = False

    def run(self, put: Callable[[Tick], None], stop: Callable[[], bool]) -> None:
        self._cut = False
        while not stop() and not self._cut:
            if self.streaming():
                time.sleep(0.25)
                continue
            names = list(self.wanted)
            started = time.monotonic()
            for n in range(0, len(names), QUOTED_AT_ONCE):
                if stop() or self._cut or self.streaming():
                    break
                for quote in self.vendor.quotes(names[n : n + QUOTED_AT_ONCE]):
                    self._take(quote, put)
            time.sleep(max(0.0, min(1.0, started + 1.0 - time.monotonic())))

    def cut(self) -> None:
        self._cut = True

    def _take(self, quote: Mapping[str, Any], put: Callable[[Tick], None]) -> None:
        share = self.wanted.get(str(quote.get("symbol")))
        price, at, total = (quote.get(f"regularMarket{what}") for what in ("Price", "Time", "Volume"))
        if share is None or not price or not at or total is None:
            return
        before = self._known.get(share.symbol)
        self._known[share.symbol] = int(total)
        volume = max(0, int(total) - before) if before is not None else 0
        tick = _tick(share, float(price), volume, int(total), int(at) * 1000, "yahoo-poll")
        put(with_reference(tick, float(quote.get("regularMarketPreviousClose") or "nan")))


def _tick(share: Share, price: float, volume: int, total: int, at: int, source: str) -> Tick:
    return {
        "country": share.country,
        "symbol": share.symbol,
        "market": share.market,
        "price": price,
        "volume": volume,
        "day_volume": total,
        "timestamp": at,
        "session": str(datetime.fromtimestamp(at / 1000, UTC).astimezone(ZONES[share.country]).date()),
        "source": source,
    }
