"""How the installation is: runs, what the lake covers and how fresh it is, data quality, what was refused, services."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from sise.begun import died
from sise.calendars import COUNTRIES, Calendar
from sise.dashboard.data.names import listing
from sise.dashboard.data.view import LakeView
from sise.dashboard.live import Live
from sise.prices.gaps import gaps

__all__ = ["Streams", "backup", "coverage", "latency", "missed", "quality", "rejected", "runs", "tables"]

_RUN = ["run_id", "job", "status", "started_at", "seconds", "rows_in", "rows_out", "rows_rejected", "error"]


def runs(view: LakeView, last: int = 50) -> pd.DataFrame:
    """The last runs, newest first, as the table has them, and those that died since; arguments as one text."""
    rows = view.frame("runs", [*_RUN, "arguments"])
    if left := died(view.settings):
        frames = [rows, pd.DataFrame(left).reindex(columns=rows.columns)]
        rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
        rows["started_at"] = pd.to_datetime(rows["started_at"], utc=True)
    rows = rows.sort_values("started_at", ascending=False).head(last)
    said = [" ".join(f"{k}={v}" for k, v in dict(pairs or ()).items() if v != "[]") for pairs in rows["arguments"]]
    return rows.assign(arguments=said).reset_index(drop=True)


def tables(view: LakeView) -> pd.DataFrame:
    """Every table there is: table, rows, version, newest (day)."""
    found = view.memo(["runs", "prices", "indicators", "signals"], "overview", view.reader.overview)
    return pd.DataFrame(found, columns=["table", "rows", "version", "newest"])


def coverage(view: LakeView, calendars: Mapping[str, Calendar], today: Mapping[str, date]) -> pd.DataFrame:
    """A row for each market with active listed shares or bars: market, last (its own newest bar; null where it has
    none), sessions_behind (sessions over since then), bars (of its country's newest session), expected (active listed
    shares), coverage (the part of those that have such a bar), indicators, live (newest days of these tables)."""

    def build() -> pd.DataFrame:
        rows = []
        listed = listing(view)
        listed = listed[listed["active"].astype("boolean").fillna(True) & listed["market"].notna()]
        states = view.read("live_state", ["country", "as_of", "valid_session"])
        for country in COUNTRIES:
            newest = _newest(view, country)
            bars: dict[str, int] = {}
            covered: dict[str, int] = {}
            here = listed[listed["country"] == country]
            if newest is not None:
                day = view.read("prices", ["symbol", "market"], [("date", "=", newest), ("country", "=", country)])
                bars = day["market"].value_counts().to_dict()
                covered = here[here["symbol"].isin(day["symbol"])]["market"].value_counts().to_dict()
            active = here["market"].value_counts().to_dict()
            mine = states[states["country"] == country]
            for market in sorted({*bars, *active}):
                there, expected = int(bars.get(market, 0)), int(active.get(market, 0))
                last = newest
                if not there and newest is not None:  # its collection failed, or it was never collected
                    last = _newest(view, country, market)
                behind = None if last is None else len(calendars[country].between(last, today[country])) - 1
                rows.append(
                    {
                        "market": market,
                        "last": last,
                        "sessions_behind": None if behind is None else max(0, behind),
                        "bars": there,
                        "expected": expected,
                        "coverage": int(covered.get(market, 0)) / expected if expected else np.nan,
                        "indicators": mine["as_of"].max() if len(mine) else None,
                        "live": mine["valid_session"].max() if len(mine) else None,
                    }
                )
        return pd.DataFrame(rows)

    key = ("coverage", tuple(sorted(today.items())))
    return view.memo(["prices", "symbols", "universe", "live_state"], key, build)


def missed(view: LakeView, calendars: Mapping[str, Calendar]) -> dict[str, list[date]]:
    """Of each country the recent sessions without any bar, while there are later ones (prices/gaps.py)."""

    def build() -> dict[str, list[date]]:
        newest = {country: _newest(view, country) for country in COUNTRIES}
        return gaps(view.reader, calendars, {country: day for country, day in newest.items() if day is not None})

    return view.memo(["prices"], "gaps", build)


def _newest(view: LakeView, country: str, market: str | None = None) -> date | None:
    """The day of the newest bar of those, by the files' own statistics first: only that column is read."""
    of = pc.field("country") == country
    if market is not None:
        of &= pc.field("market") == market

    def build() -> date | None:
        table = view.table("prices")
        if table is None:
            return None
        found = table.to_pyarrow_dataset().to_table(columns=["date"], filter=of)["date"]
        return pc.max(found).as_py() if len(found) else None

    return view.memo(["prices"], ("newest", country, market), build)


