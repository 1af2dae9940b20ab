"""The lake's tables as Arrow in this process, for what is a few rows a share: a first query of Spark's takes seconds,
these take milliseconds.

On a lake of this machine ``deltalake`` reads and writes; elsewhere, and where it cannot (it writes no clustered table),
Spark does. The rows, the contract of a table and its one commit are the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from sise.reader import Filter, LakeReader

if TYPE_CHECKING:
    from sise.lake import Lake

__all__ = ["ArrowDoor", "Rows", "bounds"]

Rows: TypeAlias = DataFrame | pa.Table

# What the images of a row in the change feed are told apart by.
_COMMIT = "_commit_version"
_MERGED = {"numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted"}


class ArrowDoor:
    """``lake.arrow``: rows, changes and whole tables as pyarrow.Table; they have to fit in memory."""

    def __init__(self, lake: Lake, on_this_machine: bool):
        self._lake, self._here = lake, on_this_machine
        self._reader = LakeReader(lake.root)

    def schema(self, name: str, columns: Sequence[str] | None = None) -> pa.Schema:
        """The table's declared columns, or these of them, as Arrow's."""
        declared = to_arrow_schema(self._lake.schema(name), timezone="UTC")
        return declared if columns is None else pa.schema([declared.field(column) for column in columns])

    def rows(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        where: Sequence[Filter] = (),
        version: int | None = None,
    ) -> pa.Table:
        """The rows that meet every condition (column, operator, value: reader.py), these columns; no rows where the
        table does not exist yet."""
        if not self._lake.exists(name):
            return self.schema(name, columns).empty_table()
        if self._here:
            return self._reader.rows(name, columns, where, version)
        frame = self._where(name, where, version)
        return (frame if columns is None else frame.select(*columns)).toArrow()

    def _where(self, name: str, where: Sequence[Filter], version: int | None = None) -> DataFrame:
        frame = self._lake.read(name, version)
        for column, operator, value in where:
            frame = frame.where(_CONDITIONS[operator](F.col(column), value))
        return frame

    def columns(self, name: str) -> list[str]:
        """The columns that the table has, whatever is declared."""
        if not self._here:
            return list(self._lake.read(name).columns)
        return [field.name for field in DeltaTable(self._lake.path(name), without_files=True).schema().fields]

    def count(self, name: str, where: Sequence[Filter] = ()) -> int:
        """How many rows meet the conditions; of a whole table its log tells."""
        if not self._lake.exists(name):
            return 0
        return self._reader.count(name, where) if self._here else self._where(name, where).count()

    def written(self, name: str, since: int, newest: int) -> int:
        """How many rows the commits after version ``since`` up to ``newest`` inserted, updated or deleted, as they say
        themselves; one that rewrote rows as they were counts those, too."""
        told = [
            commit
            for commit in self._lake.commits(name, self._lake.version(name) - since)
            if commit["version"] <= newest
        ]
        found = 0
        for metrics in (commit.get("operationMetrics") or {} for commit in told):
            merged = [int(n) for key, n in metrics.items() if key in _MERGED]
            found += sum(merged) if merged else int(metrics.get("numOutputRows", 0))
        return found

    def changes(self, name: str, since: int, newest: int, columns: Sequence[str]) -> pa.Table | None:
        """The images, before and after, of rows whose ``columns`` were inserted, changed or deleted after version
        ``since`` up to ``newest``; None where the feed cannot tell any more."""
        if newest <= since:
            return self.schema(name, columns).empty_table()
        if not self._here:
            frame = self._lake.changes(name, since, newest)
            return None if frame is None else frame.select(*columns).toArrow()
        table = DeltaTable(self._lake.path(name))
        try:
            feed = table.load_cdf(
                starting_version=since + 1, ending_version=newest, columns=[*columns, _COMMIT, "_change_type"]
            )
            images = pa.table(feed.read_all()).cast(self._feed(name, columns))
        except Exception as problem:
            # The log was cleaned (a DeltaError), or files were vacuumed, which comes as a plain Exception.
            if isinstance(problem, DeltaError) or "not found" in str(problem):
                return None
            raise
        return _without_moves(images, list(columns)).select(columns)

    def _feed(self, name: str, columns: Sequence[str]) -> pa.Schema:
        return pa.schema(
            [*self.schema(name, columns), pa.field(_COMMIT, pa.int64()), pa.field("_change_type", pa.string())]
        )

    def replace(self, name: str, rows: pa.Table, note: str | None = None) -> None:
        """Replaces the whole table in one commit that carries ``note`` (Lake.note)."""
        if not self._direct(name):
            self._lake.replace(name, self.frame(name, rows), note=note)
            return
        self._lake.ensure(name)
        said = None if note is None else CommitProperties(custom_metadata={"userMetadata": note})
        same = self.columns(name) == self.schema(name).names
        write_deltalake(
            self._lake.path(name),
            self._contract(name, rows),
            mode="overwrite",
            schema_mode=None if same else "overwrite",
            commit_properties=said,
        )

    def append(self, name: str, rows: pa.Table) -> None:
        if not self._direct(name):
            self._lake.append(name, self.frame(name, rows))
            return
        self._lake.ensure(name)
        write_deltalake(self._lake.path(name), self._contract(name, rows), mode="append")

    def frame(self, name: str, rows: pa.Table) -> DataFrame:
        """The rows as Spark has them, of the table's columns that ``rows`` has; few enough for one file."""
        return self._lake.spark.createDataFrame(self._contract(name, rows)).coalesce(1)

    def _direct(self, name: str) -> bool:
        return self._here and not self._lake.declared(name).cluster and self._links

    @cached_property
    def _links(self) -> bool:
        """Whether the lake's folder has hard links, by which deltalake commits: some mounted stores have none."""
        root = Path(self._lake.root)
        root.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".links-", dir=root) as folder:
                (Path(folder) / "one").touch()
                os.link(Path(folder) / "one", Path(folder) / "two")
        except OSError:
            return False
        return True

    def _contract(self, name: str, rows: pa.Table) -> pa.Table:
        """Exactly the declared columns, in order and of the declared types; one that ``rows`` lacks is null."""
        schema = self.schema(name)
        columns = [
            rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema)


