"""Ticks and what was true at the last close → records of the ticks near a rule, and dead letters.

Pure column arithmetic over one broadcast join, no state and no UDF, so that it runs as it stands in a batch, in
micro-batches and in Spark's real-time mode. What fires is decided by the relay (serving/relay.py), which sees a
share's records in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import count

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.indicators.algebra import Columns
from sise.indicators.live import at_price
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.signals.curves import Curve, session_share
from sise.signals.judge import PRICE, Clock, judged, reason_of, with_moves, with_settled
from sise.signals.rules import LiveRules
from sise.topics import LONGEST

__all__ = [
    "complaints_of_universe",
    "detect_rules",
    "lacking_columns",
    "live_side",
    "rules_and_prices",
    "with_thresholds",
]

_SHOWN = 10_000  # characters of a refused message


def live_side(
    live_state: DataFrame,
    version: int,
    actions: DataFrame,
    universe: DataFrame | None,
    registry: Registry,
    rules: LiveRules,
) -> DataFrame:
    """A row for each share with what its ticks are compared with; with_thresholds makes it the side that is joined.

    ``live_state`` as the lake has it at ``version``, ``actions`` as it has them; ``universe``: country, symbol,
    eligible, or None where every share may have signals. A share is not eligible in a session before which an action
    falls due whose factor is not known: its state could not be re-based, and the mechanical drop would look like a
    fall.
    """
    needed = _needed_columns(registry, rules)
    found = with_settled(live_state, actions).select(
        "country",
        "symbol",
        F.col("market").alias("s_market"),
        "valid_session",
        F.col("as_of").cast("string").alias("as_of"),
        F.unix_millis("session_open").alias("opens"),
        F.unix_millis("session_close").alias("closes"),
        "settled",
        F.lit(version).cast("long").alias("state_version"),
        *[F.col(c).alias(f"s_{c}") for c in needed],
    )
    found = with_moves(found, actions)
    if universe is None:
        return found.withColumnRenamed("settled", "eligible")
    may = F.broadcast(universe.select("country", "symbol", F.col("eligible").alias("may")))
    return found.join(may, ["country", "symbol"], "left").withColumn("eligible", F.col("may") & F.col("settled"))


def with_thresholds(side: DataFrame, live_rules: DataFrame, rules: LiveRules) -> DataFrame:
    """Adds to each row of live_side() ``limits``, the thresholds of ``rules`` in their order. ``live_rules``: the row
    that is current counts."""
    current = live_rules.where("current").select(
        F.col("version").alias("rules_version"),
        F.array(
            *[
                F.get(F.col("thresholds")[rule.name], F.lit(n))
                for rule in rules.rules
                for n in range(len(rule.thresholds))
            ]
        ).alias("limits"),
    )
    return side.crossJoin(F.broadcast(current))


def complaints_of_universe(lake: Lake) -> list[str]:
    """What is wrong with who may have signals: no table, or one of an earlier session than the state."""
    if not lake.exists("universe"):
        return ["there is no universe, so every share may have signals"]
    of = lake.read("universe").groupBy("country").agg(F.max("date").alias("judged"))
    rows = lake.read("live_state").groupBy("country").agg(F.max("as_of").alias("as_of")).join(of, "country", "left")
    return [
        f"who may have signals in {row['country']} was judged on {row['judged']}, and the state is of {row['as_of']}"
        for row in rows.where("judged IS NULL OR judged < as_of").orderBy("country").collect()
    ]


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


def lacking_columns(live_state: Sequence[str], registry: Registry, rules: LiveRules) -> list[str]:
    """What the rules need and a live_state of these columns does not have: it was computed before conf/indicators.json
    had it."""
    return [c for c in _needed_columns(registry, rules) if c not in live_state]


def detect_rules(
    ticks: DataFrame,
    live: DataFrame,
    registry: Registry,
    rules: LiveRules,
    curves: Mapping[str, Curve],
    clock: Clock,
    epoch: str,
) -> DataFrame:
    """(kind, key, value): a record for each tick inside a rule's watch band, a dead letter for each refused tick.

    ``ticks``: Kafka's key, value, topic, partition, offset, timestamp. ``live``: with_thresholds(). A tick of a share
    that is not eligible, or outside regular hours, gives nothing. ``value`` is JSON; ``kind`` is "rules" or "dead".
    A record: the tick, ``relaxed`` and ``strict`` (names of the rules whose threshold holds), the rules' indicators
    at its price, ``partition`` and ``offset`` of the tick, the ``epoch`` of the topic that has those (a name of its
    life), ``as_of`` of the state, the ``state_version`` of live_state and the rules' ``version``.
    """
    rows = rules_and_prices(ticks, live, registry, rules, curves, clock, epoch)
    return rows.where(F.col("kind").isNotNull()).select("kind", "key", "value")


def rules_and_prices(
    ticks: DataFrame,
    live: DataFrame,
    registry: Registry,
    rules: LiveRules,
    curves: Mapping[str, Curve],
    clock: Clock,
    epoch: str,
) -> DataFrame:
    """What detect_rules and tick_prices give, in one look at the ticks: (kind, key, value) and tick_prices' columns.

    ``kind``, ``key`` and ``value`` are null of a tick that is in no watch band, the others of a refused one."""
    refused = F.col("refused").isNotNull()
    rows, names = _with_rules(_apart(judged(ticks, live, clock)), registry, rules, curves)
    kind = F.when(refused, "dead").when(_may_have_signals() & _watched(rules), "rules")
    rows = _apart(rows.withColumn("kind", kind))
    record = _record(rules, names, epoch)
    value = F.when(F.col("kind") == "dead", _dead_letter(clock)).when(F.col("kind") == "rules", record)
    of_price = [F.when(~refused, F.col(name)).alias(name) for name in PRICE]
    key = F.when(F.col("kind") == "dead", F.substring("key", 1, LONGEST)).when(F.col("kind") == "rules", F.col("key"))
    return rows.select("kind", key.alias("key"), value.alias("value"), *of_price)


def _apart(rows: DataFrame) -> DataFrame:
    """The same rows; what is done with them from here on is compiled into a method of its own.

    Parsing, the rules and the record in one are 22,000 bytes of code, which HotSpot compiles on some starts only: on
    others one of its compilers gives up for lack of nodes or registers, and a tick costs half as much again for as long
    as detection runs. In three parts a tick costs a sixth more than the one method at its best, on every start. Spark
    compiles no lambda, so a filter with one stands between two methods; nor does it move a filter below a column that
    the partition decides."""
    here = rows.withColumn("apart", F.array(F.spark_partition_id()))
    return here.where(F.forall("apart", lambda n: n >= 0)).drop("apart")


def _may_have_signals() -> Column:
    return F.col("eligible") & F.col("timestamp").between(F.col("opens"), F.col("closes") + 60_000)


def _watched(rules: LiveRules) -> Column:
    return reduce(Column.__or__, [F.col(f"watch_{rule.name}") for rule in rules.rules], F.lit(False))


def _with_rules(
    rows: DataFrame, registry: Registry, rules: LiveRules, curves: Mapping[str, Curve]
) -> tuple[DataFrame, list[str]]:
    """Adds the indicators that the rules name (``v_…``), and of each rule ``strict_…``, ``relaxed_…``, ``watch_…``."""
    ops = Columns()
    state = {c.removeprefix("s_"): F.col(c) for c in rows.columns if c.startswith("s_")}
    named = rules.names
    length = F.col("closes") - F.col("opens")
    values = at_price(registry.only(named), F.col("price"), F.col("day_volume").cast("double"), state, ops)
    values |= {f"prev_{c}": state[c] for c in state if f"prev_{c}" in named}
    # As a double: the arithmetic is done for refused ticks, too, and a time may be any number.
    since_open = F.col("timestamp").cast("double") - F.col("opens")
    # A column, since the curves ask for it at each of their points.
    rows = rows.withColumn("elapsed", since_open / length)
    values["session_share"] = session_share(curves, F.col("country"), F.col("elapsed"))
    values["elapsed_minutes"] = since_open / 60_000.0
    shown = [c for c in values if c in named]
    rows = rows.withColumns({f"v_{name}": value for name, value in values.items()})
    known = {name: F.col(f"v_{name}") for name in values} | {
        "price": F.col("price"),
        "day_volume": F.col("day_volume").cast("double"),
    }
    found: dict[str, Column] = {}
    limits = (F.get("limits", F.lit(n)) for n in count())
    for rule in rules.rules:
        thresholds = [next(limits) for _ in rule.thresholds]
        held = zip(("strict", "relaxed", "watch"), rule.holds(known, ops, thresholds), strict=True)
        found |= {f"{which}_{rule.name}": holds for which, holds in held}
    return rows.withColumns(found), shown


def _record(rules: LiveRules, names: list[str], epoch: str) -> Column:
    def holding(which: str) -> Column:
        # array_compact calls a lambda for each name, uncompiled: an eighth of detection's time at 10,000 ticks/s.
        names = [F.when(F.col(f"{which}_{rule.name}"), F.lit(f"{rule.name} ")) for rule in rules.rules]
        text = F.trim(F.concat_ws("", *names))
        return F.when(text == "", F.array().cast("array<string>")).otherwise(F.split(text, " "))

    return F.to_json(
        F.struct(
            "country",
            "symbol",
            F.coalesce("s_market", "market").alias("market"),
            "price",
            "day_volume",
            "timestamp",
            "session",
            holding("relaxed").alias("relaxed"),
            holding("strict").alias("strict"),
            F.struct(*[F.col(f"v_{name}").alias(name) for name in names]).alias("indicators"),
            "partition",
            "offset",
            F.lit(epoch).alias("epoch"),
            "received",
            "as_of",
            "state_version",
            F.col("rules_version").alias("version"),
            "label",
        )
    )


def _dead_letter(clock: Clock) -> Column:
    """The whole of a message that is too long would be one that Kafka does not take: there it is by its offset."""
    long = F.length("text") > _SHOWN
    return F.to_json(
        F.struct(
            F.substring(reason_of(clock), 1, _SHOWN).alias("reason"),
            F.substring("text", 1, _SHOWN).alias("message"),
            F.when(long, F.length("text")).alias("message_length"),
            F.col("tick_topic").alias("topic"),
            "partition",
            "offset",
        )
    )
