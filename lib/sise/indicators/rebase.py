"""On an ex-date the live state is re-based before the first tick: as if every bar were quoted after the split."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.columns import by_country
from sise.prices.adjust import with_actions

__all__ = ["rebased"]


def rebased(live: DataFrame, actions: DataFrame, as_of: Mapping[str, date], valid: Mapping[str, date]) -> DataFrame:
    """live_state's rows at the basis of the session they are for.

    ``live``: rows whose bars are adjusted as of ``as_of``; ``valid``: the session, by country. Multiplies prices,
    averages of prices, gains and losses and ATR by the product of the factors that fall due in between, divides
    volumes by it, and leaves ratios (RSI, returns, volume ratio) alone. Adds ``rebased_by``, 1.0 for most.
    """
    rows = with_actions(live, actions, valid)
    since = by_country(as_of, "date")
    due = F.filter("_actions", lambda a: (a["ex_date"] > since) & ~F.coalesce(a["applied_by_source"], F.lit(False)))
    factor = F.coalesce(F.aggregate(due, F.lit(1.0), lambda product, a: product * a["factor"]), F.lit(1.0))
    rows = rows.withColumn("rebased_by", factor).drop("_actions")
    scaled = {c: _scaled(c) for c, kind in live.dtypes if kind == "double"}
    return rows.select(*[scaled[c].alias(c) if c in scaled else F.col(c) for c in live.columns], "rebased_by")


def _scaled(column: str) -> Column:
    by = F.col("rebased_by")
    if column.startswith("volume_ratio_") or (
        column.startswith(("return_", "rsi_")) and not column.endswith(("_base", "_gain", "_loss"))
    ):
        return F.col(column)
    if column.startswith("volume"):
        return F.col(column) / by
    return F.col(column) * by * by if column == "bb_m2" else F.col(column) * by
