"""The end of make demo: the dashboard on what the demo made, in a browser; headless, whether it answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent.parent

# What runs on this machine is not behind a proxy.
_HERE = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def view(console: Console, environment: dict[str, str], headless: bool, problems: list[str]) -> None:
    """Starts the dashboard. Headless it is asked for its first page, which it has to draw without an error, and
    stopped; else it stays open until Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(HERE / ".venv" / "bin" / "sise"), "dashboard", "--port", str(port), *(["--headless"] * headless)]
    console.print("[bold]11. The dashboard on all of it[/bold]")
    console.print(f"  sise dashboard --port {port}")
    settings = {**os.environ, **environment, "SISE_TODAY": "2026-01-02"}
    settings["STREAMLIT_SERVER_SCRIPT_HEALTH_CHECK_ENABLED"] = "true"
    log = Path(environment["SISE_LOCAL"]) / "dashboard.log"
    with log.open("wb") as out:
        dashboard = subprocess.Popen(command, cwd=HERE, env=settings, stdout=out, stderr=out)
    try:
        ready = _answer(port, "/_stcore/health", dashboard, 240) == "ok"
        drawn = ready and _answer(port, "/_stcore/script-health-check", dashboard, 240) == "ok"
        if not (drawn and "<html" in _answer(port, "/", dashboard, 30)):
            problems.append(f"the dashboard does not show its first page: see {log}")
        elif headless:
            console.print("  it answers, and draws its first page")
        else:
            console.print(f"  open at http://127.0.0.1:{port} with the demo's signals; Ctrl-C ends the demo")
            dashboard.wait()
    except KeyboardInterrupt:
        pass
    finally:
        dashboard.terminate()
        try:
            dashboard.wait(10)
        except subprocess.TimeoutExpired:
            dashboard.kill()


def _answer(port: int, path: str, dashboard: subprocess.Popen[bytes], seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end and dashboard.poll() is None:
        try:
            with _HERE.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.2)
    return ""


if __name__ == "__main__":
    sys.exit("run 'make demo'")
