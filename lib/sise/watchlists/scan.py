"""The shares of one session with all that rules look at, and the watchlists that pick among them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.columns import by_country
from sise.errors import InputError
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.session import Hold, described
from sise.settings import Settings
from sise.watchlists.rules import OwnList, Rule, load_lists, load_rules

__all__ = ["scan_watchlists", "select_eligible", "select_listed", "session_shares"]

_SHARE = ["country", "symbol"]
_SYMBOL = ("name", "market_cap", "listed_shares", "is_etf", "is_warning", "is_administration", "is_halted", "active")
_PRICE = ("open", "high", "low", "value", "flags")
# A jump that nothing explains, or a price that came back the next day: what indicators say around it is not true.
_SUSPECT = ("jump", "glitch", "unconfirmed_action")
_RECENT_SESSIONS = 40


def scan_watchlists(
    spark: SparkSession,
    lake: Lake,
    registry: Registry,
    settings: Settings,
    calendars: dict[str, Calendar],
    day: date | None = None,
) -> Outcome:
    """Fills ``watchlist`` for the last session of each country, or for ``day``: replaces that session's rows."""
    lake.require("indicators")
    empty = session_shares(lake, registry, settings, {}, calendars)
    rules = load_rules(settings.conf_file("watchlists.json"), empty)
    lists = load_lists(settings.conf / "lists")
    if clash := {rule.name for rule in rules} & {own.name for own in lists}:
        raise InputError(f"{settings.conf}/lists: {', '.join(sorted(clash))} is already the name of a rule")
    outcome = Outcome()
    with described(spark, "watchlists: which session is the last one"):
        days = _sessions(lake, calendars, day)
    with Hold() as hold:
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
        )
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
) -> None:
    with described(spark, "watchlists: the session's shares with indicators and listing"):
        shares = hold(rows)
        outcome.rows_in = shares.count()
        eligible = hold(select_eligible(shares, settings))
    columns = [c for c in shares.columns if c not in {"flags", "suspect"}]
    with described(spark, "watchlists: apply the rules and rank"):
        picked = hold(select_listed(eligible, rules, lists, columns))
        counts = {row["list"]: row["count"] for row in picked.groupBy("list").count().collect()}
    spans = [f"(country = '{country}' AND date = DATE'{session}')" for country, session in sorted(days.items())]
    with described(spark, "watchlists: replace the session's rows"):
        _write(lake, picked, " OR ".join(spans))
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
        outcome.say(f"{unlisted} shares have no row in symbols: run jobs/collect_symbols.py for their caps and flags")


def _sessions(lake: Lake, calendars: dict[str, Calendar], day: date | None) -> dict[str, date]:
    """The session to scan, by country."""
    live = lake.read("live_state") if day is None else None
    if live is not None:
        rows = live.groupBy("country").agg(F.max("as_of").alias("day")).collect()
        return {row["country"]: row["day"] for row in rows}
    assert day is not None
    found = lake.read("indicators").where(F.col("date") == F.lit(day)).select("country").distinct().collect()
    if not found:
        closed = [c for c, calendar in calendars.items() if not calendar.is_session(day)]
        why = f"no session of {', '.join(closed)}" if closed else "run jobs/compute_indicators.py first"
        raise InputError(f"no indicators of {day}: {why}")
    return {row["country"]: day for row in found}


def session_shares(
    lake: Lake, registry: Registry, settings: Settings, days: dict[str, date], calendars: dict[str, Calendar]
) -> DataFrame:
    """A row for each share that traded on its country's day, with every column that a rule may name.

    The indicators, ``prev_…`` of each (the bar before), the bar's open, high, low, volume and value, the symbol's
    row as of the day, ``market_cap`` (else listed shares × close), ``market_cap_usd``, ``turnover`` (close × average
    volume, else the day's value) and the setting ``large_cap_usd``.
    """
    table = lake.read("indicators").select(*_SHARE, "date", "market", "close", "volume", *registry.columns)
    rows = _on_days(_with_previous(table, registry, days, calendars), days)
    prices = _on_days(lake.read("prices"), days).select(*_SHARE, *_PRICE)
    rows = rows.join(prices, on=_SHARE, how="left")
    rows = rows.join(_as_of(lake.read("symbols"), days), on=_SHARE, how="left")
    rows = rows.join(_suspects(lake.read("prices"), days, calendars, settings.suppress_bars), on=_SHARE, how="left")
    rate, large = F.lit(None).cast("double"), F.lit(settings.large_cap_usd)
    for country, day in days.items():
        krw = settings.krw_per_usd.on(day) if country == "KR" else 1.0
        rate = F.when(F.col("country") == country, F.lit(krw)).otherwise(rate)
    cap = F.coalesce("market_cap", F.col("listed_shares") * F.col("close"))
    average = F.col("volume_avg_20") if "volume_avg_20" in registry.core else F.lit(None).cast("double")
    turnover = F.coalesce(average * F.col("close"), F.col("value"), F.col("volume") * F.col("close"))
    return rows.withColumns(
        {"market_cap": cap, "market_cap_usd": cap / rate, "turnover": turnover, "large_cap_usd": large}
    )


def _on_days(rows: DataFrame, days: dict[str, date]) -> DataFrame:
    if not days:
        return rows.limit(0)
    spans = [(F.col("country") == c) & (F.col("date") == F.lit(d)) for c, d in days.items()]
    return rows.where(reduce(lambda a, b: a | b, spans))


