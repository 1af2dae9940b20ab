"""What a person is told of a streaming query that ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from sise.serving.ended import why_ended

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
