"""Why a streaming query ended: what to tell of it, and whether it is to wait for Kafka and start again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from sise.console import tell
from sise.errors import SiseError
from sise.serving.kafka import epoch_of_ticks, partitions_by_topic
from sise.settings import Settings
from sise.topics import TICKS

__all__ = ["Outage", "why_ended"]

# How Spark's Kafka source, and the Kafka client under it, say that what comes next is not in the topic any more.
_DATA_LOSS = ("KAFKA_DATA_LOSS", "Some data may have been lost", "OffsetOutOfRange", "Offsets out of range")
# A query that lived for less was not ended by a Kafka that was away and is back: it would end so for ever.
_SOON = 60.0


def why_ended(query: str, problem: str, checkpoints: Path) -> str:
    """What to tell of a query that ended. ``problem``: Spark's own words; ``checkpoints``: the queries' folder."""
    lines = [line.strip() for line in problem.splitlines() if line.strip()] or ["no reason given"]
    lost = next((line for line in lines if any(words in line for words in _DATA_LOSS)), None)
    if lost is None:
        return f"the query {query} ended: {lines[0]}"
    return (
        f"the query {query} ended: ticks that it has not read are no longer in Kafka, where {TICKS.name} keeps them "
        f"{TICKS.retention_hours} hours (its retention.ms). Was detection stopped for longer? Remove the folder "
        f"{checkpoints} and start again: it goes on with the oldest tick that is there, and Redis refuses what it has "
        f"seen, so no signal comes twice. For longer stops raise retention.ms. Spark says: {lost}"
    )


@dataclass
class Outage:
    """Spark ends a query that cannot reach Kafka for a minute or two. ``epoch``: of the ticks' topic."""

    settings: Settings
    epoch: str
    begun: float = 0.0  # when the queries were started
    since: float | None = None

    def over(self, problem: str) -> bool | None:
        """Of a query that ended with ``problem``: False while Kafka is away, True once it is back, None where Kafka has
        no part in it. Raises SiseError where it is back with another topic of ticks."""
        try:
            there = partitions_by_topic(self.settings, [TICKS], 2_000, 5_000)
        except SiseError as away:
            if self.since is None:
                self.since = time.monotonic()
                tell(f"Kafka is away: detection waits, and goes on where it was. {away}")
            return False
        if not there:
            return None
        gave_up = "Timeout" in problem and "kafka" in problem.lower()
        if self.since is None and (not gave_up or time.monotonic() - self.begun < _SOON):
            return None
        if epoch_of_ticks(self.settings) != self.epoch:
            raise SiseError("the topic of ticks was made anew while Kafka was away: start detection again")
        waited = "" if self.since is None else f" after {time.monotonic() - self.since:.0f} s"
        tell(f"Kafka is back{waited}: detection goes on from its checkpoint")
        self.since = None
        return True
