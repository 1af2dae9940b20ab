"""What Kafka, Redis and PostgreSQL have in common as services of this machine."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

from sise.ops.services.process import Launch
from sise.settings import Settings

__all__ = ["Service", "Status", "without_password"]


@dataclass(frozen=True)
class Status:
    """How a service is. ``where`` is its address without any password; ``external``: named in the environment."""

    name: str
    running: bool
    healthy: bool
    where: str
    pid: int | None = None
    version: str = ""
    external: bool = False
    detail: str = ""


class Service(ABC):
    """One server: what it needs before it starts, how it is started, and how to ask whether it is well."""

    name: ClassVar[str]
    title: ClassVar[str]
    variable: ClassVar[str]  # the setting that names one of the user's own
    # Seconds until it must be healthy: after a power cut it reads its logs first. One that ends is seen at once.
    patience: ClassVar[float] = 300.0
    farewell: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 30), (signal.SIGKILL, 10))

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = settings.local.resolve() / "services" / self.name
        self.data = self.home / "data"
        self.log = self.home / f"{self.name}.log"
        self.pid_file = self.home / f"{self.name}.pid"

    @property
    @abstractmethod
    def external(self) -> bool:
        """Whether the environment names one: then it is asked how it is, and otherwise left alone."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Its address, without a password."""

    @property
    @abstractmethod
    def ports(self) -> dict[str, int]:
        """The ports it listens on, by the setting that moves them."""

    @abstractmethod
    def prepare(self) -> None:
        """Configuration, and at the first start the data folder. A start that was cut short is made good."""

    @abstractmethod
    def launch(self) -> Launch:
        """The command, once prepared."""

    @abstractmethod
    def probe(self) -> str:
        """Asks the server for something real and returns its version; raises if it does not answer."""

    @property
    def lacks(self) -> str:
        """Without what it will never be healthy while it runs, and the remedy; empty: nothing."""
        return ""

    def logs(self) -> list[Path]:
        """Where to look when it does not come up."""
        return [self.log]


def without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + host, query=""))
