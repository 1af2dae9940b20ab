"""Which questions a run asks a vendor: what is wanted, told apart from what the lake has and the ledger knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sise.calendars import MARKETS, Calendar
from sise.errors import InputError
from sise.lake import Lake
from sise.prices.holdings import active_shares, held_days, held_shares
from sise.session import beside, described, small_plans
from sise.sources.asks import Ask, Quoting, Vendor
from sise.sources.ledger import Ledger
from sise.sources.outcome import Fate
from sise.sources.plan import (
    Held,
    Span,
    last_session,
    outdated,
    plan_days,
    plan_extras,
    plan_symbols,
    unanswered,
    years_back,
)
from sise.sources.settings import SourceSettings
from sise.sources.turns import as_quoted, take_turns, wider

__all__ = ["SMALL_TABLE", "Questions", "Wanted"]

# Fewer bytes of the table than this are read before their plan would be compiled.
SMALL_TABLE = 30_000_000


@dataclass(frozen=True)
class Wanted:
    """``markets``: empty for all that the vendor has; ``codes``: only these shares; ``start``, ``end``: sessions, both
    included; ``years``: so many up to the end; without a start what is new, and the whole history of new shares."""

    markets: Sequence[str] = ()
    codes: Sequence[str] = ()
    start: date | None = None
    end: date | None = None
    years: float | None = None


@dataclass
class Questions:
    """``spans``: what is wanted of each country; ``unasked``: days that are not asked about, with the fate and why;
    ``campaign`` and ``quotable`` (those of the open questions that a quote of their last session may answer) are there
    once ``open`` was called. Raises InputError for a market that the vendor does not have."""

    spark: SparkSession
    lake: Lake
    vendor: Vendor
    ledger: Ledger
    wanted: Wanted
    settings: SourceSettings
    calendars: Mapping[str, Calendar]
    now: datetime

    def __post_init__(self) -> None:
        vendor, wanted = self.vendor, self.wanted
        if strange := set(wanted.markets) - set(vendor.markets):
            raise InputError(
                f"--source {vendor.name} has no {', '.join(sorted(strange))}: it has {', '.join(vendor.markets)}"
            )
        self.markets = [m for m in vendor.markets if m in wanted.markets] or list(vendor.usual)
        self.unasked: list[tuple[str, date, Fate, str]] = []
        self.held: dict[str, Held] = {}
        self.spans = self._spans()

    def open(self) -> list[Ask]:
        """Those that no answer of this campaign covers."""
        # What makes a run the same undertaking as the one before: then only what that one lacked is asked.
        ends = ", ".join(f"{c} {s.start or 'new'}…{s.end}" for c, s in sorted(self.spans.items()))
        self.campaign = self.ledger.campaign(f"{','.join(self.markets)} {','.join(sorted(self.wanted.codes))} {ends}")
        old = partial(outdated, self.settings, self.now)
        planned, answered = self._plan(), self.ledger.answered(self.campaign, old)
        turns = self._turns(planned)
        quoted = {ask for ask in turns if not unanswered([as_quoted(ask)], answered)}
        asks = [ask for ask in unanswered(planned, answered) if ask not in quoted]
        self.quotable = [ask for ask in asks if ask in turns]
        return asks

    def charts(self, asks: Iterable[Ask]) -> list[Ask]:
        """The questions as a vendor is asked them one by one: one that rewrites its history with some stored bars."""
        if not self.vendor.rebased:
            return list(asks)
        return [wider(ask, self.held.get(ask.key), self.calendars[ask.country], self.settings) for ask in asks]

    def _turns(self, planned: Sequence[Ask]) -> set[Ask]:
        only_new = not (self.wanted.start or self.wanted.years or self.wanted.codes)
        if not only_new or not isinstance(self.vendor, Quoting):
            return set()
        return take_turns(planned, self.held, self.calendars, self.spans, self.settings, self.vendor.affordable)

    def closes(self) -> dict[str, float]:
        """By share, the stored close of the session before the last one that is asked for."""
        found: dict[str, float] = {}
        for country in {ask.country for ask in self.quotable}:
            before = self.calendars[country].back(self.spans[country].end, 1)
            rows = self.lake.read("prices").where((F.col("country") == country) & (F.col("date") == F.lit(before)))
            found |= {f"{country}:{row['symbol']}": row["close"] for row in rows.select("symbol", "close").collect()}
        return found

    def whole(self, keys: Iterable[str]) -> list[Ask]:
        """The whole history of shares whose vendor has rewritten it."""
        held = held_shares(self.lake.read("prices"), list(self.spans), self.calendars)
        chosen = set(keys)
        return [
            Ask("bars", country, market, symbol, held[f"{country}:{symbol}"].first, self.spans[country].end)
            for country, market, symbol in self._shares()
            if f"{country}:{symbol}" in chosen
        ]

    def _spans(self) -> dict[str, Span]:
        """What is wanted of each country; a session that is not over yet is not asked for, and said so."""
        spans = {}
        for country in dict.fromkeys(MARKETS[m] for m in self.markets):
            calendar = self.calendars[country]
            last = last_session(calendar, self.settings, self.now)
            end = min(self.wanted.end or last, last)
            start = years_back(end, self.wanted.years) if self.wanted.years else self.wanted.start
            spans[country] = Span(start, end, last)
            for day in calendar.between(last, self.wanted.end or last)[1:]:
                reason = f"the session of {day} is not over, or not settled before its evening"
                self.unasked.append((country, day, Fate.NOT_SETTLED, reason))
            only = self.wanted.end if self.wanted.start == self.wanted.end else None
            if only and not calendar.is_session(only):
                reason = f"{only} is no session of the {country} exchange"
                self.unasked.append((country, only, Fate.HOLIDAY, reason))
        return spans

    def _plan(self) -> list[Ask]:
        name, spans = f"{self.vendor.name}: look for what the lake lacks", self.spans
        with described(self.spark, name), small_plans(self.spark, self.lake.size("prices") < SMALL_TABLE):
            prices, covered = self.lake.read("prices"), self.ledger.covered(self.campaign)
            asks: list[Ask] = []
            since: dict[str, date] = {}  # by country, the first session that the lake has
            if self.vendor.by == "market-day":
                for country, span in spans.items():
                    held, provisional = held_days(prices, self.markets)
                    since |= {country: min(min(counts) for counts in held.values())} if held else {}
                    calendar = self.calendars[country]
                    asks += plan_days(self.markets, held, provisional, calendar, span, self.settings, covered)
            else:
                with beside(self.spark, lambda: held_shares(prices, list(spans), self.calendars)) as held_by:
                    shares = self._shares()
                self.held = held_by.result()
                for country in spans:
                    firsts = [known.first for key, known in self.held.items() if key.startswith(f"{country}:")]
                    since |= {country: min(firsts)} if firsts else {}
                asks = plan_symbols(shares, self.held, self.calendars, spans, self.settings, covered, self.vendor.span)
            extras = plan_extras(self.vendor, self.markets, asks, since, self.calendars, spans, self.settings, covered)
        # actions are the share's own numbers, so a run for some shares asks for them, too
        return [*(a for a in extras if not self.wanted.codes or a.kind.startswith("actions")), *asks]

    def _shares(self) -> list[tuple[str, str, str]]:
        shares = active_shares(self.lake.read("symbols"), self.markets)
        if self.wanted.codes:
            codes = {code.upper() for code in self.wanted.codes}
            if missing := codes - {symbol for _, _, symbol in shares}:
                raise InputError(
                    f"--codes: no active share {', '.join(sorted(missing)[:10])} in {', '.join(self.markets)}; "
                    "spell them as the exchange does, and run jobs/collect_symbols.py first"
                )
            shares = [share for share in shares if share[2] in codes]
        if not shares:
            raise InputError(
                f"no active share of {', '.join(self.markets)} is known: run jobs/collect_symbols.py first, with "
                "--source yahoo for NASDAQ, krx or kis for KOSPI and KOSDAQ"
            )
        return shares
