"""Whose turn it is to be quoted with many others instead of asked about alone, where a day has no time for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from zlib import crc32

from sise.calendars import Calendar
from sise.sources.asks import Ask
from sise.sources.plan import Held, Span, recheck_from
from sise.sources.settings import SourceSettings

__all__ = ["as_quoted", "take_turns", "wider"]


# So many parts of a market for each session that is looked at again.
_FINE = 4
# So few stored sessions tell a rewritten history from a bar that was corrected.
_FINAL = 3


def take_turns(
    asks: Sequence[Ask],
    held: Mapping[str, Held],
    calendars: Mapping[str, Calendar],
    spans: Mapping[str, Span],
    settings: SourceSettings,
    affordable: int,
) -> set[Ask]:
    """Of the questions beyond ``affordable`` those that a quote of their last session may answer.

    Only of shares that lack nothing else. Of the runs of SISE_RECHECK_SESSIONS sessions that follow each other at least
    one asks about a share alone: what a quote does not tell (a dividend, a bar that was corrected) comes then."""
    plain = [ask for ask in asks if _lacks_only_the_last(ask, held.get(ask.key), calendars, spans, settings)]
    over = len(asks) - affordable
    if over <= 0 or not plain:
        return set()
    window, parts = settings.recheck_sessions, _FINE * settings.recheck_sessions
    some = min(ceil(parts * over / len(plain)), parts - _FINE)

    def turn(ask: Ask) -> int:
        # The part that is asked about alone begins further on with each session, and is at least as wide as that.
        return (crc32(ask.key.encode()) - _FINE * (calendars[ask.country].ordinal(ask.last) % window)) % parts

    return {ask for ask in plain if turn(ask) >= parts - some}


def as_quoted(ask: Ask) -> Ask:
    """What a quote answers of the question."""
    return replace(ask, first=ask.last)


def wider(ask: Ask, held: Held | None, calendar: Calendar, settings: SourceSettings) -> Ask:
    """The question to a vendor that rewrites its history, with some sessions that are stored and final: there it shows,
    however long nobody asked. Those that are only quoted so far come, too."""
    if ask.kind != "bars" or ask.symbol is None or held is None:
        return ask
    final = held.last if held.open is None else calendar.back(held.open, 1)
    first = calendar.back(final, max(settings.recheck_sessions - 1, _FINAL) - 1)
    return replace(ask, first=min(ask.first, max(held.first, first)))


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
    recheck = recheck_from(calendar, span, settings)
    near = (span.end, calendar.back(span.end, 1))
    return (
        span.end == span.last
        and ask.first >= recheck
        and ask.last == span.end
        and held.last in near
        and not any(hole >= recheck for hole in held.holes)
    )
