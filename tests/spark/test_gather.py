"""Vendors' prices into the lake: what is missing is asked, what was asked is kept, what is wrong is told."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from string import ascii_uppercase

import pyarrow as pa
import pytest

from sise.prices.adjust import adjusted_prices
from sise.prices.gather import Wanted, gather
from sise.sources.asks import Ask
from sise.sources.krx import KrxVendor
from sise.sources.ledger import Ledger
from sise.sources.naver import NaverVendor
from sise.sources.plan import Held, Span
from sise.sources.settings import SourceSettings
from sise.sources.turns import take_turns
from sise.sources.yahoo import YahooVendor
from tests.builders import put, share
from tests.conftest import CONF, SHARED
from tests.vendors.krx import KrxServer, quote
from tests.vendors.server import Reply
from tests.vendors.yahoo import Share, YahooServer

NOW = datetime(2025, 4, 1, 12, tzinfo=UTC)  # the session of 2025-03-31 is over everywhere


@pytest.fixture
def recorded() -> Path:
    folder = SHARED / "recorded" / "krx"
    if not (folder / "index.json").is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder} is missing, and CI must have it")
        pytest.skip(f"{folder} is not there: KRX's recorded answers stand beside the project")
    return folder


@pytest.fixture
def collect(spark, lake, calendars, tmp_path, monkeypatch):
    """Runs one job against a server, as collect_prices.py does it."""
    monkeypatch.setenv("KRX_ID", "tester")
    monkeypatch.setenv("KRX_PW", "secret-word")
    runs = []

    def run(server, vendor=YahooVendor, now=NOW, most=None, most_charts=2_400, today=None, **wanted):
        settings = SourceSettings(
            lake=lake.root, conf=CONF, local=tmp_path / "local", krx_url=server.url, naver_url=server.url,
            yahoo_url=server.url, krx_rate=500, yahoo_rate=500, naver_rate=500, backoff_seconds=0.01,
            backoff_cap_seconds=0.05, http_timeout=3, yahoo_charts=most_charts, today=today,
        )  # fmt: skip
        runs.append(f"run-{len(runs)}")
        ledger = Ledger(settings.state, vendor.name, settings.lake, runs[-1])
        server.asked.clear()
        try:
            made = vendor(settings, calendars, lambda: ledger.spend(most), now=lambda: now)
            return gather(spark, lake, made, ledger, Wanted(**wanted), settings, calendars, now)
        finally:
            ledger.close()

    return run


def stored(lake, **where):
    rows = lake.read("prices")
    for column, value in where.items():
        rows = rows.where(rows[column] == value)
    return {(r["symbol"], r["date"]): r for r in rows.collect()}


def fates(lake, run):
    rows = lake.read("fetches").where(f"run_id = '{run}' AND kind = 'bars'").collect()
    return {(r["symbol"] or r["market"]): (r["fate"], r["reason"]) for r in rows}


def days_of(calendars, country="US", count=30, last=date(2025, 3, 31)):
    calendar = calendars[country]
    return calendar.between(calendar.back(last, count - 1), last)


def rows_of(days, start=100.0, step=1.0, volume=1000):
    return [
        (d, start + step * n, start + step * n + 1, start + step * n - 1, start + step * n + 0.5, volume + n)
        for n, d in enumerate(days)
    ]


def test_krx_recorded_answers_arrive_row_for_row(collect, lake, recorded):
    day = date(2021, 1, 22)
    with KrxServer(recorded) as server:
        outcome = collect(server, KrxVendor, datetime(2021, 1, 25, 3, tzinfo=UTC), start=day, end=day)
        assert server.logins == 1 and server.count("MDCSTAT01501") == 2
    assert outcome.failed is None and outcome.rows_rejected == 0
    rows = stored(lake)
    there = 0
    for file, market in (("035.json", "KOSPI"), ("036.json", "KOSDAQ")):
        for told in json.loads((recorded / file).read_text(encoding="utf-8"))["OutBlock_1"]:
            number = {k: float(v.replace(",", "")) for k, v in told.items() if k[:3] in ("TDD", "ACC", "CMP")}
            row = rows[told["ISU_SRT_CD"], day]
            there += 1
            assert row["market"] == market and row["basis"] == day and not row["provisional"]
            assert (row["close"], row["volume"]) == (number["TDD_CLSPRC"], number["ACC_TRDVOL"])
            assert row["value"] == number["ACC_TRDVAL"]
            assert row["reference"] == number["TDD_CLSPRC"] - number["CMPPREVDD_PRC"]
            if number["ACC_TRDVOL"]:
                assert [row[c] for c in ("open", "high", "low")] == [number[f"TDD_{c}PRC"] for c in ("OPN", "HG", "LW")]
            else:
                assert row["flags"] == ["no_trade"]
    assert there == len(rows) > 2_000


def test_a_holiday_a_closed_day_and_a_session_that_is_not_over(collect, lake, calendars):
    monday, friday = date(2025, 3, 31), date(2025, 3, 28)
    quotes = {(m, friday): [quote(f"{n:05}0", 1000 + n, 5, m) for n in range(3)] for m in ("STK", "KSQ")}
    with KrxServer(quotes=quotes) as server:
        server.indices = {"KOSPI": [(friday, 2_557.98)], "KOSDAQ": [(friday, 693.76)]}
        sunday = collect(server, KrxVendor, start=date(2025, 3, 30), end=date(2025, 3, 30))
        assert server.asked == [] and sunday.details["fates"] == {"holiday": 1}
        # 2025-03-31 is a session by the calendar, and the exchange shows dashes
        closed = collect(server, KrxVendor, start=friday, end=monday)
        assert (
            closed.details["fates"] == {"closed": 2, "ok": 4}
            and "calendar_overrides" in fates(lake, "run-1")["KOSPI"][1]
        )
        assert set(stored(lake)) == {(f"{n:05}0", friday) for n in range(3)}
        # at noon in Seoul on Monday the last session is Friday's
        noon = datetime(2025, 3, 31, 3, tzinfo=UTC)
        early = collect(server, KrxVendor, noon, start=friday, end=monday)
        assert early.details["fates"]["not_settled"] == 1 and server.count("20250331") == 0


def test_the_evening_is_provisional_and_the_morning_corrects_it(collect, lake):
    day = date(2025, 3, 31)
    quotes = {(m, day): [quote("00593" + m[0].replace("S", "0").replace("K", "5"), 1000, 5, m)] for m in ("STK", "KSQ")}
    quotes = {("STK", day): [quote("005930", 1000, 5, "STK")], ("KSQ", day): [quote("0126Z0", 500, 0, "KSQ")]}
    with KrxServer(quotes=quotes) as server:
        evening = datetime(2025, 3, 31, 9, 30, tzinfo=UTC)
        collect(server, KrxVendor, evening, start=day, end=day)
        assert stored(lake)["005930", day]["provisional"]
        quotes["STK", day][0]["ACC_TRDVOL"] = "2,147,483,999"  # more than 32 bits
        server.quotes = quotes
        outcome = collect(server, KrxVendor, datetime(2025, 4, 1, 0, tzinfo=UTC), start=day, end=day)
        row = stored(lake)["005930", day]
        assert (row["volume"], row["provisional"]) == (2_147_483_999, False)
        assert outcome.details["prices"] == {"inserted": 0, "updated": 2} and ("0126Z0", day) in stored(lake)


def test_only_what_is_missing_is_asked_and_holes_are_filled(collect, lake, calendars):
    days = days_of(calendars)
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in ("AAA", "NA")])
    holed = [row for row in rows_of(days) if row[0] != days[10]]
    with YahooServer({"AAA": Share(holed), "NA": Share(rows_of(days, 50)), "^IXIC": Share(rows_of(days))}) as server:
        first_run = collect(server, start=days[0])
        assert first_run.details["fates"] == {"ok": 3} and len(stored(lake)) == 59
        assert lake.read("indices").count() == 30
        server.shares["AAA"].rows = rows_of(days)  # the vendor has the session now, and corrected the last close
        server.shares["NA"].rows = [*rows_of(days, 50)[:-1], (days[-1], 79.0, 82.0, 78.0, 81.5, 5555)]
        put(lake, "symbols", [share("NEW", country="US", market="NASDAQ")])
        server.shares["NEW"] = Share(rows_of(days, 10))
        second = collect(server)
        assert second.details["prices"] == {"inserted": 31, "updated": 1}
        asked = {a.path.rsplit("/", 1)[1]: int(a.query["period1"]) for a in server.asked if "chart/" in a.path}
        assert asked["AAA"] == server.shares["AAA"].moment(days[10]) - 34_200  # from the hole on
        assert asked["NA"] == server.shares["NA"].moment(days[-5]) - 34_200  # the last five sessions
    rows = stored(lake)
    assert len(rows) == 90 and rows["NA", days[-1]]["close"] == 81.5


def test_a_run_that_failed_in_part_asks_only_for_the_rest(collect, lake, calendars):
    days = days_of(calendars, count=10)
    names = [f"S{n:02}" for n in range(12)]
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in names])
    shares = {s: Share(rows_of(days, 10 + n)) for n, s in enumerate(names)} | {"^IXIC": Share(rows_of(days))}
    with YahooServer(shares) as server:
        server.fault = lambda asked: Reply("<html>down</html>") if asked.path.endswith(("S03", "S07")) else None
        outcome = collect(server, start=days[0])
        assert outcome.failed is None and outcome.details["fates"] == {"failed": 2, "ok": 11}
        told = fates(lake, "run-0")
        assert told["S03"][0] == "failed" and "HTML" in told["S03"][1] and told["S00"][0] == "ok"
        server.fault = None
        outcome = collect(server, start=days[0])
        assert {a.path.rsplit("/", 1)[1] for a in server.asked if "chart/" in a.path} == {"S03", "S07"}
        assert outcome.details["fates"] == {"ok": 2} and len(stored(lake)) == 120
        most = collect(server, start=days[0], most=0)  # a new undertaking, and no request left today
        assert most.details["fates"]["skipped"] == 13 and most.failed is None


def test_years_are_one_undertaking_until_there_is_a_new_session(collect, lake, calendars):
    days, names = days_of(calendars, count=300), [f"S{n:02}" for n in range(4)]
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in names])
    shares = {s: Share(rows_of(days[:-1], 10 + n)) for n, s in enumerate(names)} | {"^IXIC": Share(rows_of(days))}

    def asked(server):
        return {a.path.rsplit("/", 1)[1]: int(a.query["period1"]) for a in server.asked if "chart/" in a.path}

    with YahooServer(shares) as server:
        server.fault = lambda asked: Reply("<html>down</html>") if asked.path.endswith(("S01", "S03")) else None
        saturday, sunday = (datetime(2025, 3, day, 12, tzinfo=UTC) for day in (29, 30))
        collect(server, now=saturday, years=1)
        server.fault, before = None, asked(server)
        collect(server, now=sunday, years=1)
        assert asked(server) == {s: before[s] for s in ("S01", "S03")}, "only what failed, of the same span"
        for name in names:
            server.shares[name] = Share(rows_of(days, 10 + int(name[1:])))
        collect(server, years=1)  # Monday's session is over
        week = server.shares["S00"].moment(days[-5]) - 34_200
        assert {s: at for s, at in asked(server).items() if s in names} == dict.fromkeys(names, week)
    assert min(day for _, day in stored(lake)) == date(2024, 3, 28) and len(stored(lake)) == 4 * 252


def charts(server):
    names = {a.path.rsplit("/", 1)[1] for a in server.asked if "chart/" in a.path}
    return {name for name in names if not name.startswith("%5E")} - {"^IXIC"}


def test_shares_beyond_what_a_day_has_time_for_are_quoted_in_their_turn(collect, lake, calendars):
    days, names = days_of(calendars, count=12), [f"S{n:03}" for n in range(60)]
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in names])
    rows = {s: rows_of(days, 50 + n) for n, s in enumerate(names)}
    asked = []
    with YahooServer({"^IXIC": Share(rows_of(days))}) as server:
        for n, most in ((8, 2_400), (9, 35), (10, 35)):
            # what a quote does not tell: a dividend, a session that was corrected
            server.shares |= {s: Share(rows[s][:n], dividends=[(days[8], 0.25)]) for s in names}
            evening = datetime.combine(days[n - 1] + timedelta(days=1), time(12), UTC)
            outcome = collect(server, now=evening, most_charts=most)
            assert outcome.details["fates"] == {"ok": 61} and outcome.rows_out >= 60
            asked.append(charts(server))
            if n == 9:
                assert {r["symbol"] for r in lake.read("actions").collect()} == asked[1]
                provisional = {s for (s, _), r in stored(lake).items() if r["provisional"]}
                assert provisional == set(names) - asked[1]
                for name in names:
                    rows[name][8] = (*rows[name][8][:5], 9_999)
    assert asked[0] == set(names) and all(20 < len(some) < 45 for some in asked[1:]), [*map(len, asked)]
    assert asked[1] - asked[2] and asked[2] - asked[1], "each has its turn"
    kept = stored(lake)
    only_quoted = set(names) - asked[2]
    assert {key for key, r in kept.items() if r["provisional"]} >= {(s, days[9]) for s in only_quoted}
    assert not any(r["provisional"] for (s, _), r in kept.items() if s in asked[2])
    told = {key: (r["open"], r["high"], r["low"], r["close"], r["volume"]) for key, r in kept.items()}
    for name in only_quoted:
        rows[name][8] = (*rows[name][8][:5], 1_008)
    assert told == {(s, row[0]): tuple(map(float, row[1:])) for s in names for row in rows[s][:10]}
    assert sorted((r["symbol"], r["amount"]) for r in lake.read("actions").collect()) == [
        (s, 0.25) for s in sorted(asked[1] | asked[2])
    ]


def whose_turn(calendars, day, names):
    """Those that a quote may answer of a day that has no time for any chart."""
    recheck, before = calendars["US"].back(day, 4), calendars["US"].back(day, 1)
    asks = [Ask("bars", "US", "NASDAQ", name, recheck, day) for name in names]
    held = {ask.key: Held(date(2024, 1, 2), before) for ask in asks}
    spans = {"US": Span(None, day, day)}
    return {ask.symbol for ask in take_turns(asks, held, calendars, spans, SourceSettings(conf=CONF), 0)}


def test_a_quote_that_does_not_go_on_from_what_is_stored_is_looked_into(collect, lake, calendars):
    days = days_of(calendars, count=8)
    turns = whose_turn(calendars, days[-1], [f"{c}{n}" for c in ascii_uppercase for n in range(14)])
    # A share for each case whose turn it is; it is not the turn of the one of case 1.
    s = {n: next(f"{c}{n}" for c in ascii_uppercase if (f"{c}{n}" in turns) == (n != 1)) for n in range(14)}
    names = [s[n] for n in (0, 2, 3, 4, 5, 7, 8, 11, 13)]
    put(lake, "symbols", [share(name, country="US", market="NASDAQ") for name in (*names, s[1])])
    levels = {name: 100 + int(name[1:]) for name in (*names, s[1])}
    with YahooServer({name: Share(rows_of(days[:-1], level)) for name, level in levels.items()}) as server:
        collect(server, now=datetime(2025, 3, 29, 12, tzinfo=UTC), start=days[0])
        server.shares |= {name: Share(rows_of(days, level)) for name, level in levels.items()}
        halves = [(d, o / 2, h / 2, low / 2, c / 2, v * 2) for d, o, h, low, c, v in rows_of(days, 100)]
        server.shares[s[0]] = Share(halves, splits=[(days[-1], 2, 1)])
        server.shares[s[2]] = Share([*rows_of(days, 102)[:-1], (days[-1], 60.0, 61.0, 59.0, 60.0, 5)])
        server.shares[s[3]].currency = "CAD"
        server.shares[s[4]] = Share([*rows_of(days, 104)[:-1], (days[-1], 110.0, 109.0, 108.0, 110.0, 7)])
        server.shares[s[5]] = Share(rows_of(days[:-1], 105))
        server.shares[s[7]].last_trade = days[-2]
        odd = server._quotes(names)
        odd[6]["regularMarketTime"] *= 1000
        server.quotes = odd
        server.fault = lambda asked: Reply("<html>down</html>") if asked.path.endswith(f"chart/{s[1]}") else None
        outcome = collect(server, most_charts=0)
        assert charts(server) == {s[0], s[1], s[2], s[3], s[4], s[5], s[7], s[8]}
        assert any("2 shares were quoted" in line for line in outcome.lines)
        told = fates(lake, "run-1")
        assert told[s[11]] == told[s[13]] == ("ok", "quoted")
        assert told[s[3]][0] == told[s[1]][0] == "failed"
        rows = stored(lake)
        assert rows[s[0], days[-1]]["close"] == halves[-1][4] and rows[s[11], days[-1]]["close"] == 118.5
        assert [r["factor"] for r in lake.read("actions").collect()] == [0.5]
        server.shares[s[3]].currency, server.quotes = "USD", []
        collect(server, most_charts=0)  # what failed, the one that is quotable by a quote
        assert charts(server) == {s[1]} and fates(lake, "run-2")[s[3]] == ("ok", "quoted")
        server.fault = None
        collect(server, most_charts=0)  # the one that failed, and it is no longer anyone's turn
        assert [a.path.rsplit("/", 1)[1] for a in server.asked if "chart/" in a.path] == [s[1]]
        assert not [a for a in server.asked if "quote" in a.path]
        # Days without a run: what was only quoted is asked for with what was before it, and a dividend of then comes.
        later = calendars["US"].between(days[0], date(2025, 4, 10))
        server.shares |= {name: Share(rows_of(later, level)) for name, level in levels.items()}
        server.shares[s[11]].dividends = [(days[-1], 0.25)]
        collect(server, now=datetime(2025, 4, 11, 12, tzinfo=UTC), most_charts=0)
        from_day = {a.path.rsplit("/", 1)[1]: int(a.query["period1"]) for a in server.asked if "chart/" in a.path}
        assert from_day[s[11]] == server.shares[s[11]].moment(days[-5]) - 34_200
        assert from_day[s[1]] == server.shares[s[1]].moment(days[-4]) - 34_200, "a rewritten history shows there"
    assert [(r["symbol"], r["amount"]) for r in lake.read("actions").where("kind = 'dividend'").collect()] == [
        (s[11], 0.25)
    ]
    assert not [key for key, r in stored(lake).items() if r["provisional"]]


def test_without_quotes_each_share_is_asked_for(collect, lake, calendars):
    days, names = days_of(calendars, count=8), ["AAA", "BBB", "CCC", "DDD"]
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in names])
    with YahooServer({s: Share(rows_of(days[:-1])) for s in names}) as server:
        collect(server, now=datetime(2025, 3, 29, 12, tzinfo=UTC), start=days[0])
        server.shares |= {s: Share(rows_of(days)) for s in names}
        server.fault = lambda asked: Reply("<html>consent</html>") if "quote" in asked.path else None
        outcome = collect(server, most_charts=0)
        assert charts(server) == set(names) and outcome.details["fates"]["ok"] == 4
        assert any("gave no quotes" in line for line in outcome.lines)


def test_a_split_rewrites_no_history_and_one_served_twice_is_told(collect, lake, calendars):
    days = days_of(calendars)
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in ("REAL", "TWICE", "MUTE", "LATE")])
    before, ex = rows_of(days[:-1]), days[-1]
    cut = [(d, o / 4, h / 4, lo / 4, c / 4, v * 4) for d, o, h, lo, c, v in rows_of(days)]
    with YahooServer({s: Share(before) for s in ("REAL", "TWICE", "MUTE", "LATE")}) as server:
        eve = datetime(2025, 3, 29, 12, tzinfo=UTC)
        collect(server, now=eve, start=days[0])
        server.shares["REAL"] = Share(cut, splits=[(ex, 4, 1)])
        server.shares["TWICE"] = Share(cut, splits=[(days[-2], 4, 1), (ex, 4, 1)])
        server.shares["MUTE"] = Share(cut)  # the history is rewritten, and nobody says why
        server.shares["LATE"] = Share([*before, cut[-1]], splits=[(ex, 4, 1)])  # announced, not applied yet
        outcome = collect(server)
    from sise.prices.adjust import adjusted_prices

    actions = {(r["symbol"], r["kind"], r["ex_date"]): r for r in lake.read("actions").collect()}
    assert actions["REAL", "split", ex]["confirmed"] and actions["LATE", "split", ex]["confirmed"]
    believed = [key for key, r in actions.items() if key[0] == "TWICE" and r["confirmed"]]
    assert len(believed) == 1 and any("TWICE" in line and "twice" in line for line in outcome.lines)
    assert not actions["MUTE", "unknown", ex]["confirmed"]
    adjusted = adjusted_prices(lake.read("prices"), lake.read("actions")).collect()
    closes = {(r["symbol"], r["date"]): r["close"] for r in adjusted}
    for symbol in ("REAL", "TWICE", "MUTE", "LATE"):
        for row in cut:
            assert closes[symbol, row[0]] == pytest.approx(row[4], rel=1e-9), (symbol, row[0])
    assert any("MUTE" in line for line in outcome.lines)
    jumps = [r["symbol"] for r in lake.read("prices").collect() if "jump" in (r["flags"] or [])]
    assert jumps == []


def test_an_answer_that_contradicts_itself_is_quarantined(collect, lake, calendars):
    days = days_of(calendars, count=20)
    put(lake, "symbols", [share("ODD", country="US", market="NASDAQ")])
    with YahooServer({"ODD": Share(rows_of(days[:-1]))}) as server:
        collect(server, now=datetime(2025, 3, 29, 12, tzinfo=UTC), start=days[0])
        mixed = [
            (d, o * f, h * f, lo * f, c * f, v)
            for n, (d, o, h, lo, c, v) in enumerate(rows_of(days))
            for f in [1.7 ** (n % 3)]
        ]
        server.shares["ODD"].rows = mixed
        outcome = collect(server)
        assert outcome.details["fates"]["failed"] == 1 and "contradicts" in fates(lake, "run-1")["ODD"][1]
        assert len(stored(lake)) == 19 and lake.read("prices_rejected").count() == 5
        server.shares["ODD"].rows = rows_of(days)
        assert collect(server).details["prices"]["inserted"] == 1


def test_a_killed_merge_is_done_again_without_a_request(collect, lake, calendars, monkeypatch):
    days = days_of(calendars, count=8)
    put(lake, "symbols", [share("AAA", country="US", market="NASDAQ")])
    with YahooServer({"AAA": Share(rows_of(days))}) as server:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("sise.prices.gather.collect_prices", full)
            with pytest.raises(OSError, match="No space"):
                collect(server, start=days[0])
        asked = server.count("chart/AAA")
        assert asked == 1 and stored(lake) == {}
        collect(server, start=days[0])
        assert server.count("chart/AAA") == 0 and len(stored(lake)) == 8


def test_what_became_of_a_question_is_told_once_through_a_kill(collect, lake, calendars, tmp_path, monkeypatch):
    days = days_of(calendars, count=8)
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in ("AAA", "BAD")])

    def told():
        rows = lake.read("fetches").where("kind = 'bars'").collect()
        return sorted((r["run_id"], r["symbol"], r["fate"]) for r in rows)

    def killed(*_):
        raise SystemExit("killed")

    with YahooServer({"AAA": Share(rows_of(days)), "BAD": Share(rows_of(days))}) as server:
        server.fault = lambda asked: Reply("<html>down</html>") if asked.path.endswith("BAD") else None
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "told", killed)  # the lake has them, and the ledger does not know it
            with pytest.raises(SystemExit):
                collect(server, start=days[0])
        first = [("run-0", "AAA", "ok"), ("run-0", "BAD", "failed")]
        assert told() == first
        collect(server, start=days[0])
        assert told() == (first := [*first, ("run-1", "BAD", "failed")]), "the new one and no other again"
        collect(server, start=days[0])  # its note has the id of one that was let go
        assert told() == (first := [*first, ("run-2", "BAD", "failed")])
        for path in (tmp_path / "local" / "state" / "ledger").glob("*.sqlite*"):
            path.unlink()
        collect(server, start=days[0])
        assert told() == [*first, ("run-3", "AAA", "ok"), ("run-3", "BAD", "failed")], "a ledger made anew is another"


def test_the_first_merge_is_made_while_a_slow_vendor_is_waited_for(collect, lake, calendars, monkeypatch):
    monkeypatch.setattr("sise.prices.gather._LONG", 0)
    days, names = days_of(calendars, count=8), [f"S{n:02}" for n in range(30)]
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in names])
    with YahooServer({s: Share(rows_of(days, 10 + n)) for n, s in enumerate(names)}, latency=(1.0, 1.2)) as server:
        outcome = collect(server, start=days[0])
    assert outcome.details["chunks"] == 2 and len(stored(lake)) == 240 == outcome.details["prices"]["inserted"]
    assert outcome.details["coverage"] == {"NASDAQ": 1.0} and not any("coverage" in line for line in outcome.lines)


def test_a_lake_made_anew_is_asked_for_anew(collect, lake, calendars):
    import shutil

    days = days_of(calendars, count=8)
    put(lake, "symbols", [share("AAA", country="US", market="NASDAQ")])
    with YahooServer({"AAA": Share(rows_of(days))}) as server:
        collect(server, start=days[0])
        shutil.rmtree(Path(lake.root) / "prices")
        lake._known.discard("prices")
        collect(server, start=days[0])
        assert server.count("chart/AAA") == 1 and len(stored(lake)) == 8


def test_a_share_that_the_market_does_not_have_is_noted(collect, lake):
    day = date(2025, 3, 31)
    put(lake, "symbols", [share("005930"), share("000660"), share("0126Z0", market="KOSDAQ")])
    with KrxServer(
        quotes={("STK", day): [quote("005930", 1000)], ("KSQ", day): [quote("0126Z0", 500, market="KSQ")]}
    ) as server:
        outcome = collect(server, KrxVendor, start=day, end=day)
    assert outcome.details["absent"] == 1 and fates(lake, "run-0")["000660"][0] == "no_data"


@pytest.mark.market
def test_the_real_market_arrives_row_for_row(collect, lake, market_files, calendars):
    """Shares of both real files, halts, letters in codes and the vendor's rounding among them, through yfinance and
    pykrx: each row is in the lake as the file has it, or refused with its reason."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def some(country, count, more=()):
        table = pq.read_table(market_files[country])
        names = pc.unique(table["symbol"]).to_pylist()
        chosen = {*names[:: len(names) // count], *(name for name in names if name in more)}
        found = {}
        for row in table.filter(pc.is_in(table["symbol"], pa.array(list(chosen)))).to_pylist():
            values = (float(row[c]) for c in ("open", "high", "low", "close"))
            day = row["date"]
            found.setdefault(row["symbol"], []).append((day, *values, int(row["volume"])))
        return {symbol: sorted(rows) for symbol, rows in found.items()}

    us = some("US", 12, ("AAPL", "NVDA"))
    kr = some("KR", 20, ("012170", "425040", "0126Z0", "005930"))
    put(lake, "symbols", [share(s, country="US", market="NASDAQ") for s in us] + [share(s) for s in kr])
    with YahooServer({s: Share(rows, last_trade=date(2020, 1, 10)) for s, rows in us.items()}) as server:
        first_day = min(rows[0][0] for rows in us.values())
        told = collect(
            server,
            now=datetime(2020, 1, 11, 12, tzinfo=UTC),
            start=first_day,
            end=date(2018, 12, 31),
            markets=("NASDAQ",),
        )
    assert told.details["fates"].get("ok", 0) >= len(us)
    with KrxServer() as server:
        server.charts = kr
        told = collect(
            server, NaverVendor, datetime(2025, 4, 1, 0, tzinfo=UTC), start=date(2023, 12, 5), markets=("KOSPI",)
        )
    assert told.details["fates"]["ok"] == len(kr)
    columns = ("open", "high", "low", "close", "volume")
    got = {(r["country"], r["symbol"], r["date"]): tuple(r[c] for c in columns) for r in lake.read("prices").collect()}
    refused = {(r["country"], r["symbol"], r["date"]) for r in lake.read("prices_rejected").collect()}
    for country, rows in (("US", us), ("KR", kr)):
        for symbol, bars in rows.items():
            for day, *values in bars:
                if (country, symbol, str(day)) not in refused:
                    assert got[country, symbol, day] == pytest.approx(tuple(values), rel=1e-12), (symbol, day)
    assert len(got) + len(refused) == sum(map(len, us.values())) + sum(map(len, kr.values()))
    assert len(refused) <= 0.01 * len(got)


def steady(days, ex, factor, seen):
    """Rows of a share whose price hardly moves, as a vendor that adjusts has them on the evening of ``seen``."""
    return [
        (d, c, c + 1, c - 1, c, 1000)
        for n, d in enumerate(days)
        if d <= seen
        for c in [(100.0 + n % 3) * (factor if seen >= ex > d else 1) / (factor if d < ex else 1)]
    ]


def closes(lake, symbol):
    rows = adjusted_prices(lake.read("prices"), lake.read("actions")).where(f"symbol = '{symbol}'").orderBy("date")
    return [row["close"] for row in rows.collect()]


@pytest.mark.parametrize("pause", [2, 8])
def test_a_history_rewritten_while_nobody_asked_is_noticed(collect, lake, calendars, pause):
    """Naver announces nothing: only stored bars tell, so some are asked for however long ago they are."""
    days = days_of(calendars, "KR", 30)
    last, back = days[15], days[15 + pause]
    put(lake, "symbols", [share("005930")])
    with KrxServer() as server:
        for day in (last, back):
            server.charts = {"005930": steady(days, days[16], 1 / 1.2, day)}
            evening = datetime.combine(day, time(10), UTC)
            collect(server, NaverVendor, evening, **({"start": days[0]} if day == last else {}))
    assert closes(lake, "005930") == pytest.approx([100.0 + n % 3 for n in range(16 + pause)], rel=0.006)
    assert lake.read("actions").where("kind = 'unknown' AND NOT confirmed").count() == 1


def test_a_vendor_that_adjusts_after_one_that_does_not(collect, lake, calendars):
    """KRX blocks, a bonus issue comes meanwhile, Naver has it in its prices and says nothing; then KRX is back."""
    days = days_of(calendars, "KR", 20)
    ex = days[10]
    put(lake, "symbols", [share("005930", listed_shares=1_000_000, valid_from=days[0])])
    true = {d: 1000.0 + 10 * (n % 3) for n, d in enumerate(days)}
    traded = {d: true[d] * (1 if d >= ex else 1.2) for d in days}

    def table(n):
        before = traded[days[n - 1]] / (1.2 if days[n] == ex else 1) if n else traded[days[n]]
        return [quote("005930", traded[days[n]], traded[days[n]] - before, volume=1000)]

    with KrxServer() as server:
        server.indices = {"KOSPI": [(d, 2500) for d in days], "KOSDAQ": [(d, 700) for d in days]}
        server.quotes = {("KSQ", d): [quote("0126Z0", 500, 0, "KSQ")] for d in days}
        server.quotes |= {("STK", days[n]): table(n) for n in range(20)}
        collect(server, KrxVendor, datetime.combine(days[9], time(10), UTC), start=days[0])
        server.charts = {"005930": [(d, *[true[d]] * 4, 1000) for d in days[:13]]}
        collect(server, NaverVendor, datetime.combine(days[12], time(10), UTC), codes=["005930"])
        assert closes(lake, "005930") == pytest.approx([true[d] for d in days[:13]], rel=0.006)
        collect(server, KrxVendor, datetime.combine(days[16], time(10), UTC))
    assert closes(lake, "005930") == pytest.approx([true[d] for d in days[:17]], rel=0.006)


def test_a_share_of_which_the_door_lets_nothing_in_has_no_answer(collect, lake, calendars):
    days = days_of(calendars, count=30)
    put(lake, "symbols", [share("BAD", country="US", market="NASDAQ"), share("AAA", country="US", market="NASDAQ")])
    upside_down = [(d, o, low, high, c, v) for d, o, high, low, c, v in rows_of(days)]
    with YahooServer({"BAD": Share(upside_down), "AAA": Share(rows_of(days))}) as server:
        for _ in range(4):  # more often than a session is looked for that the vendor does not have
            outcome = collect(server, start=days[0])
            assert outcome.details["fates"]["failed"] == 1
        fate, reason = fates(lake, "run-3")["BAD"]
        assert fate == "failed" and "high is below low" in reason
        server.shares["BAD"].rows = rows_of(days)
        collect(server, start=days[0])
    assert len(closes(lake, "BAD")) == len(days)


def test_a_past_day_is_repeated_from_a_vendor_whose_prices_are_as_of_now(collect, lake, calendars):
    days = days_of(calendars, count=10)
    put(lake, "symbols", [share("AAA", country="US", market="NASDAQ")])
    with YahooServer({"AAA": Share(rows_of(days), last_trade=days[-1])}) as server:
        outcome = collect(server, start=days[0], today=days[-3])
    assert outcome.rows_rejected == 0 and len(closes(lake, "AAA")) == 8
