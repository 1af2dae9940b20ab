"""Quality at the door: which bars may enter the lake, and what is noted on those that do.

A bar that fails gets a ``reason`` and goes to prices_rejected. A bar that is only odd is kept with a flag:
``no_trade`` (volume 0: only the close counts), ``rounded`` (a vendor-adjusted open or close outside [low, high] by
at most max(one tick, 0.5 %)), ``jump`` (a move beyond the exchange's limit that no action explains), ``glitch`` (a
jump that the next bar takes back), ``unconfirmed_action``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sise.calendars import EXCHANGES, MARKETS
from sise.columns import by_country
from sise.prices.adjust import with_adjustment
from sise.prices.unsettled import WITHDRAWN
from sise.ticks import tick_column

__all__ = ["ROUNDING", "active_bars", "active_counts", "check_bars", "rejected_rows", "rounding_of", "with_flags"]

ROUNDING = 0.005
_PRICES = ("open", "high", "low", "close")
# Of prices as they were traded; those of serial reverse splits grow beyond any when they are adjusted.
_TOP_PRICE, _TOP_ADJUSTED, _TOP_VOLUME = 1e9, 1e15, 1e13


def check_bars(
    bars: DataFrame, sessions: DataFrame, today: Mapping[str, date], newest_basis: Mapping[str, date] | None = None
) -> DataFrame:
    """Adds ``reason`` (null for a bar that may enter) and ``rounded`` to rows of sources.base.BARS.

    ``sessions``: (country, date) of every session that can occur. ``today``: per country; later bars are from the
    future, and so is a basis later than ``newest_basis`` (default: ``today``). Of rows that are equal to the letter one
    stays, with the value and the reference that one of them has; rows of one key that differ are all refused, since
    nothing tells which is true.
    """
    calendar = F.broadcast(sessions.select("country", "date").distinct().withColumn("_session", F.lit(True)))
    rows = bars.join(calendar, on=["country", "date"], how="left")
    key = Window.partitionBy("symbol", "country", "date")
    content = F.xxhash64(*[F.col(c) for c in ("market", *_PRICES, "volume", "basis")])
    either = {c: F.max(c).over(key) for c in ("value", "reference")}  # one file has the column, another has not
    same = F.min("_content").over(key) == F.max("_content").over(key)
    for column, most in either.items():
        same &= F.min(column).over(key).eqNullSafe(most)
    complete = F.col("country").isNotNull() & F.col("date").isNotNull() & (F.length("symbol") > 0)
    rows = (
        rows.repartition("symbol", "country")
        .withColumn("_content", content)
        .withColumn("_copies", F.count(F.lit(1)).over(key))
        .withColumn("_same", same)
        .withColumn("_copy", F.row_number().over(key.orderBy("_content")))
        .withColumns({c: F.when(complete & F.col("_same"), most).otherwise(F.col(c)) for c, most in either.items()})
        .withColumn("rounded", _outside() > 0)
    )
    reason = F.coalesce(
        F.col("problem"),
        F.when(F.col("symbol").isNull() | (F.length("symbol") == 0), F.lit("symbol is missing")),
        F.when(F.col("market").isNull(), F.lit("market is not known: name it with --market or --market-map")),
        F.when(
            F.col("country").isNull(),
            F.concat(F.lit("unknown market '"), F.col("market"), F.lit(f"': use {', '.join(MARKETS)}")),
        ),
        F.when(F.col("date").isNull(), F.lit("date is missing")),
        _future(today),
        _not_a_session(),
        _bad_numbers(newest_basis or today),
        _bad_order(),
        F.when(
            complete & (F.col("_copies") > 1) & ~F.col("_same"),
            F.concat(F.lit("duplicate key: "), F.col("_copies"), F.lit(" rows of this share and day differ")),
        ),
        F.when(complete & (F.col("_copy") > 1), F.lit("duplicate key: the same row again")),
    )
    # What is no amount of money, or no price, was not given: a factor would be made of it.
    given = {
        "value": F.when(_finite(F.col("value")) & (F.col("value") >= 0), F.col("value")),
        "reference": F.when(_finite(F.col("reference")) & (F.col("reference") > 0), F.col("reference")),
    }
    # On a day without trade only the close counts: what else is no price there is taken as not given.
    still = {
        c: F.when((F.col("volume") > 0) | (_finite(F.col(c)) & (F.col(c) >= 0)), F.col(c))
        for c in ("open", "high", "low")
    }
    rows = rows.withColumn("reason", reason).withColumns(still | given)
    return rows.drop("_session", "_content", "_copies", "_same", "_copy")


def _future(today: Mapping[str, date]) -> Column:
    limit = by_country(today, "date")
    return F.when(F.col("date") > limit, F.concat(F.lit("from the future: today is "), limit.cast("string")))


def _not_a_session() -> Column:
    exchange = F.lit("?")
    for country, name in EXCHANGES.items():
        exchange = F.when(F.col("country") == country, F.lit(name)).otherwise(exchange)
    return F.when(F.col("_session").isNull(), F.concat(F.lit("not a session of "), exchange))


def _said(column: str, what: str) -> Column:
    return F.concat(F.lit(f"{column} "), F.col(column).cast("string"), F.lit(f" {what}"))


def _bad_numbers(newest_basis: Mapping[str, date]) -> Column:
    """Why a number cannot be: missing, not finite, not positive, absurd. A day without trade needs its close."""
    checks = [F.when(F.col("close").isNull(), F.lit("close is missing"))]
    checks.append(F.when(F.col("volume").isNull(), F.lit("volume is missing")))
    traded = F.col("volume") > 0
    adjusted = F.coalesce(F.col("basis") > F.col("date"), F.lit(False))
    for column in ("close", "volume", "open", "high", "low"):
        value, counts = F.col(column), F.lit(True) if column in {"close", "volume"} else traded
        checks.append(F.when(counts & ~_finite(value), _said(column, "is not a number")))
        tops = [(adjusted, _TOP_ADJUSTED), (~adjusted, _TOP_PRICE)]
        for here, top in [(F.lit(True), _TOP_VOLUME)] if column == "volume" else tops:
            said = _said(column, f"is above {top:.0e}: no share has that")
            checks.append(F.when(counts & here & (value > top), said))
    checks.append(F.when(F.col("volume") < 0, _said("volume", "is negative")))
    checks.append(F.when(F.col("close") <= 0, _said("close", "is not positive")))
    for column in ("open", "high", "low"):
        checks.append(F.when(traded & F.col(column).isNull(), F.lit(f"{column} is missing on a traded bar")))
        checks.append(F.when(traded & (F.col(column) <= 0), _said(column, "is not positive on a traded bar")))
    checks.append(F.when(F.col("basis") < F.col("date"), F.lit("basis is before the bar's own date")))
    limit = by_country(newest_basis, "date")
    checks.append(F.when(F.col("basis") > limit, _said("basis", "is in the future")))
    return F.coalesce(*checks)


def _finite(value: Column) -> Column:
    return ~(F.isnan(value) | value.isin(float("inf"), float("-inf")))


def _outside() -> Column:
    """By how much open or close lie outside [low, high]; 0 on a day without trade."""
    over = F.greatest(
        F.col("open") - F.col("high"),
        F.col("low") - F.col("open"),
        F.col("close") - F.col("high"),
        F.col("low") - F.col("close"),
        F.lit(0.0),
    )
    return F.when(F.col("volume") > 0, over).otherwise(F.lit(0.0))


def rounding_of(country: Column, price: Column) -> Column:
    """By how much a vendor's rounding may move an adjusted price."""
    return F.greatest(tick_column(country, price), ROUNDING * price)


