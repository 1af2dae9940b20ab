"""What a job has to tell at its end: counts for the machine, sentences for the person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """Rows read, written and refused; ``details`` goes into the JSON line and ``runs``, ``lines`` to stderr.

    ``failed``: why the run did not get to its end although what it did is stored; the job fails with it.
    ``versions`` are the table versions that were read: the next run of the job starts behind them. ``turned_away``: by
    share (KR:005930) of which all rows were refused, why one was.
    """

    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    failed: str | None = None
    turned_away: dict[str, str] = field(default_factory=dict)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def summarize_rejected(self) -> None:
        for reason, count in self.details.get("rejected", {}).items():
            self.say(f"refused {count}: {reason}")
