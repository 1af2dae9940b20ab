"""The only door to the Delta tables: read, append, merge and replace, each one commit.

Every write is atomic and idempotent: a job killed between two writes leaves the last good state and can be run
again. One writer a table at a time (Delta has no row-level concurrency).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from delta.tables import DeltaTable
from deltalake import DeltaTable as LocalTable
from deltalake import Metadata
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sise.delta_log import newest_commits, newest_version
from sise.errors import SiseError
from sise.lake_arrow import ArrowDoor, Rows, bounds
from sise.locks import alone
from sise.tables import Table, table

__all__ = ["Lake", "Written"]

# Only the keys carry file statistics: collecting them for thirty float columns costs a third of a large write.
_STATS = {"date", "valid_from", "ex_date", "symbol", "country", "index", "list", "market"}
_MARK = "sise.mark"


@dataclass(frozen=True)
class Written:
    """What one write did: rows inserted, updated and deleted."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted


class Lake:
    """The tables under one root, ``$SISE_LAKE``."""

    def __init__(self, spark: SparkSession, root: str, extra_columns: Mapping[str, Mapping[str, str]] | None = None):
        self.spark = spark
        self.root = root.rstrip("/")
        self._extra = extra_columns or {}
        self._known: set[str] = set()
        self._grown: set[str] = set()
        default = spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS") or "file:"  # type: ignore[union-attr]
        self._on_this_machine = "://" not in root and default.startswith("file:")
        self.arrow = ArrowDoor(self, self._on_this_machine)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def declared(self, name: str) -> Table:
        """The table with the columns that a registry adds to it."""
        base = table(name)
        return replace(base, columns={**base.columns, **self._extra.get(name, {})})

    def schema(self, name: str) -> T.StructType:
        schema = T.StructType.fromDDL(self.declared(name).ddl)
        assert isinstance(schema, T.StructType)
        return schema

    def exists(self, name: str) -> bool:
        if name not in self._known:
            log = self._log(name)
            found = newest_version(log) >= 0 if log else DeltaTable.isDeltaTable(self.spark, self.path(name))
            if found:
                self._known.add(name)
        return name in self._known

    def version(self, name: str) -> int:
        """The table's newest version; -1 where there is none yet."""
        if log := self._log(name):
            return newest_version(log)
        return int(self.commits(name, 1)[0]["version"]) if self.exists(name) else -1

    def identity(self, name: str) -> str:
        """The id that Delta gave the table when it was made; '' where there is none yet. One that was deleted and made
        anew has the same path and versions, but another id."""
        if not self.exists(name):
            return ""
        if self._on_this_machine:
            return str(self._metadata(name).id)
        return str(self._detail(name, "id"))

    def mark(self, name: str) -> str:
        """What ``set_mark`` wrote last; '' where it never did."""
        if not self.exists(name):
            return ""
        if self._on_this_machine:
            return str(self._metadata(name).configuration.get(_MARK, ""))
        return str((self._detail(name, "properties") or {}).get(_MARK, ""))

    def set_mark(self, name: str, text: str) -> None:
        """Writes a word on the table that outlives its content, in a commit of its own, if another one stands there."""
        self.ensure(name)
        with self._alone(name):
            if self.mark(name) != text:
                self.spark.sql(f"ALTER TABLE delta.`{self.path(name)}` SET TBLPROPERTIES ('{_MARK}' = '{text}')")

    def size(self, name: str) -> int:
        """What the table's newest version takes, in bytes; 0 where there is none yet."""
        if not self.exists(name):
            return 0
        if self._on_this_machine:
            return sum(LocalTable(self.path(name)).get_add_actions()["size_bytes"].to_pylist())
        return int(self._detail(name, "sizeInBytes"))

    def _metadata(self, name: str) -> Metadata:
        return LocalTable(self.path(name), without_files=True).metadata()

    def _detail(self, name: str, column: str) -> Any:
        return DeltaTable.forPath(self.spark, self.path(name)).detail().select(column).collect()[0][0]

    def replaced(self, name: str, version: int, identity: str | None) -> bool:
        """Whether the table that had this version and identity once is another one now, or older."""
        return version >= 0 and (identity != self.identity(name) or version > self.version(name))

    def _log(self, name: str) -> Path | None:
        """The folder of the table's log, where the lake is one of this machine: its file names answer in no time what
        costs Spark a query."""
        return Path(self.path(name)) / "_delta_log" if self._on_this_machine else None

    def commits(self, name: str, count: int) -> list[Mapping[str, Any]]:
        """Version, userMetadata and operationMetrics of the newest commits, newest first."""
        if log := self._log(name):
            return newest_commits(log, count)
        rows = DeltaTable.forPath(self.spark, self.path(name)).history(count).collect()
        return [row.asDict() for row in rows]

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """The table as it is, or was at ``version``; where it does not exist yet, an empty frame of its schema."""
        if not self.exists(name):
            return self.spark.createDataFrame([], self.schema(name))
        at = {} if version is None else {"versionAsOf": version}
        return self.spark.read.format("delta").options(**at).load(self.path(name))

    def note(self, name: str) -> str | None:
        """What the newest commit that carries a note says (see ``replace``)."""
        if not self.exists(name):
            return None
        return next((found for commit in self.commits(name, 20) if (found := commit.get("userMetadata"))), None)

    def require(self, name: str) -> DataFrame:
        """The table; where there is none, the error of ``demand``."""
        self.demand(name)
        return self.read(name)

    def demand(self, name: str) -> None:
        """Raises SiseError that names the job which makes the table, where it does not exist yet."""
        if not self.exists(name):
            first = f"run {table(name).made_by} first (SISE_LAKE={self.root})"
            raise SiseError(f"{self.path(name)} does not exist yet: {first}")

    def changes(self, name: str, since: int, newest: int) -> DataFrame | None:
        """Row images inserted, updated or deleted after version ``since`` up to ``newest``; None where the feed
        cannot tell any more."""
        if newest <= since:
            return self.spark.createDataFrame([], self.schema(name))
        reader = self.spark.read.format("delta").option("readChangeFeed", "true")
        try:
            frame = reader.option("startingVersion", since + 1).option("endingVersion", newest).load(self.path(name))
            frame.limit(0).collect()
        except Exception as problem:
            # The log was cleaned, the feed's files were vacuumed, or may have been: Delta refuses to look further back
            # than it keeps deleted files (a week).
            if any(word in str(problem).upper() for word in ("CHANGE", "VERSION", "TIME TRAVEL", "RETENTION")):
                return None
            raise
        return frame

    def ensure(self, name: str) -> None:
        """Creates the table from its declaration if it is not there; one that an earlier version of sise made gets the
        columns that it lacks, null in the rows there are."""
        if self.exists(name):
            self._grow(name)
            return
        what, builder = self.declared(name), DeltaTable.createIfNotExists(self.spark).location(self.path(name))
        builder = builder.addColumns(self.schema(name))
        builder = builder.clusterBy(*what.cluster) if what.cluster else builder
        for label, check in what.checks.items():
            builder = builder.property(f"delta.constraints.{label}", check)
        stats = [c for c in what.columns if c in _STATS or c in what.cluster]
        settings = {"enableChangeDataFeed": "true", "enableDeletionVectors": "false"}
        for key, value in {**settings, "dataSkippingStatsColumns": ",".join(stats)}.items():
            builder = builder.property(f"delta.{key}", value)
        builder.execute()
        self._known.add(name)

    def _grow(self, name: str) -> None:
        if name in self._grown:
            return
        self._grown.add(name)
        there = set(self.arrow.columns(name))
        declared = table(name).columns.items()  # a registry's columns come with their rows
        if lacking := [f"`{column}` {kind}" for column, kind in declared if column not in there]:
            self.spark.sql(f"ALTER TABLE delta.`{self.path(name)}` ADD COLUMNS ({', '.join(lacking)})")

    def append(self, name: str, rows: DataFrame, once: tuple[str, int] | None = None) -> None:
        """``once``: who appends, and a number that grows with its appends; one that is there is not written again."""
        self.ensure(name)
        writer = self._write(name, rows).mode("append")
        if once is not None:
            writer = writer.option("txnAppId", once[0]).option("txnVersion", once[1])
        writer.save(self.path(name))

    def replace(self, name: str, rows: DataFrame, where: str | None = None, note: str | None = None) -> None:
        """Replaces the whole table, or the rows that meet ``where``, in one commit that carries ``note``."""
        self.ensure(name)
        options = {} if note is None else {"userMetadata": note}
        if where is not None:
            options["replaceWhere"] = where
        elif self.read(name).dtypes != [(f.name, f.dataType.simpleString()) for f in self.schema(name).fields]:
            options["overwriteSchema"] = "true"  # which forgets the clustering
        self._write(name, rows).mode("overwrite").options(**options).save(self.path(name))
        by = list(self.declared(name).cluster)
        if where is None and by and self._detail(name, "clusteringColumns") != by:
            self.spark.sql(f"ALTER TABLE delta.`{self.path(name)}` CLUSTER BY ({', '.join(by)})")

    def merge(self, name: str, rows: Rows, *, deletes: Rows | None = None) -> Written:
        """Merges on the key: inserts new rows, updates only rows that differ, removes the keys in ``deletes``.

        ``rows`` must be unique on the key and cheap to read twice (persist what is not). Timestamps of collection
        alone are no difference, so merging the same rows again changes nothing.
        """
        with self._alone(name):
            return self._merge(name, rows, deletes)

    def _alone(self, name: str) -> AbstractContextManager[None]:
        """Two jobs that find a session empty would both append it, and Delta lets them; a mark set meanwhile, a change
        of the table's metadata, would fail a merge."""
        return alone(Path(self.root) / ".locks" / name) if self._on_this_machine else nullcontext()

    def _merge(self, name: str, rows: Rows, deletes: Rows | None) -> Written:
        what = self.declared(name)
        self.ensure(name)
        dated = next((c for c in what.key if what.columns[c] == "date"), None)
        found = bounds(dated, [rows] if deletes is None else [rows, deletes])
        if found is None:
            return Written()
        span = [] if dated is None else [(dated, ">=", found[0]), (dated, "<=", found[1])]
        # Nothing to compare with: the usual new session. Where no lock keeps others off, only a merge sees them.
        if self._on_this_machine and self.arrow.count(name, span) == 0:
            if isinstance(rows, pa.Table):
                self.arrow.append(name, rows)
                return Written(inserted=rows.num_rows)
            self.append(name, rows)
            return Written(inserted=int(self.commits(name, 1)[0]["operationMetrics"]["numOutputRows"]))
        frame = self.arrow.frame(name, rows) if isinstance(rows, pa.Table) else rows
        source = self._select(name, frame).withColumn("_delete", F.lit(False))
        if deletes is not None:
            gone = self.spark.createDataFrame(deletes) if isinstance(deletes, pa.Table) else deletes
            gone = gone.select(*what.key).withColumn("_delete", F.lit(True))
            source = source.unionByName(gone, allowMissingColumns=True)
        # The span lets Delta skip the files of other days.
        within = [f"t.`{column}` {operator} DATE'{day}'" for column, operator, day in span]
        match = " AND ".join([*(f"t.`{c}` = s.`{c}`" for c in what.key), *within])
        values = [c for c in what.columns if c not in (*what.key, *what.stamps)]
        differs = " OR ".join(_differs(c, what.columns[c]) for c in values) or "false"
        columns: dict[str, str | Column] = {f"`{c}`": f"s.`{c}`" for c in what.columns}
        result = (
            DeltaTable.forPath(self.spark, self.path(name))
            .alias("t")
            .merge(source.alias("s"), match)
            .whenMatchedDelete("s._delete")
            .whenMatchedUpdate(differs, set=columns)
            .whenNotMatchedInsert("NOT s._delete", values=columns)
            .execute()
            .collect()[0]
        )
        return Written(*(int(result[f"num_{done}_rows"]) for done in ("inserted", "updated", "deleted")))

    def _select(self, name: str, rows: DataFrame) -> DataFrame:
        """The contract: exactly the declared columns, in order and of the declared types."""
        return rows.select(*[F.col(f.name).cast(f.dataType).alias(f.name) for f in self.schema(name).fields])

    def _write(self, name: str, rows: DataFrame):  # type: ignore[no-untyped-def]
        # Computed values hardly repeat: a dictionary of them costs a quarter of a large write and is thrown away.
        columns = self.declared(name).columns if name in self._extra else {}
        for column in (c for c, kind in columns.items() if kind == "double"):
            self.spark.conf.set(f"parquet.enable.dictionary#{column}", "false")
        return self._select(name, rows).write.format("delta")


def _differs(column: str, kind: str) -> str:
    """Whether the two rows of a merge differ in the column; maps do not compare, but their entries do."""
    side = "map_entries({}.`{}`)" if kind.startswith("map") else "{}.`{}`"
    return f"NOT ({side.format('t', column)} <=> {side.format('s', column)})"
