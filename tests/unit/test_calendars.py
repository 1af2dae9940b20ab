from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

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


def test_the_day_of_the_entrance_exam_is_an_hour_later(calendars, tmp_path):
    kr, day = calendars["KR"], date(2026, 11, 19)
    opens, closes = datetime(2026, 11, 19, 1, tzinfo=UTC), datetime(2026, 11, 19, 7, 30, tzinfo=UTC)
    assert kr.hours(day) == (opens, closes)
    for told in ((2021, 11, 18), (2022, 11, 17), (2023, 11, 16), (2024, 11, 14), (2025, 11, 13)):
        assert kr.is_session(date(*told)) and [t.hour * 60 + t.minute for t in kr.hours(date(*told))] == [60, 450]
    assert [t.hour for t in kr.hours(date(2020, 12, 3))] == [1, 7], "the library's own stay"
    assert [t.hour for t in kr.hours(date(2026, 1, 2))] == [1, 6], "the year's first session only opens later"
    own = tmp_path / "overrides.json"
    own.write_text('{"XKRX": {"hours": {"2026-11-19": ["09:30", "16:00"]}}, "XNYS": {}}')
    Calendar.load("KR", own, tmp_path)
    own.write_text('{"XKRX": {"hours": {}}, "XNYS": {"hours": {"2026-07-02": ["09:30", "13:00"]}}}')
    assert Calendar.load("KR", own, tmp_path).hours(day)[0] == opens - timedelta(hours=1), "not kept"
    assert Calendar.load("US", own).hours(date(2026, 7, 2))[1] == datetime(2026, 7, 2, 17, tzinfo=UTC)


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


def test_history_goes_back_to_the_indices_first_days(calendars):
    assert calendars["KR"].is_session(date(1985, 1, 7)) and not calendars["KR"].is_session(date(1985, 1, 6))
    assert calendars["US"].is_session(date(1980, 12, 12)), "Apple's first session"


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
    for content, said in {
        '{"XKRX": {"closed": ["someday"]}}': "someday",
        '{"XKRX": {"closed": [20260603]}}': "",
        '{"XKRX": {"closed": null}}': "",
        '{"XKRX": {"close": ["2026-06-03"]}}': "unknown entry close of XKRX",
        '{"KR": {"closed": ["2026-06-03"]}}': "unknown exchange KR: use XKRX",
    }.items():
        own.write_text(content)
        with pytest.raises(ConfigError, match=rf"overrides\.json.*{said}"):
            Calendar.load("KR", own)


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ('{"2026-11-19": ["16:30", "10:00"]}', r"2026-11-19.*16:30.*10:00"),
        ('{"2026-11-19": ["10:00"]}', r"2026-11-19.*like"),
        ('{"2026-11-19": "10:00-16:30"}', r"2026-11-19.*like"),
        ('{"2026-11-19": ["10 h", "16:30"]}', r"2026-11-19.*like"),
        ('{"2026-11-31": ["10:00", "16:30"]}', r"2026-11-31.*like"),
        ('["2026-11-19"]', r"hours is .*like"),
    ],
)
def test_hours_that_are_none_are_named(tmp_path, hours, said):
    own = tmp_path / "overrides.json"
    own.write_text(f'{{"XKRX": {{"hours": {hours}}}}}')
    with pytest.raises(ConfigError, match=rf"overrides\.json.*{said}"):
        Calendar.load("KR", own)
