"""Which questions a run has: what the lake lacks by the exchange's calendar, and the last few sessions once more."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from statistics import median_high

from sise.calendars import MARKETS, ZONES, Calendar
from sise.sources.asks import Ask, Vendor
from sise.sources.settings import SourceSettings

__all__ = [
    "HOLE_TRIES",
    "Held",
    "Span",
    "extras_from",
    "final_at",
    "in_parts",
    "lacking_extras",
    "last_session",
    "outdated",
    "plan_days",
    "plan_extras",
    "plan_symbols",
    "recheck_from",
    "unanswered",
    "years_back",
]

# A session that the vendor was asked for so often in vain stays a hole: the share did not exist or trade. Once is not
# enough: a "no data" may be a vendor's hiccup, and would cost a share its history.
HOLE_TRIES = 3
# About 20 sessions to either side are around one; less than this part of what is usual over all is far fewer.
_NEAR = timedelta(days=30)
_FAR_FEWER = 0.5


@dataclass(frozen=True)
class Span:
    """What is wanted of a country: ``start`` None: only new sessions (and the whole history of new shares); ``last``:
    the last session that is over; ``end``: where the caller wants to stop, at most ``last``."""

    start: date | None
    end: date
    last: date


@dataclass(frozen=True)
class Held:
    """What the lake has of a share: first and last session, the sessions between that it lacks, and the first one that
    is provisional (``open``)."""

    first: date
    last: date
    holes: Sequence[date] = ()
    open: date | None = None


def years_back(day: date, years: float) -> date:
    return day - timedelta(days=round(365.25 * years))


def last_session(calendar: Calendar, settings: SourceSettings, now: datetime) -> date:
    """The last session whose bars can be asked for: its evening (SISE_KRX_EVENING, SISE_US_EVENING) has come."""
    if settings.today is not None:  # a past day is repeated: it is over
        return calendar.back(settings.today, 0)
    day = calendar.back(calendar.today(now), 0)
    return day if now >= evening_of(calendar, settings, day) else calendar.back(day, 1)


def evening_of(calendar: Calendar, settings: SourceSettings, day: date) -> datetime:
    at = settings.krx_evening if calendar.country == "KR" else settings.us_evening
    return max(datetime.combine(day, at, ZONES[calendar.country]), calendar.hours(day)[1])


def final_at(settings: SourceSettings, country: str, day: date) -> datetime:
    """From when on the bar of ``day`` is no longer provisional."""
    at = settings.krx_final if country == "KR" else time(0)
    return datetime.combine(day + timedelta(days=1), at, ZONES[country])


def outdated(settings: SourceSettings, now: datetime, country: str, last: date, at: datetime) -> bool:
    """Whether what was answered at a moment was provisional then and is final now: it is to be asked for again."""
    return at < final_at(settings, country, last) <= now


def plan_symbols(
    shares: Sequence[tuple[str, str, str]],
    held: Mapping[str, Held],
    calendars: Mapping[str, Calendar],
    spans: Mapping[str, Span],
    settings: SourceSettings,
    covered: Mapping[str, Sequence[tuple[date, date]]],
    apart: int = 0,
) -> list[Ask]:
    """Questions about shares (country, market, symbol), in their order, but those with nothing to fill come last: a
    day's budget is not spent on the recheck while others wait. One span a share, from the first session wanted to the
    end; with ``apart`` a span for each gap, of at most so many sessions."""
    asks: list[Ask] = []
    rechecks: list[Ask] = []
    for country, market, symbol in shares:
        span, calendar = spans[country], calendars[country]
        ask = Ask("bars", country, market, symbol, span.end, span.end)
        known, tried = held.get(ask.key), covered.get(ask.key, ())
        wanted = _wanted(known, calendar, span, settings, tried)
        if not wanted:
            continue
        new, recheck = known is None and len(tried) < HOLE_TRIES, recheck_from(calendar, span, settings)
        for first, last in _runs(wanted, calendar, apart) if apart else [(wanted[0], span.end)]:
            (asks if new or first < recheck else rechecks).append(replace(ask, first=first, last=last))
    return asks + rechecks


def recheck_from(calendar: Calendar, span: Span, settings: SourceSettings) -> date:
    """From this session on everything is asked for once more."""
    return calendar.back(span.last, settings.recheck_sessions - 1)


def _wanted(
    held: Held | None,
    calendar: Calendar,
    span: Span,
    settings: SourceSettings,
    covered: Sequence[tuple[date, date]],
) -> list[date]:
    """The sessions of one share that are to be asked for, in order."""
    recheck = recheck_from(calendar, span, settings)
    start = span.start or (held.first if held else years_back(span.end, settings.history_years))
    again = [day for day in calendar.between(max(start, recheck), span.end)]
    if held is None:
        missing = [day for day in calendar.between(start, span.end) if day < recheck]
        return _untried(missing, covered, HOLE_TRIES) + again
    before = _untried([day for day in calendar.between(start, held.first) if day < held.first], covered, HOLE_TRIES)
    inside = [day for day in held.holes if start <= day <= span.end]
    after = [day for day in calendar.between(held.last, span.end) if day > held.last]
    lacking = _untried([day for day in (*inside, *after) if day < recheck], covered, HOLE_TRIES)
    return sorted({*before, *lacking, *again})


def _untried(days: Sequence[date], covered: Sequence[tuple[date, date]], most: int) -> list[date]:
    """Of ``days`` those that were asked for less often than ``most`` times."""
    return [day for day in days if sum(first <= day <= last for first, last in covered) < most]


def _runs(days: Sequence[date], calendar: Calendar, most: int) -> list[tuple[date, date]]:
    """``days`` as spans of sessions that follow each other (a few too many cost nothing), at most ``most`` in each."""
    runs: list[list[date]] = []
    for day in days:
        if runs and len(calendar.between(runs[-1][0], day)) <= most:
            runs[-1].append(day)
        else:
            runs.append([day])
    return [(run[0], run[-1]) for run in runs]


def plan_days(
    markets: Sequence[str],
    held: Mapping[str, Mapping[date, int]],
    provisional: Mapping[str, Sequence[date]],
    calendar: Calendar,
    span: Span,
    settings: SourceSettings,
    covered: Mapping[str, Sequence[tuple[date, date]]],
) -> list[Ask]:
    """Questions about whole markets, a session each, in the order of the sessions. ``held``: by market, how many bars
    the lake has of each session; one with far fewer than those around it counts as lacking."""
    recheck = recheck_from(calendar, span, settings)
    asks = []
    for market in markets:
        counts = held.get(market, {})
        start = span.start or (min(counts) if counts else recheck)
        least = _least(counts, settings.coverage_floor)
        open_days = set(provisional.get(market, ()))
        for day in calendar.between(start, span.end):
            ask = Ask("bars", calendar.country, market, None, day, day)
            lacking = counts.get(day, 0) < least.get(day, 1)
            tried = sum(first <= day <= last for first, last in covered.get(ask.key, ()))
            if day >= recheck or day in open_days or (lacking and tried < HOLE_TRIES):
                asks.append(ask)
    return sorted(asks, key=lambda ask: (ask.first, ask.market))


def _least(counts: Mapping[date, int], floor: float) -> dict[date, float]:
    """How many bars each stored session should have at least: nearly as many as are usual around it, since a market
    grows over the years, and not far fewer than over all, where all around it lack the same."""
    days = sorted(counts)
    whole = median_high(counts.values()) if counts else 0
    found = {}
    for day in days:
        near = days[bisect_left(days, day - _NEAR) : bisect_right(days, day + _NEAR)]
        found[day] = max(1, floor * median_high(counts[other] for other in near), _FAR_FEWER * whole)
    return found


def plan_extras(
    vendor: Vendor,
    markets: Sequence[str],
    asks: Sequence[Ask],
    since: Mapping[str, date],
    calendars: Mapping[str, Calendar],
    spans: Mapping[str, Span],
    settings: SourceSettings,
    covered: Mapping[str, Sequence[tuple[date, date]]],
) -> list[Ask]:
    """Indices and actions of the sessions whose bars are asked for (``asks``), and of earlier ones that were never
    answered. ``since``: by country, the first session that the lake has."""
    extras: list[Ask] = []
    for country, span in spans.items():
        here = [market for market in markets if MARKETS[market] == country]
        if days := [ask.first for ask in asks if ask.country == country]:
            first = extras_from(days, since.get(country), span, settings)
            told = vendor.extras(here, first, span.end)
            extras += lacking_extras(told, calendars[country], span, settings, covered)
    return extras


def extras_from(days: Sequence[date], oldest: date | None, span: Span, settings: SourceSettings) -> date:
    """From when on a run wants what there is beside bars: ``days`` are the first ones of its questions about bars,
    ``oldest`` is the first session that the lake has."""
    return min([*days, span.start or max(oldest or span.end, years_back(span.end, settings.history_years))])


def lacking_extras(
    extras: Sequence[Ask],
    calendar: Calendar,
    span: Span,
    settings: SourceSettings,
    covered: Mapping[str, Sequence[tuple[date, date]]],
) -> list[Ask]:
    """What beside bars is to be asked: each question from the first session that no answer covers, the last few again.
    So one that failed is asked again, whatever bars have come meanwhile."""
    recheck = recheck_from(calendar, span, settings)
    asks = []
    for ask in extras:
        spans = covered.get(ask.key, ())
        days = calendar.between(ask.first, ask.last)
        wanted = [day for day in days if day >= recheck or not any(first <= day <= last for first, last in spans)]
        if wanted:
            asks.append(replace(ask, first=wanted[0]))
    return asks


def in_parts(first: date, last: date, months: int) -> list[tuple[date, date]]:
    """A span cut where every so many months of the year begin: the same cuts whatever the span."""
    cuts = [date(year, month, 1) for year in range(first.year, last.year + 1) for month in range(1, 13, months)]
    starts = [first, *[cut for cut in cuts if first < cut <= last]]
    return [*zip(starts, [cut - timedelta(days=1) for cut in starts[1:]] + [last], strict=True)]


def unanswered(asks: Sequence[Ask], answered: Mapping[str, Sequence[tuple[date, date]]]) -> list[Ask]:
    """The questions that no answer of this campaign covers."""
    return [
        ask
        for ask in asks
        if not any(first <= ask.first and ask.last <= last for first, last in answered.get(ask.key, ()))
    ]
