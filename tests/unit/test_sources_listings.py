"""Listings: the real recorded one with flags from master files, NASDAQ's directory with the screener."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from sise.sources.listings import KrListing, NasdaqListing, read_directory
from sise.sources.master import read_master, read_masters
from sise.sources.outcome import Failed
from sise.sources.settings import SourceSettings
from tests.conftest import SHARED
from tests.vendors.kis import KisServer, master
from tests.vendors.krx import KrxServer
from tests.vendors.server import Reply, VendorServer, first
from tests.vendors.yahoo import Share, YahooServer, directory

OTHERS = {
    "FUND": {"etf": "Y"},
    "TEST": {"test": "Y"},
    "NEXT": {"next": "Y"},
    "LATE": {"status": "E"},
}
NAMES = [
    ("NA", "Nano Labs Ltd - Class A Ordinary Shares"),
    ("AAPL", "Apple Inc. - Common Stock"),
    ("BRK.B", "Berkshire - Class B Common Stock"),
    ("LATE", "Late Filer Inc. - Common Stock"),
    ("UNIT", "United Rights Group - Common Stock"),  # words of the company's own name do not count
    ("WAR", "Some Corp. - Warrant"),
    ("UNI", "Some Corp. - Units"),
    ("RIG", "Some Corp. - Rights"),
    ("PRE", "Some Corp. - 6.5% Series A Preferred Stock"),
    ("FUND", "Some ETF"),
    ("TEST", "Test Issue"),
    ("NEXT", "Next Shares"),
    ("ZVZ", "No Screener Inc. - Common Stock"),
]


def settings_for(tmp_path, server, **other):
    return SourceSettings(
        local=tmp_path, yahoo_url=server.url, nasdaq_url=server.url, krx_url=server.url, yahoo_rate=500, krx_rate=500,
        backoff_seconds=0.01, backoff_cap_seconds=0.02, http_attempts=2, http_timeout=2, **other,
    )  # fmt: skip


@pytest.fixture
def market():
    shares = {f"S{n:03}": Share([], cap=1e9 - n) for n in range(600)}
    shares |= {
        s: Share([], cap=c) for s, c in (("NA", 2e8), ("AAPL", 3e12), ("BRK-B", 1e12), ("LATE", 1e8), ("UNIT", 1.1e8))
    }
    shares |= {s: Share([], cap=5e8) for s in ("WAR", "UNI", "RIG", "PRE", "FUND", "TEST", "NEXT")}
    shares |= {f"T{n:03}": Share([], cap=9e7 - n) for n in range(900)}
    with YahooServer(shares) as server:
        server.directory = directory(NAMES, **OTHERS)
        yield server


def test_nasdaq_is_common_shares_of_some_size(tmp_path, market):
    """What is too small is in the listing, too: a share that was taken up and fell has not left (collect_symbols)."""
    listing = NasdaqListing(settings_for(tmp_path, market))
    rows = {row["symbol"]: row for row in listing.rows()}
    assert {s for s, row in rows.items() if (row["market_cap"] or 0) >= listing.floor} == {
        "NA", "AAPL", "BRK.B", "LATE", "UNIT"
    }  # fmt: skip
    assert rows["ZVZ"]["market_cap"] is None and not {"WAR", "FUND", "TEST", "S001"} & set(rows)
    assert rows["NA"]["name"] == "Nano Labs Ltd" and rows["BRK.B"]["market_cap"] == 1e12
    assert rows["LATE"]["is_warning"] and not rows["AAPL"]["is_warning"]
    assert market.count("screener") == 7  # the small ones too: one that fell far below the floor has its cap of today
    assert NasdaqListing(settings_for(tmp_path, market, min_cap_usd=1e12)).floor == 1e12


def test_a_crumb_that_runs_out_between_pages_is_renewed(tmp_path, market):
    refused = first(1, Reply("{}", 401), "screener")
    market.fault = lambda asked: refused(asked) if market.count("screener") == 3 else None
    assert sum(bool(row["market_cap"]) for row in NasdaqListing(settings_for(tmp_path, market)).rows()) == 5
    assert (market.count("screener"), market.count("getcrumb")) == (8, 2)


def test_half_a_screener_is_no_listing(tmp_path, market):
    empty = '{"finance": {"result": [{"total": 900, "quotes": []}], "error": null}}'
    for reply, said in ((Reply(empty), "ends at 250 of"), (Reply('{"finance": {"res'), "another form|screener")):
        pages = [0]

        def fault(asked, reply=reply, pages=pages):
            pages[0] += "screener" in asked.path
            return reply if "screener" in asked.path and pages[0] > 1 else None

        market.fault = fault
        with pytest.raises(Failed, match=said):
            NasdaqListing(settings_for(tmp_path, market)).rows()


def test_the_directory_is_kept_for_an_hour_and_taken_whole(tmp_path, market):
    settings = settings_for(tmp_path, market)
    whole = market.directory
    assert read_directory(settings) == read_directory(settings) and market.count("nasdaqlisted") == 1
    kept = tmp_path / "cache" / "nasdaqlisted.txt"
    os.utime(kept, (time.time() - 3_700,) * 2)
    market.directory = whole[: len(whole) // 2]
    with pytest.raises(Failed, match="breaks off"):
        read_directory(settings)
    market.directory = whole.replace("ETF|", "EXT|")
    with pytest.raises(Failed, match="no column ETF"):
        read_directory(settings)


class Masters(VendorServer):
    files: dict[str, bytes]

    def answer(self, asked):
        return Reply(self.files[asked.path.rsplit("/", 1)[1]])


def test_master_files(tmp_path):
    kospi = [
        {"code": "005930", "name": "삼성전자", "shares": 5_969_782, "cap": 3_450_000},
        {"code": "0126Z0", "name": "한글 이름 | 쉼표,", "halted": True},
        {"code": "069500", "name": "KODEX 200", "group": "EF"},
        {"code": "Q50001", "name": "ELW", "group": "EW"},
    ]
    with Masters() as server:
        server.files = {
            "kospi_code.mst.zip": master("KOSPI", kospi),
            "kosdaq_code.mst.zip": master("KOSDAQ", [{"code": "000250", "name": "삼천당제약", "liquidation": True}]),
        }
        settings = settings_for(tmp_path, server, kis_master_url=server.url)
        found = read_masters(settings)
        assert set(found) == {"005930", "0126Z0", "069500", "000250"} and found["069500"].is_etf
        assert (found["005930"].name, found["005930"].listed_shares) == ("삼성전자", 5_969_782_000)
        assert found["005930"].market_cap == 345_000_000_000_000 and found["0126Z0"].is_halted
        assert found["000250"].is_administration and found["000250"].market == "KOSDAQ"
        rows = KrListing("kis", settings, {}).rows()
        assert {row["symbol"] for row in rows} == {"005930", "0126Z0", "000250"}
        server.fault = first(99, Reply(server.files["kospi_code.mst.zip"][:100]))
        with pytest.raises(Failed, match="no zip file"):
            read_masters(settings)
    with pytest.raises(Failed, match="line 1"):
        read_master("KOSPI", "005930   KR7005930003삼성전자" + "0" * 150)


def test_krx_s_own_listing_with_flags(tmp_path, calendars, monkeypatch):
    recorded = SHARED / "recorded" / "krx"
    if not recorded.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{recorded} is missing, and CI must have it")
        pytest.skip(f"{recorded} is not there: KRX's recorded answers stand beside the project")
    monkeypatch.setenv("KRX_ID", "tester")
    monkeypatch.setenv("KRX_PW", "secret-word")
    with KrxServer(recorded) as krx, KisServer() as kis:
        kis.masters = {
            "kospi_code.mst.zip": master("KOSPI", [{"code": "005930", "name": "삼성전자", "warning": "03"}]),
            "kosdaq_code.mst.zip": master("KOSDAQ", []),
        }
        settings = settings_for(tmp_path, krx, kis_master_url=kis.url)
        moment = datetime(2021, 1, 22, 12, tzinfo=UTC)
        listing = KrListing("krx", settings, calendars, lambda: moment)
        rows = {row["symbol"]: row for row in listing.rows()}
    assert len(rows) == 950 + 1771 + 52  # KONEX is left out, KOSDAQ GLOBAL is KOSDAQ
    assert {row["market"] for row in rows.values()} == {"KOSPI", "KOSDAQ"}
    samsung = rows["005930"]
    assert samsung["market_cap"] == 86_800 * 5_969_782_550 and samsung["is_warning"] is True
    assert rows["000020"]["is_halted"] is None  # no master file names it: not known, not false
    assert sum(row["is_administration"] is True for row in rows.values()) == 80
    assert sum(row["is_warning"] is True for row in rows.values()) == 51
