"""What is kept of a share's last bars: their ``filter_state`` (batch.py) as rows of indicator_state and live_state.

Ten rows a share at most, so they are Arrow and pandas in this process, whoever computed the bars.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from sise.indicators.registry import Registry

__all__ = ["STATED", "frame_of", "joined", "live_of", "newest_of", "state_columns", "states_of"]

_SHARE = ["country", "symbol"]
# Of a computed bar, what its states are made from.
STATED = [*_SHARE, "date", "market", "close", "volume", "filter_state"]


def state_columns(registry: Registry) -> list[str]:
    return ["bars", "tail_from", *registry.state]


def frame_of(rows: pa.Table) -> pd.DataFrame:
    """As pandas, dates as datetime64 and nulls of numbers as NaN."""
    return rows.to_pandas(date_as_object=False)


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One below the other; the empty ones have no say in the columns' types."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def newest_of(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Of each share the last ``count`` rows, by ``date``."""
    return rows.sort_values("date").groupby(_SHARE, sort=False).tail(count)


def states_of(rows: pa.Table, registry: Registry) -> pd.DataFrame:
    """indicator_state's rows out of the rows' ``filter_state``, which each of them has."""
    return frame_of(pa.table(_given(rows, [*_SHARE, "date"]) | _states(rows, registry)))


def live_of(rows: pa.Table, registry: Registry) -> pd.DataFrame:
    """live_state's rows out of the ``filter_state`` of each share's last bar."""
    names = [*registry.core, *registry.ingredients]
    lists = rows["filter_state"].combine_chunks().field("live")
    live = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), len(names))
    given = _given(rows, [*_SHARE, "date", "market", "close", "volume"])
    found = given | {name: pa.array(live[:, i]) for i, name in enumerate(names)}
    found |= {name: values for name, values in _states(rows, registry).items() if name not in found}
    last = newest_of(frame_of(pa.table(found)), 1)
    return last.rename(columns={"date": "as_of"}).assign(registry_hash=registry.hash).reset_index(drop=True)


def _given(rows: pa.Table, names: list[str]) -> dict[str, pa.ChunkedArray]:
    return {name: rows[name] for name in names}


def _states(rows: pa.Table, registry: Registry) -> dict[str, pa.Array]:
    state = rows["filter_state"].combine_chunks()
    return {name: state.field(name) for name in state_columns(registry)}
