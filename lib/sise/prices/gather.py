"""A run against a vendor: plan, ask, keep, merge. Answers are asked and merged at the same time, memory stays flat."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial

from pyspark.sql import SparkSession

from sise.calendars import MARKETS, Calendar
from sise.console import tell
from sise.errors import InputError
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.prices.chunk import chunk_of
from sise.prices.collect import collect_prices
from sise.prices.coverage import tell_coverage
from sise.prices.fetches import report_fetches
from sise.prices.holdings import active_shares, held_days, held_shares
from sise.session import described, small_plans
from sise.sources.asks import Answer, Ask, Vendor
from sise.sources.base import Request
from sise.sources.crew import Crew
from sise.sources.ledger import Ledger
from sise.sources.outcome import Blocked, Fate, Spent, VendorError
from sise.sources.plan import Span, last_session, outdated, plan_days, plan_extras, plan_symbols, unanswered, years_back
from sise.sources.settings import SourceSettings

__all__ = ["Wanted", "gather"]

_TELL_EVERY = 15.0
_KB = 1024 if sys.platform != "darwin" else 1024**2  # what getrusage counts in
# Fewer rows, or bytes of the table, than this are done before their plan would be compiled.
_SMALL = 40_000
_SMALL_TABLE = 30_000_000
# The first merge is made after this part of a run's questions, if the others take longer than these seconds.
_EARLY = 0.3
_LONG = 30


@dataclass(frozen=True)
class Wanted:
    """``markets``: empty for all that the vendor has; ``codes``: only these shares; ``start``, ``end``: sessions, both
    included; ``years``: so many up to the end; without a start what is new, and the whole history of new shares."""

    markets: Sequence[str] = ()
    codes: Sequence[str] = ()
    start: date | None = None
    end: date | None = None
    years: float | None = None


def gather(
    spark: SparkSession,
    lake: Lake,
    vendor: Vendor,
    ledger: Ledger,
    wanted: Wanted,
    settings: SourceSettings,
    calendars: Mapping[str, Calendar],
    now: datetime | None = None,
) -> Outcome:
    """Collects what is wanted and missing. What was answered is kept whatever happens after it; the outcome's
    ``failed`` says why a run ended before its end."""
    return _Gathering(spark, lake, vendor, ledger, wanted, settings, calendars, now or datetime.now(UTC)).run()


@dataclass
class _Gathering:
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
        self.markets = [m for m in vendor.markets if m in wanted.markets] if wanted.markets else list(vendor.usual)
        if wanted.markets and (strange := set(wanted.markets) - set(vendor.markets)):
            raise InputError(
                f"--source {vendor.name} has no {', '.join(sorted(strange))}: it has {', '.join(vendor.markets)}"
            )
        self.outcome = Outcome()
        self.fates: Counter[str] = Counter()
        self.again: list[str] = []
        self.dates: list[date] = []  # of the bars that were merged

    def run(self) -> Outcome:
        if self.ledger.bind(self.lake.identity("prices")):
            self.outcome.say("the lake's prices are another table than those of the last run: everything is asked anew")
        self._merge()  # what a run that was killed had been told
        spans = self._spans()
        campaign = self.ledger.campaign(self._scope(spans))
        old = partial(outdated, self.settings, self.now)
        asks = unanswered(self._plan(spans, campaign), self.ledger.answered(campaign, old))
        ended = None
        try:
            if asks:
                ended = self._open(campaign, asks) or self._ask(campaign, asks)
                if self.again and ended is None:
                    ended = self._ask(campaign, self._whole(spans))
        finally:
            self.vendor.close()
            self._report(spans)
        if ended is None and not self.fates.keys() & {Fate.FAILED, Fate.SKIPPED, Fate.BLOCKED}:
            self.ledger.finish(campaign)
        if self.dates:
            with small_plans(self.spark, self.lake.size("prices") < _SMALL_TABLE):
                span, floor = (min(self.dates), max(self.dates)), self.settings.coverage_floor
                tell_coverage(self.spark, self.lake, self.calendars, *span, floor, self.outcome)
        self._summarize(len(asks), ended)
        return self.outcome

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
                self._note(country, day, Fate.NOT_SETTLED, reason)
            only = self.wanted.end if self.wanted.start == self.wanted.end else None
            if only and not calendar.is_session(only):
                self._note(country, only, Fate.HOLIDAY, f"{only} is no session of the {country} exchange")
        return spans

    def _note(self, country: str, day: date, fate: Fate, reason: str) -> None:
        self.ledger.put(0, Ask("note", country, "*", None, day, day), Answer(fate, reason))
        self.fates[fate] += 1
        self.outcome.say(f"{fate}: {reason}")

    def _scope(self, spans: Mapping[str, Span]) -> str:
        """What makes a run the same undertaking as the one before: then only what that one lacked is asked."""
        ends = ", ".join(f"{c} {s.start or 'new'}…{s.end}" for c, s in sorted(spans.items()))
        return f"{','.join(self.markets)} {','.join(sorted(self.wanted.codes))} {ends}"

    def _plan(self, spans: Mapping[str, Span], campaign: int) -> list[Ask]:
        name = f"{self.vendor.name}: look for what the lake lacks"
        with described(self.spark, name), small_plans(self.spark, self.lake.size("prices") < _SMALL_TABLE):
            prices, covered = self.lake.read("prices"), self.ledger.covered(campaign)
            asks: list[Ask] = []
            since: dict[str, date] = {}  # by country, the first session that the lake has
            if self.vendor.by == "market-day":
                for country, span in spans.items():
                    held, provisional = held_days(prices, self.markets)
                    since |= {country: min(min(counts) for counts in held.values())} if held else {}
                    calendar = self.calendars[country]
                    asks += plan_days(self.markets, held, provisional, calendar, span, self.settings, covered)
            else:
                held_by = held_shares(prices, list(spans), self.calendars)
                for country in spans:
                    firsts = [known.first for key, known in held_by.items() if key.startswith(f"{country}:")]
                    since |= {country: min(firsts)} if firsts else {}
                shares = self._shares()
                asks = plan_symbols(shares, held_by, self.calendars, spans, self.settings, covered, self.vendor.span)
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

    def _whole(self, spans: Mapping[str, Span]) -> list[Ask]:
        """The whole history of shares whose vendor has rewritten it."""
        held = held_shares(self.lake.read("prices"), list(spans), self.calendars)
        chosen, self.again = set(self.again), []
        return [
            Ask("bars", country, market, symbol, held[f"{country}:{symbol}"].first, spans[country].end)
            for country, market, symbol in self._shares()
            if f"{country}:{symbol}" in chosen
        ]

    def _open(self, campaign: int, asks: Sequence[Ask]) -> VendorError | None:
        """Logs in. A block, or a budget that is used up, is told of each question."""
        try:
            self.vendor.open()
        except (Blocked, Spent) as problem:
            for ask in asks:
                self.ledger.put(campaign, ask, Answer(problem.fate, str(problem)))
            self.fates[problem.fate] += len(asks)
            return problem
        return None

    def _ask(self, campaign: int, asks: Sequence[Ask]) -> VendorError | None:
        """Asks in the background and merges what has come in; gives what ended it early."""
        most = 2 * self.settings.merge_rows
        crew = Crew(self.vendor, self.ledger, campaign, asks, hold=lambda: self.ledger.waiting_rows()[1] > most)
        crew.start()
        told = time.monotonic()
        try:
            while crew.running:
                if self._time_to_merge(crew):
                    self._merge_chunk()
                if time.monotonic() - told > _TELL_EVERY:
                    tell(f"{self.vendor.name}: {crew.progress.line()}")
                    told = time.monotonic()
                time.sleep(0.2)
        finally:
            crew.stop()
        self.fates.update(crew.progress.fates)
        self._merge()
        if crew.failure is not None:
            raise crew.failure
        return crew.ended_by

    def _time_to_merge(self, crew: Crew) -> bool:
        """When enough waits; and once early where the vendor is waited for anyway: a process's first merge is slower
        than its next by what the JVM has to load for it. Not where announced actions are asked, too: a reference
        price is not to be looked at before them."""
        answers, rows = self.ledger.waiting_rows()
        first = answers and "chunks" not in self.outcome.details
        early = first and not any(ask.kind.startswith("actions") for ask in crew.asks)
        return rows >= self.settings.merge_rows or bool(early and crew.progress.is_long(_EARLY, _LONG))

    def _merge(self) -> None:
        """All answers that wait, a chunk a commit."""
        while self.ledger.waiting_rows()[0]:
            self._merge_chunk()

    def _merge_chunk(self) -> None:
        """Answers into the lake; the ledger lets go of them when they are there."""
        kept = self.ledger.waiting(self.settings.merge_rows)
        with small_plans(self.spark, sum(k.bars.num_rows for k in kept) < _SMALL):
            with described(self.spark, f"{self.vendor.name}: compare {len(kept)} answers with what is stored"):
                chunk = chunk_of(self.lake, self.vendor, kept)
            part = collect_prices(
                self.spark, self.lake, chunk, Request(), self.settings, self.calendars, coverage=False
            )
        self.ledger.merged([k.id for k in kept])
        self.ledger.doubt(chunk.doubted)
        self.ledger.bind(self.lake.identity("prices"))
        self._add(part)
        self.again += chunk.again
        doubted = len(chunk.doubted.keys() - set(chunk.again))
        self.fates.update({Fate.FAILED: doubted, Fate.OK: -len(chunk.doubted)} if chunk.doubted else {})
        for key, note in sorted(chunk.noted.items())[:50]:
            self.outcome.say(f"{key}: {note}")

    def _add(self, part: Outcome) -> None:
        out = self.outcome
        out.rows_in, out.rows_out = out.rows_in + part.rows_in, out.rows_out + part.rows_out
        out.rows_rejected += part.rows_rejected
        for name in ("rejected", "prices", "flags"):
            sums = Counter(out.details.get(name, {}))
            sums.update(part.details.get(name, {}))
            out.details[name] = dict(sums)
        for name in ("actions", "index_rows"):
            out.details[name] = out.details.get(name, 0) + part.details.get(name, 0)
        out.details["chunks"] = out.details.get("chunks", 0) + 1
        self.dates += part.details.get("sessions", {}).values()

    def _report(self, spans: Mapping[str, Span]) -> None:
        whole = {s.end for s in spans.values()} if self.vendor.by == "market-day" else set()
        if missing := report_fetches(self.lake, self.ledger, self.vendor.name, whole):
            self.outcome.details["absent"] = missing
            self.outcome.say(f"{missing} active shares are not in {self.vendor.name}'s tables of the last session")

    def _summarize(self, asked: int, ended: VendorError | None) -> None:
        out, self.fates = self.outcome, +self.fates
        out.details["fates"] = dict(sorted(self.fates.items()))
        out.details["driver_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KB
        out.summarize_rejected()
        told = ", ".join(f"{count} {fate}" for fate, count in sorted(self.fates.items())) or "nothing was missing"
        out.say(
            f"{asked} questions to {self.vendor.name}: {told}; {out.rows_in} bars, {out.rows_out} stored or changed"
        )
        if ended is not None:
            out.failed = str(ended) if ended.fate != Fate.SKIPPED else None
            out.say(str(ended))
        elif self.fates[Fate.FAILED] and not self.fates[Fate.OK]:
            out.failed = f"no question to {self.vendor.name} was answered: the table fetches says why for each"
        if self.fates[Fate.FAILED]:
            out.say(f"{self.fates[Fate.FAILED]} failed: run again for just these (fetches has run {self.ledger.run})")
