"""What a signal's trade made: each case by hand, the figures over many, and a job that does only what is new."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pytest
from delta.tables import DeltaTable
from pyspark.sql import functions as F

from sise.columns import numbered_sessions
from sise.errors import ConfigError
from sise.signals.performance import ENTRY_WITHIN, LOOKAHEAD, evaluate
from sise.signals.summary import summarize
from sise.signals.track import track_signals
from tests.builders import action, bar, put, share
from tests.conftest import CONF

SIGNAL, COUNT = 5, 45
ENTRY = "entry_id string, country string, market string, symbol string, session date, direction string"


@pytest.fixture(scope="module")
def days(calendars):
    return calendars["KR"].between(date(2024, 3, 4), date(2024, 12, 30))[:COUNT]


def price_of(at: int) -> dict[str, float]:
    """Bar number ``at``: rises by 10 a session, opens 5 below its close."""
    close = 1000.0 + 10 * at
    return {"open": close - 5, "high": close + 20, "low": close - 30, "close": close}


def bars(symbol: str, days, **changed) -> list[dict]:
    """A bar for each day; ``changed``: at_N={…} for session N, ``None`` where there is none."""
    rows = []
    for at, day in enumerate(days):
        change = changed.get(f"at_{at}", {})
        if change is not None:
            rows.append(bar(symbol, day, **price_of(at)) | {"flags": [], "source": "t"} | change)
    return rows


def still(at: int) -> dict:
    """A halted day as KRX quotes it: the close before, the rest 0."""
    return {"open": 0.0, "high": 0.0, "low": 0.0, "close": price_of(at)["close"], "volume": 0.0, "flags": ["no_trade"]}


def one_price(price: float) -> dict:
    return dict.fromkeys(("open", "high", "low", "close"), price)


def halved(days, since: int) -> dict:
    return {f"at_{at}": {k: v / 2 for k, v in price_of(at).items()} for at in range(since, len(days))}


def spark_rows(spark, schema, rows):
    names = schema.names
    rows = [{f: r.get(f) for f in names} for r in rows]
    if "volume" in names and schema["volume"].dataType.typeName() == "long":
        rows = [r | {"volume": int(r["volume"])} for r in rows]
    return spark.createDataFrame(rows, schema)


# Unchanged prices before the limit: 1050 is the close on the signal's day, 1365 the upper limit after it.
UP, DOWN = one_price(1365.0), one_price(735.0)


@pytest.fixture(scope="module")
def results(spark, calendars, days, registry, tmp_path_factory):
    """Every case evaluated at once: entry_id → row."""
    from sise.lake import Lake

    lake = Lake(spark, str(tmp_path_factory.mktemp("none")), registry.extra_columns)
    ladder = {f"at_{6 + n}": one_price(1050 * 1.3 ** (n + 1)) for n in range(ENTRY_WITHIN)}
    gone = {f"at_{at}": None for at in range(11, COUNT)}
    cases = {
        "HAND": {},
        "SPLIT": halved(days, 10),
        "HALT": {"at_6": still(5), "at_7": still(5)},
        "UP": {"at_6": UP},
        "DOWN": {"at_6": DOWN},
        "NEAR": {"at_6": one_price(1350.0)},
        "LADDER": ladder,
        "STILL": {f"at_{at}": still(5) for at in range(6, 20)},
        "GONE": gone,
        "GONE_FIRST": {f"at_{at}": None for at in range(6, COUNT)},
        "REST": {"at_11": None, "at_26": still(25)},
        "JUMP": {"at_20": {"flags": ["jump"]}},
        "JUMP_GONE": {"at_9": {"flags": ["jump"]}, **gone},
        # Liquidation is traded around the 20th session, and the share leaves some sessions after it.
        "JUMP_GONE_LATE": {"at_25": {"flags": ["jump"]}, **{f"at_{at}": None for at in range(29, COUNT)}},
        "LATER": {"at_27": {"flags": ["glitch", "jump"]}},
        "ONE_US": {f"at_{at}": {"country": "US"} for at in range(COUNT)} | {"at_6": UP | {"country": "US"}},
    }
    rows = [row for symbol, changed in cases.items() for row in bars(symbol, days, **changed)]
    entries = [(s, "US" if "US" in s else "KR", "KOSPI", s, days[SIGNAL], "long") for s in cases]
    entries += [(f"{s} SHORT", "KR", "KOSPI", s, days[SIGNAL], "short") for s in ("HAND", "UP", "DOWN")]
    entries += [
        ("RUNNING", "KR", "KOSPI", "HAND", days[COUNT - 5], "long"),
        ("WAITING", "KR", "KOSPI", "HAND", days[COUNT - 1], "long"),
        ("SUNDAY", "KR", "KOSPI", "HAND", date(2024, 3, 10), "long"),
        ("NYSE", "KR", "NYSE", "HAND", days[SIGNAL], "long"),
    ]
    symbols = [share(s) for s in ("HAND", "REST")]
    for symbol, at in (("GONE", 11), ("GONE_FIRST", 6), ("JUMP_GONE", 11), ("JUMP_GONE_LATE", 29)):
        symbols += [share(symbol), share(symbol, days[at], active=False)]
    index = [{"index": "KOSPI", "date": day, "close": 2000.0 + 8 * at} for at, day in enumerate(days)]
    found = evaluate(
        spark.createDataFrame(entries, ENTRY),
        spark_rows(spark, lake.schema("prices"), rows),
        spark_rows(spark, lake.schema("actions"), [action("SPLIT", str(days[10]), 0.5)]),
        spark_rows(spark, lake.schema("indices"), index),
        spark_rows(spark, lake.schema("symbols"), symbols),
        numbered_sessions(
            spark,
            {"KR": calendars["KR"], "US": replace(calendars["KR"], country="US")},
            days[0],
            calendars["KR"].after(days[-1], LOOKAHEAD),
        ),
        {"KR": days[-1], "US": days[-1]},
    )
    rows = {row["entry_id"]: row.asDict() for row in found.collect()}
    assert set(rows) == {entry[0] for entry in entries}
    return rows


def gain(exit_price: float, entry_price: float = 1055.0) -> float:
    return pytest.approx(exit_price / entry_price - 1, abs=1e-9)


def test_by_hand(results, days):
    row = results["HAND"]
    assert (row["entry_date"], row["entry_price"], row["no_entry"]) == (days[6], 1055.0, None)
    assert row["return_1"] == gain(1070) and row["return_5"] == gain(1110) and row["return_20"] == gain(1260)
    assert row["mfe"] == gain(1280) and row["mae"] == gain(1030)
    assert row["market_return_1"] == gain(2056, 2040) and row["market_return_20"] == gain(2208, 2040)
    assert row["excess_5"] == pytest.approx((1110 / 1055 - 1) - (2088 / 2040 - 1), abs=1e-9)
    assert {row[f"exit_{n}"] for n in (1, 5, 20)} == {"close"}
    assert row["complete"] and not row["suspect"] and row["until"] == days[26]


def test_a_short_has_the_other_sign_and_beats_a_falling_market(results):
    row, long = results["HAND SHORT"], results["HAND"]
    assert row["return_5"] == -long["return_5"] < 0
    assert row["mae"] == -long["mfe"] and row["mfe"] == -long["mae"] > 0
    assert row["market_return_5"] == long["market_return_5"] and row["excess_5"] == -long["excess_5"]


def test_a_split_inside_changes_nothing(results):
    assert {k: v for k, v in results["SPLIT"].items() if k not in {"entry_id", "symbol"}} == {
        k: v for k, v in results["HAND"].items() if k not in {"entry_id", "symbol"}
    }


def test_a_halt_at_the_entry_waits(results, days):
    row = results["HALT"]
    assert row["entry_date"] == days[8] and row["entry_price"] == 1075.0
    assert row["return_1"] == gain(1090, 1075) and row["until"] == days[28]
    assert row["market_return_1"] == gain(2072, 2056), "the market's days are those of the entry"


def test_nobody_buys_at_the_upper_limit_nor_sells_at_the_lower(results, days):
    assert results["UP"]["entry_date"] == days[7] and results["UP SHORT"]["entry_date"] == days[6]
    assert results["DOWN"]["entry_date"] == days[6] and results["DOWN SHORT"]["entry_date"] == days[7]
    assert results["DOWN"]["entry_price"] == 735.0
    assert results["NEAR"]["entry_date"] == days[6], "one price all day, but below the limit"
    assert results["ONE_US"]["entry_date"] == days[6], "no limit there"


def test_the_limit_is_that_of_its_day_and_market(spark, calendars, registry, tmp_path):
    from sise.lake import Lake

    lake = Lake(spark, str(tmp_path), registry.extra_columns)
    days = calendars["KR"].between(date(2004, 3, 2), date(2004, 12, 30))[:COUNT]
    rows = bars("A12", days, at_6=one_price(1050 * 1.12)) + bars("A15", days, at_6=one_price(1050 * 1.15))
    cases = [("KOSPI", "A12"), ("KOSDAQ", "A12"), ("KOSPI", "A15")]
    entries = [(f"{m} {s}", "KR", m, s, days[SIGNAL], "long") for m, s in cases]
    known = {"KR": calendars["KR"]}
    found = evaluate(
        spark.createDataFrame(entries, ENTRY),
        spark_rows(spark, lake.schema("prices"), rows),
        *(spark_rows(spark, lake.schema(name), []) for name in ("actions", "indices", "symbols")),
        numbered_sessions(spark, known, days[0], calendars["KR"].after(days[-1], LOOKAHEAD)),
        {"KR": days[-1]},
    )
    dates = {row["entry_id"]: row["entry_date"] for row in found.collect()}
    assert dates == {"KOSPI A12": days[6], "KOSDAQ A12": days[7], "KOSPI A15": days[7]}


def test_no_entry_says_why(results):
    why = {"LADDER": "locked", "STILL": "no_trade", "GONE_FIRST": "delisted", "SUNDAY": "no_session"}
    for name, reason in why.items():
        row = results[name]
        assert row["no_entry"] == reason and row["complete"], name
        assert row["entry_date"] is None and row["return_1"] is None and row["mfe"] is None


def test_a_delisted_share_stays_with_its_last_trade(results):
    row = results["GONE"]
    assert row["exit_1"] == "close" and row["return_1"] == gain(1070)
    assert row["exit_5"] == row["exit_20"] == "delisted" and row["return_5"] == row["return_20"] == gain(1100)
    assert row["complete"] and row["mfe"] == gain(1120)


def test_a_halt_at_the_exit_takes_the_close_before(results):
    row = results["REST"]
    assert row["exit_5"] == "no_trade" and row["return_5"] == gain(1100)
    assert row["exit_20"] == "no_trade" and row["return_20"] == gain(1250)


def test_what_is_not_over_is_null(results, days):
    row = results["RUNNING"]
    assert row["entry_date"] == days[COUNT - 4] and row["return_1"] is not None
    assert row["return_5"] is row["exit_5"] is row["market_return_5"] is row["excess_20"] is None
    assert row["mfe"] is not None and not row["complete"] and row["until"] > days[-1]
    row = results["WAITING"]
    assert row["entry_date"] is row["no_entry"] is row["return_1"] is row["mfe"] is None and not row["complete"]


def test_prices_that_cannot_be_trusted_are_marked(results):
    marked = {name for name, row in results.items() if row["suspect"]}
    assert results["JUMP_GONE_LATE"]["until"] > results["JUMP_GONE_LATE"]["entry_date"] + timedelta(days=40)
    assert marked == {"JUMP"}, "not where the limit was lifted before a delisting, nor after the last session"


def test_a_market_without_an_index_has_no_return_of_its_own(results):
    row = results["NYSE"]
    assert row["return_5"] is not None and row["market_return_5"] is None and row["excess_5"] is None


def test_the_figures_are_those_of_pandas(spark, results):
    rows = pd.DataFrame(results.values()).astype({"session": str, "until": str, "entry_date": str})
    fields = [c for c in rows.columns if c.startswith(("return", "market_return", "excess"))] + ["mfe", "mae"]
    schema = ", ".join(
        f"{c} {'double' if c in fields else 'boolean' if c == 'suspect' else 'string'}"
        for c in rows.columns
        if c not in {"complete", "entry_price"}
    )
    kept = [{k: r[k] for k in rows.columns if k not in {"complete", "entry_price"}} for r in results.values()]
    kept = [r | {k: str(r[k]) for k in ("session", "until", "entry_date")} for r in kept]
    frame = spark.createDataFrame(kept, schema).withColumn("session", F.col("session").cast("date"))
    found = summarize(frame, "direction").toPandas().set_index(["direction", "market", "month", "horizon"])
    for key, got in found.iterrows():
        direction, market, month, horizon = key
        group = rows[rows["direction"] == direction]
        group = group[(market == "ALL") | (group["market"] == market)]
        group = group[(month == "ALL") | (group["session"].str.startswith(month))]
        refused = group["no_entry"].notna()
        suspect = group["suspect"] & ~refused
        cases = group[~refused & ~suspect & group[f"return_{horizon}"].notna()]
        values = cases[f"return_{horizon}"]
        assert got["signals"] == len(group) and got["cases"] == len(cases), key
        assert got["no_entry"] == refused.sum() and got["suspect"] == suspect.sum()
        assert got["signals"] == got["cases"] + got["open"] + got["no_entry"] + got["suspect"]
        assert got["market_cases"] == cases[f"excess_{horizon}"].notna().sum()
        expected = {
            "hit_rate": (values > 0).mean(),
            "mean": values.mean(),
            "median": values.median(),
            "spread": values.std(),
            "best": values.max(),
            "worst": values.min(),
            "mean_market": cases[f"market_return_{horizon}"].mean(),
            "mean_excess": cases[f"excess_{horizon}"].mean(),
            "mean_mfe": cases["mfe"].mean() if horizon == 20 else float("nan"),
        }
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (key, name)
    assert set(found.index.get_level_values("market")) == {"ALL", "KOSPI", "NYSE"}
    assert set(found.index.get_level_values("month")) == {"ALL", "2024-03", "2024-04", "2024-05"}


# The job ---------------------------------------------------------------------------------------------------------


def signal(name: str, symbol: str, day: date, rule: str = "rsi_oversold") -> dict:
    return {
        "signal_id": name,
        "country": "KR",
        "market": "KOSPI",
        "symbol": symbol,
        "signal_type": rule,
        "session": day,
        "trigger_price": 1.0,
        "rule_version": "v",
    }


def merge(lake, name, rows):
    lake.merge(name, spark_rows(lake.spark, lake.schema(name), rows))


@pytest.fixture
def track(spark, lake, settings, calendars):
    return lambda **changed: track_signals(spark, lake, replace(settings, **changed), calendars)


def table(lake) -> dict[str, dict]:
    return {row["signal_id"]: row.asDict() for row in lake.read("signal_performance").collect()}


def test_only_what_is_new_or_changed_is_evaluated(lake, track, days, tmp_path):
    index = [{"index": "KOSPI", "date": day, "close": 2000.0 + 8 * at} for at, day in enumerate(days)]
    put(lake, "signals", [signal("a", "AAA", days[5]), signal("b", "BBB", days[5]), signal("c", "AAA", days[30])])
    put(lake, "symbols", [{"source": "t", **share("AAA")}, {"source": "t", **share("BBB")}])
    merge(lake, "prices", bars("AAA", days[:32]) + bars("BBB", days[:32]))
    merge(lake, "indices", index[:32])
    first = track()
    assert first.rows_in == 3 and first.rows_out == 3
    assert first.details["rules"]["rsi_oversold"][20]["cases"] == 2
    assert any("5 sessions: 2 cases, 100% hits" in line for line in first.lines)
    before = table(lake)
    assert before["a"]["complete"] and before["c"]["return_1"] is None and before["c"]["entry_date"] == days[31]

    versions = {name: lake.version(name) for name in ("signal_performance", "signal_summary")}
    again = track()
    assert again.rows_in == again.rows_out == 0 and again.details == first.details
    assert versions == {name: lake.version(name) for name in versions}, "a second run changes nothing"

    merge(lake, "prices", bars("AAA", days)[32:34] + bars("BBB", days)[32:34])
    merge(lake, "indices", index[32:34])
    assert (new := track()).rows_in == 1 and new.rows_out == 1, "the one that waits"
    assert table(lake)["c"]["return_1"] == gain(1320, 1305) and table(lake)["a"] == before["a"]

    late = [r | {"close": 1500.0, "high": 1500.0} for r in bars("BBB", days)[26:27]]
    merge(lake, "prices", late)
    assert track().rows_in == 2, "b, whose last close was corrected, and c, which still waits"
    assert table(lake)["b"]["return_20"] == gain(1500) and table(lake)["a"] == before["a"]

    merge(lake, "actions", [{"source": "t", **action("AAA", str(days[8]), 0.5)}])
    assert track().rows_in == 2
    assert table(lake)["a"]["return_1"] == before["a"]["return_1"], "before the ex-date"
    assert table(lake)["a"]["return_20"] == gain(1260, 1055 / 2)

    merge(lake, "indices", [index[11] | {"close": 4080.0}])
    assert track().rows_in == 3
    assert table(lake)["a"]["market_return_5"] == table(lake)["b"]["market_return_5"] == gain(4080, 2040)

    merge(lake, "symbols", [{"source": "t", **share("BBB", days[33], active=False)}])
    assert track().rows_in == 1, "a delisting after the last session that counts"

    rules = json.loads((CONF / "watchlists.json").read_text())
    for rule in rules["rules"]:
        rule["direction"] = "short"
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "watchlists.json").write_text(json.dumps(rules))
    assert track(conf=conf).rows_in == 3
    assert table(lake)["b"]["return_20"] == pytest.approx(-(1500 / 1055 - 1), abs=1e-9)

    assert_same_as_at_once(lake, track, conf)


def test_a_session_that_turns_out_to_be_none_evaluates_again(spark, lake, settings, calendars, days):
    put(lake, "signals", [signal("a", "AAA", days[5]), signal("b", "AAA", days[10])])
    merge(lake, "prices", bars("AAA", days, at_10=None))
    index = [{"index": "KOSPI", "date": day, "close": 2000.0 + 8 * at} for at, day in enumerate(days)]
    merge(lake, "indices", [row for row in index if row["date"] != days[10]])
    track_signals(spark, lake, settings, calendars)
    before = table(lake)
    assert before["a"]["return_20"] == gain(1260) and before["b"]["no_entry"] is None
    assert track_signals(spark, lake, settings, calendars).rows_in == 0
    without = replace(calendars["KR"], days=[day for day in calendars["KR"].days if day != days[10]])
    again = track_signals(spark, lake, settings, {**calendars, "KR": without})
    assert again.rows_in == 2
    assert table(lake)["a"]["return_20"] == gain(1270) and table(lake)["b"]["no_entry"] == "no_session"
    assert track_signals(spark, lake, settings, {**calendars, "KR": without}).rows_in == 0


def test_the_limit_is_counted_from_the_last_close_where_the_signals_session_has_no_bar(lake, track, days):
    ladder = {"at_4": None, "at_5": None, "at_6": one_price(1040.0 * 1.3 // 1)}
    put(lake, "signals", [signal("a", "AAA", days[5])])
    put(lake, "symbols", [{"source": "t", **share("AAA")}])
    merge(lake, "prices", bars("AAA", days, at_3=one_price(1040.0), **ladder))
    track()
    assert table(lake)["a"]["entry_date"] == days[7]


def test_the_next_run_does_what_a_killed_one_and_prices_that_lagged_left(lake, track, days, tmp_path, monkeypatch):
    put(lake, "signals", [signal("a", "AAA", days[5]), signal("z", "AAA", days[38])])
    merge(lake, "prices", bars("AAA", days[:8]))
    track()
    assert table(lake)["z"]["no_entry"] == "no_session" and not table(lake)["z"]["complete"]
    merge(lake, "prices", bars("AAA", days)[8:])
    assert track().details["rules"]["rsi_oversold"][1]["mean"] > 0
    assert table(lake)["z"]["entry_date"] == days[39] and table(lake)["a"]["complete"]
    merge(lake, "actions", [{"source": "t", **action("AAA", str(days[38]), 0.5)}])
    assert track().rows_in == 2, "a factor may count for one bar and not for another, whatever its day"

    rules = json.loads((CONF / "watchlists.json").read_text())
    for rule in rules["rules"]:
        rule["direction"] = "short"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "watchlists.json").write_text(json.dumps(rules))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sise.lake.Lake.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            track(conf=tmp_path / "conf")
    assert table(lake)["a"]["direction"] == "short"
    assert track(conf=tmp_path / "conf").details["rules"]["rsi_oversold"][1]["mean"] < 0
    assert track(conf=tmp_path / "conf").rows_in == 0


def assert_same_as_at_once(lake, track, conf):
    """What the runs have added up to equals one evaluation of everything."""
    stepwise = table(lake)
    figures = sorted(map(str, lake.read("signal_summary").collect()))
    lake.replace("signal_performance", lake.read("signal_performance").limit(0))
    lake.replace("signal_summary", lake.read("signal_summary").limit(0), note="forgotten")
    assert track(conf=conf).rows_in == 3
    assert table(lake) == stepwise and sorted(map(str, lake.read("signal_summary").collect())) == figures


# Versions of the live rules, oldest first.
BEFORE = [
    ("v1", '[{"name": "forgotten", "direction": "long"}]'),
    ("v2", '[{"name": "forgotten", "direction": "short"}, {"name": "dead_cross", "direction": "long"}]'),
]


def test_a_rule_that_is_gone_is_named_and_a_signal_without_a_case_is_counted(lake, track, days):
    known = [signal("a", "AAA", days[5], "forgotten"), signal("b", "AAA", days[5], "dead_cross")]
    put(lake, "signals", [*known, signal("late", "AAA", days[29]), signal("none", "NONE", days[5])])
    merge(lake, "prices", bars("AAA", days[:30]))
    outcome = track()
    assert "not in conf/watchlists.json, taken for long: forgotten" in outcome.lines
    assert table(lake)["a"]["direction"] == "long" and table(lake)["b"]["direction"] == "short"
    assert table(lake)["a"]["return_5"] == -table(lake)["b"]["return_5"] > 0
    assert table(lake)["late"]["entry_date"] is None and not table(lake)["late"]["complete"]
    assert table(lake)["none"]["no_entry"] == "no_trade"
    told = [{"version": v, "since": datetime(2024, 1, n, tzinfo=UTC), "rules": r} for n, (v, r) in enumerate(BEFORE, 1)]
    put(lake, "live_rules", told)
    lines = track().lines
    assert table(lake)["a"]["direction"] == "short", "what it was when it was last in force"
    assert not any("not in conf" in line for line in lines)
    assert "rsi_oversold, 1 sessions: no case yet of 2 signals (1 still running, 1 without an entry)" in outcome.lines


def test_what_was_taken_out_of_the_archive_counts_no_more(spark, lake, track, days):
    put(lake, "signals", [signal("kept", "AAA", days[5]), signal("replayed", "AAA", days[6])])
    merge(lake, "prices", bars("AAA", days[:30]))
    assert track().details["rules"]["rsi_oversold"][1]["signals"] == 2
    for name, left in (("replayed", ["kept"]), ("kept", [])):
        DeltaTable.forPath(spark, lake.path("signals")).delete(F.col("signal_id") == name)
        outcome = track()
        assert "1 signals are not in the archive any more: their rows were taken out" in outcome.lines
        assert sorted(table(lake)) == left and outcome.rows_out == 1
        assert {k: v[1]["signals"] for k, v in outcome.details["rules"].items()} == dict.fromkeys(
            ["rsi_oversold"] if left else [], len(left)
        )
    assert track().rows_out == 0


def test_a_rule_of_the_tick_alone_has_its_own_direction(lake, track, days, tmp_path):
    live = {"measure": "day_volume / prev_volume_avg_20", "fires": ">", "at": 2}
    conf = tmp_path / "conf"
    conf.mkdir()
    rules = [{"name": "climax", "live": live, "direction": "short"}, {"name": "surge", "live": live}]
    (conf / "watchlists.json").write_text(json.dumps({"rules": rules}))
    put(lake, "signals", [signal("a", "AAA", days[5], "climax"), signal("b", "AAA", days[5], "surge")])
    merge(lake, "prices", bars("AAA", days[:30]))
    outcome = track(conf=conf)
    assert table(lake)["a"]["direction"] == "short" and table(lake)["b"]["direction"] == "long"
    assert table(lake)["a"]["return_5"] == -table(lake)["b"]["return_5"] < 0
    assert not any("not in conf" in line for line in outcome.lines)
    rules[0]["direction"] = "down"
    (conf / "watchlists.json").write_text(json.dumps({"rules": rules}))
    with pytest.raises(ConfigError, match="rule climax: direction 'down' must be long or short"):
        track(conf=conf)
