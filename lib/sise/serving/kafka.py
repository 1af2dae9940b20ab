"""The project's topics in Kafka: made where they are missing, and read; sender.py sends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import BrokerResponseError, KafkaError, RetriableError, TopicAlreadyExistsError

from sise.errors import SiseError
from sise.settings import Settings
from sise.topics import DEAD, RULES, SIGNALS, TICKS, Topic, topic_of

__all__ = [
    "check_slots",
    "consumer",
    "ensure_topics",
    "epoch_of_ticks",
    "partitions_by_topic",
    "partitions_of",
    "reached",
    "read_all",
]

TOPICS = (TICKS, RULES, SIGNALS, DEAD)
HEADROOM = 2  # the price query, and the broadcast of live_state


@contextmanager
def reached(settings: Settings) -> Iterator[None]:
    """Turns a client's failure into an error that names the broker and the remedy."""
    try:
        yield
    except (KafkaError, OSError, ValueError) as problem:
        if isinstance(problem, BrokerResponseError) and not isinstance(problem, RetriableError):
            raise SiseError(f"Kafka at {settings.kafka} refuses: {problem}") from problem
        why = str(problem) if isinstance(problem, KafkaError) else f"{type(problem).__name__}: {problem}"
        raise SiseError(
            f"Kafka does not answer at {settings.kafka} ({why}): start it with 'make up', or set SISE_KAFKA"
        ) from problem


@contextmanager
def _admin(settings: Settings, reach_ms: int = 20_000, answer_ms: int = 30_000) -> Iterator[KafkaAdminClient]:
    with reached(settings):
        admin = KafkaAdminClient(
            bootstrap_servers=settings.kafka,
            client_id="sise",
            bootstrap_timeout_ms=reach_ms,
            request_timeout_ms=answer_ms,
        )
        try:
            yield admin
        finally:
            admin.close()


def ensure_topics(settings: Settings, topics: Sequence[Topic] = TOPICS) -> None:
    """Makes the topics that are missing, with SISE_PARTITIONS partitions and the broker's time on each record.

    A topic that is there is left as it is, but one whose records carry the sender's time is refused: "now" is
    Kafka's record time (signals/judge.py).
    """
    with _admin(settings) as admin:
        known = set(admin.list_topics())
        names = [topic_of(topic, settings.topic_prefix) for topic in topics]
        _refuse_senders_time(admin, [name for name in names if name in known])
        for topic, name in zip(topics, names, strict=True):
            if name in known:
                continue
            config = {
                "message.timestamp.type": "LogAppendTime",
                "retention.ms": str(topic.retention_hours * 3_600_000),
            }
            replicas = 1 if len(admin.describe_cluster()["brokers"]) < 3 else 3
            with suppress(TopicAlreadyExistsError):  # another job made it just now
                admin.create_topics([NewTopic(name, settings.partitions, replicas, topic_configs=config)])
        # Made is not yet known to the broker that is asked next, for the topic's id (epoch_of_ticks) above all.
        if made := [name for name in names if name not in known]:
            admin.wait_for_topics(made, timeout_ms=60_000)


def _refuse_senders_time(admin: KafkaAdminClient, names: Sequence[str]) -> None:
    setting = "message.timestamp.type"
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, {setting: None}) for name in names]
    told = admin.describe_configs(asked, config_filter="all").get("topic", {}) if asked else {}
    for name, values in sorted(told.items()):
        if (values.get(setting) or {}).get("value") == "CreateTime":  # a broker that does not tell is believed
            raise SiseError(
                f"the records of the topic {name} carry the sender's time, and what is too old is judged by the "
                f"broker's: set its {setting} to LogAppendTime (kafka-configs --alter), or stop its feed and delete it"
            )


