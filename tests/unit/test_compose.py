"""docker-compose.yml is read as compose reads it: services that exist here, ports on this machine only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sise.dashboard.launch import check_access
from sise.ops.services import NAMES
from sise.ops.services.kafka import BEHAVIOUR, Kafka
from sise.ops.services.postgres import Postgres
from sise.ops.services.redis import Redis
from sise.settings import Settings
from tests.conftest import HERE

CLUSTER = {"master", "worker", "history", "job"}


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((HERE / "docker-compose.yml").read_text())["services"]


def published(service: dict, env: dict[str, str]) -> list[tuple[str, int, int]]:
    """(address, port here, port in the container) of each published port, ${NAME:-default} filled in."""
    found = []
    for line in service.get("ports", ()):
        filled = re.sub(r"\$\{(\w+):-(\d+)\}", lambda m: env.get(m[1], m[2]), line)
        address, here, inside = filled.split(":")
        found.append((address, int(here), int(inside)))
    return found


def test_services_start_what_the_project_has_and_stay_local(services):
    assert set(services) == CLUSTER | {"dashboard"} | set(NAMES)
    for service in services.values():
        assert all(port[0] == "127.0.0.1" for port in published(service, {}))
        assert all(name in services for name in service.get("depends_on", ()))
    for name in CLUSTER:
        service = services[name]
        program = service["entrypoint"][0].removeprefix("/opt/sise/")
        assert (HERE / program).is_file()
        assert service["environment"]["SISE_MASTER"] == "spark://master:7077"


def test_every_volume_is_declared(services):
    declared = set(yaml.safe_load((HERE / "docker-compose.yml").read_text())["volumes"])
    named = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert {name for name in named if not name.startswith((".", "/", "~", "$"))} == declared


def test_the_dashboard_is_published_here_only_and_has_an_answer_for_who_comes_in(services, tmp_path):
    """Inside the container it listens on every address: its settings say that it may, only 127.0.0.1 gets there."""
    dashboard = services["dashboard"]
    host = dashboard["entrypoint"][dashboard["entrypoint"].index("--host") + 1]
    settings = Settings.from_env(dashboard["environment"])
    assert check_access(host, settings, [tmp_path / "none"]) == "proxy"
    assert published(dashboard, {}) == [("127.0.0.1", 8501, 8501)]
    assert (settings.kafka, settings.redis) == ("kafka:19092", "redis://redis:6379/0")


def test_make_up_and_compose_offer_the_same_services_on_the_same_ports(services):
    env = {"SISE_KAFKA_PORT": "19092", "SISE_REDIS_PORT": "16379", "SISE_POSTGRES_PORT": "15432"}
    for given in ({}, env):
        settings = Settings.from_env(given)
        for kind, variable in (
            (Kafka, "SISE_KAFKA_PORT"),
            (Redis, "SISE_REDIS_PORT"),
            (Postgres, "SISE_POSTGRES_PORT"),
        ):
            port = kind(settings).ports[variable]
            assert [here for _, here, _ in published(services[kind.name], given)] == [port]
    assert f"HOST://{Settings().kafka}" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].replace(
        "${SISE_KAFKA_PORT:-9092}", "9092"
    )


def test_the_broker_in_the_container_behaves_as_the_local_one(services):
    locked = (HERE / "conf" / "jars.lock").read_text()
    version = re.search(r"^kafka org\.apache\.kafka:kafka_2\.13:(\S+)", locked, re.MULTILINE)[1]
    kafka = services["kafka"]
    assert kafka["image"] == f"apache/kafka:{version}"
    for key, value in BEHAVIOUR.items():
        assert str(kafka["environment"]["KAFKA_" + key.upper().replace(".", "_")]) == value, key


def test_data_outlives_the_containers_and_jobs_know_where_they_are(services):
    for name, folder in (("kafka", "/var/lib/kafka/data"), ("redis", "/data"), ("postgres", "/var/lib/postgresql")):
        assert services[name]["volumes"] == [f"{name}:{folder}"]
    for name in CLUSTER | {"dashboard"}:  # what the pages save holds for the jobs; a vendor's ledger outlives one
        mounted = dict(volume.split(":") for volume in services[name]["volumes"])
        assert mounted["./conf"] == "/opt/sise/conf" and mounted["lake"] == services[name]["environment"]["SISE_LAKE"]
        assert mounted["local"] == services[name]["environment"]["SISE_LOCAL"]
    for name in CLUSTER:
        env = Settings.from_env(services[name]["environment"])
        assert (env.kafka, env.redis) == ("kafka:19092", "redis://redis:6379/0")
        assert env.postgres.endswith("@postgres:5432/sise")
    redis = services["redis"]["command"]
    local = Redis(Settings(local=Path("unused"))).settings
    assert local.redis.endswith("/0") and redis[redis.index("--appendonly") + 1] == "yes"
