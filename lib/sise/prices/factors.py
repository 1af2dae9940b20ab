"""What a stored price lacks or already has of its share's actions: prices/adjust.py without Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["factors_of", "price_changing"]


def factors_of(
    days: Sequence[date] | np.ndarray, basis: Sequence[date] | np.ndarray, actions: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """(lacking, applied) for each bar of one share: adjusted price = stored × lacking, as traded = stored ÷ applied.

    ``actions``: rows of the table; only confirmed ones with a factor that are no dividend count, those after the bar's
    day. ``applied_by_source`` goes before ``basis``, as in prices/adjust.py, with which a test compares this.
    """
    at, known = np.array(days, "datetime64[D]"), np.array(basis, "datetime64[D]")
    lacking, applied = np.ones(len(at)), np.ones(len(at))
    for action in sorted(actions, key=lambda a: a["ex_date"]):
        if action["factor"] is None or np.isnan(action["factor"]) or action["kind"] == "dividend":
            continue
        if not action["confirmed"]:
            continue
        ex_date = np.datetime64(action["ex_date"], "D")
        told = action["applied_by_source"]
        has = (ex_date <= known) if told is None or told != told else np.full(len(at), bool(told))
        later = ex_date > at
        lacking[later & ~has] *= action["factor"]
        applied[later & has] *= action["factor"]
    return lacking, applied


def price_changing(actions: pd.DataFrame, until: Mapping[str, date]) -> pd.DataFrame:
    """Of the table's rows, the confirmed ones that change prices, up to a day of each country; ``ex_date`` as
    datetime64."""
    last = pd.to_datetime(actions["country"].map(dict(until)))
    counts = actions["factor"].notna() & (actions["kind"] != "dividend") & actions["confirmed"].eq(True)
    return actions[counts & (actions["ex_date"] <= last)]
