"""What was asked and answered, in one SQLite file for each source and lake: the way a backfill goes on after a kill.

An answer and the note that there is one are one transaction, so neither exists without the other. The bars stay here
until they are in the lake; then only the note stays. Questions belong to a campaign (one evening's run, one backfill,
with everything that had to be started again); a run goes on with the campaign that is open.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sise.errors import SiseError
from sise.sources.asks import Answer, Ask, frozen, thawed
from sise.sources.outcome import Fate, Spent

__all__ = ["Kept", "Ledger"]

_TABLES = """
CREATE TABLE IF NOT EXISTS campaign (id INTEGER PRIMARY KEY, scope TEXT, opened TEXT, closed TEXT);
CREATE TABLE IF NOT EXISTS ask (
    id INTEGER PRIMARY KEY, campaign INTEGER, key TEXT, kind TEXT, country TEXT, market TEXT, symbol TEXT,
    first TEXT, last TEXT, fate TEXT, reason TEXT, rows INTEGER, requests INTEGER, seconds REAL, run TEXT, at TEXT,
    waiting INTEGER, bars BLOB, rest TEXT, told INTEGER DEFAULT 0);
CREATE INDEX IF NOT EXISTS ask_told ON ask (told) WHERE told = 0;
CREATE INDEX IF NOT EXISTS ask_telling ON ask (told) WHERE told = -1;
CREATE INDEX IF NOT EXISTS ask_campaign ON ask (campaign, key);
CREATE INDEX IF NOT EXISTS ask_waiting ON ask (waiting) WHERE waiting = 1;
CREATE INDEX IF NOT EXISTS ask_key ON ask (key);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS spent (day TEXT PRIMARY KEY, requests INTEGER);
"""
_ANSWERED = (Fate.OK, Fate.NO_DATA, Fate.CLOSED)


@dataclass(frozen=True)
class Kept:
    """An answer that waits for the lake."""

    id: int
    ask: Ask
    fate: Fate
    reason: str
    bars: Any
    actions: list[dict[str, Any]]
    indices: list[dict[str, Any]]
    extra: dict[str, Any]


class Ledger:
    """One process at a time has it: two runs of one source would ask twice and log each other out."""

    def __init__(self, folder: Path, source: str, lake: str, run: str = "", max_pages: int | None = None):
        name = hashlib.sha256(str(lake if "://" in lake else Path(lake).resolve()).encode()).hexdigest()[:12]
        self.path, self.run = folder / "ledger" / f"{source}-{name}.sqlite", run
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._held = self._alone(source)
        self._lock = threading.RLock()
        with self._guarded():
            self._base = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=30)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            if max_pages:
                self._base.execute(f"PRAGMA max_page_count={max_pages}")
            self._base.executescript(_TABLES)
            self._base.execute("INSERT OR IGNORE INTO fact VALUES ('id', ?)", (uuid.uuid4().hex,))

    def close(self) -> None:
        self._base.close()
        os.close(self._held)

    def bind(self, lake_id: str | None) -> bool:
        """Ties the ledger to the lake's own table; True if it had been tied to another one, whose notes are void."""
        with self._transaction() as base:
            known = base.execute("SELECT value FROM fact WHERE name = 'lake'").fetchone()
            void = bool(known) and known[0] != (lake_id or "")
            if void:
                base.execute("DELETE FROM ask WHERE waiting = 0")
                base.execute("UPDATE campaign SET closed = ? WHERE closed IS NULL", (_stamp(),))
            if lake_id:
                base.execute("INSERT OR REPLACE INTO fact VALUES ('lake', ?)", (lake_id,))
            elif void:
                base.execute("DELETE FROM fact WHERE name = 'lake'")
            return void

    def campaign(self, scope: str) -> int:
        """The open campaign of this scope, else a new one (which closes those of other scopes)."""
        with self._transaction() as base:
            found = base.execute("SELECT id FROM campaign WHERE scope = ? AND closed IS NULL", (scope,)).fetchone()
            if found:
                return int(found[0])
            base.execute("UPDATE campaign SET closed = ? WHERE closed IS NULL", (_stamp(),))
            made = base.execute("INSERT INTO campaign (scope, opened) VALUES (?, ?)", (scope, _stamp()))
            return int(made.lastrowid or 0)

    def finish(self, campaign: int) -> None:
        with self._transaction() as base:
            base.execute("UPDATE campaign SET closed = ? WHERE id = ?", (_stamp(), campaign))

    def put(self, campaign: int, ask: Ask, answer: Answer) -> None:
        """Keeps an answer, or that there is none. When this returns it is on disk."""
        packed, rest = frozen(answer)
        waiting = int(answer.fate in _ANSWERED and (packed is not None or bool(answer.actions or answer.indices)))
        about = (campaign, ask.key, ask.kind, ask.country, ask.market, ask.symbol, str(ask.first), str(ask.last))
        told = (answer.fate.value, answer.reason, answer.rows, answer.requests, answer.seconds, self.run, _stamp())
        with self._transaction() as base:
            base.execute(
                f"INSERT INTO ask VALUES (NULL{', ?' * 18}, 0)",
                (*about, *told, waiting, packed if waiting else None, rest if waiting else None),
            )

    def answered(
        self, campaign: int, outdated: Callable[[str, date, datetime], bool] = lambda country, last, at: False
    ) -> dict[str, list[tuple[date, date]]]:
        """By key, the spans that were answered in this campaign; ``outdated`` (of country, last session and when it
        was answered) says which answers count no longer."""
        return self._spans("campaign = ?", campaign, outdated)

    def covered(self, campaign: int) -> dict[str, list[tuple[date, date]]]:
        """By key, the spans that were answered in campaigns before this one, each as often as it was."""
        return self._spans("campaign != ?", campaign)

    def _spans(
        self,
        where: str,
        campaign: int,
        without: Callable[[str, date, datetime], bool] = lambda country, last, at: False,
    ) -> dict[str, list[tuple[date, date]]]:
        marks = ", ".join("?" * len(_ANSWERED))
        query = f"SELECT key, first, last, country, at FROM ask WHERE {where} AND fate IN ({marks})"
        found: dict[str, list[tuple[date, date]]] = {}
        for key, first, last, country, at in self._read(query, (campaign, *[f.value for f in _ANSWERED])):
            span = date.fromisoformat(first), date.fromisoformat(last)
            if not without(country, span[1], datetime.fromisoformat(at)):
                found.setdefault(key, []).append(span)
        return found

    def waiting_rows(self) -> tuple[int, int]:
        """(answers, rows) that wait for the lake."""
        count, rows = next(self._read("SELECT count(*), coalesce(sum(rows), 0) FROM ask WHERE waiting = 1"))
        return int(count), int(rows)

    def waiting(self, most_rows: int) -> list[Kept]:
        """The oldest answers that wait, up to about ``most_rows`` rows."""
        chosen: list[int] = []
        rows = 0
        for number, count in self._read("SELECT id, rows FROM ask WHERE waiting = 1 ORDER BY id"):
            if chosen and rows + count > most_rows:
                break
            chosen.append(number)
            rows += count
        kept = []
        columns = "id, kind, country, market, symbol, first, last, fate, reason, bars, rest"
        for number in chosen:
            row = next(self._read(f"SELECT {columns} FROM ask WHERE id = ?", (number,)))
            ask = Ask(row[1], row[2], row[3], row[4], date.fromisoformat(row[5]), date.fromisoformat(row[6]))
            kept.append(Kept(row[0], ask, Fate(row[7]), row[8], *thawed(row[9], row[10])))
        return kept

    def merged(self, ids: Iterable[int]) -> None:
        """Their bars are in the lake: only the note stays."""
        with self._transaction() as base:
            base.executemany("UPDATE ask SET waiting = 0, bars = NULL, rest = NULL WHERE id = ?", [(n,) for n in ids])

    def doubt(self, why: Mapping[str, str]) -> None:
        """Answers of these keys were not taken, and why: they count no longer and are to be asked for again."""
        with self._transaction() as base:
            for key, reason in why.items():
                base.execute("DELETE FROM ask WHERE key = ? AND waiting = 0 AND told = 1", (key,))
                values = (Fate.FAILED.value, reason, key, Fate.OK.value)
                base.execute("UPDATE ask SET fate = ?, reason = ? WHERE key = ? AND waiting = 0 AND fate = ?", values)

    @property
    def identity(self) -> str:
        """One that was thrown away and made anew has another."""
        return str(next(self._read("SELECT value FROM fact WHERE name = 'id'"))[0])

    def untold(self, most: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Notes that the lake does not have yet, oldest first, so many at a time; ``told`` marks them. Each lot has a
        number above those before. One that a killed run was about to tell comes again with the number that it had: the
        lake may have it."""
        names = ["id", "run", "kind", "country", "market", "symbol", "first", "last", "fate", "reason", "rows"]
        names += ["requests", "seconds", "at"]
        query = f"SELECT {', '.join(names)} FROM ask WHERE told = -1 ORDER BY id"
        while True:
            number = self._next_lot(most)
            if not (rows := list(self._read(query))):
                return
            yield number, [dict(zip(names, row, strict=True)) for row in rows]

    def _next_lot(self, most: int) -> int:
        """Marks the notes to be told next, where none are, and gives their number."""
        with self._transaction() as base:
            known = base.execute("SELECT value FROM fact WHERE name = 'telling'").fetchone()
            number = int(known[0]) if known else 0
            if base.execute("SELECT 1 FROM ask WHERE told = -1").fetchone():
                return number
            # Not the notes' own ids: SQLite gives those of notes that were let go to others. From the clock, since an
            # older copy of this file may have been put back.
            number = max(number + 1, time.time_ns() // 1_000_000)
            chosen = "SELECT id FROM ask WHERE told = 0 ORDER BY id LIMIT ?"
            base.execute(f"UPDATE ask SET told = -1 WHERE id IN ({chosen})", (most,))
            base.execute("INSERT OR REPLACE INTO fact VALUES ('telling', ?)", (str(number),))
            return number

    def told(self, ids: Iterable[int]) -> None:
        """The lake has these notes; those that count for nothing later are let go."""
        with self._transaction() as base:
            base.executemany("UPDATE ask SET told = 1 WHERE id = ?", [(n,) for n in ids])
            keep = ", ".join(f"'{fate}'" for fate in _ANSWERED)
            base.execute(f"DELETE FROM ask WHERE told = 1 AND waiting = 0 AND fate NOT IN ({keep})")

    def spend(self, most: int | None, today: Callable[[], date] = lambda: datetime.now(UTC).date()) -> None:
        """Counts a request of the day (UTC), before it is sent; raises Spent when ``most`` have been."""
        with self._transaction() as base:
            day = str(today())
            base.execute("INSERT OR IGNORE INTO spent VALUES (?, 0)", (day,))
            (used,) = base.execute("SELECT requests FROM spent WHERE day = ?", (day,)).fetchone()
            if most is not None and used >= most:
                raise Spent(f"--max-requests {most}: today's are used up ({used} sent); run again tomorrow to go on")
            base.execute("UPDATE spent SET requests = requests + 1 WHERE day = ?", (day,))

    def _alone(self, source: str) -> int:
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
            os.close(lock)
            raise SiseError(
                f"another run collects from {source} already (process {holder}): wait for it, or end it first"
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[Any]:
        with self._lock, self._guarded():
            rows = self._base.execute(query, values).fetchall()
        return iter(rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._guarded():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as problem:
            raise SiseError(
                f"{self.path} cannot be written or read ({problem}): see to the disk's free space and run again; what "
                "was answered before is kept"
            ) from problem


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
