"""All indicators over bars: windows first, then one Arrow pass over the same sorted rows for the filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Tuple  # noqa: UP035 - the form in which Spark recognises an iterator function

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.calendars import COUNTRIES, MARKETS
from sise.indicators.ingredients import compute_ingredients
from sise.indicators.recursive import compute_filters
from sise.indicators.registry import KEPT_SESSIONS, Registry
from sise.indicators.rolling import with_rolling

__all__ = ["PRICES", "compute_extra", "filter_state", "joined_struct", "with_indicators"]

PRICES = ("open", "high", "low", "close", "volume")
_WORDS = {"country": COUNTRIES, "market": tuple(MARKETS)}


def with_indicators(bars: DataFrame, registry: Registry, *, keep: int = KEPT_SESSIONS) -> DataFrame:
    """A row for each bar with every column of the registry, and ``filter_state`` on each share's last bars.

    In: rolling.BAR_COLUMNS, adjusted, traded days only, every share from its first bar. Out: the input columns, the
    registry's and ``filter_state``, null except on a share's last ``keep`` bars: the number of bars, where a resumed
    run must read from, the filters' states and ``live``, the values of ``registry.core`` and
    ``registry.ingredients``.
    """
    # Each window pass copies every column of every row: a number where a short text would be.
    coded = {name: _code(name, words) for name, words in _WORDS.items()}
    rows = with_rolling(bars.withColumns(coded), registry)
    inputs = [F.col("bar_no"), F.col("tail_from"), *(F.col(c) for c in _inputs(registry))]
    rows = rows.withColumn("_f", _filter_pass(registry, keep)(*inputs))
    filtered = {name: F.col(f"_f.{name}") for name in _outputs(registry)}
    plain = [
        _word(c, _WORDS[c]) if c in _WORDS else F.col(c)
        for c in rows.columns
        if c not in {"_f", "bar_no", "tail_from", *registry.columns}
    ]
    named = [filtered.get(name, F.col(name)).alias(name) for name in registry.columns]
    kept = F.col("_f.filter_state")
    live = F.concat(F.array(*(filtered.get(name, F.col(name)) for name in registry.core)), kept["live"])
    state = F.when(kept.isNotNull(), kept.withField("live", live))
    return rows.select(*plain, *named, state.alias("filter_state"))


def _code(name: str, words: Sequence[str]) -> Column:
    found = F.lit(None).cast("int")
    for n, word in enumerate(words):
        found = F.when(F.col(name) == word, F.lit(n)).otherwise(found)
    return F.when(F.col(name).isNull() | found.isNotNull(), found).otherwise(
        F.raise_error(F.concat(F.lit(f"unknown {name} "), F.col(name))).cast("int")
    )


def _word(name: str, words: Sequence[str]) -> Column:
    return F.get(F.array(*[F.lit(word) for word in words]), F.col(name)).alias(name)


def _inputs(registry: Registry) -> list[str]:
    """What the filters' pass reads of a bar; only TA-Lib's functions look at the open."""
    return [name for name in PRICES if name != "open" or registry.extra]


def _outputs(registry: Registry) -> list[str]:
    return [*registry.recursive, *(c for extra in registry.extra for c in extra.columns)]


def _filter_pass(registry: Registry, keep: int) -> Callable[..., Column]:
    """The Arrow function over the sorted rows: whole shares at a time, whatever the batches are."""
    fields = ", ".join(f"`{name}`: double" for name in _outputs(registry))
    returns = f"struct<{fields}{', ' if fields else ''}filter_state: {registry.state_type}>"

    def run(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        for columns in _whole_shares(batches):
            yield _compute(registry, columns, keep)

    # The type hint tells Spark which kind of function this is; nondeterministic keeps the optimizer from moving it.
    run.__annotations__ = {"batches": Iterator[Tuple[pa.Array, ...]], "return": Iterator[pa.Array]}  # noqa: UP006
    return F.arrow_udf(run, returns).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def _whole_shares(batches: Iterable[tuple[pa.Array, ...]]) -> Iterator[list[pa.Array]]:
    """Cuts the stream where a share begins (the first column is 1), so that no share is split between two pieces."""
    held: list[tuple[pa.Array, ...]] = []
    for batch in batches:
        starts = np.flatnonzero(batch[0].to_numpy(zero_copy_only=False) == 1)
        if len(starts) and (held or starts[-1] > 0):
            cut = int(starts[-1])
            head = [column.slice(0, cut) for column in batch]
            yield _joined([*held, tuple(head)])
            held = [tuple(column.slice(cut) for column in batch)]
        else:
            held.append(batch)
    if held:
        yield _joined(held)


def _joined(pieces: list[tuple[pa.Array, ...]]) -> list[pa.Array]:
    return [pa.concat_arrays(list(column)) for column in zip(*pieces, strict=True)]


def _compute(registry: Registry, columns: list[pa.Array], keep: int) -> pa.StructArray:
    bar_no = columns[0].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(bar_no == 1)
    if np.any(np.diff(bar_no)[np.setdiff1d(np.arange(len(bar_no) - 1), starts[1:] - 1)] != 1):
        raise RuntimeError("the filters were given bars out of order: the plan no longer keeps the windows' sort")
    bars = {name: columns[2 + i].to_numpy(zero_copy_only=False) for i, name in enumerate(_inputs(registry))}
    values = {name: np.full(len(bar_no), np.nan) for name in (*registry.recursive, *registry.state)}
    bounds = [*starts, len(bar_no)]
    for start, end in pairwise(bounds):
        share = slice(start, end)
        found = compute_filters(registry, bars["high"][share], bars["low"][share], bars["close"][share])
        for name, array in found.items():
            if name in values:
                values[name][share] = array
    values |= compute_extra(registry, bars, starts, np.array(bounds[1:]))
    lengths = np.diff(bounds)
    kept = bar_no > np.repeat(lengths - keep, lengths)
    live = compute_ingredients(registry, bars, np.flatnonzero(kept), np.repeat(starts, lengths)[kept])
    state = filter_state(registry, values, bar_no.astype(np.int64), columns[1], kept, live)
    return joined_struct(values, _outputs(registry), state)


def compute_extra(
    registry: Registry, bars: Mapping[str, np.ndarray], firsts: np.ndarray, ends: np.ndarray
) -> dict[str, np.ndarray]:
    """The registry's extra columns at every bar; a share's bars are those from ``firsts`` up to ``ends``."""
    values = {name: np.full(len(bars["close"]), np.nan) for extra in registry.extra for name in extra.columns}
    for extra in registry.extra:
        for first, end in zip(firsts, ends, strict=True):
            series = {name: array[first:end].astype(float) for name, array in bars.items()}
            for name, array in zip(extra.columns, extra.compute(series), strict=True):
                values[name][first:end] = array
    return values


def filter_state(
    registry: Registry,
    values: Mapping[str, np.ndarray],
    total: np.ndarray,
    tail_from: pa.Array,
    kept: np.ndarray,
    live: np.ndarray,
) -> pa.StructArray:
    """``registry.state_type`` of each row, null where it is not ``kept``; ``live`` has a row for each that is."""
    offsets = np.concatenate([[0], np.cumsum(np.where(kept, live.shape[1], 0))]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(live.ravel(), from_pandas=True))
    states = [pa.array(values[name], from_pandas=True) for name in registry.state]
    return pa.StructArray.from_arrays(
        [pa.array(total), tail_from, *states, lists],
        names=["bars", "tail_from", *registry.state, "live"],
        mask=pa.array(~kept),
    )


def joined_struct(values: Mapping[str, np.ndarray], names: Sequence[str], state: pa.StructArray) -> pa.StructArray:
    """The columns ``names`` of ``values``, null where they are NaN, and ``filter_state``."""
    arrays = [pa.array(values[name], from_pandas=True) for name in names]
    return pa.StructArray.from_arrays([*arrays, state], names=[*names, "filter_state"])
