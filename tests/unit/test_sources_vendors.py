"""Each vendor's answers and failures, through the real client libraries, against servers that speak as they do."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta

import pytest

from sise.errors import ConfigError
from sise.sources.asks import Ask
from sise.sources.kis import KisVendor
from sise.sources.kis_actions import KINDS, announces
from sise.sources.krx import KrxVendor
from sise.sources.live import Share as LiveShare
from sise.sources.naver import NaverVendor
from sise.sources.outcome import Blocked, Failed, Fate, NoData, Refused
from sise.sources.settings import SourceSettings
from sise.sources.yahoo import YahooVendor, yahoo_symbol
from sise.sources.yahoo_stream import YahooPoll
from tests.vendors.kis import KisServer
from tests.vendors.krx import KrxServer, quote
from tests.vendors.server import Reply, first
from tests.vendors.yahoo import Share, YahooServer

DAY = date(2025, 3, 31)
NOW = datetime(2025, 4, 1, 12, tzinfo=UTC)
MARKET = Ask("bars", "KR", "KOSPI", None, DAY, DAY)


@pytest.fixture
def opened(tmp_path, calendars, monkeypatch):
    """A vendor against a server, logged in."""
    for name, value in {
        "KRX_ID": "tester", "KRX_PW": "secret-word", "KIS_APP_KEY": "key", "KIS_APP_SECRET": "app-secret"
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    made = []

    def make(kind, server, **other):
        settings = SourceSettings(
            local=tmp_path, krx_url=server.url, naver_url=server.url, yahoo_url=server.url, kis_url=server.url,
            krx_rate=500, naver_rate=500, yahoo_rate=500, kis_rate=500, backoff_seconds=0.01, backoff_cap_seconds=0.02,
            http_timeout=2, http_attempts=3, **other,
        )  # fmt: skip
        made.append(kind(settings, calendars, now=lambda: NOW))
        made[-1].open()
        return made[-1]

    yield make
    for vendor in made:
        vendor.close()


def krx_server(**options):
    return KrxServer(quotes={("STK", DAY): [quote("005930", 57_800, -2_400, volume=100)]}, **options)


def test_krx_a_bar_with_its_reference_and_an_odd_row(opened):
    with krx_server() as server:
        odd = quote("0126Z0", 1_000) | {"ACC_TRDVOL": "many"}
        new = {k: "-" if k[:3] in ("TDD", "ACC", "CMP", "FLU", "MKT") else v for k, v in quote("00499K", 1).items()}
        server.quotes["STK", DAY] = [*server.quotes["STK", DAY], odd, new]
        answer = opened(KrxVendor, server).ask(MARKET)
        rows = {row["symbol"]: row for row in answer.bars.to_pylist()}
        assert set(rows) == {"005930", "0126Z0"} and rows["005930"]["reference"] == 60_200
        assert rows["0126Z0"]["problem"] == "volume 'many' is not a number"
        assert (server.logins, answer.requests) == (1, 1)


def test_krx_says_nothing_of_the_login(opened, capfd):
    with krx_server() as server:
        vendor = opened(KrxVendor, server)
        vendor.ask(MARKET)
        server.fault = first(9, Reply('{"OutBlock_2": []}'), "getJsonData")
        with pytest.raises(Failed, match="another form") as caught:
            vendor.ask(MARKET)
    told = capfd.readouterr()
    for text in (told.out, told.err, str(caught.value), repr(vendor.settings)):
        assert "tester" not in text and "secret-word" not in text
    assert told.out == ""
    assert os.environ["KRX_ID"] == "tester"


@pytest.mark.parametrize(
    ("reply", "error", "said", "requests"),
    [
        (Reply("LOGOUT", 400), Failed, "LOGOUT", 1),
        (Reply("LOGOUT"), Failed, "LOGOUT", 1),
        (Reply("<html>Access Denied</html>", 403), Blocked, "nothing is asked before", 1),
        (Reply("<html>비정상적인 접근입니다</html>"), Blocked, "nothing is asked before", 1),
        (Reply("<html>점검 중</html>"), Failed, "HTML", 3),
        (Reply('{"OutBlock_1": [{"ISU_SRT_CD": "0059'), Failed, "breaks off", 3),
        (Reply("{}", 500), Failed, "HTTP 500", 3),
        (Reply('{"OutBlock_1": [{"ISU_SRT_CD": "005930"}]}'), Failed, "another form", 1),
    ],
)
def test_krx_failures_are_told_apart(opened, reply, error, said, requests):
    with krx_server() as server:
        vendor = opened(KrxVendor, server)
        server.fault = first(99, reply, "getJsonData")
        server.asked.clear()
        with pytest.raises(error, match=said):
            vendor.ask(MARKET)
        assert len(server.asked) == requests
        if error is Blocked:
            server.fault = None
            with pytest.raises(Blocked):  # the block survives the process: a new vendor does not even log in
                opened(KrxVendor, server)
            assert len(server.asked) == requests


def test_krx_a_closed_day_is_an_answer_and_an_empty_table_is_none(opened):
    with krx_server() as server:
        vendor = opened(KrxVendor, server)
        assert vendor.ask(Ask("bars", "KR", "KOSPI", None, date(2025, 3, 30), date(2025, 3, 30))).fate == Fate.CLOSED
        zeros = [quote("005930", 0, volume=0, value=0)]
        server.quotes["STK", DAY] = zeros
        assert vendor.ask(MARKET).fate == Fate.CLOSED
        one = Ask("indices", "KR", "KOSPI", None, DAY, DAY)
        assert vendor.ask(one).fate == Fate.NO_DATA  # the only session asked for may be one that was closed
        server.quotes["STK", DAY] = []
        week = Ask("indices", "KR", "KOSPI", None, date(2025, 3, 24), DAY)
        for ask in (MARKET, week, MARKET, MARKET):
            with pytest.raises(Failed, match=r"KOSPI .* is empty"):
                vendor.ask(ask)
        server.quotes["STK", DAY] = zeros
        vendor.ask(MARKET)  # a table that is none begins the count anew
        server.quotes["STK", DAY] = []
        for _ in range(4):
            with pytest.raises(Failed, match="is empty"):
                vendor.ask(MARKET)
        with pytest.raises(Blocked, match="5 tables in a row were empty"):
            vendor.ask(MARKET)
        sent = len(server.asked)
        with pytest.raises(Blocked):
            vendor.ask(MARKET)
        assert len(server.asked) == sent


def test_krx_logins(opened, monkeypatch):
    with krx_server() as server:
        server.code = "CD011"  # another session of the account: pykrx sends it again with skipDup
        assert opened(KrxVendor, server).ask(MARKET).fate == Fate.OK and server.logins == 2
        server.code = "CD010"
        with pytest.raises(Refused, match="password of KRX_ID to be changed"):
            opened(KrxVendor, server)
        server.code = "CD001"
        monkeypatch.setenv("KRX_PW", "wrong")
        with pytest.raises(Refused, match="locks the account"):
            opened(KrxVendor, server)
        monkeypatch.delenv("KRX_PW")
        with pytest.raises(ConfigError, match="KRX_PW is not set"):
            opened(KrxVendor, server, secrets_file=server_free_path(monkeypatch))


def server_free_path(monkeypatch):
    from pathlib import Path

    return Path("/nonexistent/secrets.env")


def test_krx_logs_in_again_only_when_the_session_may_have_run_out(opened):
    with krx_server() as server:
        vendor = opened(KrxVendor, server)
        vendor._login._since -= timedelta(hours=1)
        server.fault = first(1, Reply("LOGOUT", 400), "getJsonData")
        assert vendor.ask(MARKET).fate == Fate.OK and server.logins == 2
        server.fault = first(1, Reply("LOGOUT", 400), "getJsonData")
        with pytest.raises(Failed, match="elsewhere"):
            vendor.ask(MARKET)


def test_naver_by_share(opened, calendars):
    days = calendars["KR"].between(date(2025, 3, 3), DAY)
    with KrxServer() as server:
        server.charts["0126Z0"] = [(day, 100 + n, 110 + n, 90 + n, 105 + n, 10 + n) for n, day in enumerate(days)]
        vendor = opened(NaverVendor, server)
        ask = Ask("bars", "KR", "KOSDAQ", "0126Z0", date(2025, 3, 10), DAY)
        table = vendor.ask(ask).bars.to_pylist()
        assert [row["date"] for row in table] == [d for d in days if d >= date(2025, 3, 10)]
        assert {row["basis"] for row in table} == {date(2025, 4, 1)} and table[-1]["close"] == 105 + len(days) - 1
        with pytest.raises(NoData):
            vendor.ask(Ask("bars", "KR", "KOSDAQ", "999999", DAY, DAY))
        server.fault = first(9, Reply("<html>no chart"))
        with pytest.raises(Failed, match="XML"):
            vendor.ask(ask)


def test_naver_prices_are_as_of_the_newest_session_that_has_opened(opened, calendars):
    days = calendars["KR"].between(date(2025, 3, 3), date(2025, 4, 1))
    old = Ask("bars", "KR", "KOSDAQ", "0126Z0", date(2025, 3, 10), date(2025, 3, 12))
    with KrxServer() as server:
        server.charts["0126Z0"] = [(day, 100, 110, 90, 105, 10) for day in days]
        vendor = opened(NaverVendor, server)
        for moment, basis in (
            (datetime(2025, 3, 31, 23, 59, tzinfo=UTC), DAY),  # 08:59 in Seoul
            (datetime(2025, 4, 1, 0, 0, tzinfo=UTC), date(2025, 4, 1)),
            (datetime(2025, 4, 5, 3, tzinfo=UTC), date(2025, 4, 4)),  # a Saturday
        ):
            vendor.now = lambda moment=moment: moment
            assert {row["basis"] for row in vendor.ask(old).bars.to_pylist()} == {basis}


def test_naver_has_nothing_to_do_with_krx_s_login(opened, calendars):
    days = calendars["KR"].between(date(2025, 3, 3), DAY)
    with KrxServer(quotes={("STK", DAY): [quote("005930", 57_800)]}) as server:
        server.charts["005930"] = [(day, 100, 110, 90, 105, 10) for day in days]
        krx = opened(KrxVendor, server)  # a session that another source of this process has left open
        krx.ask(MARKET)
        server.asked.clear()
        naver = opened(NaverVendor, server)
        assert naver.ask(Ask("bars", "KR", "KOSPI", "005930", DAY, DAY)).fate == Fate.OK
        (asked,) = server.asked  # no login, though KRX_ID and KRX_PW are set
        assert asked.path.endswith("sise.nhn") and "Cookie" not in asked.headers
        assert server.logins == 1


def rows(days, **changed):
    made = {d: (d, 10.0 + n, 11.0 + n, 9.0 + n, 10.5 + n, 1_000 + n) for n, d in enumerate(days)}
    return [changed.get(str(d), row) for d, row in made.items()]


US = Ask("bars", "US", "NASDAQ", "NA", date(2025, 3, 3), DAY)


def test_yahoo_names():
    assert [yahoo_symbol("NASDAQ", s) for s in ("NA", "BRK.B")] == ["NA", "BRK-B"]
    assert yahoo_symbol("KOSPI", "005930") == "005930.KS" and yahoo_symbol("KOSDAQ", "0126Z0") == "0126Z0.KQ"


def test_yahoo_oddities(opened, calendars):
    days = calendars["US"].between(US.first, DAY)
    with YahooServer({"NA": Share(rows(days), dividends=[(days[3], 0.5), (days[4], 9.0, "EUR")])}) as server:
        vendor = opened(YahooVendor, server)
        plain = vendor.ask(US)
        assert plain.bars.num_rows == len(days) and plain.reason == ""
        assert [(a["ex_date"], a["amount"]) for a in plain.actions] == [(days[3], 0.5)]  # the one in euro is not taken

        def alter(chart):
            quote = chart["indicators"]["quote"][0]
            chart["timestamp"] = chart["timestamp"][::-1]
            for name in quote:
                quote[name] = quote[name][::-1]
            quote["close"][2] = None
            chart["timestamp"].append(chart["timestamp"][0] + 60)  # the last day again, with another price
            for name in quote:
                quote[name].append(quote[name][0] * 2)
            chart["indicators"]["adjclose"] = [{"adjclose": quote["close"]}]

        server.alter = alter
        odd = vendor.ask(US)
        assert "out of order" in odd.reason and "1 days twice" in odd.reason and "1 rows without a price" in odd.reason
        got = {row["date"]: row for row in odd.bars.to_pylist()}
        assert days[-3] not in got and len(got) == len(days) - 1  # a row without a price is none, and stays missing
        assert "twice" in got[DAY]["problem"] and sum(row["problem"] is not None for row in got.values()) == 1
        assert list(got) == sorted(got)


def test_yahoo_a_volume_that_is_missing_is_not_none_traded(opened, calendars):
    days = calendars["US"].between(US.first, DAY)
    gone, quiet = days[4], days[6]
    given = rows(
        days, **{str(gone): (gone, 14.0, 15.0, 13.0, 14.5, None), str(quiet): (quiet, 16.0, 17.0, 15.0, 16.5, 0)}
    )
    with YahooServer({"NA": Share(given), "^IXIC": Share(given)}) as server:
        vendor = opened(YahooVendor, server)
        answer = vendor.ask(US)
        got = {row["date"]: row for row in answer.bars.to_pylist()}
        assert set(days) - set(got) == {gone} and "1 rows without a volume" in answer.reason
        assert got[quiet]["volume"] == 0
        index = {
            row["date"]: row["volume"]
            for row in vendor.ask(Ask("indices", "US", "NASDAQ", None, US.first, DAY)).indices
        }
        assert len(index) == len(days) and index[gone] is None and index[quiet] == 0
        server.shares["NA"] = Share([(d, 1.0, 1.0, 1.0, 1.0, None) for d in days])
        with pytest.raises(NoData, match="rows without a volume"):
            vendor.ask(US)


def test_yahoo_basis_and_live_rows(opened, calendars):
    days = calendars["US"].between(US.first, date(2025, 4, 1))
    with YahooServer({"NA": Share(rows(days), splits=[(days[-1], 2, 1)], last_trade=days[-1])}) as server:
        answer = opened(YahooVendor, server).ask(US)
        table = answer.bars.to_pylist()
        assert table[-1]["date"] == DAY  # the session that goes on is not asked for
        assert {row["basis"] for row in table} == {date(2025, 4, 1)}  # but today's split is in the prices already


@pytest.mark.parametrize(
    ("share", "error", "said"),
    [
        (Share([], currency="USD"), NoData, "Yahoo"),
        (Share([(DAY, 1.0, 1.0, 1.0, 1.0, 1)], currency="KRW"), Failed, "in KRW, not in USD"),
        (Share([(DAY, None, None, None, None, None)]), NoData, "1 rows without a price"),
        (None, NoData, "may be delisted"),
    ],
)
def test_yahoo_without_an_answer(opened, share, error, said):
    with YahooServer({"NA": share} if share else {}) as server, pytest.raises(error, match=said):
        opened(YahooVendor, server).ask(US)


@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        (Reply("<html>x</html>"), Failed, "HTML"),
        (Reply('{"chart": {"result": [{"meta"'), Failed, "breaks off"),
        (Reply("{}", 500), Failed, "HTTP 500"),
        (Reply("{}", silent=3), Failed, "no answer in time"),
        (Reply("Too Many Requests", 429), Blocked, "429"),
        (Reply('{"chart": {"result": [{"meta": {}}], "error": null}}'), (Failed, NoData), "Yahoo"),
        (Reply("{}"), Failed, "no chart"),
    ],
)
def test_yahoo_failures(opened, calendars, reply, error, said):
    with YahooServer({"NA": Share(rows(calendars["US"].between(US.first, DAY)))}) as server:
        vendor = opened(YahooVendor, server)
        server.fault = first(99, reply, "chart")
        with pytest.raises(error, match=said):
            vendor.ask(US)
        assert server.count("chart") <= 3
        if error is not Blocked:
            server.fault = None
            assert vendor.ask(US).fate == Fate.OK


def test_yahoo_charts_need_no_crumb(opened, calendars):
    with YahooServer({"NA": Share(rows(calendars["US"].between(US.first, DAY)))}) as server:
        for status, part in ((401, "getcrumb"), (403, "getcrumb"), (500, "getcrumb"), (403, "")):
            server.asked.clear()
            server.fault = lambda asked: (
                Reply("Invalid Cookie", status) if part in asked.path and "chart" not in asked.path else None  # noqa: B023
            )
            vendor = opened(YahooVendor, server)
            assert vendor.ask(US).fate == vendor.ask(US).fate == Fate.OK
            assert server.count("chart") == 2
            assert server.count("getcrumb") <= 3, "it is not asked for before each question"
        vendor.crumb.again = 0.0  # a minute later
        server.fault = None
        assert vendor.ask(US).fate == Fate.OK
        assert server.asked[-1].query["crumb"] == "crumb"


def test_yahoo_a_crumb_that_ran_out_is_renewed(opened):
    with YahooServer({}) as server:
        server.quotes = [{"symbol": "NA", "regularMarketPrice": 1.5, "regularMarketTime": 1, "regularMarketVolume": 7}]
        vendor = opened(YahooVendor, server)
        poll, ticks = YahooPoll(vendor, [LiveShare("US", "NA", "NASDAQ")], lambda: False), []

        def ask():
            server.asked.clear()
            poll.run(ticks.append, lambda: server.count("quote") > 0)

        ask()
        for status in (401, 403):
            server.crumb, server.refusal = f"of {status}", status
            ask()
            assert (server.count("quote"), server.count("getcrumb")) == (2, 1)
            assert server.asked[1].path in ("", "/"), "and the cookie that it belongs to"
            ask()
            assert (server.count("quote"), server.count("getcrumb")) == (1, 0)
        assert [tick["day_volume"] for tick in ticks] == [7] * 5
        server.fault = lambda asked: Reply("{}", 401) if "quote" in asked.path else None
        with pytest.raises(Failed, match="refuses the crumb"):
            ask()
        assert server.count("quote") == 2


def test_kis_pages_signs_and_limits(opened, calendars):
    days = calendars["KR"].between(date(2024, 6, 3), DAY)
    bars = [(d, 1000 + n, 1010 + n, 990 + n, 1005 + n, 10 + n, -5.0 if n % 2 else 5.0) for n, d in enumerate(days)]
    with KisServer({"0126Z0": bars}) as server:
        vendor = opened(KisVendor, server)
        server.fault = first(
            1, Reply('{"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수 초과"}', 500), "itemchart"
        )
        answer = vendor.ask(Ask("bars", "KR", "KOSDAQ", "0126Z0", days[0], DAY))
        table = answer.bars.to_pylist()
        assert [row["date"] for row in table] == days
        assert answer.requests == -(-len(days) // 100) + 1  # one page was asked twice
        assert table[0]["reference"] == 1000 and table[1]["reference"] == 1011 and table[1]["basis"] == days[1]
        with pytest.raises(NoData):
            vendor.ask(Ask("bars", "KR", "KOSPI", "999999", DAY, DAY))
        server.fault = first(9, Reply('{"rt_cd": "1", "msg_cd": "OPSQ2001", "msg1": "bad input"}'))
        with pytest.raises(Failed, match="OPSQ2001"):
            vendor.ask(Ask("bars", "KR", "KOSPI", "0126Z0", DAY, DAY))


def test_kis_wrong_keys_end_the_run(opened, monkeypatch):
    with KisServer(keys=("other", "keys")) as server, pytest.raises(Refused, match="KIS_APP_KEY") as caught:
        opened(KisVendor, server)
    assert "app-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [("", "an empty body"), ('{"rt_cd": "0", "output1": [{"sht', "breaks off"), ("[]", "another form")],
)
def test_kis_answers_that_did_not_come_whole_are_none(opened, body, said):
    ask = Ask("actions rev-split", "KR", "KR", None, DAY, DAY)
    with KisServer() as server:
        vendor = opened(KisVendor, server)
        server.fault = first(99, Reply(body), "rev-split")
        with pytest.raises(Failed, match=said):
            vendor.ask(ask)
        if said != "another form":
            server.fault = first(1, Reply(body), "rev-split")  # once: it is asked for again
            answer = vendor.ask(ask)
            assert (answer.fate, answer.requests) == (Fate.OK, 2)


def test_kis_pages_that_do_not_end_are_no_whole_answer(opened):
    with KisServer() as server:
        vendor = opened(KisVendor, server)
        server.fault = first(999, Reply('{"rt_cd": "0", "output1": []}', headers={"tr_cont": "M"}), "rev-split")
        with pytest.raises(Failed, match="more than 50 pages of rev-split"):
            vendor.ask(Ask("actions rev-split", "KR", "KR", None, DAY, DAY))


def test_kis_a_token_asked_for_too_soon_is_waited_for(opened):
    with KisServer() as server:
        vendor = opened(KisVendor, server)
        waits = []
        vendor.rest.edge.limiter.sleep = waits.append
        next((vendor.settings.state).glob("kis-token-*.json")).unlink()
        soon = Reply(
            '{"error_code": "EGW00133", "error_description": "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)"}', 403
        )
        server.fault = first(1, soon, "tokenP")
        vendor.open()
        assert max(waits) == 61 and len(server.tokens) == 2


def test_kis_a_token_that_another_thread_has_renewed_is_not_renewed_again(opened):
    with KisServer() as server:
        vendor = opened(KisVendor, server)
        rest = vendor.rest
        server.tokens.append("token-1")  # KIS has taken token-0 back

        def meanwhile(asked):
            """While the refusal is under way another thread takes the new token."""
            if "rev-split" in asked.path and asked.headers["authorization"] == "Bearer token-0":
                rest._token = rest._shared_token(not_this="token-0")

        server.fault = meanwhile
        assert vendor.ask(Ask("actions rev-split", "KR", "KR", None, DAY, DAY)).fate == Fate.OK
        assert len(server.tokens) == 3


def test_kis_announcements(opened):
    with KisServer() as server:
        vendor = opened(KisVendor, server)
        server.announced = {
            "rev-split": [
                [
                    {
                        "sht_cd": "005930",
                        "inter_bf_face_amt": "000005000",
                        "inter_af_face_amt": "000000100",
                        "list_dt": "2025/03/20",
                    }
                ],
                [{"sht_cd": "A000020", "inter_bf_face_amt": "100", "inter_af_face_amt": "500", "list_dt": "20250325"}],
                [{"sht_cd": "000030", "inter_bf_face_amt": "100", "inter_af_face_amt": "500", "list_dt": ""}],
            ][:2],
            "bonus-issue": [[{"sht_cd": "0126Z0", "fix_rate": "100.00", "right_dt": "20250321"}]],
            "paidin-capin": [[{"sht_cd": "000040", "fix_rate": "20", "fix_price": "5000", "right_dt": "20250324"}]],
            "merger-split": [[{"sht_cd": "000050", "merge_type": "인적분할", "list_dt": "20250326"}]],
            "dividend": [
                [{"sht_cd": "005930", "record_date": "20250331", "per_sto_divi_amt": "365", "stk_divi_rate": "0.00"}]
            ],
        }
        asks = vendor.extras(vendor.markets, date(2025, 3, 3), DAY)
        actions = {a["symbol"] + a["kind"]: a for ask in asks for a in vendor.ask(ask).actions}
    assert actions["005930split"]["factor"] == pytest.approx(1 / 50)
    assert actions["005930split"]["ex_date"] == date(2025, 3, 20)
    assert actions["000020reduction"]["factor"] == 5
    assert actions["0126Z0bonus"]["factor"] == pytest.approx(0.5)
    assert actions["000040rights"]["factor"] is None and actions["000050spin-off"]["factor"] is None
    assert (actions["005930dividend"]["ex_date"], actions["005930dividend"]["amount"]) == (date(2025, 3, 28), 365)
    assert len(actions) == 6 and all(a["confirmed"] for a in actions.values())
    told = {kind: [k for k, a in actions.items() if announces(kind, a)] for kind in KINDS}
    assert told == {
        "rev-split": ["005930split", "000020reduction"],
        "bonus-issue": ["0126Z0bonus"],
        "paidin-capin": ["000040rights"],
        "cap-dcrs": [],
        "merger-split": ["000050spin-off"],
        "dividend": ["005930dividend"],
    }
