"""Ticks and what was true at the last close → records of the ticks near a rule, and dead letters.

Pure column arithmetic over one broadcast join, no state and no UDF, so that it runs as it stands in a batch, in
micro-batches and in Spark's real-time mode. What fires is decided by the relay (serving/relay.py), which sees a
share's records in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.columns import by_country
from sise.indicators.algebra import Columns
from sise.indicators.live import at_price
from sise.indicators.registry import Registry
from sise.prices.unsettled import UNSETTLED
from sise.signals.curves import Curve, session_share
from sise.signals.rules import LiveRules
from sise.topics import TICK_FIELDS

__all__ = ["Clock", "detect_rules", "live_side", "price_side", "tick_prices"]

_NOT_A_TICK = "not a tick: malformed JSON, or not an object"


@dataclass(frozen=True)
class Clock:
    """How far from the feed's clock (else Kafka's record time) a tick's own time may be, and moves that are believed.

    ``jump``: by country, the largest move against the last close that needs no corporate action to explain it.
    """

    ahead_ms: int = 5_000
    behind_ms: int = 300_000
    jump: Mapping[str, float] | None = None


def live_side(
    live_state: DataFrame,
    live_rules: DataFrame,
    actions: DataFrame,
    universe: DataFrame | None,
    registry: Registry,
    rules: LiveRules,
) -> DataFrame:
    """The broadcast side of the join: a row for each share with what its ticks are compared with.

    ``live_state``, ``live_rules`` and ``actions`` as the lake has them (of the rules the row that is current);
    ``universe``: country, symbol, eligible, or None where every share may have signals. A share is not eligible in a
    session before which an action falls due whose factor is not known: its state could not be re-based, and the
    mechanical drop would look like a fall. Re-read by Spark for each batch, so a new state or threshold is taken up
    without a restart.
    """
    needed = _needed_columns(registry, rules)
    found = _with_settled(live_state, actions).select(
        "country",
        "symbol",
        F.col("market").alias("s_market"),
        "valid_session",
        F.col("as_of").cast("string").alias("as_of"),
        F.unix_millis("session_open").alias("opens"),
        F.unix_millis("session_close").alias("closes"),
        "settled",
        *[F.col(c).alias(f"s_{c}") for c in needed],
    )
    current = live_rules.where("current").select(
        F.col("version").alias("rules_version"),
        *[F.col("thresholds")[rule.name].alias(f"t_{rule.name}") for rule in rules.rules],
    )
    found = found.crossJoin(F.broadcast(current))
    if universe is None:
        return found.withColumnRenamed("settled", "eligible")
    may = F.broadcast(universe.select("country", "symbol", F.col("eligible").alias("may")))
    return found.join(may, ["country", "symbol"], "left").withColumn("eligible", F.col("may") & F.col("settled"))


def price_side(live_state: DataFrame, actions: DataFrame) -> DataFrame:
    """What tick_prices compares with: of each share the close and the session, the bar it is as of, and
    ``rebased_by``, which takes a price of that bar's basis to the session's; null where no one knows it yet."""
    return _with_settled(live_state, actions).select(
        "country",
        "symbol",
        F.col("close").alias("s_close"),
        "valid_session",
        F.col("as_of").cast("string").alias("as_of"),
        F.when(F.col("settled"), F.col("rebased_by")).alias("rebased_by"),
    )


def _with_settled(live_state: DataFrame, actions: DataFrame) -> DataFrame:
    """Adds ``settled``: whether the factors of all actions that fall due before the row's session are known.

    Joins by broadcast only: real-time mode takes no shuffle."""
    same = F.expr(f"s.country = a.country AND s.symbol = a.symbol AND {UNSETTLED}")
    open_ = live_state.alias("s").join(F.broadcast(actions.alias("a")), same, "left_semi")
    open_ = open_.select("country", "symbol", F.lit(True).alias("unsettled"))
    rows = live_state.join(F.broadcast(open_), ["country", "symbol"], "left")
    return rows.withColumn("settled", ~F.coalesce("unsettled", F.lit(False))).drop("unsettled")


def _needed_columns(registry: Registry, rules: LiveRules) -> list[str]:
    """Columns of live_state that the rules' indicators are made from."""

    class Seen(dict[str, Column]):
        def __getitem__(self, name: str) -> Column:
            used.add(name)
            return F.col(name)

    used: set[str] = {"close"}
    at_price(registry.only(rules.names), F.lit(0.0), F.lit(0.0), Seen(), Columns())
    used |= {name.removeprefix("prev_") for name in rules.names if name.startswith("prev_")}
    return [c for c in dict.fromkeys(["close", "volume", *registry.live]) if c in used]


