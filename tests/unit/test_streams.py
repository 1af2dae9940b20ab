"""What a person is told of a streaming query that ended; signals on their way to Kafka."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from sise.errors import SiseError
from sise.serving.ended import why_ended
from sise.serving.relay import Publisher

# As Spark's Kafka source says it (error/kafka-error-conditions.json in its jar), and the Kafka client in a task.
LOST = [
    "[STREAM_FAILED] Query [id = 1] terminated with exception: [KAFKA_DATA_LOSS.START_OFFSET_RESET] Some data may have "
    "been lost because they are not available in Kafka any more;\nReason: Starting offset for t-0 was 5 but ...",
    "An exception was raised by the Python Proxy. Return Message: Traceback:\n  File x\n\n"
    "IllegalStateException: Some data may have been lost because they are not available in Kafka any more",
    "Job aborted\norg.apache.kafka.clients.consumer.OffsetOutOfRangeException: Fetch position is out of range",
]


@pytest.mark.parametrize("problem", LOST)
def test_ticks_gone_from_kafka_name_the_folder_to_remove_and_the_retention(problem):
    told = why_ended("prices", problem, Path("/state/checkpoints/ticks-1"))
    assert "/state/checkpoints/ticks-1 " in told and "retention.ms" in told and "72 hours" in told
    said = told.split("Spark says: ")[1]
    assert said in problem and ("lost" in said or "OutOfRange" in said), "the line that tells it, not the first"


def test_another_end_is_told_by_its_first_line():
    told = why_ended("detect", "\n[STREAM_FAILED] out of memory\n  at org.apache", Path("/state"))
    assert told == "the query detect ended: [STREAM_FAILED] out of memory"


def test_signals_go_to_kafka_beside_the_next_records_in_order_and_once():
    """While Kafka does not acknowledge, what is in the outbox is on its way and not sent again."""
    answers, sent, published = threading.Event(), [], []

    def send(topic, messages):
        sent.append([json.loads(value)["id"] for _, value in messages])
        assert answers.wait(10)

    store = SimpleNamespace(published=lambda signals: published.extend(json.loads(s)["id"] for s in signals))
    publisher = Publisher(store, SimpleNamespace(send=send, stop=lambda: False), "stock-signals")
    a, b, c = (json.dumps({"id": name, "country": "KR", "symbol": "A"}) for name in "abc")
    publisher.put([a])
    publisher.put([b])
    publisher.put([c, a, b, c])  # what fired, and as the outbox has them
    assert not published
    answers.set()
    publisher.finish()
    publisher.close()
    assert sent == [["a"], ["b", "c"]] and published == ["a", "b", "c"]


def test_what_ends_the_sending_ends_the_relay():
    def send(topic, messages):
        raise SiseError("Kafka does not take a message")

    publisher = Publisher(SimpleNamespace(), SimpleNamespace(send=send, stop=lambda: False), "stock-signals")
    publisher.put([json.dumps({"id": "a", "country": "KR", "symbol": "A"})])
    with pytest.raises(SiseError, match="does not take"):
        publisher.finish()
    publisher.close()
