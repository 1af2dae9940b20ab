"""A question to a vendor and its answer, as they are handed around and kept."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from sise.sources.base import BARS
from sise.sources.outcome import Fate

__all__ = ["BAR_SCHEMA", "Answer", "Ask", "Quoting", "Vendor", "bars_table", "frozen", "thawed"]

_ARROW = {"string": pa.string(), "date": pa.date32(), "double": pa.float64(), "boolean": pa.bool_()}
# BARS for Arrow; vendors are asked where no Spark is.
BAR_SCHEMA = pa.schema([(name, _ARROW[kind]) for name, kind in (item.split() for item in BARS.split(","))])


@dataclass(frozen=True)
class Ask:
    """``kind``: bars, indices or actions. ``symbol``: None where the question is about a whole market. ``first``,
    ``last``: sessions, both included."""

    kind: str
    country: str
    market: str
    symbol: str | None
    first: date
    last: date

    @property
    def key(self) -> str:
        """Whom it is about: KR:005930, or KR:KOSPI for a whole market; other kinds carry their name."""
        about = f"{self.country}:{self.symbol or self.market + '*'}"
        return about if self.kind == "bars" else f"{self.kind} {about}"


@dataclass
class Answer:
    """``bars``: a table of BARS; ``actions``, ``indices``: rows of ACTIONS and INDICES; ``reason``: what a person
    should know. ``requests`` and ``seconds`` are what it cost."""

    fate: Fate
    reason: str = ""
    bars: pa.Table | None = None
    actions: Sequence[Mapping[str, Any]] = ()
    indices: Sequence[Mapping[str, Any]] = ()
    requests: int = 0
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return (self.bars.num_rows if self.bars is not None else 0) + len(self.indices)


class Vendor(Protocol):
    """One vendor's prices. ``by``: market-day (a question is a market's whole session) or symbol (a share's span);
    ``usual``: the markets that are asked for when none is named;
    ``workers``: how many questions at once; ``span``: a symbol's question is for at most so many sessions (0: any);
    ``rebased``: whether the vendor rewrites its history at a split."""

    name: str
    by: str
    markets: Sequence[str]
    usual: Sequence[str]
    workers: int
    span: int
    rebased: bool

    def open(self) -> None:
        """Logs in, where that is needed; raises ConfigError or VendorError, and then nothing is asked."""

    def ask(self, ask: Ask) -> Answer:
        """The answer; raises VendorError for what there is none to. Called from several threads."""

    def extras(self, markets: Sequence[str], first: date, last: date) -> list[Ask]:
        """What a run asks beside bars: indices, corporate actions of whole markets."""

    def close(self) -> None: ...


@runtime_checkable
class Quoting(Protocol):
    """A vendor that quotes the newest session of many shares at once. ``affordable``: how many questions about single
    shares a day's run may have; the others' shares may be quoted."""

    @property
    def affordable(self) -> int: ...

    def quoted(self, asks: Sequence[Ask], closes: Mapping[str, float]) -> Iterator[tuple[Ask, Answer]]:
        """Answers of their last session to those whose quote goes on from their last close (``closes``, by key) with
        nothing that has to be looked into; raises VendorError where there are no quotes."""


def bars_table(columns: Mapping[str, Any], rows: int) -> pa.Table:
    """A table of BARS from columns or single values; a column that is not given is null."""
    arrays = []
    for item in BAR_SCHEMA:
        given = columns.get(item.name)
        if isinstance(given, (list, pa.Array, pa.ChunkedArray)) or hasattr(given, "to_numpy"):
            arrays.append(pa.array(given, item.type, from_pandas=True))
        else:
            arrays.append(pa.array([given] * rows, item.type))
    return pa.table(arrays, schema=BAR_SCHEMA)


def frozen(answer: Answer) -> tuple[bytes | None, str]:
    """What the ledger keeps of an answer: its bars as an Arrow stream, the rest as JSON.

    (Of a share's few bars Parquet takes ten times as long.)"""
    packed = None
    if answer.bars is not None and answer.bars.num_rows:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, answer.bars.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
            out.write_table(answer.bars)
        packed = sink.getvalue().to_pybytes()
    rest = {"actions": list(answer.actions), "indices": list(answer.indices), "extra": answer.extra}
    return packed, json.dumps(rest, default=_plain, ensure_ascii=False)


def thawed(
    packed: bytes | None, rest: str
) -> tuple[pa.Table, list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Bars, actions, indices and extras as they were frozen; dates are dates again."""
    if not packed:
        bars = BAR_SCHEMA.empty_table()
    elif packed.startswith(b"PAR1"):  # kept by a version before 2026-11-22
        bars = pq.read_table(io.BytesIO(packed)).cast(BAR_SCHEMA)
    else:
        bars = pa.ipc.open_stream(packed).read_all().cast(BAR_SCHEMA)
    told = json.loads(rest)
    for row in [*told["actions"], *told["indices"]]:
        for column in ("ex_date", "date"):
            if row.get(column):
                row[column] = date.fromisoformat(row[column])
    return bars, told["actions"], told["indices"], told["extra"]


def _plain(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be kept")