def _without_moves(images: pa.Table, columns: list[str]) -> pa.Table:
    """Without rows that a commit took away and wrote again as they were: it moved them to another file."""
    before = pc.is_in(images["_change_type"], pa.array(["delete", "update_preimage"]))
    if not pc.any(before).as_py():
        return images
    frame = images.to_pandas(date_as_object=False)
    frame["_sign"] = np.where(before.to_numpy(), -1, 1)
    balance = frame.groupby([*columns, _COMMIT], dropna=False, sort=False)["_sign"].transform("sum")
    return images.filter(pa.array(balance.to_numpy() != 0))


def bounds(column: str | None, parts: Sequence[Rows]) -> tuple[Any, Any] | None:
    """The least and the greatest value of a column (of none, nothing in particular); None where there are no rows."""
    ends: list[tuple[Any, Any]] = []
    frames = [part.select(column or "*") for part in parts if not isinstance(part, pa.Table)]
    for table in (part for part in parts if isinstance(part, pa.Table) and part.num_rows):
        ends.append((None, None) if column is None else tuple(pc.min_max(table[column]).as_py().values()))
    if frames and column is not None:
        rows = reduce(DataFrame.unionByName, frames).agg(F.min(column), F.max(column)).collect()[0]
        ends += [] if rows[0] is None else [(rows[0], rows[1])]
    elif any(not frame.isEmpty() for frame in frames):
        ends.append((None, None))
    if not ends or column is None:
        return ends[0] if ends else None
    return min(low for low, _ in ends), max(high for _, high in ends)


_CONDITIONS = {
    "=": lambda column, value: column == F.lit(value),
    ">=": lambda column, value: column >= F.lit(value),
    "<=": lambda column, value: column <= F.lit(value),
    ">": lambda column, value: column > F.lit(value),
    "<": lambda column, value: column < F.lit(value),
    "in": lambda column, values: column.isin(list(values)),
    "known": lambda column, _: column.isNotNull(),
}
