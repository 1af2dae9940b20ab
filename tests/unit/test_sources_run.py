"""The plan, the ledger and the crew: what is asked, in which order, and what is left after a kill."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from sise.errors import SiseError
from sise.sources.asks import Answer, Ask, bars_table, frozen, thawed
from sise.sources.crew import Crew, Progress
from sise.sources.ledger import Ledger
from sise.sources.outcome import Blocked, Failed, Fate, NoData, Spent
from sise.sources.plan import (
    Held,
    Span,
    extras_from,
    final_at,
    in_parts,
    lacking_extras,
    last_session,
    outdated,
    plan_days,
    plan_symbols,
    unanswered,
)
from sise.sources.settings import SourceSettings
from sise.sources.turns import take_turns, wider
from tests.conftest import HERE

LAST = date(2025, 3, 31)
SETTINGS = SourceSettings()


def test_the_last_session_is_the_exchange_s(calendars):
    def last(country, *moment):
        return last_session(calendars[country], SETTINGS, datetime(*moment, tzinfo=UTC))

    assert last("KR", 2025, 3, 31, 8, 59) == date(2025, 3, 28)  # 17:59 in Seoul
    assert last("KR", 2025, 3, 31, 9, 0) == LAST
    assert last("KR", 2025, 3, 30, 12) == date(2025, 3, 28)  # a Sunday
    assert last("KR", 2026, 7, 17, 12) == date(2026, 7, 16)  # the calendar library's mistake
    assert last("US", 2025, 3, 31, 21, 59) == date(2025, 3, 28)
    assert last("US", 2025, 4, 1, 3) == LAST  # already Tuesday in UTC
    assert final_at(SETTINGS, "KR", LAST).astimezone(UTC) == datetime(2025, 3, 31, 23, tzinfo=UTC)


@pytest.fixture
def us(calendars):
    calendar = calendars["US"]

    def plan(held, start=None, end=LAST, covered=(), apart=0):
        asks = plan_symbols(
            [("US", "NASDAQ", "NA")], {"US:NA": held} if held else {}, calendars, {"US": Span(start, end, LAST)},
            SETTINGS, {"US:NA": list(covered)}, apart,
        )  # fmt: skip
        return [(ask.first, ask.last) for ask in asks]

    return plan, calendar


def test_what_a_share_lacks(us):
    plan, calendar = us
    recheck, first = calendar.back(LAST, 4), date(2024, 1, 2)
    whole = Held(first, LAST)
    assert plan(whole) == [(recheck, LAST)]
    assert plan(None)[0][0] <= date(2021, 4, 1)  # a new share: its history
    assert plan(Held(first, calendar.back(LAST, 9))) == [(calendar.back(LAST, 8), LAST)]
    hole = date(2024, 5, 6)
    assert plan(Held(first, LAST, (hole,))) == [(hole, LAST)]
    tried = [(first, LAST)]
    assert plan(Held(first, LAST, (hole,)), covered=tried * 2) == [(hole, LAST)]
    assert plan(Held(first, LAST, (hole,)), covered=tried * 3) == [(recheck, LAST)]  # it stays a hole
    assert plan(whole, start=date(2023, 1, 3)) == [(date(2023, 1, 3), LAST)]
    before = [(date(2023, 1, 3), LAST)]
    assert plan(whole, start=date(2023, 1, 3), covered=before * 2) == before  # a vendor's "no data" may be a hiccup
    assert plan(whole, start=date(2023, 1, 3), covered=before * 3) == [(recheck, LAST)]  # not listed then
    assert plan(None, start=date(2023, 1, 3), covered=before) == before  # one "no data" does not cost its history
    assert plan(None, start=date(2023, 1, 3), covered=before * 3) == [(recheck, LAST)]
    apart = plan(Held(first, LAST, (hole,)), apart=100)
    assert apart == [(hole, hole), (recheck, LAST)]
    chunks = plan(None, start=date(2024, 1, 2), apart=100)
    assert all(len(calendar.between(*span)) <= 100 for span in chunks) and chunks[0][0] == date(2024, 1, 2)
    assert sum(len(calendar.between(*span)) for span in chunks) == len(calendar.between(date(2024, 1, 2), LAST))


@pytest.mark.parametrize("apart", [0, 30])
def test_what_is_to_be_filled_comes_before_what_is_only_asked_once_more(calendars, apart):
    calendar, start = calendars["US"], date(2025, 1, 2)
    recheck, never = calendar.back(LAST, 4), [(start, LAST)] * 3
    held = {"US:A": Held(start, LAST), "US:B": Held(start, LAST, (date(2025, 2, 3),)), "US:D": Held(start, LAST)}
    shares = [("US", "NASDAQ", name) for name in "ABCDEF"]  # of E the vendor has nothing, C and F are new

    def plan(begin):
        spans = {"US": Span(begin, LAST, LAST)}
        asks = plan_symbols(shares, held, calendars, spans, SETTINGS, {"US:E": never}, apart)
        assert all(ask.last == LAST or ask.last < recheck for ask in asks)
        return "".join(ask.symbol for ask in asks)

    assert plan(start) == ("BCCFFABDE" if apart else "BCFADE")
    assert plan(recheck) == "CFABDE"


def test_each_share_is_asked_about_alone_once_in_five_sessions(calendars):
    calendar = calendars["US"]
    sessions = calendar.between(calendar.back(LAST, 29), LAST)
    names = [f"S{n:03}" for n in range(400)]

    def quoted(day, affordable, **held):
        spans = {"US": Span(None, day, day)}
        known = {f"US:{s}": Held(date(2024, 1, 2), calendar.back(day, 1), **held) for s in names}
        asks = plan_symbols([("US", "NASDAQ", s) for s in names], known, calendars, spans, SETTINGS, {})
        turns = take_turns(asks, known, calendars, spans, SETTINGS, affordable)
        assert {(ask.country, ask.last) for ask in turns} <= {("US", day)}
        return {ask.symbol for ask in turns}

    assert quoted(LAST, 400) == set() and quoted(LAST, 0, holes=[calendar.back(LAST, 3)]) == set()
    assert len(quoted(LAST, 0, holes=[date(2025, 1, 6)])) == 0  # a hole is asked for alone
    for affordable in (0, 100, 320):
        by_day = [quoted(day, affordable) for day in sessions]
        least = max(400 - affordable, 0) if affordable >= 100 else 300
        assert all(least - 40 <= len(some) <= 345 for some in by_day), [*map(len, by_day)]
        for n in range(len(sessions) - 4):
            assert not set.intersection(*by_day[n : n + 5]), sessions[n]
    changing = [quoted(day, 50 * (n % 7)) for n, day in enumerate(sessions)]  # how many a day has need not stay
    assert not any(set.intersection(*changing[n : n + 5]) for n in range(len(sessions) - 4))


def test_what_is_only_quoted_is_asked_for_with_what_was_before(calendars):
    calendar = calendars["US"]
    ask = Ask("bars", "US", "NASDAQ", "A", calendar.back(LAST, 4), LAST)
    quoted = calendar.back(LAST, 9)
    known = Held(date(2024, 1, 2), LAST, open=quoted)
    assert wider(ask, known, calendar, SETTINGS).first == calendar.back(quoted, 4)
    assert wider(ask, Held(calendar.back(quoted, 1), LAST, open=quoted), calendar, SETTINGS).first < quoted
    assert wider(ask, Held(known.first, LAST), calendar, SETTINGS) == ask == wider(ask, None, calendar, SETTINGS)
    paused = Held(known.first, calendar.back(LAST, 8))
    assert wider(ask, paused, calendar, SETTINGS).first == calendar.back(LAST, 11), "nobody asked for eight sessions"


def test_what_a_market_lacks(calendars):
    calendar = calendars["KR"]
    days = calendar.between(date(2025, 3, 3), LAST)

    def plan(counts, provisional=(), covered=(), start=None):
        asks = plan_days(
            ["KOSPI"], {"KOSPI": counts}, {"KOSPI": provisional}, calendar, Span(start, LAST, LAST), SETTINGS,
            {"KR:KOSPI*": list(covered)},
        )  # fmt: skip
        return [ask.first for ask in asks]

    counts = dict.fromkeys(days, 900)
    assert plan(counts) == days[-5:]
    assert plan({}) == days[-5:]
    thin = counts | {days[3]: 100}
    del thin[days[5]]
    assert plan(thin) == [days[3], days[5], *days[-5:]]
    assert plan(thin, covered=[(days[3], days[3])] * 3) == [days[5], *days[-5:]]
    assert plan(counts, provisional=[days[1]]) == [days[1], *days[-5:]]
    assert plan(counts, start=date(2025, 2, 26))[:3] == [date(2025, 2, 26), date(2025, 2, 27), date(2025, 2, 28)]


def test_a_market_that_grows_has_no_holes_and_a_hole_in_it_is_one(calendars):
    calendar = calendars["KR"]
    days = calendar.between(date(2015, 1, 2), LAST)

    def plan(counts):
        held = {"KOSDAQ": counts}
        asks = plan_days(["KOSDAQ"], held, {}, calendar, Span(days[0], LAST, LAST), SETTINGS, {})
        return [ask.first for ask in asks]

    grown = {day: 1_000 + n * 800 // len(days) for n, day in enumerate(days)}
    assert plan(grown) == days[-5:]
    assert plan({day: 2_800 - n for day, n in grown.items()}) == days[-5:], "nor has one that shrinks"
    begun = {day: n for day, n in grown.items() if not days[9] < day < days[-9]}  # a backfill that was killed
    assert plan(begun) == [*days[10:-9], *days[-5:]]
    holes = grown | {days[0]: 800, days[100]: 880, days[2_000]: 1_200} | dict.fromkeys(days[1_000:1_015], 900)
    del holes[days[50]]
    assert plan(holes) == [days[n] for n in (0, 50, 100, *range(1_000, 1_015), 2_000)] + days[-5:]
    few = grown | dict.fromkeys(days[500:1_000], 3)  # of another source's few shares
    assert plan(few) == [*days[500:1_000], *days[-5:]]


def test_indices_and_actions_that_were_never_answered_are_asked_for_again(calendars):
    calendar = calendars["KR"]
    week = calendar.back(LAST, 4)
    index = Ask("indices", "KR", "KOSPI", None, date(2025, 1, 2), LAST)

    def plan(*covered):
        return [
            (ask.first, ask.last)
            for ask in lacking_extras([index], calendar, Span(None, LAST, LAST), SETTINGS, {index.key: covered})
        ]

    assert plan() == [(index.first, LAST)]
    assert plan((index.first, LAST)) == [(week, LAST)]
    assert plan((index.first, date(2025, 2, 28))) == [(date(2025, 3, 4), LAST)]  # March was not answered
    assert plan((date(2025, 2, 3), LAST)) == [(index.first, LAST)]
    old = Ask("actions rev-split", "KR", "KR", None, date(2025, 1, 2), date(2025, 1, 31))
    assert lacking_extras([old], calendar, Span(None, LAST, LAST), SETTINGS, {old.key: [(old.first, old.last)]}) == []
    new, begun = Span(None, LAST, LAST), Span(date(2023, 1, 2), LAST, LAST)
    assert extras_from([week], date(2024, 5, 7), new, SETTINGS) == date(2024, 5, 7)  # as far back as the lake has bars
    assert extras_from([week], date(2010, 1, 4), new, SETTINGS) == LAST - timedelta(days=1461)
    assert extras_from([week], None, new, SETTINGS) == week
    assert extras_from([week], date(2010, 1, 4), begun, SETTINGS) == begun.start
    assert in_parts(date(2024, 11, 5), LAST, 3) == [
        (date(2024, 11, 5), date(2024, 12, 31)),
        (date(2025, 1, 1), LAST),
    ]
    assert in_parts(LAST, LAST, 3) == [(LAST, LAST)]


def test_what_was_answered_while_provisional_is_asked_for_again(tmp_path):
    final = final_at(SETTINGS, "KR", LAST)
    before, after = final - timedelta(minutes=1), final + timedelta(minutes=1)
    for at, now, old in ((before, before, False), (before, after, True), (after, after, False), (before, final, True)):
        assert outdated(SETTINGS, now, "KR", LAST, at) is old
    ledger = Ledger(tmp_path, "naver", "lake")
    campaign = ledger.campaign("all")
    ledger.put(campaign, ask_for("NA"), answer_of("NA"))
    seen = []

    def outdated_then(country, last, at):
        seen.append((country, last, datetime.now(UTC) - at < timedelta(minutes=1)))
        return True

    assert "US:NA" in ledger.answered(campaign) and ledger.answered(campaign, outdated_then) == {}
    assert seen == [("US", LAST, True)]
    ledger.close()


def ask_for(symbol, first=LAST):
    return Ask("bars", "US", "NASDAQ", symbol, first, LAST)


def answer_of(symbol, count=3):
    columns = {
        "country": "US",
        "symbol": symbol,
        "date": [LAST - timedelta(days=n) for n in range(count)],
        "close": [1.0] * count,
    }
    return Answer(Fate.OK, bars=bars_table(columns, count))


def test_the_ledger_keeps_answers_until_they_are_merged(tmp_path):
    ledger = Ledger(tmp_path, "yahoo", "./lake", "run-1")
    campaign = ledger.campaign("all")
    paid = {"country": "US", "symbol": "NA", "ex_date": LAST, "kind": "dividend", "factor": None, "amount": 0.5}
    kept_answer = answer_of("NA")
    kept_answer.actions = [paid]
    ledger.put(campaign, ask_for("NA"), kept_answer)
    ledger.put(campaign, ask_for("AAPL"), Answer(Fate.FAILED, "down"))
    ledger.put(campaign, ask_for("GONE"), Answer(Fate.NO_DATA))
    with pytest.raises(SiseError, match=f"process {os.getpid()}"):
        Ledger(tmp_path, "yahoo", "lake")
    ledger.close()
    ledger = Ledger(tmp_path, "yahoo", "lake", "run-2")
    assert ledger.campaign("all") == campaign and ledger.waiting_rows() == (1, 3)
    (kept,) = ledger.waiting(100)
    assert kept.bars.equals(kept_answer.bars) and kept.actions == [paid] and kept.ask == ask_for("NA")
    left = unanswered([ask_for(s) for s in ("NA", "AAPL", "GONE", "NEW")], ledger.answered(campaign))
    assert [ask.symbol for ask in left] == ["AAPL", "NEW"]
    assert unanswered([ask_for("NA", LAST - timedelta(days=9))], ledger.answered(campaign)) != []
    ledger.merged([kept.id])
    assert ledger.waiting_rows() == (0, 0) and "US:NA" in ledger.answered(campaign)
    notes = [note for _, part in ledger.untold(10) for note in part if not ledger.told([note["id"]])]
    assert [(n["symbol"], n["fate"], n["run"]) for n in notes] == [
        ("NA", "ok", "run-1"), ("AAPL", "failed", "run-1"), ("GONE", "no_data", "run-1"),
    ]  # fmt: skip
    ledger.finish(campaign)
    assert ledger.campaign("all") != campaign
    ledger.bind("table-1")
    assert not ledger.bind("table-1") and ledger.bind("table-2") and ledger.covered(0) == {}
    ledger.close()


def test_what_is_told_has_a_number_that_it_keeps_through_a_kill_and_no_other_has(tmp_path):
    ledger = Ledger(tmp_path, "yahoo", "lake")
    campaign, given = ledger.campaign("all"), []
    for symbol in "ABC":
        ledger.put(campaign, ask_for(symbol), Answer(Fate.FAILED, "down"))
    number, notes = next(ledger.untold(2))  # the run is killed before it is told
    identity = ledger.identity
    ledger.close()
    ledger = Ledger(tmp_path, "yahoo", "lake")
    ledger.put(campaign, ask_for("D"), Answer(Fate.FAILED, "down"))
    assert ledger.identity == identity
    for again, part in ledger.untold(2):
        given.append((again, [note["symbol"] for note in part]))
        ledger.told(note["id"] for note in part)
    assert given[0] == (number, [note["symbol"] for note in notes]) == (number, ["A", "B"])
    assert given[1][0] > number and given[1][1] == ["C", "D"] and len(given) == 2
    ledger.put(campaign, ask_for("E"), Answer(Fate.FAILED, "down"))  # the others are let go, and SQLite gives their ids
    later, (note,) = next(ledger.untold(2))
    assert note["id"] == notes[0]["id"] and later > given[1][0]
    ledger.close()
    ledger.path.unlink()
    anew = Ledger(tmp_path, "yahoo", "lake")
    assert anew.identity != identity
    anew.close()


def test_a_disk_that_fills_loses_nothing(tmp_path):
    ledger = Ledger(tmp_path, "yahoo", "lake", "run", max_pages=40)
    campaign = ledger.campaign("all")
    kept = []

    def fill():
        for n in range(10_000):
            ledger.put(campaign, ask_for(f"S{n}"), answer_of(f"S{n}", 500))
            kept.append(f"S{n}")

    with pytest.raises(SiseError, match=r"full.*free space"):
        fill()
    assert kept and set(ledger.answered(campaign)) == {f"US:{s}" for s in kept}
    ledger.close()
    again = Ledger(tmp_path, "yahoo", "lake", "run")
    assert [k.ask.symbol for k in again.waiting(10**9)] == kept
    again.close()


FILL = """
import sys
from pathlib import Path
from tests.unit.test_sources_run import Ledger, answer_of, ask_for
folder, start = Path(sys.argv[1]), int(sys.argv[2])
ledger = Ledger(folder, "yahoo", "lake", "run")
campaign = ledger.campaign("all")
for n in range(start, 100_000):
    ledger.put(campaign, ask_for(f"S{n}"), answer_of(f"S{n}", 50))
    (folder / "acknowledged").write_text(str(n))
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    start = 0
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path), str(start)], cwd=HERE)
        end = time.monotonic() + 300
        while time.monotonic() < end and child.poll() is None:
            path = tmp_path / "acknowledged"
            if path.exists() and (text := path.read_text()) and int(text) > start + 20:
                break
            time.sleep(0.01)
        child.kill()
        child.wait()
        acknowledged = int((tmp_path / "acknowledged").read_text() or start)
        ledger = Ledger(tmp_path, "yahoo", "lake", "run")
        kept = ledger.waiting(10**9)
        assert [k.ask.symbol for k in kept] == [f"S{n}" for n in range(len(kept))] and len(kept) > acknowledged
        assert all(k.bars.num_rows == 50 for k in kept)
        start = len(kept)
        ledger.close()


