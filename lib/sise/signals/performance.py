"""What a trade on a signal would have made: one evaluation, for the signals that fired and for any rule's history.

The trade: entry at the open of the first session after the signal's that can be traded, exit at the close 1, 5 and
20 sessions after the entry's, by the exchange's calendar. Everything on one basis, so that a split in between
changes nothing. Cash dividends, costs and the loan fee of a short are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sise.columns import by_country
from sise.prices.adjust import with_adjustment
from sise.prices.quality import ROUNDING
from sise.ticks import KRX_LIMIT, tick_column

__all__ = ["ENTRY_WITHIN", "HORIZONS", "LOOKAHEAD", "evaluate"]

HORIZONS = (1, 5, 20)
ENTRY_WITHIN = 5  # sessions in which an entry is tried; later it would be another trade
LOOKAHEAD = ENTRY_WITHIN + max(HORIZONS)  # no session further from the signal's is looked at
_LONGEST = max(HORIZONS)
_SHARE = ["country", "symbol"]
_ENTRY = ("entry_id", *_SHARE, "market", "session", "direction")
_LIQUIDATION_DAYS = 21  # a share's liquidation begins at most so long before its delisting
# KRX's limit was narrower before, and the first one so (fixed amounts, earlier, came to less); US shares have none.
_KRX_LIMITS_SINCE = {
    "KOSPI": ((None, 0.06), (date(1996, 11, 25), 0.08), (date(1998, 3, 2), 0.12), (date(1998, 12, 7), 0.15)),
    "KOSDAQ": ((None, 0.08), (date(1998, 5, 25), 0.12), (date(2005, 3, 28), 0.15)),
}
_KRX_LIMIT_SINCE = date(2015, 6, 15)


def evaluate(
    entries: DataFrame,
    prices: DataFrame,
    actions: DataFrame,
    indices: DataFrame,
    symbols: DataFrame,
    sessions: DataFrame,
    as_of: Mapping[str, date],
    behind: int = 0,
) -> DataFrame:
    """A row for each entry with what the trade made, as far as it is known on ``as_of``.

    In: ``entries`` (entry_id unique, country, market, symbol, session: the day the signal is from, direction: long or
    short); ``sessions`` of columns.numbered_sessions; the other frames as the lake has them; ``as_of``: the last
    session known, by country. Nothing dated later is looked at, nor a price after session + LOOKAHEAD. ``behind``: so
    many sessions before the signal's are looked at for the last close, where its own may lack a bar.

    Out: the columns of ``entries`` and
    - ``entry_date``, ``entry_price``: the first of the ENTRY_WITHIN sessions after ``session`` with trade (volume and
      open > 0) that is not locked at the price limit against the direction: at KRX, one price all day (high = low) at
      the upper limit for a purchase, at the lower one for a short sale. The price is the open as stored, at that
      bar's own basis.
    - ``no_entry``: null, or once those sessions are over without an entry: ``locked``, ``delisted``, ``no_trade``;
      ``no_session`` if ``session`` is none of the exchange's.
    - ``return_N`` (N: 1, 5, 20): from the entry's open to the close N sessions after the entry's session, as a
      fraction, times -1 for a short. ``exit_N``: ``close``; or why it is the last close traded before:
      ``no_trade`` (halted), ``delisted`` (the share is kept). Null until that session is over.
    - ``market_return_N``: the market's index over the same days, from the close before the entry (its first print of
      the day is not the share's open) to the close of the same day, never times -1. ``excess_N``: return_N minus
      the market's return in the direction. Null where the market has no index (NYSE) or a day of it is missing.
    - ``mfe``, ``mae``: the most favourable (highest for a long) and the most adverse price from the entry's session to
      20 sessions after it, in the direction, as fractions of the entry's price. While the 20 sessions run: so far.
    - ``suspect``: prices from the entry on to its 20th session that cannot be trusted: flagged glitch or
      unconfirmed_action, or jump in Korea, where no trade can move so far (except in the
      weeks before a delisting, when the limit is lifted for the liquidation: the loss counts).
    - ``until``: the last session that this row can depend on. ``complete``: nothing is left to wait for.
    Fractions are rounded to ten decimals, so that a later split's float noise is no change.
    """
    rows = _with_entry(_with_bars(entries, prices, actions, indices, sessions, as_of, behind))
    return _with_results(_measured(rows), symbols, as_of)


def _with_bars(
    entries: DataFrame,
    prices: DataFrame,
    actions: DataFrame,
    indices: DataFrame,
    sessions: DataFrame,
    as_of: Mapping[str, date],
    behind: int,
) -> DataFrame:
    """A row for each entry and session from ``behind`` before the signal's own (``_s``) on, with the share's bar on a
    common basis."""
    sessions = F.broadcast(sessions)
    starts = sessions.select("country", F.col("date").alias("session"), F.col("n").alias("_s"))
    days = entries.select(*_ENTRY).join(starts, on=["country", "session"], how="left")
    days = days.withColumn("n", F.explode_outer(F.sequence(F.col("_s") - behind, F.col("_s") + LOOKAHEAD)))
    days = days.join(sessions, on=["country", "n"], how="left")
    known = F.col("date") <= by_country(as_of, "date")
    by = F.col("adjustment")
    adjusted = [(F.col(c) * by).alias(c) for c in ("open", "high", "low", "close", "reference")]
    # With every action: those that are still to come move all of a share's bars alike, and a bar of an ex-date's
    # morning, which has the split already, stands beside bars that must get it.
    bars = with_adjustment(prices.where(known), actions).select(
        *_SHARE,
        "date",
        *adjusted,
        F.col("open").alias("_price"),
        "flags",
        (F.coalesce(F.col("volume") > 0, F.lit(False)) & F.coalesce(F.col("open") > 0, F.lit(False))).alias("_traded"),
        (tick_column(F.col("country"), F.col("close")) * by).alias("_tick"),
    )
    index = indices.select(F.col("index").alias("market"), "date", F.col("close").alias("_index"))
    rows = days.join(bars, on=[*_SHARE, "date"], how="left").join(F.broadcast(index), on=["market", "date"], how="left")
    return rows.withColumns({"_traded": F.coalesce("_traded", F.lit(False)), "_index": F.when(known, F.col("_index"))})


def _with_entry(rows: DataFrame) -> DataFrame:
    """Adds ``_locked`` and ``_entry``: the number of the entry's session, null where there is none (yet)."""
    order = Window.partitionBy("entry_id").orderBy("n")
    before = F.last("close", ignorenulls=True).over(order.rowsBetween(Window.unboundedPreceding, -1))
    rows = rows.withColumn("_reference", F.coalesce("reference", before))
    limit = _limit()
    # The limit is rounded down to ticks, and vendors round again.
    slack = F.greatest(F.col("_tick"), ROUNDING * F.col("open"))
    up = F.col("open") >= F.col("_reference") * (1 + limit) - slack
    down = F.col("open") <= F.col("_reference") * (1 - limit) + slack
    against = F.when(F.col("direction") == "short", down).otherwise(up)
    locked = (F.col("country") == "KR") & F.col("_traded") & (F.col("high") == F.col("low")) & against
    tried = F.col("n").between(F.col("_s") + 1, F.col("_s") + ENTRY_WITHIN)
    rows = rows.withColumn("_locked", F.coalesce(tried & locked, F.lit(False)))
    first = F.min(F.when(tried & F.col("_traded") & ~F.col("_locked"), F.col("n")))
    return rows.withColumn("_entry", first.over(Window.partitionBy("entry_id")))


