"""The lake without Spark: what the command line and the viewer read through ``deltalake``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import date
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

from sise.calendars import COUNTRIES
from sise.errors import InputError, SiseError
from sise.tables import TABLES, table

__all__ = ["Filter", "LakeReader"]

Filter = tuple[str, str, Any]
_OPERATORS: dict[str, Callable[[pc.Expression, Any], pc.Expression]] = {
    "=": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "in": lambda field, values: field.isin(list(values)),
    "known": lambda field, _: field.is_valid(),
}


def _all(where: Sequence[Filter]) -> pc.Expression | None:
    conditions = [_OPERATORS[op](pc.field(c), v) for c, op, v in where]
    return reduce(operator.and_, conditions) if conditions else None


class LakeReader:
    """Reads the tables under ``$SISE_LAKE``; needs no JVM."""

    def __init__(self, root: str):
        self.root = root.rstrip("/")

    def open(self, name: str) -> DeltaTable:
        """The table; if it does not exist, an error that names the job which makes it."""
        try:
            return DeltaTable(f"{self.root}/{table(name).name}")
        except TableNotFoundError:
            raise SiseError(
                f"{self.root}/{name} does not exist yet: run {table(name).made_by} first, or set SISE_LAKE"
            ) from None

    def exists(self, name: str) -> bool:
        return (
            DeltaTable.is_deltatable(f"{self.root}/{name}") if "://" in self.root or Path(self.root).exists() else False
        )

    def rows(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        where: Sequence[Filter] = (),
        version: int | None = None,
    ) -> pa.Table:
        """The rows that meet every condition (column, operator, value), only these columns; as of ``version``."""
        opened = self.open(name)
        if version is not None:
            opened.load_as_version(version)
        return opened.to_pyarrow_dataset().to_table(columns=list(columns) if columns else None, filter=_all(where))

    def count(self, name: str, where: Sequence[Filter] = ()) -> int:
        """How many rows meet every condition; of a whole table its log tells."""
        opened = self.open(name)
        told = [] if where else list(opened.get_add_actions()["num_records"].to_pylist())
        if not where and None not in told:
            return sum(told)
        return int(opened.to_pyarrow_dataset().count_rows(filter=_all(where)))

    def query(self, text: str, tables: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of an SQL query (DataFusion's) over these tables."""
        engine = QueryBuilder()
        for name in tables:
            engine.register(name, self.open(name))
        return list(pa.table(engine.execute(text).read_all()).to_pylist())

    def country_of(self, symbol: str, name: str, told: str | None = None) -> str:
        """Which country's share ``symbol`` is: the one told, or by the rows of a table; an error where it is none's or
        both's."""
        if told is not None:
            if told.upper() not in COUNTRIES:
                raise InputError(f"there is no country {told!r}: {' and '.join(COUNTRIES)} are known")
            return told.upper()
        found = pc.unique(self.rows(name, ["country"], [("symbol", "=", symbol)])["country"]).to_pylist()
        if not found:
            raise InputError(f"{symbol} has no row in {name}: is it spelled as the exchange does (005930, AAPL)?")
        if len(found) > 1:
            raise InputError(f"{symbol} is a share of {' and '.join(sorted(found))}: give --country")
        return str(found[0])

    def overview(self) -> list[tuple[str, int, int, date | None]]:
        """(table, rows, version, newest date) of every table there is."""
        found = []
        for name, what in TABLES.items():
            if not self.exists(name):
                continue
            opened = self.open(name)
            dataset = opened.to_pyarrow_dataset()
            dated = next((c for c, kind in what.columns.items() if kind == "date"), None)
            newest = None
            if dated is not None and (rows := dataset.count_rows()):
                newest = pc.max(dataset.to_table(columns=[dated])[dated]).as_py() if rows else None
            found.append((name, dataset.count_rows(), opened.version(), newest))
        return found
