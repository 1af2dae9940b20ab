"""A vendor's block, remembered across processes: until it is over, nothing is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sise.errors import SiseError
from sise.locks import alone
from sise.sources.outcome import Blocked

__all__ = ["Circuit"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Circuit:
    """``path``: the vendor's file in .local/state/circuits; ``period``: for how long a block is taken to last."""

    vendor: str
    path: Path
    period: timedelta
    now: Callable[[], datetime] = _now

    def check(self) -> None:
        """Raises Blocked while the vendor's block lasts."""
        until, reason = self._read()
        if until is not None and self.now() < until:
            raise Blocked(
                f"{self.vendor} has blocked this address ({reason}): nothing is asked before {until:%Y-%m-%d %H:%M} "
                f"UTC, because asking earlier makes a block longer. If you know that it is over, remove {self.path}"
            )

    def open(self, reason: str, period: timedelta | None = None) -> Blocked:
        """Remembers a block from now on and gives the error that says so. A block is never made shorter."""
        until = self.now() + (self.period if period is None else period)
        with alone(self.path.with_suffix(".lock")):  # threads and processes that meet a block meet it together
            known, _ = self._read()
            if known is None or known < until:
                part = self.path.with_suffix(f".{threading.get_native_id()}")
                told = {"until": until.isoformat(), "since": self.now().isoformat(), "reason": reason}
                part.write_text(json.dumps(told), encoding="utf-8")
                part.replace(self.path)
        return Blocked(
            f"{self.vendor} has blocked this address ({reason}): nothing is asked before {until:%Y-%m-%d %H:%M} UTC"
        )

    def _read(self) -> tuple[datetime | None, str]:
        try:
            told = json.loads(self.path.read_text(encoding="utf-8"))
            return datetime.fromisoformat(told["until"]), str(told.get("reason", "no reason noted"))
        except FileNotFoundError:
            return None, ""
        except (ValueError, KeyError, TypeError) as problem:  # not guessed: an open circuit must not be lost
            raise SiseError(
                f"{self.path} cannot be read ({problem}), so whether {self.vendor} has blocked this address is not "
                "known: remove it if you know that there is no block"
            ) from problem
