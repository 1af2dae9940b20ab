"""``sise services up | down | status``: Kafka, Redis and PostgreSQL on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from sise.settings import Settings
from sise.terminal import console, guarded

if TYPE_CHECKING:
    from sise.ops.services import Status

__all__ = ["services"]

services = typer.Typer(no_args_is_help=True, help="Kafka, Redis and PostgreSQL on 127.0.0.1, data under .local.")


@services.command()
@guarded("starting the services …")
def up() -> None:
    """Starts what does not run yet, but for what the environment names, and waits until all are healthy."""
    from sise.ops.services import start  # here, so that the lake's commands don't load three client libraries

    found = start(Settings.from_env())
    _print(found)
    raise typer.Exit(0 if all(service.healthy for service in found) else 1)


@services.command()
@guarded("stopping the services …")
def down() -> None:
    """Stops what ``up`` started, and nothing else."""
    from sise.ops.services import stop

    _print(stop(Settings.from_env()), asked=False)


@services.command()
@guarded("asking the services …")
def status() -> None:
    """How each service is; the exit code is 0 if all are healthy."""
    from sise.ops.services import status as look

    found = look(Settings.from_env())
    _print(found)
    raise typer.Exit(0 if all(service.healthy for service in found) else 1)


def _state(service: Status, asked: bool) -> str:
    if service.healthy:
        return "[green]healthy[/green]"
    if service.external:
        return "[red]no answer[/red]" if asked else ""
    return "[red]not healthy[/red]" if service.running else "not running"


def _print(found: Sequence[Status], asked: bool = True) -> None:
    table = Table(title="Services", title_justify="left")
    for name in ("service", "state", "where", "pid", "version", ""):
        table.add_column(name, no_wrap=name != "", overflow="fold")
    for service in found:
        pid = str(service.pid or "")
        table.add_row(service.name, _state(service, asked), service.where, pid, service.version, escape(service.detail))
    console().print(table)