def _bad_order() -> Column:
    tolerance = F.when(
        F.col("basis") > F.col("date"),
        rounding_of(F.col("country"), F.col("close")),
    ).otherwise(F.lit(0.0))
    return F.coalesce(
        F.when((F.col("volume") > 0) & (F.col("high") < F.col("low")), F.lit("high is below low")),
        # a hair for the float the vendor's rounding left
        F.when(_outside() > tolerance * (1 + 1e-9), F.lit("open or close lies outside [low, high]")),
    )


def rejected_rows(checked: DataFrame, source: str) -> DataFrame:
    """The refused rows as prices_rejected has them; ``reject_id`` is the row's content, so a rerun adds nothing."""
    content = F.to_json(
        F.struct(*[c for c in checked.columns if c not in {"reason", "rounded"}]), {"ignoreNullFields": "false"}
    )
    copy = F.row_number().over(Window.partitionBy("row", "reason").orderBy(F.lit(1)))
    return (
        checked.where(F.col("reason").isNotNull())
        .withColumn("row", content)
        .withColumn("_copy", copy)
        .select(
            F.sha2(F.concat_ws("|", F.lit(source), "row", "reason", "_copy"), 256).alias("reject_id"),
            "country",
            "symbol",
            F.col("date").cast("string").alias("date"),
            "reason",
            "row",
            F.lit(source).alias("source"),
            F.current_timestamp().alias("collected_at"),
        )
    )