def detect_rules(
    ticks: DataFrame,
    live: DataFrame,
    registry: Registry,
    rules: LiveRules,
    curves: Mapping[str, Curve],
    clock: Clock,
) -> DataFrame:
    """(kind, key, value): a record for each tick inside a rule's watch band, a dead letter for each refused tick.

    ``ticks``: Kafka's key, value, topic, partition, offset, timestamp. ``live``: live_side(). A tick of a share that
    is not eligible, or outside regular hours, gives nothing. ``value`` is JSON; ``kind`` is "rules" or "dead".
    A record: the tick, ``relaxed`` and ``strict`` (names of the rules whose threshold holds), the rules' indicators
    at its price, ``partition`` and ``offset`` of the tick, ``as_of`` of the state and the rules' ``version``.
    """
    rows = _judged(ticks, live, clock).where(
        F.col("reason").isNotNull()
        | (F.col("eligible") & F.col("timestamp").between(F.col("opens"), F.col("closes") + 60_000))
    )
    rows, names = _with_rules(rows, registry, rules, curves)
    watched = F.lit(False)
    for rule in rules.rules:
        watched = watched | F.col(f"r_{rule.name}")["watch"]
    rows = rows.where(F.col("reason").isNotNull() | watched)
    value = F.when(F.col("reason").isNotNull(), _dead_letter()).otherwise(_record(rules, names))
    kind = F.when(F.col("reason").isNotNull(), "dead").otherwise("rules")
    return rows.select(kind.alias("kind"), "key", value.alias("value"))


def tick_prices(ticks: DataFrame, prices: DataFrame, clock: Clock) -> DataFrame:
    """country, symbol, price, timestamp, day_volume and offset of each tick that detect_rules does not refuse, with
    the ``as_of`` and ``rebased_by`` of its share. ``prices``: price_side()."""
    rows = _judged(ticks, prices, clock).where(F.col("reason").isNull())
    return rows.select("country", "symbol", "price", "timestamp", "day_volume", "offset", "as_of", "rebased_by")


def _judged(ticks: DataFrame, live: DataFrame, clock: Clock) -> DataFrame:
    """The parsed ticks beside their share's row of ``live``, with the ``reason`` why one is refused."""
    rows = _parsed(ticks).join(F.broadcast(live), ["country", "symbol"], "left")
    return rows.withColumn("reason", _reason(rows, clock))


def _parsed(ticks: DataFrame) -> DataFrame:
    schema = ", ".join(f"`{name}` {kind}" for name, (kind, _) in TICK_FIELDS.items())
    text = F.col("value").cast("string")
    tick = F.from_json(text, f"{schema}, _bad string", {"columnNameOfCorruptRecord": "_bad"})
    rows = ticks.select(
        "key",
        text.alias("text"),
        F.col("topic").alias("tick_topic"),
        "partition",
        "offset",
        F.unix_millis("timestamp").alias("received"),
        tick.alias("tick"),
    )
    fields = {name: F.col(f"tick.{name}") for name in TICK_FIELDS}
    fields["country"], fields["symbol"] = (F.upper(F.trim(fields[c])) for c in ("country", "symbol"))
    return rows.select(
        "key",
        "text",
        "tick_topic",
        "partition",
        "offset",
        "received",
        F.col("tick._bad").isNotNull().alias("bad"),
        *[value.alias(name) for name, value in fields.items()],
    )


