"""Ticks as they come from Kafka: what they say, what their share's price is compared with, and why one is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.columns import by_country
from sise.prices.quality import rounding_of
from sise.prices.unsettled import UNSETTLED, WITHDRAWN
from sise.topics import LONGEST, TICK_FIELDS

__all__ = ["PRICE", "Clock", "judged", "price_side", "reason_of", "tick_prices", "with_moves", "with_settled"]

PRICE = ("country", "symbol", "price", "timestamp", "day_volume", "partition", "offset", "session", "moves")
_MOVES_DAYS = 400  # no signal is followed for longer
_NOT_A_TICK = "not a tick: malformed JSON, or not one object"


@dataclass(frozen=True)
class Clock:
    """How far from the feed's clock (else Kafka's record time) a tick's own time may be, and moves that are believed.

    ``jump``: by country, the largest move against the last close that needs no corporate action to explain it.
    """

    ahead_ms: int = 5_000
    behind_ms: int = 300_000
    jump: Mapping[str, float] | None = None


def price_side(live_state: DataFrame, actions: DataFrame) -> DataFrame:
    """What tick_prices compares with: of each share the close, the session and ``moves`` (with_moves)."""
    shares = live_state.select("country", "symbol", F.col("close").alias("s_close"), "valid_session")
    return with_moves(shares, actions)


def with_moves(rows: DataFrame, actions: DataFrame) -> DataFrame:
    """Adds ``moves``: what has changed the share's prices up to the row's ``valid_session``, in the last 400 days: an
    array of (ex_date as text, factor; null where nobody knows it), in order; null where there is nothing."""
    changing = actions.where(f"kind <> 'dividend' AND NOT {WITHDRAWN}")
    move = F.struct(F.col("ex_date").cast("string").alias("ex_date"), F.when(F.col("confirmed"), F.col("factor")))
    due = changing.join(F.broadcast(rows.select("country", "symbol", "valid_session")), ["country", "symbol"])
    reach = F.col("ex_date").between(F.date_sub("valid_session", _MOVES_DAYS), F.col("valid_session"))
    kind = "array<struct<ex_date: string, factor: double>>"
    moves = (
        due.where(reach).groupBy("country", "symbol").agg(F.sort_array(F.collect_list(move)).cast(kind).alias("moves"))
    )
    return rows.join(F.broadcast(moves), ["country", "symbol"], "left")


def with_settled(live_state: DataFrame, actions: DataFrame) -> DataFrame:
    """Adds ``settled``: whether the factors of all actions that fall due before the row's session are known.

    Joins by broadcast only: real-time mode takes no shuffle."""
    same = F.expr(f"s.country = a.country AND s.symbol = a.symbol AND {UNSETTLED}")
    open_ = live_state.alias("s").join(F.broadcast(actions.alias("a")), same, "left_semi")
    open_ = open_.select("country", "symbol", F.lit(True).alias("unsettled"))
    rows = live_state.join(F.broadcast(open_), ["country", "symbol"], "left")
    return rows.withColumn("settled", ~F.coalesce("unsettled", F.lit(False))).drop("unsettled")


def tick_prices(ticks: DataFrame, prices: DataFrame, clock: Clock) -> DataFrame:
    """country, symbol, price, timestamp, day_volume, partition, offset and session of each tick that detect_rules does
    not refuse, with the ``moves`` of its share. ``prices``: price_side()."""
    return judged(ticks, prices, clock).where(F.col("refused").isNull()).select(*PRICE)


def judged(ticks: DataFrame, live: DataFrame, clock: Clock) -> DataFrame:
    """The parsed ticks beside their share's row of ``live``. ``refused``: the number of the first check that one fails
    (reason_of says it in words), null where it is believed."""
    number = _first([(condition, F.lit(n)) for n, (condition, _) in enumerate(_checks(clock))])
    return _parsed(ticks).join(F.broadcast(live), ["country", "symbol"], "left").withColumn("refused", number)


def reason_of(clock: Clock) -> Column:
    """Why a tick of judged() is refused. Apart from the number: the words are half of the code of a judgement."""
    return _first([(F.col("refused") == n, reason) for n, (_, reason) in enumerate(_checks(clock))])


def _first(cases: Sequence[tuple[Column, Column]]) -> Column:
    """The value of the first case whose condition holds; null where none does."""
    found: Column = F.lit(None)
    for condition, value in reversed(cases):
        found = F.when(condition, value).otherwise(found)
    return found


def _parsed(ticks: DataFrame) -> DataFrame:
    fields = ", ".join(f"`{name}` {kind}" for name, (kind, _) in TICK_FIELDS.items())
    text = F.col("value").cast("string")
    # As the only element of a list, with something behind it: from_json looks at the first value only, and what stands
    # beside a tick, or behind it, would be lost without a word.
    framed = F.concat(F.lit('{"ticks":['), text, F.lit('],"end":1}'))
    message = f"ticks array<struct<{fields}>>, `end` int, _bad string"
    rows = ticks.select(
        "key",
        text.alias("text"),
        F.col("topic").alias("tick_topic"),
        "partition",
        "offset",
        F.unix_millis("timestamp").alias("received"),
        F.from_json(framed, message, {"columnNameOfCorruptRecord": "_bad"}).alias("message"),
    )
    tick = F.get("message.ticks", F.lit(0))
    told = {name: tick.getField(name) for name in TICK_FIELDS}
    told["country"], told["symbol"] = (F.upper(F.trim(told[c])) for c in ("country", "symbol"))
    return rows.select(
        "key",
        "text",
        "tick_topic",
        "partition",
        "offset",
        "received",
        ((F.col("message.end") == 1) & (F.size("message.ticks") == 1)).alias("whole"),
        F.col("message._bad").isNotNull().alias("bad"),
        *[value.alias(name) for name, value in told.items()],
    )


def _checks(clock: Clock) -> list[tuple[Column, Column]]:
    """What a tick is refused for, and the reason in words."""
    required = [name for name, (_, must) in TICK_FIELDS.items() if must]
    nothing = F.coalesce(*[F.col(name).cast("string") for name in TICK_FIELDS]).isNull()
    missing = F.concat_ws(", ", *[F.when(F.col(c).isNull(), F.lit(c)) for c in required])
    # As doubles, which are exact for times: any number may come, and one that overflows would end the query.
    now, at = F.coalesce("clock", "received").cast("double"), F.col("timestamp").cast("double")
    session = F.col("valid_session").cast("string")
    jump = by_country(clock.jump or {}, "double")
    away = F.abs(F.try_divide(F.col("price"), F.col("s_close")) - 1.0)
    # Of an action that nobody told the exchange's reference price knows, before any trade at the new basis.
    slack = rounding_of(F.col("country"), F.col("s_close"))
    rebased = (F.col("reference") > 0) & (F.abs(F.col("reference") - F.col("s_close")) > slack)
    return [
        (nothing | ~F.coalesce("whole", F.lit(False)), F.lit(_NOT_A_TICK)),
        (
            reduce(Column.__or__, [F.col(c).isNull() for c in required]),
            F.concat(F.lit("missing or of the wrong type: "), missing),
        ),
        (F.col("bad"), F.lit("a field is of the wrong type")),
        (
            ~((F.col("price") > 0) & (F.col("price") < float("inf"))),
            F.concat(F.lit("price is not positive: "), F.col("price").cast("string")),
        ),
        (
            (F.col("day_volume") < 0) | (F.coalesce("volume", F.lit(0)) < 0),
            F.lit("volume or day_volume is negative"),
        ),
        (
            reduce(Column.__or__, [F.length(name) > LONGEST for name in ("key", "market", "label")]),
            F.lit(f"its key, market or label is longer than {LONGEST}"),
        ),
        (F.col("s_close").isNull(), F.concat(F.lit("unknown share "), F.concat_ws(":", "country", "symbol"))),
        (at > now + clock.ahead_ms, F.lit("its time is in the future of the feed's clock")),
        (at < now - clock.behind_ms, F.lit("its time is too old by the feed's clock")),
        (
            F.col("session") != session,
            F.concat(
                F.lit("live_state is for the session "),
                session,
                F.lit(", not "),
                F.col("session"),
                F.lit(": run jobs/compute_indicators.py after the close"),
            ),
        ),
        (
            rebased,
            F.concat(
                F.lit("its reference price "),
                F.col("reference").cast("string"),
                F.lit(" is not the last close "),
                F.col("s_close").cast("string"),
                F.lit(": a corporate action that is not known yet, or a bar that is missing"),
            ),
        ),
        (
            away > jump,
            F.concat(
                F.lit("a move against the last close of "),
                F.col("s_close").cast("string"),
                F.lit(" that no corporate action explains"),
            ),
        ),
    ]
