"""The indicators at the tick: what each would be if the bar closed at this price, from live_state alone.

Pure Column arithmetic, no state, no UDF: it runs in batch, in micro-batches and in Spark's real-time mode. For
every bar, ``at_price(registry, close, volume)`` over the state of the bar before equals the batch (a test, on real
prices).
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from sise.indicators.registry import BOLLINGER, MACD, Registry

__all__ = ["at_price"]


def at_price(
    registry: Registry, price: Column, volume: Column | None = None, state: Mapping[str, Column] | None = None
) -> dict[str, Column]:
    """Columns by indicator: its value if the session's bar closed at ``price`` with ``volume`` traded so far.

    ``state``: columns of live_state by name (default: columns of those names). ``price`` in the state's basis and
    currency. The bar's high and low are taken to be the price: high_N and low_N are the extremes with it. Without
    ``volume`` the volume columns are left out; ATR needs the bar's range and is left out always. Null until warm.
    """
    get = state.__getitem__ if state is not None else F.col
    values: dict[str, Column] = {}
    for n in registry.periods("sma"):
        values[f"sma_{n}"] = (get(f"sma_{n}_sum") + price) / F.lit(float(n))
    for n in registry.periods("ema"):
        values[f"ema_{n}"] = _step(get(f"ema_{n}"), price, 2.0 / (n + 1))
    if registry.has_macd:
        fast = _step(get("macd_fast"), price, 2.0 / (MACD[0] + 1))
        slow = _step(get("macd_slow"), price, 2.0 / (MACD[1] + 1))
        values |= _macd(fast, slow, _step(get("macd_signal"), fast - slow, 2.0 / (MACD[2] + 1)))
    for n in registry.periods("rsi"):
        values[f"rsi_{n}"] = _rsi(get, price, n)
    if registry.has_bollinger:
        values |= _bollinger(get, price)
    if volume is not None:
        for n in registry.periods("volume_avg"):
            average = (get(f"volume_avg_{n}_sum") + volume) / F.lit(float(n))
            values[f"volume_avg_{n}"] = average
            if f"volume_ratio_{n}" in registry.core:
                values[f"volume_ratio_{n}"] = F.try_divide(volume, average)
    for n in registry.periods("high"):
        best = get(f"high_{n}_max")
        values[f"high_{n}"] = price if n == 1 else F.when(best.isNotNull(), F.greatest(best, price))
    for n in registry.periods("low"):
        worst = get(f"low_{n}_min")
        values[f"low_{n}"] = price if n == 1 else F.when(worst.isNotNull(), F.least(worst, price))
    for n in registry.periods("return"):
        values[f"return_{n}"] = F.try_divide(price, get(f"return_{n}_base")) - F.lit(1.0)
    return {name: values[name] for name in registry.core if name in values}


def _macd(fast: Column, slow: Column, signal: Column) -> dict[str, Column]:
    line = F.when(signal.isNotNull(), fast - slow)  # TA-Lib gives the line only where its signal exists
    return {"macd": line, "macd_signal": signal, "macd_hist": line - signal}


def _step(before: Column, value: Column, weight: float) -> Column:
    """One step of a one-pole filter, in the order of operations that the batch's filter has."""
    return F.lit(weight) * value + F.lit(1.0 - weight) * before


def _rsi(get, price: Column, n: int) -> Column:  # type: ignore[no-untyped-def]
    change = price - get("close")
    return _relative_strength(
        _step(get(f"rsi_{n}_gain"), F.greatest(change, F.lit(0.0)), 1.0 / n),
        _step(get(f"rsi_{n}_loss"), F.greatest(-change, F.lit(0.0)), 1.0 / n),
    )


def _relative_strength(gain: Column, loss: Column) -> Column:
    """RSI out of Wilder's averages; 0 where nothing moved, as TA-Lib has it; null until warm."""
    total = gain + loss
    return F.when(F.abs(total) < 1e-14, F.lit(0.0)).otherwise(F.lit(100.0) * F.try_divide(gain, total))


def _bollinger(get, price: Column) -> dict[str, Column]:  # type: ignore[no-untyped-def]
    period, width = BOLLINGER
    n = float(period)
    away = price - get("bb_mean")
    middle = (get("bb_mean") * F.lit(n - 1) + price) / F.lit(n)
    deviation = F.sqrt((get("bb_m2") + away * away * F.lit((n - 1) / n)) / F.lit(n))
    return {
        "bb_upper": middle + F.lit(width) * deviation,
        "bb_middle": middle,
        "bb_lower": middle - F.lit(width) * deviation,
    }
