"""Which indicators there are, from conf/indicators.json: the only place that knows a column or a lookback.

``core`` names columns by kind and period (``sma_20``, ``rsi_14``, ``high_252`` …); MACD is 12/26/9 and Bollinger
20 × 2. ``extra`` names any TA-Lib function as a batch-only column.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sise.errors import ConfigError
from sise.indicators.extra import Extra
from sise.tables import table

__all__ = ["BOLLINGER", "KEPT_SESSIONS", "MACD", "Registry"]

MACD = (12, 26, 9)
BOLLINGER = (20, 2.0)
KEPT_SESSIONS = 10  # so many states back, a late correction continues instead of starting over
_PLAIN = ("macd", "macd_signal", "macd_hist", "bb_upper", "bb_middle", "bb_lower")
_PERIODIC = ("sma", "ema", "rsi", "atr", "volume_avg", "volume_ratio", "high", "low", "return")
_LONGEST = 1000


@dataclass(frozen=True)
class Registry:
    """The indicators of this installation. Raises ConfigError that lists every problem and what is valid."""

    core: tuple[str, ...]
    extra: tuple[Extra, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Registry:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise ConfigError(f"{path} is not JSON: {problem}") from problem
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Mapping[str, Any], where: str = "conf/indicators.json") -> Registry:
        if not isinstance(content, dict) or not all(isinstance(content.get(k, []), list) for k in ("core", "extra")):
            raise ConfigError(f"{where}: an object with the lists core and extra is expected")
        problems = [
            f"unknown entry {key!r}: there are core and extra" for key in content if key not in {"core", "extra"}
        ]
        core = tuple(content.get("core", ()))
        problems += [p for name in core if (p := _problem(name))]
        extras = []
        for entry in content.get("extra", ()):
            try:
                extras.append(Extra.parse(entry))
            except ConfigError as problem:
                problems.append(str(problem))
        names = [*core, *(column for extra in extras for column in extra.columns)]
        problems += [f"{name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if not core:
            problems.append("core names no indicator")
        if problems:
            raise ConfigError("\n".join([f"{where}:", *problems]))
        found = cls(core, tuple(extras))
        if taken := found._taken():
            raise ConfigError(
                f"{where}:\n"
                + "\n".join(
                    f"extra {n!r}: the lake has a column of this name, or names one so (prev_ …)" for n in taken
                )
            )
        return found

    def _taken(self) -> list[str]:
        """Extra columns named as what stands beside them in a table, or in what rules see."""
        tables = ("indicators", "indicator_state", "live_state", "symbols", "prices")
        taken = {
            *self.state,
            *self.ingredients,
            *("filter_state", "tail_from", "suspect", "turnover", "market_cap_usd", "large_cap_usd", "rank"),
            *(c for t in tables for c in table(t).columns),
        }
        names = [column for extra in self.extra for column in extra.columns]
        return [name for name in names if name in taken or name.startswith("prev_")]

    def only(self, names: Collection[str]) -> Registry:
        """The core columns among ``names``: a rule that looks at few needs no others."""
        return Registry(tuple(name for name in self.core if name in names))

    def periods(self, *kinds: str) -> list[int]:
        """The periods of the core columns of these kinds, ascending."""
        found = {int(name.rpartition("_")[2]) for name in self.core if name.rpartition("_")[0] in kinds}
        return sorted(found)

    @property
    def has_macd(self) -> bool:
        return any(name.startswith("macd") for name in self.core)

    @property
    def has_bollinger(self) -> bool:
        return any(name.startswith("bb_") for name in self.core)

    @property
    def recursive(self) -> tuple[str, ...]:
        """Core columns that a filter computes, in order."""
        return tuple(n for n in self.core if n.startswith(("ema_", "macd", "rsi_", "atr_")))

    @cached_property
    def state(self) -> tuple[str, ...]:
        """What the filters remember after a bar: a column of indicator_state each."""
        names = [f"ema_{n}" for n in self.periods("ema")]
        if self.has_macd:
            names += ["macd_fast", "macd_slow", "macd_signal"]
        for n in self.periods("rsi"):
            names += [f"rsi_{n}_gain", f"rsi_{n}_loss"]
        return (*names, *(f"atr_{n}" for n in self.periods("atr")))

    @cached_property
    def warm(self) -> int:
        """Bars until every filter has a value; before that a share starts from its first bar."""
        spans = [*self.periods("ema"), *(n + 1 for n in self.periods("rsi", "atr"))]
        if self.has_macd:
            spans.append(MACD[1] + MACD[2] - 1)
        return max(spans, default=1)

    @cached_property
    def tail(self) -> int:
        """Bars, counting the last one, that the rolling columns of a bar look at."""
        spans = [*self.periods("sma", "volume_avg", "volume_ratio", "high", "low")]
        spans += [n + 1 for n in self.periods("return")]
        spans += [BOLLINGER[0]] if self.has_bollinger else []
        spans += [extra.lookback + 1 for extra in self.extra if not extra.remembers]
        return max([*spans, 2, self.warm])

    @property
    def remembering(self) -> tuple[str, ...]:
        """Extra columns that depend on every bar so far: they make the day start from the first bar."""
        return tuple(column for extra in self.extra if extra.remembers for column in extra.columns)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.core, *(column for extra in self.extra for column in extra.columns))

    @cached_property
    def hash(self) -> str:
        """Changes when a column or its definition does."""
        text = json.dumps([4, self.core, [[e.column, e.function, e.parameters] for e in self.extra]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def state_type(self) -> str:
        """filter_state: what indicator_state and live_state are made of (batch.py)."""
        fields = ["bars: bigint", "tail_from: date", *(f"{name}: double" for name in self.state)]
        fields.append("live: array<double>")
        return f"struct<{', '.join(fields)}>"

    @cached_property
    def ingredients(self) -> tuple[str, ...]:
        """What turns a bar's rolling columns into tomorrow's at any price (ingredients.py, live.py).

        ``x_sum``: the sum of the last period − 1 closes or volumes; ``x_max``, ``x_min``: the extreme of the last
        period − 1 highs or lows; ``x_base``: the close a return is measured from; ``bb_mean``, ``bb_m2``: mean and
        sum of squared deviations of the last 19 closes.
        """
        names = [f"{c}_sum" for c in self.core if c.startswith("sma_")]
        names += [f"volume_avg_{n}_sum" for n in self.periods("volume_avg", "volume_ratio")]
        names += [f"{c}_max" for c in self.core if c.startswith("high_")]
        names += [f"{c}_min" for c in self.core if c.startswith("low_")]
        names += [f"{c}_base" for c in self.core if c.startswith("return_")]
        return (*names, *(("bb_mean", "bb_m2") if self.has_bollinger else ()))

    @property
    def live(self) -> dict[str, str]:
        """What live_state holds of the as_of bar: the core columns, the ingredients and the filters' states."""
        states = [c for c in self.state if c not in self.core]
        return dict.fromkeys([*self.core, *self.ingredients, *states], "double")

    @property
    def extra_columns(self) -> dict[str, dict[str, str]]:
        """The columns that the registry adds to the lake's tables."""
        return {
            "indicators": {**dict.fromkeys(self.columns, "double"), "filter_state": self.state_type},
            "indicator_state": {"tail_from": "date", **dict.fromkeys(self.state, "double")},
            "live_state": self.live,
        }


def _problem(name: object) -> str | None:
    """Why ``name`` is no core indicator, or None."""
    if name in _PLAIN:
        return None
    match = re.fullmatch(r"([a-z_]+)_(0|[1-9]\d*)", str(name))
    kinds = ", ".join(f"{kind}_N" for kind in _PERIODIC)
    if match is None or match[1] not in _PERIODIC:
        near = difflib.get_close_matches(str(name), [*_PLAIN, *_PERIODIC], 1, 0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"unknown indicator {name!r}{hint}: use {kinds}, {', '.join(_PLAIN)}, or name a TA-Lib function in extra"
    period, least = int(match[2]), 1 if match[1] in {"return", "sma", "high", "low"} else 2
    if not least <= period <= _LONGEST:
        return f"{name}: the period must be from {least} to {_LONGEST}"
    return None