class Oracle:
    """A vendor that answers as it is told."""

    name, by, markets, span, rebased = "oracle", "symbol", ("NASDAQ",), 0, True

    def __init__(self, answer, workers=4):
        self.answer, self.workers, self.asked = answer, workers, []

    def ask(self, ask):
        self.asked.append(ask.symbol)
        return self.answer(ask)


def crew_of(tmp_path, vendor, count):
    ledger = Ledger(tmp_path, "oracle", "lake", "run")
    crew = Crew(vendor, ledger, ledger.campaign("all"), [ask_for(f"S{n:03}") for n in range(count)])
    crew.start()
    crew._thread.join(30)
    assert not crew.running and crew.failure is None
    return (
        crew,
        ledger,
        {note["symbol"]: note for _, part in ledger.untold(9_999) for note in part if not ledger.told([note["id"]])},
    )


def test_a_block_ends_the_asking_and_the_rest_is_told_blocked(tmp_path):
    def answer(ask):
        if ask.symbol >= "S010":
            raise Blocked("refused")
        return answer_of(ask.symbol)

    vendor = Oracle(answer, workers=2)
    crew, ledger, notes = crew_of(tmp_path, vendor, 60)
    assert isinstance(crew.ended_by, Blocked) and len(vendor.asked) <= 13
    assert len(notes) == 60 and {n["fate"] for n in notes.values()} == {"ok", "blocked"}
    assert sum(n["fate"] == "ok" for n in notes.values()) == 10
    ledger.close()


