"""make bench-live: how long a tick takes to become a record in Kafka and a signal in Redis, and how much is too much.

Real Kafka and Redis on this machine, detection and relay as users start them, load serialised beforehand. Latencies
come from the broker's and Redis's own clocks: a tick's append time → its record's append time → the moment the
script wrote the signal. Writes bench/results/live.md and live.json.

    make bench-live BENCH_ARGS="--only realtime,micro_batch,ceilings --seconds 60 --long 360"
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from confluent_kafka import Consumer, Producer
from pyspark import SparkContext

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE / "bench"))

from batch import CALENDARS, REGISTRY, Beside, generate, load, open_spark  # noqa: E402
from tests.live.conftest import free_ports  # noqa: E402

from sise.indicators.compute import compute_indicators  # noqa: E402
from sise.lake import Lake  # noqa: E402
from sise.ops.services import start, stop  # noqa: E402
from sise.reader import LakeReader  # noqa: E402
from sise.serving.feeds import live_rows  # noqa: E402
from sise.serving.kafka import ensure_topics  # noqa: E402
from sise.serving.signals import connect  # noqa: E402
from sise.settings import Settings  # noqa: E402
from sise.signals.levels import levels_of  # noqa: E402
from sise.signals.rules import LiveRules  # noqa: E402
from sise.topics import RULES, TICKS, key_of, topic_of  # noqa: E402

RESULTS = HERE / "bench" / "results"
ACTIVE = 20  # one share in so many goes in and out of a rule
# Seconds that it stays on a side, at least: a faster feed tells of a price more often, and the price does not cross a
# level more often for that.
STAY = 6.0
PARTITIONS = 4
PRICE_AGE = 2000  # what a latest price may take, ms
RECEIVED = re.compile(rb'"received":(\d+)')


def make_lake(root: Path, symbols: int) -> None:
    spark = open_spark(root)
    lake = Lake(spark, str(root / "lake"), REGISTRY.extra_columns)
    generate(root / "source", symbols, 260)
    load(spark, str(root / "source"), lake, 4)
    compute_indicators(spark, lake, REGISTRY, CALENDARS, full=True)
    spark.stop()
    SparkContext._gateway.shutdown()  # and its JVM, which would be in the way  # type: ignore[union-attr]
    SparkContext._gateway = SparkContext._jvm = None


class Load:
    """Ticks as bytes: most shares at a quiet price, each ACTIVE-th goes into a rule and out of it."""

    def __init__(self, settings: Settings):
        rules = LiveRules.load(settings.conf_file("watchlists.json"), REGISTRY)
        self.pairs: list[tuple[bytes, bytes, bytes]] = []
        for n, state in enumerate(live_rows(LakeReader(settings.lake))):
            level, quiet = None, state["close"]
            if n % ACTIVE == 0:
                level = next(x for x in levels_of(REGISTRY, rules, state) if x.rule == "rsi_oversold")
            if level is not None and level.price is not None:
                inside, outside = level.price * 0.995, level.price * 1.06
            else:
                inside = outside = quiet
            self.pairs.append((key_of(state), self._tick(state, inside), self._tick(state, outside)))

    def _tick(self, state: dict[str, Any], price: float) -> bytes:
        when = int(state["session_open"].timestamp() * 1000) + 3_600_000
        tick = {
            "country": state["country"],
            "symbol": state["symbol"],
            "market": state["market"],
            "price": round(price, 2),
            "volume": 1,
            "day_volume": 1,
            "timestamp": when,
            "session": str(state["valid_session"]),
            "source": "bench",
            "clock": when,
        }
        return json.dumps(tick, separators=(",", ":")).encode()

    def send(self, settings: Settings, rate: float, seconds: float) -> float:
        """Sends at ``rate``; the rate reached."""
        producer = Producer(
            {"bootstrap.servers": settings.kafka, "linger.ms": 2, "acks": "1", "partitioner": "murmur2_random"}
        )
        topic, count, started = topic_of(TICKS, settings.topic_prefix), 0, time.monotonic()
        turns = max(1, round(STAY * rate / len(self.pairs)))  # over all shares, before a share changes its side
        while (elapsed := time.monotonic() - started) < seconds:
            due = int(elapsed * rate)
            while count < due:
                turn, at = divmod(count, len(self.pairs))
                key, inside, outside = self.pairs[at]
                try:
                    producer.produce(topic, inside if turn // turns % 2 == 0 else outside, key)
                except BufferError:
                    producer.poll(0.01)
                    continue
                count += 1
            producer.poll(0)
            time.sleep(0.002)
        producer.flush(30)
        return count / (time.monotonic() - started)


class Watcher(Beside):
    """Reads tick-rules beside the relay and keeps each record's latency; signals' come from Redis's stream."""

    def __init__(self, settings: Settings):
        self.settings, self.latencies, self._ready = settings, [], threading.Event()

    def __enter__(self) -> Self:
        super().__enter__()
        self._ready.wait(20)
        self.since = int(time.time() * 1000)
        return self

    def run(self) -> None:
        reader = Consumer(
            {
                "bootstrap.servers": self.settings.kafka,
                "group.id": f"bench-{time.time_ns()}",
                "auto.offset.reset": "latest",
                # Some times a second, to be little in the way: the times are the broker's.
                "fetch.min.bytes": 10_000_000,
                "fetch.wait.max.ms": 300,
            }
        )
        reader.subscribe([topic_of(RULES, self.settings.topic_prefix)], on_assign=lambda *_: self._ready.set())
        while not self.stopped.is_set():
            for message in reader.consume(500, 0.2):
                if message.error() is None:
                    received = int(RECEIVED.search(message.value())[1])  # a third of what parsing all of it takes
                    self.latencies.append((received, message.timestamp()[1] - received))
        reader.close()

    def redis(self) -> list[int]:
        client = connect(self.settings)
        rows = client.xrange(f"{self.settings.redis_prefix}signals", min=self.since)
        found = [json.loads(row[b"signal"]) for _, row in rows]
        return [s["relayed"] - s["received"] for s in found if s["received"] >= self.since]


