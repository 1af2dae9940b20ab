"""Detection as a plain batch: what it finds at a tick is what TA-Lib finds with the tick's price as a bar."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import UTC, date, datetime
from types import SimpleNamespace

import numpy as np
import pytest
import talib
from pyspark.sql import functions as F

from sise.indicators.compute import compute_indicators
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.reader import LakeReader
from sise.serving.feeds import eligible_rows
from sise.serving.relay import RulesFile
from sise.serving.streams import Detection
from sise.signals.curves import load_curves
from sise.signals.detect import detect_rules, lacking_columns, live_side, rules_and_prices, with_thresholds
from sise.signals.judge import Clock, price_side, tick_prices
from sise.signals.levels import levels_of, strict_at
from sise.signals.rules import LiveRules
from tests.builders import walk
from tests.conftest import CONF, compile_plans
from tests.spark.test_compute import load, prices

CLOCK = Clock(jump={"KR": 0.305, "US": 0.5})
SHARES = [f"A{n:02}" for n in range(12)]


@pytest.fixture(scope="module")
def days(calendars):
    return calendars["KR"].between(date(2023, 1, 2), date(2024, 12, 30))[:301]


@pytest.fixture(scope="module")
def history(days):
    """Closes by share, volume 1000 + its number each day."""
    found = {symbol: prices(seed, 300, (seed % 3 - 1) * 0.004) for seed, symbol in enumerate(SHARES[:-2])}
    for seed, symbol in enumerate(SHARES[-2:]):  # hardly moving: one tick can make its averages cross
        found[symbol] = 1000 + np.round(np.random.default_rng(90 + seed).normal(0, 2, 300), 2)
    return found


@pytest.fixture(scope="module")
def rules(registry):
    return LiveRules.load(CONF / "watchlists.json", registry)


@pytest.fixture(scope="module")
def live_lake(spark, registry, calendars, days, history, tmp_path_factory):
    lake = Lake(spark, str(tmp_path_factory.mktemp("live")), registry.extra_columns)
    rows = [r for n, s in enumerate(SHARES) for r in walk(s, days[:300], history[s], volume=1000.0 + n)]
    load(lake, rows)
    compute_indicators(spark, lake, registry, calendars)
    return lake


@pytest.fixture(scope="module")
def live(spark, live_lake, registry, rules):
    return side_of(spark, live_lake, registry, rules)


def side_of(spark, lake, registry, rules, universe=None, actions=()):
    due = spark.createDataFrame(list(actions), lake.schema("actions"))
    side = live_side(lake.read("live_state"), lake.version("live_state"), due, universe, registry, rules)
    return with_thresholds(side, rules_row(spark, lake, rules), rules)


def rules_row(spark, lake, rules):
    row = {
        "version": rules.version,
        "since": datetime.now(UTC),
        "current": True,
        "thresholds": {r.name: r.thresholds for r in rules.rules},
        "rules": "[]",
    }
    return spark.createDataFrame([row], lake.schema("live_rules"))


def at(days, calendars, minutes: float) -> int:
    return int(calendars["KR"].hours(days[300])[0].timestamp() * 1000 + minutes * 60_000)


def tick(symbol, price, when, session, **other):
    found = {"country": "KR", "symbol": symbol, "market": "KOSPI", "price": float(price), "volume": 1, "day_volume": 1}
    found |= {"timestamp": when, "session": str(session), "source": "t", "clock": when}
    return found | other


def messages(spark, values, received=None):
    rows = [
        (
            b"k",
            v if isinstance(v, bytes) else json.dumps(v).encode(),
            "realtime-stock",
            n % 3,
            n,
            received or datetime(2024, 1, 1, tzinfo=UTC),
        )
        for n, v in enumerate(values)
    ]
    return spark.createDataFrame(
        rows, "key binary, value binary, topic string, partition int, offset bigint, timestamp timestamp"
    )


def run(spark, live, registry, rules, values, received=None):
    curves = load_curves(CONF / "volume_curves.json")
    found = detect_rules(messages(spark, values, received), live, registry, rules, curves, CLOCK, "e1")
    rows = [(row["kind"], json.loads(row["value"])) for row in found.collect()]
    return [v for k, v in rows if k == "rules"], [v for k, v in rows if k == "dead"]


def expected(closes, price) -> set[str]:
    """The strict rules, by TA-Lib over the closes with the price as one more bar."""
    series = np.append(closes, price)
    found = set()
    rsi = talib.RSI(series, 14)[-1]
    upper, _, lower = (band[-1] for band in talib.BBANDS(series, 20, 2, 2))
    found |= {"rsi_oversold"} if rsi < 30 else set()
    found |= {"rsi_overbought"} if rsi > 70 else set()
    found |= {"bollinger_lower_touch"} if price <= lower * 1.01 else set()
    found |= {"bollinger_upper_touch"} if price >= upper * 0.99 else set()
    line, signal, _ = talib.MACD(series)
    if line[-2] - signal[-2] <= 0 < line[-1] - signal[-1]:
        found.add("macd_cross")
    away = talib.SMA(series, 50) - talib.SMA(series, 200)
    if away[-2] <= 0 < away[-1]:
        found.add("golden_cross")
    if away[-2] >= 0 > away[-1]:
        found.add("dead_cross")
    if price > (closes * 1.01)[-252:].max():
        found.add("high_52_week")
    return found


def test_a_tick_finds_what_a_bar_would(spark, live, registry, rules, days, calendars, history):
    when, values = at(days, calendars, 60), []
    for symbol in SHARES:
        last = history[symbol][-1]
        values += [tick(symbol, round(last * f, 2), when, days[300]) for f in np.linspace(0.72, 1.28, 57)]
    found, dead = run(spark, live, registry, rules, values)
    assert not dead
    got = {(r["symbol"], r["price"]): r for r in found}
    fired = set()
    for value in values:
        wanted = expected(history[value["symbol"]], value["price"])
        record = got.get((value["symbol"], value["price"]))
        assert set(record["strict"] if record else []) == wanted, value
        if record:
            assert set(record["strict"]) <= set(record["relaxed"]) and record["epoch"] == "e1"
        fired |= wanted
    assert fired >= {"rsi_oversold", "rsi_overbought", "bollinger_lower_touch", "bollinger_upper_touch", "high_52_week"}
    assert fired >= {"macd_cross"} and fired & {"golden_cross", "dead_cross"}, "the shares must try every rule"


def test_no_part_of_detection_is_too_large_for_hotspots_compilers(spark, live, registry, rules, days):
    """From some 16,000 bytes on, one of them gives a method up on some starts, and ticks are interpreted."""
    compile_plans(spark, True)
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        curves, ticks = load_curves(CONF / "volume_curves.json"), messages(spark, [tick("A01", 1, 1, days[300])])
        found = detect_rules(ticks.repartition(2), live, registry, rules, curves, CLOCK, "e1")
        plan = found._jdf.queryExecution().executedPlan()
        debug = getattr(getattr(spark._jvm.org.apache.spark.sql.execution.debug, "package$"), "MODULE$")
        parts = debug.codegenStringSeq(plan)
        sizes = [parts.apply(n)._3().maxMethodCodeSize() for n in range(parts.size())]
    finally:
        compile_plans(spark, False)
    assert max(sizes) < 15_000, sizes
    assert sum(size > 4_000 for size in sizes) >= 3, sizes


def test_volume_is_compared_with_the_time_of_day_and_not_in_the_first_half_hour(
    spark, live, registry, rules, days, calendars, history
):
    quiet = next(s for s in SHARES if not expected(history[s], round(float(history[s][-1]), 2)))
    close, average = round(float(history[quiet][-1]), 2), 1000.0 + SHARES.index(quiet)
    usual = 0.49  # conf/volume_curves.json, KR, after two fifths of the session
    length = 390

    def strict(minutes, volume):
        value = tick(quiet, close, at(days, calendars, minutes), days[300], day_volume=int(volume))
        found, dead = run(spark, live, registry, rules, [value])
        assert not dead
        return "volume_surge" in (found[0]["strict"] if found else [])

    assert strict(0.4 * length, 2.02 * average * usual)
    assert not strict(0.4 * length, 1.98 * average * usual)
    assert not strict(29, 50 * average), "too early to tell"


def test_what_is_refused_and_why(spark, live, registry, rules, days, calendars, history):
    when = at(days, calendars, 60)
    close = float(history["A01"][-1])
    good = tick("A01", close, when, days[300])
    bad = {
        b"{not json": "not a tick",
        b"[1, 2]": "not a tick",
        json.dumps(good).encode() * 2: "not one object",
        json.dumps(good).encode() + b"\n" + json.dumps(good).encode(): "not one object",
        **{
            json.dumps(good).encode() + more: "not one object"
            for more in (b" junk", b"]", b"}", b", 1", b', "x": 1', b"\0")
        },
        json.dumps(good).encode() + b"," + json.dumps(good).encode(): "not one object",
        b"[" + json.dumps(good).encode() + b"]": "not a tick",
        b"\xff\xfe": "not a tick",
        json.dumps(good | {"price": "70100"}).encode(): "wrong type: price",
        json.dumps({k: v for k, v in good.items() if k != "session"}).encode(): "missing or of the wrong type: session",
        json.dumps(good | {"day_volume": 1.5}).encode(): "day_volume",
        json.dumps(good | {"price": -1.0}).encode(): "price is not positive",
        json.dumps(good | {"price": 0}).encode(): "price is not positive",
        json.dumps(good | {"price": float("nan")}).encode(): "price is not positive: NaN",
        json.dumps(good | {"volume": -5}).encode(): "negative",
        json.dumps(good | {"symbol": "NOPE"}).encode(): "unknown share KR:NOPE",
        json.dumps(good | {"timestamp": when + 60_000}).encode(): "future",
        json.dumps(good | {"clock": when + 3_600_000}).encode(): "too old",
        json.dumps(good | {"session": str(days[299])}).encode(): "live_state is for the session",
        json.dumps(good | {"price": close * 1.5}).encode(): "no corporate action explains",
        json.dumps(good | {"reference": close * 0.5}).encode(): "a corporate action that is not known yet",
        json.dumps(good | {"reference": close * 1.02}).encode(): "is not the last close",
        json.dumps(good | {"reference": "x"}).encode(): "wrong type",
        json.dumps(good | {"clock": 2**63 - 1}).encode(): "too old",  # would overflow as whole numbers
        json.dumps(good | {"timestamp": 2**63 - 1}).encode(): "in the future",
        json.dumps(good | {"timestamp": -(2**63)}).encode(): "too old",
        json.dumps(good | {"label": "x" * 900_000}).encode(): "longer than 200",
        json.dumps(good | {"market": "x" * 900_000}).encode(): "longer than 200",
        json.dumps(good | {"session": "x" * 900_000}).encode(): "live_state is for the session",
        b'"' * 700_000: "not a tick",  # each of them is two characters in JSON
    }
    found, dead = run(spark, live, registry, rules, list(bad))
    assert not found
    assert [d["offset"] for d in sorted(dead, key=lambda d: d["offset"])] == list(range(len(bad)))
    for letter in dead:
        assert list(bad.values())[letter["offset"]] in letter["reason"], letter
        assert len(json.dumps(letter)) < 100_000, "Kafka takes a megabyte"
    assert next(d for d in dead if d["offset"] == 0)["message"] == "{not json"
    assert max(d.get("message_length", 0) for d in dead) > 900_000


def test_a_reference_that_is_the_last_close_is_none_to_refuse(spark, live, registry, rules, days, calendars, history):
    close, when = float(history["A01"][-1]), at(days, calendars, 60)
    same = [close, close * 1.004, round(close), 0.0, -1.0, None]
    values = [tick("A01", close, when, days[300]) | {"reference": reference} for reference in same]
    assert not run(spark, live, registry, rules, values)[1]


def test_without_a_declared_clock_now_is_the_record_time(spark, live, registry, rules, days, calendars, history):
    when = at(days, calendars, 60)
    value = tick("A01", float(history["A01"][-1]), when, days[300])
    del value["clock"]
    near = datetime.fromtimestamp(when / 1000, UTC)
    assert not run(spark, live, registry, rules, [value], near)[1]
    assert "too old" in run(spark, live, registry, rules, [value], datetime(2026, 1, 1, tzinfo=UTC))[1][0]["reason"]


def test_outside_regular_hours_or_not_eligible_nothing_is_said(
    spark, live_lake, registry, rules, days, calendars, history
):
    price = round(float(history["A02"][-1]) * 0.75, 2)
    universe = spark.createDataFrame(
        [("KR", "A02", True), ("KR", "A03", False)], "country string, symbol string, eligible boolean"
    )
    side = side_of(spark, live_lake, registry, rules, universe)
    inside = tick("A02", price, at(days, calendars, 60), days[300])
    early = tick("A02", price, at(days, calendars, -5), days[300])
    late = tick("A02", price, at(days, calendars, 395), days[300])
    barred = tick("A03", round(float(history["A03"][-1]) * 0.75, 2), at(days, calendars, 60), days[300])
    found, dead = run(spark, side, registry, rules, [inside, early, late, barred])
    assert [r["symbol"] for r in found] == ["A02"] and not dead


def test_thresholds_come_from_the_table(spark, live_lake, registry, rules, days, calendars, history):
    other = LiveRules(
        tuple(
            dataclasses.replace(r, at=99.0, relaxed=99.5, watch=100.0) if r.name == "rsi_oversold" else r
            for r in rules.rules
        )
    )
    side = side_of(spark, live_lake, registry, other)
    value = tick("A04", float(history["A04"][-1]), at(days, calendars, 60), days[300])
    found, _ = run(spark, side, registry, rules, [value])
    assert "rsi_oversold" in found[0]["strict"] and found[0]["version"] == other.version


def test_two_detections_on_one_lake_have_rules_of_their_own(spark, live_lake, registry, settings, tmp_path):
    tried = tmp_path / "conf-try"
    tried.mkdir()
    content = (CONF / "watchlists.json").read_text().replace('"at": 30, "relaxed": 32', '"at": 20, "relaxed": 32')
    (tried / "watchlists.json").write_text(content)

    def detection(**changed) -> Detection:
        found = Detection(spark, live_lake, registry, dataclasses.replace(settings, **changed), "micro-batch", tmp_path)
        found.file = RulesFile(found.settings.conf_file("watchlists.json"), registry)
        found._note_rules()
        return found

    def in_force(of: Detection) -> list[tuple[str, float]]:
        return [tuple(row) for row in of.live().selectExpr("rules_version", "limits[0]").distinct().collect()]

    real, trial = detection(), detection(conf=tried, topic_prefix="try-")
    assert in_force(real) == [(real.file.rules.version, 30.0)]
    assert in_force(trial) == [(trial.file.rules.version, 20.0)]
    same = detection(topic_prefix="try-")
    assert in_force(same) == [(real.file.rules.version, 30.0)] == in_force(real), "of one version, each its own"
    assert live_lake.read("live_rules").where("current").count() == 2


def test_rules_that_live_state_has_no_columns_for_leave_those_before(
    spark, live_lake, registry, settings, tmp_path, capsys
):
    """conf/indicators.json has a new indicator, compute_indicators.py has not run yet, and a rule is to look at it."""
    named = json.loads((CONF / "indicators.json").read_text())
    (tmp_path / "indicators.json").write_text(json.dumps(named | {"core": [*named["core"], "sma_10"]}))
    file, rules = tmp_path / "watchlists.json", json.loads((CONF / "watchlists.json").read_text())
    file.write_text(json.dumps(rules))
    own = dataclasses.replace(settings, conf=tmp_path, topic_prefix="own-")
    found = Detection(spark, live_lake, Registry.load(tmp_path / "indicators.json"), own, "micro-batch", tmp_path)
    found.file, found.queries, found.started_with = RulesFile(file, found.registry), [], found._versions()
    found.missed = SimpleNamespace(follow=lambda: None)
    before = found.file.rules
    rule = {"measure": "price / sma_10", "fires": ">", "at": 1, "relaxed": 0.99, "watch": 0.98}
    file.write_text(json.dumps({"rules": [*rules["rules"], {"name": "above_10", "live": rule}]}))
    for _ in range(2):
        found.watch()
        assert found.file.rules == before and not live_lake.read("live_rules").where("topics = 'own-'").count()
    told = capsys.readouterr().err
    assert told.count("the rules stay as they were: live_state lacks ") == 1 and "compute_indicators.py" in told


def test_a_compiled_plan_judges_as_an_evaluated_one(spark, live, registry, rules, days, calendars, history):
    """The jobs compile their plans, these tests evaluate them: the same records and dead letters, to the last digit."""
    moves = (0.72, 0.86, 0.93, 0.97, 0.99, 1.0, 1.004, 1.02, 1.06, 1.1, 1.3, float("nan"), -1.0)
    when, session = at(days, calendars, 90), days[300]
    values = [tick(s, history[s][-1] * move, when, session, day_volume=int(3000 * move) if move > 0 else 0)
              for s in SHARES for move in moves]  # fmt: skip
    values += [b"{", b"[1]", b"null", tick("NONE", 1, when, session), tick("A00", 1000, when, days[299])]
    compile_plans(spark, False)
    evaluated = run(spark, live, registry, rules, values)
    compile_plans(spark, True)
    assert run(spark, live, registry, rules, values) == evaluated
    assert len(evaluated[0]) > 40 and len(evaluated[1]) > 20


def test_an_indicator_that_live_state_lacks_is_named(live_lake, registry, rules):
    there = live_lake.read("live_state").columns
    assert lacking_columns(there, registry, rules) == []
    assert lacking_columns([c for c in there if c != "macd_slow"], registry, rules) == ["macd_slow"]


def test_levels_are_where_the_rule_changes(live_lake, registry, rules):
    """Property: one tick beyond the level the rule holds, one tick before it does not."""
    states = [row.asDict() for row in live_lake.read("live_state").collect()]
    seen = set()
    for state in states:
        for level in levels_of(registry, rules, state):
            rule = rules.by_name[level.rule]
            if level.price is None:
                continue
            seen.add(level.rule)
            sign = -1 if level.side == "below" else 1
            assert strict_at(registry, rule, state, level.price), (state["symbol"], level)
            outside = level.price * (1 - sign * 0.02)
            assert not strict_at(registry, rule, state, outside), (state["symbol"], level)
            assert level.away == pytest.approx(level.price / state["close"] - 1)
    assert len(seen) >= 5


def action(symbol, day, **other):
    """What KIS announces of a rights issue: everything but its factor."""
    found = {"country": "KR", "symbol": symbol, "ex_date": day, "kind": "rights", "factor": None, "confirmed": True}
    return found | {"evidence": "KIS: rights issue", "source": "kis"} | other


def some_actions(days):
    """Each share's action, and whether no one knows its factor in the session that live_state is for."""
    last, due, after = days[299], days[300], date(2025, 1, 2)
    return [
        (action("A00", due), True),
        (action("A01", due, factor=0.9), False),  # known: live_state is re-based by it
        (action("A02", due, kind="dividend"), False),
        (action("A03", due, kind="split", factor=0.5, confirmed=False, evidence="served twice"), True),
        (action("A04", due, confirmed=False, evidence="KIS: rights issue; no longer announced"), False),
        (action("A05", last), False),  # its ex-date was the last bar's
        (action("A06", after), False),
        (action("A07", due, evidence=None), True),
    ]


