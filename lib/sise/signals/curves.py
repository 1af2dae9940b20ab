"""How much of a day's volume a market has usually done by a part of its session (conf/volume_curves.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sise.errors import ConfigError

__all__ = ["Curve", "hours_of", "load_curves", "session_share", "share_at", "so_far"]

Curve = Sequence[tuple[float, float]]


def load_curves(path: Path) -> dict[str, Curve]:
    """By country, rising points (part of the session, part of its volume) from 0, 0 to 1, 1."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        curves: dict[str, Curve] = {
            country: [(float(x), float(y)) for x, y in points]
            for country, points in content.items()
            if country != "about"
        }
    except (ValueError, TypeError, AttributeError) as problem:
        raise ConfigError(f'{path}: {{"KR": [[0, 0], …, [1, 1]], …}} is expected ({problem})') from problem
    for country, points in curves.items():
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(points))
        if len(points) < 2 or points[0] != (0, 0) or points[-1] != (1, 1) or not rising:
            raise ConfigError(f"{path}: the points of {country} must rise from [0, 0] to [1, 1]")
    return curves


def session_share(curves: Mapping[str, Curve], country: Any, elapsed: Any) -> Any:
    """Spark columns: the part of the day's volume usually done after ``elapsed`` (0 to 1) of the session; null for a
    country without a curve."""
    from pyspark.sql import functions as F

    found = F.lit(None).cast("double")
    for name, points in curves.items():
        curve = F.lit(points[-1][1])
        for (x0, y0), (x1, y1) in reversed(list(pairwise(points))):
            curve = F.when(elapsed < x1, y0 + (elapsed - x0) * ((y1 - y0) / (x1 - x0))).otherwise(curve)
        found = F.when(country == name, curve).otherwise(found)
    return found


def share_at(curves: Mapping[str, Curve], country: str, elapsed: float) -> float:
    """The same as a number, nan where session_share is null."""
    points = curves.get(country, ((0, np.nan),))
    return float(np.interp(elapsed, [x for x, _ in points], [y for _, y in points]))


def hours_of(state: Mapping[str, Any]) -> tuple[int, int]:
    """When the session of a row of live_state opens and closes, in ms."""
    moments: list[datetime] = [state["session_open"], state["session_close"]]
    return int(moments[0].timestamp() * 1000), int(moments[1].timestamp() * 1000)


def so_far(curves: Mapping[str, Curve], state: Mapping[str, Any], timestamp: int) -> dict[str, float]:
    """What a rule may name of the session at ``timestamp`` (ms), for a share of ``state``, a row of live_state."""
    opens, closes = hours_of(state)
    return {
        "session_share": share_at(curves, state["country"], (timestamp - opens) / (closes - opens)),
        "elapsed_minutes": (timestamp - opens) / 60_000,
    }
