"""The sample market keeps the exchanges' rules; files load whole, with what they cannot say asked for."""

from __future__ import annotations

import gzip
from datetime import date

import pandas as pd
import pytest
from pyspark.sql import functions as F

from sise.errors import InputError
from sise.prices.quality import check_bars
from sise.prices.symbols import collect_symbols
from sise.sources.base import Request
from sise.sources.files import FilesSource
from sise.sources.sample import SampleSource
from sise.sources.simulate import FIRST_SESSION, simulate, symbol_of
from sise.ticks import krx_tick, limit_prices


@pytest.fixture(scope="module")
def shares(calendars):
    sessions = {c: calendars[c].between(FIRST_SESSION, date(2025, 12, 30)) for c in ("KR", "US")}
    return [simulate(20211, n, sessions["US" if n % 3 == 2 else "KR"]) for n in range(300)]


def test_prices_keep_ticks_and_limits(shares):
    for share in shares:
        for row in share.bars:
            if row["volume"] == 0:
                assert row["open"] == row["high"] == row["low"] == 0
                continue
            prices = [row[c] for c in ("open", "high", "low", "close")]
            assert row["low"] <= min(prices) and row["high"] >= max(prices)
            if share.country == "KR":
                low, high = limit_prices(row["reference"])
                assert all(p % krx_tick(p) == 0 and low <= p <= high for p in prices), (share.symbol, row)


def test_it_has_everything_that_happens_to_shares(shares):
    codes = {share.symbol for share in shares}
    assert {"NA", "0126Z0", "00499K", "000020"} <= codes and len(codes) == len(shares)
    kinds = {a["kind"] for share in shares for a in share.actions}
    assert {"split", "reduction", "bonus", "dividend"} <= kinds
    assert any(a["factor"] == 0.02 for share in shares for a in share.actions)
    assert any(row["volume"] == 0 for share in shares for row in share.bars)
    listed = [share for share in shares if share.bars[0]["date"] > FIRST_SESSION.replace(month=3)]
    gone = [share for share in shares if not share.symbols[-1]["active"]]
    moved = [share for share in shares if {"KOSDAQ", "KOSPI"} <= {r["market"] for r in share.symbols}]
    assert listed and gone and moved
    assert all(max(r["date"] for r in share.bars) < share.symbols[-1]["valid_from"] for share in gone)
    for flag in ("is_etf", "is_warning", "is_administration", "is_halted"):
        assert any(row[flag] for share in shares for row in share.symbols), flag


def test_a_split_moves_listed_shares_the_other_way(shares):
    share = shares[1]
    event = next(a for a in share.actions if a["factor"])
    before = [r for r in share.symbols if r["valid_from"] < event["ex_date"]][-1]
    after = next(r for r in share.symbols if r["valid_from"] >= event["ex_date"])
    assert after["listed_shares"] == pytest.approx(before["listed_shares"] / event["factor"], rel=1e-3)


def test_an_action_leaves_the_market_cap_where_it_was(shares):
    for share in shares:
        for event in (a for a in share.actions if a["factor"]):
            before = [r["market_cap"] for r in share.symbols if r["valid_from"] < event["ex_date"]]
            on_it = [r["market_cap"] for r in share.symbols if r["valid_from"] == event["ex_date"]]
            # from one listing row to the next is a month at most
            assert not before or not on_it or 0.4 < on_it[0] / before[-1] < 2.5, (share.symbol, event)


def test_no_move_is_unexplained(shares):
    """From traded bar to traded bar, and over each action's factor, every move is within what the door allows."""
    for share in shares:
        factors = {a["ex_date"]: a["factor"] for a in share.actions if a["factor"]}
        before = None
        for row in share.bars:
            before = before and before * factors.get(row["date"], 1.0)
            if row["volume"]:
                limit = 0.305 if share.country == "KR" else 0.5
                assert before is None or abs(row["close"] / before - 1) <= limit, (share.symbol, row)
                before = row["close"]