def test_no_rule_fires_on_an_ex_date_whose_factor_no_one_knows(
    spark, live_lake, registry, rules, days, calendars, history
):
    """The mechanical drop is below the jump limit: it would look oversold."""
    given = some_actions(days)
    side = side_of(spark, live_lake, registry, rules, actions=[a for a, _ in given])
    when = at(days, calendars, 60)
    low = {a["symbol"]: round(float(history[a["symbol"]][-1]) * 0.72, 2) for a, _ in given}
    found, dead = run(spark, side, registry, rules, [tick(s, price, when, days[300]) for s, price in low.items()])
    fires = {r["symbol"] for r in found if r["strict"]}
    assert not dead and fires == {a["symbol"] for a, unsettled in given if not unsettled}


def test_the_labelled_feed_leaves_out_the_same_shares(spark, live_lake, registry, days, tmp_path):
    given = some_actions(days)
    shutil.copytree(live_lake.root, tmp_path / "lake")
    load(Lake(spark, str(tmp_path / "lake"), registry.extra_columns), [], [a for a, _ in given])
    barred = {a["symbol"] for a, unsettled in given if unsettled}
    assert {row["symbol"] for row in eligible_rows(LakeReader(str(tmp_path / "lake")))} == set(SHARES) - barred


def test_prices_of_the_ticks_that_can_be_believed(spark, live_lake, days, calendars, history):
    when = at(days, calendars, 60)
    close = round(float(history["A01"][-1]), 2)
    values = [tick("A01", close + p, when + t, days[300]) for p, t in ((0, 5), (1, 9), (-1, 7))]
    values += [
        tick("A02", -1.0, when, days[300]),
        b"{",
        tick("A03", float(history["A03"][-1]), when, days[300], clock=when - 60_000),
        tick("A01", float("nan"), when, days[300]),
        tick("A01", float("inf"), when, days[300]),
        tick("A01", close * 10.1, when, days[300]),  # a glitch: a dead letter of the detection as well
        tick("NOPE", 10.0, when, days[300]),
        tick("A01", close, when, days[299]),
        tick("A00", float(history["A00"][-1]), when, days[300]),
    ]
    due = spark.createDataFrame([action("A00", days[300])], live_lake.schema("actions"))
    side = price_side(live_lake.read("live_state"), due)
    *found, last = tick_prices(messages(spark, values), side, CLOCK).collect()
    assert [(r["symbol"], r["price"], r["timestamp"], r["offset"]) for r in found] == [
        ("A01", close, when + 5, 0),
        ("A01", close + 1, when + 9, 1),
        ("A01", close - 1, when + 7, 2),
    ]
    assert {(r["session"], r["moves"]) for r in found} == {(str(days[300]), None)}
    assert (last["symbol"], last["moves"]) == ("A00", [(str(days[300]), None)]), "no one knows its factor"


