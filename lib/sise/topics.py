"""The Kafka topics and the shapes of what is in them: the one place that knows a field of a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "DEAD",
    "LONGEST",
    "RELAY_GROUP",
    "RULES",
    "SIGNALS",
    "TICKS",
    "TICK_FIELDS",
    "Tick",
    "Topic",
    "key_of",
    "topic_of",
    "with_reference",
]

Tick = dict[str, Any]
LONGEST = 200  # characters of a tick's key, market or label
RELAY_GROUP = "sise-relay"  # of consumers; SISE_TOPIC_PREFIX comes before it as before a topic


@dataclass(frozen=True)
class Topic:
    """A topic; ``keyed`` by share (KR:005930), so that a share's messages are in order in one partition."""

    name: str
    about: str
    keyed: bool = True
    retention_hours: int = 72


TICKS = Topic("realtime-stock", "ticks, as feeds send them")
RULES = Topic("tick-rules", "ticks near a rule, with which rules hold")
SIGNALS = Topic("stock-signals", "fired signals, each id once or more", retention_hours=24 * 30)
DEAD = Topic("realtime-stock-dlq", "ticks that were refused, with the reason", retention_hours=24 * 30)

# A tick: JSON type (as Spark reads it) and whether it must be there. timestamp: ms since 1970, UTC. session: the
# exchange's session date. reference: the price the exchange counts the day's move from; clock: the feed's own time,
# ms, where it is not that of the record (a replay; a live feed's, when the tick came to it); label: a test's own.
TICK_FIELDS: dict[str, tuple[str, bool]] = {
    "country": ("string", True),
    "symbol": ("string", True),
    "market": ("string", False),
    "price": ("double", True),
    "volume": ("bigint", False),
    "day_volume": ("bigint", True),
    "timestamp": ("bigint", True),
    "session": ("string", True),
    "source": ("string", False),
    "reference": ("double", False),
    "clock": ("bigint", False),
    "label": ("string", False),
}


def with_reference(tick: Tick, reference: float) -> Tick:
    """The tick with the price from which the exchange counts the day's move, if that is a price."""
    return tick | {"reference": round(reference, 4)} if 0 < reference < float("inf") else tick


def key_of(message: Mapping[str, Any]) -> bytes:
    """The Kafka key of a tick, record or signal: its share, KR:005930."""
    return f"{message['country']}:{message['symbol']}".encode()


def topic_of(topic: Topic, prefix: str) -> str:
    """The topic's name in Kafka: SISE_TOPIC_PREFIX keeps two installations on one broker apart."""
    return f"{prefix}{topic.name}"
