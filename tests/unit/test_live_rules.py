"""Live rules are validated when they are loaded, and mean the same whoever evaluates them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sise.errors import ConfigError, InputError
from sise.indicators.algebra import Arrays
from sise.indicators.registry import Registry
from sise.reader import LakeReader
from sise.serving.relay import RulesFile
from sise.signals.curves import load_curves, share_at
from sise.signals.explain import explain
from sise.signals.labelled import rules_at
from sise.signals.levels import levels_of
from sise.signals.rules import Expression, LiveRules
from sise.watchlists.rules import parsed_rules
from tests.conftest import CONF

REGISTRY = Registry.load(CONF / "indicators.json")
CURVES = load_curves(CONF / "volume_curves.json")


def load(tmp_path, *entries, **live):
    path = tmp_path / "watchlists.json"
    rule = {"name": "mine", "live": {"measure": "rsi_14", "fires": "<", "at": 30} | live}
    path.write_text(json.dumps({"rules": list(entries) or [rule]}))
    return LiveRules.load(path, REGISTRY)


def named(tmp_path, measure):
    path = tmp_path / "named.json"
    rule = {"name": "other", "live": {"measure": measure, "fires": "<", "at": 1}}
    path.write_text(json.dumps({"rules": [rule]}))
    return path


@pytest.mark.parametrize(
    ("live", "words"),
    [
        ({"measure": "rsi_15"}, "names rsi_15; there are"),
        ({"measure": "__import__('os')"}, "only numbers, names"),
        ({"measure": "price ** 2"}, "only numbers, names"),
        ({"measure": "price +"}, "not an expression"),
        ({"measure": 3}, "is not a text"),
        ({"fires": "=="}, "is not one of"),
        ({"at": "30"}, "is not a number"),
        ({"at": float("nan")}, "is not a number"),
        ({"at": True}, "is not a number"),
        ({"relaxed": 25}, "as wide as the one before"),
        ({"relaxed": 35, "watch": 33}, "as wide as the one before"),
        ({"hysteresis": 1}, "unknown entry hysteresis"),
        ({"cooldown_minutes": 0}, "is not above 0: the rule would fire at every tick"),
        ({"cooldown_minutes": -1}, "is not above 0"),
        ({"measure": ""}, "measure is empty"),
        ({"measure": "rsi_14 < 30"}, "'rsi_14 < 30' is a comparison, where a number is expected"),
        ({"measure": "-(price > 5)"}, "'price > 5' is a comparison"),
        ({"measure": "price and volume_avg_20"}, "is a comparison, where a number"),
        ({"requires": "prev_rsi_14"}, "'prev_rsi_14' is a number, where a comparison is expected"),
        ({"requires": "price > 5 and rsi_14"}, "'rsi_14' is a number"),
        ({"requires": "price > (5 and 6)"}, "'5 and 6' is a comparison"),
        ({"requires": "(price < 5) + 1"}, "is a number, where a comparison"),
        ({"requires": "(price < 5) + 1 > 1"}, "'price < 5' is a comparison"),
        ({"requires": "(price < 5) > 0"}, "'price < 5' is a comparison"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, live, words):
    with pytest.raises(ConfigError, match=words) as problem:
        load(tmp_path, **live)
    assert "rule mine: live:" in str(problem.value)


def test_a_misspelt_entry_beside_live_is_no_long_rule(tmp_path):
    entry = {"name": "mine", "directon": "short", "live": {"measure": "rsi_14", "fires": ">", "at": 70}}
    with pytest.raises(ConfigError, match="rule mine: unknown entry directon; there are about"):
        load(tmp_path, entry)
    assert "rule mine: unknown entry directon" in parsed_rules({"rules": [entry]})[1][0]


def test_that_what_is_required_of_a_tick_ended_is_seen(tmp_path):
    ops = Arrays()
    live = {"measure": "price / prev_sma_20", "fires": ">", "at": 1.05, "watch": 1.0}
    values = {"price": np.array([106.0, 100.5]), "prev_sma_20": 100.0, "prev_close": 105.0}
    (rule,) = load(tmp_path, **live, requires="price > prev_close").rules
    assert [found.tolist() for found in rule.holds(values, ops)] == [[True, False], [True, False], [True, True]]
    (fixed,) = load(tmp_path, **live, requires="prev_close > 110").rules
    assert not fixed.holds(values, ops)[2].any(), "what cannot change all session long keeps its ticks out"


def test_all_problems_come_at_once(tmp_path):
    bad = [{"name": n, "live": {"measure": "nope", "fires": "<", "at": 1}} for n in ("one", "two")]
    with pytest.raises(ConfigError) as problem:
        load(tmp_path, *bad)
    assert "rule one" in str(problem.value) and "rule two" in str(problem.value)


@pytest.mark.parametrize("requires", ["price > 5", "1 < price <= bb_lower * 2 and (rsi_14 > 5 and -price < 0)"])
def test_what_is_required_are_comparisons(tmp_path, requires):
    assert load(tmp_path, requires=requires).rules[0].requires == requires


def test_two_rules_of_one_name_are_refused_by_who_loads_either(tmp_path):
    tick = {"name": "a", "live": {"measure": "rsi_14", "fires": "<", "at": 30}}
    session = {"name": "a", "when": "rsi_14 < 30"}
    for pair in ([tick, tick], [session, tick], [tick, session], [session, session | tick]):
        with pytest.raises(ConfigError, match="rule a: named twice"):
            load(tmp_path, *pair)
        assert parsed_rules({"rules": pair})[1] == ["rule a: named twice"]
    assert parsed_rules({"rules": [tick, session | {"name": "b"}]})[1] == []


def test_a_file_that_does_not_load_leaves_the_rules_as_they_were(tmp_path, capsys):
    rules = load(tmp_path)
    running = RulesFile(tmp_path / "watchlists.json", REGISTRY)
    for content in ('{"rules": 3}', '{"rules": [{"name": "a", "live": {"measure": "", "fires": "<", "at": 1}}]}', "["):
        (tmp_path / "watchlists.json").write_text(content)
        assert not running.changed() and running.rules == rules
        assert "the rules stay as they were" in capsys.readouterr().err


def test_a_rule_looks_beyond_where_it_is_relaxed(tmp_path):
    def watch(**live):
        return load(tmp_path, **live).rules[0].watch

    assert watch() == 31.5 and watch(relaxed=32) == pytest.approx(33.6) and watch(watch=30) == 30
    assert watch(fires=">", at=70) == pytest.approx(66.5) and watch(fires=">", at=-2) == pytest.approx(-2.1)
    assert watch(fires=">", at=0) < -1e200, "nobody knows the scale: every tick is looked at"


def test_no_live_rule_at_all_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="nothing can be detected"):
        load(tmp_path, {"name": "x", "when": "close > 1"})


def test_a_threshold_changes_the_version_and_not_the_shape(tmp_path):
    first, second, third = (load(tmp_path, **live) for live in ({}, {"at": 29}, {"measure": "rsi_14 + 0"}))
    assert first.shape == second.shape != third.shape
    assert len({first.version, second.version, third.version}) == 3
    assert LiveRules.from_json(json.loads(json.dumps(first.as_json()))) == first


def test_no_level_where_the_volume_so_far_decides_or_a_column_is_not_there_yet(tmp_path):
    state = {"country": "US", "close": 10.0}
    for measure in ("volume_ratio_20", "day_volume / volume_avg_20", "price * session_share"):
        (level,) = levels_of(REGISTRY, load(tmp_path, measure=measure), state)
        assert (level.price, level.now, level.why) == (None, False, "depends on the volume so far")
    (level,) = levels_of(REGISTRY, load(tmp_path), state)
    assert level.price is None and "not in live_state yet" in level.why


def test_what_no_rule_looks_at_need_not_be_in_live_state(tmp_path):
    """An indicator is in conf/ before the day computes it."""
    opens = datetime(2025, 3, 31, tzinfo=UTC)
    state = {"country": "US", "close": 8.0, "rsi_14_gain": 0.001, "rsi_14_loss": 0.06, "rsi_14": 20.0}
    state |= {"session_open": opens, "session_close": opens + timedelta(hours=6)}
    more, curves = Registry.parse({"core": [*REGISTRY.core, "sma_10"]}), load_curves(CONF / "volume_curves.json")
    moment = int(opens.timestamp() * 1000) + 60_000
    assert rules_at(more, load(tmp_path), curves, state, 7.9, 1, moment) == ["mine"]
    with pytest.raises(InputError, match="live_state lacks 'sma_10_sum', which the rules need: run jobs/compute_ind"):
        rules_at(more, LiveRules.load(named(tmp_path, "price / sma_10"), more), curves, state, 7.9, 1, moment)


def test_a_rule_that_holds_between_prices_only_has_no_level(tmp_path):
    state = {"country": "US", "close": 8.0, "rsi_14_gain": 0.04, "rsi_14_loss": 0.06, "rsi_14": 40.0}
    state |= {name: 8.0 for name in REGISTRY.live if name not in state}
    (plain,) = levels_of(REGISTRY, load(tmp_path), state)
    assert plain.side == "below" and plain.price is not None and 4 < plain.price < 8
    (bounded,) = levels_of(REGISTRY, load(tmp_path, requires="price > 5"), state)
    assert (bounded.price, bounded.side, bounded.why) == (None, None, "not one level: between prices only")
    (within,) = levels_of(REGISTRY, load(tmp_path, requires="price > 1"), state)
    assert within == plain


def test_a_rule_of_few_prices_is_not_said_to_be_out_of_reach(tmp_path):
    state = dict.fromkeys(REGISTRY.live, 57_800.0) | {"country": "KR", "close": 57_800.0, "rsi_14": 50.0}
    few = {"measure": "price / prev_close", "fires": ">", "at": 1.001, "requires": "price < prev_close * 1.004"}
    (narrow,) = levels_of(REGISTRY, load(tmp_path, **few), state)
    assert (narrow.price, narrow.now, narrow.why) == (None, False, "not one level: between prices only")
    (here,) = levels_of(
        REGISTRY, load(tmp_path, **few | {"at": 0.9999, "requires": "price < prev_close * 1.0001"}), state
    )
    assert (here.price, here.now, here.why) == (None, True, "not one level: between prices only")
    away = {"measure": "(price - prev_close) * (price - prev_close)", "fires": ">", "at": 5_000.0**2}
    (outside,) = levels_of(REGISTRY, load(tmp_path, **away), state)
    assert (outside.price, outside.why) == (None, "not one level: outside of prices only")
    (never,) = levels_of(REGISTRY, load(tmp_path, measure="price", fires="<", at=10.0), state)
    assert never.why == "not today"
    penny = dict.fromkeys(REGISTRY.live, 0.02) | {"country": "US", "close": 0.02, "rsi_14": 50.0}
    one = {"measure": "price / prev_close", "fires": ">", "at": 1.007, "requires": "price < prev_close * 1.012"}
    (level,) = levels_of(REGISTRY, load(tmp_path, **one), penny)
    assert level.why == "not one level: between prices only", "at 0.0202"


def test_a_level_is_told_as_soon_as_the_tick_has_one(tmp_path):
    rules = load(tmp_path, measure="price / sma_20", at=0.9)
    state = {"country": "US", "close": 8.0, "sma_20": None, "sma_20_sum": 19 * 8.0}  # 19 bars: the tick is the 20th
    (level,) = levels_of(REGISTRY, rules, state)
    assert level.side == "below" and level.why == ""
    (cold,) = levels_of(REGISTRY, rules, state | {"sma_20_sum": None})
    assert cold.why == "not warm yet"


def test_arithmetic_and_nulls():
    ops = Arrays()
    values = {"price": np.array([10.0, 20.0]), "bb_lower": np.array([5.0, np.nan]), "zero": 0.0}
    np.testing.assert_allclose(Expression("(price - bb_lower) / 2 * -1").evaluate(values, ops), [-2.5, np.nan])
    assert np.isnan(Expression("price / zero").evaluate(values, ops)).all()
    assert Expression("price > 5 and price <= 10").evaluate(values, ops).tolist() == [True, False]


class Kept:
    """A lake that keeps one share's state and one version of the rules."""

    def __init__(self, rules, state):
        self.tables = {"live_state": [state], "live_rules": [{"rules": json.dumps(rules.as_json())}]}
        self.commits = [(7, 0)]

    def open(self, _):
        return self

    def history(self):
        told = json.dumps({"as_of": {"KR": "2024-01-30"}})
        return [{"version": n, "timestamp": at, "userMetadata": told} for n, at in self.commits]

    def rows(self, name, where=(), version=None):
        return pa.Table.from_pylist(self.tables[name])


