"""The relay: tick-rules → what fires → Redis, stock-signals. A consumer group; members share the partitions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import redis
from kafka.errors import CommitFailedError, RebalanceInProgressError

from sise.console import tell
from sise.indicators.registry import Registry
from sise.serving.kafka import consumer, ensure_topics, epoch_of_ticks, producer, send_all
from sise.serving.signals import SignalStore, connect, patiently
from sise.settings import Settings
from sise.signals.rules import LiveRules
from sise.topics import RELAY_GROUP, RULES, SIGNALS, key_of, topic_of

__all__ = ["RulesFile", "publish", "relay"]

_COMMIT_EVERY = 0.25  # seconds; what comes again after a crash is refused by its source offset


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


def publish(store: SignalStore, sender: object, topic: str, signals: list[str], say: Callable[[str], None]) -> None:
    """Signals to Kafka; only when they are acknowledged they leave the outbox."""
    if signals:
        send_all(sender, topic, [(key_of(json.loads(signal)), signal.encode()) for signal in signals])  # type: ignore[arg-type]
        patiently(lambda: store.published(signals), say)


def relay(
    settings: Settings, registry: Registry, stop: Callable[[], bool], idle_seconds: float | None = None
) -> dict[str, int]:
    """Runs until ``stop()``, or until nothing came for ``idle_seconds``. Returns records read and signals fired.

    Offsets are committed after the write; Redis away is waited for, and what was read meanwhile is not lost.
    """
    file = RulesFile(settings.conf_file("watchlists.json"), registry)
    ensure_topics(settings)
    client: redis.Redis = connect(settings)
    store = SignalStore(client, settings, epoch_of_ticks(settings))
    topic = topic_of(SIGNALS, settings.topic_prefix)
    sender = producer(settings, linger_ms=0)
    reader = consumer(settings, [RULES], RELAY_GROUP, fetch_max_wait_ms=10)
    counts = {"records": 0, "signals": 0}
    last = committed = time.monotonic()
    dirty = False
    try:
        publish(store, sender, topic, patiently(store.unpublished, tell, stop), tell)
        while not stop():
            batch = reader.poll(timeout_ms=200)
            now = time.monotonic()
            if batch:
                last, dirty = now, True
                for messages in batch.values():
                    records = [message.value for message in messages]
                    fired = store.fire_patiently(records, file.rules, tell, stop)
                    publish(store, sender, topic, fired, tell)
                    counts["records"] += len(records)
                    counts["signals"] += len(fired)
            if dirty and (now - committed > _COMMIT_EVERY or not batch):
                try:
                    reader.commit()
                except (CommitFailedError, RebalanceInProgressError):
                    tell("relay: the group shares its partitions anew; what was read comes again and is refused")
                committed, dirty = now, False
                if file.changed():
                    tell(f"relay: rules {file.rules.version}")
            if idle_seconds is not None and now - last > idle_seconds:
                break
    finally:
        reader.close()
        sender.close(5)
        client.close()
    return counts
