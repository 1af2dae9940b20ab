"""Real services beside whatever a developer has running: a folder and ports of their own."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from sise.ops.services import start, stop
from sise.ops.services.process import port_taken
from sise.settings import Settings
from tests.conftest import CONF


def free_ports(count: int) -> list[int]:
    """Below the range from which the system gives ports to clients: one of those could take ours before a restart. Each
    of pytest's processes has ports of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    candidates = random.sample(range(14_000 + 2_000 * worker, 16_000 + 2_000 * worker), 1_000)
    return list(islice((port for port in candidates if not port_taken(port)), count))


def settings_in(folder: Path) -> Settings:
    """Settings for a set of services of its own in ``folder``, on free ports, whatever the environment names."""
    kafka, controller, redis, postgres = free_ports(4)
    return Settings(
        lake=str(folder / "lake"),
        conf=CONF,
        local=folder / "local",
        kafka_port=kafka,
        kafka_controller_port=controller,
        redis_port=redis,
        postgres_port=postgres,
    )


@pytest.fixture(scope="session")
def roomy() -> Iterator[Path]:
    """A temporary folder that any account may enter: pytest's own are closed, and PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="sise-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def services(roomy: Path) -> Iterator[Settings]:
    """Kafka, Redis and PostgreSQL, healthy, for the whole session. Tests that stop them make a set of their own."""
    settings = settings_in(roomy / "shared")
    start(settings)
    yield settings
    stop(settings)


@pytest.fixture
def alone(roomy: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings for a set of one test's own, nothing started; what it starts is stopped."""
    settings = settings_in(Path(tempfile.mkdtemp(dir=roomy)))
    settings.local.parent.chmod(0o711)
    yield settings
    stop(settings)
