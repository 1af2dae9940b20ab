"""The relay: tick-rules → what fires → Redis, stock-signals. A consumer group; members share the partitions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import redis
from kafka import KafkaConsumer
from kafka.errors import CommitFailedError, KafkaError, RebalanceInProgressError
from kafka.future import Future as Asked

from sise.console import tell
from sise.errors import SiseError
from sise.indicators.registry import Registry
from sise.serving.kafka import consumer, ensure_topics, epoch_of_ticks
from sise.serving.sender import Sender
from sise.serving.signals import SignalStore, connect, patiently
from sise.settings import Settings
from sise.signals.rules import LiveRules
from sise.topics import RELAY_GROUP, RULES, SIGNALS, key_of, topic_of

__all__ = ["Publisher", "RulesFile", "publish", "relay"]

_SILENCE = 15.0  # seconds without a partition before it is said
_PATIENCE = 30.0  # seconds without a partition before it joins its group anew, then twice as many
# What 10 ms bring at once, not each record as it comes: that is half of the relay's work at 1,000 ticks/s.
_FETCH = {"fetch_min_bytes": 65_536, "fetch_max_wait_ms": 10}
_LEFT_SECONDS = 5.0  # how long a signal is in no topic until another member may send it: the one that fired it is dead
_COMMIT_EVERY = 0.25  # seconds; what comes again after a crash is refused by its source offset
_ANSWER_SECONDS = 5.0  # how long Kafka may take to say that it knows, before it is told again


class RulesFile:
    """conf/watchlists.json as it is now: read again when the file has changed. A file that does not load leaves the
    rules as they were, and says why."""

    def __init__(self, path: Path, registry: Registry):
        self.path, self.registry = path, registry
        self._stamp = self._now()
        self.rules = LiveRules.load(path, registry)

    def _now(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_size)

    def changed(self) -> bool:
        """Reads the file again if it has changed; whether the rules are others now."""
        if (stamp := self._now()) == self._stamp or stamp == (0, 0):
            return False
        self._stamp, before = stamp, self.rules.version
        try:
            self.rules = LiveRules.load(self.path, self.registry)
        except Exception as problem:
            tell(f"the rules stay as they were: {problem}")
        return self.rules.version != before


def publish(store: SignalStore, sender: Sender, topic: str, signals: list[str]) -> None:
    """Signals to Kafka; only when they are acknowledged they leave the outbox."""
    if signals:
        sender.send(topic, [(key_of(json.loads(signal)), signal.encode()) for signal in signals])
        patiently(lambda: store.published(signals), tell, sender.stop)


class Publisher:
    """``publish`` beside the next records: what fires by them waits for no acknowledgement."""

    def __init__(self, store: SignalStore, sender: Sender, topic: str):
        self._publish = partial(publish, store, sender, topic)
        self._pool = ThreadPoolExecutor(1)
        self._sending: list[str] = []
        self._waiting: list[str] = []
        self._work: Future[None] | None = None

    def put(self, signals: list[str]) -> None:
        """Takes signals, in their order; those on their way already (they are in the outbox, too) not again. To be
        called again and again: raises what ended the sending."""
        known = {*self._sending, *self._waiting}  # asked first: since ``signals`` were read more may have arrived
        self._waiting += [signal for signal in dict.fromkeys(signals) if signal not in known]
        if self._work is None or self._work.done():
            self._wait()
            if self._waiting:
                self._sending, self._waiting = self._waiting, []
                self._work = self._pool.submit(self._publish, self._sending)

    def _wait(self) -> None:
        if self._work is not None:
            self._work.result()
        self._work, self._sending = None, []

    def finish(self) -> None:
        """Waits until all of them are in Kafka."""
        while self._work is not None:
            self._wait()
            self.put([])

    def close(self) -> None:
        self._pool.shutdown()


class _Reader:
    """The group's records. A Kafka that is away, or gives this member no partition, gives none, and that is said."""

    def __init__(self, settings: Settings):
        self.settings, self.where = settings, settings.kafka
        self._reader: KafkaConsumer = consumer(settings, [RULES], RELAY_GROUP, **_FETCH)
        self.joined = 0.0  # since when it has had partitions
        self._since, self._said, self._patience = time.monotonic(), False, _PATIENCE
        self._asked: Asked | None = None
        self._committed, self._behind = self._since, False

    def poll(self) -> list[bytes]:
        """The values that came, those of a partition in their order."""
        try:
            batch = self._reader.poll(timeout_ms=200)
        except KafkaError as problem:
            if not problem.retriable:
                raise
            batch = {}
            time.sleep(0.2)
        if self._reader.assignment():
            if self._said:
                tell(f"relay: it has its partitions after {time.monotonic() - self._since:.0f} s")
            self._since, self._said, self._patience = time.monotonic(), False, _PATIENCE
            self.joined = self.joined or self._since
        elif not self._said and time.monotonic() - self._since > _SILENCE:
            tell(f"relay: Kafka at {self.where} has given it no partition of {RULES.name} yet: waiting")
            self._said = True
        elif time.monotonic() - self._since > self._patience:
            self._patience *= 2  # a group with more members than partitions has none for some
            self._join_anew()
        self._behind = self._behind or bool(batch)
        return [message.value for messages in batch.values() for message in messages]

    def _join_anew(self) -> None:
        """A client can lose sight of its group and asks for nothing any more: seen on a machine that had ten times more
        to do than it could, for as long as anybody looked."""
        try:
            reader = consumer(self.settings, [RULES], RELAY_GROUP, bootstrap_timeout_ms=5_000, **_FETCH)
        except SiseError:  # Kafka is away, which is why
            return
        tell("relay: joining its group anew")
        self.close()
        self._reader, self._asked, self._behind = reader, None, False

    def commit(self) -> None:
        """Tells Kafka now and then how far it is, and waits for no answer. Where Kafka does not know, what was read
        comes again after a crash, and is refused."""
        now, asked = time.monotonic(), self._asked
        if now - self._committed < (_COMMIT_EVERY if asked is None or asked.is_done else _ANSWER_SECONDS):
            return
        if asked is not None and not asked.succeeded():
            self._behind = True
            if isinstance(asked.exception, CommitFailedError | RebalanceInProgressError):
                tell("relay: the group shares its partitions anew; what was read comes again and is refused")
        self._asked = self._reader.commit_async() if self._behind else None
        self._committed, self._behind = now, False

    def finish(self) -> None:
        """Tells it for the last time."""
        with suppress(KafkaError):
            self._reader.commit(timeout_ms=5_000)

    def close(self) -> None:
        self._reader.close(timeout_ms=5_000)