def _described(
    settings: Settings, topics: Sequence[Topic], reach_ms: int = 20_000, answer_ms: int = 30_000
) -> dict[Topic, dict[str, Any]]:
    """What Kafka tells of the topics, in their order, without those that are not there."""
    names = {topic: topic_of(topic, settings.topic_prefix) for topic in topics}
    with _admin(settings, reach_ms, answer_ms) as admin:
        told = admin.describe_topics(list(names.values()))
    found = {about["name"]: about for about in told if not about.get("error_code")}
    return {topic: found[name] for topic, name in names.items() if name in found}


def _one(settings: Settings, topic: Topic) -> dict[str, Any]:
    if not (found := _described(settings, [topic])):
        raise SiseError(f"Kafka at {settings.kafka} has no topic {topic_of(topic, settings.topic_prefix)}")
    return found[topic]


def partitions_by_topic(settings: Settings, topics: Sequence[Topic], reach_ms: int, answer_ms: int) -> dict[Topic, int]:
    """How many partitions each of the topics has, without those that are not there. (The consumer would ask for them
    without an end to its patience.)"""
    found = _described(settings, topics, reach_ms, answer_ms)
    return {topic: len(about["partitions"]) for topic, about in found.items()}


def partitions_of(settings: Settings, topic: Topic = TICKS) -> int:
    return len(_one(settings, topic)["partitions"])


def epoch_of_ticks(settings: Settings) -> str:
    """Names the life of the tick topic: another one after it was deleted and made again."""
    return str(_one(settings, TICKS)["topic_id"])[:8]


def consumer(settings: Settings, topics: Sequence[Topic], group: str | None, **options: Any) -> KafkaConsumer:
    """Reads from where the group (of these topics' prefix) left off, else from the beginning; the caller commits."""
    names = [topic_of(topic, settings.topic_prefix) for topic in topics]
    with reached(settings):
        return KafkaConsumer(
            *names,
            bootstrap_servers=settings.kafka,
            group_id=settings.topic_prefix + group if group else None,
            **{
                "enable_auto_commit": False,
                "auto_offset_reset": "earliest",
                "fetch_max_wait_ms": 20,
                "max_poll_records": 2_000,
                "session_timeout_ms": 10_000,  # a member that died is replaced after so long,
                "max_poll_interval_ms": 60_000,  # and one that waits for something does not hold the others up longer
                # A group's leader that has not been told the topic's partitions yet gives nobody any, and the client
                # may forget that it was to ask for them until this is over.
                "metadata_max_age_ms": 10_000,
                "reconnect_backoff_max_ms": 1_000,
                **options,
            },
        )


def read_all(settings: Settings, topic: Topic) -> list[dict[str, Any]]:
    """The JSON objects that are in a topic by now. Raises SiseError where Kafka stops answering on the way."""
    found: list[dict[str, Any]] = []
    parts = [TopicPartition(topic_of(topic, settings.topic_prefix), n) for n in range(partitions_of(settings, topic))]
    with reached(settings), closing(consumer(settings, [], None)) as reader:
        reader.assign(parts)
        ends, end = reader.end_offsets(parts), time.monotonic() + 120
        while any((reader.position(part) or 0) < ends[part] for part in parts):
            for batch in reader.poll(300).values():
                found += [json.loads(message.value) for message in batch]
                end = time.monotonic() + 120
            if time.monotonic() > end:
                raise TimeoutError("no record for two minutes")
    return found


def check_slots(master: str, slots: int, partitions: int) -> None:
    """Real-time mode keeps a task slot for each Kafka partition, and does not deliver where one has none."""
    if slots >= partitions + HEADROOM:
        return
    need = partitions + HEADROOM
    how = f"set SISE_MASTER='local[{need}]' (it may exceed the cores)" if master.startswith("local") else "add cores"
    raise SiseError(
        f"real-time mode needs a task slot for each of the {partitions} partitions of {TICKS.name} and {HEADROOM} "
        f"more: {need}, and {master} has {slots}. Records would silently not be delivered: {how}, or use "
        "--trigger micro-batch"
    )
