"""How far the indicators have come: what the last whole run read, and up to which day and basis its bars went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.lake import Lake

__all__ = ["Progress", "Span", "progress_of", "sessions_after", "span_before", "span_of", "span_of_bars"]


@dataclass(frozen=True)
class Progress:
    """What the last whole run had read: versions of the tables with these ids, bars up to ``as_of`` in each country,
    adjusted to ``adjusted_to``; and the session that live_state is for by the calendar of then: day, open, close."""

    prices: int
    actions: int
    ids: Mapping[str, str]
    registry: str
    as_of: Mapping[str, str]
    adjusted_to: Mapping[str, str]
    session: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """By country: the newest bar's session, and the day to whose basis all bars are adjusted. That is later where a
    source re-based its history on the morning of an ex-date, before the session's own bar."""

    as_of: Mapping[str, date]
    adjusted_to: Mapping[str, date]

    def later(self, other: Span) -> Span:
        def newest(ours: Mapping[str, date], theirs: Mapping[str, date]) -> dict[str, date]:
            return {c: max(filter(None, (ours.get(c), theirs.get(c)))) for c in {*ours, *theirs}}

        return Span(newest(self.as_of, other.as_of), newest(self.adjusted_to, other.adjusted_to))


def span_of(rows: DataFrame) -> Span:
    """Of bars, or of changes of them: date and basis."""
    found = rows.groupBy("country").agg(F.max("date"), F.max("basis")).collect()
    return _span([tuple(row) for row in found])


def span_of_bars(bars: pa.Table) -> Span:
    """Of bars in this process: country, date and basis."""
    found = bars.group_by("country").aggregate([("date", "max"), ("basis", "max")]).to_pylist()
    return _span([(row["country"], row["date_max"], row["basis_max"]) for row in found])


def _span(newest: Sequence[tuple[str, date, date | None]]) -> Span:
    """Of each country's newest session and basis."""
    return Span({c: day for c, day, _ in newest}, {c: max(day, basis or day) for c, day, basis in newest})


def span_before(done: Progress) -> Span:
    as_of, adjusted_to = (
        {c: date.fromisoformat(str(day)) for c, day in days.items()} for days in (done.as_of, done.adjusted_to)
    )
    return Span(as_of, adjusted_to)


def sessions_after(span: Span, calendars: Mapping[str, Calendar]) -> dict[str, list[str]]:
    """By country the session after the newest bar's: its day, when it opens and when it closes."""
    days = {country: calendars[country].next(day) for country, day in span.as_of.items()}
    return {country: [str(at) for at in (day, *calendars[country].hours(day))] for country, day in days.items()}


def progress_of(lake: Lake) -> Progress | None:
    note = lake.note("live_state") if lake.exists("indicators") and lake.exists("indicator_state") else None
    try:
        return None if note is None else Progress(**json.loads(note))
    except (TypeError, ValueError):
        return None
