"""A library that prints, kept from the job's stdout, which has one line of JSON."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["silent"]


class _Quiet:
    """stdout belongs to the process, and several threads are in pykrx at once: the first one in turns it away, the last
    one out turns it back."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._stdout: Any = None
        self._said = io.StringIO()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[io.StringIO]:
        """What pykrx prints (the login ID among it) goes nowhere."""
        with self._lock:
            if not self._inside:
                self._stdout, self._said = sys.stdout, io.StringIO()
                sys.stdout = self._said
            self._inside += 1
        try:
            yield self._said
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    sys.stdout = self._stdout


silent = _Quiet()
