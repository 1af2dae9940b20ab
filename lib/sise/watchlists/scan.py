"""The watchlists of a session: the rules and people's own lists, picking among its shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import reduce

from pyspark import errors
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sise.calendars import COUNTRIES, Calendar
from sise.errors import ConfigError, InputError
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.prices.gaps import tell_gaps
from sise.prices.symbols import newest_listing
from sise.session import Hold, described, small_plans
from sise.settings import Settings
from sise.watchlists.rules import OwnList, Rule, load_lists, load_rules
from sise.watchlists.universe import barred, select_eligible, session_shares

__all__ = ["failing", "scan_watchlists", "select_listed"]

_SHARE = ["country", "symbol"]
# What a value makes of an expression, and nothing else does.
_OF_A_VALUE = (
    errors.ArithmeticException,
    errors.ArrayIndexOutOfBoundsException,
    errors.DateTimeException,
    errors.IllegalArgumentException,
    errors.NumberFormatException,
    errors.SparkRuntimeException,
)
_PLACES = "country string, symbol string, _at int"


def scan_watchlists(
    spark: SparkSession,
    lake: Lake,
    registry: Registry,
    settings: Settings,
    calendars: dict[str, Calendar],
    day: date | None = None,
) -> Outcome:
    """Fills ``watchlist`` for the last session of each country, or for ``day``: replaces that session's rows."""
    lake.demand("indicators")
    empty = session_shares(lake, registry, settings, {}, calendars)
    rules = load_rules(settings.conf_file("watchlists.json"), empty)
    lists = load_lists(settings.conf / "lists")
    if clash := {rule.name for rule in rules} & {own.name for own in lists}:
        raise InputError(f"{settings.conf}/lists: {', '.join(sorted(clash))} is already the name of a rule")
    outcome = Outcome()
    with described(spark, "watchlists: which session is the last one"):
        days = _sessions(lake, calendars, day)
    with Hold() as hold, small_plans(spark):
        _scan(
            spark,
            lake,
            settings,
            session_shares(lake, registry, settings, days, calendars),
            rules,
            lists,
            days,
            outcome,
            hold,
            newest=day is None,
        )
    tell_gaps(lake.arrow, calendars, days, outcome)
    return outcome


def _scan(
    spark: SparkSession,
    lake: Lake,
    settings: Settings,
    rows: DataFrame,
    rules: Sequence[Rule],
    lists: Sequence[OwnList],
    days: dict[str, date],
    outcome: Outcome,
    hold: Hold,
    newest: bool,
) -> None:
    with described(spark, "watchlists: the session's shares with indicators and listing"):
        shares = hold(rows)
        outcome.rows_in = shares.count()
        eligible = hold(select_eligible(shares, settings))
    columns = [c for c in shares.columns if c not in {"flags", "suspect"}]
    with described(spark, "watchlists: apply the rules and rank"):
        try:
            picked = hold(select_listed(eligible, rules, lists, columns))
        except Exception:
            _name_failing(eligible, rules, columns)
            raise
        counts = {row["list"]: row["count"] for row in picked.groupBy("list").count().collect()}
    spans = [f"(country = '{country}' AND date = DATE'{session}')" for country, session in sorted(days.items())]
    with described(spark, "watchlists: replace the session's rows"):
        _write(lake, picked, " OR ".join(spans), "watchlist")
    if newest:
        with described(spark, "watchlists: which shares may have live signals"):
            # A listing that is newer than the session says who may have signals, not who stood on its lists.
            listed = newest_listing(lake.read("symbols"))
            may = eligible.select(*_SHARE).join(listed.where(barred()), on=_SHARE, how="left_anti")
            may = may.withColumn("eligible", F.lit(True))
            universe = shares.select(*_SHARE, "date", "market", "name").join(may, on=_SHARE, how="left")
            universe = hold(universe.withColumn("eligible", F.coalesce("eligible", F.lit(False))))
            _write(lake, universe, f"country IN ({', '.join(repr(country) for country in sorted(days))})", "universe")
    outcome.rows_out = sum(counts.values())
    names = [*(rule.name for rule in rules), *(own.name for own in lists)]
    outcome.details = {
        "sessions": days,
        "eligible": eligible.count(),
        "lists": {name: counts.get(name, 0) for name in names},
    }
    outcome.say(
        f"{outcome.rows_in} shares traded on {', '.join(f'{c} {d}' for c, d in sorted(days.items()))}, "
        f"{outcome.details['eligible']} may be listed"
    )
    for name in names:
        outcome.say(f"{name}: {counts.get(name, 0)}")
    _say_missing(eligible, lists, outcome)
    unlisted = shares.where(F.col("name").isNull() & F.col("active").isNull()).count()
    if unlisted:
        outcome.say(
            f"{unlisted} shares have no row in symbols that was true on the session: run jobs/collect_symbols.py for "
            "their caps and flags (a listing counts from the day it is of)"
        )