def test_a_vendor_that_is_down_is_not_hammered(tmp_path):
    def answer(ask):
        raise Failed("no answer in time")

    vendor = Oracle(answer)
    crew, ledger, notes = crew_of(tmp_path, vendor, 500)
    assert len(vendor.asked) < 30 and "looks down" in str(crew.ended_by)
    assert {n["fate"] for n in notes.values()} == {"failed", "skipped"} and len(notes) == 500
    ledger.close()


def test_single_failures_of_any_kind_end_nothing(tmp_path):
    def answer(ask):
        number = int(ask.symbol[1:])
        if number % 3 == 0:
            raise NoData("nothing")
        if number % 7 == 0:
            raise ZeroDivisionError("nobody foresaw it")
        return answer_of(ask.symbol)

    crew, ledger, notes = crew_of(tmp_path, Oracle(answer), 40)
    assert crew.ended_by is None and "nobody foresaw" in notes["S007"]["reason"]
    assert crew.progress.fates == {"ok": 22, "no_data": 14, "failed": 4}
    ledger.close()


def test_the_day_s_budget_counts_over_runs(tmp_path):
    ledger = Ledger(tmp_path, "yahoo", "lake")
    for _ in range(3):
        ledger.spend(5)
    ledger.close()
    ledger = Ledger(tmp_path, "yahoo", "lake")
    ledger.spend(5)
    ledger.spend(5)
    with pytest.raises(Spent, match="5 sent"):
        ledger.spend(5)
    ledger.spend(5, lambda: date(2100, 1, 1))  # another day
    ledger.close()


