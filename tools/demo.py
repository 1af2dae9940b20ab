"""make demo: the main job on the sample market, step by step, each started as a user would start it.

With --headless it ends with a summary and a non-zero exit if anything was off. The demo's lake is .local/demo/lake.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bootstrap import run_telling
from demo_live import live, live_settings, services, stop_services
from demo_view import view

HERE = Path(__file__).resolve().parent.parent
LAKE = HERE / ".local" / "demo" / "lake"
SOURCE = ["--source", "sample", "--symbols"]
console = Console(stderr=True)


def run(title: str, job: str, *arguments: str, environment: dict[str, str] | None = None) -> dict:
    """Starts a job through spark-submit.sh and returns its JSON line."""
    console.print(f"[bold]{title}[/bold]\n  ./spark-submit.sh jobs/{job} {' '.join(arguments)}")
    environment = {**os.environ, "SISE_LAKE": str(LAKE), "SISE_TODAY": "2026-01-02", **(environment or {})}
    command = [HERE / "spark-submit.sh", HERE / "jobs" / job, *arguments]
    with console.status("running …"):  # which shows where somebody watches: elsewhere a line now and then says so
        done = run_telling(command, environment, lambda line: None if console.is_terminal else console.print(line))
    for line in done.stderr.splitlines():
        if line.startswith(job.removesuffix(".py")) or done.returncode:
            console.print(f"  {line}", markup=False, highlight=False)
    try:
        record = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise SystemExit(f"{job} ended without its JSON line (exit code {done.returncode})") from None
    if done.returncode or record["status"] != "ok":
        raise SystemExit(f"{job} failed: {record['error']}")
    return record


def check(problems: list[str], holds: bool, what: str) -> None:
    if not holds:
        problems.append(what)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--symbols", default="300")
    args = parser.parse_args()
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a window that is closed: what was started is stopped all the same
        signal.signal(number, lambda *_: sys.exit(1))
    stop_services(LAKE)  # of a demo that was killed: without its pid files nobody would find them
    shutil.rmtree(LAKE.parent, ignore_errors=True)
    source = [*SOURCE, args.symbols]
    symbols = run("1. The listing of the sample market", "collect_symbols.py", *source)
    prices = run("2. Its prices, up to the last session but one", "collect_prices.py", *source, "--end", "2025-12-29")
    full = run("3. Indicators over the whole history", "compute_indicators.py")
    new = run("4. A new session comes in", "collect_prices.py", *source, "--start", "2025-12-30")
    day = run("5. Indicators of the new session only", "compute_indicators.py")
    quality = run("6. What is odd in the data", "check_quality.py")
    lists = run("7. Watchlists of the last session", "scan_watchlists.py")
    problems: list[str] = []
    count = int(args.symbols)
    check(
        problems,
        symbols["details"]["symbols"] == count,
        f"{symbols['details']['symbols']} of {count} symbols are known",
    )
    check(problems, prices["rows_in"] == prices["rows_out"] and not prices["rows_rejected"], "prices were refused")
    check(problems, full["details"]["mode"] == "full" and full["rows_out"] > 0, "the first run was not a full one")
    check(problems, day["details"]["mode"] == "day", "the new session was not computed as a day")
    check(
        problems, 0 < day["rows_out"] <= new["rows_out"], f"{day['rows_out']} indicator rows for {new['rows_out']} bars"
    )
    check(problems, day["details"]["as_of"]["KR"] == "2025-12-30", "the day is not the last session")
    check(
        problems, lists["rows_out"] > 0 and lists["details"]["lists"]["top_market_cap"] > 0, "the watchlists are empty"
    )
    check(problems, not quality["details"]["checks"].get("jump"), "the sample market has an unexplained jump")
    environment = live_settings(LAKE)
    with services(environment):
        signals = live(console, environment, problems)
        archived = run("10. The signals into the lake", "archive_signals.py", environment=environment)
        check(problems, archived["rows_out"] == signals["signals"], "not every signal is in the archive")
        if args.headless:
            view(console, environment, True, problems)
        seconds = time.monotonic() - started
        _show()
        if problems:
            console.print(f"[red]demo: {len(problems)} things were off after {seconds:.0f} s:[/red]")
            for problem in problems:
                console.print(f"  - {problem}", markup=False)
            return 1
        rows = prices["rows_out"] + new["rows_out"]
        console.print(
            f"[green]demo: all is well: {count} shares, {rows:,} bars, {lists['rows_out']} entries on "
            f"{len(lists['details']['lists'])} watchlists, {signals['signals']} signals from {signals['ticks']} ticks, "
            f"in {seconds:.0f} s[/green]"
        )
        if not args.headless:
            console.print(f"Look around: SISE_LAKE={LAKE} .venv/bin/sise status · make history · make notebook")
            view(console, environment, False, problems)
    return 1 if problems else 0


def _show() -> None:
    console.print()
    shown = {**os.environ, "SISE_LAKE": str(LAKE)}
    sise = HERE / ".venv" / "bin" / "sise"
    for command in (["status"], ["show", "watchlist", "high_volume"], ["show", "indicators", "000020", "--last", "5"]):
        subprocess.run([sise, *command], env=shown, check=True)


if __name__ == "__main__":
    sys.exit(main())
