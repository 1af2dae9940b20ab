"""What became of each question of a run: the ledger's notes as the table fetches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import functions as F

from sise.lake import Lake
from sise.prices.holdings import active_shares
from sise.sources.ledger import Ledger
from sise.sources.outcome import Fate

__all__ = ["report_fetches"]

_ROWS_A_COMMIT = 50_000


def report_fetches(lake: Lake, ledger: Ledger, source: str, whole: Collection[date]) -> int:
    """Appends the notes that are not there yet, those of killed runs too. ``whole``: sessions of which whole markets
    were asked: a share that is active and was not in the answer gets a note of its own; gives how many those are."""
    markets: set[str] = set()
    for number, notes in ledger.untold(_ROWS_A_COMMIT):
        markets |= {
            note["market"]
            for note in notes
            if note["symbol"] is None and note["kind"] == "bars" and note["fate"] == Fate.OK
            if date.fromisoformat(note["last"]) in whole
        }
        _append(lake, [_row(note, source) for note in notes], (ledger.identity, number))
        ledger.told(note["id"] for note in notes)
    missing = 0
    for day in whole:
        about = {"run_id": ledger.run, "source": source, "kind": "bars", "first": day, "last": day, "rows": 0}
        about |= {"fate": Fate.NO_DATA.value, "reason": f"active, but not in {source}'s table of the session"}
        absent = [
            dict(zip(("country", "market", "symbol"), s, strict=True)) for s in _absent(lake, sorted(markets), day)
        ]
        if absent:
            _append(lake, [about | {"at": datetime.now(UTC)} | share for share in absent])
        missing += len(absent)
    return missing


def _append(lake: Lake, rows: list[dict[str, Any]], once: tuple[str, int] | None = None) -> None:
    schema = lake.schema("fetches")
    filled = [{name: row.get(name) for name in schema.names} for row in rows]
    lake.append("fetches", lake.spark.createDataFrame(filled, schema).coalesce(1), once)


def _row(note: Mapping[str, Any], source: str) -> dict[str, Any]:
    return {
        "run_id": note["run"],
        "source": source,
        **{
            name: note[name]
            for name in ("kind", "country", "market", "symbol", "fate", "reason", "rows", "requests", "seconds")
        },
        "first": date.fromisoformat(note["first"]),
        "last": date.fromisoformat(note["last"]),
        "at": datetime.fromisoformat(note["at"]),
    }


def _absent(lake: Lake, markets: list[str], day: date) -> list[tuple[str, str, str]]:
    if not markets:
        return []
    known = active_shares(lake.read("symbols").where(F.col("valid_from") <= F.lit(day)), markets)
    there = lake.read("prices").where(F.col("date") == F.lit(day)).select("country", "symbol").collect()
    have = {(row["country"], row["symbol"]) for row in there}
    return [share for share in known if (share[0], share[2]) not in have]
