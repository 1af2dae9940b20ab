from __future__ import annotations

from datetime import date

import pytest

from sise.errors import ConfigError
from sise.redact import redact
from sise.settings import FxRates, Settings
from sise.sources.settings import SourceSettings
from tests.conftest import CONF


def test_every_problem_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"SISE_KRW_PER_USD": "cheap", "SISE_COVERAGE_FLOOR": "1.5", "SISE_TODAY": "31/03/2025"})
    message = str(caught.value)
    assert "SISE_KRW_PER_USD=cheap" in message and "SISE_COVERAGE_FLOOR=1.5" in message and "SISE_TODAY" in message
    with pytest.raises(ConfigError, match="'0205-06-01' is not a date of this millennium"):
        Settings.from_env({"SISE_TODAY": "0205-06-01"})


def test_a_lake_is_a_folder_that_both_its_readers_find(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"SISE_LAKE=.*file: it is a file .where the tables live: a folder"):
        Settings.from_env({"SISE_LAKE": str(tmp_path / "file")})
    with pytest.raises(ConfigError, match="name a folder without %"):
        Settings.from_env({"SISE_LAKE": str(tmp_path / "a%41")})


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
    for variable, _, _ in SourceSettings.variables():
        assert variable in text


@pytest.mark.parametrize(
    ("variable", "url", "said"),
    [
        ("SISE_POSTGRES_URL", "postgresql://u:100%sureTOP@db/x", "written %25"),
        ("SISE_REDIS_URL", "redis://:sureTOP/et@10.0.0.5:6379/0", "written %2F"),
        ("SISE_REDIS_URL", "redis://u:p@sureTOP@host:6379/0", "written %40"),
        ("SISE_REDIS_URL", "redis://host:6379x/0?password=sureTOP", "port is no number"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(variable, url, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Settings.from_env({variable: url})
    assert variable in str(caught.value) and "sureTOP" not in str(caught.value)


def test_a_password_in_a_url_is_said_nowhere():
    Settings.from_env(
        {"SISE_REDIS_URL": "redis://:one%2Fword@h:1/0", "SISE_POSTGRES_URL": "postgres://h/x?password=other-word"}
    )
    assert redact("of one%2Fword, one/word and other-word") == "of ***, *** and ***"


def test_a_service_is_the_one_named_or_the_local_one(tmp_path):
    local = Settings.from_env({"SISE_LOCAL": str(tmp_path), "SISE_KAFKA_PORT": "19092", "SISE_REDIS_PORT": "16379"})
    assert (local.kafka, local.redis) == ("127.0.0.1:19092", "redis://127.0.0.1:16379/0")
    with pytest.raises(ConfigError, match=r"password is missing.*make up.*SISE_POSTGRES_URL"):
        _ = local.postgres
    local.postgres_password_file.parent.mkdir(parents=True)
    local.postgres_password_file.write_text("a/b@c\n")
    assert local.postgres == "postgresql://sise:a%2Fb%40c@127.0.0.1:5432/sise"
    named = {
        "SISE_KAFKA": "one:9092, two:9093",
        "SISE_REDIS_URL": "rediss://u:p@cache:6380/1",
        "SISE_POSTGRES_URL": "postgres://u:p@db/x",
    }
    own = Settings.from_env(named)
    assert (own.kafka, own.redis, own.postgres) == ("one:9092,two:9093", *list(named.values())[1:])
    assert "p@" not in repr(own)


def test_a_wrong_service_setting_is_named_and_a_password_is_not():
    wrong = {"SISE_KAFKA": "broker", "SISE_REDIS_URL": "http://u:hush@host", "SISE_REDIS_PORT": "70000"}
    wrong["SISE_TOPIC_PREFIX"] = "a/b"
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(wrong)
    message = str(caught.value)
    assert "SISE_TOPIC_PREFIX=a/b: 'a/b' is no start of a topic's name" in message
    assert "SISE_KAFKA=broker" in message and "SISE_REDIS_PORT=70000" in message
    assert "SISE_REDIS_URL: it does not start with redis://" in message and "hush" not in message
