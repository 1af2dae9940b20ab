"""Where ticks come from when no exchange is open: stored bars walked into ticks, and a test's own.

A feed gives ticks in the order of their time; vendors' feeds come behind the same interface. A tick is a dict of
topics.py's fields; ``clock`` is the feed's own time, so that a replay's ticks are not too old.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from sise.errors import InputError
from sise.ticks import round_to_tick
from sise.topics import Tick

__all__ = ["ReplayFeed", "TickFeed", "walk_bar"]


class TickFeed(Protocol):
    """A source of ticks, in the order of their ``clock``."""

    @property
    def name(self) -> str: ...

    def ticks(self) -> Iterator[Tick]: ...


def walk_bar(
    bar: Mapping[str, Any], opens: datetime, closes: datetime, steps: int, rng: np.random.Generator
) -> list[tuple[int, float, int, int]]:
    """One bar as ``steps`` ticks (at least 4): (timestamp ms, price, volume, day volume).

    The first tick is the open, the last the close; the high and the low are reached, the nearer to the open first,
    and nothing lies beyond them. Day volume rises to the bar's. Prices in between are on the exchange's grid.
    """
    count = max(4, steps)
    start, end = int(opens.timestamp() * 1000), int(closes.timestamp() * 1000)
    moments = np.arange(start + 1000, end - 1000, 997)
    if count - 2 > len(moments):
        raise InputError(f"--per-bar {steps} is more than a session of {(end - start) // 60_000} minutes has seconds")
    inner = np.sort(rng.choice(moments, count - 2, replace=False))
    times = [start, *(int(t) for t in inner), end]
    opened, high, low, close = (float(bar[c]) for c in ("open", "high", "low", "close"))
    turns = [high, low] if abs(high - opened) < abs(opened - low) else [low, high]
    first, second = sorted(rng.choice(np.arange(1, count - 1), 2, replace=False))
    anchors = [0, int(first), int(second), count - 1]
    path = np.interp(np.arange(count), anchors, [opened, *turns, close])
    wobble = rng.normal(0, 0.15 * (high - low), count)
    prices = []
    for n, price in enumerate(path):
        if n in anchors:
            prices.append([opened, *turns, close][anchors.index(n)])
        else:
            near = round_to_tick(float(price + wobble[n]), str(bar["country"]))
            prices.append(near if low <= near <= high else float(np.clip(near, low, high)))
    parts = np.floor(rng.dirichlet(np.ones(count)) * float(bar["volume"])).astype(int)
    parts[-1] += int(bar["volume"]) - int(parts.sum())
    total = np.cumsum(parts)
    return [(times[n], prices[n], int(parts[n]), int(total[n])) for n in range(count)]


@dataclass(frozen=True)
class ReplayFeed:
    """Stored bars of one session, walked into ticks, all shares interleaved by time.

    ``bars``: country, symbol, market, open, high, low, close, volume; ``hours``: by country, when the session opens
    and closes (UTC). The feed's clock is the newest tick's time.
    """

    bars: Sequence[Mapping[str, Any]]
    session: Mapping[str, str]
    hours: Mapping[str, tuple[datetime, datetime]]
    steps: int = 32
    seed: int = 1
    name: str = "replay"

    def ticks(self) -> Iterator[Tick]:
        rng = np.random.default_rng(self.seed)
        found = []
        for n, bar in enumerate(self.bars):
            if not bar["volume"] or not bar["open"]:
                continue  # a day without trade has no tick
            opens, closes = self.hours[bar["country"]]
            found += [
                (time, n, price, volume, total)
                for time, price, volume, total in walk_bar(bar, opens, closes, self.steps, rng)
            ]
        found.sort(key=lambda row: (row[0], row[1]))
        for time, n, price, volume, total in found:
            bar = self.bars[n]
            yield {
                "country": bar["country"],
                "symbol": bar["symbol"],
                "market": bar["market"],
                "price": price,
                "volume": volume,
                "day_volume": total,
                "timestamp": time,
                "session": self.session[bar["country"]],
                "source": self.name,
                "clock": time,
            }
