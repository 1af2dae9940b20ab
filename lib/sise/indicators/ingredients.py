"""The rolling part of live_state: sums, extremes and bases over one bar less than each period."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sise.indicators.registry import BOLLINGER, Registry

__all__ = ["compute_ingredients"]


def compute_ingredients(registry: Registry, bars: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """``registry.ingredients`` of a share's last ``count`` bars: array (count, ingredients), NaN until warm.

    ``bars``: open, high, low, close, volume of the share in order. Tomorrow's bar completes each: its close added
    to ``x_sum`` and divided by the period is the average, and so on (live.py).
    """
    if not count:
        return np.empty((0, len(registry.ingredients)))
    source = {"sma": "close", "volume_avg": "volume", "high": "high", "low": "low", "return": "close"}
    found = []
    for name in registry.ingredients:
        if name.startswith("bb_"):
            closes = _last_windows(bars["close"], BOLLINGER[0] - 1, count)
            mean = closes.mean(axis=1)
            found.append(mean if name == "bb_mean" else ((closes - mean[:, None]) ** 2).sum(axis=1))
            continue
        column, _, what = name.rpartition("_")
        kind, _, period = column.rpartition("_")
        if what == "base":
            found.append(_last_windows(bars["close"], int(period), count)[:, 0])
        elif int(period) == 1:  # nothing of the past in it
            found.append(np.full(count, 0.0 if what == "sum" else np.nan))
        else:
            windows = _last_windows(bars[source[kind]], int(period) - 1, count)
            found.append(windows.sum(axis=1) if what == "sum" else getattr(windows, what)(axis=1))
    return np.column_stack(found) if found else np.empty((count, 0))


def _last_windows(values: np.ndarray, width: int, count: int) -> np.ndarray:
    """The windows of ``width`` values that end at the last ``count``: array (count, width), NaN before the first."""
    have = values[-(count + width - 1) :].astype(float)
    missing = count + width - 1 - len(have)
    return sliding_window_view(np.concatenate([np.full(missing, np.nan), have]) if missing else have, width)