def kept_signal(rules, minutes):
    """A signal so many minutes after the open, and the lake that it is explained from."""
    opens = datetime(2024, 1, 31, tzinfo=UTC)
    session = {"as_of": date(2024, 1, 30), "valid_session": date(2024, 1, 31), "session_open": opens}
    session["session_close"] = opens + timedelta(minutes=390)
    state = (
        dict.fromkeys(REGISTRY.live, 100.0)
        | session
        | {"country": "KR", "symbol": "A", "registry_hash": "r", "rebased_by": 1.0, "close": 100.0, "volume": 1.0}
    )
    signal = {
        **{"signal_id": "KR:A:mine:2024-01-31:1", "signal_type": "mine", "country": "KR", "symbol": "A"},
        **{"market": "KOSPI", "trigger_price": 100.0, "day_volume": 5, "tick_partition": 0, "tick_offset": 1},
        **{"as_of": session["as_of"], "session": session["valid_session"], "rule_version": rules.version},
        **{"timestamp": opens + timedelta(minutes=minutes), "indicators": {}},
    }
    return Kept(rules, state), signal


@pytest.mark.parametrize(("minutes", "met"), [(12, "NOT met"), (45, "met")])
def test_explain_knows_the_minutes_since_the_open(tmp_path, minutes, met):
    live = {"measure": "elapsed_minutes * price", "fires": ">", "at": 0, "not_before_minutes": 30}
    lake, signal = kept_signal(load(tmp_path, **live), minutes)
    told = {what: value for _, what, value in explain(lake, REGISTRY, CURVES, signal)}
    assert told["elapsed_minutes"] == str(minutes)
    assert told["not before minute 30"].startswith(met)
    assert told["measure"].endswith("does NOT hold") == (met == "NOT met")


