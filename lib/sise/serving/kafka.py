"""The project's topics in Kafka: made where they are missing, written and read with settings that lose nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from sise.errors import SiseError
from sise.settings import Settings
from sise.topics import DEAD, RULES, SIGNALS, TICKS, Topic, topic_of

__all__ = ["consumer", "ensure_topics", "epoch_of_ticks", "partitions_of", "producer", "read_all", "send_all"]

TOPICS = (TICKS, RULES, SIGNALS, DEAD)


@contextmanager
def _reached(settings: Settings) -> Iterator[None]:
    """Turns a client's failure to reach the broker into an error that names it and the remedy."""
    try:
        yield
    except (KafkaError, OSError, ValueError) as problem:
        raise SiseError(
            f"Kafka does not answer at {settings.kafka} ({type(problem).__name__}): start it with 'make up', or set "
            "SISE_KAFKA"
        ) from problem


def _admin(settings: Settings) -> KafkaAdminClient:
    with _reached(settings):
        return KafkaAdminClient(
            bootstrap_servers=settings.kafka, client_id="sise", bootstrap_timeout_ms=10_000, request_timeout_ms=15_000
        )


def ensure_topics(settings: Settings, topics: Sequence[Topic] = TOPICS) -> None:
    """Makes the topics that are missing, with SISE_PARTITIONS partitions and the broker's time on each record.

    A topic that is there is left as it is, but one whose records carry the sender's time is refused: "now" is
    Kafka's record time (signals/judge.py).
    """
    admin = _admin(settings)
    try:
        known = set(admin.list_topics())
        _refuse_senders_time(admin, [name for t in topics if (name := topic_of(t, settings.topic_prefix)) in known])
        for topic in topics:
            name = topic_of(topic, settings.topic_prefix)
            if name in known:
                continue
            config = {
                "message.timestamp.type": "LogAppendTime",
                "retention.ms": str(topic.retention_hours * 3_600_000),
            }
            replicas = 1 if len(admin.describe_cluster()["brokers"]) < 3 else 3
            try:
                admin.create_topics([NewTopic(name, settings.partitions, replicas, topic_configs=config)])
            except TopicAlreadyExistsError:
                continue  # another job made it just now
    finally:
        admin.close()


def _refuse_senders_time(admin: KafkaAdminClient, names: Sequence[str]) -> None:
    setting = "message.timestamp.type"
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, {setting: None}) for name in names]
    told = admin.describe_configs(asked, config_filter="all").get("topic", {}) if asked else {}
    for name, values in sorted(told.items()):
        if (values.get(setting) or {}).get("value") == "CreateTime":  # a broker that does not tell is believed
            raise SiseError(
                f"the records of the topic {name} carry the sender's time, and what is too old is judged by the "
                f"broker's: set its {setting} to LogAppendTime (kafka-configs --alter), or delete it while it is empty"
            )


def _described(settings: Settings, topic: Topic) -> dict[str, Any]:
    admin = _admin(settings)
    try:
        found = admin.describe_topics([topic_of(topic, settings.topic_prefix)])
        return dict(found[0] if isinstance(found, list) else next(iter(found.values())))
    finally:
        admin.close()


def partitions_of(settings: Settings, topic: Topic = TICKS) -> int:
    return len(_described(settings, topic)["partitions"])


def epoch_of_ticks(settings: Settings) -> str:
    """Names the life of the tick topic: another one after it was deleted and made again."""
    return str(_described(settings, TICKS)["topic_id"])[:8]


def producer(settings: Settings, **options: Any) -> KafkaProducer:
    """Acknowledged by every replica, idempotent, and quick: a message waits 5 ms at most for company."""
    with _reached(settings):
        return KafkaProducer(
            bootstrap_servers=settings.kafka,
            **{"acks": "all", "linger_ms": 5, "enable_idempotence": True, "max_block_ms": 60_000, **options},
        )


def consumer(settings: Settings, topics: Sequence[Topic], group: str | None, **options: Any) -> KafkaConsumer:
    """Reads from where the group (of these topics' prefix) left off, else from the beginning; the caller commits."""
    names = [topic_of(topic, settings.topic_prefix) for topic in topics]
    with _reached(settings):
        reader = KafkaConsumer(
            *names,
            bootstrap_servers=settings.kafka,
            group_id=settings.topic_prefix + group if group else None,
            **{
                "enable_auto_commit": False,
                "auto_offset_reset": "earliest",
                "fetch_max_wait_ms": 20,
                "max_poll_records": 2_000,
                "max_poll_interval_ms": 1_800_000,
                "session_timeout_ms": 10_000,  # a member that died is replaced after so long
                "metadata_max_age_ms": 10_000,
                **options,
            },
        )
        # A group's leader that has not been told the topic's partitions yet gives nobody any, and the client may forget
        # to ask again until its metadata is too old: asked here, before the first poll joins the group.
        for name in names:
            reader.partitions_for_topic(name)
        return reader


def send_all(sender: KafkaProducer, topic: str, messages: Iterable[tuple[bytes | None, bytes]]) -> None:
    """Sends every (key, value) and waits until all are acknowledged; raises what went wrong with the first that
    was not."""
    futures = [sender.send(topic, value, key=key) for key, value in messages]
    if futures:
        sender.flush()
        for future in futures:
            future.get(60)


def read_all(settings: Settings, topic: Topic, quiet: float = 2.0) -> list[dict[str, Any]]:
    """The JSON objects that are in a topic by now: read from its beginning until nothing came for ``quiet`` seconds."""
    reader = consumer(settings, [topic], None)
    found, last = [], time.monotonic()
    while time.monotonic() - last < quiet:
        for batch in reader.poll(300).values():
            found += [json.loads(message.value) for message in batch]
            last = time.monotonic()
    reader.close()
    return found
