from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from sise.calendars import Calendar, country_of, normal_market
from sise.errors import ConfigError


def test_overrides_close_what_the_library_has_open(calendars, tmp_path):
    # a regional election and Constitution Day, both of 2026
    assert not calendars["KR"].is_session(date(2026, 6, 3)) and not calendars["KR"].is_session(date(2026, 7, 17))
    plain = Calendar.load("KR")
    assert plain.is_session(date(2026, 6, 3))
    own = tmp_path / "overrides.json"
    own.write_text('{"XKRX": {"open": ["2025-03-01"]}}')
    assert Calendar.load("KR", own).is_session(date(2025, 3, 1))


def test_steps_over_weekends_and_holidays(calendars):
    kr = calendars["KR"]
    assert kr.next(date(2025, 2, 28)) == date(2025, 3, 4)  # Samiljeol fell on a Saturday: Monday is off
    assert kr.back(date(2025, 3, 4), 1) == date(2025, 2, 28)
    assert kr.back(date(2025, 3, 2), 0) == date(2025, 2, 28)
    assert kr.between(date(2025, 2, 27), date(2025, 3, 5)) == [
        date(2025, 2, 27),
        date(2025, 2, 28),
        date(2025, 3, 4),
        date(2025, 3, 5),
    ]


def test_today_is_the_exchanges_own(calendars):
    now = datetime(2025, 3, 4, 23, 0, tzinfo=UTC)
    assert calendars["KR"].today(now) == date(2025, 3, 5)
    assert calendars["US"].today(now) == date(2025, 3, 4)


def test_kept_sessions_are_the_same(tmp_path):
    first = Calendar.load("US", cache=tmp_path)
    assert list(tmp_path.iterdir())
    from sise import calendars as module

    module._exchange_sessions.cache_clear()
    assert Calendar.load("US", cache=tmp_path).days == first.days


def test_names():
    assert normal_market("KOSDAQ GLOBAL") == "KOSDAQ" and country_of("nyse") == "US"
    with pytest.raises(ConfigError, match="KOSPI, KOSDAQ, NASDAQ, NYSE"):
        country_of("LSE")


def test_a_broken_overrides_file_is_named(tmp_path):
    own = tmp_path / "overrides.json"
    own.write_text('{"XKRX": {"closed": ["someday"]}}')
    with pytest.raises(ConfigError, match=r"overrides\.json"):
        Calendar.load("KR", own)
