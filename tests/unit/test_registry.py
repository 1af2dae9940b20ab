from __future__ import annotations

import json

import numpy as np
import pytest
import talib

from sise.errors import ConfigError
from sise.indicators.extra import Extra
from sise.indicators.recursive import compute_filters
from sise.indicators.registry import Registry


def parse(core=("sma_5",), extra=()):
    return Registry.parse({"core": list(core), "extra": list(extra)})


def test_lookbacks_come_from_the_names():
    registry = parse(["sma_5", "high_252", "return_20", "macd", "rsi_14", "ema_200"])
    assert registry.tail == 252 and registry.warm == 200
    assert registry.state == ("ema_200", "macd_fast", "macd_slow", "macd_signal", "rsi_14_gain", "rsi_14_loss")


def test_every_problem_is_named_with_what_is_valid():
    with pytest.raises(ConfigError) as caught:
        parse(["smaa_5", "sma_0", "sma_5", "sma_5"], [{"column": "x", "function": "ADXX"}])
    message = str(caught.value)
    assert "did you mean sma" in message and "sma_0: the period" in message and "sma_5 is named twice" in message
    assert "no function 'ADXX'" in message and "ADX" in message and "WILLR" in message


TAKEN = [
    "macd_signal",
    "bars",
    "close",
    "filter_state",
    "tail_from",
    "market_cap",
    "prev_x",
    "suspect",
    "turnover",
    "rank",
]


@pytest.mark.parametrize("extra", [None, 3, {"column": "x"}])
def test_extra_is_a_list(extra):
    with pytest.raises(ConfigError, match="an object with the lists core and extra is expected"):
        Registry.parse({"core": ["sma_5"], "extra": extra})


@pytest.mark.parametrize("name", TAKEN)
def test_an_extra_column_takes_no_name_that_the_lake_has(name):
    with pytest.raises(ConfigError, match=f"extra '{name}': the lake has a column of this name"):
        parse(["macd", "sma_5"], [{"column": name, "function": "CCI"}])
    with pytest.raises(ConfigError, match="unknown indicator 'sma_05'"):
        parse(["sma_05"])


def test_an_unknown_parameter_lists_the_valid_ones():
    with pytest.raises(ConfigError, match=r"no parameter period.*timeperiod \(default 14\)"):
        Extra.parse({"column": "adx", "function": "ADX", "parameters": {"period": 7}})
    with pytest.raises(ConfigError, match="does not run on bars"):
        Extra.parse({"column": "adx", "function": "ADX", "parameters": {"timeperiod": -3}})
    with pytest.raises(ConfigError, match="does not run on bars"):
        Extra.parse({"column": "mavp", "function": "MAVP"})


def test_parameters_are_numbers_whole_or_not():
    def with_parameters(function, given):
        return Extra.parse({"column": "x", "function": function, "parameters": given})

    assert with_parameters("BBANDS", {"nbdevup": 3}) == with_parameters("BBANDS", {"nbdevup": 3.0})
    for bad in ([14], {"timeperiod": True}, {"timeperiod": None}, {"timeperiod": "14"}, None):
        with pytest.raises(ConfigError, match=r"are no object of numbers. RSI has: timeperiod \(default 14\)"):
            with_parameters("RSI", bad)


def test_a_function_of_several_outputs_gives_a_column_each():
    extra = Extra.parse({"column": "stoch", "function": "STOCH"})
    assert extra.columns == ("stoch_slowk", "stoch_slowd")


def test_what_remembers_is_flagged():
    remembers = {
        n: Extra.parse({"column": "x", "function": n}).remembers
        for n in ("OBV", "SAR", "ADX", "KAMA", "CCI", "BETA", "WILLR", "CDLDOJI")
    }
    assert remembers == {
        "OBV": True,
        "SAR": True,
        "ADX": True,
        "KAMA": True,
        "CCI": True,
        "BETA": True,
        "WILLR": False,
        "CDLDOJI": False,
    }


@pytest.mark.parametrize("name", [f for f in talib.get_functions() if f != "MAVP"])
def test_what_is_said_to_forget_forgets(name):
    """A function called forgetting gives a bar the same value from its last bars as from all of them, also where the
    price was a hundred times as high."""
    extra = Extra.parse({"column": "x", "function": name})
    if extra.remembers:
        return
    rng = np.random.default_rng(3)
    close = 10_000 * np.exp(rng.normal(0, 0.02, 700).cumsum())
    close[350:] /= 100
    bars = {
        "open": close * 1.001,
        "high": close * 1.01,
        "low": close * 0.99,
        "close": close,
        "volume": rng.uniform(1e3, 1e6, 700),
    }
    tail = {k: v[-(extra.lookback + 1) :] for k, v in bars.items()}
    for whole, short in zip(extra.compute(bars), extra.compute(tail), strict=True):
        np.testing.assert_allclose(short[-1], whole[-1], rtol=1e-12)


def test_the_hash_follows_the_definition():
    one = parse(extra=[{"column": "adx", "function": "ADX"}])
    other = parse(extra=[{"column": "adx", "function": "ADX", "parameters": {"timeperiod": 7}}])
    assert len({parse().hash, one.hash, other.hash}) == 3


def test_not_json_is_named(tmp_path):
    path = tmp_path / "indicators.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"indicators\.json is not JSON"):
        Registry.load(path)
    path.write_text(json.dumps({"core": []}))
    with pytest.raises(ConfigError, match="no indicator"):
        Registry.load(path)


PERIODS = [2, 3, 5, 14, 21]


@pytest.mark.parametrize("n", PERIODS)
@pytest.mark.parametrize("shape", ["walk", "up", "down", "flat", "short"])
def test_filters_equal_talib(n, shape):
    rng = np.random.default_rng(7)
    close = {
        "walk": 50 * np.exp(rng.normal(0, 0.03, 400).cumsum()),
        "up": np.arange(1.0, 301),
        "down": np.arange(300.0, 0, -1),
        "flat": np.full(100, 7.3),
        "short": np.array([3.0, 4.0, 5.0]),
    }[shape]
    high, low = close * 1.02, close * 0.97
    registry = parse([f"ema_{n}", f"rsi_{n}", f"atr_{n}", "macd", "macd_signal", "macd_hist"])
    ours = compute_filters(registry, high, low, close)
    macd = talib.MACD(close)
    theirs = {
        f"ema_{n}": talib.EMA(close, n),
        f"rsi_{n}": talib.RSI(close, n),
        f"atr_{n}": talib.ATR(high, low, close, n),
        "macd": macd[0],
        "macd_signal": macd[1],
        "macd_hist": macd[2],
    }
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-9, atol=1e-9 * close.max(), err_msg=name)


def test_a_resumed_filter_gives_the_same_bits():
    rng = np.random.default_rng(9)
    close = 50 * np.exp(rng.normal(0, 0.03, 300).cumsum())
    registry = parse(["ema_12", "rsi_14", "atr_14", "macd"])
    whole = compute_filters(registry, close * 1.01, close * 0.98, close)
    at = 200
    state = {name: whole[name][at] for name in registry.state}
    rest = compute_filters(registry, close[at:] * 1.01, close[at:] * 0.98, close[at:], state)
    for name in (*registry.state, "rsi_14", "macd"):
        assert (rest[name][1:] == whole[name][at + 1 :]).all(), name
