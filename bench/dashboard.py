"""make bench-dashboard: 50 viewers on the Signals page at once, and how late a signal reaches each of them.

A real ``sise dashboard`` on a real Redis. Each viewer is a session of Streamlit over its WebSocket, as a browser opens
it: it runs the page, keeps asking for the live part at the interval the server tells, and reads every message. (Fifty
browsers would measure the browsers.) 200 signals stand on the page and their prices change each second. A signal's
lateness: from the moment Redis has it in its stream (Redis's clock, this machine's) to the message that shows it,
decoded by the viewer. Writes bench/results/dashboard.json.

    make bench-dashboard BENCH_ARGS="--viewers 50 --seconds 60"

Before that, the symbol page's data is timed over ten years of a whole market (--history).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import websockets
from deltalake import write_deltalake
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from tests.live.conftest import settings_in  # noqa: E402

from sise.dashboard.data.share import history  # noqa: E402
from sise.dashboard.data.view import LakeView  # noqa: E402
from sise.indicators.registry import Registry  # noqa: E402
from sise.ops.services import start, stop  # noqa: E402
from sise.serving.signals import SignalStore, connect  # noqa: E402
from sise.settings import Settings  # noqa: E402
from sise.signals.rules import LiveRules  # noqa: E402
from sise.tables import TABLES  # noqa: E402

SHARES = [f"{n:06d}" for n in range(10, 20_010, 10)]


@dataclass
class Viewer:
    """One session: what it has seen, and when."""

    seen: dict[str, float] = field(default_factory=dict)
    painted: float = 0.0  # seconds from opening to the first table
    messages: int = 0
    octets: int = 0
    known: dict[str, bytes] = field(default_factory=dict)


def rerun(fragment: str = "", hashes: list[str] | None = None) -> bytes:
    message = BackMsg()
    state = message.rerun_script
    state.context_info.timezone, state.context_info.locale = "Asia/Seoul", "ko-KR"
    state.fragment_id, state.is_auto_rerun = fragment, bool(fragment)
    state.cached_message_hashes.extend(hashes or [])
    return message.SerializeToString()


async def watch(url: str, viewer: Viewer, until: float) -> None:
    """Behaves as the page in a browser does."""
    opened, timers, shown = time.monotonic(), {}, ""
    async with websockets.connect(
        f"{url}/_stcore/stream", subprotocols=["streamlit"], max_size=None, compression=None, open_timeout=60
    ) as socket:
        await socket.send(rerun())

        async def again(fragment: str, interval: float) -> None:
            while True:
                await asyncio.sleep(interval)
                await socket.send(rerun(fragment))

        try:
            while time.monotonic() < until:
                try:
                    octets = await asyncio.wait_for(socket.recv(), 0.5)
                except TimeoutError:
                    continue
                now = time.time()
                viewer.messages += 1
                viewer.octets += len(octets)
                message = ForwardMsg.FromString(octets)
                kind = message.WhichOneof("type")
                if kind == "ref_hash":
                    message = ForwardMsg.FromString(viewer.known[message.ref_hash])
                    kind = message.WhichOneof("type")
                elif message.metadata.cacheable:
                    viewer.known[message.hash] = octets
                if kind == "auto_rerun":
                    name = message.auto_rerun.fragment_id
                    if name not in timers:
                        timers[name] = asyncio.create_task(again(name, message.auto_rerun.interval))
                elif kind == "delta" and message.delta.new_element.HasField("bidi_component"):
                    part = message.delta.new_element.bidi_component
                    if part.component_name == "sise_grid" and part.json:
                        viewer.painted = viewer.painted or time.monotonic() - opened
                        text = json.loads(part.json)["rows"]
                        if text != shown:  # what it was shown before, a browser draws no second time either
                            shown = text
                            for row in json.loads(text):
                                viewer.seen.setdefault(row["id"], now)
        finally:
            for timer in timers.values():
                timer.cancel()


@contextmanager
def site(settings: Settings, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    from tests.live.browser import viewer

    with viewer(settings, folder) as running:
        yield running.url.replace("http", "ws", 1), psutil.Process(running.process.pid)


def records(shares: list[str], rules: LiveRules, offset: int) -> list[str]:
    now = int(time.time() * 1000)
    return [
        json.dumps(
            {
                "country": "KR",
                "symbol": symbol,
                "market": "KOSPI",
                "price": 1000.0,
                "timestamp": now,
                "day_volume": 1,
                "session": "2026-01-02",
                "as_of": "2025-12-30",
                "version": rules.version,
                "partition": 0,
                "offset": offset + n,
                "received": now,
                "indicators": {"rsi_14": 29.0},
                "relaxed": ["rsi_oversold"],
                "strict": ["rsi_oversold"],
            }
        )
        for n, symbol in enumerate(shares)
    ]


def move_prices(settings: Settings, stopping: threading.Event) -> None:
    """Each second every shown signal has another price: the page's whole table is another one each time."""
    client, prefix = connect(settings), settings.redis_prefix
    while not stopping.wait(1.0):
        pipe = client.pipeline(transaction=False)
        for name in client.zrange(f"{prefix}signals:active", -300, -1):
            move = random.gauss(0, 0.02)
            pipe.hset(f"{prefix}signal:{name.decode()}", mapping={"last_price": 1000 * (1 + move), "pnl": move})
        pipe.execute()