def rejected(view: LakeView) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(reason, rows, shares, newest) of prices_rejected, most first, and its newest 200 rows."""
    rows = view.frame("prices_rejected", ["country", "symbol", "date", "reason", "row", "source", "collected_at"])
    by = rows.groupby("reason", as_index=False).agg(
        rows=("symbol", "size"), shares=("symbol", "nunique"), newest=("collected_at", "max")
    )
    newest = rows.sort_values("collected_at", ascending=False).head(200)
    return by.sort_values("rows", ascending=False, ignore_index=True), newest.reset_index(drop=True)


def quality(local: Path) -> tuple[pd.DataFrame, datetime | None]:
    """The newest report of jobs/check_quality.py and when it was written; empty and None where there is none."""
    path = local / "reports" / "quality.csv"
    if not path.is_file():
        return pd.DataFrame(), None
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    frame = pd.DataFrame(rows)
    for column in ("previous_close", "close", "change"):
        if column in frame:
            frame[column] = pd.to_numeric(frame[column], errors="coerce")
    return frame, datetime.fromtimestamp(path.stat().st_mtime, UTC)


def backup(view: LakeView) -> datetime | None:
    """When the last backup that went well was finished, by the table of runs; None where none did."""
    rows = view.frame("runs", ["job", "status", "finished_at"])
    done = rows[rows["job"].str.contains("backup") & ~rows["job"].str.contains("restore") & (rows["status"] == "ok")]
    return None if done.empty else done["finished_at"].max().to_pydatetime()


def latency(live: Live, newest: int = 200) -> dict[str, float]:
    """Milliseconds from a tick's arrival in Kafka to its signal in Redis, over the newest signals: signals, p50, p95,
    max."""
    waits = [
        float(s["relayed"]) - float(s["received"])
        for s in live.signals[:newest]
        if isinstance(s.get("relayed"), int | float) and isinstance(s.get("received"), int | float)
    ]
    if not waits:
        return {"signals": 0}
    return {
        "signals": len(waits),
        "p50": float(np.percentile(waits, 50)),
        "p95": float(np.percentile(waits, 95)),
        "max": max(waits),
    }


class Streams:
    """What Kafka says of the topics: records, what came in the last seconds, and how far the relay is behind."""

    def __init__(self, settings: Any):
        self.settings = settings
        self._before: tuple[float, dict[str, int]] | None = None

    def look(self) -> pd.DataFrame:
        """A row for each topic: topic, about, records (kept now), rate (a second, since the look before; null at the
        first), lag (records the relay has not committed yet; tick-rules only). Raises SiseError where no Kafka
        answers."""
        from kafka import TopicPartition

        from sise.serving.kafka import TOPICS, consumer, partitions_by_topic, reached
        from sise.topics import RELAY_GROUP, RULES, topic_of

        counts = partitions_by_topic(self.settings, TOPICS, 3_000, 10_000)
        reader = consumer(self.settings, [], RELAY_GROUP, bootstrap_timeout_ms=3_000, request_timeout_ms=10_000)
        ends: dict[str, int] = {}
        rows = []
        with reached(self.settings), closing(reader):
            for topic, count in counts.items():
                name = topic_of(topic, self.settings.topic_prefix)
                parts = [TopicPartition(name, p) for p in range(count)]
                first, last = reader.beginning_offsets(parts), reader.end_offsets(parts)
                ends[topic.name] = sum(last.values())
                lag = None
                if topic == RULES:
                    done = {p: reader.committed(p, timeout_ms=5_000) for p in parts}
                    if any(offset is not None for offset in done.values()):
                        lag = sum(last[p] - (first[p] if done[p] is None else done[p]) for p in parts)
                kept = sum(last.values()) - sum(first.values())
                rows.append({"topic": name, "kind": topic.name, "about": topic.about, "records": kept, "lag": lag})
        now, before = time.monotonic(), self._before
        for row in rows:
            since = None if before is None else before[1].get(row["kind"])
            row["rate"] = None if since is None or before is None else (ends[row["kind"]] - since) / (now - before[0])
        self._before = (now, ends)
        return pd.DataFrame(rows, columns=["topic", "kind", "about", "records", "rate", "lag"])


def details(text: str | None) -> dict[str, Any]:
    """A run's details, {} where they do not read."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