def test_the_same_seed_gives_the_same_market(spark, calendars):
    def rows(**other):
        source = SampleSource(calendars, 12, **other)
        return [
            tuple(r)
            for r in source.bars(spark, Request(("NASDAQ",), date(2025, 12, 1))).orderBy("symbol", "date").collect()
        ]

    assert rows() == rows() != rows(seed=1)
    whole = SampleSource(calendars, 12).bars(spark, Request(("NASDAQ",))).where(F.col("date") >= date(2025, 12, 1))
    assert [tuple(r) for r in whole.orderBy("symbol", "date").collect()] == rows()


def test_nothing_of_it_is_refused(spark, calendars):
    bars = SampleSource(calendars, 30).bars(spark, Request())
    days = spark.createDataFrame([(c, d) for c in ("KR", "US") for d in calendars[c].days], "country string, date date")
    assert (
        check_bars(bars, days, {"KR": date(2026, 1, 2), "US": date(2026, 1, 2)}).where("reason IS NOT NULL").isEmpty()
    )


def test_thousands_of_codes_are_distinct():
    assert len({symbol_of(n) for n in range(12_000)}) == 12_000
    with pytest.raises(InputError, match="from 9 to 20000"):
        SampleSource({}, 3)


GIVEN = pd.DataFrame(
    {
        "symbol": ["000020", "NA", "0126Z0"],
        "date": ["2024-03-04"] * 3,
        "open": [1.0, 2, 3],
        "high": [1.0, 2, 3],
        "low": [1.0, 2, 3],
        "close": [1.0, 2, 3],
        "adj_close": [0.9, 2, 3],
        "volume": [10, 20, 30],
    }
)


def read(spark, path, request=None, **options):
    return {r["symbol"]: r for r in FilesSource(str(path), **options).bars(spark, request or Request()).collect()}


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder", "compact", "timestamps", "mixed"])
def test_files_of_every_form(spark, tmp_path, kind):
    path, frame = tmp_path / f"bars.{kind}", GIVEN
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "compact":
        path = tmp_path / "bars.csv"
        frame.assign(date="20240304").to_csv(path, index=False)
    elif kind == "timestamps":
        path = tmp_path / "bars.parquet"
        frame.assign(date=pd.to_datetime(frame["date"])).to_parquet(path)
    else:
        (path / "deep").mkdir(parents=True)
        frame[:1].to_parquet(path / "deep" / "a.parquet")
        if kind == "mixed":
            frame[1:].to_csv(path / "b.csv", index=False)
        else:
            frame[1:].to_parquet(path / "b.parquet")
    rows = read(spark, path, market="KOSPI", basis=date(2025, 6, 17))
    assert set(rows) == {"000020", "NA", "0126Z0"}
    assert rows["NA"]["close"] == 2 and rows["NA"]["volume"] == 20 and rows["NA"]["problem"] is None
    assert {r["date"] for r in rows.values()} == {date(2024, 3, 4)} and rows["NA"]["basis"] == date(2025, 6, 17)


def test_a_folder_of_files_that_differ(spark, tmp_path):
    """Columns, their order and types, suffixes in capitals, parquet beside CSV, empty and hidden files."""
    folder = tmp_path / "bars"
    folder.mkdir()
    rest = GIVEN.drop(columns=["adj_close"])
    GIVEN[:1].to_csv(folder / "a.csv", index=False)
    rest[1:2][["volume", *[c for c in rest if c != "volume"]]].to_csv(folder / "B.CSV", index=False)
    (folder / "empty.csv").write_text("")
    (folder / ".hidden.csv").write_text("nonsense")
    rest[2:].assign(date=pd.to_datetime("2024-03-04"), volume=[30.0]).to_parquet(folder / "c.parquet")
    GIVEN[:1].assign(symbol="X1", date=date(2024, 3, 4), market="KOSDAQ").to_parquet(folder / "d.PARQUET")
    rows = read(spark, folder, market="KOSPI")
    assert {s: (r["close"], r["volume"], r["market"], r["problem"]) for s, r in rows.items()} == {
        "000020": (1, 10, "KOSPI", None),
        "NA": (2, 20, "KOSPI", None),
        "0126Z0": (3, 30, "KOSPI", None),
        "X1": (1, 10, "KOSDAQ", None),
    }
    assert {r["date"] for r in rows.values()} == {date(2024, 3, 4)}