def measure(settings: Settings, viewers: int, seconds: float, folder: Path) -> dict[str, Any]:
    registry = Registry.load(settings.conf_file("indicators.json"))
    rules = LiveRules.load(settings.conf_file("watchlists.json"), registry)
    client = connect(settings)
    store = SignalStore(client, settings, "bench")
    store.fire(records(SHARES[:200], rules, 0), rules)
    with site(settings, folder) as (url, process):
        all_ = [Viewer() for _ in range(viewers)]
        lone = Viewer()
        asyncio.run(watch(url, lone, time.monotonic() + 8))  # imports and caches: the first viewer's alone
        begun = time.monotonic()
        until = begun + seconds + 15

        lost: list[Any] = []

        def watching() -> None:
            async def everybody() -> None:
                async def one(n: int) -> None:
                    await asyncio.sleep(n * 0.1)  # they come within some seconds, as people do when the market opens
                    await watch(url, all_[n], until)

                ended = await asyncio.gather(*(one(n) for n in range(viewers)), return_exceptions=True)
                lost.extend(problem for problem in ended if problem is not None)

            asyncio.run(everybody())

        stopping = threading.Event()
        threads = [threading.Thread(target=watching), threading.Thread(target=move_prices, args=(settings, stopping))]
        for thread in threads:
            thread.start()
        time.sleep(viewers * 0.1 + 3)
        process.cpu_percent()
        steady, octets = time.monotonic(), sum(v.octets for v in all_)
        fresh = iter(SHARES[200:])
        number = 1_000
        while time.monotonic() < until - 5:
            store.fire(records([next(fresh)], rules, number), rules)
            number += 1
            time.sleep(random.uniform(0.4, 1.2))
        cpu, span = process.cpu_percent(), time.monotonic() - steady
        octets = sum(v.octets for v in all_) - octets
        readers = sum(c.get("cmd", "") == "xread" for c in client.client_list())
        stopping.set()
        for thread in threads:
            thread.join()
        gib = process.memory_info().rss / 2**30
    if lost:
        raise SystemExit(f"{len(lost)} of {viewers} viewers were lost: {lost[0]!r}")
    fired = {}
    for name, row in client.xrange(f"{settings.redis_prefix}signals"):
        fired[row[b"id"].decode()] = int(name.split(b"-")[0]) / 1000
    late_ones = set(SHARES[200:])
    fresh_ones = {name: at for name, at in fired.items() if name.split(":")[1] in late_ones}
    late = [[viewer.seen[name] - at for name, at in fresh_ones.items() if name in viewer.seen] for viewer in all_]
    expected = len(fresh_ones)
    flat = np.array([each for mine in late for each in mine])
    if not len(flat):
        raise SystemExit(f"{expected} signals fired and none was seen: {[(v.messages, v.painted) for v in all_]}")
    return {
        "viewers": viewers,
        "signals": expected,
        "missed": viewers * expected - len(flat),
        "late_p50_s": round(float(np.percentile(flat, 50)), 3),
        "late_p95_s": round(float(np.percentile(flat, 95)), 3),
        "late_p99_s": round(float(np.percentile(flat, 99)), 3),
        "late_max_s": round(float(flat.max()), 3),
        "first_paint_p50_s": round(float(np.median([v.painted for v in all_])), 2),
        "first_paint_max_s": round(max(v.painted for v in all_), 2),
        "server_cores": round(cpu / 100, 2),
        "server_gib": round(gib, 2),
        "kib_per_viewer_and_second": round(octets / viewers / span / 1024, 1),
        "redis_readers": readers,
    }


