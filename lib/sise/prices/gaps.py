"""Sessions of which the lake has no bar of any share, between ones of which it has some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sise.calendars import Calendar
from sise.ops.outcome import Outcome
from sise.reader import Filter

__all__ = ["gaps", "tell_gaps"]

_SESSIONS = 20  # that are looked at, up to the newest
_NAMED = 5


class _Rows(Protocol):
    def rows(self, name: str, columns: Sequence[str] | None = None, where: Sequence[Filter] = ()) -> pa.Table: ...
    def count(self, name: str, where: Sequence[Filter] = ()) -> int: ...


def gaps(lake: _Rows, calendars: Mapping[str, Calendar], newest: Mapping[str, date]) -> dict[str, list[date]]:
    """Of each country the sessions among the twenty up to ``newest`` that have no bar at all, while an earlier and a
    later one have: a night's collection did not run. Countries without any are left out."""
    found = {}
    for country, day in sorted(newest.items()):
        calendar = calendars[country]
        since, mine = calendar.back(day, _SESSIONS - 1), ("country", "=", country)
        span: list[Filter] = [mine, ("date", ">=", since), ("date", "<=", day)]
        there = set(pc.unique(lake.rows("prices", ["date"], span)["date"]).to_pylist())
        if not there:
            continue
        first = min(there)
        if first > since and lake.count("prices", [mine, ("date", "<", since)]):
            first = since
        if lacking := [session for session in calendar.between(first, max(there)) if session not in there]:
            found[country] = lacking
    return found


def tell_gaps(lake: _Rows, calendars: Mapping[str, Calendar], newest: Mapping[str, date], outcome: Outcome) -> None:
    """Tells ``outcome`` of them, as ``sessions_without_bars`` and in words."""
    found = gaps(lake, calendars, newest)
    outcome.details["sessions_without_bars"] = found
    for country, days in found.items():
        named = ", ".join(map(str, days[:_NAMED])) + (" …" if len(days) > _NAMED else "")
        outcome.say(
            f"{country}: no share has a bar of {named}, sessions before the newest one: what is computed from bars "
            f"reaches over the gap. Collect {'it' if len(days) == 1 else 'them'} (jobs/collect_prices.py --start "
            f"{days[0]} --end {days[-1]}), then compute and scan again. A day without a session goes into "
            "conf/calendar_overrides.json"
        )