@pytest.mark.parametrize("zone", ["Asia/Seoul", "America/New_York", "UTC", None])
@pytest.mark.parametrize("kind", ["parquet", "micros", "csv", "utc"])
def test_a_date_with_a_zone_is_the_day_it_is_there(spark, tmp_path, zone, kind):
    market = "NASDAQ" if zone == "America/New_York" else "KOSPI"
    days = pd.DatetimeIndex(["2024-03-04", "2024-07-05"]).tz_localize(zone)
    frame = pd.concat([GIVEN[:1], GIVEN[1:2]], ignore_index=True).assign(date=days)
    path = tmp_path / ("bars.csv" if kind in ("csv", "utc") else "bars.parquet")
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "utc":
        frame.assign(date=days if zone is None else days.tz_convert("UTC")).to_csv(path, index=False)
    else:
        frame.to_parquet(path, **({"coerce_timestamps": "us"} if kind == "micros" else {}))
    rows = read(spark, path, market=market)
    assert [rows[s]["date"] for s in ("000020", "NA")] == [date(2024, 3, 4), date(2024, 7, 5)]


@pytest.mark.parametrize("kind", ["int32", "int64", "float64"])
def test_dates_may_be_numbers(spark, tmp_path, kind):
    GIVEN.assign(date=pd.Series([20240304] * 3, dtype=kind)).to_parquet(tmp_path / "bars.parquet")
    assert {r["date"] for r in read(spark, tmp_path / "bars.parquet", market="KOSPI").values()} == {date(2024, 3, 4)}


def test_the_markets_come_from_the_map_then_the_default(spark, tmp_path):
    GIVEN.to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "map.csv").write_text("symbol,market\n000020,KOSDAQ GLOBAL\nNA,NASDAQ\n")
    rows = read(spark, tmp_path / "bars.csv", market_map=str(tmp_path / "map.csv"))
    assert {s: (r["country"], r["market"]) for s, r in rows.items()} == {
        "000020": ("KR", "KOSDAQ"),
        "NA": ("US", "NASDAQ"),
        "0126Z0": (None, None),
    }
    rows = read(spark, tmp_path / "bars.csv", market_map=str(tmp_path / "map.csv"), market="KOSPI")
    assert rows["0126Z0"]["market"] == "KOSPI" and rows["NA"]["market"] == "NASDAQ"


def test_text_that_is_no_number_is_said(spark, tmp_path):
    (tmp_path / "bars.csv").write_text(
        "symbol,date,open,high,low,close,volume\nA,2024-03-04,x,1,1,1,5\nB,soon,1,1,1,1,5\nC,2024-03-04,,1,1,1,5\n"
        "D,2024-03-04,1d,1,1,1,5\nE,2024-03-04,1,1.F,1,1,5\n"
    )
    rows = read(spark, tmp_path / "bars.csv", market="KOSPI", request=Request((), date(2024, 1, 1), date(2024, 12, 30)))
    assert rows["A"]["problem"] == "open 'x' is not a number" and rows["B"]["problem"] == "date 'soon' is not a date"
    assert rows["C"]["problem"] is None and rows["C"]["open"] is None
    assert rows["D"]["problem"] == "open '1d' is not a number" and rows["E"]["problem"] == "high '1.F' is not a number"


