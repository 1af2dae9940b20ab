"""The live half of make demo: services, detection, relay, ticks that must fire, and what did."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from sise.ops.services import start, stop
from sise.serving.kafka import read_all
from sise.serving.signals import connect
from sise.settings import Settings
from sise.topics import DEAD, TICKS

HERE = Path(__file__).resolve().parent.parent


def live_settings(lake: Path) -> dict[str, str]:
    """The environment of the demo's live jobs: topics and keys of its own beside whatever else is there."""
    run = f"demo{int(time.time())}"
    kafka, controller, redis = _free_ports(3)
    return {
        "SISE_KAFKA_PORT": str(kafka),
        "SISE_KAFKA_CONTROLLER_PORT": str(controller),
        "SISE_REDIS_PORT": str(redis),
        "SISE_LAKE": str(lake),
        "SISE_TOPIC_PREFIX": f"{run}-",
        "SISE_REDIS_PREFIX": f"{run}:",
        "SISE_PARTITIONS": "2",
        "SISE_MASTER": "local[4]",
        "SISE_LOCAL": str(lake.parent),
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def stop_services(lake: Path) -> None:
    """Stops what a demo that was killed has left running."""
    stop(Settings.from_env({**os.environ, "SISE_LOCAL": str(lake.parent)}), ("kafka", "redis"))


@contextmanager
def services(environment: dict[str, str]) -> Iterator[None]:
    """Kafka and Redis for the demo, on free ports, or those that the environment names."""
    settings = Settings.from_env({**os.environ, **environment})
    start(settings, ("kafka", "redis"))
    try:
        yield
    finally:
        stop(settings, ("kafka", "redis"))


@contextmanager
def background(
    console: Console, command: list[str], environment: dict[str, str], log: Path, ready: str, problems: list[str]
) -> Iterator[None]:
    """A job beside the demo; when it says ``ready`` the demo goes on, when the demo ends it is stopped, in order or it
    is one of the ``problems``."""
    console.print(f"  {' '.join(command)} &")
    with log.open("wb") as out:
        job = subprocess.Popen(
            command, cwd=HERE, env={**os.environ, **environment}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        with console.status("starting …"):
            end = time.monotonic() + 300
            while ready not in log.read_text(errors="replace"):
                if job.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{command[1]} did not start: {log.read_text(errors='replace')[-1500:]}")
                time.sleep(0.3)
        yield
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGTERM)
            try:
                job.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGKILL)
        if job.wait() != 0:
            problems.append(f"{command[1]} did not end in order: see {log}")


def live(console: Console, environment: dict[str, str], problems: list[str], count: int = 40) -> dict[str, Any]:
    """Sends ticks that must fire and watches Redis; notes in ``problems`` what fired wrongly or not at all."""
    settings = Settings.from_env({**os.environ, **environment})
    logs = Path(environment["SISE_LOCAL"])
    console.print("[bold]8. Detection in real-time mode, and the relay[/bold]")
    python = str(HERE / ".venv" / "bin" / "python")
    detect = [str(HERE / "spark-submit.sh"), "jobs/detect_signals.py", "--trigger", "realtime"]
    relay = [python, "jobs/relay_signals.py"]
    with (
        background(console, detect, environment, logs / "detect.log", "watching with rules", problems),
        background(console, relay, environment, logs / "relay.log", "", problems),
    ):
        console.print("[bold]9. Live ticks: some must fire, the others must not[/bold]")
        feed = [
            "jobs/produce_ticks.py",
            "--source",
            "test",
            "--symbols",
            "all",
            "--interval",
            "0.25",
            "--signal-prob",
            "0.5",
        ]
        console.print(f"  python {' '.join(feed)} --count {count}")
        sender = subprocess.Popen(
            [python, *feed, "--count", str(count)],
            cwd=HERE,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        found, ticks = _follow(console, settings, sender)
    wanted = _labelled(ticks)
    got = [(s["symbol"], s["signal_type"]) for s in found]
    if sender.returncode or len(ticks) != count:
        problems.append(f"{len(ticks)} of {count} ticks arrived")
    if not wanted:
        problems.append("no tick was to fire")
    problems += [f"{rule} of {symbol} did not fire" for symbol, rule in sorted(wanted - set(got))]
    problems += [f"{rule} of {symbol} fired, and should not have" for symbol, rule in sorted(set(got) - wanted)]
    if len(got) != len(set(got)):
        problems.append("a signal came twice")
    problems += [f"refused: {letter['reason']}" for letter in read_all(settings, DEAD)[:3]]
    waits = sorted(s["relayed"] - s["received"] for s in found)
    if waits:
        console.print(f"  {len(found)} signals; tick in Kafka → signal in Redis: median {waits[len(waits) // 2]} ms")
    return {"ticks": len(ticks), "signals": len(found)}


def _labelled(ticks: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What must fire: (symbol, rule)."""
    return {(t["symbol"], rule) for t in ticks for rule in t.get("label", "").split(",") if rule}


def _follow(
    console: Console, settings: Settings, sender: subprocess.Popen[bytes]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Prints signals as they arrive, until the feed has ended, what must fire has, and nothing came for some seconds
    more. A machine that is slow may take minutes for its first batch. Returns the signals, and the feed's ticks."""
    client = connect(settings)
    found: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    position, last, end = "-", time.monotonic(), 0.0
    missing: set[tuple[str, str]] = set()
    while not end or (time.monotonic() < end and (missing or time.monotonic() - last < 5)):
        if not end and sender.poll() is not None:
            ticks = read_all(settings, TICKS)
            missing, last, end = _labelled(ticks), time.monotonic(), time.monotonic() + 300
        missing -= {(s["symbol"], s["signal_type"]) for s in found}
        rows: Any = client.xrange(f"{settings.redis_prefix}signals", min=position)
        for name, row in rows:
            position, last = f"({name.decode()}", time.monotonic()
            signal_ = json.loads(row[b"signal"])
            found.append(signal_)
            price = f"{signal_['trigger_price']:,.10g}"
            console.print(
                f"  {signal_['country']}:{signal_['symbol']:8} {signal_['signal_type']:22} at {price}", markup=False
            )
        time.sleep(0.1)
    return found, ticks


if __name__ == "__main__":
    sys.exit("run 'make demo'")
