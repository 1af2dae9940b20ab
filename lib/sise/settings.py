"""Settings: read once from the environment, validated on construction, all problems reported at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

from sise.errors import ConfigError

__all__ = ["FxRates", "Settings", "parse_date"]


def parse_date(text: str) -> date:
    """An ISO date; the error says what was given."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError as problem:
        raise ValueError(f"{text!r} is not a date like 2025-03-31") from problem


@dataclass(frozen=True)
class FxRates:
    """KRW for one USD, by date: the rate of a day is the last one dated on or before it.

    Written ``1400`` (one rate for every day) or ``2020-01-01=1156,2025-01-02=1471``.
    """

    steps: tuple[tuple[date, float], ...] = ((date.min, 1400.0),)

    @classmethod
    def parse(cls, text: str) -> FxRates:
        steps = []
        for part in text.split(","):
            day, _, rate = part.rpartition("=")
            try:
                value = float(rate)
            except ValueError as problem:
                raise ValueError(f"{part!r} is neither a rate (1400) nor date=rate") from problem
            if not 0 < value < float("inf"):
                raise ValueError(f"the rate {rate!r} is not a positive number")
            steps.append((parse_date(day) if day else date.min, value))
        return cls(tuple(sorted(steps)))

    def on(self, day: date) -> float:
        known = [rate for since, rate in self.steps if since <= day]
        if not known:
            raise ConfigError(
                f"SISE_KRW_PER_USD has no rate for {day}: its first is dated {self.steps[0][0]}; "
                f"add one dated {day} or earlier"
            )
        return known[-1]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a number of 0 or more")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError(f"{text!r} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(f"{text!r} is negative")
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"{text!r} is not 1 or more")
    return value


def _setting(variable: str, default: Any, parse: Callable[[str], Any], what: str) -> Any:
    return field(default=default, metadata={"variable": variable, "parse": parse, "what": what})


@dataclass(frozen=True)
class Settings:
    """What may differ between two installations. Every field is an environment variable (see ``variables``)."""

    lake: str = _setting("SISE_LAKE", "./lake", str, "where the tables live: a folder, s3a:// or hdfs://")
    conf: Path = _setting("SISE_CONF", Path("conf"), Path, "the folder with indicators.json, watchlists.json …")
    local: Path = _setting("SISE_LOCAL", Path(".local"), Path, "reports, event logs and other local state")
    krw_per_usd: FxRates = _setting(
        "SISE_KRW_PER_USD", FxRates(), FxRates.parse, "KRW for one USD: 1400, or 2020-01-01=1156,2025-01-02=1471"
    )
    large_cap_usd: float = _setting("SISE_LARGE_CAP_USD", 1e9, _positive, "large_cap: market cap above this, USD")
    turnover_floor_krw: float = _setting(
        "SISE_TURNOVER_FLOOR_KRW", 1e8, _positive, "no watchlist has a share that trades less than this a session, KRW"
    )
    turnover_floor_usd: float = _setting(
        "SISE_TURNOVER_FLOOR_USD", 1e6, _positive, "no watchlist has a share that trades less than this a session, USD"
    )
    coverage_floor: float = _setting(
        "SISE_COVERAGE_FLOOR", 0.9, _fraction, "a session with bars for less than this share of the symbols is reported"
    )
    jump_limit_kr: float = _setting(
        "SISE_JUMP_LIMIT_KR", 0.305, _positive, "KRX's ±30 % limit and the vendors' rounding: a larger move is flagged"
    )
    jump_limit_us: float = _setting(
        "SISE_JUMP_LIMIT_US", 0.5, _positive, "US shares have no daily limit; a larger move is flagged as a jump"
    )
    suppress_bars: int = _setting(
        "SISE_SUPPRESS_BARS", 20, _count, "no rule picks a share whose last so many bars hold an unexplained jump"
    )
    topic_prefix: str = _setting("SISE_TOPIC_PREFIX", "", str, "what every Kafka topic of this project starts with")
    partitions: int = _setting("SISE_PARTITIONS", 4, _at_least_one, "partitions of topics that are made anew")
    signal_ttl_seconds: int = _setting(
        "SISE_SIGNAL_TTL", 86_400, _at_least_one, "how long a signal stays active in Redis, seconds"
    )
    tick_ahead_seconds: float = _setting(
        "SISE_TICK_AHEAD", 5.0, _positive, "a tick further ahead of its feed's clock is refused, seconds"
    )
    tick_behind_seconds: float = _setting(
        "SISE_TICK_BEHIND", 300.0, _positive, "a tick further behind its feed's clock is refused, seconds"
    )
    today: date | None = _setting(
        "SISE_TODAY", None, parse_date, "the day jobs take for today (default: the exchange's own clock)"
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Reads SISE_* variables. Raises ConfigError that lists every bad one; an empty variable counts as unset."""
        env = os.environ if env is None else env
        values: dict[str, Any] = {}
        problems = []
        for item in fields(cls):
            text = env.get(item.metadata["variable"], "").strip()
            if not text:
                continue
            try:
                values[item.name] = item.metadata["parse"](text)
            except ValueError as problem:
                problems.append(f"{item.metadata['variable']}={text}: {problem} ({item.metadata['what']})")
        if problems:
            raise ConfigError("\n".join(["wrong settings:", *problems]))
        return cls(**values)

    @classmethod
    def variables(cls) -> list[tuple[str, str, Any]]:
        """(variable, what it is, default) of every setting."""
        return [(f.metadata["variable"], f.metadata["what"], f.default) for f in fields(cls)]

    def conf_file(self, name: str) -> Path:
        path = self.conf / name
        if not path.is_file():
            raise ConfigError(
                f"{path} is missing: run from the project's folder, or point SISE_CONF at its conf/ folder"
            )
        return path