def test_codes_as_spreadsheets_leave_them(spark, tmp_path):
    lines = ['="005930"', "\t000660 ", "5930", "A005930", "0126z0", "0059301", "005930.KS", "KR7005930003"]
    lines += ["5930.0", "'005380", "KRX:005380", "1.2E+05", "５９３０", "#N/A", "NAN", "-"]
    text = "symbol,date,open,high,low,close,volume\n"
    (tmp_path / "bars.csv").write_text(text + "".join(f"{code},2024-03-04,1,1,1,1,5\n" for code in lines))
    rows = read(spark, tmp_path / "bars.csv", market="KOSPI")
    lost = {symbol for symbol, r in rows.items() if r["problem"] is not None}
    assert set(rows) - lost == {"005930", "000660", "0126Z0"} and set(lines[2:]) - {"0126z0"} == lost
    assert rows["5930"]["problem"] == "symbol '5930' is no KRX code of six characters, like 005930"
    assert read(spark, tmp_path / "bars.csv", market="NASDAQ")["5930"]["problem"] is None
    (tmp_path / "s.csv").write_text("symbol,market\n5930,KOSPI\n")
    with pytest.raises(InputError, match="symbol '5930' is no KRX code"):
        FilesSource(str(tmp_path / "s.csv")).symbols(spark, Request()).collect()


def test_a_moment_is_of_its_day_where_the_share_trades(spark, tmp_path):
    """Midnight in Seoul as UTC has it, in the ways in which databases, Java and pandas write it."""
    evening = ["+00", "+0000", "+00:00", " +00", "Z", " UTC", " GMT", "+00:00[UTC]", "Z[Etc/UTC]"]
    written = dict.fromkeys([f"2025-03-13{t}15:00:00{zone}" for zone in evening for t in " T"], date(2025, 3, 14))
    written |= dict.fromkeys(
        ["2025-03-14T00:00+09:00[Asia/Seoul]", "2025-03-14 09:00:00.5", "20250314"], date(2025, 3, 14)
    )
    written |= dict.fromkeys(["2025-03-14 hello", "2025-03", "2025", "2025-03-14T99:99", "2025-03-14 15:00 CET"])
    lines = [f"{n:06},{text},1,1,1,1,5" for n, text in enumerate(written)]
    (tmp_path / "bars.csv").write_text("symbol,date,open,high,low,close,volume\n" + "\n".join(lines))
    rows = read(spark, tmp_path / "bars.csv", market="KOSPI")
    assert {text: rows[f"{n:06}"]["date"] for n, text in enumerate(written)} == written
    assert rows[f"{len(written) - 1:06}"]["problem"] == "date '2025-03-14 15:00 CET' is not a date"


def test_a_row_of_more_fields_than_columns_is_refused(spark, tmp_path):
    """Of a volume of 12,345 without quotes Spark would keep 12."""
    lines = [
        "000020,2024-03-04,1,1,1,1,12,345",
        '000030,2024-03-04,1,1,1,1,"5"',
        "000040,2024-03-04,1,1,1,1,5,,",
        "000050",
    ]
    (tmp_path / "bars.csv").write_text("symbol,date,open,high,low,close,volume\n" + "\n".join(lines))
    rows = read(spark, tmp_path / "bars.csv", market="KOSPI")
    assert rows["000020"]["problem"] == f"more fields than columns: {lines[0]}"
    assert {s: r["volume"] for s, r in rows.items() if not r["problem"]} == {"000030": 5, "000040": 5, "000050": None}
    (tmp_path / "s.csv").write_text("symbol,market,listed_shares\n000020,KOSPI,5,969\n")
    with pytest.raises(InputError, match="more fields than columns: 000020,KOSPI,5,969"):
        FilesSource(str(tmp_path / "s.csv")).symbols(spark, Request()).collect()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_of_files_are_no_patterns(spark, tmp_path, kind):
    for n, name in enumerate(("a1", "a[1]", "{b,c}", "d?", "e*", "f (2)%20#+", "가"), 1):
        frame = GIVEN[:1].assign(symbol=f"00000{n}")
        (tmp_path / "x[y]").mkdir(exist_ok=True)
        path = tmp_path / "x[y]" / f"{name}.{kind}"
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    found = FilesSource(str(tmp_path), market="KOSPI").bars(spark, Request()).select("symbol").collect()
    assert sorted(r["symbol"] for r in found) == [f"00000{n}" for n in range(1, 8)]