class PriceAge(Beside):
    """How long a tick takes until its price is the latest one in Redis: a share's every next tick is sent as soon as
    the one before was seen there."""

    def __init__(self, settings: Settings, load: Load):
        self.settings, self.ages = settings, []
        self.key, tick, _ = load.pairs[1]  # a quiet one
        self.tick = json.loads(tick)

    def run(self) -> None:
        producer = Producer({"bootstrap.servers": self.settings.kafka, "linger.ms": 0, "partitioner": "murmur2_random"})
        client = connect(self.settings)
        place = f"{self.settings.redis_prefix}price:{self.key.decode()}"
        mark = int(client.hget(place, "timestamp") or self.tick["timestamp"])
        while not self.stopped.is_set():
            mark += 1
            sent = time.monotonic()
            producer.produce(
                topic_of(TICKS, self.settings.topic_prefix), json.dumps(self.tick | {"timestamp": mark}), self.key
            )
            producer.flush(10)
            while int(client.hget(place, "timestamp") or 0) < mark:
                if self.stopped.wait(0.02):
                    return
            self.ages.append((time.monotonic() - sent) * 1000)


def percentiles(values: list[float], name: str) -> dict[str, float]:
    if not values:
        return {}
    points = np.percentile(values, [50, 95, 99, 100])
    return {f"{name}_{p}_ms": round(float(v), 1) for p, v in zip(("p50", "p95", "p99", "max"), points, strict=True)}


class Processes:
    """CPU (cores) and resident GiB of each named process tree over a step, and of this process, the load."""

    def __init__(self, pids: dict[str, int]):
        self.pids = {**pids, "load": os.getpid()}
        self.before = {name: self._cpu(pid) for name, pid in self.pids.items()}
        self.started = time.monotonic()

    def _tree(self, pid: int) -> list[psutil.Process]:
        try:
            root = psutil.Process(pid)
            return [root, *(() if pid == os.getpid() else root.children(recursive=True))]
        except psutil.Error:
            return []

    def _cpu(self, pid: int) -> float:
        return sum(sum(p.cpu_times()[:2]) for p in self._tree(pid))

    def result(self) -> dict[str, dict[str, float]]:
        span = time.monotonic() - self.started
        return {
            name: {
                "cores": round((self._cpu(pid) - self.before[name]) / span, 2),
                "gib": round(sum(p.memory_info().rss for p in self._tree(pid)) / 2**30, 2),
            }
            for name, pid in self.pids.items()
        }


