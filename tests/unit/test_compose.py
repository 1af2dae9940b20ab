"""docker-compose.yml is read as compose reads it: services that exist here, ports on this machine only."""

from __future__ import annotations

import yaml

from tests.conftest import HERE


def test_services_start_what_the_project_has_and_stay_local():
    services = yaml.safe_load((HERE / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"master", "worker", "history", "job"}
    for service in services.values():
        program = service["entrypoint"][0].removeprefix("/opt/sise/")
        assert (HERE / program).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service["environment"]["SISE_MASTER"] == "spark://master:7077"
        assert all(name in services for name in service.get("depends_on", ()))