def test_micro_batches_see_in_one_look_what_real_time_sees_in_two(
    spark, live_lake, registry, rules, days, calendars, history
):
    when, early = at(days, calendars, 60), at(days, calendars, -10)
    some = [(s, round(float(history[s][-1]) * by, 2)) for s in SHARES for by in (0.72, 0.9, 1.0, 1.1, 1.28)]
    values = [tick(s, price, when, days[300]) for s, price in some]
    values += [b"{", tick("A01", -1.0, when, days[300]), tick("NOPE", 10.0, when, days[300])]
    values += [tick("A02", some[10][1], early, days[300]), tick("A03", some[15][1], when, days[299])]
    ticks = messages(spark, values)
    given = [a for a, _ in some_actions(days)]
    side = side_of(spark, live_lake, registry, rules, actions=given)
    curves = load_curves(CONF / "volume_curves.json")
    records = detect_rules(ticks, side, registry, rules, curves, CLOCK, "e1")
    due = spark.createDataFrame(given, live_lake.schema("actions"))
    prices_ = tick_prices(ticks, price_side(live_lake.read("live_state"), due), CLOCK)
    both = rules_and_prices(ticks, side, registry, rules, curves, CLOCK, "e1").collect()

    names = ["kind", "key", "value"]
    seen = sorted(tuple(row[n] for n in names) for row in both if row["kind"] is not None)
    assert seen == sorted(tuple(row) for row in records.collect())
    assert {kind for kind, *_ in seen} == {"rules", "dead"} and len(both) == len(values) > len(seen) > 20
    names = prices_.columns
    believed = sorted(str([row[n] for n in names]) for row in both if row["price"] is not None)
    assert believed == sorted(str(list(row)) for row in prices_.collect()) and len(believed) == len(values) - 4
    assert all(row["kind"] == "dead" for row in both if row["price"] is None)


def test_the_batch_rules_agree_at_the_close(live_lake, rules):
    """A rule that has both: its batch condition over the bar is the strict one at the tick."""
    content = json.loads((CONF / "watchlists.json").read_text())
    both = [entry for entry in content["rules"] if "live" in entry and "when" in entry]
    assert {entry["name"] for entry in both} >= {"rsi_oversold", "rsi_overbought", "bollinger_lower_touch"}
    rows = live_lake.read("indicators").select("*", F.lag("high_252").over(_order()).alias("prev_high_252"))
    frame = rows.withColumn("high", F.col("close")).drop("filter_state").toPandas()
    for entry in both:
        rule = rules.by_name[entry["name"]]
        batch = live_lake.spark.createDataFrame(frame).where(entry["when"].replace("high >", "close >")).count()
        values = {name: frame[name].to_numpy(float) for name in rule.names if name in frame} | {
            "price": frame["close"].to_numpy(float)
        }
        from sise.indicators.algebra import Arrays

        strict = rule.holds(values, Arrays())[0]
        assert int(np.sum(strict)) == batch, entry["name"]


def _order():
    from pyspark.sql import Window

    return Window.partitionBy("symbol").orderBy("date")
