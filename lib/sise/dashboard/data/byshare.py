"""All rows of one share out of a large table: the lake lies by date, so that a day is read quickly; a share's ten years
are in every file. A copy sorted by share, kept beside the viewer, answers that in milliseconds.

The copy remembers which file of the table each row came from. What counts is always the table as it is now: rows of
files that are no longer part of it are left out, and files that the copy does not have are read themselves. So it is
never wrong, only slower while many files are new; then it is made anew in the background.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from sise.dashboard.data.view import LakeView

__all__ = ["ByShare"]

_GROUP = 16_384  # rows of a row group: what is read for one share


class ByShare:
    """One table's columns by share. ``floor``: a table with fewer rows than this is read as it is; so many new rows
    make a new copy worth its while."""

    def __init__(self, view: LakeView, name: str, folder: Path, skip: Sequence[str] = (), floor: int = 1_000_000):
        self.view, self.name, self.skip, self.floor = view, name, set(skip), floor
        self.folder = folder
        self._lock = threading.Lock()
        self._builder: threading.Thread | None = None
        self._con: duckdb.DuckDBPyConnection | None = None
        self._read: tuple[str, ds.Dataset, list[str]] | None = None

    @property
    def columns(self) -> list[str]:
        return [c for c in self.view.columns(self.name) if c not in self.skip]

    def _dataset(self) -> ds.Dataset:
        def build() -> ds.Dataset:
            table = self.view.table(self.name)
            assert table is not None
            return table.to_pyarrow_dataset()

        return self.view.memo([self.name], ("dataset", self.name), build)

    def rows(self, country: str, symbol: str) -> pa.Table:
        """The share's rows now, in no order. Starts a new copy in the background where that is due."""
        wanted = (pc.field("symbol") == symbol) & (pc.field("country") == country)
        columns, fragments = self.columns, list(self._dataset().get_fragments())
        copy = self._copy(columns)
        if copy is None:
            self._freshen(fragments, set())
            return self._dataset().to_table(columns=columns, filter=wanted)
        data, files = copy
        place = {path: n for n, path in enumerate(files)}
        kept = data.to_table(columns=[*columns, "_file"], filter=wanted)
        now = pa.array([place[f.path] for f in fragments if f.path in place], pa.int32())
        parts = [kept.filter(pc.is_in(kept["_file"], now)).drop_columns("_file")]
        new = [f for f in fragments if f.path not in place]
        parts += [f.to_table(columns=columns, filter=wanted).cast(parts[0].schema) for f in new]
        self._freshen(fragments, set(place))
        return pa.concat_tables(parts)

    def _copy(self, columns: Sequence[str]) -> tuple[ds.Dataset, list[str]] | None:
        """The newest copy and the files that it has; None where there is none with these columns."""
        try:
            said: dict[str, Any] = json.loads((self.folder / f"{self.name}.json").read_text())
        except (OSError, ValueError):
            return None
        if said["table"] != self._where or said["columns"] != list(columns):
            return None
        if self._read is None or self._read[0] != said["path"]:
            path = self.folder / said["path"]
            if not path.exists():
                return None
            self._read = (said["path"], ds.dataset(path), said["files"])
        return self._read[1], self._read[2]

    @property
    def _where(self) -> str:
        return f"{self.view.reader.root}/{self.name}"

    def _freshen(self, fragments: Sequence[Any], known: set[str]) -> None:
        new = sum(f.metadata.num_rows for f in fragments if f.path not in known)
        with self._lock:
            if new < self.floor or (self._builder is not None and self._builder.is_alive()):
                return
            self._builder = threading.Thread(target=self._try_build, name=f"sise-{self.name}", daemon=True)
            self._builder.start()
            atexit.register(self.stop)

    def _try_build(self) -> None:
        with suppress(OSError, duckdb.Error, pa.ArrowException):  # a full disk costs speed, never an answer
            self.build()

    def wait(self) -> None:
        """Until a copy that is being made is there."""
        if self._builder is not None:
            self._builder.join()

    def stop(self) -> None:
        """Ends a copy that is being made: a process that leaves does not wait for it."""
        if self._con is not None:
            self._con.interrupt()
        self.wait()

    def build(self) -> None:
        """Makes the copy of the table as it is now, and puts it in the place of the one before."""
        columns, fragments = self.columns, list(self._dataset().get_fragments())
        schema = pa.schema([*[self._dataset().schema.field(c) for c in columns], pa.field("_file", pa.int32())])

        def batches() -> Iterator[pa.RecordBatch]:
            for n, fragment in enumerate(fragments):
                for batch in fragment.to_batches(columns=columns):
                    marked = pa.Table.from_batches([batch]).append_column(
                        "_file", pa.array([n] * batch.num_rows, pa.int32())
                    )
                    yield from marked.cast(schema).to_batches()

        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.name}-{uuid.uuid4().hex[:12]}.parquet"
        scratch = self.folder / f".{name}.tmp"
        options: dict[str, Any] = {"threads": "1", "memory_limit": "1500MB", "temp_directory": str(scratch)}
        self._con = con = duckdb.connect(config=options)
        try:
            con.register("rows", pa.RecordBatchReader.from_batches(schema, batches()))
            con.execute(
                f"COPY (SELECT * FROM rows ORDER BY symbol, country, date) TO '{_quoted(self.folder / name)}' "
                f"(FORMAT parquet, ROW_GROUP_SIZE {_GROUP}, COMPRESSION snappy)"
            )
        finally:
            self._con = None
            con.close()
            _remove(scratch)
        files = [f.path for f in fragments]
        said = {"table": self._where, "path": name, "columns": columns, "files": files}
        part = self.folder / f".{self.name}.{os.getpid()}.part"
        part.write_text(json.dumps(said))
        part.replace(self.folder / f"{self.name}.json")
        for old in self.folder.glob(f"{self.name}-*.parquet"):
            if old.name != name:
                old.unlink(missing_ok=True)


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("'", "''")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
