"""Announcements that are moved or called off count no longer."""

from __future__ import annotations

from datetime import date

from sise.calendars import Calendar
from sise.prices.withdrawn import withdrawn
from sise.sources.asks import Ask
from sise.sources.kis_actions import actions_of

FIRST, LAST = date(2025, 3, 24), date(2025, 3, 31)
SPLITS = Ask("actions rev-split", "KR", "KR", None, FIRST, LAST)
BONUSES = Ask("actions bonus-issue", "KR", "KR", None, FIRST, LAST)


def split(day, calendar: Calendar, after="100"):
    row = {"sht_cd": "005930", "inter_bf_face_amt": "5000", "inter_af_face_amt": after, "list_dt": day}
    (action,) = actions_of("rev-split", row, calendar)
    return action


def bonus(day, calendar: Calendar):
    (action,) = actions_of("bonus-issue", {"sht_cd": "005930", "fix_rate": "100", "right_dt": day}, calendar)
    return action


def test_a_split_that_is_put_off_counts_once(calendars):
    kr = calendars["KR"]
    for was in ("20250404", "20250328", "20250310"):  # ahead, just gone by, and before what was asked for
        (old,) = withdrawn([split(was, kr)], [split("20250414", kr)], [SPLITS])
        assert (old["ex_date"], old["confirmed"], old["factor"]) == (split(was, kr)["ex_date"], False, 1 / 50)
        assert old["evidence"] == "KIS: face value 5000 to 100; no longer announced"


def test_what_is_called_off_and_what_stays(calendars):
    kr = calendars["KR"]
    ahead = split("20250404", kr)
    assert [a["ex_date"] for a in withdrawn([ahead], [], [SPLITS])] == [ahead["ex_date"]]
    assert withdrawn([ahead], [split("20250404", kr)], [SPLITS]) == []
    assert withdrawn([ahead], [], [BONUSES]) == []  # that answer is about others
    assert withdrawn([split("20250310", kr)], [], [SPLITS]) == []  # before what was asked for
    assert withdrawn([split("20250310", kr, "500")], [split("20250404", kr)], [SPLITS]) == []  # another split
    assert withdrawn([split("20250620", kr)], [], [SPLITS]) == []  # so far ahead the answer need not reach
    assert withdrawn([bonus("20250310", kr)], [bonus("20250404", kr)], [BONUSES]) == []  # a second bonus issue
    assert len(withdrawn([bonus("20250328", kr)], [bonus("20250404", kr)], [BONUSES])) == 1


def test_only_announcements_are_withdrawn(calendars):
    ahead = split("20250404", calendars["KR"])
    by_reference = ahead | {"evidence": "reference 53000.0000 after close 2650000.0000; listed shares × 50"}
    paid = ahead | {"kind": "dividend", "factor": None, "evidence": "KIS: dividend"}
    dividends = Ask("actions dividend", "KR", "KR", None, FIRST, LAST)
    assert withdrawn([by_reference, paid, ahead | {"confirmed": False}], [], [SPLITS, dividends]) == []
