"""Who stood on the market on a day, with all that rules look at: one session of it, or a whole history in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.columns import by_country
from sise.errors import InputError
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.prices.adjust import applied_of, product_of, with_actions
from sise.settings import FxRates, Settings
from sise.watchlists.suspect import FIRST_LISTING_DAYS, LASTING, PAUSE, SUSPECT

__all__ = ["RECENT_SESSIONS", "Read", "Spans", "barred", "select_eligible", "session_shares", "shares_between"]

# The table of a name, as it is or as of a version: lake.read.
Read = Callable[[str], DataFrame]
# The first and last session of each country, both included.
Spans = Mapping[str, tuple[date, date]]

# A share's bar before lies within so many sessions, or is looked up in the whole table.
RECENT_SESSIONS = 40
_SHARE = ["country", "symbol"]
_SYMBOL = ("name", "market_cap", "listed_shares", "is_etf", "is_warning", "is_administration", "is_halted", "active")


def session_shares(
    lake: Lake, registry: Registry, settings: Settings, days: Mapping[str, date], calendars: Mapping[str, Calendar]
) -> DataFrame:
    """The rows of ``shares_between`` for one session of each country; without days, an empty frame of its columns.
    Complains of a session before the first rate of SISE_KRW_PER_USD."""
    if "KR" in days:
        settings.krw_per_usd.on(days["KR"])
    return shares_between(lake.read, registry, settings, {c: (day, day) for c, day in days.items()}, calendars)


def shares_between(
    read: Read,
    registry: Registry,
    settings: Settings,
    spans: Spans,
    calendars: Mapping[str, Calendar],
    columns: Sequence[str] | None = None,
) -> DataFrame:
    """A row for each share and session with trade, with every column that a rule may name, as of that day.

    The indicators (only ``columns`` of them where these are named), ``prev_…`` of each (the share's bar before),
    the bar's open, high and low, volume and value, the symbol's row valid on the day (a share's first row holds for
    the ten days before it, too; further back only name and is_etf are known, the rest is null), ``market_cap`` (else
    listed shares × the close as it was traded), ``market_cap_usd``, ``turnover`` (close × average volume, else the
    day's value), ``suspect`` (true where one of the share's last SISE_SUPPRESS_BARS bars is flagged, else null) and the
    setting ``large_cap_usd``.

    Prices and volumes have the basis of ``indicators``: all splits that it knew of. Volume × price, value, market
    caps and whatever compares prices with prices are free of it; a rule that compares a price with a fixed amount
    sees the adjusted price.
    """
    chosen = list(registry.columns if columns is None else columns)
    average = ["volume_avg_20"] if "volume_avg_20" in registry.core else []
    computed = read("indicators")
    if lacking := sorted({*chosen, *average} - set(computed.columns)):
        raise InputError(
            f"the table indicators has no {', '.join(lacking)}, which conf/indicators.json names: run "
            "jobs/compute_indicators.py"
        )
    table = computed.select(*_SHARE, "date", "market", "close", "volume", *dict.fromkeys([*chosen, *average]))
    rows = _with_past(table, read("symbols"), spans, calendars, ["close", "volume", *chosen])
    rows = rows.join(_bars(read, spans), on=[*_SHARE, "date"], how="left")
    rows = rows.join(_suspects(read("prices"), spans, calendars, settings.suppress_bars), [*_SHARE, "date"], "left")
    same = F.col("close") / F.col("_stored")
    # The very factor, where it is that: the quotient is off by a hair, and a high that was reached would be exceeded.
    same = F.when(F.abs(same / F.col("_factor") - 1) < 1e-9, F.col("_factor")).otherwise(same)
    rows = rows.withColumns({c: F.col(c) * same for c in ("open", "high", "low")})
    cap = F.coalesce("market_cap", F.col("listed_shares") * F.col("_traded"))
    mean = F.col("volume_avg_20") if average else F.lit(None).cast("double")
    turnover = F.coalesce(mean * F.col("close"), F.col("value"), F.col("volume") * F.col("close"))
    return rows.withColumns(
        {
            "market_cap": cap,
            "market_cap_usd": cap / _rate(settings.krw_per_usd),
            "turnover": turnover,
            "large_cap_usd": F.lit(settings.large_cap_usd),
        }
    ).drop("_stored", "_traded", "_factor", *([] if "volume_avg_20" in chosen else average))


def select_eligible(shares: DataFrame, settings: Settings) -> DataFrame:
    """Without shares that no watchlist may hold: halted, inactive, under warning or administration, ETFs, below the
    turnover floor, or with an unexplained jump in their last bars. What is not known excludes nothing."""
    return shares.where(eligible(settings))


def eligible(settings: Settings) -> Column:
    """The condition of ``select_eligible``."""
    floor = F.when(F.col("country") == "KR", settings.turnover_floor_krw).otherwise(settings.turnover_floor_usd)
    traded = F.coalesce(F.col("turnover") >= floor, F.lit(False))
    return traded & ~barred() & ~F.coalesce("suspect", F.lit(False))


def barred() -> Column:
    """Whether a row of ``symbols`` keeps its share off every watchlist."""
    flags = [F.coalesce(flag, F.lit(False)) for flag in ("is_halted", "is_warning", "is_administration", "is_etf")]
    return reduce(lambda a, b: a | b, flags, ~F.coalesce("active", F.lit(True)))


def _within(rows: DataFrame, spans: Spans) -> DataFrame:
    parts = [(F.col("country") == c) & F.col("date").between(F.lit(a), F.lit(b)) for c, (a, b) in spans.items()]
    return rows.where(reduce(lambda a, b: a | b, parts, F.lit(False)))


def _with_past(
    table: DataFrame, symbols: DataFrame, spans: Spans, calendars: Mapping[str, Calendar], columns: Sequence[str]
) -> DataFrame:
    """The bars of ``spans`` with prev_x (x on the share's bar before) and the columns of _SYMBOL as of the bar's day.

    Bars and listing rows are sorted together, a listing before the bar of its day: one pass answers both. Most bars
    before lie within some weeks; the shares that paused for longer are looked up in the whole table.
    """
    bars = _recent(table, spans, calendars).withColumn("_bar", F.lit(True))
    listings = symbols.select(*_SHARE, F.col("valid_from").alias("date"), F.struct(*_SYMBOL).alias("_listing"))
    both = bars.unionByName(listings, allowMissingColumns=True)
    order = Window.partitionBy("symbol", "country").orderBy("date", F.col("_bar").asc_nulls_first())
    whole = order.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    listing = F.last("_listing", ignorenulls=True).over(order.rowsBetween(Window.unboundedPreceding, 0))
    dated = F.when(F.col("_listing").isNotNull(), F.struct("date", "_listing"))
    first = F.first(dated, ignorenulls=True).over(whole)
    # a struct, since a column that was null on the bar before is null in prev_x, too
    previous = F.last(F.when(F.col("_bar"), F.struct(*columns)), ignorenulls=True).over(before)
    rows = both.withColumns({"_before": previous, "_now": listing, "_first": first})
    near = F.col("_first.date") <= F.date_add("date", FIRST_LISTING_DAYS)
    described = {
        c: F.when(F.col("_now").isNotNull(), F.col(f"_now.{c}")).when(
            F.lit(True) if c in LASTING else near, F.col(f"_first._listing.{c}")
        )
        for c in _SYMBOL
    }
    return _within(rows.where("_bar"), spans).select(
        *table.columns,
        *[F.col(f"_before.{c}").alias(f"prev_{c}") for c in columns],
        *[value.alias(c) for c, value in described.items()],
    )


def _recent(table: DataFrame, spans: Spans, calendars: Mapping[str, Calendar]) -> DataFrame:
    if not spans:
        return table.where(F.lit(False))
    since = min(calendars[country].back(first, RECENT_SESSIONS) for country, (first, _) in spans.items())
    last = max(end for _, end in spans.values())
    recent = table.where(F.col("date").between(F.lit(since), F.lit(last)))
    start = by_country({country: first for country, (first, _) in spans.items()}, "date")
    alone = recent.groupBy(*_SHARE).agg(F.min("date").alias("date")).where(F.col("date") >= start).select(*_SHARE)
    if alone.isEmpty():
        return recent
    earlier = table.where(F.col("date") < F.lit(since)).join(F.broadcast(alone), on=_SHARE, how="left_semi")
    newest = Window.partitionBy("symbol", "country").orderBy(F.col("date").desc())
    earlier = earlier.withColumn("_n", F.row_number().over(newest)).where("_n = 1").drop("_n")
    return recent.unionByName(earlier)


def _bars(read: Read, spans: Spans) -> DataFrame:
    """The bars of ``spans`` as stored, their close as stored and as it was traded on its day."""
    bars = with_actions(_within(read("prices"), spans), read("actions"))
    traded = F.col("close") / applied_of("_actions")
    stored = F.col("close").alias("_stored")
    own = ("open", "high", "low", "value", "flags")
    return bars.select(*_SHARE, "date", *own, stored, traded.alias("_traded"), product_of("_actions").alias("_factor"))


def _suspects(prices: DataFrame, spans: Spans, calendars: Mapping[str, Calendar], bars: int) -> DataFrame:
    """(country, symbol, date, suspect): a share's traded bars at most ``bars`` - 1 after one with one of SUSPECT."""
    said: list[Column | str] = [*_SHARE, "date", F.lit(True).alias("suspect")]
    if not spans or not bars:
        return prices.where(F.lit(False)).select(*said)
    reach = {c: (calendars[c].back(first, bars + PAUSE), last) for c, (first, last) in spans.items()}
    flagged = F.arrays_overlap("flags", F.array(*[F.lit(flag) for flag in SUSPECT]))
    traded = _within(prices, reach).where(F.col("volume") > 0).select(*_SHARE, "date", flagged.alias("_flagged"))
    some = F.broadcast(traded.where("_flagged").select(*_SHARE).distinct())
    last = Window.partitionBy("symbol", "country").orderBy("date").rowsBetween(1 - bars, 0)
    rows = traded.join(some, on=_SHARE, how="left_semi").withColumn("_near", F.bool_or("_flagged").over(last))
    return rows.where("_near").select(*said)


def _rate(rates: FxRates) -> Column:
    """The share's currency for one USD on the row's date; null before the first rate."""
    won = F.lit(None).cast("double")
    for since, rate in rates.steps:
        begun = F.lit(True) if since == date.min else F.col("date") >= F.lit(since)
        won = F.when(begun, rate).otherwise(won)
    return F.when(F.col("country") == "KR", won).otherwise(F.lit(1.0))
