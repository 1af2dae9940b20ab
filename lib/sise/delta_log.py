"""A Delta table's log as files: what its newest commits say, without a query."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["newest_commits", "newest_version"]


def newest_version(log: Path) -> int:
    """The newest version in the folder ``_delta_log``; -1 where there is no table. Log cleanup keeps the newest."""
    return max(_versions(log), default=-1)


def _versions(log: Path) -> list[int]:
    return [int(path.stem) for path in log.glob("*.json") if re.fullmatch(r"\d{20}", path.stem)]


def newest_commits(log: Path, count: int) -> list[Mapping[str, Any]]:
    """``commitInfo`` of the newest commits with their ``version``, newest first (the protocol's names)."""
    found: list[Mapping[str, Any]] = []
    for version in sorted(_versions(log), reverse=True)[:count]:
        with (log / f"{version:020}.json").open(encoding="utf-8") as lines:
            actions = (json.loads(line) for line in lines if '"commitInfo"' in line)
            info: Mapping[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        found.append({**info, "version": version})
    return found
