"""Whose turn it is to be quoted with many others instead of asked about alone, where a day has no time for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from math import ceil
from zlib import crc32

from sise.calendars import Calendar
from sise.sources.asks import Ask
from sise.sources.plan import Held, Span
from sise.sources.settings import SourceSettings

__all__ = ["take_turns"]

# So many parts of a market for each session that is looked at again.
_FINE = 4


def take_turns(
    asks: Sequence[Ask],
    held: Mapping[str, Held],
    calendars: Mapping[str, Calendar],
    spans: Mapping[str, Span],
    settings: SourceSettings,
    affordable: int,
) -> dict[date, list[Ask]]:
    """By session, of the questions beyond ``affordable`` those that a quote of the newest session may answer.

    Only of shares that lack nothing else. Each share is asked about alone at least once in SISE_RECHECK_SESSIONS
    sessions, so a session is looked at again while it is among the last ones: what a quote does not tell (a dividend, a
    bar that was corrected) comes then."""
    plain = [ask for ask in asks if _lacks_only_the_last(ask, held.get(ask.key), calendars, spans, settings)]
    over = len(asks) - affordable
    if over <= 0 or not plain:
        return {}
    window, parts = settings.recheck_sessions, _FINE * settings.recheck_sessions
    some = min(ceil(parts * over / len(plain)), parts - _FINE)
    found: dict[date, list[Ask]] = {}
    for ask in plain:
        day = spans[ask.country].end
        # The part that is asked about alone begins further on with each session, and is at least as wide as that.
        turn = (crc32(ask.key.encode()) - _FINE * (calendars[ask.country].ordinal(day) % window)) % parts
        if turn >= parts - some:
            found.setdefault(day, []).append(ask)
    return found


def _lacks_only_the_last(
    ask: Ask,
    held: Held | None,
    calendars: Mapping[str, Calendar],
    spans: Mapping[str, Span],
    settings: SourceSettings,
) -> bool:
    if ask.kind != "bars" or ask.symbol is None or held is None:
        return False
    span, calendar = spans[ask.country], calendars[ask.country]
    recheck = calendar.back(span.last, settings.recheck_sessions - 1)
    near = (span.end, calendar.back(span.end, 1))
    return (
        span.end == span.last
        and ask.first >= recheck
        and ask.last == span.end
        and held.last in near
        and not any(hole >= recheck for hole in held.holes)
    )
