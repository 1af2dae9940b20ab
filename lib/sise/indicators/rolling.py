"""Rolling indicators as Spark window functions whose cost does not grow with the period.

Sums are differences of running sums, in whole numbers, so that they are exact and do not depend on where the
history starts: a tail of bars gives the same bits as all of them. A price is split into its whole part and its
fraction in units of 2^-48 (averages of prices below a thousandth are exact to 1e-11 of them); both fit a 64-bit
running sum. Extremes and Bollinger's deviation come from blocks of 5 and 25 bars that `lag` puts together; the
deviation is taken about the mean, so nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sise.indicators.registry import BOLLINGER, Registry

__all__ = ["BAR_COLUMNS", "with_rolling"]

# Adjusted, traded bars: what every indicator is computed from.
BAR_COLUMNS = ("country", "symbol", "date", "market", "open", "high", "low", "close", "volume")
_UNIT = float(2**48)
_BLOCK = 5


def with_rolling(bars: DataFrame, registry: Registry) -> DataFrame:
    """Adds the registry's rolling columns, ``bar_no`` (1 for a share's first bar here) and ``tail_from``.

    In: BAR_COLUMNS (adjusted, days without trade left out) and any others, which stay. Out: a column for each SMA,
    Bollinger band (population deviation), volume average and ratio, extreme and simple return; null until the
    period is full. ``tail_from``: the date of the bar from which a resumed run must read.
    """
    plan = _Plan(bars, registry)
    rows = bars.select("*", *plan.limbs())
    rows = rows.select("*", *plan.first_pass())
    rows = rows.select(*plan.kept, *plan.after_first())
    rows = rows.select("*", *plan.second_pass())
    rows = rows.select(*plan.kept, *plan.after_second())
    rows = rows.select("*", *plan.third_pass())
    return rows.select(*plan.kept, *plan.result())


def _lag(column: str, by: int, default: int | None = None) -> Column:
    # The symbol comes first: Spark sorts by the first column's leading bytes before it compares rows.
    window = Window.partitionBy("symbol", "country").orderBy("date")
    return F.lag(column, by, default).over(window) if default is not None else F.lag(column, by).over(window)


def _cover(period: int, block: int) -> list[int]:
    """At which lags blocks of ``block`` bars, together with the one at lag 0, cover exactly ``period`` bars."""
    lags = list(range(block, period - block + 1, block))
    return lags if period % block == 0 else [*lags, period - block]


def _added(columns: Sequence[Column]) -> Column:
    return reduce(lambda a, b: a + b, columns)


class _Plan:
    """Three window passes over one sort. Each pass lags what the one before it put together."""

    def __init__(self, bars: DataFrame, registry: Registry):
        self.registry = registry
        self.input = bars.columns
        self.kept: list[str] = [*bars.columns, "bar_no", "tail_from"]
        self.sma = registry.periods("sma")
        self.volume = registry.periods("volume_avg", "volume_ratio")
        self.bollinger = BOLLINGER[0] if registry.has_bollinger else 0
        self.returns = registry.periods("return")
        extremes = {("high", n) for n in registry.periods("high")} | {("low", n) for n in registry.periods("low")}
        self.sums = {"close": [*self.sma], "volume": [*self.volume]}
        if self.bollinger:
            self.sums["close"].append(self.bollinger)
        self.sums = {c: sorted(set(periods)) for c, periods in self.sums.items() if periods}
        self.extremes = sorted(extremes)

    def _block(self, period: int) -> int:
        """The block that an extreme over ``period`` bars is put together from."""
        return 25 if period >= 25 else _BLOCK if period >= _BLOCK else 1

    def limbs(self) -> list[Column]:
        found = []
        for column in self.sums:
            whole = F.rint(column)  # round() of a double goes through decimal digits
            found.append(whole.cast("bigint").alias(f"{column}_whole"))
            found.append(F.rint((F.col(column) - whole) * _UNIT).cast("bigint").alias(f"{column}_part"))
        return found

    def first_pass(self) -> list[Column]:
        window = Window.partitionBy("symbol", "country").orderBy("date")
        running = window.rowsBetween(Window.unboundedPreceding, 0)
        found = [F.row_number().over(window).alias("bar_no"), _lag("date", self.registry.tail - 1).alias("tail_from")]
        for column in self.sums:
            found += [
                F.sum(f"{column}_{limb}").over(running).alias(f"{column}_{limb}_sum") for limb in ("whole", "part")
            ]
        columns = {kind for kind, _ in self.extremes} | ({"close"} if self.bollinger else set())
        found += [_lag(c, k).alias(f"{c}_{k}") for c in sorted(columns) for k in range(1, _BLOCK)]
        found += [_lag("close", k).alias(f"base_{k}") for k in self.returns]
        return found

    def after_first(self) -> list[Column]:
        self.carried = [f"{c}_{limb}_sum" for c in self.sums for limb in ("whole", "part")]
        self.carried += [f"base_{k}" for k in self.returns]
        found: list[Column] = [F.col(c) for c in self.carried]
        if self.bollinger:
            window = [F.col("close"), *(F.col(f"close_{k}") for k in range(1, _BLOCK))]
            mean = _added(window) / float(_BLOCK)
            found.append(mean.alias("mean_5"))
            found.append(_added([(x - mean) * (x - mean) for x in window]).alias("spread_5"))
        for kind, pick in (("high", F.greatest), ("low", F.least)):
            if any(k == kind for k, _ in self.extremes):
                found.append(pick(F.col(kind), *(F.col(f"{kind}_{k}") for k in range(1, _BLOCK))).alias(f"{kind}_in_5"))
            # periods below a block come straight from the lags
            for n in (n for k, n in self.extremes if k == kind and self._block(n) == 1):
                value = F.col(kind) if n == 1 else pick(F.col(kind), *(F.col(f"{kind}_{k}") for k in range(1, n)))
                found.append(value.alias(f"{kind}_of_{n}"))
                self.carried.append(f"{kind}_of_{n}")
        return found

    def second_pass(self) -> list[Column]:
        found = [
            _lag(f"{c}_{limb}_sum", n, 0).alias(f"{c}_{limb}_before_{n}")
            for c, periods in self.sums.items()
            for n in periods
            for limb in ("whole", "part")
        ]
        if self.bollinger:
            found += [_lag(c, k).alias(f"{c}_{k}") for c in ("mean_5", "spread_5") for k in range(5, self.bollinger, 5)]
        for kind, n in self._needed(5):
            found.append(_lag(f"{kind}_in_5", n).alias(f"{kind}_in_5_{n}"))
        return found

    def _needed(self, block: int) -> list[tuple[str, int]]:
        """(kind, lag) of the blocks that the extremes are put together from."""
        needed = set()
        for kind, n in self.extremes:
            if self._block(n) == block:
                needed |= {(kind, k) for k in _cover(n, block)}
            elif block == 5 and self._block(n) == 25:
                needed |= {(kind, k) for k in _cover(25, 5)}
        return sorted(needed)

    def after_second(self) -> list[Column]:
        found = [F.col(f"base_{k}") for k in self.returns]
        for column, periods in self.sums.items():
            for n in periods:
                whole, part = (
                    (F.col(f"{column}_{limb}_sum") - F.col(f"{column}_{limb}_before_{n}")).cast("double")
                    for limb in ("whole", "part")
                )
                found.append((whole + part / _UNIT).alias(f"{column}_over_{n}"))
        if self.bollinger:
            found.append(self._deviation())
        for kind, pick in (("high", F.greatest), ("low", F.least)):
            for n in (n for k, n in self.extremes if k == kind):
                if self._block(n) == 1:
                    found.append(F.col(f"{kind}_of_{n}"))
                elif self._block(n) == 5:
                    found.append(self._joined(pick, f"{kind}_in_5", _cover(n, 5)).alias(f"{kind}_of_{n}"))
            if any(k == kind and self._block(n) == 25 for k, n in self.extremes):
                found.append(self._joined(pick, f"{kind}_in_5", _cover(25, 5)).alias(f"{kind}_in_25"))
        return found

    def _deviation(self) -> Column:
        """Spread about the mean, of the blocks about theirs and of their means about the whole's."""
        lags = list(range(5, self.bollinger, 5))
        means = [F.col("mean_5"), *(F.col(f"mean_5_{k}") for k in lags)]
        spreads = [F.col("spread_5"), *(F.col(f"spread_5_{k}") for k in lags)]
        mean = _added(means) / float(len(means))
        spread = _added(spreads) + 5.0 * _added([(m - mean) * (m - mean) for m in means])
        return F.sqrt(spread / float(self.bollinger)).alias("deviation")

    def _joined(self, pick, name: str, lags: list[int]) -> Column:  # type: ignore[no-untyped-def]
        return pick(F.col(name), *(F.col(f"{name}_{k}") for k in lags)) if lags else F.col(name)

    def third_pass(self) -> list[Column]:
        return [_lag(f"{kind}_in_25", n).alias(f"{kind}_in_25_{n}") for kind, n in self._needed(25)]

    def result(self) -> list[Column]:
        values = self._values()
        return [values[name].alias(name) for name in self.registry.core if name in values]

    def _full(self, period: int, value: Column) -> Column:
        return F.when(F.col("bar_no") >= period, value)

    def _extreme(self, kind: str, n: int) -> Column:
        if self._block(n) < 25:
            return self._full(n, F.col(f"{kind}_of_{n}"))
        pick = F.greatest if kind == "high" else F.least
        return self._full(n, self._joined(pick, f"{kind}_in_25", _cover(n, 25)))

    def _values(self) -> dict[str, Column]:
        close, volume = F.col("close"), F.col("volume")
        values = {f"sma_{n}": self._full(n, F.col(f"close_over_{n}") / float(n)) for n in self.sma}
        for n in self.volume:
            average = F.col(f"volume_over_{n}") / float(n)
            values[f"volume_avg_{n}"] = self._full(n, average)
            values[f"volume_ratio_{n}"] = self._full(n, volume / average)
        for kind, n in self.extremes:
            values[f"{kind}_{n}"] = self._extreme(kind, n)
        for n in self.returns:
            values[f"return_{n}"] = close / F.col(f"base_{n}") - 1.0
        if self.bollinger:
            n, width = BOLLINGER
            middle, away = F.col(f"close_over_{n}") / float(n), width * F.col("deviation")
            values["bb_middle"] = self._full(n, middle)
            values["bb_upper"], values["bb_lower"] = self._full(n, middle + away), self._full(n, middle - away)
        return values