def _limit() -> Column:
    """KRX's daily limit on the row's ``date`` in its ``market``, a fraction; of a market not known KOSPI's."""

    def of(steps: tuple[tuple[date | None, float], ...]) -> Column:
        found = F.lit(steps[0][1])
        for since, limit in (*steps[1:], (_KRX_LIMIT_SINCE, KRX_LIMIT)):
            found = F.when(F.col("date") >= F.lit(since), limit).otherwise(found)
        return found

    kosdaq = F.coalesce(F.col("market") == "KOSDAQ", F.lit(False))
    return F.when(kosdaq, of(_KRX_LIMITS_SINCE["KOSDAQ"])).otherwise(of(_KRX_LIMITS_SINCE["KOSPI"]))


def _measured(rows: DataFrame) -> DataFrame:
    """One row an entry: what its sessions say."""
    since = F.col("n") - F.col("_entry")
    held = since.between(0, _LONGEST)

    def on(offset: int, column: str) -> Column:
        return F.max(F.when(since == offset, F.col(column)))

    def last_close(horizon: int) -> Column:
        return F.max_by("close", F.when(F.col("_traded") & since.between(0, horizon), F.col("n")))

    def flagged(*names: str) -> Column:
        odd = F.arrays_overlap("flags", F.array(*[F.lit(name) for name in names]))
        return F.coalesce(F.bool_or(held & odd), F.lit(False))

    found = {
        "entry_date": on(0, "date"),
        "entry_price": on(0, "_price"),
        "_open": on(0, "open"),
        "_index_before": on(-1, "_index"),
        "_high": F.max(F.when(held & F.col("_traded"), F.col("high"))),
        "_low": F.min(F.when(held & F.col("_traded"), F.col("low"))),
        "_any_locked": F.bool_or("_locked"),
        "_glitch": flagged("glitch", "unconfirmed_action"),
        "_jump": flagged("jump"),
        "_given_up": F.max(F.when(F.col("n") == F.col("_s") + ENTRY_WITHIN, F.col("date"))),
    }
    for n in HORIZONS:
        found |= {f"_day_{n}": on(n, "date"), f"_close_{n}": last_close(n)}
        found |= {f"_index_{n}": on(n, "_index"), f"_traded_{n}": on(n, "_traded")}
    return rows.groupBy(*_ENTRY, "_s").agg(*[value.alias(name) for name, value in found.items()])


