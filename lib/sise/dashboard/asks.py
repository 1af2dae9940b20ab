"""Questions that need Spark: jobs started as child processes, one at a time for all viewers, with their progress."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sise.errors import ConfigError, InputError
from sise.settings import Settings

__all__ = ["Ask", "Asks", "backtest_arguments"]

_PATIENCE = 1800.0


@dataclass(frozen=True)
class Ask:
    """One run of a job. ``record``: its JSON line once it has ended; ``said``: the last lines it told."""

    number: int
    job: str
    arguments: tuple[str, ...]
    started: float
    ended: float | None = None
    said: tuple[str, ...] = ()
    record: dict[str, Any] | None = None
    error: str = ""

    @property
    def running(self) -> bool:
        return self.ended is None

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started


def backtest_arguments(
    rule: str | None,
    when: str | None,
    direction: str | None,
    start: str | None,
    end: str | None,
    markets: Sequence[str],
    every_bar: bool,
) -> list[str]:
    """The arguments of jobs/backtest_rule.py; texts go in one piece with their option, whatever is in them."""
    if (rule is None) == (when is None or not when.strip()):
        raise InputError("pick a rule, or write one")
    chosen = [f"--rule={rule}" if rule is not None else f"--when={when}"]
    for option, value in (("direction", direction), ("start", start), ("end", end), ("market", ",".join(markets))):
        if value:
            chosen.append(f"--{option}={value}")
    return [*chosen, *(["--every-bar"] if every_bar else [])]


@dataclass
class Asks:
    """Starts spark-submit.sh of the folder ``home``. The job's own lock and history are as from a terminal."""

    settings: Settings
    home: Path
    _runs: dict[int, Ask] = field(default_factory=dict)
    _processes: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, job: str, arguments: Sequence[str]) -> Ask:
        """Raises InputError while another question is being answered: a JVM each would starve the machine."""
        with self._lock:
            if busy := next((run for run in self._runs.values() if run.running), None):
                raise InputError(
                    f"{busy.job} {' '.join(busy.arguments)} has been running for {busy.seconds:.0f} s: wait for it"
                )
            ask = Ask(max(self._runs, default=0) + 1, job, tuple(arguments), time.monotonic())
            environment = {
                **os.environ,
                "SISE_LAKE": str(Path(self.settings.lake).absolute()) if self._local else self.settings.lake,
                "SISE_CONF": str(self.settings.conf.absolute()),
                "SISE_LOCAL": str(self.settings.local.absolute()),
            }
            process = subprocess.Popen(
                [str(self.home / "spark-submit.sh"), f"jobs/{job}.py", *arguments],
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._runs = {n: run for n, run in self._runs.items() if n > ask.number - 20} | {ask.number: ask}
            self._processes[ask.number] = process
        threading.Thread(target=self._watch, args=(ask.number, process), daemon=True).start()
        return ask

    @property
    def _local(self) -> bool:
        return "://" not in self.settings.lake

    def judge(self, rules: Sequence[Any]) -> None:
        """Lets jobs/check_rules.py judge rules before they are written; waits. Raises ConfigError with its verdict."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "watchlists.json"
            path.write_text(json.dumps({"rules": list(rules)}, ensure_ascii=False), encoding="utf-8")
            ask = self.start("check_rules", [f"--path={path}"])
            while (now := self._runs[ask.number]).running:
                time.sleep(0.1)
            if now.error:
                raise ConfigError(now.error.replace(f"{path}:", "").strip())

    def get(self, number: int | None) -> Ask | None:
        return self._runs.get(number) if number is not None else None

    def latest(self) -> Ask | None:
        return self._runs[max(self._runs)] if self._runs else None

    def cancel(self, number: int) -> None:
        process = self._processes.get(number)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)

    def close(self) -> None:
        for number in list(self._processes):
            self.cancel(number)

    def _watch(self, number: int, process: subprocess.Popen[str]) -> None:
        told: deque[str] = deque(maxlen=60)
        assert process.stderr is not None and process.stdout is not None
        answer: list[str] = []
        reader = threading.Thread(target=lambda: answer.extend(process.stdout or ()), daemon=True)
        reader.start()
        timer = threading.Timer(_PATIENCE, lambda: self.cancel(number))
        timer.start()
        for line in process.stderr:
            told.append(line.rstrip())
            self._runs[number] = replace(self._runs[number], said=tuple(told))
        code = process.wait()
        timer.cancel()
        reader.join(5)
        record, error = None, ""
        try:
            record = json.loads(answer[-1])
            error = str(record.get("error") or "")
        except (IndexError, ValueError):
            error = f"ended with exit code {code} and no answer: {' '.join(list(told)[-3:])}"
        self._processes.pop(number, None)
        self._runs[number] = replace(
            self._runs[number], ended=time.monotonic(), record=record, error=error, said=tuple(told)
        )