def wide_lake(root: Path, shares: int, years: int) -> Settings:
    """prices and indicators of a whole market, laid out as the jobs lay them: by date, then symbol."""
    rng = np.random.default_rng(1)
    registry = Registry.load(HERE / "conf" / "indicators.json")
    symbols = np.array([f"{n:06d}" for n in range(10, shares * 10 + 10, 10)])
    days = pd.bdate_range(end="2025-12-30", periods=252 * years).date
    for first in range(0, len(days), 252):
        part = days[first : first + 252]
        rows = len(part) * shares
        base = {"country": np.full(rows, "KR"), "symbol": np.tile(symbols, len(part)), "date": np.repeat(part, shares)}
        close = np.round(rng.uniform(1_000, 90_000, rows))
        bars = {**base, "market": np.full(rows, "KOSPI"), **{c: close for c in ("open", "high", "low", "close")}}
        bars |= {"volume": rng.integers(1, 10**7, rows), "value": close, "basis": base["date"]}
        frame = pa.table(bars).append_column("provisional", pa.array(np.zeros(rows, bool)))
        frame = frame.append_column("flags", pa.nulls(rows, pa.list_(pa.string())))
        write_deltalake(str(root / "prices"), frame, mode="append")
        marks = {**base, "market": np.full(rows, "KOSPI"), "close": close, "volume": bars["volume"].astype(float)}
        marks |= {c: rng.normal(0, 1, rows) for c in registry.core}
        write_deltalake(str(root / "indicators"), pa.table(marks), mode="append")
    kinds = {"string": pa.string(), "date": pa.date32(), "double": pa.float64(), "boolean": pa.bool_()}
    schema = pa.schema([(c, kinds.get(k, pa.timestamp("us", "UTC"))) for c, k in TABLES["actions"].columns.items()])
    write_deltalake(str(root / "actions"), schema.empty_table())
    return Settings(lake=str(root), conf=HERE / "conf", local=root / "local")


def time_history(root: Path, shares: int, years: int) -> dict[str, Any]:
    settings = wide_lake(root, shares, years)
    view = LakeView(settings)
    begun = time.monotonic()
    history(view, "KR", "000010")
    first = time.monotonic() - begun  # from the table as it lies; starts the copies by share
    for name in ("prices", "indicators"):
        view.by_share(name).wait()
    made = time.monotonic() - begun
    seconds = []
    for n in range(1, 12):
        begun = time.monotonic()
        rows = history(view, "KR", f"{(n * 331 % shares) * 10 + 10:06d}")
        seconds.append(time.monotonic() - begun)
        assert len(rows) == 252 * years
    return {
        "rows": shares * years * 252,
        "bars_of_a_share": 252 * years,
        "without_copy_s": round(first, 3),
        "copies_made_s": round(made, 1),
        "median_s": round(float(np.median(seconds)), 3),
        "max_s": round(max(seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--lake", default=str(HERE / ".local" / "demo" / "lake"), help="names and sparklines; may be missing"
    )
    parser.add_argument("--history", type=int, default=2_700, metavar="SHARES", help="0: leave the symbol page out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sise-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        path = HERE / "bench" / "results" / "dashboard.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        result: dict[str, Any] = {**before, "when": str(datetime.now(UTC).date()), "cores": os.cpu_count()}
        result["load_before"] = round(os.getloadavg()[0], 1)
        if args.history:
            result["symbol_page"] = time_history(folder / "wide", args.history, 10)
            print(json.dumps(result["symbol_page"]), file=sys.stderr)
        settings = settings_in(folder)
        settings = Settings(
            **{**vars(settings), "lake": args.lake, "today": date(2026, 1, 2), "redis_prefix": "bench:"}
        )
        start(settings, ("redis",))
        try:
            result["signals_page"] = measure(settings, args.viewers, args.seconds, folder)
        finally:
            stop(settings, ("redis",))
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
