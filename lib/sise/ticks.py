"""The smallest price steps of the exchanges, and the daily price limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

__all__ = ["KRX_LIMIT", "krx_tick", "limit_prices", "round_to_tick", "tick_column", "tick_size"]

# KRX since 2023-01-25, one table for KOSPI and KOSDAQ: below the price, the step in won.
_KRX_STEPS = ((2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500))
_KRX_TOP = 1_000
_US_TICK = 0.01
_US_PENNY_TICK = 0.0001  # below a dollar (Regulation NMS, rule 612)
KRX_LIMIT = 0.30


def krx_tick(price: float) -> int:
    """KRX's tick at ``price`` won."""
    return next((step for below, step in _KRX_STEPS if price < below), _KRX_TOP)


def tick_size(price: float, country: str) -> float:
    """The tick at ``price`` in the share's currency."""
    if country == "KR":
        return float(krx_tick(price))
    return _US_TICK if price >= 1 else _US_PENNY_TICK


def round_to_tick(price: float, country: str) -> float:
    """The nearest price that can be quoted, at least one tick."""
    tick = tick_size(price, country)
    return max(round(round(price / tick) * tick, 4), tick)


def limit_prices(reference: float) -> tuple[float, float]:
    """KRX's lowest and highest price of a session: ±30 % of the reference price, the width rounded down to its tick."""
    tick = krx_tick(reference)
    width = int(reference * KRX_LIMIT / tick + 1e-9) * tick
    low, high = reference - width, reference + width
    low_tick, high_tick = krx_tick(low), krx_tick(high)
    # Where the limit falls into a band of other steps, the price must be one of that band's, inside the limit.
    return max(-(-low // low_tick) * low_tick, 1), high // high_tick * high_tick


def tick_column(country: Column, price: Column) -> Column:
    """The tick to which vendors round at ``price``, as a Column: KRX's, and for US shares a cent at any price, since
    that is what adjusted prices below a dollar are rounded to."""
    from pyspark.sql import functions as F  # the levels are computed without Spark

    krx = F.lit(float(_KRX_TOP))
    for below, step in reversed(_KRX_STEPS):
        krx = F.when(price < below, F.lit(float(step))).otherwise(krx)
    return F.when(country == "KR", krx).otherwise(F.lit(_US_TICK))
