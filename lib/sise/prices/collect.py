"""From a source into the lake: checked, flagged, merged. One way: bars → reasons → actions → flags → prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sise.calendars import COUNTRIES, Calendar
from sise.columns import numbered_sessions, stamped
from sise.lake import Lake, Written
from sise.ops.outcome import Outcome
from sise.prices.actions import actions_from_reference
from sise.prices.adjust import product_of, with_actions
from sise.prices.coverage import sessions_of, tell_coverage
from sise.prices.quality import check_bars, rejected_rows, rounding_of, with_flags
from sise.session import Hold, described
from sise.settings import Settings
from sise.sources.base import Request, Source

__all__ = ["collect_prices", "select_corrections", "today_of"]

_PRICES = ("open", "high", "low", "close")
# A share that has not traded for longer is looked up in the whole table, so that its jump is seen all the same.
_RECENT_DAYS = 60
_FLOAT = 1e-6


def today_of(settings: Settings, calendars: Mapping[str, Calendar]) -> dict[str, date]:
    return {country: settings.today or calendars[country].today() for country in COUNTRIES}


def collect_prices(
    spark: SparkSession,
    lake: Lake,
    source: Source,
    request: Request,
    settings: Settings,
    calendars: Mapping[str, Calendar],
    *,
    coverage: bool = True,
) -> Outcome:
    """Collects bars, actions and indices. Every bar ends in prices or, with its reason, in prices_rejected.

    ``coverage=False``: the caller has more parts to come, and asks tell_coverage after the last."""
    with Hold() as hold:
        return _Collection(spark, lake, source, settings, calendars, hold).run(request, coverage)


@dataclass(frozen=True)
class _Again:
    """What is to be judged again. ``since``: (country, symbol, _ex), the earliest ex-date of each share's actions,
    dividends apart, that changed since flags were last judged: from there on its moves are looked at again, and its
    reference prices. None where nothing changed. ``version``: of actions, up to which that holds."""

    since: DataFrame | None
    version: int


@dataclass
class _Collection:
    """One run of collect_prices over one source."""

    spark: SparkSession
    lake: Lake
    source: Source
    settings: Settings
    calendars: Mapping[str, Calendar]
    hold: Hold
    outcome: Outcome = field(default_factory=Outcome)

    def run(self, request: Request, coverage: bool) -> Outcome:
        outcome, today = self.outcome, today_of(self.settings, self.calendars)
        first = request.start or min(calendar.days[0] for calendar in self.calendars.values())
        sessions = self.hold(sessions_of(self.spark, self.calendars, first, max(today.values())))
        with described(self.spark, f"prices: read and check bars from {self.source.name}"):
            bars = self.source.bars(self.spark, request)
            checked = self.hold(check_bars(bars, sessions, today, _newest_basis(today, self.calendars)))
            outcome.rows_in, outcome.rows_rejected, low, high, references = checked.agg(
                F.count(F.lit(1)),
                F.count("reason"),
                F.min(_if_good("date")),
                F.max(_if_good("date")),
                F.count("reference"),
            ).collect()[0]
        if outcome.rows_rejected:
            self._quarantine(checked)
        with described(self.spark, "actions: merge what the source announced"):
            announced = self.hold(stamped(self.source.actions(self.spark, request), self.source.name))
            known = self.lake.version("actions")
            actions_new = self.lake.merge("actions", announced).changed
            again = _to_judge_again(self.lake, known)
        with described(self.spark, "indices: merge"):
            indices = self.hold(stamped(self.source.indices(self.spark, request), self.source.name))
            index_rows = self.lake.merge("indices", indices).changed
        if low is not None:
            good = checked.where("reason IS NULL").drop("reason", "problem")
            actions_new += self._merge(good, low, high, again, references=references > 0)
            outcome.details["sessions"] = {"first": low, "last": high}
            if coverage:
                floor = self.settings.coverage_floor
                tell_coverage(self.spark, self.lake, self.calendars, low, high, floor, outcome)
        outcome.details |= {"actions": actions_new, "index_rows": index_rows}
        outcome.summarize_rejected()
        outcome.say(
            f"{outcome.rows_in} bars from {self.source.name}: {outcome.rows_out} stored or changed, "
            f"{outcome.rows_rejected} refused, {actions_new} corporate actions"
        )
        return outcome

    def _quarantine(self, checked: DataFrame) -> None:
        with described(self.spark, "prices: quarantine refused rows"):
            self.lake.merge("prices_rejected", self.hold(rejected_rows(checked, self.source.name)))
            reasons = checked.where("reason IS NOT NULL").groupBy("reason").count().orderBy(F.desc("count"))
            told = {row["reason"]: row["count"] for row in reasons.limit(10).collect()}
            if rest := self.outcome.rows_rejected - sum(told.values()):
                told["for other reasons, each of them in prices_rejected"] = rest
            self.outcome.details["rejected"] = told
            refused = F.count("reason") == F.count(F.lit(1))
            shares = checked.groupBy("country", "symbol").agg(refused.alias("all"), F.max("reason").alias("why"))
            self.outcome.turned_away = {
                f"{row['country']}:{row['symbol']}": row["why"] for row in shares.where("all").collect()
            }

    def _merge(self, good: DataFrame, low: date, high: date, again: _Again, *, references: bool) -> int:
        """Finds actions, sets flags over new and neighbouring bars, merges. Returns the number of actions found.

        ``references``: whether new bars have reference prices."""
        # A reverse split may leave an adjusted volume below one: it is a traded bar all the same.
        whole = F.when(F.col("volume") > 0, F.greatest(F.round("volume"), F.lit(1.0))).otherwise(F.round("volume"))
        new = good.withColumn("volume", whole.cast("bigint")).withColumn("source", F.lit(self.source.name))
        new = new.withColumn("collected_at", F.current_timestamp()).withColumn("_new", F.lit(True))
        old = _select_neighbours(self.lake.read("prices"), new, low, self.hold, again.since)
        if old is not None:
            # a new bar may be the one before a stored bar that has one
            references = references or not old.where("reference IS NOT NULL").isEmpty()
            old = old.withColumn("rounded", F.array_contains("flags", "rounded")).withColumn("_new", F.lit(False))
            new = select_corrections(
                new,
                old,
                self.lake.read("actions"),
                keep_market=getattr(self.source, "todays_market", False),
                states_basis=getattr(self.source, "states_basis", False),
            )
            old = old.join(new.select("country", "symbol", "date"), on=["country", "symbol", "date"], how="left_anti")
            rows = new.withColumn("flags", F.lit(None).cast("array<string>")).unionByName(
                old.withColumnRenamed("flags", "_flags"), True
            )
        else:
            rows = new.withColumn("_flags", F.lit(None).cast("array<string>"))
        learned, judged_by = Written(), again.version
        if references:
            learned = self._learn(rows, low, again)
            if learned.changed and self.lake.version("actions") == judged_by + 1:  # and of no other job in between
                judged_by += 1
        limits = {"KR": self.settings.jump_limit_kr, "US": self.settings.jump_limit_us}
        flagged = with_flags(rows, self.lake.read("actions"), limits)
        changed = flagged.where(F.col("_new") | ~F.col("flags").eqNullSafe(F.col("_flags"))).drop("_new", "_flags")
        with described(self.spark, "prices: set flags over new and neighbouring bars"):
            changed = self.hold(changed)
        with described(self.spark, f"prices: merge bars of {low} … {high}"):
            laid_out = changed.repartitionByRange("date").sortWithinPartitions("symbol", "date")
            written = self.lake.merge("prices", laid_out)
            if again.since is not None or learned.changed or not self.lake.mark("prices"):
                self.lake.set_mark("prices", f"{self.lake.identity('actions')}:{judged_by}")
            flags = changed.select(F.explode("flags").alias("flag")).groupBy("flag").count().collect()
        self.outcome.rows_out = written.changed
        self.outcome.details["prices"] = {"inserted": written.inserted, "updated": written.updated}
        self.outcome.details["flags"] = {row["flag"]: row["count"] for row in flags}
        return learned.inserted

    def _learn(self, rows: DataFrame, low: date, again: _Again) -> Written:
        """Actions that nobody told and reference prices show, merged; those that they take back are deleted."""
        with described(self.spark, "actions: look for reference prices that nothing explains"):
            first = low if again.since is None else min(low, again.since.agg(F.min("_ex")).collect()[0][0] or low)
            sessions = numbered_sessions(self.spark, self.calendars, first - timedelta(days=_RECENT_DAYS), date.max)
            known = self.lake.read("actions")
            judged = self.hold(actions_from_reference(rows, self.lake.read("symbols"), known, sessions))
            found = stamped(judged.where(F.col("kind").isNotNull()).drop("takes_back", "date"), self.source.name)
            gone = judged.where("takes_back").withColumn("kind", F.lit("unknown")).withColumn("ex_date", F.col("date"))
            return self.lake.merge("actions", found, deletes=gone)


def _newest_basis(today: Mapping[str, date], calendars: Mapping[str, Calendar]) -> dict[str, date]:
    """Where a past day is repeated (SISE_TODAY) a vendor that adjusts gives prices as of the real one."""
    return {country: max(day, calendars[country].today()) for country, day in today.items()}


def _if_good(column: str):  # type: ignore[no-untyped-def]
    return F.when(F.col("reason").isNull(), F.col(column))


def _to_judge_again(lake: Lake, known: int) -> _Again:
    """The mark on prices says by which version of actions they were judged, so that what a run left undone that was
    killed, or had no bar to judge, is done by the next one. ``known``: that version in a lake that has no mark yet."""
    identity, _, version = lake.mark("prices").rpartition(":")
    since, newest = int(version) if identity else known, lake.version("actions")
    if identity and lake.replaced("actions", since, identity):
        since = -1
    if not lake.arrow.written("actions", since, newest):  # a merge that changes nothing is a version, too
        return _Again(None, newest)
    changes = lake.changes("actions", since, newest)
    changing = (lake.read("actions") if changes is None else changes).where("kind <> 'dividend'")
    return _Again(changing.groupBy("country", "symbol").agg(F.min("ex_date").alias("_ex")), newest)


def _select_neighbours(
    prices: DataFrame, new: DataFrame, low: date, hold: Hold, dated: DataFrame | None
) -> DataFrame | None:
    """Stored bars that stand beside the new ones: some weeks back, further for a share that paused, and from its first
    new action on, with the last trade before, for a share that has one (it may have no new bar)."""
    if prices.isEmpty():
        return None
    shares = new.select("country", "symbol")
    shares = (shares if dated is None else shares.unionByName(dated.select("country", "symbol"))).distinct()
    since = low - timedelta(days=_RECENT_DAYS)
    recent = prices.where(F.col("date") >= F.lit(since)).join(shares, on=["country", "symbol"], how="left_semi")
    traded = recent.where((F.col("volume") > 0) & (F.col("date") < F.lit(low))).select("country", "symbol").distinct()
    if dated is not None:
        old = dated.where(F.col("_ex") < F.lit(since))
        old = hold(old.select("country", "symbol", F.date_sub("_ex", _RECENT_DAYS).alias("_until")))
        far = prices.where(F.col("date") < F.lit(since)).join(F.broadcast(old), on=["country", "symbol"])
        recent = recent.unionByName(far.where(F.col("date") >= F.col("_until")).drop("_until"))
        traded = traded.unionByName(old.select("country", "symbol"))
    paused = shares.join(traded, on=["country", "symbol"], how="left_anti").withColumn("_until", F.lit(since))
    paused = hold(paused if dated is None else paused.unionByName(old))
    if paused.isEmpty():
        return recent
    order = Window.partitionBy("country", "symbol").orderBy(F.col("date").desc())
    earlier = prices.where(F.col("volume") > 0).join(F.broadcast(paused), on=["country", "symbol"])
    last = earlier.where(F.col("date") < F.col("_until")).withColumn("_n", F.row_number().over(order))
    return recent.unionByName(last.where("_n = 1").drop("_n", "_until"))


def select_corrections(
    new: DataFrame, old: DataFrame, actions: DataFrame, *, keep_market: bool = False, states_basis: bool = False
) -> DataFrame:
    """Of ``new``, the bars that are not stored yet or say something else than the stored bar, at a common basis. What
    a bar leaves out (value, reference; with ``keep_market`` its market, too) stays as it is stored. With
    ``states_basis`` that is the market of another source's bar alone: a person may have named a wrong one before.

    Two bars of the same basis must agree to the letter, and so must (but for a float's last digits) two of one source
    between whose bases nothing happened. Else both are brought to the later basis and may differ by the vendors'
    rounding: max(one tick, 0.5 %), volume by 1 %. With ``states_basis`` (a person named it) a bar that was stored as it
    was traded and now is as of a later day, or the other way round, says something else.
    """
    values = (*_PRICES, "source", "volume", "value", "reference", "basis", "provisional", "market")
    stored = old.select("country", "symbol", "date", *[F.col(c).alias(f"_{c}") for c in values])
    rows = with_actions(new, actions).join(stored, on=["country", "symbol", "date"], how="left")
    same_basis = F.col("basis") == F.col("_basis")
    # The later-based bar has already the factors that only the earlier-based one lacks.
    ratio = product_of("_actions") / product_of("_actions", basis_column="_basis")
    unmoved = (F.col("source") == F.col("_source")) & (ratio == 1)
    rounding = rounding_of(F.col("country"), F.col("close"))
    tolerance = F.when(unmoved, _FLOAT * F.col("close")).otherwise(rounding)
    equal = F.lit(True)
    for column in _PRICES:
        scaled = F.abs(F.col(column) * ratio - F.col(f"_{column}")) <= tolerance * ratio
        equal &= F.when(same_basis, F.col(column).eqNullSafe(F.col(f"_{column}"))).otherwise(
            F.coalesce(scaled, F.col(column).eqNullSafe(F.col(f"_{column}")))
        )
    volume = F.abs(F.col("volume") / ratio - F.col("_volume")) <= F.greatest(F.lit(1.0), 0.01 * F.col("_volume"))
    equal &= F.when(same_basis | unmoved, F.col("volume") == F.col("_volume")).otherwise(volume)
    for column in ("value", "reference"):  # a source that does not give them takes nothing back
        equal &= F.col(column).isNull() | F.col(column).eqNullSafe(F.col(f"_{column}"))
    keeps = F.lit(keep_market) & (F.lit(not states_basis) | (F.col("source") != F.col("_source")))
    equal &= (F.col("provisional") == F.col("_provisional")) & (keeps | (F.col("market") == F.col("_market")))
    if states_basis:
        equal &= (F.col("source") != F.col("_source")) | (
            (F.col("basis") > F.col("date")) == (F.col("_basis") > F.col("date"))
        )
    known = F.col("_close").isNotNull()
    kept = {"value": F.coalesce("value", "_value"), "reference": F.coalesce("reference", F.col("_reference") / ratio)}
    if keep_market:
        kept["market"] = F.coalesce(F.when(keeps, F.col("_market")), "market")
    return rows.where(~known | ~equal).withColumns(kept).select(*new.columns)