def with_flags(bars: DataFrame, actions: DataFrame, limits: Mapping[str, float]) -> DataFrame:
    """Sets ``flags`` on rows of prices, from traded bar to traded bar. ``limits``: the largest move of a session
    per country, as a fraction. ``rounded`` must be a column; it becomes a flag. Where ``bars`` begins within a
    share's history its first traded bar cannot be judged: it keeps ``_flags``, what is stored (null: nothing is)."""
    traded = F.col("volume") > 0
    limit = by_country(limits, "double")
    # Prices are brought to one basis first, so that an explained split is no jump. Traded bars are a partition of
    # their own, so that lag and lead step over the days without trade.
    order = Window.partitionBy("symbol", "country", "_traded").orderBy("date")
    rows = (
        with_adjustment(bars, actions)
        .withColumn("_traded", traded)
        .withColumn("_close", F.when(traded, F.col("close") * F.col("adjustment")))
        .withColumn("_before", F.lag("_close").over(order))
        .withColumn("_day_before", F.lag("date").over(order))
        .withColumn("_after", F.lead("_close").over(order))
    )
    move, back = F.col("_close") / F.col("_before") - 1, F.col("_after") / F.col("_close") - 1
    jump = F.coalesce(F.abs(move) > limit, F.lit(False))
    reverts = jump & F.coalesce(
        (F.abs(back) > limit) & (move * back < 0) & (F.abs(F.col("_after") / F.col("_before") - 1) <= limit),
        F.lit(False),
    )
    open_actions = (
        actions.where(f"NOT confirmed AND NOT {WITHDRAWN}")
        .groupBy("country", "symbol")
        .agg(F.collect_set("ex_date").alias("_unconfirmed"))
    )
    rows = rows.join(F.broadcast(open_actions), on=["country", "symbol"], how="left")
    unconfirmed = F.coalesce(
        F.exists(
            "_unconfirmed",
            lambda day: (day <= F.col("date")) & (day > F.coalesce(F.col("_day_before"), F.date_sub(F.col("date"), 1))),
        ),
        F.lit(False),
    )
    flags = F.array_compact(
        F.array(
            F.when(~traded, F.lit("no_trade")),
            F.when(F.col("rounded"), F.lit("rounded")),
            F.when(jump, F.lit("jump")),
            F.when(reverts, F.lit("glitch")),
            F.when(unconfirmed & traded, F.lit("unconfirmed_action")),
        )
    )
    flags = F.when(traded & F.col("_before").isNull(), F.coalesce("_flags", flags)).otherwise(flags)
    return rows.withColumn("flags", flags).drop(
        "adjustment", "rounded", "_traded", "_close", "_before", "_day_before", "_after", "_unconfirmed"
    )


def active_counts(symbols: DataFrame, sessions: DataFrame) -> DataFrame:
    """(market, date, known): how many active shares the symbols table knows on each session.

    Each change of a share adds to its new market and takes from its old one; a running sum over those few rows
    answers for every session without joining days with shares.
    """
    share = Window.partitionBy("country", "symbol").orderBy("valid_from")
    rows = symbols.select(
        "market",
        "active",
        F.col("valid_from").alias("date"),
        F.lag("market").over(share).alias("_market"),
        F.lag("active").over(share).alias("_active"),
    )
    came = rows.where("active").select("market", "date", F.lit(1).alias("step"))
    left = rows.where("_active").select(F.col("_market").alias("market"), "date", F.lit(-1).alias("step"))
    markets = symbols.select("market", "country").distinct()
    days = sessions.join(markets, on="country", how="inner").select("market", "date", F.lit(0).alias("step"))
    steps = came.unionByName(left).unionByName(days).groupBy("market", "date").agg(F.sum("step").alias("step"))
    known = steps.withColumn("known", F.sum("step").over(Window.partitionBy("market").orderBy("date")))
    return known.join(days.select("market", "date"), on=["market", "date"], how="left_semi").drop("step")


def active_bars(bars: DataFrame, symbols: DataFrame) -> DataFrame:
    """(market, date) of each bar of a share that the symbols table knows as active on its session."""
    share = Window.partitionBy("country", "symbol").orderBy("valid_from")
    known = symbols.withColumn("_until", F.lead("valid_from").over(share)).where("active")
    known = known.select("country", "symbol", "market", "valid_from", "_until")
    rows = bars.select("country", "symbol", "date").join(F.broadcast(known), on=["country", "symbol"])
    held = (F.col("date") >= F.col("valid_from")) & (F.col("_until").isNull() | (F.col("date") < F.col("_until")))
    return rows.where(held).select("market", "date")