def _reason(rows: DataFrame, clock: Clock) -> Column:
    """Why a tick is refused; null where it is not."""
    required = [name for name, (_, must) in TICK_FIELDS.items() if must]
    nothing = F.coalesce(*[F.col(name).cast("string") for name in TICK_FIELDS]).isNull()
    missing = F.array_join(F.array_compact(F.array(*[F.when(F.col(c).isNull(), F.lit(c)) for c in required])), ", ")
    now = F.coalesce("clock", "received")
    session = F.col("valid_session").cast("string")
    jump = by_country(clock.jump or {}, "double")
    away = F.abs(F.try_divide(F.col("price"), F.col("s_close")) - 1.0)
    checks: list[tuple[Column, Column]] = [
        (nothing, F.lit(_NOT_A_TICK)),
        (missing != "", F.concat(F.lit("missing or of the wrong type: "), missing)),
        (F.col("bad"), F.lit("a field is of the wrong type")),
        (
            ~((F.col("price") > 0) & (F.col("price") < float("inf"))),
            F.concat(F.lit("price is not positive: "), F.col("price").cast("string")),
        ),
        (
            (F.col("day_volume") < 0) | (F.coalesce("volume", F.lit(0)) < 0),
            F.lit("volume or day_volume is negative"),
        ),
        (F.col("s_close").isNull(), F.concat(F.lit("unknown share "), F.concat_ws(":", "country", "symbol"))),
        (F.col("timestamp") > now + clock.ahead_ms, F.lit("its time is in the future of the feed's clock")),
        (F.col("timestamp") < now - clock.behind_ms, F.lit("its time is too old by the feed's clock")),
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
            away > jump,
            F.concat(
                F.lit("a move against the last close of "),
                F.col("s_close").cast("string"),
                F.lit(" that no corporate action explains"),
            ),
        ),
    ]
    found: Column = F.lit(None).cast("string")
    for condition, reason in reversed(checks):
        found = F.when(condition, reason).otherwise(found)
    return found


def _with_rules(
    rows: DataFrame, registry: Registry, rules: LiveRules, curves: Mapping[str, Curve]
) -> tuple[DataFrame, list[str]]:
    """Adds the indicators that the rules name (``v_…``) and a struct of strict, relaxed, watch for each rule."""
    ops = Columns()
    state = {c.removeprefix("s_"): F.col(c) for c in rows.columns if c.startswith("s_")}
    named = rules.names
    length = F.col("closes") - F.col("opens")
    values = at_price(registry.only(named), F.col("price"), F.col("day_volume").cast("double"), state, ops)
    values |= {f"prev_{c}": state[c] for c in state if f"prev_{c}" in named}
    elapsed = (F.col("timestamp") - F.col("opens")) / length
    values["session_share"] = session_share(curves, F.col("country"), elapsed)
    values["elapsed_minutes"] = (F.col("timestamp") - F.col("opens")) / 60_000.0
    shown = [c for c in values if c in named]
    rows = rows.withColumns({f"v_{name}": value for name, value in values.items()})
    known = {name: F.col(f"v_{name}") for name in values} | {
        "price": F.col("price"),
        "day_volume": F.col("day_volume").cast("double"),
    }
    found = {}
    for rule in rules.rules:
        thresholds = [F.col(f"t_{rule.name}")[i] for i in range(len(rule.thresholds))]
        strict, relaxed, watch = rule.holds(known, ops, thresholds)
        found[f"r_{rule.name}"] = F.struct(strict.alias("strict"), relaxed.alias("relaxed"), watch.alias("watch"))
    return rows.withColumns(found), shown


def _record(rules: LiveRules, names: list[str]) -> Column:
    def holding(which: str) -> Column:
        return F.array_compact(
            F.array(*[F.when(F.col(f"r_{rule.name}")[which], F.lit(rule.name)) for rule in rules.rules])
        )

    return F.to_json(
        F.struct(
            "country",
            "symbol",
            F.coalesce("market", "s_market").alias("market"),
            "price",
            "day_volume",
            "timestamp",
            "session",
            holding("relaxed").alias("relaxed"),
            holding("strict").alias("strict"),
            F.struct(*[F.col(f"v_{name}").alias(name) for name in names]).alias("indicators"),
            "partition",
            "offset",
            "received",
            "as_of",
            F.col("rules_version").alias("version"),
            "label",
        )
    )


def _dead_letter() -> Column:
    return F.to_json(
        F.struct("reason", F.col("text").alias("message"), F.col("tick_topic").alias("topic"), "partition", "offset")
    )