def _with_results(rows: DataFrame, symbols: DataFrame, as_of: Mapping[str, date]) -> DataFrame:
    rows = rows.join(F.broadcast(_delistings(symbols)), on=_SHARE, how="left")
    now = by_country(as_of, "date")
    sign = F.when(F.col("direction") == "short", -1.0).otherwise(1.0)

    def made(price: Column) -> Column:
        return F.round(sign * (price / F.col("_open") - 1), 10)

    over = {n: F.coalesce(F.col(f"_day_{n}") <= now, F.lit(False)) for n in HORIZONS}
    given_up = F.col("entry_date").isNull() & F.coalesce(F.col("_given_up") <= now, F.lit(False))
    no_entry = (
        F.when(F.col("_s").isNull(), F.lit("no_session"))
        .when(given_up & F.col("_any_locked"), F.lit("locked"))
        .when(given_up & _gone_by(F.col("_given_up")), F.lit("delisted"))
        .when(given_up, F.lit("no_trade"))
    )
    results = {"entry_date": F.col("entry_date"), "entry_price": F.col("entry_price"), "no_entry": no_entry}
    for n in HORIZONS:
        market = F.round(F.col(f"_index_{n}") / F.col("_index_before") - 1, 10)
        gain = made(F.col(f"_close_{n}"))
        results[f"return_{n}"] = F.when(over[n], gain)
        results[f"market_return_{n}"] = F.when(over[n], market)
        results[f"excess_{n}"] = F.when(over[n], F.round(gain - sign * market, 10))
    for n in HORIZONS:
        why = F.when(_gone_by(F.col(f"_day_{n}")), F.lit("delisted")).otherwise(F.lit("no_trade"))
        results[f"exit_{n}"] = F.when(over[n], F.when(F.col(f"_traded_{n}"), F.lit("close")).otherwise(why))
    last = F.coalesce(f"_day_{_LONGEST}", "_given_up")
    soon = F.date_add(last, _LIQUIDATION_DAYS)
    jump = F.col("_jump") & (F.col("country") == "KR")
    results |= {
        "mfe": F.greatest(made(F.col("_high")), made(F.col("_low"))),
        "mae": F.least(made(F.col("_high")), made(F.col("_low"))),
        "suspect": F.col("_glitch") | (jump & ~_gone_by(F.least(soon, now))),
        "until": F.when(jump, soon).otherwise(last),
        # A delisting may be told after the last trades, and prices may have to catch up with the signal.
        "complete": F.when(no_entry.isNotNull(), (no_entry != "no_session") | (F.col("session") <= now)).otherwise(
            over[_LONGEST] & ~F.coalesce(jump & (now < soon), F.lit(False))
        ),
    }
    return rows.select(*_ENTRY, *[value.alias(name) for name, value in results.items()])


def _delistings(symbols: DataFrame) -> DataFrame:
    """(country, symbol, _listed): since when the share was listed and when not, for shares that ever were not."""
    order = Window.partitionBy(*_SHARE).orderBy("valid_from")
    turns = symbols.select(*_SHARE, "valid_from", "active", F.lag("active").over(order).alias("_before"))
    turns = turns.where(~F.col("active").eqNullSafe(F.col("_before")))
    listed = F.sort_array(F.collect_list(F.struct("valid_from", "active"))).alias("_listed")
    return (
        turns.groupBy(*_SHARE).agg(listed, F.bool_and("active").alias("_always")).where("NOT _always").drop("_always")
    )


def _gone_by(day: Column) -> Column:
    """Whether the share was no longer listed on the day."""
    rows = F.filter("_listed", lambda row: row["valid_from"] <= day)
    return F.coalesce(~F.get(rows, F.size(rows) - 1)["active"], F.lit(False))
