"""On an ex-date the live state is re-based before the first tick: as if every bar were quoted after the split."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import numpy as np
import pandas as pd

from sise.prices.factors import price_changing

__all__ = ["rebased"]

_SHARE = ["country", "symbol"]


def rebased(
    live: pd.DataFrame, actions: pd.DataFrame, adjusted_to: Mapping[str, date], valid: Mapping[str, date]
) -> pd.DataFrame:
    """live_state's rows at the basis of the session they are for.

    ``live``: rows of each share's last bar (``as_of``), adjusted to the basis of ``adjusted_to``; ``valid``: the
    session, by country. Multiplies prices, averages of prices, gains and losses and ATR by the product of the factors
    that fall due after ``adjusted_to``, divides volumes by it, and leaves ratios (RSI, returns, volume ratio) alone.
    Adds ``rebased_by``, the product of those after the share's own ``as_of``, which may lie further back than its
    market's: what takes a price of that session to this one's basis, 1.0 for most.
    """
    live = live.reset_index(drop=True)
    by, scale = np.ones(len(live)), np.ones(len(live))
    due = price_changing(actions, valid)
    due = due[~due["applied_by_source"].eq(True)]
    found = due.merge(live[[*_SHARE, "as_of"]].reset_index(names="at"), on=_SHARE).sort_values("ex_date")
    told = pd.to_datetime(found["country"].map(dict(adjusted_to)))
    for condition, product in ((found["ex_date"] > found["as_of"], by), (found["ex_date"] > told, scale)):
        np.multiply.at(product, found["at"][condition].to_numpy(), found["factor"][condition].to_numpy())
    moved = np.flatnonzero(scale != 1.0)
    for column in live.select_dtypes("float").columns:
        live.loc[moved, column] = _scaled(column, live.loc[moved, column].to_numpy(), scale[moved])
    return live.assign(rebased_by=by)


def _scaled(column: str, values: np.ndarray, by: np.ndarray) -> np.ndarray:
    if column.startswith("volume_ratio_") or (
        column.startswith(("return_", "rsi_")) and not column.endswith(("_base", "_gain", "_loss"))
    ):
        return values
    if column.startswith("volume"):
        return values / by
    return values * by * by if column == "bb_m2" else values * by
