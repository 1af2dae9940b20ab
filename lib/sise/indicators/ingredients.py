"""The rolling part of live_state: sums, extremes and bases over one bar less than each period."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sise.indicators.registry import BOLLINGER, Registry

__all__ = ["compute_ingredients"]

_CHUNK = 4096  # windows at a time: 8 MiB for the longest


def compute_ingredients(
    registry: Registry, bars: Mapping[str, np.ndarray], ends: np.ndarray, firsts: np.ndarray
) -> np.ndarray:
    """``registry.ingredients`` after the bars at the places ``ends``: array (ends, ingredients), NaN until warm.

    ``bars``: open, high, low, close, volume of shares one after another, each in order; ``firsts``: for each end
    the place of its share's first bar. The next bar completes each: its close added to ``x_sum`` and divided by the
    period is the average, and so on (live.py).
    """
    parts = [
        _ingredients(registry, bars, ends[start : start + _CHUNK], firsts[start : start + _CHUNK])
        for start in range(0, len(ends), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(registry.ingredients)))


def _ingredients(
    registry: Registry, bars: Mapping[str, np.ndarray], ends: np.ndarray, firsts: np.ndarray
) -> np.ndarray:
    source = {"sma": "close", "volume_avg": "volume", "high": "high", "low": "low", "return": "close"}
    found = []
    for name in registry.ingredients:
        if name.startswith("bb_"):
            closes = _windows(bars["close"], BOLLINGER[0] - 1, ends, firsts)
            mean = closes.mean(axis=1)
            found.append(mean if name == "bb_mean" else ((closes - mean[:, None]) ** 2).sum(axis=1))
            continue
        column, _, what = name.rpartition("_")
        kind, _, text = column.rpartition("_")
        period = int(text)
        if what == "base":
            at = ends - (period - 1)
            found.append(np.where(at >= firsts, bars["close"][np.maximum(at, 0)], np.nan))
        elif period == 1:  # nothing of the past in it
            found.append(np.full(len(ends), 0.0 if what == "sum" else np.nan))
        else:
            windows = _windows(bars[source[kind]], period - 1, ends, firsts)
            found.append(windows.sum(axis=1) if what == "sum" else getattr(windows, what)(axis=1))
    return np.column_stack(found) if found else np.empty((len(ends), 0))


def _windows(values: np.ndarray, width: int, ends: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """The windows of ``width`` values that end at ``ends``: array (ends, width), NaN before the share's first bar."""
    places = ends[:, None] - np.arange(width - 1, -1, -1)
    return np.where(places >= firsts[:, None], values[np.maximum(places, 0)], np.nan)