def _sessions(lake: Lake, calendars: dict[str, Calendar], day: date | None) -> dict[str, date]:
    """The session to scan, by country."""
    if day is None:
        lake.demand("live_state")
        rows = lake.arrow.rows("live_state", ["country", "as_of"]).to_pylist()
        if not rows:
            raise InputError("live_state has no share: run jobs/compute_indicators.py first")
        return {row["country"]: row["as_of"] for row in sorted(rows, key=lambda row: row["as_of"])}
    found = lake.arrow.rows("indicators", ["country"], [("date", "=", day)])["country"].unique().to_pylist()
    if not found:
        open_ = [c for c, calendar in calendars.items() if calendar.is_session(day)]
        why = "run jobs/compute_indicators.py first" if open_ else f"no session of {', '.join(calendars)}"
        raise InputError(f"no indicators of {day}: {why}")
    return {country: day for country in found}


def select_listed(
    shares: DataFrame, rules: Sequence[Rule], lists: Sequence[OwnList], known: Sequence[str]
) -> DataFrame:
    """Rows of ``watchlist``: for each rule the shares that meet it, ranked in their market from 1."""
    numbers = [c for c in known if dict(shares.dtypes)[c] in {"double", "bigint", "int", "float"}]
    frames = []
    for rule in rules:
        rank = F.row_number().over(Window.partitionBy("market").orderBy(rule.order, F.col("symbol")))
        rows = shares.where(rule.condition).withColumn("rank", rank)
        if rule.top is not None:
            rows = rows.where(F.col("rank") <= rule.top)
        frames.append(_listed(rows, rule.name, rule.version, rule.columns(numbers)))
    for own in lists:
        places: dict[tuple[str, str], int] = {}
        for at, (country, symbol) in enumerate(own.shares):
            for where in [country] if country else COUNTRIES:
                places.setdefault((where, symbol), at)
        listed = shares.sparkSession.createDataFrame([(*key, at) for key, at in places.items()], _PLACES)
        rows = shares.join(F.broadcast(listed), on=_SHARE, how="inner")
        rank = F.row_number().over(Window.partitionBy("market").orderBy("_at", "country"))
        frames.append(_listed(rows.withColumn("rank", rank), own.name, "list", ["market_cap_usd"]))
    if not frames:
        return _listed(shares.limit(0).withColumn("rank", F.lit(1)), "none", "", [])
    return reduce(lambda a, b: a.unionByName(b), frames)


def _name_failing(shares: DataFrame, rules: Sequence[Rule], known: Sequence[str]) -> None:
    """Raises ConfigError for a rule that fails over these shares."""
    for rule in rules:
        with failing(rule.name, "a share of this session"):
            select_listed(shares, [rule], (), known).collect()


@contextmanager
def failing(name: str, over: str) -> Iterator[None]:
    """What is computed inside is one rule's: where it fails on a value (a division by zero, a text that is no number),
    ConfigError names the rule."""
    try:
        yield
    except _OF_A_VALUE as problem:
        why = next((line for line in str(problem).splitlines() if "[" in line), str(problem))
        raise ConfigError(
            f"rule {name} fails over {over}: {why.strip()[:300]} (try_divide and try_cast give null instead)"
        ) from problem


def _listed(rows: DataFrame, name: str, version: str, figures: Sequence[str]) -> DataFrame:
    chosen = list(dict.fromkeys(["close", "volume", *figures]))
    pairs = [item for c in chosen for item in (F.lit(c), F.col(c).cast("double"))]
    return rows.select(
        "date",
        "country",
        "market",
        F.lit(name).alias("list"),
        "symbol",
        "name",
        F.col("rank").cast("int").alias("rank"),
        F.map_filter(F.create_map(*pairs), lambda _, value: value.isNotNull()).alias("figures"),
        F.lit(version).alias("rule_version"),
    )


def _write(lake: Lake, rows: DataFrame, where: str, name: str) -> None:
    """Replaces the rows that meet ``where``, unless they are the same already: running the scan twice writes once."""
    columns = lake.schema(name).names
    text = [F.to_json(F.map_from_entries(F.array_sort(F.map_entries(c)))).alias(c) for c in columns if c == "figures"]
    plain = [F.col(c) for c in columns if c != "figures"]
    old, new = (frame.select(*plain, *text) for frame in (lake.read(name).where(where), rows))
    if not lake.exists(name) or not (old.exceptAll(new).isEmpty() and new.exceptAll(old).isEmpty()):
        lake.replace(name, rows.coalesce(1), where=where)


def _say_missing(eligible: DataFrame, lists: Sequence[OwnList], outcome: Outcome) -> None:
    wanted = {symbol for own in lists for _, symbol in own.shares}
    if not wanted:
        return
    here = {row["symbol"] for row in eligible.where(F.col("symbol").isin(sorted(wanted))).select("symbol").collect()}
    for own in lists:
        if absent := [symbol for _, symbol in own.shares if symbol not in here]:
            outcome.say(f"{own.name}: left out, not traded or not eligible: {', '.join(absent)}")
