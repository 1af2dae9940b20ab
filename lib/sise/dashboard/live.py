"""What stands in Redis now, read once for all viewers: one thread follows the stream of signals and their prices."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from sise.ops.services.base import without_password
from sise.settings import Settings

__all__ = ["Feed", "Live"]

_KEEP = 500  # signals shown at most, newest first
_FOLLOWED = 300  # of these, how many have their prices asked for
_PRICES_EVERY = 1.0
_NUMBERS = ("last_price", "pnl", "best", "worst")


@dataclass(frozen=True)
class Live:
    """A moment of the feed. ``signals``: newest first, as the stream has them, with last_price, pnl, best, worst
    (null once a signal is no longer active) and ``arrived`` (ms, when Redis got it). ``version`` changes with them.
    ``away``: why Redis cannot be read, and since when (monotonic seconds); ``signals`` are the last ones known then."""

    version: int = 0
    signals: tuple[Mapping[str, Any], ...] = ()
    away: str = ""
    since: float = 0.0
    connected: bool = False
    reads: int = field(default=0, compare=False)


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
            client = redis.Redis.from_url(
                self.settings.redis, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
            )
            try:
                self._follow(client)
            except (RedisError, OSError) as problem:
                self._say_away(problem)
                self._stop.wait(0.5)
            finally:
                client.close()

    def _follow(self, client: redis.Redis) -> None:
        # After an absence everything is read again: the stream may have been trimmed or be another one.
        rows: Any = client.xrevrange(f"{self.prefix}signals", count=_KEEP)
        self._signals, self._position = {}, rows[0][0].decode() if rows else "0-0"
        self._take(reversed(rows))
        self._ask_prices(client)
        self._publish()
        asked = time.monotonic()
        while not self._stop.is_set():
            found: Any = client.xread({f"{self.prefix}signals": self._position}, count=_KEEP, block=250)
            changed = False
            for _, entries in found.items() if isinstance(found, dict) else found or ():
                entries = entries[0] if entries and isinstance(entries[0], list) else entries
                self._position = entries[-1][0].decode()
                self._take(entries)
                changed = True
            if changed:
                self._publish()
            if time.monotonic() - asked >= _PRICES_EVERY:
                asked = time.monotonic()
                if self._ask_prices(client):
                    self._publish()

    def _take(self, rows: Any) -> None:
        for name, row in rows:
            try:
                signal = json.loads(row[b"signal"])
                share = f"{signal['country']}:{signal['symbol']}"
                signal["arrived"] = int(name.decode().partition("-")[0])
            except (KeyError, ValueError, TypeError):
                continue  # somebody else's entry
            known = dict.fromkeys(_NUMBERS, 0.0) | {"last_price": signal.get("trigger_price")}
            self._signals[str(signal.get("id"))] = known | signal | {"share": share}
        while len(self._signals) > _KEEP:
            del self._signals[next(iter(self._signals))]

    def _ask_prices(self, client: redis.Redis) -> bool:
        """Takes up the running figures of the newest signals; whether any changed."""
        ids = list(self._signals)[-_FOLLOWED:]
        pipe = client.pipeline(transaction=False)
        for name in ids:
            pipe.hmget(f"{self.prefix}signal:{name}", *_NUMBERS)
        changed = False
        for name, values in zip(ids, pipe.execute(), strict=True):
            figures = {k: None if v is None else float(v) for k, v in zip(_NUMBERS, values, strict=True)}
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
            self._set(Live(self._live.version + 1, self._live.signals, why, time.monotonic()))

    def _set(self, live: Live) -> None:
        with self._changed:
            self._live = live
            self._changed.notify_all()