@pytest.mark.parametrize(("after", "version"), [((-60, 60, 120), 1), ((-90, -60, 60), 2), ((60, 90, 120), 1)])
def test_explain_shows_the_state_that_was_there_at_the_tick(tmp_path, after, version):
    lake, signal = kept_signal(load(tmp_path, measure="price", fires=">", at=1), 45)
    at = signal["timestamp"].timestamp() * 1000
    lake.commits = [(n, int(at + minutes * 60_000)) for n, minutes in enumerate(after, 1)][::-1]
    told = {what: value for _, what, value in explain(lake, REGISTRY, CURVES, signal)}
    assert told["live_state"].startswith(f"version {version}: ")


def test_explain_shows_the_version_that_the_signal_tells_of_as_long_as_it_is_kept(tmp_path):
    lake, signal = kept_signal(load(tmp_path, measure="price", fires=">", at=1), 45)
    root = tmp_path / "lake"
    for close in (100.0, 101.0, 102.0):
        rows = pa.Table.from_pylist([state | {"close": close} for state in lake.tables["live_state"]])
        write_deltalake(root / "live_state", rows, mode="overwrite")
    rules = [{"version": signal["rule_version"], **row} for row in lake.tables["live_rules"]]
    write_deltalake(root / "live_rules", pa.Table.from_pylist(rules))
    reader = LakeReader(str(root))

    def told(version):
        return {
            what: value for _, what, value in explain(reader, REGISTRY, CURVES, signal | {"state_version": version})
        }

    assert told(1)["last close"] == "101.0" and told(1)["live_state"].startswith("version 1: ")
    table = DeltaTable(root / "live_state")
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert told(2)["last close"] == "102.0"
    for gone in (1, 9):
        with pytest.raises(InputError, match="is not kept any more"):
            told(gone)


def test_volume_curves_rise_from_nothing_to_all(tmp_path):
    curves = load_curves(CONF / "volume_curves.json")
    assert set(curves) == {"KR", "US"} and share_at(curves, "KR", 0) == 0 and share_at(curves, "US", 1) == 1
    path = tmp_path / "curves.json"
    for bad in ("[]", '{"KR": [[0, 0], [0.5, 0.9], [1, 0.8]]}', '{"KR": [[0, 0.1], [1, 1]]}', "nope"):
        path.write_text(bad)
        with pytest.raises(ConfigError, match=r"curves\.json"):
            load_curves(path)
