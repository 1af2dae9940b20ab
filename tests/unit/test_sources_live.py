"""Live ticks from servers that speak as KIS and Yahoo do: connections that break, say nothing, repeat themselves."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from sise.serving.vendor_feed import vendor_feed
from sise.sources.kis_rest import KisRest
from sise.sources.kis_stream import KisPoll, KisStream, read_frame, with_clock
from sise.sources.live import Share
from sise.sources.settings import SourceSettings
from tests.vendors.kis import KisServer
from tests.vendors.stream import StreamServer, kis_frame, kis_trade, us_trade
from tests.vendors.yahoo import YahooServer, pricing

KR = datetime(2025, 3, 31, 1, 0, tzinfo=UTC)  # 10:00 in Seoul
US = datetime(2025, 3, 31, 15, 0, tzinfo=UTC)  # 11:00 in New York
SAMSUNG = Share("KR", "005930", "KOSPI")
WANTED = {("H0STCNT0", "005930"): SAMSUNG, ("H0STCNT0", "0126Z0"): Share("KR", "0126Z0", "KOSDAQ")}


def test_trades_repeat_in_one_flat_list_and_may_grow():
    for extra in ((), ("9", "x", "")):
        trades = [kis_trade("005930", KR + timedelta(seconds=n), 58_000 + n, 5, 100 + 5 * n, extra) for n in range(3)]
        ticks = read_frame(kis_frame(*trades), WANTED)
        assert [(t["price"], t["volume"], t["day_volume"]) for t in ticks] == [
            (58_000, 5, 100),
            (58_001, 5, 105),
            (58_002, 5, 110),
        ]
        assert ticks[2]["timestamp"] == int(KR.timestamp() * 1000) + 2000 and ticks[0]["session"] == "2025-03-31"
    mixed = read_frame(kis_frame(kis_trade("0126Z0", KR, 5, 1, 1), kis_trade("005930", KR, 6, 1, 1)), WANTED)
    assert [t["symbol"] for t in mixed] == ["0126Z0", "005930"]


@pytest.mark.parametrize(
    ("change", "reference"),
    [
        ("5 -100", 58_100),
        ("5 100", 58_100),
        ("2 300", 57_700),
        ("1 13000", 45_000),
        ("3 0", 58_000),
        ("0 0", None),
        ("2 nan", None),
        ("4 inf", None),
    ],
)
def test_a_trade_says_from_which_price_the_day_is_counted(change, reference):
    (tick,) = read_frame(kis_frame(kis_trade("005930", KR, 58_000, 5, 100, change=change)), WANTED)
    assert tick.get("reference") == reference


def test_a_delayed_trade_is_judged_by_the_time_that_the_feed_is_at():
    def clock(ago: int) -> int | None:
        trade = us_trade("NA", US - timedelta(seconds=ago), 12.5, 7, 900, "2 0.25")
        (tick,) = read_frame(kis_frame(trade, kind="HDFSCNT0"), {("HDFSCNT0", "DNASNA"): Share("US", "NA", "NASDAQ")})
        assert tick["reference"] == 12.25
        told = with_clock(tick, int(US.timestamp() * 1000))
        return told["clock"] - told["timestamp"] if "clock" in told else None

    assert clock(0) is None and clock(60) == 0 and clock(15 * 60) == 0
    assert clock(25 * 60) == 600_000, "older than the delay makes it"


def test_frames_that_are_none():
    good = kis_trade("005930", KR, 58_000, 5, 100)
    for text in (
        "0|H0STCNT0|002|" + good,
        "0|H0STCNT0|001|" + good[:-10].rsplit("^", 2)[0],
        "1|H0STCNT0|001|" + good,
        "0|H0STASP0|001|" + good,
        "0|H0STCNT0|001|" + good.replace("005930", "000660"),
        "0|H0STCNT0|x|" + good,
        "0|H0STCNT0|000|" + good,
        "0|H0STCNT0",
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
            read_frame(text, WANTED)
    assert read_frame(kis_frame(kis_trade("005930", KR, 58_000, 5, 100, hour_class="C")), WANTED) == []
    assert read_frame(kis_frame(kis_trade("005930", KR, 58_000, 5, 100, halted="Y")), WANTED) == []
    us = {("HDFSCNT0", "DNASNA"): Share("US", "NA", "NASDAQ")}
    (tick,) = read_frame(kis_frame(us_trade("NA", US, 12.3456, 7, 900), kind="HDFSCNT0"), us)
    assert (tick["price"], tick["timestamp"], tick["session"]) == (12.3456, int(US.timestamp() * 1000), "2025-03-31")


class Run:
    """A feed in a thread of its own; its ticks are in ``ticks``. With a ``now`` it keeps to the sessions."""

    def __init__(self, sources, shares, calendars, settings, now=None):
        self.over = threading.Event()
        rows = [{"country": s.country, "symbol": s.symbol, "market": s.market} for s in shares]
        self.feed = vendor_feed(sources, rows, calendars, self.over.is_set, always=now is None, settings=settings)
        if now is not None:
            self.feed.now = now
        self.ticks: list[dict] = []
        self._thread = threading.Thread(target=lambda: self.ticks.extend(self._each()), daemon=True)
        self._thread.start()

    def _each(self):
        for tick in self.feed.ticks():
            self.ticks.append(tick)
        return []

    def until(self, condition, seconds=120.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        raise AssertionError(f"{self.feed.status()} {self.ticks[-3:]}")


@pytest.fixture
def vendors(tmp_path, monkeypatch, calendars):
    """KIS's REST and stream, Yahoo's REST and stream, and settings that point to them."""
    monkeypatch.setenv("KIS_APP_KEY", "key")
    monkeypatch.setenv("KIS_APP_SECRET", "app-secret")
    runs = []
    with KisServer() as rest, StreamServer() as kis, YahooServer({}) as web, StreamServer() as yahoo:

        def start(sources, shares, now=None, **other):
            settings = SourceSettings(
                local=tmp_path, kis_url=rest.url, kis_stream_url=kis.url, yahoo_url=web.url,
                kis_rate=200, yahoo_rate=200, yahoo_stream_url=yahoo.url, http_attempts=2,
                **{"backoff_seconds": 0.05, "backoff_cap_seconds": 0.2} | other,
            )  # fmt: skip
            runs.append(Run(sources, shares, calendars, settings, now))
            return runs[-1]

        yield rest, kis, yahoo, start
        for run in runs:
            run.over.set()
            run._thread.join(5)
            assert not run._thread.is_alive()


def test_ticks_pings_and_duplicates(vendors):
    _, kis, _, start = vendors
    run = start(["kis"], [SAMSUNG])
    kis.await_clients(1)
    kis.send('{"header":{"tr_id":"PINGPONG","datetime":"20250331100000"}}')
    one = kis_trade("005930", KR, 58_000, 5, 100)
    kis.send(kis_frame(one, one))
    kis.send(kis_frame(one))
    kis.send(kis_frame(kis_trade("005930", KR, 58_100, 3, 103)))  # another trade of the same second
    kis.send(kis_frame(kis_trade("005930", KR - timedelta(seconds=1), 58_000, 5, 95)))  # late
    kis.send(kis_frame(kis_trade("005930", KR + timedelta(seconds=1), 58_200, 2, 120)))  # 15 shares went by unseen
    kis.send(kis_frame(kis_trade("005930", KR.replace(hour=10), 58_200, 2, 120)))  # 19:00 in Seoul
    kis.send("0|H0STCNT0|001|nonsense")
    run.until(lambda: run.feed.counts["off_hours"])
    assert [(t["price"], t["day_volume"]) for t in run.ticks] == [(58_000, 100), (58_100, 103), (58_200, 120)]
    counts = run.feed.counts
    assert (counts["duplicates"], counts["late"], counts["missed"], counts["off_hours"]) == (2, 1, 1, 1)
    # Each says when it came: one that Kafka gets much later is judged by that.
    assert all(abs(t["clock"] - run.feed.now().timestamp() * 1000) < 600_000 for t in run.ticks)
    run.until(lambda: any(r.get("header", {}).get("tr_id") == "PINGPONG" for r in kis.received))
    status = run.feed.status()["countries"]["KR"]
    assert (status["source"], status["shares"], status["with_price"], status["coverage"]) == ("kis", 1, 1, 1.0)


def test_it_waits_for_the_session_and_leaves_after_it(vendors):
    _, kis, _, start = vendors
    clock = [KR.replace(hour=23, minute=54) - timedelta(days=1)]  # 8:54 in Seoul
    run = start(["kis"], [SAMSUNG], now=lambda: clock[0])
    time.sleep(2.5)
    assert kis.connects == 0 and run.feed.status()["countries"]["KR"]["source"] is None
    clock[0] += timedelta(minutes=2)
    kis.await_clients(1)
    clock[0] = KR
    kis.send(kis_frame(kis_trade("005930", KR, 58_000, 5, 100)))
    run.until(lambda: len(run.ticks) == 1)
    clock[0] = KR.replace(hour=6, minute=34)  # 15:34: the closing auction's trades are still printed
    time.sleep(1.5)
    assert kis.connects == 1 and run.feed._lines[0].connected
    clock[0] = KR.replace(hour=6, minute=36)
    run.until(lambda: not run.feed._lines[0].connected)
    time.sleep(1.5)
    assert kis.connects == 1, "nobody calls again after the close"
    clock[0] = KR + timedelta(days=3 * 7)  # the next session that it lives to see
    kis.await_clients(2)
    assert kis.connects == 2


def test_a_connection_that_breaks_is_made_anew(vendors):
    rest, kis, _, start = vendors
    run = start(["kis"], [SAMSUNG])
    for n in range(3):
        kis.await_clients(n + 1)
        kis.send(kis_frame(kis_trade("005930", KR + timedelta(seconds=n), 58_000, 5, 100 + 5 * n)))
        run.until(lambda: len(run.ticks) == n + 1)  # noqa: B023
        kis.drop()
    run.until(lambda: kis.connects >= 4)
    assert len(rest.tokens) == 1  # one token for all of them
    assert run.feed.status()["channels"]["kis stream"]["connects"] >= 3


def test_a_connection_that_says_nothing_is_cut(vendors, monkeypatch):
    _, kis, _, start = vendors
    waits = []
    monkeypatch.setattr("sise.sources.live.uniform", lambda low, high: waits.append(high) or high)
    kis.mute = True
    run = start(["kis"], [SAMSUNG], now=lambda: KR, silence_seconds=0.6, backoff_seconds=0.5, backoff_cap_seconds=60)
    run.until(lambda: kis.connects >= 5)
    assert set(waits) == {0.5}, "it was up: they do not grow as for one that is refused"
    kis.mute = False
    run.until(lambda: kis.clients)
    kis.send(kis_frame(kis_trade("005930", KR, 58_000, 5, 100)))
    run.until(lambda: run.ticks)
    assert run.feed.status()["channels"]["kis stream"]["cuts"] >= 1


@pytest.mark.parametrize("source", ["kis", "yahoo"])
def test_a_connection_that_says_anything_is_not_cut(vendors, source):
    _, kis, yahoo, start = vendors
    server, share, now = (kis, SAMSUNG, KR) if source == "kis" else (yahoo, Share("US", "AAPL", "NASDAQ"), US)
    no_tick = '{"header":{"tr_id":"PINGPONG"}}' if source == "kis" else pricing("AAPL", 200.0, US, 100, market_hours=0)
    run = start([source], [share], now=lambda: now, silence_seconds=4.0)
    server.await_clients(1)
    for _ in range(30):
        server.send(no_tick)
        time.sleep(0.2)
    assert server.connects == 1, str(run.feed.status()["channels"])
    run.until(lambda: server.connects >= 2)
    assert run.feed.status()["channels"][f"{source} stream"]["cuts"] >= 1 and not run.ticks


def test_silence_is_judged_from_the_open_to_the_close(vendors):
    _, kis, _, start = vendors
    clock = [KR.replace(hour=23, minute=56) - timedelta(days=1)]  # 8:56 in Seoul
    run = start(["kis"], [SAMSUNG], now=lambda: clock[0], silence_seconds=3.0)
    kis.await_clients(1)
    time.sleep(4.5)
    assert kis.connects == 1
    clock[0] += timedelta(minutes=4)
    opened = time.monotonic()
    run.until(lambda: kis.connects >= 2)
    assert time.monotonic() - opened > 1, "not for what it did not say before"
    clock[0] = KR.replace(hour=6, minute=32)
    cuts = run.feed._lines[0].cuts
    time.sleep(4.5)
    assert run.feed._lines[0].cuts <= cuts + 1 and run.feed._lines[0].connected


def test_frames_that_say_nothing_do_not_end_the_connection(vendors):
    _, kis, _, start = vendors
    run = start(["kis"], [SAMSUNG])
    kis.await_clients(1)
    frames = ['{"header": null}', '{"header": "x"}', '{"header": {"tr_id": "x"}, "body": "y"}', "[]", "null", "{}"]
    for frame in frames:
        kis.send(frame)
    kis.send(kis_frame(kis_trade("005930", KR, 58_000, 5, 100)))
    run.until(lambda: run.ticks)
    assert kis.connects == 1 and run.feed._lines[0].channel.bad_frames == len(frames)


def test_the_highest_rank_is_registered_and_the_rest_is_polled(vendors):
    rest, kis, _, start = vendors
    shares = [Share("KR", f"{n:05}0", "KOSPI") for n in range(100)]
    rest.prices = {share.symbol: (1_000 + n, 10_000 + n) for n, share in enumerate(shares)}
    kis.limit = 40  # KIS refuses the last one
    run = start(["kis"], shares)
    kis.await_clients(41)
    asked = [r["body"]["input"]["tr_key"] for r in kis.received if "body" in r]
    assert asked[:41] == [share.symbol for share in shares[:41]]
    run.until(lambda: rest.count("multprice") >= 4)
    at = datetime.now(UTC)
    for share in shares[:40]:
        kis.send(kis_frame(kis_trade(share.symbol, KR, 999, 1, 1)))
    run.until(lambda: len(run.feed._lines[0].channel.served()) == 40)
    rest.asked.clear()
    run.until(lambda: rest.count("multprice") >= 6)
    polled = {v for a in rest.asked[2:] for k, v in a.query.items() if k.startswith("FID_INPUT_ISCD")}
    assert polled == {share.symbol for share in shares[40:]} and at
    assert max(len(a.query) for a in rest.asked) == 60


def test_a_polled_price_is_of_today_and_told_once(vendors, tmp_path):
    rest, *_ = vendors
    kis = KisRest(SourceSettings(local=tmp_path, kis_url=rest.url, kis_rate=200))
    kis.open()
    rest.prices = {"005930": (58_000, 0), "000660": (180_000, 700)}  # the first has not traded yet today
    shares, ticks = [Share("KR", code, "KOSPI") for code in rest.prices], []

    clock = [KR]
    poll = KisPoll(kis, shares, set, lambda: clock[0])

    def until(rounds):
        rest.asked.clear()
        poll.run(ticks.append, lambda: rest.count("multprice") >= rounds)

    until(2)
    assert [(t["symbol"], t["price"], t["day_volume"]) for t in ticks] == [("000660", 180_000, 700)], "and only once"
    rest.prices["005930"] = (57_900, 12)
    until(1)
    rest.prices["000660"] = (180_500, 705)
    until(1)
    later = [(t["symbol"], t["price"], t["volume"]) for t in ticks[1:]]
    assert later == [("005930", 57_900, 0), ("000660", 180_500, 5)]
    clock[0] += timedelta(days=1)
    rest.prices["005930"] = (57_900, 20)
    until(1)
    assert [(t["symbol"], t["volume"]) for t in ticks[3:]] == [("005930", 0), ("000660", 0)], "a session of its own"


def test_one_source_a_market_and_failover(vendors):
    _, kis, yahoo, start = vendors
    us = Share("US", "AAPL", "NASDAQ")
    run = start(["kis", "yahoo"], [us], now=lambda: US, silence_seconds=60)
    kis.await_clients(1)
    yahoo.await_clients(1)
    kis.send(kis_frame(us_trade("AAPL", US, 200.0, 1, 100), kind="HDFSCNT0"))
    run.until(lambda: run.ticks)
    yahoo.send(pricing("AAPL", 201.0, US + timedelta(seconds=1), 110, market_hours=1, last_size=1))
    run.until(lambda: run.feed.counts["standby"])
    assert [t["source"] for t in run.ticks] == ["kis"]
    object.__setattr__(run.feed.settings, "silence_seconds", 1.0)
    kis.mute = True
    kis.drop()

    def yahoo_goes_on():
        n = len(yahoo.received) + len(run.ticks) + int(time.monotonic() * 50) % 5_000
        yahoo.send(pricing("AAPL", 202.25, US + timedelta(seconds=2 + n), 1_000 + n, market_hours=1, last_size=1))
        return run.ticks[-1]["source"] == "yahoo"

    run.until(yahoo_goes_on)
    assert run.ticks[-1]["price"] == 202.25 and run.feed.counts["failovers"] == 1
    yahoo.send(pricing("AAPL", 1.0, US + timedelta(hours=1), 9_999_999, market_hours=2))  # after hours
    yahoo.send('{"type": "pricing", "message": "not base64"}')  # ends the connection: it is made anew
    run.until(lambda: yahoo.connects >= 2)
    assert all(t["price"] != 1.0 for t in run.ticks)


def test_a_share_that_the_chosen_source_does_not_deliver_comes_from_the_other(vendors):
    _, kis, yahoo, start = vendors
    run = start(["kis", "yahoo"], [Share("US", "AAPL", "NASDAQ"), Share("US", "MSFT", "NASDAQ")])
    kis.await_clients(1)
    yahoo.await_clients(1)
    kis.send(kis_frame(us_trade("AAPL", US, 200.0, 1, 100), kind="HDFSCNT0"))
    run.until(lambda: run.ticks)
    yahoo.send(pricing("MSFT", 400.0, US, 50, market_hours=1, last_size=1))
    run.until(lambda: len(run.ticks) == 2)
    yahoo.send(pricing("AAPL", 201.0, US + timedelta(seconds=1), 110, market_hours=1, last_size=1))
    run.until(lambda: run.feed.counts["standby"])
    assert [(t["symbol"], t["source"]) for t in run.ticks] == [("AAPL", "kis"), ("MSFT", "yahoo")]
    assert run.feed.status()["countries"]["US"]["source"] == "kis" and run.feed.counts["failovers"] == 0


def test_a_delayed_source_does_not_hold_back_a_live_one(vendors):
    _, kis, yahoo, start = vendors
    run = start(["kis", "yahoo"], [Share("US", "AAPL", "NASDAQ")], silence_seconds=1.0)
    kis.await_clients(1)
    yahoo.await_clients(1)
    end, n = time.monotonic() + 2.5, 0
    while time.monotonic() < end:
        n += 1
        at = US + timedelta(seconds=n)
        yahoo.send(pricing("AAPL", 201.0, at, 1_000 + n, market_hours=1, last_size=1))
        run.until(lambda: len(run.ticks) == n)  # noqa: B023
        kis.send(kis_frame(us_trade("AAPL", at - timedelta(minutes=15), 200.0, 1, n), kind="HDFSCNT0"))
        run.until(lambda: run.feed.counts["late"] == n)  # noqa: B023
    assert {tick["source"] for tick in run.ticks} == {"yahoo"} and run.feed.counts["standby"] == 0
    assert run.feed.status()["countries"]["US"]["source"] == "yahoo"
    # it goes on with the delayed one when that has passed what the other said last
    kis.send(kis_frame(us_trade("AAPL", US + timedelta(minutes=5), 202.0, 1, n), kind="HDFSCNT0"))
    run.until(lambda: run.ticks[-1]["source"] == "kis")


def test_a_delayed_channel_is_heard_out_after_the_close(vendors):
    _, kis, yahoo, start = vendors
    closes = datetime(2025, 3, 31, 20, 0, tzinfo=UTC)
    clock = [closes - timedelta(minutes=5)]
    run = start(["kis", "yahoo"], [Share("US", "AAPL", "NASDAQ")], now=lambda: clock[0])
    kis.await_clients(1)
    yahoo.await_clients(1)
    clock[0] = closes + timedelta(minutes=15)
    lines = {line.channel.label: line for line in run.feed._lines}
    run.until(lambda: not lines["yahoo poll"].connected)
    time.sleep(1.0)
    assert lines["kis stream"].connected
    kis.send(kis_frame(us_trade("AAPL", closes - timedelta(seconds=1), 200.0, 1, 100), kind="HDFSCNT0"))
    run.until(lambda: run.ticks)
    clock[0] = closes + timedelta(minutes=21)
    run.until(lambda: not lines["kis stream"].connected)


def test_a_source_that_repeats_itself_is_silent(vendors):
    _, kis, yahoo, start = vendors
    run = start(["kis", "yahoo"], [Share("US", "AAPL", "NASDAQ")], silence_seconds=1.0)
    kis.await_clients(1)
    yahoo.await_clients(1)
    frozen = kis_frame(us_trade("AAPL", US, 200.0, 1, 100), kind="HDFSCNT0")
    kis.send(frozen)
    run.until(lambda: run.ticks)
    sent = []

    def yahoo_goes_on():
        sent.append(len(sent) + 1)
        kis.send(frozen)
        yahoo.send(
            pricing("AAPL", 202.25, US + timedelta(seconds=len(sent)), 100 + len(sent), market_hours=1, last_size=1)
        )
        return run.ticks[-1]["source"] == "yahoo"

    run.until(yahoo_goes_on)
    assert run.feed.counts["standby"] and run.feed.counts["failovers"] == 1
    assert run.feed.status()["countries"]["US"]["source"] == "yahoo"


def test_yahoo_is_told_the_names_in_parts_and_again(vendors, monkeypatch):
    monkeypatch.setattr("sise.sources.yahoo_stream._AGAIN", 0.1)
    _, _, yahoo, start = vendors
    names = [f"S{n:03}" for n in range(450)]
    run = start(["yahoo"], [Share("US", name, "NASDAQ") for name in names])
    yahoo.await_clients(3)

    def told_again():
        yahoo.send(pricing("S001", 200.0, US, 100, market_hours=0))
        return len(yahoo.received) >= 9

    run.until(told_again)
    parts = [request["subscribe"] for request in yahoo.received if "subscribe" in request]
    assert [len(part) for part in parts[:6]] == [200, 200, 50] * 2
    assert {*parts[0], *parts[1], *parts[2]} == {*parts[3], *parts[4], *parts[5]} == set(names)


def test_yahoo_is_polled_while_its_stream_is_down(vendors, monkeypatch):
    _, _, yahoo, start = vendors
    yahoo.mute = True
    quotes = [
        {
            "symbol": "AAPL",
            "regularMarketPrice": 201.5,
            "regularMarketTime": int(US.timestamp()),
            "regularMarketVolume": 77,
            "regularMarketPreviousClose": 199.25,
        }
    ]
    from tests.vendors.server import Reply

    monkeypatch.setattr(
        YahooServer,
        "answer",
        lambda self, asked: (
            Reply(json.dumps({"quoteResponse": {"result": quotes}}))
            if "v7/finance/quote" in asked.path
            else Reply("crumb")
        ),
    )
    run = start(["yahoo"], [Share("US", "AAPL", "NASDAQ")], silence_seconds=0.8)
    run.until(lambda: run.ticks)
    assert (run.ticks[0]["price"], run.ticks[0]["source"], run.ticks[0]["day_volume"]) == (201.5, "yahoo-poll", 77)
    assert run.ticks[0]["reference"] == 199.25
    time.sleep(0.5)
    assert len(run.ticks) == 1  # the same quote again is no tick


def test_one_token_for_all_processes_and_a_stale_one_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setenv("KIS_APP_KEY", "key")
    monkeypatch.setenv("KIS_APP_SECRET", "app-secret")
    with KisServer() as server:
        server.prices = {"005930": (58_000, 1)}
        settings = SourceSettings(local=tmp_path, kis_url=server.url, kis_rate=500, backoff_seconds=0.01)
        first, second = KisRest(settings), KisRest(settings)
        first.open()
        second.open()
        assert server.tokens == ["token-0"]
        kept = next((tmp_path / "state").glob("kis-token-*.json"))
        assert kept.stat().st_mode & 0o777 == 0o600
        server.tokens.append("token-1")  # KIS has taken the first one back
        from sise.sources.kis import quotes_of

        assert quotes_of(second, ["005930"])[0]["inter2_prpr"] == "58000"
        assert quotes_of(first, ["005930"])[0]["inter2_prpr"] == "58000"
        assert len(server.tokens) == 3  # renewed once, and shared
        assert KisStream(first, [SAMSUNG], settings).countries == {"KR"}
