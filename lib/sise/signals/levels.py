"""Trigger levels: at which price a rule would fire, with the history fixed. No JVM: numpy over live_state's rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sise.indicators.algebra import Arrays
from sise.indicators.live import at_price
from sise.indicators.registry import Registry
from sise.signals.rules import LiveRule, LiveRules
from sise.ticks import limit_prices, tick_size

__all__ = ["WHYS", "Level", "levels_of", "needs_volume", "strict_at", "values_at"]

_OPS = Arrays()


_POINTS = 2049
_SO_FAR = {"day_volume", "session_share", "elapsed_minutes"}

# Why a level has no price; the viewer has a sentence in each language for every one.
WHYS = (
    _VOLUME := "depends on the volume so far",
    _COLD := "not warm yet",
    _LACKING := "not in live_state yet: run jobs/compute_indicators.py",
    _ALWAYS := "at every price of the session",
    _NEVER := "not today",
    _BETWEEN := "not one level: between prices only",
    _OUTSIDE := "not one level: outside of prices only",
)


@dataclass(frozen=True)
class Level:
    """Where one rule fires for one share: at ``price`` and everything ``side`` ("below" or "above") of it.

    ``price`` is None where no price inside the session's limits makes it fire ("not today": of a US share from some 20
    dollars on each second, third … price is looked at, 2,049 of them), where the rule does not depend on the price, or
    where it holds between or outside of prices only (``requires`` may bound it); ``now``: it holds at the last close
    already. ``away``: the move from there, a fraction.
    """

    rule: str
    side: str | None
    price: float | None
    away: float | None
    now: bool
    why: str = ""


def values_at(
    registry: Registry, names: Collection[str], state: Mapping[str, Any], price: Any, day_volume: Any = 0.0
) -> dict[str, Any]:
    """What rules that name ``names`` may name (signals/rules.py), at ``price``. ``state``: live_state's row; arrays of
    prices work. Raises KeyError for what ``state`` does not have."""
    needed = registry.only({name.removeprefix("prev_") for name in names})
    known = {k: (np.nan if v is None else v) for k, v in state.items()}
    values = at_price(needed, np.asarray(price, float), day_volume, known, _OPS)
    values |= {f"prev_{c}": known[c] for c in ("close", "volume", *needed.core) if c in known}
    return values | {"price": np.asarray(price, float), "day_volume": day_volume, "session_share": np.nan}


def needs_volume(rule: LiveRule) -> bool:
    """Whether what the rule says of a price depends on the volume that the session has so far, or on the time."""
    return any(name in _SO_FAR or name.startswith("volume_") for name in rule.names)


def strict_at(registry: Registry, rule: LiveRule, state: Mapping[str, Any], price: Any) -> np.ndarray:
    """Whether ``rule`` holds at each price. A rule that needs the volume so far holds at none. Raises KeyError for what
    ``state`` does not have."""
    if needs_volume(rule):
        return np.zeros(np.shape(price), bool)
    with np.errstate(all="ignore"):
        return np.asarray(rule.holds(values_at(registry, rule.names, state, price), _OPS)[0], bool)


def levels_of(registry: Registry, rules: LiveRules, state: Mapping[str, Any], us_limit: float = 0.5) -> list[Level]:
    """The level of each rule for one share. ``state``: its row of live_state; prices in its currency, re-based.

    Looked for between KRX's limit prices, for US shares ``us_limit`` around the last close; rounded to the tick at
    which the rule does hold.
    """
    close = float(state["close"])
    low, high = limit_prices(close) if state["country"] == "KR" else (close * (1 - us_limit), close * (1 + us_limit))
    return [_level(registry, rule, state, close, float(low), float(high)) for rule in rules.rules]


def _level(
    registry: Registry, rule: LiveRule, state: Mapping[str, Any], close: float, low: float, high: float
) -> Level:
    if needs_volume(rule):
        return Level(rule.name, None, None, None, False, _VOLUME)
    grid = _grid(low, high, tick_size(low, str(state["country"])))
    try:
        with np.errstate(all="ignore"):
            at_close = values_at(registry, rule.names, state, close)
        cold = any(np.isnan(at_close[name]) for name in rule.names)
        holds = strict_at(registry, rule, state, grid)
    except KeyError:
        return Level(rule.name, None, None, None, False, _LACKING)
    if cold:
        return Level(rule.name, None, None, None, False, _COLD)
    now = bool(strict_at(registry, rule, state, close))
    if holds.all() if now else not holds.any():
        return Level(rule.name, None, None, None, now, _ALWAYS if now else _NEVER)
    if np.count_nonzero(np.diff(holds)) != 1:
        return Level(rule.name, None, None, None, now, _OUTSIDE if holds[0] and holds[-1] else _BETWEEN)
    side = "below" if holds[0] else "above"
    edge = int(np.argmin(holds)) - 1 if side == "below" else int(np.argmax(holds))
    inside, outside = (grid[edge], grid[edge + 1]) if side == "below" else (grid[edge], grid[edge - 1])
    for _ in range(9):  # sixteen times nearer each round
        between = np.linspace(inside, outside, 17)
        last = int(np.argmin(np.append(strict_at(registry, rule, state, between), False))) - 1
        inside, outside = between[max(last, 0)], between[min(last + 1, 16)]
    price = _to_tick(registry, rule, state, float(inside), side)
    if not low <= price <= high:
        return Level(rule.name, side, None, None, now, _NEVER)
    return Level(rule.name, side, price, price / close - 1, now)


def _grid(low: float, high: float, tick: float) -> np.ndarray:
    """Prices from ``low`` to ``high``: each that can be quoted, where they are no more than _POINTS (a rule may hold at
    few of them), else so many of them."""
    first, last = int(np.ceil(low / tick - 1e-9)), int(np.floor(high / tick + 1e-9))
    if last - first < 2:
        return np.linspace(low, high, 129)
    return np.round(np.unique(np.linspace(first, last, min(last - first + 1, _POINTS)).round()) * tick, 4)


def _to_tick(registry: Registry, rule: LiveRule, state: Mapping[str, Any], price: float, side: str) -> float:
    """The first price on the exchange's grid, going into the side, at which the rule holds."""
    down = side == "below"
    step = tick_size(price, str(state["country"]))
    units = price / step
    found = (np.floor(units + 1e-9) if down else np.ceil(units - 1e-9)) * step
    for _ in range(3):
        if bool(strict_at(registry, rule, state, found)):
            break
        step = tick_size(found - 1e-9 if down else found, str(state["country"]))
        found = found - step if down else found + step
    return round(float(found), 4)
