"""Extra columns: any TA-Lib function named in conf/indicators.json, computed over a share's bars.

An entry is ``{"column": "adx_14", "function": "ADX", "parameters": {"timeperiod": 14}}``. A function with several
outputs gives a column for each: ``stoch`` of STOCH gives ``stoch_slowk`` and ``stoch_slowd``. Source: TA-Lib.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from sise.errors import ConfigError

__all__ = ["Extra"]

_INPUTS = ("open", "high", "low", "close", "volume")
# Functions of a fixed number of bars. All others remember every bar so far (a running total, a recursion, a moving
# average whose kind is a parameter) or count bars from the first one, as MAXINDEX does: what is not known to forget is
# taken to remember. So is a small difference of running sums (BETA, CCI, CORREL, VAR, a slope): the last bits of the
# sums, which depend on where they began, are more than 1e-12 of it.
_FORGETTING = """
    SMA WMA MIDPOINT MIDPRICE MOM ROC ROCP ROCR ROCR100 WILLR AROON AROONOSC BOP ULTOSC TRANGE LINEARREG
    LINEARREG_INTERCEPT TSF MAX MIN MINMAX SUM AVGPRICE MEDPRICE TYPPRICE WCLPRICE ACOS ASIN ATAN CEIL COS COSH EXP
    FLOOR LN LOG10 SIN SINH SQRT TAN TANH ADD DIV MULT SUB
"""


@cache
def _talib() -> ModuleType:
    """Loaded when an extra column asks for it: TA-Lib brings pandas and polars along, into every Spark worker."""
    import talib.abstract

    return talib


@dataclass(frozen=True)
class Extra:
    """One TA-Lib function with its parameters, checked against TA-Lib on construction by ``parse``."""

    column: str
    function: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, entry: object) -> Extra:
        """Raises ConfigError that names the valid functions or parameters."""
        if not isinstance(entry, dict) or not {"column", "function"} <= set(entry):
            raise ConfigError(
                f"extra {entry!r}: an object with column, function and, if need be, parameters is expected"
            )
        if unknown := set(entry) - {"column", "function", "parameters"}:
            raise ConfigError(f"extra {entry['column']!r}: unknown entry {', '.join(sorted(unknown))}")
        column, name = str(entry["column"]), str(entry["function"]).upper()
        if not re.fullmatch(r"[a-z][a-z0-9_]*", column):
            raise ConfigError(f"extra {column!r}: a column is named in small letters, digits and _")
        functions = _talib().get_functions()
        if name not in functions:
            near = difflib.get_close_matches(name, functions, 3, 0.4)
            hint = f" Close to it: {', '.join(near)}." if near else ""
            raise ConfigError(
                f"extra {column!r}: TA-Lib has no function {name!r}.{hint} It has: {', '.join(functions)}"
            )
        valid = dict(_talib().abstract.Function(name).parameters)
        allowed = ", ".join(f"{k} (default {v})" for k, v in valid.items()) or "none"
        given = entry.get("parameters", {})
        if not isinstance(given, Mapping) or not all(type(value) in (int, float) for value in given.values()):
            raise ConfigError(f"extra {column!r}: parameters {given!r} are no object of numbers. {name} has: {allowed}")
        if unknown := set(given) - set(valid):
            raise ConfigError(
                f"extra {column!r}: {name} has no parameter {', '.join(sorted(unknown))}. It has: {allowed}"
            )
        # TA-Lib tells whole numbers from others; JSON, and who writes it, does not.
        typed = {k: float(value) if isinstance(valid[k], float) else value for k, value in given.items()}
        extra = cls(column, name, tuple(sorted(typed.items())))
        extra._try_out(allowed)
        return extra

    def _try_out(self, allowed: str) -> None:
        """Wrong values show when the function runs."""
        rng = np.random.default_rng(1)
        close = 100 + rng.normal(0, 1, 400).cumsum()
        bars = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": np.full(400, 1e4)}
        try:
            self.compute(bars)
        except Exception as problem:
            raise ConfigError(
                f"extra {self.column!r}: {self.function} with {dict(self.parameters)} does not run on bars: {problem}. "
                f"Its parameters: {allowed}"
            ) from problem

    @property  # not cached: TA-Lib's call objects do not travel to Spark's workers
    def _call(self) -> Any:
        call = _talib().abstract.Function(self.function)
        call.parameters = dict(self.parameters)
        return call

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(_talib().abstract.Function(self.function).output_names)

    @property
    def columns(self) -> tuple[str, ...]:
        if len(self.outputs) == 1:
            return (self.column,)
        return tuple(f"{self.column}_{name}" for name in self.outputs)

    @property
    def lookback(self) -> int:
        return int(self._call.lookback)

    @property
    def remembers(self) -> bool:
        """Whether a bar's value depends on every bar before it."""
        return self.function not in _FORGETTING.split() and not self.function.startswith("CDL")

    def compute(self, bars: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """One array for each output, NaN until warm. ``bars``: open, high, low, close, volume as float arrays."""
        length = len(bars["close"])
        if length <= self.lookback:
            return [np.full(length, np.nan) for _ in self.outputs]
        result = self._call({name: bars[name] for name in _INPUTS})
        arrays = [np.array(a, dtype=float) for a in (result if isinstance(result, list | tuple) else [result])]
        for array in arrays:
            array[: self.lookback] = np.nan  # integer outputs have a 0 there
        return arrays
