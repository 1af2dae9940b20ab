"""The collecting jobs against vendors' servers, as people start them: killed in the middle, and whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import date

import pytest

from sise.reader import LakeReader
from tests.conftest import HERE
from tests.vendors.kis import KisServer, master
from tests.vendors.krx import KrxServer, quote
from tests.vendors.server import Reply
from tests.vendors.yahoo import Share, YahooServer, directory

DAY = date(2025, 3, 31)


def start(job, *arguments, folder, **env):
    env = {
        **os.environ, "SISE_LAKE": str(folder / "lake"), "SISE_LOCAL": str(folder / "local"), "SISE_TODAY": str(DAY),
        "SISE_BACKOFF": "0.05", **env,
    }  # fmt: skip
    command = [HERE / "spark-submit.sh", f"jobs/{job}.py", *arguments]
    return subprocess.Popen(
        command, cwd=HERE, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert len(out.strip().splitlines()) == 1, (out, err[-3000:])
    return process.returncode, json.loads(out), err


def walk(days, k):
    return [(d, 10.0 + n, 11.0 + n, 9.0 + n, 10.5 + n, 100 * k + n) for n, d in enumerate(days)]


def test_a_backfill_that_is_killed_asks_nothing_twice_and_loses_nothing(tmp_path, calendars):
    days = calendars["US"].between(date(2024, 4, 1), DAY)
    names = ["NA", "BRK.B", *[f"S{n:03}" for n in range(60)]]
    shares = {name.replace(".", "-"): Share(walk(days, k), cap=2e8) for k, name in enumerate(names)}
    shares |= {"^IXIC": Share(walk(days, 0)), "TINY": Share([], cap=9e7)}
    with YahooServer(shares, latency=(0.02, 0.1)) as server:
        text = [(name, f"{name} Inc. - Common Stock") for name in [*names, "TINY"]]
        server.directory = directory([*text, ("WARR", "Warr Inc. - Warrant"), ("FUND", "Fund")], FUND={"etf": "Y"})
        env = {"SISE_YAHOO_URL": server.url, "SISE_NASDAQ_URL": server.url, "SISE_YAHOO_RATE": "12"}
        code, record, _ = finish(start("collect_symbols", "--source", "yahoo", folder=tmp_path, **env))
        assert code == 0 and record["details"]["symbols"] == len(names)
        server.asked.clear()
        arguments = ("collect_prices", "--source", "yahoo", "--market", "NASDAQ", "--years", "1")
        for goal in (15, 35):
            process = start(*arguments, folder=tmp_path, **env)
            end = time.monotonic() + 240
            while server.count("chart") < goal and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        code, record, err = finish(start(*arguments, folder=tmp_path, **env))
    assert code == 0, err[-2000:]
    charts = [asked.path for asked in server.asked if "chart" in asked.path]
    # what was under way when the job was killed had not been answered: at most one question a worker
    assert len(charts) - len(set(charts)) <= 2 * 10 and len(set(charts)) == len(names) + 1
    rows = LakeReader(str(tmp_path / "lake")).rows("prices").to_pylist()
    got = {
        (row["symbol"], row["date"]): (row["open"], row["high"], row["low"], row["close"], row["volume"])
        for row in rows
    }
    assert len(got) == len(rows) == len(names) * len(days)
    for name in names:
        for d, *values in shares[name.replace(".", "-")].rows:
            assert got[name, d] == tuple(values)
    fetches = LakeReader(str(tmp_path / "lake")).rows("fetches").to_pylist()
    done = [row["symbol"] for row in fetches if row["fate"] == "ok" and row["kind"] == "bars"]
    assert sorted(done) == sorted(names) and len({row["run_id"] for row in fetches}) >= 2


def listed(code, other):
    return {"code": code, "name": f"주식 {code}"} | (other or {})


def test_a_krx_day_with_a_block_in_the_middle(tmp_path, calendars):
    days = calendars["KR"].between(date(2025, 3, 25), DAY)
    quotes = {
        (market, day): [quote(f"{n:04}{k}0", 1_000 + 10 * n, 5, market) for n in range(20)]
        for day in days
        for k, market in enumerate(("STK", "KSQ"))
    }
    told = {3: {"halted": True}, 4: {"warning": "02"}, 5: {"warning": "01"}}
    care = {5: {"care": True}, 6: {"administration": True}}
    flags = {
        "kospi_code.mst.zip": master("KOSPI", [listed(f"{n:04}00", told.get(n)) for n in range(20)]),
        "kosdaq_code.mst.zip": master("KOSDAQ", [listed(f"{n:04}10", care.get(n)) for n in range(20)]),
    }
    with KrxServer(quotes=quotes, account=("tester-7531", "secret-word")) as krx, KisServer() as kis:
        kis.masters = flags
        env = {
            "SISE_KRX_URL": krx.url, "SISE_KIS_MASTER_URL": kis.url, "SISE_KRX_RATE": "200", "KRX_ID": "tester-7531",
            "KRX_PW": "secret-word",
        }  # fmt: skip
        code, record, err = finish(start("collect_symbols", "--source", "kis", folder=tmp_path, **env))
        assert code == 0 and record["details"]["symbols"] == 40
        blocked = Reply("<html>Access Denied</html>", 403)
        krx.fault = lambda asked: blocked if "20250328" in asked.body and "01501" in asked.body else None
        code, record, err = finish(start("collect_prices", "--source", "krx", folder=tmp_path, **env))
        assert code == 1 and "nothing is asked before" in record["error"]
        assert record["details"]["fates"]["blocked"] == 4 and record["rows_out"] == 120
        krx.fault = None
        sent = len(krx.asked)
        code, record, err2 = finish(start("collect_prices", "--source", "krx", folder=tmp_path, **env))
        assert code == 1 and len(krx.asked) == sent and "nothing is asked before" in record["error"]
        next((tmp_path / "local" / "state" / "circuits").glob("krx.json")).unlink()
        code, record, err3 = finish(start("collect_prices", "--source", "krx", folder=tmp_path, **env))
        assert code == 0 and record["rows_out"] == 80
        days_asked = [a.form["trdDd"] for a in krx.asked[sent:] if "01501" in a.body]
        assert set(days_asked) == {"20250328", "20250331"} and len(days_asked) == 4
    for text in (err, err2, err3, json.dumps(record)):
        assert "tester-7531" not in text and "secret-word" not in text
    for path in (tmp_path / "lake").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert b"secret-word" not in data and b"tester-7531" not in data
    symbols = {row["symbol"]: row for row in LakeReader(str(tmp_path / "lake")).rows("symbols").to_pylist()}
    assert symbols["000300"]["is_halted"] and symbols["000400"]["is_warning"] and not symbols["000500"]["is_warning"]
    assert symbols["000510"]["is_warning"] and symbols["000610"]["is_administration"]
    assert (symbols["000000"]["listed_shares"], symbols["000000"]["market_cap"]) == (1_000_000, 1e9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--source", "krx"), "KRX_ID is not set"),
        (("--source", "yahoo", "--market", "NASDAQ"), "collect_symbols.py first"),
    ],
)
def test_what_a_person_gets_wrong(tmp_path, arguments, said):
    env = {"KRX_ID": "", "KRX_PW": "", "SISE_SECRETS": str(tmp_path / "none")}
    code, record, _ = finish(start("collect_prices", *arguments, folder=tmp_path, **env))
    assert code == 1 and said in record["error"]
