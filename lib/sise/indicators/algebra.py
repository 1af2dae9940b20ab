"""The few operations that the live arithmetic needs, for Spark columns and for numpy arrays.

One definition (live.py, signals/rules.py) is so evaluated in the stream, and without a JVM where a person asks at
which price a rule fires. Null in a column is NaN in an array.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Protocol

import numpy as np

__all__ = ["Algebra", "Arrays", "Columns"]


class Algebra(Protocol):
    """What at_price and the rules are written in; ``+ - *`` and comparisons are the values' own."""

    def lit(self, value: float) -> Any: ...
    def where(self, condition: Any, value: Any, otherwise: Any = None) -> Any: ...
    def known(self, value: Any) -> Any: ...
    def divide(self, value: Any, by: Any) -> Any: ...
    def greatest(self, a: Any, b: Any) -> Any: ...
    def least(self, a: Any, b: Any) -> Any: ...
    def sqrt(self, value: Any) -> Any: ...
    def abs(self, value: Any) -> Any: ...
    def all(self, conditions: list[Any]) -> Any: ...


class Columns:
    """Spark columns. Importing this module needs no Spark; making one of these does."""

    def __init__(self) -> None:
        from pyspark.sql import functions as F

        self._f = F

    def lit(self, value: float) -> Any:
        return self._f.lit(value)

    def where(self, condition: Any, value: Any, otherwise: Any = None) -> Any:
        """``value`` where the condition holds, elsewhere ``otherwise`` (null)."""
        found = self._f.when(condition, value)
        return found if otherwise is None else found.otherwise(otherwise)

    def known(self, value: Any) -> Any:
        return value.isNotNull()

    def divide(self, value: Any, by: Any) -> Any:
        """Null where ``by`` is 0: ANSI mode would fail the whole query."""
        return self._f.try_divide(value, by)

    def greatest(self, a: Any, b: Any) -> Any:
        return self._f.greatest(a, b)

    def least(self, a: Any, b: Any) -> Any:
        return self._f.least(a, b)

    def sqrt(self, value: Any) -> Any:
        return self._f.sqrt(value)

    def abs(self, value: Any) -> Any:
        return self._f.abs(value)

    def all(self, conditions: list[Any]) -> Any:
        """True where every condition holds; one that is null counts as not."""
        return self._f.coalesce(reduce(lambda a, b: a & b, conditions), self._f.lit(False))


class Arrays:
    """numpy arrays of floats (or scalars), NaN where a column would be null."""

    def lit(self, value: float) -> Any:
        return value

    def where(self, condition: Any, value: Any, otherwise: Any = None) -> Any:
        return np.where(condition, value, np.nan if otherwise is None else otherwise)

    def known(self, value: Any) -> Any:
        return ~np.isnan(value)

    def divide(self, value: Any, by: Any) -> Any:
        by = np.asarray(by, float)
        return np.where(by == 0, np.nan, np.asarray(value, float) / np.where(by == 0, 1.0, by))

    def greatest(self, a: Any, b: Any) -> Any:
        return np.fmax(a, b)

    def least(self, a: Any, b: Any) -> Any:
        return np.fmin(a, b)

    def sqrt(self, value: Any) -> Any:
        return np.sqrt(value)

    def abs(self, value: Any) -> Any:
        return np.abs(value)

    def all(self, conditions: list[Any]) -> Any:
        return reduce(np.logical_and, conditions)
