"""The exchanges' sessions: exchange_calendars, corrected by conf/calendar_overrides.json.

A day is the exchange's session date; a share's exchange follows its country (KR: XKRX, US: XNYS, whose
sessions NASDAQ shares).
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sise.errors import ConfigError

__all__ = ["COUNTRIES", "MARKETS", "Calendar", "country_of", "normal_market"]

EXCHANGES = {"KR": "XKRX", "US": "XNYS"}
COUNTRIES = tuple(EXCHANGES)
ZONES = {"KR": ZoneInfo("Asia/Seoul"), "US": ZoneInfo("America/New_York")}
HOURS = {"KR": (time(9, 0), time(15, 30)), "US": (time(9, 30), time(16, 0))}  # at the exchange, on usual days
MARKETS: Mapping[str, str] = {"KOSPI": "KR", "KOSDAQ": "KR", "NASDAQ": "US", "NYSE": "US"}
# Names under which the exchanges themselves list a market's segments.
_ALIASES = {"KOSDAQ GLOBAL": "KOSDAQ", "KOSDAQ GLOBAL SEGMENT": "KOSDAQ"}
# From KOSPI's base day and from NASDAQ's first: no bar of theirs is older.
_FIRST = {"KR": date(1980, 1, 4), "US": date(1971, 2, 5)}


def normal_market(name: str) -> str:
    """The market's name as the tables have it (``KOSDAQ GLOBAL`` is KOSDAQ). Unknown names come back unchanged."""
    upper = name.strip().upper()
    return _ALIASES.get(upper, upper)


def country_of(market: str) -> str:
    """The country of a market; raises ConfigError with the valid names."""
    try:
        return MARKETS[normal_market(market)]
    except KeyError:
        raise ConfigError(f"unknown market {market!r}: use one of {', '.join(MARKETS)}") from None


@lru_cache(maxsize=8)
def _exchange_sessions(
    country: str, cache: Path | None
) -> tuple[tuple[date, ...], Mapping[date, tuple[datetime, datetime]]]:
    """The library's sessions, and the hours (UTC) of those that open or close at another time than usual. Building
    them takes it seconds, so they are kept for a month in ``cache``."""
    name = EXCHANGES[country]
    version = metadata.version("exchange_calendars")
    kept = cache / f"hours-{name}-{_FIRST[country]}-{version}-{datetime.now(UTC):%Y%m}.json" if cache else None
    if kept is not None and kept.is_file():
        try:
            found = json.loads(kept.read_text(encoding="utf-8"))
            return tuple(map(date.fromisoformat, found["days"])), {
                date.fromisoformat(day): (datetime.fromisoformat(opens), datetime.fromisoformat(closes))
                for day, (opens, closes) in found["hours"].items()
            }
        except (ValueError, KeyError, TypeError):
            pass  # cut off while it was written: it is written again below
    import exchange_calendars

    calendar = exchange_calendars.get_calendar(name, start=_FIRST[country].isoformat())
    days, hours = [], {}
    times = zip(calendar.sessions, calendar.opens, calendar.closes, strict=True)
    for day, opens, closes in ((d.date(), o.to_pydatetime(), c.to_pydatetime()) for d, o, c in times):
        days.append(day)
        if (opens, closes) != _usual_hours(country, day):
            hours[day] = (opens, closes)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        odd = {day.isoformat(): [moment.isoformat() for moment in span] for day, span in hours.items()}
        part.write_text(json.dumps({"days": [day.isoformat() for day in days], "hours": odd}), encoding="utf-8")
        part.replace(kept)
    return tuple(days), hours


def _usual_hours(country: str, day: date) -> tuple[datetime, datetime]:
    return _span(country, day, HOURS[country])


def _own_hours(country: str, told: Any) -> dict[date, tuple[datetime, datetime]]:
    """An override's ``hours``, UTC; raises ValueError with the day that cannot be read."""
    if not isinstance(told, dict):
        raise ValueError(f'hours is {told}, and should be like {{"2026-11-19": ["10:00", "16:30"]}}')
    found = {}
    for text, times in told.items():
        try:
            day = date.fromisoformat(text)
            opens, closes = map(time.fromisoformat, times)
            if not opens < closes:
                raise ValueError
        except (ValueError, TypeError):
            raise ValueError(
                f'the hours of {text} are {times}, and should be like "2026-11-19": ["10:00", "16:30"]'
            ) from None
        found[day] = _span(country, day, (opens, closes))
    return found


