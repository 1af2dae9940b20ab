"""All indicators over bars: windows first, then one Arrow pass over the same sorted rows for the filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Tuple  # noqa: UP035 - the form in which Spark recognises an iterator function

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.indicators.ingredients import compute_ingredients
from sise.indicators.recursive import compute_filters
from sise.indicators.registry import KEPT_SESSIONS, Registry
from sise.indicators.rolling import with_rolling

__all__ = ["with_indicators"]

_PRICES = ("open", "high", "low", "close", "volume")


def with_indicators(
    bars: DataFrame, registry: Registry, *, states: DataFrame | None = None, keep: int = KEPT_SESSIONS
) -> DataFrame:
    """A row for each bar with every column of the registry, and ``filter_state`` on each share's last bars.

    In: rolling.BAR_COLUMNS, adjusted, traded days only. ``states``: country, symbol and any columns to be added to
    the share's rows, among them ``_state`` (struct date, bars and the registry's states, or null): where it is not
    null the filters go on from it, and rows up to its date only fill the windows and come out with null filter
    columns. Out: the input columns, those of ``states`` but ``_state``, the registry's and ``filter_state``, null
    except on a share's last ``keep`` bars: the number of bars, where a resumed run must read from, the filters'
    states and ``live``, the values of ``registry.core`` and ``registry.ingredients``.
    """
    rows = with_rolling(bars, registry)
    inputs = [F.col("bar_no"), F.col("date"), F.col("tail_from"), *(F.col(c) for c in _PRICES)]
    if states is not None:
        rows = rows.join(F.broadcast(states), on=["country", "symbol"], how="left")
        inputs += [F.col(f"_state.{name}") for name in ("date", "bars", *registry.state)]
    rows = rows.withColumn("_f", _filter_pass(registry, states is not None, keep)(*inputs))
    outputs = [*registry.recursive, *(c for extra in registry.extra for c in extra.columns)]
    filtered = {name: F.col(f"_f.{name}") for name in outputs}
    plain = [c for c in rows.columns if c not in {"_f", "bar_no", "tail_from", "_state", *registry.columns}]
    named = [filtered.get(name, F.col(name)).alias(name) for name in registry.columns]
    kept = F.col("_f.filter_state")
    live = F.concat(F.array(*(filtered.get(name, F.col(name)) for name in registry.core)), kept["live"])
    state = F.when(kept.isNotNull(), kept.withField("live", live))
    return rows.select(*plain, *named, state.alias("filter_state"))


def _filter_pass(registry: Registry, resumed: bool, keep: int) -> Callable[..., Column]:
    """The Arrow function over the sorted rows: whole shares at a time, whatever the batches are."""
    outputs = [*registry.recursive, *(c for extra in registry.extra for c in extra.columns)]
    fields = ", ".join(f"`{name}`: double" for name in outputs)
    returns = f"struct<{fields}{', ' if fields else ''}filter_state: {registry.state_type}>"

    def run(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        for columns in _whole_shares(batches):
            yield _compute(registry, columns, resumed, keep)

    # The type hint tells Spark which kind of function this is; nondeterministic keeps the optimizer from moving it.
    run.__annotations__ = {"batches": Iterator[Tuple[pa.Array, ...]], "return": Iterator[pa.Array]}  # noqa: UP006
    return F.arrow_udf(run, returns).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def _whole_shares(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[list[pa.Array]]:
    """Cuts the stream where a share begins (``bar_no`` 1), so that no share is split between two pieces."""
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


def _compute(registry: Registry, columns: list[pa.Array], resumed: bool, keep: int) -> pa.StructArray:
    bar_no = columns[0].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(bar_no == 1)
    if np.any(np.diff(bar_no)[np.setdiff1d(np.arange(len(bar_no) - 1), starts[1:] - 1)] != 1):
        raise RuntimeError("the filters were given bars out of order: the plan no longer keeps the windows' sort")
    bars = {name: columns[3 + i].to_numpy(zero_copy_only=False) for i, name in enumerate(_PRICES)}
    outputs = [*registry.recursive, *(c for extra in registry.extra for c in extra.columns)]
    values = {name: np.full(len(bar_no), np.nan) for name in (*outputs, *registry.state)}
    total = np.zeros(len(bar_no), dtype=np.int64)
    kept = np.zeros(len(bar_no), dtype=bool)
    live: list[np.ndarray] = []
    dates = columns[1].cast(pa.int32()).to_numpy(zero_copy_only=False)
    state_dates = columns[8].cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False) if resumed else None
    for start, end in zip(starts, [*starts[1:], len(bar_no)], strict=True):
        state, first, before = None, start, 0
        if state_dates is not None and state_dates[start] >= 0:
            first = start + int(np.searchsorted(dates[start:end], state_dates[start]))
            if first == end or dates[first] != state_dates[start]:
                raise RuntimeError("a filter state has no bar of its date: run compute_indicators with --full")
            before = columns[9][int(start)].as_py() - 1
            state = {name: columns[10 + i][int(start)].as_py() for i, name in enumerate(registry.state)}
        share = slice(first, end)
        total[share] = before + np.arange(1, end - first + 1)
        found = compute_filters(registry, bars["high"][share], bars["low"][share], bars["close"][share], state)
        for name, array in found.items():
            if name in values:
                values[name][share] = array
        for extra in registry.extra:
            series = {name: array[start:end].astype(float) for name, array in bars.items()}
            for name, array in zip(extra.columns, extra.compute(series), strict=True):
                values[name][start:end] = array
        last = slice(max(first if state is None else first + 1, end - keep), end)
        kept[last] = True
        whole = {name: array[start:end] for name, array in bars.items()}
        live.append(compute_ingredients(registry, whole, last.stop - last.start))
    return _struct(registry, outputs, values, total, columns[2], kept, np.concatenate(live))


def _struct(
    registry: Registry,
    outputs: list[str],
    values: Mapping[str, np.ndarray],
    total: np.ndarray,
    tail_from: pa.Array,
    kept: np.ndarray,
    live: np.ndarray,
) -> pa.StructArray:
    offsets = np.concatenate([[0], np.cumsum(np.where(kept, live.shape[1], 0))]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(live.ravel(), from_pandas=True))
    state = pa.StructArray.from_arrays(
        [pa.array(total), tail_from, *(pa.array(values[name], from_pandas=True) for name in registry.state), lists],
        names=["bars", "tail_from", *registry.state, "live"],
        mask=pa.array(~kept),
    )
    arrays = [pa.array(values[name], from_pandas=True) for name in outputs]
    return pa.StructArray.from_arrays([*arrays, state], names=[*outputs, "filter_state"])
