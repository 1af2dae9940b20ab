"""What fires, and signals in Redis. ``fire`` is the one place that decides it; both triggers end in it.

Redis, under the prefix of the settings: ``armed:{share}`` (which rules are disarmed since when, source offsets
seen), ``signal:{id}`` (a hash, gone after its time), ``signals:active`` (ids by expiry), the stream ``signals``,
``outbox`` (fired, not yet in Kafka).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any, TypeVar

import redis
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from sise.errors import SiseError
from sise.redact import redact
from sise.settings import Settings
from sise.signals.rules import LiveRules

__all__ = ["SignalStore", "connect", "lateness", "patiently"]

T = TypeVar("T")
# One script call holds Redis for some milliseconds: readers come in between.
_CHUNK = 250
# So many ms a feed may lie behind another one of the same share: KIS's US quotes come a quarter of an hour late.
_DELAYED = 20 * 60_000
# What Redis answers while it loads, cannot write to its disk, is full or changes roles: it passes as an absence does.
# Some of it has no class of its own, and what a script meets comes inside another error's text.
_AWAY = (
    ConnectionError,
    TimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
)
_PASSING = {"LOADING", "READONLY", "MISCONF", "OOM", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"}


def connect(settings: Settings) -> redis.Redis:
    """A client of the Redis that the settings name; raises SiseError where none answers."""
    client = redis.Redis.from_url(settings.redis, socket_timeout=10, socket_connect_timeout=5)
    try:
        client.ping()
    except RedisError as problem:
        where = redact(_without_password(settings.redis))
        raise SiseError(
            f"Redis does not answer at {where}: {problem}. Start it with 'make up', or set SISE_REDIS_URL"
        ) from problem
    return client


def _place(signal: str) -> tuple[int, int, int]:
    told = json.loads(signal)
    return told["received"], told["partition"], told["offset"]


def _away(problem: RedisError) -> bool:
    return isinstance(problem, _AWAY) or not _PASSING.isdisjoint(re.split(r"\W+", str(problem)))


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1…@", url)


def patiently(work: Callable[[], T], say: Callable[[str], None], stop: Callable[[], bool] = lambda: False) -> T:
    """``work()``, again and again while Redis is away, or answers what passes by itself; says so once, and once when it
    is back. Where ``stop()`` it gives up, with SiseError."""
    waited = 0.0
    while True:
        try:
            found = work()
        except RedisError as problem:
            if not _away(problem):
                raise
            if stop():
                raise SiseError(f"stopped while Redis was away: {problem}") from problem
            if not waited:
                say(f"Redis is away ({problem}): waiting, nothing is lost")
            pause = min(2.0, 0.1 + waited / 10)
            time.sleep(pause)
            waited += pause
        else:
            if waited:
                say(f"Redis is back after {waited:.0f} s")
            return found


def lateness(settings: Settings) -> tuple[int, int]:
    """In ms: by how much a late tick is before the newest (where it is by more, that one was a replay's), and how
    far a tick may be ahead of Kafka's time."""
    ahead = int(settings.tick_ahead_seconds * 1000)
    return int(settings.tick_behind_seconds * 1000) + ahead + _DELAYED, ahead


class SignalStore:
    """Signals in one Redis. ``epoch`` names the life of the tick topic whose offsets are compared (one made anew starts
    at offset 0 again), for records of an earlier version: the others carry theirs."""

    def __init__(self, client: redis.Redis, settings: Settings, epoch: str):
        self.client, self.epoch = client, epoch
        self.prefix, self.ttl = settings.redis_prefix, settings.signal_ttl_seconds
        self.lateness = lateness(settings)
        self._script = client.register_script(resources.files(__package__).joinpath("fire.lua").read_text())

    @property
    def _outbox(self) -> str:
        return f"{self.prefix}outbox"

    def fire(self, records: Sequence[bytes | str], rules: LiveRules) -> list[str]:
        """Decides which of the records fire and writes those signals; returns their JSON.

        ``records``: values of tick-rules (signals/detect.py), each share's in order. A rule fires where it is strict
        and armed; it is disarmed then, and armed again by the first record that does not show it relaxed, or by one
        that comes later than its cooldown after the last that did; time does not arm a rule that ``rules`` does not
        have. Records whose source offset was seen before change nothing, so a batch may come again. A tick that comes
        later than one with a newer time (``lateness``) arms nothing, and fires only what it would have fired in its
        turn: not what had fired by then and was not armed again before it.
        """
        told = json.dumps({rule.name: [rule.cooldown_minutes * 60_000, rule.direction] for rule in rules.rules})
        fired: list[str] = []
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            arguments = [self.epoch, self.ttl, 100_000, told, self._outbox, *self.lateness, *chunk]
            found: Any = self._script(keys=[self.prefix], args=arguments)
            fired += [value.decode() for value in found]
        return fired

    def fire_patiently(
        self, records: Sequence[bytes | str], rules: LiveRules, say: Callable[[str], None], stop: Callable[[], bool]
    ) -> list[str]:
        """``fire``, waiting while Redis is away. An answer that was lost on the way is found in the outbox."""
        try:
            return self.fire(records, rules)
        except RedisError as problem:
            if not _away(problem):
                raise
            patiently(lambda: self.fire(records, rules), say, stop)
            return patiently(self.unpublished, say, stop)

    def unpublished(self, seconds: float = 0.0) -> list[str]:
        """Signals that were fired (``seconds`` ago or longer) and are not known to be in Kafka, in the order of their
        ticks: a process died, or an answer was lost, in between."""
        found: Any = self.client.hvals(self._outbox)
        if found and seconds:
            since = self._now() - seconds * 1000
            found = [value for value in found if json.loads(value)["relayed"] <= since]
        return sorted((value.decode() for value in found), key=_place)

    def _now(self) -> float:
        """Redis's own time in ms, which ``relayed`` is of."""
        moment: Any = self.client.time()
        return float(moment[0] * 1000 + moment[1] / 1000)

    def published(self, signals: Iterable[str]) -> None:
        ids = [json.loads(signal)["id"] for signal in signals]
        if ids:
            self.client.hdel(self._outbox, *ids)

    def active(self) -> list[dict[str, str]]:
        """The active signals, newest last, as Redis has them (texts)."""
        ids: Any = self.client.zrange(f"{self.prefix}signals:active", 0, -1)
        pipe = self.client.pipeline(transaction=False)
        for name in ids:
            pipe.hgetall(f"{self.prefix}signal:{name.decode()}")
        found = [{k.decode(): v.decode() for k, v in row.items()} for row in pipe.execute()]
        return sorted((row for row in found if row), key=lambda row: int(row["timestamp"]))
