"""A run against a vendor: plan, ask, keep, merge. Answers are asked and merged at the same time, memory stays flat."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

from pyspark.sql import SparkSession

from sise.calendars import Calendar
from sise.console import tell
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.prices.chunk import chunk_of
from sise.prices.collect import collect_prices
from sise.prices.coverage import tell_coverage
from sise.prices.fetches import report_fetches
from sise.prices.questions import SMALL_TABLE, Questions, Wanted
from sise.session import beside, described, small_plans
from sise.sources.asks import Answer, Ask, Quoting, Vendor
from sise.sources.base import Request
from sise.sources.crew import Crew
from sise.sources.ledger import Ledger
from sise.sources.outcome import Blocked, Fate, Spent, VendorError
from sise.sources.settings import SourceSettings
from sise.sources.turns import as_quoted

__all__ = ["Wanted", "gather"]

_TELL_EVERY = 15.0
_KB = 1024 if sys.platform != "darwin" else 1024**2  # what getrusage counts in
# Fewer rows than this are done before their plan would be compiled.
_SMALL = 40_000
# The first merge is made after this part of a run's questions, if the others take longer than these seconds.
_EARLY = 0.3
_LONG = 30


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
    moment = now or datetime.now(UTC)
    return _Gathering(Questions(spark, lake, vendor, ledger, wanted, settings, calendars, moment)).run()


class _Gathering:
    def __init__(self, questions: Questions) -> None:
        self.questions, self.spark, self.lake = questions, questions.spark, questions.lake
        self.vendor, self.ledger = questions.vendor, questions.ledger
        self.settings, self.calendars = questions.settings, questions.calendars
        self.outcome = Outcome()
        self.fates: Counter[str] = Counter()
        self.again: list[str] = []
        self.dates: list[date] = []  # of the bars that were merged

    def run(self) -> Outcome:
        if self.ledger.bind(self.lake.identity("prices")):
            self.outcome.say("the lake's prices are another table than those of the last run: everything is asked anew")
        self._merge()  # what a run that was killed had been told
        for day in self.questions.unasked:
            self._note(*day)
        asks = self.questions.open()
        ended = None
        try:
            if asks:
                ended = self._open(asks) or self._ask(self._not_quoted(asks))
                if self.again and ended is None:
                    again, self.again = self.again, []
                    ended = self._ask(self.questions.whole(again))
        except BaseException:
            self._report()
            raise
        finally:
            self.vendor.close()
        with small_plans(self.spark, self.lake.size("prices") < SMALL_TABLE), beside(self.spark, self._report) as told:
            self._tell_coverage()
        told.result()
        if ended is None and not self.fates.keys() & {Fate.FAILED, Fate.SKIPPED, Fate.BLOCKED}:
            self.ledger.finish(self.questions.campaign)
        self._summarize(len(asks), ended)
        return self.outcome

    def _note(self, country: str, day: date, fate: Fate, reason: str) -> None:
        self.ledger.put(0, Ask("note", country, "*", None, day, day), Answer(fate, reason))
        self.fates[fate] += 1
        self.outcome.say(f"{fate}: {reason}")

    def _open(self, asks: Sequence[Ask]) -> VendorError | None:
        """Logs in. A block, or a budget that is used up, is told of each question."""
        try:
            self.vendor.open()
        except (Blocked, Spent) as problem:
            for ask in asks:
                self.ledger.put(self.questions.campaign, ask, Answer(problem.fate, str(problem)))
            self.fates[problem.fate] += len(asks)
            return problem
        return None

    def _not_quoted(self, asks: list[Ask]) -> list[Ask]:
        """The questions that are left where a vendor quotes many shares at once. What it quotes is one session, without
        those before it to compare: it is taken of shares for which a day has no time, each in its turn."""
        if not isinstance(self.vendor, Quoting):
            return self.questions.charts(asks)
        left = set(asks)
        try:
            for ask, answer in self.vendor.quoted(self.questions.quotable, self.questions.closes()):
                self.ledger.put(self.questions.campaign, as_quoted(ask), answer)
                self.fates[answer.fate] += 1
                left.discard(ask)
        except VendorError as problem:  # as if there were no quotes: what it means is told of the next question
            self.outcome.say(f"{self.vendor.name} gave no quotes ({problem}): shares are asked for one by one")
        if quoted := len(asks) - len(left):
            self.outcome.say(f"{quoted} shares were quoted, many at once: in their turn they are asked for one by one")
        return self.questions.charts(ask for ask in asks if ask in left)

    def _ask(self, asks: Sequence[Ask]) -> VendorError | None:
        """Asks in the background and merges what has come in; gives what ended it early."""
        most = 2 * self.settings.merge_rows
        campaign = self.questions.campaign
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
        # A share of which the door let nothing in has no answer either, and is to be asked for again.
        doubted = {key: f"refused: {why}" for key, why in part.turned_away.items() if key in {k.ask.key for k in kept}}
        doubted |= chunk.doubted
        self.ledger.doubt(doubted)
        self.ledger.bind(self.lake.identity("prices"))
        self._add(part)
        self.again += chunk.again
        failed = len(doubted.keys() - set(chunk.again))
        self.fates.update({Fate.FAILED: failed, Fate.OK: -len(doubted)} if doubted else {})
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

    def _report(self) -> None:
        whole = {s.end for s in self.questions.spans.values()} if self.vendor.by == "market-day" else set()
        if missing := report_fetches(self.lake, self.ledger, self.vendor.name, whole):
            self.outcome.details["absent"] = missing
            self.outcome.say(f"{missing} active shares are not in {self.vendor.name}'s tables of the last session")

    def _tell_coverage(self) -> None:
        if self.dates:
            span, floor = (min(self.dates), max(self.dates)), self.settings.coverage_floor
            tell_coverage(self.spark, self.lake, self.calendars, *span, floor, self.outcome)

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
