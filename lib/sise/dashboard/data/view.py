"""The lake as the viewer reads it: a table is opened once, read when its version changes, and shared by all viewers."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from deltalake import DeltaTable

from sise.errors import SiseError
from sise.reader import Filter, LakeReader
from sise.settings import Settings

__all__ = ["LakeView"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Opened:
    """A table as it was looked at. ``identity``: the id that Delta gave it; ``file``: what tells its newest commit's
    file from that of another table with the same path and versions."""

    asked: float = -1e9
    table: DeltaTable | None = None
    identity: str = ""
    file: tuple[int, int, int] | None = None


class LakeView:
    """Frames of the lake's tables, kept while their versions stay. Thread-safe; what it returns must not be changed.

    ``fresh``: seconds for which a table's version is not asked for again. A write of a job is seen after that.
    """

    def __init__(self, settings: Settings, fresh: float = 5.0, keep: int = 4_000):
        self.settings, self.fresh, self.keep = settings, fresh, keep
        self.reader = LakeReader(settings.lake)
        self._tables: dict[str, _Opened] = {}
        self._kept: dict[str | None, OrderedDict[Any, tuple[Any, Any]]] = {}  # what: (the tables' versions, the value)
        self._lock = threading.RLock()
        self._building: dict[Any, threading.Lock] = {}
        self._by_share: dict[str, Any] = {}

    def table(self, name: str) -> DeltaTable | None:
        """The table as it is now (at most ``fresh`` seconds ago); None where it does not exist."""
        with self._lock:
            opened = self._tables.get(name, _Opened())
            if time.monotonic() - opened.asked < self.fresh:
                return opened.table
            known, same = opened.table, False
            try:
                # A lake that was made anew, or put back, may have the versions of the one before.
                same = known is not None and self._file(name, known) == opened.file
                if known is not None and same:
                    known.update_incremental()
            except Exception:  # the table was removed under us
                same = False
            if not same:
                known = self._open(name)
            identity = "" if known is None else opened.identity if same else str(known.metadata().id)
            file = None if known is None else self._file(name, known)
            self._tables[name] = _Opened(time.monotonic(), known, identity, file)
            return known

    def _open(self, name: str) -> DeltaTable | None:
        try:
            return self.reader.open(name) if self.reader.exists(name) else None
        except SiseError:
            return None

    def _file(self, name: str, known: DeltaTable) -> tuple[int, int, int] | None:
        """Of the newest commit; None where its file is gone, or not one of this machine."""
        try:
            found = (Path(self.reader.root) / name / "_delta_log" / f"{known.version():020}.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def exists(self, name: str) -> bool:
        return self.table(name) is not None

    def version(self, name: str) -> int:
        """The table's version; -1 where it does not exist."""
        known = self.table(name)
        return -1 if known is None else int(known.version())

    def _identity(self, name: str) -> str:
        with self._lock:
            return self._tables.get(name, _Opened()).identity

    def memo(self, tables: Sequence[str], key: Any, build: Callable[[], T], most: int | None = None) -> T:
        """``build()``, once for each version of ``tables``; ``key`` tells what is built, and only its newest value is
        kept. ``most``: what is built is large, and no more of its kind (the key's first word) are kept than so many."""
        place, versions = (key, tuple(tables)), tuple((self.version(name), self._identity(name)) for name in tables)
        kind, room = (key[0], most) if most else (None, self.keep)

        def known() -> tuple[Any, Any] | None:
            shelf = self._kept.get(kind)
            kept = None if shelf is None else shelf.get(place)
            return kept if kept is not None and kept[0] == versions else None

        with self._lock:
            if found := known():
                self._kept[kind].move_to_end(place)
                return found[1]  # type: ignore[no-any-return]
            alone = self._building.setdefault(place, threading.Lock())
        with alone:  # fifty viewers who come at once cost one read
            with self._lock:
                if found := known():
                    return found[1]  # type: ignore[no-any-return]
            try:
                value = build()
                with self._lock:
                    shelf = self._kept.setdefault(kind, OrderedDict())
                    shelf[place] = versions, value
                    shelf.move_to_end(place)
                    while len(shelf) > room:
                        shelf.popitem(last=False)
            finally:
                with self._lock:
                    self._building.pop(place, None)
        return value

    def frame(self, name: str, columns: Sequence[str] | None = None, where: Sequence[Filter] = ()) -> pd.DataFrame:
        """The rows that meet every condition; an empty frame with the columns where the table does not exist."""
        chosen = tuple(columns) if columns else None
        return self.memo([name], ("frame", name, chosen, tuple(where)), lambda: self.read(name, chosen, where))

    def read(self, name: str, columns: Sequence[str] | None = None, where: Sequence[Filter] = ()) -> pd.DataFrame:
        """``frame``, not kept."""
        if not self.exists(name):
            from sise.tables import table

            return pd.DataFrame(columns=list(columns or table(name).columns))
        return self.reader.rows(name, columns, where).to_pandas(date_as_object=True)

    def of_share(self, name: str, country: str, symbol: str) -> pd.DataFrame:
        """All rows of one share (data/byshare.py), not kept; an empty frame where the table does not exist."""
        if not self.exists(name):
            return self.read(name)
        found: pd.DataFrame = self.by_share(name).rows(country, symbol).to_pandas(date_as_object=True)
        return found

    def by_share(self, name: str) -> Any:
        """The copy of a table that is sorted by share."""
        from sise.dashboard.data.byshare import ByShare

        with self._lock:
            folder = self.settings.local / "dashboard" / "by-share"
            return self._by_share.setdefault(name, ByShare(self, name, folder, ("filter_state",)))

    def columns(self, name: str) -> list[str]:
        known = self.table(name)
        return [] if known is None else [field.name for field in known.schema().fields]
