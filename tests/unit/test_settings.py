from __future__ import annotations

from datetime import date

import pytest

from sise.errors import ConfigError
from sise.settings import FxRates, Settings
from tests.conftest import CONF


def test_every_problem_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"SISE_KRW_PER_USD": "cheap", "SISE_COVERAGE_FLOOR": "1.5", "SISE_TODAY": "31/03/2025"})
    message = str(caught.value)
    assert "SISE_KRW_PER_USD=cheap" in message and "SISE_COVERAGE_FLOOR=1.5" in message and "SISE_TODAY" in message


def test_an_empty_variable_is_unset():
    assert Settings.from_env({"SISE_LAKE": " "}).lake == "./lake"


def test_the_rate_of_a_day_is_the_last_one_before_it():
    rates = FxRates.parse("2025-01-02=1471,2020-01-01=1156")
    assert [rates.on(date(*d)) for d in ((2020, 1, 1), (2024, 12, 31), (2025, 1, 2))] == [1156, 1156, 1471]
    with pytest.raises(ConfigError, match="2019-12-31"):
        rates.on(date(2019, 12, 31))
    assert FxRates.parse("1400").on(date(1999, 1, 1)) == 1400


@pytest.mark.parametrize("text", ["0", "-1", "nan=3", "2020-13-01=3", "inf", ""])
def test_nonsense_is_no_rate(text):
    with pytest.raises(ValueError, match=r".+"):
        FxRates.parse(text)


def test_the_example_file_names_every_setting():
    text = (CONF / "sise.env.example").read_text(encoding="utf-8")
    for variable, _, _ in Settings.variables():
        assert variable in text
