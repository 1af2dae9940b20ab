"""--source test: ticks of which it is known beforehand what they fire.

Computed from live_state: a labelled tick's price is inside the level of a chosen rule, its label names every rule
that holds there; the other ticks' prices make no rule hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sise.errors import InputError
from sise.indicators.algebra import Arrays
from sise.indicators.registry import Registry
from sise.signals.curves import Curve, hours_of, so_far
from sise.signals.levels import levels_of, values_at
from sise.signals.rules import LiveRule, LiveRules
from sise.ticks import tick_size
from sise.topics import LONGEST, Tick

__all__ = ["TestFeed", "rules_at"]

_SURGE = 3.0
_OPS = Arrays()


def rules_at(
    registry: Registry,
    rules: LiveRules,
    curves: Mapping[str, Curve],
    state: Mapping[str, Any],
    price: float,
    day_volume: int,
    timestamp: int,
) -> list[str]:
    """The rules that a tick makes hold, by numpy: what the stream must find. Raises InputError where ``state`` does not
    have what they need."""
    try:
        values = values_at(registry, rules.names, state, price, float(day_volume))
    except KeyError as lacking:
        raise InputError(f"live_state lacks {lacking}, which the rules need: run jobs/compute_indicators.py") from None
    values |= so_far(curves, state, timestamp)
    with np.errstate(all="ignore"):
        return [rule.name for rule in rules.rules if bool(rule.holds(values, _OPS)[0])]


@dataclass
class TestFeed:
    """A tick every ``interval`` seconds of its clock; with ``signal_prob`` one that must fire, each share once at most.

    ``states``: live_state's rows of shares that may have signals. The feed's clock starts 45 minutes into the
    session that live_state is for, whatever time it is. ``most``: by country, the move that detection believes.
    """

    __test__ = False  # not a test itself

    registry: Registry
    rules: LiveRules
    curves: Mapping[str, Curve]
    states: Sequence[Mapping[str, Any]]
    interval: float = 5.0
    signal_prob: float = 0.3
    count: int | None = None
    seed: int = 1
    most: Mapping[str, float] | None = None
    name: str = "test"

    def ticks(self) -> Iterator[Tick]:
        rng = np.random.default_rng(self.seed)
        order = list(rng.permutation(len(self.states)))
        fresh = [self.states[i] for i in order]
        sent = 0
        quiet: list[Mapping[str, Any]] = []
        while self.count is None or sent < self.count:
            elapsed_ms = int(sent * self.interval * 1000)
            tick = None
            if rng.random() < self.signal_prob:
                tick = self._firing(fresh, elapsed_ms, rng)
            tick = tick or self._quiet(fresh, quiet, elapsed_ms, rng)
            if tick is None:
                return
            sent += 1
            yield tick

    def _firing(self, fresh: list[Mapping[str, Any]], elapsed_ms: int, rng: np.random.Generator) -> Tick | None:
        """A tick of a share not used yet, at which a rule holds."""
        while fresh:
            state = fresh.pop()
            now = self._now(state, elapsed_ms)
            choices = self._choices(state, now)
            if choices:
                rule, price, volume = choices[int(rng.integers(len(choices)))]
                held = rules_at(self.registry, self.rules, self.curves, state, price, volume, now)
                label = ",".join(held)
                if rule.name in held and len(label) <= LONGEST:
                    return self._tick(state, price, volume, now, label)
        return None

    def _choices(self, state: Mapping[str, Any], now: int) -> list[tuple[LiveRule, float, int]]:
        found: list[tuple[LiveRule, float, int]] = []
        step = tick_size(float(state["close"]), state["country"])
        most = min(0.29, (self.most or {}).get(state["country"], 1.0))
        for level in levels_of(self.registry, self.rules, state, us_limit=0.4):
            rule = self.rules.by_name[level.rule]
            if level.price is not None and level.side is not None:
                price = level.price + (-2 if level.side == "below" else 2) * step
                if price > 0 and abs(price / float(state["close"]) - 1) < most:
                    found.append((rule, round(price, 4), 1))
            elif "day_volume" in rule.names and state.get("volume_avg_20"):
                usual = so_far(self.curves, state, now)["session_share"]
                found.append((rule, float(state["close"]), int(float(state["volume_avg_20"]) * usual * _SURGE) + 1))
        return found

    def _quiet(
        self, fresh: list[Mapping[str, Any]], quiet: list[Mapping[str, Any]], elapsed_ms: int, rng: np.random.Generator
    ) -> Tick | None:
        """A tick at which no rule holds, of a share that is used for nothing else."""
        while len(quiet) < 8 and fresh:
            state = fresh.pop(0)
            if self._quiet_price(state, self._now(state, elapsed_ms)) is not None:
                quiet.append(state)
        for _ in range(len(quiet)):
            state = quiet[int(rng.integers(len(quiet)))]
            now = self._now(state, elapsed_ms)
            price = self._quiet_price(state, now)
            if price is not None:
                return self._tick(state, price, 1, now, "")
        return None

    def _quiet_price(self, state: Mapping[str, Any], now: int) -> float | None:
        close = float(state["close"])
        step = tick_size(close, state["country"])
        for away in (0, 0.01, -0.01, 0.03, -0.03, 0.06, -0.06):
            price = round(round(close * (1 + away) / step) * step, 4)
            if price > 0 and not rules_at(self.registry, self.rules, self.curves, state, price, 1, now):
                return price
        return None

    def _now(self, state: Mapping[str, Any], elapsed_ms: int) -> int:
        opens, closes = hours_of(state)
        return min(opens + 45 * 60_000 + elapsed_ms, closes)

    def _tick(self, state: Mapping[str, Any], price: float, volume: int, now: int, label: str) -> Tick:
        tick = {
            "country": state["country"],
            "symbol": state["symbol"],
            "market": state["market"],
            "price": price,
            "volume": volume,
            "day_volume": volume,
            "timestamp": now,
            "session": str(state["valid_session"]),
            "source": self.name,
            "clock": now,
        }
        return tick | ({"label": label} if label else {})
