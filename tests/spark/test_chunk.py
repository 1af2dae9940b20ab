"""Answers that wait, judged against what the lake has: what becomes of its actions."""

from __future__ import annotations

from datetime import date

from sise.prices.chunk import chunk_of
from sise.sources.asks import BAR_SCHEMA, Ask, bars_table
from sise.sources.kis import KisVendor
from sise.sources.ledger import Kept
from sise.sources.naver import NaverVendor
from sise.sources.outcome import Fate
from tests.builders import action, bar, put, share, walk

FIRST, LAST = date(2025, 3, 24), date(2025, 3, 31)


def kept(ask, bars=None, actions=()):
    return Kept(1, ask, Fate.OK, "", BAR_SCHEMA.empty_table() if bars is None else bars, list(actions), [], {})


def test_a_split_that_was_put_off_is_unconfirmed_where_it_was(lake):
    said = {"factor": 1 / 50, "evidence": "KIS: face value 5000 to 100", "source": "kis"}
    told = action("005930", "2025-04-04", **said | {"evidence": "reference 53000 after close 2650000"})
    put(
        lake,
        "actions",
        [
            action("005930", "2025-04-03", **said),
            told | {"symbol": "000660", "source": "kis"},
            action("000020", "2025-04-03", **said | {"source": "other"}),
        ],
    )
    moved = {k: v for k, v in action("005930", "2025-04-14", **said).items() if k != "source"}
    ask = Ask("actions rev-split", "KR", "KR", None, FIRST, LAST)
    chunk = chunk_of(lake, KisVendor, [kept(ask, actions=[moved])])
    found = {(a["symbol"], a["ex_date"]): a["confirmed"] for a in chunk.action_rows}
    assert found == {("005930", date(2025, 4, 14)): True, ("005930", date(2025, 4, 3)): False}
    assert "no longer announced" in chunk.noted["KR:005930"]


def test_a_bar_has_the_market_of_its_own_day(lake):
    """A vendor of single shares knows only the market that a share is on now."""
    put(lake, "symbols", [share("M1", "2025-03-03", market="KOSDAQ"), share("M1", "2025-03-27"), share("M2")])
    days = ["2025-02-28", "2025-03-26", "2025-03-27"]
    columns = {name: [bar(s, d)[name] for s in ("M1", "M2") for d in days] for name in BAR_SCHEMA.names}
    waiting = [kept(Ask("bars", "KR", "KOSPI", None, FIRST, LAST), bars_table(columns, 6))]
    table = chunk_of(lake, KisVendor, waiting).table
    assert table["market"].to_pylist() == ["KOSDAQ", "KOSDAQ", *["KOSPI"] * 4]


def test_a_rewritten_history_without_its_first_session_is_taken(lake, calendars):
    days = calendars["KR"].between(date(2025, 3, 3), LAST)
    old = walk("005930", days[:-1], [100.0] * (len(days) - 1), basis=days[-2])
    put(lake, "prices", [row | {"source": "naver", "volume": 100} for row in old])
    answered = [row | {"basis": LAST} for row in walk("005930", days[1:], [25.0] * (len(days) - 1))]
    columns = {name: [row[name] for row in answered] for name in BAR_SCHEMA.names}
    ask = Ask("bars", "KR", "KOSPI", "005930", days[0], LAST)
    chunk = chunk_of(lake, NaverVendor, [kept(ask, bars_table(columns, len(answered)))])
    assert (chunk.again, chunk.doubted) == ([], {}) and chunk.table.num_rows == len(days) - 1
    assert set(chunk.table["problem"].to_pylist()) == {None}
    assert {(a["kind"], a["ex_date"], a["confirmed"]) for a in chunk.action_rows} == {
        ("unknown", days[1], False),  # what is before it is of the old history
        ("unknown", LAST, False),
    }