def test_an_honest_estimate():
    now = [0.0]
    progress = Progress(1_000, lambda: now[0])
    assert "no pace" in progress.line()
    for _ in range(100):
        now[0] += 0.2
        progress.add("ok")
    assert progress.seconds_left() == pytest.approx(900 * 0.2, rel=0.02)
    now[0] += 40  # the vendor has asked for a pause: what is left takes longer, not less
    assert progress.seconds_left() == pytest.approx(900 * 0.6, rel=0.02)
    assert "100 of 1,000 asked" in progress.line()


def test_bars_are_kept_to_the_letter_and_those_of_an_earlier_version_are_read():
    days = [date(2025, 3, 28), date(2025, 3, 31)]
    columns = {
        "country": "US",
        "symbol": "NA",
        "date": days,
        "market": "NASDAQ",
        "close": [0.1, 1 / 3],
        "volume": [1.0, None],
    }
    bars = bars_table(columns, 2)
    packed, rest = frozen(Answer(Fate.OK, bars=bars, actions=[{"ex_date": days[0], "kind": "split"}]))
    assert thawed(packed, rest)[:2] == (bars, [{"ex_date": days[0], "kind": "split"}])
    before = io.BytesIO()
    pq.write_table(bars, before, compression="zstd")
    assert thawed(before.getvalue(), rest)[0] == bars and thawed(None, rest)[0].num_rows == 0
