"""On an ex-date the live state is re-based before the first tick: as if every bar were quoted after the split."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.columns import by_country
from sise.prices.adjust import with_actions

__all__ = ["rebased"]


def rebased(
    live: DataFrame, actions: DataFrame, adjusted_to: Mapping[str, date], valid: Mapping[str, date]
) -> DataFrame:
    """live_state's rows at the basis of the session they are for.

    ``live``: rows of each share's last bar (``as_of``), adjusted to the basis of ``adjusted_to``; ``valid``: the
    session, by country. Multiplies prices, averages of prices, gains and losses and ATR by the product of the factors
    that fall due after ``adjusted_to``, divides volumes by it, and leaves ratios (RSI, returns, volume ratio) alone.
    Adds ``rebased_by``, the product of those after the share's own ``as_of``, which may lie further back than its
    market's: what takes a price of that session to this one's basis, 1.0 for most.
    """
    rows = with_actions(live, actions, valid)
    scale = _due_after(by_country(adjusted_to, "date"))
    rows = rows.withColumns({"rebased_by": _due_after(F.col("as_of")), "_scale": scale}).drop("_actions")
    scaled = {c: _scaled(c) for c, kind in live.dtypes if kind == "double"}
    return rows.select(*[scaled[c].alias(c) if c in scaled else F.col(c) for c in live.columns], "rebased_by")


def _due_after(since: Column) -> Column:
    due = F.filter("_actions", lambda a: (a["ex_date"] > since) & ~F.coalesce(a["applied_by_source"], F.lit(False)))
    return F.coalesce(F.aggregate(due, F.lit(1.0), lambda product, a: product * a["factor"]), F.lit(1.0))


def _scaled(column: str) -> Column:
    by = F.col("_scale")
    if column.startswith("volume_ratio_") or (
        column.startswith(("return_", "rsi_")) and not column.endswith(("_base", "_gain", "_loss"))
    ):
        return F.col(column)
    if column.startswith("volume"):
        return F.col(column) / by
    return F.col(column) * by * by if column == "bb_m2" else F.col(column) * by
