"""The indicators at the tick: what each would be if the bar closed at this price, from live_state alone.

Pure arithmetic, no state, no UDF: as Spark columns it runs in batch, in micro-batches and in Spark's real-time mode,
as numpy arrays it answers where a rule would fire (signals/levels.py). For every bar, ``at_price`` at its close over
the state of the bar before equals the batch (a test, on real prices).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sise.indicators.algebra import Algebra
from sise.indicators.registry import BOLLINGER, MACD, Registry

__all__ = ["at_price"]


def at_price(
    registry: Registry,
    price: Any,
    volume: Any,
    state: Mapping[str, Any],
    ops: Algebra,
    *,
    high: Any = None,
    low: Any = None,
) -> dict[str, Any]:
    """Values by indicator: what it is if the session's bar closed at ``price`` with ``volume`` traded so far.

    ``state``: live_state's columns by name. ``ops``: Columns() where these are Spark columns, Arrays() for numpy.
    ``price`` in the state's basis and currency. The bar's high and low are taken to be the price where they are not
    given: high_N and low_N are the extremes with them. Where ``volume`` is None the volume columns are left out; ATR
    needs the bar's range and is left out always. Null until warm.
    """
    high, low = price if high is None else high, price if low is None else low
    get = state.__getitem__
    values: dict[str, Any] = {}
    for n in registry.periods("sma"):
        values[f"sma_{n}"] = (get(f"sma_{n}_sum") + price) / ops.lit(float(n))
    for n in registry.periods("ema"):
        values[f"ema_{n}"] = _step(ops, get(f"ema_{n}"), price, 2.0 / (n + 1))
    if registry.has_macd:
        fast = _step(ops, get("macd_fast"), price, 2.0 / (MACD[0] + 1))
        slow = _step(ops, get("macd_slow"), price, 2.0 / (MACD[1] + 1))
        values |= _macd(ops, fast, slow, _step(ops, get("macd_signal"), fast - slow, 2.0 / (MACD[2] + 1)))
    for n in registry.periods("rsi"):
        values[f"rsi_{n}"] = _rsi(ops, get, price, n)
    if registry.has_bollinger:
        values |= _bollinger(ops, get, price)
    if volume is not None:
        for n in registry.periods("volume_avg", "volume_ratio"):
            average = (get(f"volume_avg_{n}_sum") + volume) / ops.lit(float(n))
            values[f"volume_avg_{n}"], values[f"volume_ratio_{n}"] = average, ops.divide(volume, average)
    for n in registry.periods("high"):
        best = get(f"high_{n}_max")
        values[f"high_{n}"] = high if n == 1 else ops.where(ops.known(best), ops.greatest(best, high))
    for n in registry.periods("low"):
        worst = get(f"low_{n}_min")
        values[f"low_{n}"] = low if n == 1 else ops.where(ops.known(worst), ops.least(worst, low))
    for n in registry.periods("return"):
        values[f"return_{n}"] = ops.divide(price, get(f"return_{n}_base")) - ops.lit(1.0)
    return {name: values[name] for name in registry.core if name in values}


def _macd(ops: Algebra, fast: Any, slow: Any, signal: Any) -> dict[str, Any]:
    line = ops.where(ops.known(signal), fast - slow)  # TA-Lib gives the line only where its signal exists
    return {"macd": line, "macd_signal": signal, "macd_hist": line - signal}


def _step(ops: Algebra, before: Any, value: Any, weight: float) -> Any:
    """One step of a one-pole filter, in the order of operations that the batch's filter has."""
    return ops.lit(weight) * value + ops.lit(1.0 - weight) * before


def _rsi(ops: Algebra, get: Callable[[str], Any], price: Any, n: int) -> Any:
    change = price - get("close")
    return _relative_strength(
        ops,
        _step(ops, get(f"rsi_{n}_gain"), ops.greatest(change, ops.lit(0.0)), 1.0 / n),
        _step(ops, get(f"rsi_{n}_loss"), ops.greatest(-change, ops.lit(0.0)), 1.0 / n),
    )


def _relative_strength(ops: Algebra, gain: Any, loss: Any) -> Any:
    """RSI out of Wilder's averages; 0 where nothing moved, as TA-Lib has it; null until warm."""
    total = gain + loss
    return ops.where(ops.abs(total) < 1e-14, ops.lit(0.0), ops.lit(100.0) * ops.divide(gain, total))


def _bollinger(ops: Algebra, get: Callable[[str], Any], price: Any) -> dict[str, Any]:
    period, width = BOLLINGER
    n = float(period)
    away = price - get("bb_mean")
    middle = (get("bb_mean") * ops.lit(n - 1) + price) / ops.lit(n)
    deviation = ops.sqrt((get("bb_m2") + away * away * ops.lit((n - 1) / n)) / ops.lit(n))
    return {
        "bb_upper": middle + ops.lit(width) * deviation,
        "bb_middle": middle,
        "bb_lower": middle - ops.lit(width) * deviation,
    }
