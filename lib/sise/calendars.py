"""The exchanges' sessions: exchange_calendars, corrected by conf/calendar_overrides.json.

A day is the exchange's session date; a share's exchange follows its country (KR: XKRX, US: XNYS, whose
sessions NASDAQ shares).
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from zoneinfo import ZoneInfo

from sise.errors import ConfigError

__all__ = ["COUNTRIES", "MARKETS", "Calendar", "country_of", "normal_market"]

EXCHANGES = {"KR": "XKRX", "US": "XNYS"}
COUNTRIES = tuple(EXCHANGES)
ZONES = {"KR": ZoneInfo("Asia/Seoul"), "US": ZoneInfo("America/New_York")}
MARKETS: Mapping[str, str] = {"KOSPI": "KR", "KOSDAQ": "KR", "NASDAQ": "US", "NYSE": "US"}
# Names under which the exchanges themselves list a market's segments.
_ALIASES = {"KOSDAQ GLOBAL": "KOSDAQ", "KOSDAQ GLOBAL SEGMENT": "KOSDAQ"}
_FIRST = date(1995, 1, 1)


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
def _exchange_sessions(name: str, cache: Path | None) -> tuple[date, ...]:
    """The library's sessions. Building them takes it seconds, so they are kept for a month in ``cache``."""
    version = metadata.version("exchange_calendars")
    kept = cache / f"sessions-{name}-{version}-{datetime.now(ZoneInfo('UTC')):%Y%m}.json" if cache else None
    if kept is not None and kept.is_file():
        try:
            return tuple(date.fromisoformat(day) for day in json.loads(kept.read_text(encoding="utf-8")))
        except ValueError:
            pass  # cut off while it was written: it is written again below
    import exchange_calendars

    calendar = exchange_calendars.get_calendar(name, start=_FIRST.isoformat())
    days = tuple(stamp.date() for stamp in calendar.sessions)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps([day.isoformat() for day in days]), encoding="utf-8")
        part.replace(kept)
    return days


@dataclass(frozen=True)
class Calendar:
    """One country's sessions, in order."""

    country: str
    days: Sequence[date]

    @classmethod
    def load(cls, country: str, overrides: Path | None = None, cache: Path | None = None) -> Calendar:
        """Sessions of ``country`` (KR or US), with the overrides file's ``closed`` days removed and ``open`` added.

        ``cache``: a folder in which the exchange's sessions are kept for the month."""
        if country not in EXCHANGES:
            raise ConfigError(f"unknown country {country!r}: use one of {', '.join(COUNTRIES)}")
        entry: dict[str, list[str]] = {}
        if overrides is not None and overrides.is_file():
            try:
                entry = json.loads(overrides.read_text(encoding="utf-8")).get(EXCHANGES[country], {})
                for day in [*entry.get("closed", []), *entry.get("open", [])]:
                    date.fromisoformat(day)
            except (ValueError, AttributeError) as problem:
                raise ConfigError(f"{overrides}: {problem}; see conf/calendar_overrides.json for its form") from problem
        days = set(_exchange_sessions(EXCHANGES[country], cache))
        days -= {date.fromisoformat(day) for day in entry.get("closed", ())}
        days |= {date.fromisoformat(day) for day in entry.get("open", ())}
        return cls(country, tuple(sorted(days)))

    def _at(self, day: date) -> int:
        """Number of sessions on or before ``day``."""
        return bisect_right(self.days, day)

    def is_session(self, day: date) -> bool:
        at = self._at(day)
        return at > 0 and self.days[at - 1] == day

    def next(self, day: date) -> date:
        """The first session after ``day``."""
        at = self._at(day)
        if at >= len(self.days):
            raise ConfigError(f"no session after {day} is known: update exchange_calendars")
        return self.days[at]

    def back(self, day: date, count: int) -> date:
        """The session ``count`` sessions before the last one on or before ``day`` (0: that one itself)."""
        return self.days[max(0, self._at(day) - 1 - count)]

    def after(self, day: date, count: int) -> date:
        """The session ``count`` sessions after the last one on or before ``day``, or the last one known."""
        return self.days[min(len(self.days), self._at(day) + count) - 1]

    def between(self, start: date, end: date) -> list[date]:
        """Sessions from ``start`` to ``end``, both included."""
        return list(self.days[self._at(start - timedelta(days=1)) : self._at(end)])

    def today(self, now: datetime | None = None) -> date:
        """Today's date at the exchange: a bar dated later is from the future."""
        return (now or datetime.now(ZONES[self.country])).astimezone(ZONES[self.country]).date()
