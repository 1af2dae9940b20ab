"""What stands in Redis now, read once for all viewers: one thread follows the stream of signals and their prices."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from sise.ops.services.base import without_password
from sise.settings import Settings

__all__ = ["Feed", "Live"]

_LOG = logging.getLogger(__name__)

_KEEP = 500  # signals shown at most, newest first
_PRICES_EVERY = 1.0
_LATEST = 2**45  # ms, the year 3084: an id beyond it was not made by Redis's clock
_FIGURES = ("last_price", "pnl", "best", "worst")
_NUMBERS = (*_FIGURES, "priced")


@dataclass(frozen=True)
class Live:
    """A moment of the feed. ``signals``: newest first, as the stream has them, with ``arrived`` (ms, when it came),
    last_price, pnl, best, worst and ``priced`` (ms, the time of the share's latest price); all but ``arrived`` null
    where Redis does not know them, as once a signal is no longer active. ``version`` changes with them. ``away``: why
    Redis cannot be read, and since when (monotonic seconds); ``signals`` are the last ones known then. ``fault``: Redis
    does answer, but what it holds cannot be read."""

    version: int = 0
    signals: tuple[Mapping[str, Any], ...] = ()
    away: str = ""
    since: float = 0.0
    connected: bool = False
    fault: bool = False
    reads: int = field(default=0, compare=False)


def _figure(value: Any) -> float | None:
    """A number as Redis or JSON has it; None where it is none, or not finite (JSON.parse knows no NaN)."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _signal(name: bytes, row: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """What the pages show of an entry of the stream, each figure finite or null; None where it is no signal."""
    try:
        entry = json.loads(row[b"signal"])
        texts = {k: entry[k] for k in ("id", "signal_type", "country", "symbol")}
        market, price = entry.get("market"), _figure(entry["trigger_price"])
        arrived = int(name.decode().partition("-")[0])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None  # somebody else's entry
    if (
        price is None
        or price <= 0
        or not 0 < arrived < _LATEST
        or not all(isinstance(text, str) and text for text in texts.values())
    ):
        return None
    return texts | {
        "market": market if isinstance(market, str) else None,
        "share": f"{texts['country']}:{texts['symbol']}",
        "trigger_price": price,
        "arrived": arrived,
        **{k: _figure(entry.get(k)) for k in ("received", "relayed")},
    }


class Feed:
    """Follows one Redis. ``start`` it once a process; ``now`` is cheap and never waits for Redis."""

    def __init__(self, settings: Settings):
        self.settings, self.prefix = settings, settings.redis_prefix
        self.where = without_password(settings.redis)
        self._live = Live()
        self._signals: dict[str, dict[str, Any]] = {}  # by id, oldest first
        self._position = "0-0"
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sise-feed", daemon=True)

    def start(self) -> Feed:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def now(self) -> Live:
        return self._live

    def wait(self, version: int, seconds: float) -> Live:
        """``now`` as soon as its version is another than ``version``, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._live.version != version, seconds)
        return self._live

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                client = redis.Redis.from_url(
                    self.settings.redis, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
                )
                with closing(client):
                    self._follow(client)
            except Exception as problem:  # the thread goes on whatever stands there: a page must not look live
                self._say_away(problem)
                self._stop.wait(0.5)

    def _follow(self, client: redis.Redis) -> None:
        # After an absence everything is read again: the stream may have been trimmed or be another one.
        rows: Any = client.xrevrange(f"{self.prefix}signals", count=_KEEP)
        self._signals, self._position = {}, rows[0][0].decode() if rows else "0-0"
        self._take(reversed(rows))
        self._ask_prices(client, list(self._signals))
        self._publish()
        asked = time.monotonic()
        while not self._stop.is_set():
            found: Any = client.xread({f"{self.prefix}signals": self._position}, count=_KEEP, block=250)
            new: list[str] = []
            for _, entries in found.items() if isinstance(found, dict) else found or ():
                entries = entries[0] if entries and isinstance(entries[0], list) else entries
                self._position = entries[-1][0].decode()
                new += self._take(entries)
            if new:
                self._ask_prices(client, [name for name in new if name in self._signals])
                self._publish()
            if time.monotonic() - asked >= _PRICES_EVERY:
                asked = time.monotonic()
                if self._ask_prices(client, list(self._signals)):
                    self._publish()

    def _take(self, rows: Any) -> list[str]:
        """Takes up entries of the stream, oldest first; the ids of those that are signals."""
        taken = []
        for name, row in rows:
            signal = _signal(name, row)
            if signal is not None:
                self._signals[signal["id"]] = signal | dict.fromkeys(_NUMBERS)
                taken.append(signal["id"])
        while len(self._signals) > _KEEP:
            del self._signals[next(iter(self._signals))]
        return taken

    def _ask_prices(self, client: redis.Redis, ids: Sequence[str]) -> bool:
        """Takes up the running figures of these signals; whether any changed."""
        pipe = client.pipeline(transaction=False)
        for name in ids:
            pipe.hmget(f"{self.prefix}signal:{name}", *_FIGURES)
            pipe.hmget(f"{self.prefix}price:{self._signals[name]['share']}", "timestamp")
        # Another kind of key is an error.
        answers = iter(a if isinstance(a, list) else [] for a in pipe.execute(raise_on_error=False))
        changed = False
        for name, of_signal, of_share in zip(ids, answers, answers, strict=True):
            there = [*of_signal, *of_share] if any(of_signal) else []
            figures = {k: _figure(v) for k, v in zip_longest(_NUMBERS, there)}
            if any(self._signals[name][k] != v for k, v in figures.items()):
                self._signals[name] = self._signals[name] | figures
                changed = True
        return changed

    def _publish(self) -> None:
        newest_first = tuple(reversed(self._signals.values()))
        self._set(Live(self._live.version + 1, newest_first, connected=True))

    def _say_away(self, problem: Exception) -> None:
        if not self._live.away:
            why = " ".join(str(problem).split()) or type(problem).__name__
            fault = not isinstance(problem, RedisError | OSError)
            if fault:
                _LOG.error("the feed of signals cannot be read, and is tried again", exc_info=problem)
            self._set(Live(self._live.version + 1, self._live.signals, why, time.monotonic(), fault=fault))

    def _set(self, live: Live) -> None:
        with self._changed:
            self._live = live
            self._changed.notify_all()
