"""Settings: read once from the environment, validated on construction, all problems reported at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from sise.errors import ConfigError
from sise.redact import hide

__all__ = ["FxRates", "Settings", "parse_date"]


def parse_date(text: str) -> date:
    """An ISO date; the error says what was given. Spark is told none of a year below 1000, and nobody means one."""
    try:
        found = date.fromisoformat(text.strip())
    except ValueError as problem:
        raise ValueError(f"{text!r} is not a date like 2025-03-31") from problem
    if found.year < 1000:
        raise ValueError(f"{text!r} is not a date of this millennium or the last")
    return found


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


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            raise ValueError(f"{text!r} is not from {least} {'up' if most is None else f'to {most}'}")
        return value

    return parse


_PORT = _whole(1, 65535)


def _addresses(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().casefold() for part in text.split(",") if part.strip())
    if bad := [part for part in found if "@" not in part]:
        raise ValueError(f"{bad[0]!r} is no e-mail address")
    return found


def _servers(text: str) -> str:
    servers = [part.strip() for part in text.split(",")]
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"{server!r} is not host:port")
    return ",".join(servers)


def _topic_prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,200}", text):
        raise ValueError(f"{text!r} is no start of a topic's name: letters, digits, '.', '_' and '-', 200 at most")
    return text


# A shorter password cannot be taken out of what is said: it stands in half of all words.
_TELLING = 4


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        # Nowhere is the value repeated: it may hold a password.
        parts = urlsplit(text)
        if parts.scheme not in schemes:
            raise ValueError(f"it does not start with {' or '.join(f'{s}://' for s in schemes)}")
        try:
            parts.port  # noqa: B018 - raises
        except ValueError:
            raise ValueError("its port is no number from 0 to 65535; a / in a password is written %2F") from None
        if parts.netloc.count("@") > 1:
            raise ValueError("it has more than one @: one in a password is written %40")
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise ValueError("a % that is not the start of a code like %40 is written %25")
        for password in (parts.password or "", *parse_qs(parts.query).get("password", ())):
            if len(password) >= _TELLING:
                hide(password)
                hide(unquote(password))
        return text

    return parse


def _lake(text: str) -> str:
    if Path(text).is_file():
        raise ValueError("it is a file")
    if "%" in text and "://" not in text:
        raise ValueError("deltalake reads %41 as A: name a folder without %")
    return text


def _setting(variable: str, default: Any, parse: Callable[[str], Any], what: str, secret: bool = False) -> Any:
    metadata = {"variable": variable, "parse": parse, "what": what, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What may differ between two installations. Every field is an environment variable (see ``variables``)."""

    lake: str = _setting("SISE_LAKE", "./lake", _lake, "where the tables live: a folder, s3a:// or hdfs://")
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
        "SISE_SUPPRESS_BARS", 20, _whole(0), "no rule picks a share whose last so many bars hold an unexplained jump"
    )
    topic_prefix: str = _setting(
        "SISE_TOPIC_PREFIX", "", _topic_prefix, "what every Kafka topic of this project starts with"
    )
    partitions: int = _setting("SISE_PARTITIONS", 4, _whole(1), "partitions of topics that are made anew")
    signal_ttl_seconds: int = _setting(
        "SISE_SIGNAL_TTL", 86_400, _whole(1), "how long a signal stays active in Redis, seconds"
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

    dashboard_proxy: str = _setting(
        "SISE_DASHBOARD_PROXY", "", str, "the reverse proxy that asks viewers who they are (docs/dashboard.md)"
    )

    dashboard_users: tuple[str, ...] = _setting(
        "SISE_DASHBOARD_USERS", (), _addresses, "with OIDC: the addresses that may look (default: all who log in)"
    )

    kafka_servers: str = _setting(
        "SISE_KAFKA",
        "",
        _servers,
        "a Kafka of your own, host:port,host:port…; it is never started or stopped",
    )
    redis_url: str = _setting(
        "SISE_REDIS_URL",
        "",
        _url("redis", "rediss", "unix"),
        "a Redis of your own, redis://[user:password@]host:port/db; it is never started or stopped",
        secret=True,
    )
    postgres_url: str = _setting(
        "SISE_POSTGRES_URL",
        "",
        _url("postgresql", "postgres"),
        "a PostgreSQL of your own, postgresql://user:password@host:port/db; it is never started or stopped",
        secret=True,
    )
    kafka_port: int = _setting("SISE_KAFKA_PORT", 9092, _PORT, "port of the Kafka that make up starts")
    kafka_controller_port: int = _setting(
        "SISE_KAFKA_CONTROLLER_PORT", 9093, _PORT, "port of that Kafka's controller (KRaft)"
    )
    redis_port: int = _setting("SISE_REDIS_PORT", 6379, _PORT, "port of the Redis that make up starts")
    postgres_port: int = _setting("SISE_POSTGRES_PORT", 5432, _PORT, "port of the PostgreSQL that make up starts")
    redis_prefix: str = _setting("SISE_REDIS_PREFIX", "sise:", str, "what every Redis key of this project starts with")

    @property
    def kafka(self) -> str:
        """Bootstrap servers, whether of a Kafka named in the environment or of the one that ``make up`` starts."""
        return self.kafka_servers or f"127.0.0.1:{self.kafka_port}"

    @property
    def redis(self) -> str:
        """URL of the Redis named in the environment, else of the one that ``make up`` starts."""
        return self.redis_url or f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def postgres(self) -> str:
        """URL, password included, of the PostgreSQL named in the environment, else of the one ``make up`` starts."""
        if self.postgres_url:
            return self.postgres_url
        try:
            password = self.postgres_password_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise ConfigError(
                f"{self.postgres_password_file} is missing, so there is no local PostgreSQL yet: "
                "run 'make up', or name one of your own in SISE_POSTGRES_URL"
            ) from None
        except PermissionError:
            raise ConfigError(
                f"{self.postgres_password_file} belongs to another user: run this as the one who ran 'make up', "
                "or name the database in SISE_POSTGRES_URL"
            ) from None
        return f"postgresql://sise:{quote(password, safe='')}@127.0.0.1:{self.postgres_port}/sise"

    @property
    def postgres_password_file(self) -> Path:
        return self.local / "services" / "postgres" / "password"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
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
                shown = "" if item.metadata["secret"] else f"={text}"
                problems.append(f"{item.metadata['variable']}{shown}: {problem} ({item.metadata['what']})")
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