def test_a_file_without_rows_and_one_that_is_damaged(spark, tmp_path):
    GIVEN.to_parquet(tmp_path / "a.parquet")
    GIVEN[:0].astype(object).to_parquet(tmp_path / "empty.parquet")
    assert len(read(spark, tmp_path, market="KOSPI")) == 3
    whole, packed = (tmp_path / "a.parquet").read_bytes(), gzip.compress(GIVEN.to_csv(index=False).encode())
    bad = {
        "0.parquet": b"",
        "cut.parquet": whole[: len(whole) // 2],
        "cut.csv.gz": packed[:-20],
        "text.csv.gz": b"symbol",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} cannot be read as"):
            read(spark, tmp_path, market="KOSPI")
        (tmp_path / name).unlink()


def test_a_dash_is_nothing_given(spark, tmp_path):
    (tmp_path / "bars.csv").write_text("symbol,date,open,high,low,close,volume\n000660,2024-03-04,-,-,-,10,0\n")
    row = read(spark, tmp_path / "bars.csv", market="KOSPI")["000660"]
    assert row["problem"] is None and row["open"] is None and row["close"] == 10


def test_a_market_map_with_gaps_and_both_names_of_a_market(spark, tmp_path):
    GIVEN.to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "map.csv").write_text(
        "symbol,market\n000020,KOSDAQ\n000020,kosdaq global\nNA,NASDAQ\n,KOSPI\n,NYSE\n0126Z0,\n"
    )
    rows = read(spark, tmp_path / "bars.csv", market_map=str(tmp_path / "map.csv"))
    assert {s: r["market"] for s, r in rows.items()} == {"000020": "KOSDAQ", "NA": "NASDAQ", "0126Z0": None}


