"""Recursive indicators as filters: EMA, MACD, Wilder's RSI and ATR, seeded as TA-Lib seeds them.

Each is a one-pole filter, so scipy's lfilter computes it and its ``zi`` is all that a later run needs to go on.
Seeds: an EMA starts with the mean of its first n closes; in MACD both averages start at the slow one's bar, the
fast one with the mean of closes 15 to 26; Wilder's averages start with the mean of the first n changes. Sources:
J. W. Wilder, New Concepts in Technical Trading Systems (1978); G. Appel for MACD; TA-Lib for the seeding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sise.indicators.registry import MACD, Registry

__all__ = ["compute_filters", "relative_strength"]

_FEW = 16  # bars up to which a loop is quicker than calling the filter
_ZERO = 1e-14  # TA-Lib's: below it a sum of averages counts as nothing moved


def compute_filters(
    registry: Registry, high: np.ndarray, low: np.ndarray, close: np.ndarray, state: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Values and states of the registry's filters, an array for each name in ``recursive`` and ``state``.

    Arrays cover one share's bars in order; NaN until warm. With ``state``, bar 0 is the bar of that state: its
    own values are NaN, and the filters go on from bar 1.
    """
    out: dict[str, np.ndarray] = {}
    for n in registry.periods("ema"):
        name = f"ema_{n}"
        out[name] = _ema(close, n, n - 1, None if state is None else state[name])
    if registry.has_macd:
        _macd(out, close, state)
    change = np.diff(close)
    for n in registry.periods("rsi"):
        gain, loss = f"rsi_{n}_gain", f"rsi_{n}_loss"
        out[gain] = _wilder(np.maximum(change, 0.0), n, None if state is None else state[gain])
        out[loss] = _wilder(np.maximum(-change, 0.0), n, None if state is None else state[loss])
        out[f"rsi_{n}"] = relative_strength(out[gain], out[loss])
    if periods := registry.periods("atr"):
        before = close[:-1]
        true_range = np.maximum(high[1:], before) - np.minimum(low[1:], before)
        for n in periods:
            out[f"atr_{n}"] = _wilder(true_range, n, None if state is None else state[f"atr_{n}"])
    return out


def relative_strength(gain: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """RSI = 100 × gain / (gain + loss); 0 where nothing moved, as TA-Lib has it."""
    total = gain + loss
    still = np.abs(total) < _ZERO
    return np.where(still, np.where(np.isnan(total), np.nan, 0.0), 100.0 * (gain / np.where(still, 1.0, total)))


def _one_pole(values: np.ndarray, weight: float, before: float) -> np.ndarray:
    """y[t] = weight × x[t] + (1 − weight) × y[t−1], y[−1] = before."""
    if len(values) <= _FEW:  # the same operations in the same order: the same bits
        found = []
        for value in values.tolist():
            before = weight * value + (1.0 - weight) * before
            found.append(before)
        return np.array(found)
    from scipy.signal import lfilter  # reading it takes a second, and a usual day needs no more than the loop

    result, _ = lfilter([weight], [1.0, weight - 1.0], values, zi=[(1.0 - weight) * before])
    return np.asarray(result)


def _ema(values: np.ndarray, n: int, seed_at: int, before: float | None) -> np.ndarray:
    """EMA with weight 2/(n+1). Its first value, at ``seed_at``, is the mean of the n values up to there."""
    out = np.full(len(values), np.nan)
    weight = 2.0 / (n + 1)
    if before is not None:
        out[1:] = _one_pole(values[1:], weight, before)
    elif len(values) > seed_at:
        seed = values[seed_at - n + 1 : seed_at + 1].mean()
        out[seed_at] = seed
        out[seed_at + 1 :] = _one_pole(values[seed_at + 1 :], weight, seed)
    return out


def _macd(out: dict[str, np.ndarray], close: np.ndarray, state: Mapping[str, float] | None) -> None:
    fast_n, slow_n, signal_n = MACD
    get = (lambda name: None) if state is None else state.__getitem__
    fast = _ema(close, fast_n, slow_n - 1, get("macd_fast"))
    slow = _ema(close, slow_n, slow_n - 1, get("macd_slow"))
    line = fast - slow
    signal = _ema(line, signal_n, slow_n + signal_n - 2, get("macd_signal"))
    # TA-Lib gives the line only where its signal exists.
    line = np.where(np.isnan(signal), np.nan, line)
    out |= {"macd_fast": fast, "macd_slow": slow, "macd": line, "macd_signal": signal, "macd_hist": line - signal}


def _wilder(moves: np.ndarray, n: int, before: float | None) -> np.ndarray:
    """Wilder's average of ``moves`` (between bars: one fewer than bars): mean of the first n, then 1/n of each."""
    out = np.full(len(moves) + 1, np.nan)
    if before is not None:
        out[1:] = _one_pole(moves, 1.0 / n, before)
    elif len(moves) >= n:
        seed = moves[:n].mean()
        out[n] = seed
        out[n + 1 :] = _one_pole(moves[n:], 1.0 / n, seed)
    return out