def _span(country: str, day: date, times: tuple[time, time]) -> tuple[datetime, datetime]:
    opens, closes = (datetime.combine(day, at, ZONES[country]).astimezone(UTC) for at in times)
    return opens, closes


@dataclass(frozen=True)
class Calendar:
    """One country's sessions, in order."""

    country: str
    days: Sequence[date]
    odd_hours: Mapping[date, tuple[datetime, datetime]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, country: str, overrides: Path | None = None, cache: Path | None = None) -> Calendar:
        """Sessions of ``country`` (KR or US), with the overrides file's ``closed`` days removed, ``open`` added, and
        the ``hours`` (day: when it opens and closes, at the exchange) of days that the library has at others.

        ``cache``: a folder in which the exchange's sessions are kept for the month."""
        if country not in EXCHANGES:
            raise ConfigError(f"unknown country {country!r}: use one of {', '.join(COUNTRIES)}")
        entry: dict[str, Any] = {}
        hours: dict[date, tuple[datetime, datetime]] = {}
        if overrides is not None and overrides.is_file():
            try:
                content = json.loads(overrides.read_text(encoding="utf-8"))
                entry = content.get(EXCHANGES[country], {})
                if unknown := sorted(set(content) - set(EXCHANGES.values())):
                    raise ValueError(f"unknown exchange {', '.join(unknown)}: use {', '.join(EXCHANGES.values())}")
                if unknown := sorted(set(entry) - {"closed", "open", "hours"}):
                    raise ValueError(f"unknown entry {', '.join(unknown)} of {EXCHANGES[country]}")
                for day in [*entry.get("closed", []), *entry.get("open", [])]:
                    date.fromisoformat(day)
                hours = _own_hours(country, entry.get("hours", {}))
            except (ValueError, AttributeError, TypeError) as problem:
                raise ConfigError(f"{overrides}: {problem}; see conf/calendar_overrides.json for its form") from problem
        known, odd_hours = _exchange_sessions(country, cache)
        days = set(known)
        days -= {date.fromisoformat(day) for day in entry.get("closed", ())}
        days |= {date.fromisoformat(day) for day in entry.get("open", ())}
        return cls(country, tuple(sorted(days)), {**odd_hours, **hours})

    def ordinal(self, day: date) -> int:
        """Number of sessions on or before ``day``."""
        return bisect_right(self.days, day)

    def is_session(self, day: date) -> bool:
        at = self.ordinal(day)
        return at > 0 and self.days[at - 1] == day

    def next(self, day: date) -> date:
        """The first session after ``day``."""
        at = self.ordinal(day)
        if at >= len(self.days):
            raise ConfigError(f"no session after {day} is known: update exchange_calendars")
        return self.days[at]

    def back(self, day: date, count: int) -> date:
        """The session ``count`` sessions before the last one on or before ``day`` (0: that one itself)."""
        return self.days[max(0, self.ordinal(day) - 1 - count)]

    def after(self, day: date, count: int) -> date:
        """The session ``count`` sessions after the last one on or before ``day``, or the last one known."""
        return self.days[min(len(self.days), self.ordinal(day) + count) - 1]

    def between(self, start: date, end: date) -> list[date]:
        """Sessions from ``start`` to ``end``, both included."""
        return list(self.days[self.ordinal(start - timedelta(days=1)) : self.ordinal(end)])

    def fingerprint(self, day: date) -> str:
        """A name of the sessions up to ``day``: another one where an override or the library's next release has taken
        one out or in."""
        told = " ".join(known.isoformat() for known in self.days[: self.ordinal(day)])
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def hours(self, day: date) -> tuple[datetime, datetime]:
        """When the regular session of ``day`` opens and closes, UTC."""
        return self.odd_hours.get(day) or _usual_hours(self.country, day)

    def today(self, now: datetime | None = None) -> date:
        """Today's date at the exchange: a bar dated later is from the future."""
        return (now or datetime.now(ZONES[self.country])).astimezone(ZONES[self.country]).date()
