"""One process, and one thread of it, at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["alone", "taken"]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds the lock file ``path`` while the block runs, and waits for whoever has it. Ends with the process, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def taken(path: Path) -> TextIO | None:
    """The lock file ``path``, held until it is closed or the process ends; None where another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
