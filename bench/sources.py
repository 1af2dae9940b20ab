"""Collecting at scale against local servers with a vendor's latency: a day, a backfill, a backfill that is killed.

    .venv/bin/python bench/sources.py day-kr day-us backfill --symbols 3000 --rate 20

Each case starts the real job (spark-submit) in a lake of its own and writes what it took to bench/results/sources.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE / "lib")]

from tests.vendors.krx import KrxServer, quote  # noqa: E402
from tests.vendors.yahoo import Share, YahooServer, directory  # noqa: E402

from sise.calendars import Calendar  # noqa: E402

TODAY = date(2025, 3, 31)
LATENCY = (0.05, 0.3)


def job(name: str, arguments: list[str], env: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    command = [str(HERE / "spark-submit.sh"), f"jobs/{name}.py", *arguments]
    out = (folder / f"{name}-{time.monotonic_ns()}.out").open("w")
    return subprocess.Popen(
        command,
        cwd=HERE,
        env={**os.environ, **env},
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def run(name: str, arguments: list[str], env: dict[str, str], folder: Path) -> tuple[float, dict]:
    started = time.monotonic()
    process = job(name, arguments, env, folder)
    code = process.wait()
    seconds = round(time.monotonic() - started, 1)
    text = max(folder.glob(f"{name}-*.out"), key=lambda path: path.stat().st_mtime).read_text()
    record = json.loads([line for line in text.splitlines() if line.startswith('{"run_id"')][-1])
    if code:
        raise SystemExit(f"{name} failed: {record['error']}")
    return seconds, record


def environment(folder: Path, **other: str) -> dict[str, str]:
    return {
        "SISE_LAKE": str(folder / "lake"),
        "SISE_LOCAL": str(folder / "local"),
        "SISE_TODAY": str(TODAY),
        "KRX_ID": "tester",
        "KRX_PW": "secret-word",
        **other,
    }


def us_market(count: int, days: list[date]) -> dict[str, Share]:
    rng = random.Random(7)
    shares = {}
    for n in range(count):
        level, rows = rng.uniform(5, 500), []
        for day in days:
            level *= 1 + rng.gauss(0, 0.02)
            low, high = level * 0.99, level * 1.01
            rows.append(
                (day, round(level, 2), round(high, 2), round(low, 2), round(level, 2), rng.randrange(10**4, 10**7))
            )
        shares[f"S{n:04}"] = Share(rows, cap=1e9 + n)
    shares["^IXIC"] = Share([(day, 1e4, 1e4, 1e4, 1e4, 1) for day in days])
    return shares


def calendar(country: str) -> Calendar:
    return Calendar.load(country, HERE / "conf" / "calendar_overrides.json", HERE / ".local" / "cache")


def with_listing(server: YahooServer, folder: Path, env: dict[str, str]) -> None:
    server.directory = directory([(s, f"{s} Inc. - Common Stock") for s in server.shares if not s.startswith("^")])
    latency, server.latency = server.latency, (0.0, 0.0)
    run("collect_symbols", ["--source", "yahoo"], env, folder)
    server.latency = latency


def day_kr(args: argparse.Namespace, folder: Path) -> dict:
    """A session of KOSPI and KOSDAQ on top of some."""
    sessions = calendar("KR").between(date(2025, 3, 24), TODAY)
    half = 1350
    quotes = {
        (market, day): [quote(f"{n:05}{k}", 10_000 + n + 10 * d, 10, market) for n in range(half)]
        for d, day in enumerate(sessions)
        for k, market in enumerate(("STK", "KSQ"))
    }
    with KrxServer(quotes=quotes, latency=LATENCY) as server:
        env = environment(folder, SISE_KRX_URL=server.url)
        run("collect_prices", ["--source", "krx", "--end", str(sessions[-2])], env, folder)
        server.asked.clear()
        seconds, record = run("collect_prices", ["--source", "krx"], env, folder)
        return {"seconds": seconds, "requests": len(server.asked), "rows_out": record["rows_out"], "symbols": 2 * half}


def day_us(args: argparse.Namespace, folder: Path) -> dict:
    """A session of NASDAQ on top of two weeks."""
    days = calendar("US").between(date(2025, 3, 10), TODAY)
    with YahooServer(us_market(args.symbols, days), latency=LATENCY) as server:
        env = environment(folder, SISE_YAHOO_URL=server.url, SISE_NASDAQ_URL=server.url, SISE_YAHOO_RATE="1000")
        env["SISE_YAHOO_WORKERS"] = "32"
        with_listing(server, folder, env)
        run("collect_prices", ["--source", "yahoo", "--market", "NASDAQ", "--end", str(days[-2])], env, folder)
        server.asked.clear()
        env |= {"SISE_YAHOO_RATE": str(args.rate), "SISE_YAHOO_WORKERS": "10"}
        seconds, record = run("collect_prices", ["--source", "yahoo", "--market", "NASDAQ"], env, folder)
        return {"seconds": seconds, "requests": len(server.asked), "rows_out": record["rows_out"], "rate": args.rate}


def backfill(args: argparse.Namespace, folder: Path) -> dict:
    """Four years, uninterrupted and killed ten times: the same rows, and no answered question asked again."""
    days = calendar("US").between(date(2021, 3, 31), TODAY)
    results: dict = {}
    with YahooServer(us_market(args.symbols, days), latency=LATENCY) as server:
        for kind in ("uninterrupted", "killed"):
            room = folder / kind
            room.mkdir()
            env = environment(room, SISE_YAHOO_URL=server.url, SISE_NASDAQ_URL=server.url)
            env |= {"SISE_YAHOO_RATE": str(args.rate), "SISE_YAHOO_WORKERS": str(max(10, int(args.rate / 3)))}
            with_listing(server, room, env)
            server.asked.clear()
            arguments = ["--source", "yahoo", "--market", "NASDAQ", "--years", "4"]
            started, kills = time.monotonic(), 0
            while kind == "killed" and kills < args.kills:
                goal = len(server.asked) + args.symbols // (args.kills + 2)
                process = job("collect_prices", arguments, env, room)
                while process.poll() is None and len(server.asked) < goal:
                    time.sleep(0.05)
                time.sleep(random.uniform(0, 8))
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    kills += 1
                else:
                    break
            seconds, record = run("collect_prices", arguments, env, room)
            charts = [asked.path for asked in server.asked if "chart" in asked.path]
            results[kind] = {
                "seconds": round(time.monotonic() - started, 1),
                "last_run_seconds": seconds,
                "kills": kills,
                "charts_asked": len(charts),
                "asked_twice": len(charts) - len(set(charts)),
                "rows": rows_of(room),
                "chunks": record["details"].get("chunks"),
                "driver_mb": record["details"].get("driver_mb"),
            }
    results["equal"] = same(folder / "uninterrupted", folder / "killed")
    results["peak_mb_of_children"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return results


def frame(folder: Path):  # type: ignore[no-untyped-def]
    from deltalake import DeltaTable

    columns = ["country", "symbol", "date", "open", "high", "low", "close", "volume", "basis"]
    table = DeltaTable(str(folder / "lake" / "prices")).to_pyarrow_dataset().to_table(columns=columns)
    return table.sort_by([("symbol", "ascending"), ("date", "ascending")])


def rows_of(folder: Path) -> int:
    return int(frame(folder).num_rows)


def same(one: Path, other: Path) -> bool:
    return bool(frame(one).equals(frame(other)))


CASES = {"day-kr": day_kr, "day-us": day_us, "backfill": backfill}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--symbols", type=int, default=3_000)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second that Yahoo allows")
    parser.add_argument("--kills", type=int, default=10)
    args = parser.parse_args()
    path = HERE / "bench" / "results" / "sources.json"
    for name in args.cases:
        with tempfile.TemporaryDirectory(prefix="sise-bench-") as folder:
            result = CASES[name](args, Path(folder))
        known = json.loads(path.read_text()) if path.exists() else {}
        key = name if name == "day-kr" else f"{name} {args.symbols} symbols at {args.rate:g}/s"
        known[key] = {
            **result,
            "latency_ms": [1000 * s for s in LATENCY],
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        }
        path.write_text(json.dumps(known, indent=2) + "\n")
        print(name, json.dumps(known[key]), flush=True)


if __name__ == "__main__":
    main()