def relay(
    settings: Settings, registry: Registry, stop: Callable[[], bool], idle_seconds: float | None = None
) -> dict[str, int]:
    """Runs until ``stop()``, or until nothing came for ``idle_seconds`` after it was given its partitions (a minute, if
    it is given none). Returns records read and signals fired.

    Offsets are committed after the write; Redis or Kafka away is waited for, and what was read meanwhile is not lost.
    """
    file = RulesFile(settings.conf_file("watchlists.json"), registry)
    ensure_topics(settings)
    client: redis.Redis = connect(settings)
    store = SignalStore(client, settings, epoch_of_ticks(settings))
    ended = threading.Event()
    sender = Sender(settings, lambda: stop() or ended.is_set(), linger_ms=0)
    publisher, reader = Publisher(store, sender, topic_of(SIGNALS, settings.topic_prefix)), _Reader(settings)
    counts = {"records": 0, "signals": 0}
    last = looked = time.monotonic()
    try:
        publisher.put(patiently(store.unpublished, tell, stop))
        while not stop():
            records, fired = reader.poll(), []
            now = time.monotonic()
            if records:
                last = now
                fired = store.fire_patiently(records, file.rules, tell, stop)
                counts["records"] += len(records)
                counts["signals"] += len(fired)
            if now - looked > _LEFT_SECONDS:
                looked = now
                fired += patiently(lambda: store.unpublished(_LEFT_SECONDS), tell, stop)
            if file.changed():
                tell(f"relay: rules {file.rules.version}")
            publisher.put(fired)
            reader.commit()
            if idle_seconds is not None:
                patience = idle_seconds if reader.joined else max(idle_seconds, 60)
                if now - max(last, reader.joined) > patience:
                    break
        publisher.finish()
        reader.finish()
    finally:
        ended.set()
        publisher.close()
        reader.close()
        sender.close()
        client.close()
    return counts
