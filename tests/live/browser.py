"""A headless Chromium for the viewer's tests, and the viewer started as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tools.bootstrap import find_browser

from sise.settings import Settings
from tests.conftest import HERE
from tests.live.conftest import free_ports

__all__ = ["Viewer", "chromium", "shot", "viewer"]

SHOTS = HERE / ".local" / "screenshots"
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[object]:
    """A browser; without one the tests that need it are skipped, saying so (in CI: fail)."""
    program = find_browser()
    if program is None:
        why = "no Chromium here: 'python tools/bootstrap.py browser' installs it where it can"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=str(program), args=list(OPTIONS), timeout=240_000)
        yield browser
        browser.close()


class Viewer:
    """A running viewer: its URL, its process, its log."""

    def __init__(self, url: str, process: subprocess.Popen, log: Path):
        self.url, self.process, self.log = url, process, log


@contextmanager
def viewer(settings: Settings, folder: Path) -> Iterator[Viewer]:
    """``sise dashboard`` on a free port, healthy."""
    port = free_ports(1)[0]
    log = folder / "dashboard.log"
    environment = {
        **os.environ,
        "SISE_LAKE": settings.lake,
        "SISE_CONF": str(settings.conf),
        "SISE_LOCAL": str(settings.local),
        "SISE_KAFKA": settings.kafka,
        "SISE_REDIS_URL": settings.redis,
        "SISE_TOPIC_PREFIX": settings.topic_prefix,
        "SISE_REDIS_PREFIX": settings.redis_prefix,
        "SISE_TODAY": str(settings.today or ""),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "sise.cli", "dashboard", "--port", str(port), "--headless"],
            cwd=HERE,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 240
        while True:
            try:
                no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with no_proxy.open(f"{url}/_stcore/health", timeout=10):
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
                time.sleep(0.1)
        yield Viewer(url, process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def shot(page: Any, name: str) -> None:
    """Keeps a screenshot of the run, of the whole page: Streamlit scrolls inside it, so the window is made as high."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    high = page.evaluate("(document.querySelector('[data-testid=stMain]') || document.body).scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": min(max(size["height"], high), 4_000)})
    page.wait_for_timeout(300)  # charts follow the new size
    page.screenshot(path=str(SHOTS / f"{name}.png"))
    page.set_viewport_size(size)