def _with_previous(
    table: DataFrame, registry: Registry, days: dict[str, date], calendars: dict[str, Calendar]
) -> DataFrame:
    """Adds prev_x, the value on the share's bar before. Most bars before lie within some weeks; the shares that
    paused for longer are looked up in the whole table."""
    columns = ["close", "volume", *registry.columns]
    order = Window.partitionBy("symbol", "country").orderBy("date")
    before = F.lag(F.struct(*columns)).over(order)
    if not days:
        return table.limit(0).select("*", *[F.col(c).alias(f"prev_{c}") for c in columns])
    last = max(days.values())
    since = min(calendars[country].back(day, _RECENT_SESSIONS) for country, day in days.items())
    recent = table.where((F.col("date") >= F.lit(since)) & (F.col("date") <= F.lit(last)))
    alone = recent.groupBy(*_SHARE).agg(F.count(F.lit(1)).alias("n")).where("n = 1").select(*_SHARE)
    if not alone.isEmpty():
        earlier = table.where(F.col("date") < F.lit(since)).join(F.broadcast(alone), on=_SHARE, how="left_semi")
        newest = Window.partitionBy("symbol", "country").orderBy(F.col("date").desc())
        earlier = earlier.withColumn("_n", F.row_number().over(newest)).where("_n = 1").drop("_n")
        recent = recent.unionByName(earlier)
    rows = recent.withColumn("_before", before)
    return rows.select(*table.columns, *[F.col(f"_before.{c}").alias(f"prev_{c}") for c in columns])


def _as_of(symbols: DataFrame, days: dict[str, date]) -> DataFrame:
    """Each share's row valid on its day; before its first row, a share is taken as that row describes it."""
    if not days:
        return symbols.limit(0).select(*_SHARE, *_SYMBOL)
    day = by_country(days, "date")
    valid = F.col("valid_from") <= day
    order = Window.partitionBy(*_SHARE).orderBy(
        valid.desc(), F.when(valid, F.date_diff(day, F.col("valid_from"))).otherwise(F.date_diff("valid_from", day))
    )
    rows = symbols.where(day.isNotNull()).withColumn("_n", F.row_number().over(order))
    return rows.where("_n = 1").select(*_SHARE, *_SYMBOL)


def _suspects(prices: DataFrame, days: dict[str, date], calendars: dict[str, Calendar], bars: int) -> DataFrame:
    """Shares with a flag of _SUSPECT among their last ``bars`` sessions: (country, symbol, suspect)."""
    if not days or not bars:
        return prices.limit(0).select(*_SHARE, F.lit(True).alias("suspect"))
    spans = [
        (F.col("country") == c) & (F.col("date") > F.lit(calendars[c].back(d, bars))) & (F.col("date") <= F.lit(d))
        for c, d in days.items()
    ]
    flagged = prices.where(reduce(lambda a, b: a | b, spans)).where(
        F.arrays_overlap("flags", F.array(*[F.lit(f) for f in _SUSPECT]))
    )
    return flagged.select(*_SHARE).distinct().withColumn("suspect", F.lit(True))


def select_eligible(shares: DataFrame, settings: Settings) -> DataFrame:
    """Without shares that no watchlist may hold: halted, inactive, under warning or administration, ETFs, below the
    turnover floor, or with an unexplained jump in their last bars. What is not known excludes nothing."""
    floor = F.when(F.col("country") == "KR", settings.turnover_floor_krw).otherwise(settings.turnover_floor_usd)
    barred = ("is_halted", "is_warning", "is_administration", "is_etf", "suspect")
    rows = shares.where(F.coalesce("active", F.lit(True)) & (F.col("turnover") >= floor))
    for flag in barred:
        rows = rows.where(~F.coalesce(flag, F.lit(False)))
    return rows


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
        place = F.lit(None).cast("int")
        for at, (country, symbol) in enumerate(own.shares):
            here = (F.col("symbol") == symbol) & ((F.col("country") == country) if country else F.lit(True))
            place = F.when(here, F.lit(at)).otherwise(place)
        rows = shares.withColumn("_at", place).where(F.col("_at").isNotNull())
        rank = F.row_number().over(Window.partitionBy("market").orderBy("_at", "country"))
        frames.append(_listed(rows.withColumn("rank", rank), own.name, "list", ["market_cap_usd"]))
    if not frames:
        return _listed(shares.limit(0).withColumn("rank", F.lit(1)), "none", "", [])
    return reduce(lambda a, b: a.unionByName(b), frames)


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


def _write(lake: Lake, picked: DataFrame, where: str) -> None:
    """Replaces the session's rows, unless they are the same already: running the scan twice writes once."""
    columns = lake.schema("watchlist").names
    text = [F.to_json(F.map_from_entries(F.array_sort(F.map_entries("figures")))).alias("figures")]
    plain = [F.col(c) for c in columns if c != "figures"]
    old, new = (rows.select(*plain, *text) for rows in (lake.read("watchlist").where(where), picked))
    if not lake.exists("watchlist") or not (old.exceptAll(new).isEmpty() and new.exceptAll(old).isEmpty()):
        lake.replace("watchlist", picked.coalesce(1), where=where)


def _say_missing(eligible: DataFrame, lists: Sequence[OwnList], outcome: Outcome) -> None:
    wanted = {symbol for own in lists for _, symbol in own.shares}
    if not wanted:
        return
    here = {row["symbol"] for row in eligible.where(F.col("symbol").isin(sorted(wanted))).select("symbol").collect()}
    for own in lists:
        if absent := [symbol for _, symbol in own.shares if symbol not in here]:
            outcome.say(f"{own.name}: left out, not traded or not eligible: {', '.join(absent)}")
