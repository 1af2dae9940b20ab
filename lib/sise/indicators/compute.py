"""The indicator job: full rebuild, rebuild from a date, or the day. All three are one pipeline over chosen bars.

What has been done is written with live_state's commit (the identities and versions of prices and actions, the
registry's hash): live_state is the last table of a run, so a run killed before it is done again from where the last
whole one was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.columns import by_country
from sise.errors import UsageError
from sise.indicators.batch import with_indicators
from sise.indicators.day import with_new_bars
from sise.indicators.keep import live_of, newest_of, state_columns, states_of, with_state
from sise.indicators.progress import Progress, Span, progress_of, sessions_after, span_before, span_of
from sise.indicators.rebase import rebased
from sise.indicators.registry import KEPT_SESSIONS, Registry
from sise.indicators.rolling import BAR_COLUMNS
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.prices.adjust import adjusted_prices
from sise.session import Hold, beside, described, small_plans

__all__ = ["all_bars", "compute_indicators"]

_SHARE = ["country", "symbol"]
_LONG_AGO = date(1900, 1, 1)
# Bars of a share that trades every day lie within this many sessions; others are looked up further back.
_SLACK = 1.2


def all_bars(lake: Lake) -> DataFrame:
    """What a full run is computed from: every share's bars (rolling.BAR_COLUMNS), adjusted, days without trade left
    out."""
    prices = lake.require("prices")
    return _bars(prices, lake.read("actions"), span_of(prices))


def _bars(prices: DataFrame, actions: DataFrame, span: Span) -> DataFrame:
    rows = adjusted_prices(prices.where(F.col("volume") > 0), actions, span.adjusted_to)
    return rows.select(*BAR_COLUMNS)


class _Run:
    """One run over pinned versions of prices and actions."""

    def __init__(self, spark: SparkSession, lake: Lake, registry: Registry, calendars: Mapping[str, Calendar]):
        self.spark, self.lake, self.registry, self.calendars = spark, lake, registry, calendars
        lake.require("prices")
        self.versions = {"prices": lake.version("prices"), "actions": lake.version("actions")}
        self.prices = lake.read("prices", self.versions["prices"])
        self.actions = lake.read("actions", self.versions["actions"])
        self.ids = {name: lake.identity(name) for name in self.versions}
        self.outcome = Outcome(versions=dict(self.versions))
        self.hold = Hold()

    def full(self, why: str) -> Outcome:
        """Every share from its first bar; replaces the tables."""
        self._note(why, mode="full")
        span = span_of(self.prices)
        bars = _bars(self.prices, self.actions, span)
        with described(self.spark, "indicators: compute and write every share's whole history"):
            # First: a run that is killed below leaves the table under this registry, whatever the next one has.
            self.lake.set_mark("indicators", self.registry.hash)
            self.lake.replace("indicators", with_indicators(bars, self.registry))
        self._finish_all(span)
        return self.outcome

    def rebuild_from(self, start: date, done: Progress) -> Outcome:
        """Every share's rows from ``start`` on, continued from the states kept where there are some. What changed
        since the last run is done first: it may lie before ``start``, or be a split that the states are older than."""
        if self._moved(done) and self.day(done).details["mode"] == "full":
            return self.outcome
        self._note(f"rebuild from {start}", mode="rebuild")
        span = span_of(self.prices).later(span_before(done))
        shares = self.prices.select(*_SHARE).distinct().withColumn("start", F.lit(start))
        with described(self.spark, f"indicators: which shares can continue before {start}"):
            shares = self.hold(self._with_state(shares), eager=False)
            counts = shares.agg(F.count(F.lit(1)), F.count("_state")).collect()[0]
        rows = self._rows(shares, span, counts[1], counts[0] - counts[1])
        with described(self.spark, f"indicators: compute and write all rows from {start}"):
            self.lake.replace("indicators", rows, where=f"date >= DATE'{start}'")
        self._finish_all(span)
        return self.outcome

    def day(self, done: Progress) -> Outcome:
        """Only the shares whose bars or actions changed since the last run, and only from the first changed bar."""
        before = span_before(done)
        changes = self.lake.changes("prices", done.prices, self.versions["prices"])
        actions = self.lake.changes("actions", done.actions, self.versions["actions"])
        if changes is None or actions is None:
            return self.full("the change feed no longer reaches back to the last run")
        with described(self.spark, "indicators: what changed since the last run"), small_plans(self.spark):
            keys = self.hold(changes.groupBy(*_SHARE, "date").agg(F.max("basis").alias("basis")), eager=False)
            span = span_of(keys).later(before)
            affected = self._affected(keys, actions, done, span)
            shares = self.hold(self._with_state(affected), eager=False)
            counts = shares.agg(F.count(F.lit(1)), F.count("_state")).collect()[0]
        self._note("", mode="day")
        self.outcome.details |= {"shares": counts[0], "continued": counts[1], "from_first_bar": counts[0] - counts[1]}
        self.outcome.say(
            f"{counts[0]} shares have new or changed bars: {counts[1]} continue from their state, "
            f"{counts[0] - counts[1]} start from their first bar"
        )
        if counts[0] == 0:
            # The calendar may have moved meanwhile: a session was cancelled, or is at other hours.
            if span != before or self._moved(done) or sessions_after(span, self.calendars) != done.session:
                self._replace_live(None, span)
            return self.outcome
        with described(self.spark, f"indicators: compute {counts[0]} shares"):
            rows = self.hold(self._rows(shares, span, counts[1], counts[0] - counts[1]))
        with small_plans(self.spark, counts[0] == counts[1]):
            self._write_day(keys, shares, rows, counts[0], span)
        return self.outcome

    def _write_day(self, keys: DataFrame, shares: DataFrame, rows: DataFrame, count: int, span: Span) -> None:
        merging = described(self.spark, f"indicators: merge the rows of {count} shares")
        with beside(self.spark, lambda: self._write_states(shares, rows, span)) as states, merging:
            gone = keys.select(*_SHARE, "date").join(rows, on=[*_SHARE, "date"], how="left_anti")
            written = self.lake.merge("indicators", rows, deletes=gone)
        last, replaced, lost = states.result()
        if lost is not None:
            self.lake.merge("indicators", lost)
        self._replace_live(last, span, replaced)
        self.outcome.rows_out = written.changed
        self.outcome.rows_in = written.inserted + written.updated

    def _write_states(
        self, shares: DataFrame, rows: DataFrame, span: Span
    ) -> tuple[DataFrame, DataFrame, DataFrame | None]:
        """Writes indicator_state; gives the rows that live_state is to have, the shares that they are for, and rows of
        indicators that now are the last ones of their share."""
        with described(self.spark, "indicators: keep the filters' states"):
            lost, kept = self._lost(shares, rows), self._kept_states(shares)
            replaced, last = rows.select(*_SHARE), None
            if not lost.isEmpty():
                last = self.hold(self._last_of(lost, span))
                rows = rows.unionByName(last)
                kept = kept.join(F.broadcast(lost), on=_SHARE, how="left_anti")
                replaced = replaced.unionByName(lost)
            self.lake.replace(
                "indicator_state", newest_of(kept.unionByName(states_of(rows, self.registry)), KEPT_SESSIONS)
            )
        return rows, replaced, last

    def _lost(self, shares: DataFrame, rows: DataFrame) -> DataFrame:
        """Of ``shares``, those that live_state shows at a bar which is gone. Asked of live_state and not of this run's
        deletions: a run that was killed may have made them."""
        live = self.lake.read("live_state").select(*_SHARE, "as_of")
        without = shares.join(rows.select(*_SHARE), on=_SHARE, how="left_anti")
        return self.hold(
            live.join(F.broadcast(without), on=_SHARE).where(F.col("as_of") >= F.col("start")).select(*_SHARE)
        )

    def _last_of(self, shares: DataFrame, span: Span) -> DataFrame:
        """The last bars of ``shares``, computed from their first: there may be no state left of what remains."""
        prices = self.prices.join(F.broadcast(shares), on=_SHARE, how="left_semi")
        rows = with_indicators(_bars(prices, self.actions, span), self.registry)
        return rows.where(F.col("filter_state").isNotNull())

    # What to compute -------------------------------------------------------------------------------------------

    def _affected(self, keys: DataFrame, actions: DataFrame, done: Progress, span: Span) -> DataFrame:
        """(country, symbol, start) of each changed bar, and long ago for a share whose factor changed or fell due."""
        before, never = span_before(done), F.lit(_LONG_AGO)
        stood_for = {c: self.calendars[c].next(day) for c, day in before.as_of.items()}
        stood_for |= {c: date.fromisoformat(session[0]) for c, session in done.session.items()}
        known = F.coalesce(by_country(before.adjusted_to, "date"), never)
        now = by_country(span.adjusted_to, "date")
        known_next, following = (
            F.coalesce(by_country(days, "date"), never)
            for days in (stood_for, {c: self.calendars[c].next(day) for c, day in span.as_of.items()})
        )
        # An action announced ahead changes no bar until its ex-date; the one of the next session re-bases live_state.
        price_changing = (F.col("kind") != "dividend") & F.col("factor").isNotNull()
        falls_due = F.col("ex_date").between(F.date_add(known, 1), now)
        sessions = F.least(known_next, following), F.greatest(known_next, following)
        falls_due |= F.col("ex_date").between(F.date_add(sessions[0], 1), sessions[1])
        due = self.actions.where(price_changing & falls_due).select(*_SHARE)
        changed = actions.where(price_changing & (F.col("ex_date") <= following)).select(*_SHARE)
        changed = self.hold(changed.unionByName(due).distinct())
        starts = keys.select(*_SHARE, F.col("date").alias("start"))
        if changed.isEmpty():  # the usual day
            return starts
        # A share that was never computed has its bars among the keys, if it has any.
        computed = self.lake.read("live_state").select(*_SHARE)
        again = changed.join(computed, on=_SHARE, how="left_semi").withColumn("start", F.lit(_LONG_AGO))
        return starts.unionByName(again)

    def _with_state(self, changes: DataFrame) -> DataFrame:
        """A row for each share of ``changes``, which may have several: its first ``start``, and ``_state``, the newest
        state kept from before it, null for a share that starts over."""
        kind = self._state_type()
        rows = changes.select(*_SHARE, "start", F.lit(None).cast(kind).alias("_state"))
        if not self.registry.remembering:
            warm = self.lake.read("indicator_state").where(F.col("bars") >= self.registry.warm)
            state = F.struct("date", *state_columns(self.registry)).cast(kind)
            rows = rows.unionByName(
                warm.select(*_SHARE, F.lit(None).cast("date").alias("start"), state.alias("_state"))
            )
        # One shuffle of a few rows a share: joins would take several queries, each planned and compiled anew.
        shares = rows.groupBy(*_SHARE).agg(F.min("start").alias("start"), F.collect_list("_state").alias("_states"))
        earlier = F.filter("_states", lambda state: state["date"] < F.col("start"))
        found = shares.where(F.col("start").isNotNull())
        return found.select(*_SHARE, "start", F.array_max(earlier).alias("_state"))  # the date is its first field

    def _state_type(self) -> str:
        fields = ", ".join(f"{name}: double" for name in self.registry.state)
        return f"struct<date: date, bars: bigint, tail_from: date{', ' if fields else ''}{fields}>"

    def _rows(self, shares: DataFrame, span: Span, continued: int, anew: int) -> DataFrame:
        """The indicators of ``shares`` from their ``start`` on: of how many with a state, and how many without."""
        parts = []
        if continued:
            some = shares.where(F.col("_state").isNotNull())
            parts.append(with_new_bars(self._tails(some, span), some, self.registry))
        if anew or not continued:
            bars = self.prices.join(
                F.broadcast(shares.where(F.col("_state").isNull()).select(*_SHARE)), on=_SHARE, how="left_semi"
            )
            parts.append(with_indicators(_bars(bars, self.actions, span), self.registry))
        rows = parts[0] if len(parts) == 1 else parts[0].unionByName(parts[1])
        starts = F.broadcast(shares.select(*_SHARE, "start"))
        return rows.join(starts, on=_SHARE, how="inner").where(F.col("date") >= F.col("start")).drop("start")

    def _tails(self, shares: DataFrame, span: Span) -> DataFrame:
        """The bars of ``shares`` from their state's ``tail_from`` on (null: all). Shares that trade daily are read by
        date, so that files of earlier years are not opened; the others, few on most days, from wherever their bars
        lie."""
        shares = shares.select(*_SHARE, F.col("_state.tail_from").alias("_from"))
        back = int(self.registry.tail * _SLACK) + 2 * KEPT_SESSIONS
        since = min((self.calendars[c].back(day, back) for c, day in span.as_of.items()), default=_LONG_AGO)
        deep = F.col("_from").isNull() | (F.col("_from") < F.lit(since))
        far = shares.where(deep)
        prices = self.prices
        parts = [
            prices.where(F.col("date") >= F.lit(since)).join(F.broadcast(shares.where(~deep)), on=_SHARE, how="inner")
        ]
        if not far.isEmpty():
            parts.append(prices.join(F.broadcast(far), on=_SHARE, how="inner"))
        rows = parts[0] if len(parts) == 1 else parts[0].unionByName(parts[1])
        return _bars(rows.where(F.col("date") >= F.coalesce("_from", F.lit(_LONG_AGO))), self.actions, span)

    # What to keep ----------------------------------------------------------------------------------------------

    def _finish_all(self, span: Span) -> None:
        """After a rebuild: states and live state of every share, from the table just written."""
        with described(self.spark, "indicators: read the last bars of every share"):
            rows = self.hold(with_state(self.lake.read("indicators")).coalesce(2))
        with described(self.spark, "indicators: keep the filters' states"):
            self.lake.replace("indicator_state", newest_of(states_of(rows, self.registry), KEPT_SESSIONS))
        self._replace_live(rows, span)
        self.outcome.rows_in = self.outcome.rows_out = self.lake.read("indicators").count()  # from the log alone
        self.outcome.details["shares"] = self.lake.read("live_state").count()

    def _kept_states(self, shares: DataFrame) -> DataFrame:
        """The states that stand: of shares not computed, of the others those before their first changed bar."""
        stored = self.lake.read("indicator_state").join(
            F.broadcast(shares.select(*_SHARE, "start")), on=_SHARE, how="left"
        )
        return stored.where(F.col("start").isNull() | (F.col("date") < F.col("start"))).drop("start")

    def _replace_live(self, rows: DataFrame | None, span: Span, shares: DataFrame | None = None) -> None:
        """Replaces live_state by that of ``rows``; what it has of shares other than ``shares`` stays, valid for the
        next session."""
        session = sessions_after(span, self.calendars)
        valid = {c: date.fromisoformat(day) for c, (day, *_) in session.items()}
        parts = [] if rows is None else [rebased(live_of(rows, self.registry), self.actions, span.adjusted_to, valid)]
        if rows is None or shares is not None:
            kept = self.lake.read("live_state")
            new = None if shares is None else F.broadcast(shares.select(*_SHARE).distinct())
            parts.append(kept if new is None else kept.join(new, on=_SHARE, how="left_anti"))
        live = parts[0] if len(parts) == 1 else parts[0].unionByName(parts[1], True)
        kinds = {"valid_session": "date", "session_open": "timestamp", "session_close": "timestamp"}
        columns = {
            name: by_country({c: told[n] for c, told in session.items()}, kind).cast(kind)
            for n, (name, kind) in enumerate(kinds.items())
        }
        done = self.versions | {"ids": self.ids, "registry": self.registry.hash, "session": session} | vars(span)
        with described(self.spark, "indicators: replace live_state for the next session"):
            self.lake.replace("live_state", live.withColumns(columns).coalesce(1), note=json.dumps(done, default=str))
        self.outcome.details["as_of"] = dict(span.as_of)

    def _moved(self, done: Progress) -> bool:
        return (done.prices, done.actions) != (self.versions["prices"], self.versions["actions"])

    def _note(self, why: str, mode: str) -> None:
        self.outcome.details["mode"] = mode
        if why:
            self.outcome.say(f"{mode}: {why}")
        if names := self.registry.remembering:
            self.outcome.details["recomputed_from_first_bar"] = list(names)
            self.outcome.say(
                f"{', '.join(names)} remember every bar: every share starts from its first one, so a day "
                "costs what its whole history costs"
            )


def compute_indicators(
    spark: SparkSession,
    lake: Lake,
    registry: Registry,
    calendars: Mapping[str, Calendar],
    *,
    full: bool = False,
    rebuild_from: date | None = None,
) -> Outcome:
    """Brings indicators, indicator_state and live_state up to date with prices and actions.

    Default: only what changed since the last run. A changed registry, a missing table or a change feed that no
    longer reaches back make it a full rebuild, and it says so.
    """
    if full and rebuild_from:
        raise UsageError("--full and --rebuild-from exclude each other: a full rebuild has every date")
    run = _Run(spark, lake, registry, calendars)
    with run.hold:
        return _choose(run, progress_of(lake), full, rebuild_from)


def _choose(run: _Run, done: Progress | None, full: bool, rebuild_from: date | None) -> Outcome:
    if full:
        return run.full("asked for")
    if done is None:
        return run.full("nothing was computed before")
    if done.registry != run.registry.hash:
        return run.full("conf/indicators.json changed")
    if run.lake.mark("indicators") not in ("", run.registry.hash):
        return run.full("a rebuild under another conf/indicators.json did not come to its end")
    for name, known in (("prices", done.prices), ("actions", done.actions)):
        if run.lake.replaced(name, known, done.ids.get(name)):
            return run.full(f"the table {name} is another one than at the last run, or older")
    return run.rebuild_from(rebuild_from, done) if rebuild_from else run.day(done)