class Running:
    """Detection and, for real time, a relay, each a process as users start them."""

    def __init__(self, settings: Settings, trigger: str, work: Path, options: list[str]):
        self.settings = settings
        env = {
            **os.environ,
            "SISE_LAKE": settings.lake,
            "SISE_KAFKA": settings.kafka,
            "SISE_REDIS_URL": settings.redis,
            "SISE_TOPIC_PREFIX": settings.topic_prefix,
            "SISE_REDIS_PREFIX": settings.redis_prefix,
            "SISE_LOCAL": str(work),
            "SISE_MASTER": f"local[{PARTITIONS + 2}]" if trigger == "realtime" else "local[*]",
        }
        self.log = work / f"detect-{trigger}.log"
        self.jobs = {
            "detect": self._start(
                ["./spark-submit.sh", *options, "jobs/detect_signals.py", "--trigger", trigger], env, self.log
            )
        }
        if trigger == "realtime":
            command = [str(HERE / ".venv/bin/python"), "jobs/relay_signals.py"]
            self.jobs["relay"] = self._start(command, env, work / "relay.log")
        end = time.monotonic() + 240
        while "watching with rules" not in self.log.read_text(errors="replace"):
            if time.monotonic() > end or self.jobs["detect"].poll() is not None:
                raise SystemExit(f"detection did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.5)

    def _start(self, command: list[str], env: dict[str, str], log: Path) -> subprocess.Popen:
        with log.open("ab") as out:
            return subprocess.Popen(
                command, cwd=HERE, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def pids(self) -> dict[str, int]:
        return {name: job.pid for name, job in self.jobs.items()}

    def stop(self) -> None:
        for job in self.jobs.values():
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
            job.wait(30)


def step(
    settings: Settings, load: Load, running: Running, pids: dict[str, int], rate: float, seconds: float
) -> dict[str, Any]:
    load.send(settings, rate, min(15.0, seconds))  # warm-up
    time.sleep(2)
    with Watcher(settings) as watcher, PriceAge(settings, load) as prices:
        used = Processes({**pids, **running.pids()})
        reached = load.send(settings, rate, seconds)
        processes = used.result()
        time.sleep(3)
    records = [ms for _, ms in watcher.latencies]
    tail = [ms for at, ms in watcher.latencies if at > watcher.since + (seconds - 10) * 1000]
    found = {"rate": round(reached), "records": len(records), **percentiles(records, "kafka")}
    signals = watcher.redis()
    found |= percentiles(signals, "redis") | {"signals": len(signals)}
    found |= percentiles(prices.ages, "price_age")
    late = np.median(tail) > 1000 if tail else found.get("redis_p50_ms", 0) > 5000
    found["signals_keep_up"] = bool(reached > 0.97 * rate and not late)
    found["sustained"] = found["signals_keep_up"] and found.get("price_age_p99_ms", PRICE_AGE + 1) <= PRICE_AGE
    found["processes"] = processes
    print(f"  {rate:,.0f}/s for {seconds:.0f} s: {json.dumps(found)}", flush=True)
    return found


def relay_ceiling(settings: Settings, work: Path, count: int = 100_000) -> float:
    """Records a second that one relay member works off, all of them waiting."""
    settings = dataclasses.replace(settings, topic_prefix="ceiling-", redis_prefix="ceiling:")
    ensure_topics(settings)
    base = {
        "country": "US",
        "market": "NASDAQ",
        "price": 10.5,
        "day_volume": 1,
        "session": "2026-01-02",
        "as_of": "2026-01-01",
    }
    base |= {"indicators": {"rsi_14": 29.5, "bb_lower": 9.9, "sma_50": 10.1}, "received": 1, "version": "v"}
    producer = Producer({"bootstrap.servers": settings.kafka, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    for n in range(count):
        inside = ["rsi_oversold"] if n // 6000 % 40 == 0 else []
        row = base | {
            "symbol": f"S{n % 6000:05}",
            "timestamp": 1_700_000_000_000 + n,
            "relaxed": inside,
            "strict": inside,
        }
        row |= {"partition": 0, "offset": n}
        producer.produce(topic_of(RULES, settings.topic_prefix), json.dumps(row).encode(), row["symbol"].encode())
        if n % 5000 == 0:
            producer.poll(0)
    producer.flush(60)
    from sise.serving.relay import relay

    started = time.monotonic()
    counts = relay(settings, REGISTRY, lambda: False, idle_seconds=3)
    return round(counts["records"] / (time.monotonic() - started - 3))


def pace() -> float:
    """Seconds of a fixed piece of work on one core that nothing else uses: what figures of different days are divided
    by, since this machine is shared."""
    started, total = time.perf_counter(), 0
    for n in range(20_000_000):
        total += n
    return round(time.perf_counter() - started, 2)


def highest(rows: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The highest rate that was sustained with everything running, and the one up to which records and signals kept
    up, while latest prices did not."""

    def up_to_first_miss(name: str) -> int:
        missed = min((int(rate) for rate, row in rows.items() if not row[name]), default=sys.maxsize)
        return max((int(rate) for rate in rows if int(rate) < missed), default=0)

    names = {"max_ticks_per_s": "sustained", "max_ticks_per_s_of_signals": "signals_keep_up"}
    return {key: up_to_first_miss(name) for key, name in names.items()}


def write_results(results: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "live.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = [
        "# Live signals, measured",
        "",
        f"`make bench-live`, {results['when']}, two shared cores, 6,000 symbols. Milliseconds.",
        "price_age: from a tick until its price is the latest one in Redis. signals keep up: they do not come later "
        f"and later; sustained: nor are latest prices more than {PRICE_AGE} ms old (p99). Twenty million additions in "
        f"Python took {results.get('pace_s', '–')} s before it.",
    ]
    names = [
        "kafka_p50_ms",
        "kafka_p95_ms",
        "kafka_p99_ms",
        "kafka_max_ms",
        "redis_p50_ms",
        "redis_p95_ms",
        "redis_p99_ms",
        "redis_max_ms",
        "price_age_p99_ms",
        "price_age_max_ms",
    ]
    for trigger in ("realtime", "ceilings", "micro_batch"):
        if trigger not in results:
            continue
        lines += [
            "",
            "## realtime, until it falls behind" if trigger == "ceilings" else f"## {trigger}",
            "",
            "| ticks/s | " + " | ".join(n.removesuffix("_ms") for n in names) + " | signals keep up | sustained |",
        ]
        lines.append("|---:|" + "---:|" * (len(names) + 2))
        for rate, row in results[trigger].items():
            told = [str(row.get(name, "–")) for name in (*names, "signals_keep_up", "sustained")]
            lines.append(f"| {rate} | " + " | ".join(told) + " |")
        lines += [
            "",
            "Cores and GiB: "
            + "; ".join(
                f"{rate}/s " + ", ".join(f"{n} {p['cores']} / {p['gib']}" for n, p in row["processes"].items())
                for rate, row in results[trigger].items()
            ),
        ]
    lines += [
        "",
        f"Highest rate sustained: {results.get('max_ticks_per_s', '–')} ticks/s; signals alone keep up to "
        f"{results.get('max_ticks_per_s_of_signals', '–')}; one relay member: {results.get('relay_per_s', '–')} "
        "records/s.",
    ]
    (RESULTS / "live.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="realtime,micro_batch,ceilings")
    parser.add_argument("--rates", default="100,1000,10000")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--long", type=float, default=360, help="seconds of the step of 1,000/s, over a checkpoint")
    parser.add_argument("--symbols", type=int, default=6000)
    parser.add_argument("--options", default="", help="options for detection's spark-submit, to compare them")
    args = parser.parse_args()
    only = args.only.split(",")
    path = RESULTS / "live.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    results["when"] = f"{datetime.now(UTC):%Y-%m-%d}"
    results["pace_s"] = pace()
    work = Path(tempfile.mkdtemp(prefix="sise-bench-live-", dir=HERE / ".local"))
    kafka, controller, redis_port, postgres = free_ports(4)
    settings = Settings(
        lake=str(work / "lake"), conf=HERE / "conf", local=work / "services", partitions=PARTITIONS,
        kafka_port=kafka, kafka_controller_port=controller, redis_port=redis_port, postgres_port=postgres,
    )  # fmt: skip
    try:
        print(f"a lake of {args.symbols} symbols …", flush=True)
        make_lake(work, args.symbols)
        found = start(settings, ("kafka", "redis"))
        pids = {s.name: s.pid for s in found if s.pid}
        load = Load(settings)
        if "ceilings" in only:
            results["relay_per_s"] = relay_ceiling(settings, work)
            print(f"one relay member: {results['relay_per_s']} records/s", flush=True)
        for trigger in ("realtime", "micro_batch"):
            if trigger not in only:
                continue
            mine = dataclasses.replace(settings, topic_prefix=f"{trigger}-", redis_prefix=f"{trigger}:")
            ensure_topics(mine)
            running = Running(mine, trigger.replace("_", "-"), work, shlex.split(args.options))
            try:
                results[trigger] = {}
                for rate in map(int, args.rates.split(",")):
                    seconds = args.long if rate == 1000 and trigger == "realtime" else args.seconds
                    results[trigger][str(rate)] = step(mine, load, running, pids, rate, seconds)
                    write_results(results)
                if trigger == "realtime" and "ceilings" in only:
                    results["ceilings"] = {}
                    for rate in (15_000, 20_000, 25_000, 30_000, 40_000):
                        row = results["ceilings"][str(rate)] = step(mine, load, running, pids, rate, args.seconds)
                        if not row["signals_keep_up"]:
                            break
                    results |= highest(results[trigger] | results["ceilings"])
                write_results(results)
            finally:
                running.stop()
    finally:
        stop(settings)
        shutil.rmtree(work, ignore_errors=True)
    print((RESULTS / "live.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