def test_what_is_missing_is_named(spark, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(spark, tmp_path / "nowhere", market="KOSPI")
    GIVEN.drop(columns=["close"]).to_csv(tmp_path / "bars.csv", index=False)
    with pytest.raises(InputError, match="lacks the column close"):
        read(spark, tmp_path / "bars.csv", market="KOSPI")
    (tmp_path / "twice.csv").write_text("symbol,date,open,high,low,close,volume,Close\n000020,2024-03-04,1,1,1,1,5,2\n")
    with pytest.raises(InputError, match="more than one column close: leave one"):
        read(spark, tmp_path / "twice.csv", market="KOSPI")
    GIVEN.to_csv(tmp_path / "bars.csv", index=False)
    with pytest.raises(InputError, match="--market-map FILE"):
        read(spark, tmp_path / "bars.csv")
    (tmp_path / "map.csv").write_text("symbol,market\nNA,NASDAQ\nNA,NYSE\n")
    with pytest.raises(InputError, match="more than one market for NA"):
        read(spark, tmp_path / "bars.csv", market_map=str(tmp_path / "map.csv"))
    GIVEN.assign(symbol=[20, 30, 40]).to_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(InputError, match="000020 has become 20"):
        read(spark, tmp_path / "numbers.parquet", market="KOSPI")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.parquet or \.csv file"):
        read(spark, tmp_path / "empty", market="KOSPI")


def test_symbols_from_a_file(spark, tmp_path):
    (tmp_path / "s.csv").write_text("symbol,market,market_cap,is_etf\n000020,KOSPI,1e12,false\nNA,NASDAQ,,true\n")
    rows = {r["symbol"]: r for r in FilesSource(str(tmp_path / "s.csv")).symbols(spark, Request()).collect()}
    assert (
        rows["000020"]["market_cap"] == 1e12
        and rows["NA"]["is_etf"]
        and rows["NA"]["active"]
        and rows["NA"]["country"] == "US"
    )
    (tmp_path / "bad.csv").write_text("symbol,market\n000020,LSE\n")
    with pytest.raises(InputError, match="'LSE'"):
        FilesSource(str(tmp_path / "bad.csv")).symbols(spark, Request())


def test_symbols_of_a_file_of_bars_and_what_cannot_be_read(spark, tmp_path):
    pd.concat([GIVEN, GIVEN.assign(date="2024-03-05")]).to_csv(tmp_path / "bars.csv", index=False)
    rows = FilesSource(str(tmp_path / "bars.csv"), market="KOSPI").symbols(spark, Request()).collect()
    assert sorted(r["symbol"] for r in rows) == ["000020", "0126Z0", "NA"]
    assert {r["active"] for r in rows} == {None}, "what has bars may have left since"
    path = tmp_path / "s.csv"
    path.write_text("symbol,market,listed_shares,valid_from\n000020,KOSPI,5969782550.0,20250331\nNA,NASDAQ,,\n")
    rows = {r["symbol"]: r for r in FilesSource(str(path)).symbols(spark, Request()).collect()}
    assert rows["000020"]["listed_shares"] == 5_969_782_550 and rows["000020"]["valid_from"] == date(2025, 3, 31)
    assert rows["NA"]["listed_shares"] is rows["NA"]["valid_from"] is None
    path.write_text("symbol,market,market_cap\n000020,KOSPI,NaN\n")
    assert FilesSource(str(path)).symbols(spark, Request()).collect()[0]["market_cap"] is None
    for column, bad, why in (
        ("market_cap", "1 bn", "is not a number"),
        ("market_cap", "-5.0", "cannot be"),
        ("market_cap", "Infinity", "cannot be"),
        ("listed_shares", "1.0E30", "cannot be"),
        ("valid_from", "soon", "is not a date like"),
        ("is_etf", "maybe", "is not true or false"),
    ):
        path.write_text(f"symbol,market,{column}\n000020,KOSPI,{bad}\n")
        with pytest.raises(InputError, match=f"{column} '{bad}' {why}"):
            FilesSource(str(path)).symbols(spark, Request()).collect()


def test_names_as_excel_in_korea_saves_them(spark, tmp_path):
    """CP949 beside UTF-8, with Excel's mark and without it."""
    known = {"000020": "동화약품", "005930": "삼성전자", "0126Z0": "삼성에피스홀딩스"}
    for (symbol, name), encoding in zip(known.items(), ("cp949", "utf-8", "utf-8-sig"), strict=True):
        (tmp_path / f"{symbol}.csv").write_bytes(f"symbol,market,name\r\n{symbol},KOSPI,{name}\r\n".encode(encoding))
    rows = FilesSource(str(tmp_path)).symbols(spark, Request()).collect()
    assert {r["symbol"]: r["name"] for r in rows} == known
    (tmp_path / "bad.csv").write_bytes(b"symbol,market,name\n1,KOSPI,\xff\xff\n")
    with pytest.raises(InputError, match="neither UTF-8 nor CP949"):
        FilesSource(str(tmp_path)).symbols(spark, Request())


def test_a_folder_of_bars_tells_each_share_once(spark, tmp_path):
    """Files of different columns, and what changes from day to day: the newest row counts."""
    head = "symbol,market,date,open,high,low,close,volume"
    (tmp_path / "2023.csv").write_text(f"{head}\n000020,KOSDAQ,2023-12-28,1,1,1,1,5\n")
    (tmp_path / "2024.csv").write_text(
        f"{head},market_cap\n000020,KOSPI,2024-03-04,1,1,1,1,5,7\n000020,KOSPI,2024-03-05,1,1,1,1,5,8\n"
    )
    [row] = FilesSource(str(tmp_path)).symbols(spark, Request()).collect()
    assert (row["market"], row["market_cap"]) == ("KOSPI", 8)
    (tmp_path / "list.csv").write_text("symbol,market\n000020,KOSPI\n000020,KOSDAQ\n")
    with pytest.raises(InputError, match="more than once: 000020: leave one row"):
        FilesSource(str(tmp_path)).symbols(spark, Request())


def test_a_file_takes_back_nothing_that_it_has_no_column_for(spark, lake, tmp_path):
    def collect(text: str, day: date) -> dict:
        (tmp_path / "s.csv").write_text(text)
        collect_symbols(
            spark, lake, FilesSource(str(tmp_path / "s.csv"), market="KOSPI"), Request(), {"KR": day, "US": day}
        )
        rows = lake.read("symbols").orderBy("symbol", "valid_from").collect()
        return {r["symbol"]: r.asDict() for r in rows}

    told = "symbol,name,market_cap,listed_shares,is_warning,active\n"
    first = collect(told + "000020,Dong,5e9,100,true,true\n000030,Gone,1e9,50,false,false\n", date(2024, 3, 4))
    assert collect("symbol,is_etf\n000020,\n", date(2024, 3, 5)) == first
    bars = "symbol,date,open,high,low,close,volume\n"
    bars += "".join(f"{code},2024-03-05,1,1,1,1,5\n" for code in ("000020", "000030", "000040"))
    found = collect(bars, date(2024, 3, 6))
    assert {s: found.pop(s) for s in first} == first and found["000040"]["active"], "a share that nobody spoke of"
    again = collect(told + "000020,Dong,6e9,,false,\n", date(2024, 3, 7))["000020"]
    assert (again["market_cap"], again["listed_shares"], again["is_warning"]) == (6e9, 100, False)
    early = collect("symbol,valid_from\n000020,2020-01-02\n", date(2024, 3, 8))
    assert early["000020"] == again
    [past] = lake.read("symbols").where("valid_from = DATE'2020-01-02'").collect()
    assert past["market_cap"] is None and past["name"] is None, "what is known of later says nothing of then"
    # Between two days that are known it is what it was on the one before.
    collect("symbol,listed_shares,valid_from\n000020,150,2024-03-05\n", date(2024, 3, 8))
    [between] = lake.read("symbols").where("symbol = '000020' AND valid_from = DATE'2024-03-05'").collect()
    assert (between["name"], between["market_cap"], between["listed_shares"]) == ("Dong", 5e9, 150)
    assert between["is_warning"]
    stored = lake.version("symbols")
    with pytest.raises(InputError, match="as of a day after 2024-03-08: 000020 from 2024-03-09"):
        collect("symbol,active,valid_from\n000020,false,2024-03-09\n", date(2024, 3, 8))
    assert lake.version("symbols") == stored


def test_hidden_folders_packed_files_and_others(spark, tmp_path, capsys):
    text = "symbol,date,open,high,low,close,volume\n{},2024-03-04,1,1,1,1,5\n"
    for folder in (".ipynb_checkpoints", "_delta_log", "year=2024", "more"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bars.csv").write_text(text.format(f"00002{len(folder) % 10}"))
    (tmp_path / "B.csv.gz").write_bytes(gzip.compress(text.format("000660").encode()))
    (tmp_path / "c.pq").write_bytes(b"PAR1")
    rows = read(spark, tmp_path, market="KOSPI")
    assert set(rows) == {"000660", "000029", "000024"} and {r["close"] for r in rows.values()} == {1.0}
    assert "1 files are neither parquet nor csv and were left out: c.pq" in capsys.readouterr().err


def test_a_name_far_behind_tells_the_encoding(spark, tmp_path):
    text = (
        "symbol,market,name\n" + "".join(f"S{n:05},NASDAQ,Share {n}\n" for n in range(2000)) + "005930,KOSPI,삼성전자\n"
    )
    (tmp_path / "s.csv").write_bytes(text.encode("cp949"))
    rows = FilesSource(str(tmp_path / "s.csv")).symbols(spark, Request()).where("country = 'KR'").collect()
    assert [r["name"] for r in rows] == ["삼성전자"]


def test_the_file_is_named_that_something_is_wrong_with(spark, tmp_path):
    (tmp_path / "a.csv").write_text("symbol,market,market_cap\n000020,KOSPI,5\n")
    (tmp_path / "b.csv").write_text("symbol,market,market_cap,listed_shares\n000660,KOSPI,1 bn,\n")
    with pytest.raises(InputError, match=r"b\.csv: 000660: market_cap '1 bn' is not a number"):
        FilesSource(str(tmp_path)).symbols(spark, Request())
    (tmp_path / "b.csv").write_text("code,market\n000660,KOSPI\n")
    with pytest.raises(InputError, match=r"b\.csv lacks the column symbol"):
        FilesSource(str(tmp_path)).symbols(spark, Request())
