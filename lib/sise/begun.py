"""Runs that have begun: what one leaves that did not come to its end.

A job that is killed, runs out of memory or goes down with the machine writes no row in ``runs``. So each run is a file
while it runs; one whose process is gone is shown by whoever looks, and told to ``runs`` by the next run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sise.ops.services.process import birth
from sise.settings import Settings

__all__ = ["Begun", "died", "told_once"]

_DIED = "it ended without a word: killed, out of memory, or the machine went down"


def _folder(settings: Settings) -> Path:
    return settings.local / "state" / "runs"


class Begun:
    """This process's run, noted until ``ended``. Where the folder cannot be written it goes on without."""

    def __init__(self, settings: Settings, run_id: str, job: str, arguments: Mapping[str, str], started: datetime):
        note: dict[str, Any] = {"run_id": run_id, "job": job, "arguments": dict(arguments), "lake": settings.lake}
        note |= {"started_at": started.isoformat(), "pid": os.getpid(), "born": birth(os.getpid())}
        self._file = _folder(settings) / f"{run_id}.json"
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps(note), encoding="utf-8")
            part.replace(self._file)

    def ended(self) -> None:
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def died(settings: Settings) -> list[dict[str, Any]]:
    """Runs on this lake whose process is gone, oldest first, as ``runs`` has them; nothing told them yet."""
    return [row for _, row in _died(settings)]


@contextmanager
def told_once(settings: Settings) -> Iterator[list[dict[str, Any]]]:
    """``died`` for who tells them within the block: no other run does, unless the block fails."""
    mine = []
    for file, row in _died(settings):
        with suppress(OSError):  # another run has just taken it
            mine.append((file, file.rename(file.with_suffix(".telling")), row))
    try:
        yield [row for *_, row in mine]
    except BaseException:
        for file, taken, _ in mine:
            with suppress(OSError):
                taken.rename(file)
        raise
    for _, taken, _ in mine:
        with suppress(OSError):
            taken.unlink()


def _died(settings: Settings) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for file in _folder(settings).glob("*.json"):
        try:
            note = json.loads(file.read_text(encoding="utf-8"))
            if note["lake"] != settings.lake or birth(note["pid"]) == note["born"]:
                continue
            row = {name: note[name] for name in ("run_id", "job", "arguments")}
            row |= {"started_at": datetime.fromisoformat(note["started_at"]), "status": "failed", "error": _DIED}
            found.append((file, row))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # told meanwhile, or no note of ours
    return sorted(found, key=lambda one: str(one[1]["started_at"]))
