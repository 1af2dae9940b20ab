"""The indicator job: full rebuild, rebuild from a date, or the day. All three are one pipeline over chosen bars.

What has been done is written with live_state's commit (the identities and versions of prices and actions, the
registry's hash): live_state is the last table of a run, so a run killed before it is done again from where the last
whole one was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.errors import UsageError
from sise.indicators.batch import with_indicators
from sise.indicators.changed import LONG_AGO, affected_shares, with_states
from sise.indicators.day import compute_new_bars
from sise.indicators.keep import STATED, frame_of, joined, live_of, newest_of, state_columns, states_of
from sise.indicators.progress import Progress, Span, progress_of, sessions_after, span_before, span_of, span_of_bars
from sise.indicators.rebase import rebased
from sise.indicators.registry import KEPT_SESSIONS, Registry
from sise.indicators.rolling import BAR_COLUMNS
from sise.indicators.tails import read_bars
from sise.lake import Lake, Rows
from sise.ops.outcome import Outcome
from sise.prices.adjust import adjusted_prices
from sise.prices.gaps import tell_gaps
from sise.session import Hold, described, small_plans

__all__ = ["all_bars", "compute_indicators"]

_SHARE = ["country", "symbol"]
_KEY = [*_SHARE, "date"]
# What indicators look at of a row of prices, and of actions.
_OF_PRICES = [*BAR_COLUMNS, "basis"]
_OF_ACTIONS = [*_SHARE, "ex_date", "kind", "factor", "confirmed", "applied_by_source"]
# What a run computes in this process, without Spark's windows: so many bars that go on from states, and so many shares
# that start over. More of them, and Spark is quicker.
_FEW_BARS, _FEW_SHARES = 200_000, 50
# What changed is held in memory: of more rows a full run is made, which is quicker by then.
_MOST_CHANGES = 3_000_000


def all_bars(lake: Lake) -> DataFrame:
    """What a full run is computed from: every share's bars (rolling.BAR_COLUMNS), adjusted, days without trade left
    out."""
    prices = lake.require("prices")
    return _bars(prices, lake.read("actions"), span_of(prices))


def _bars(prices: DataFrame, actions: DataFrame, span: Span) -> DataFrame:
    rows = adjusted_prices(prices.where(F.col("volume") > 0), actions, span.adjusted_to)
    return rows.select(*BAR_COLUMNS)


@dataclass(frozen=True)
class _Computed:
    """Rows of indicators to be written; their keys, and those of them that carry a filter state (keep.STATED)."""

    rows: Rows
    keys: pd.DataFrame
    stated: pa.Table


class _Run:
    """One run over pinned versions of prices and actions."""

    def __init__(self, spark: SparkSession, lake: Lake, registry: Registry, calendars: Mapping[str, Calendar]):
        self.spark, self.lake, self.registry, self.calendars = spark, lake, registry, calendars
        lake.demand("prices")
        self.versions = {"prices": lake.version("prices"), "actions": lake.version("actions")}
        self.ids = {name: lake.identity(name) for name in self.versions}
        self.actions = frame_of(lake.arrow.rows("actions", _OF_ACTIONS, version=self._pinned("actions")))
        self.outcome = Outcome(versions=dict(self.versions))
        self.hold = Hold()

    def _pinned(self, name: str) -> int | None:
        return self.versions[name] if self.versions[name] >= 0 else None

    def _prices(self) -> DataFrame:
        return self.lake.read("prices", self.versions["prices"])

    def _bars(self, prices: DataFrame, span: Span) -> DataFrame:
        return _bars(prices, self.lake.read("actions", self._pinned("actions")), span)

    def full(self, why: str) -> Outcome:
        """Every share from its first bar; replaces the tables."""
        self._note(why, mode="full")
        prices = self._prices()
        span = span_of(prices)
        with described(self.spark, "indicators: compute and write every share's whole history"):
            # First: a run that is killed below leaves the table under this registry, whatever the next one has.
            self.lake.set_mark("indicators", self.registry.hash)
            self.lake.replace("indicators", with_indicators(self._bars(prices, span), self.registry))
        self._finish_all(span)
        return self.outcome

    def rebuild_from(self, start: date, done: Progress) -> Outcome:
        """Every share's rows from ``start`` on, continued from the states kept where there are some. What changed
        since the last run is done first: it may lie before ``start``, or be a split that the states are older than."""
        if self._moved(done) and self.day(done).details["mode"] == "full":
            return self.outcome
        self._note(f"rebuild from {start}", mode="rebuild")
        prices = self._prices()
        span = span_of(prices).later(span_before(done))
        with described(self.spark, f"indicators: which shares can continue before {start}"):
            shares = prices.where(F.col("date") >= F.lit(start)).select(*_SHARE).distinct().toArrow()
            shares = self._with_states(frame_of(shares).assign(start=pd.Timestamp(start)))
            bars = self.lake.arrow.count("prices", [("date", ">=", start)])
        with described(self.spark, f"indicators: compute and write all rows from {start}"):
            many = bars > _FEW_BARS
            rows = self._by_spark(shares, span) if many else self._frame(self._compute(shares, span, bars).rows)
            self.lake.replace("indicators", rows, where=f"date >= DATE'{start}'")
        self._finish_all(span, start)
        if not self.outcome.rows_out:
            self.outcome.say(f"no share has a bar on {start} or later: nothing was there to be rebuilt")
        return self.outcome

    def day(self, done: Progress) -> Outcome:
        """Only the shares whose bars or actions changed since the last run, and only from the first changed bar."""
        before, door = span_before(done), self.lake.arrow
        if door.written("prices", done.prices, self.versions["prices"]) > _MOST_CHANGES:
            return self.full(f"more than {_MOST_CHANGES:,} bars changed since the last run")
        with described(self.spark, "indicators: what changed since the last run"):
            changed = door.changes("prices", done.prices, self.versions["prices"], _OF_PRICES)
            moved = door.changes("actions", done.actions, self.versions["actions"], _OF_ACTIONS)
            if changed is None or moved is None:
                return self.full("the change feed no longer reaches back to the last run")
            keys = frame_of(changed.select(_KEY)).drop_duplicates()
            if gone := self._gone(keys, before):
                return self.full(f"the newest session is no longer in prices: {gone}")
            span = span_of_bars(changed).later(before)
            computed = frame_of(door.rows("live_state", [*_SHARE, "as_of"]))
            shares = self._with_states(
                affected_shares(keys, self.actions, frame_of(moved), computed, done, span, self.calendars)
            )
        self._note("", mode="day")
        count, going_on = len(shares), int(shares["date"].notna().sum())
        self.outcome.details |= {"shares": count, "continued": going_on, "from_first_bar": count - going_on}
        self.outcome.say(
            f"{count} shares have new or changed bars: {going_on} continue from their state, "
            f"{count - going_on} start from their first bar"
        )
        if count == 0:
            # The calendar may have moved meanwhile: a session was cancelled, or is at other hours.
            if span != before or self._moved(done) or sessions_after(span, self.calendars) != done.session:
                self._replace_live(None, span)
            return self.outcome
        with described(self.spark, f"indicators: compute {count} shares"):
            found = self._compute(shares, span, len(keys))
            # Of the shares without a row, those that live_state shows at a bar which is gone. Asked of live_state and
            # not of this run's deletions: a run that was killed may have made them.
            without = _leaving_out(shares, found.keys)
            lost = without.merge(computed, on=_SHARE)
            lost = without[_is_in(without, lost[lost["as_of"] >= lost["start"]])]
            # From their first bar: there may be no state left of what remains.
            last = self._compute(lost.assign(start=pd.Timestamp(LONG_AGO), date=pd.NaT, tail_from=pd.NaT), span, 0)
        with described(self.spark, f"indicators: merge the rows of {count} shares"), self._merging(found.rows):
            gone = _leaving_out(keys, found.keys, _KEY)
            deletes = pa.Table.from_pandas(gone, preserve_index=False).cast(door.schema("indicators", _KEY))
            written = self.lake.merge("indicators", found.rows, deletes=deletes)
            if last.stated.num_rows:
                self.lake.merge("indicators", self._of_last_bars(last))
        with described(self.spark, "indicators: keep the filters' states"):
            stated = pa.concat_tables([found.stated, last.stated])
            stored = frame_of(door.rows("indicator_state"))
            start = stored[_SHARE].merge(shares[[*_SHARE, "start"]], on=_SHARE, how="left")["start"]
            stands = start.isna() | (stored["date"] < start)
            stored = stored[stands.to_numpy() & ~_is_in(stored, lost)]
            self._replace_states(joined([stored, states_of(stated, self.registry)]))
        self._replace_live(stated, span, joined([found.keys[_SHARE], lost[_SHARE]]))
        self.outcome.rows_out = written.changed
        self.outcome.rows_in = written.inserted + written.updated
        return self.outcome

    def _gone(self, changed: pd.DataFrame, before: Span) -> str:
        """The newest session of each country that a bar was taken from, where none is left of it: what was adjusted to
        its actions is to be taken back."""
        newest = pd.DataFrame(sorted(before.as_of.items()), columns=["country", "date"])
        newest["date"] = newest["date"].astype(changed["date"].dtype)
        touched = newest[_is_in(newest, changed, ["country", "date"])]
        days = [(country, day.date()) for country, day in touched.itertuples(index=False)]
        left = {(c, day): self.lake.arrow.count("prices", [("country", "=", c), ("date", "=", day)]) for c, day in days}
        return ", ".join(f"{c} {day}" for (c, day), count in left.items() if not count)

    # What to compute -------------------------------------------------------------------------------------------

    def _with_states(self, starts: pd.DataFrame) -> pd.DataFrame:
        return with_states(starts, frame_of(self.lake.arrow.rows("indicator_state")), self.registry)

    def _compute(self, shares: pd.DataFrame, span: Span, bars: int) -> _Computed:
        """The indicators of ``shares`` from their ``start`` on, some ``bars`` of them new. Few are computed here; of
        many, those that start over, or all of them, by Spark from their first bar."""
        anew = shares["date"].isna().to_numpy()
        by_spark = np.full(len(shares), bars > _FEW_BARS) | (anew & (anew.sum() > _FEW_SHARES))
        here = shares[~by_spark].reset_index(drop=True)
        found = read_bars(self.lake, self.versions["prices"], self.actions, here, self.registry, self.calendars, span)
        rows = compute_new_bars(self.registry, here, found)
        keys = frame_of(rows.select(_KEY))
        stated = rows.filter(rows["filter_state"].is_valid()).select(STATED)
        if not by_spark.any():
            return _Computed(rows, keys, stated)
        frame = self.hold(self._by_spark(shares[by_spark], span))
        keys = joined([keys, frame_of(frame.select(*_KEY).toArrow())])
        theirs = frame.where(F.col("filter_state").isNotNull()).select(*STATED).toArrow()
        stated = pa.concat_tables([stated, theirs.cast(stated.schema)])
        if rows.num_rows:
            frame = frame.unionByName(self._frame(rows), allowMissingColumns=True)
        return _Computed(frame, keys, stated)

    def _by_spark(self, shares: pd.DataFrame, span: Span) -> DataFrame:
        """The rows of ``shares`` from their ``start`` on, by the windows over their whole history."""
        chosen = pa.Table.from_pandas(shares[[*_SHARE, "start"]], preserve_index=False)
        chosen = F.broadcast(self.spark.createDataFrame(chosen))
        prices = self._prices().join(chosen.select(*_SHARE), on=_SHARE, how="left_semi")
        rows = with_indicators(self._bars(prices, span), self.registry).join(chosen, on=_SHARE, how="inner")
        return rows.where(F.col("date") >= F.col("start").cast("date")).drop("start")

    def _merging(self, rows: Rows) -> AbstractContextManager[None]:
        return small_plans(self.spark, isinstance(rows, pa.Table))

    def _frame(self, rows: Rows) -> DataFrame:
        return self.lake.arrow.frame("indicators", rows) if isinstance(rows, pa.Table) else rows

    def _of_last_bars(self, computed: _Computed) -> Rows:
        if isinstance(computed.rows, pa.Table):
            return computed.rows.filter(computed.rows["filter_state"].is_valid())
        return computed.rows.where(F.col("filter_state").isNotNull())

    # What to keep ----------------------------------------------------------------------------------------------

    def _finish_all(self, span: Span, start: date | None = None) -> None:
        """After a rebuild, of the rows from ``start`` on: states and live state of every share, from the table just
        written."""
        with described(self.spark, "indicators: read the last bars of every share"):
            stated = self._last_bars(span)
        with described(self.spark, "indicators: keep the filters' states"):
            self._replace_states(states_of(stated, self.registry))
        self._replace_live(stated, span)
        written = [] if start is None else [("date", ">=", start)]
        self.outcome.rows_in = self.outcome.rows_out = self.lake.arrow.count("indicators", written)
        self.outcome.details["shares"] = self.lake.arrow.count("live_state")

    def _last_bars(self, span: Span) -> pa.Table:
        """Of the table just written the bars that the states are of. More carry one, a row for each day that was
        computed by itself: only their keys are read from all."""
        door, stated = self.lake.arrow, ("filter_state", "known", None)
        newest = newest_of(frame_of(door.rows("indicators", _KEY, [stated])), KEPT_SESSIONS)
        since = min((self.calendars[c].back(day, 2 * KEPT_SESSIONS) for c, day in span.as_of.items()), default=LONG_AGO)
        rows = [door.rows("indicators", STATED, [stated, ("date", ">=", since)])]
        if symbols := newest["symbol"][newest["date"] < pd.Timestamp(since)].unique().tolist():
            rows.append(door.rows("indicators", STATED, [stated, ("date", "<", since), ("symbol", "in", symbols)]))
        found = pa.concat_tables(rows)
        return found.filter(pa.array(_is_in(frame_of(found.select(_KEY)), newest, _KEY)))

    def _replace_states(self, states: pd.DataFrame) -> None:
        kept = newest_of(states, KEPT_SESSIONS)[[*_KEY, *state_columns(self.registry)]]
        self.lake.arrow.replace("indicator_state", pa.Table.from_pandas(kept, preserve_index=False))

    def _replace_live(self, stated: pa.Table | None, span: Span, shares: pd.DataFrame | None = None) -> None:
        """Replaces live_state by that of the bars ``stated``; what it has of shares other than ``shares`` stays, valid
        for the next session."""
        session = sessions_after(span, self.calendars)
        valid = {c: date.fromisoformat(day) for c, (day, *_) in session.items()}
        parts = []
        if stated is not None:
            parts.append(rebased(live_of(stated, self.registry), self.actions, span.adjusted_to, valid))
        if stated is None or shares is not None:
            kept = frame_of(self.lake.arrow.rows("live_state"))
            parts.append(kept if shares is None else _leaving_out(kept, shares))
        live = joined(parts)
        for n, name in enumerate(("valid_session", "session_open", "session_close")):
            live[name] = pd.to_datetime(live["country"].map({c: told[n] for c, told in session.items()}), utc=n > 0)
        done = self.versions | {"ids": self.ids, "registry": self.registry.hash, "session": session} | vars(span)
        with described(self.spark, "indicators: replace live_state for the next session"):
            rows = pa.Table.from_pandas(live, preserve_index=False)
            self.lake.arrow.replace("live_state", rows, note=json.dumps(done, default=str))
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


def _is_in(rows: pd.DataFrame, others: pd.DataFrame, on: list[str] = _SHARE) -> np.ndarray:
    """Whether each row's ``on`` is that of one of the others."""
    return np.asarray(pd.MultiIndex.from_frame(rows[on]).isin(pd.MultiIndex.from_frame(others[on])))


def _leaving_out(rows: pd.DataFrame, others: pd.DataFrame, on: list[str] = _SHARE) -> pd.DataFrame:
    return rows[~_is_in(rows, others, on)]


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
        outcome = _choose(run, progress_of(lake), full, rebuild_from)
    tell_gaps(lake.arrow, calendars, outcome.details.get("as_of", {}), outcome)
    return outcome


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
