"""Kafka, Redis and PostgreSQL on this machine, nothing installed: real ones, as child processes on 127.0.0.1.

``start`` awaits their health, ``stop`` ends them by pid, ``status`` asks each how it is. Starting what runs and
stopping what does not are no errors. A service that the environment names (SISE_KAFKA, SISE_REDIS_URL,
SISE_POSTGRES_URL) is asked how it is and otherwise left alone. Everything they keep is under ``settings.local``.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import psutil

from sise.errors import ServiceError
from sise.locks import alone
from sise.ops.services.base import Service, Status
from sise.ops.services.kafka import Kafka
from sise.ops.services.postgres import Postgres
from sise.ops.services.process import Record, launch, port_owner, port_taken, tail
from sise.ops.services.redis import Redis
from sise.redact import redact
from sise.settings import Settings

__all__ = ["NAMES", "Status", "start", "status", "stop"]

_SERVICES: dict[str, type[Service]] = {"kafka": Kafka, "redis": Redis, "postgres": Postgres}
NAMES = tuple(_SERVICES)


def start(settings: Settings, names: Sequence[str] = NAMES) -> list[Status]:
    """Starts what does not run yet and returns when all are healthy. What a failing call started is stopped again.

    Raises ServiceError: a port in use, or a server that does not come up (with the end of its log). One that the
    environment names and that does not answer is no error here: its Status says so.
    """
    services = _chosen(settings, names)
    with _alone(settings):
        fresh = [service for service in services if not service.external and not _stays(service)]
        for service in fresh:
            _check_ports(service)
        begun: list[Service] = []
        try:
            since = time.monotonic()
            for service in fresh:  # all of them first: they come up side by side
                begun.append(service)
                service.prepare()
                launch(service.launch(), service.log, service.pid_file, service.ports)
            # Kafka takes longest: awaited last, so that each one's seconds are its own.
            return [_await(service, since if service in fresh else None) for service in reversed(services)][::-1]
        except BaseException:
            for service in reversed(begun):
                with suppress(ServiceError):  # what went wrong first is what counts
                    _end(service)
            raise


def stop(settings: Settings, names: Sequence[str] = NAMES) -> list[Status]:
    """Ends what ``start`` started, and nothing else; returns how each is then."""
    with _alone(settings):
        ended = []
        for service in reversed(_chosen(settings, names)):
            if service.external:
                detail = f"named in {service.variable}: left alone"
                ended.append(Status(service.name, False, False, service.where, external=True, detail=detail))
                continue
            since = time.monotonic()
            record = _end(service)
            detail = f"stopped after {time.monotonic() - since:.1f} s" if record else "was not running"
            ended.append(Status(service.name, False, False, service.where, detail=detail))
        return ended[::-1]


def status(settings: Settings) -> list[Status]:
    """How each service is, asked now."""
    with _ours():
        return [_look(service) for service in _chosen(settings, NAMES)]


def _chosen(settings: Settings, names: Sequence[str]) -> list[Service]:
    if unknown := [name for name in names if name not in _SERVICES]:
        raise ServiceError(f"no service {', '.join(unknown)}: there are {', '.join(NAMES)}")
    return [_SERVICES[name](settings) for name in NAMES if name in names]


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Two starts at once would both find nothing running."""
    with _ours(), alone(settings.local.resolve() / "services" / "lock"):
        yield


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except PermissionError as problem:
        raise ServiceError(
            f"{problem.filename} belongs to another user: run this as the one who ran 'make up' first, "
            "or point SISE_LOCAL at a folder of your own"
        ) from problem
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = problem.filename or "the folder of SISE_LOCAL"
        raise ServiceError(
            f"{where} cannot be written ({problem.strerror}): make room there, or point SISE_LOCAL at another folder"
        ) from problem


def _running(service: Service) -> Record | None:
    """The process we started, if it runs. Raises if that is on other ports than the settings say."""
    record = Record.read(service.pid_file)
    if record and (moved := _moved(service, record)):
        raise ServiceError(f"{service.title} {moved}: set it back, or run 'make down' first")
    return record


def _moved(service: Service, record: Record) -> str:
    for variable, port in service.ports.items():
        if record.ports.get(variable) != port:
            return f"runs as pid {record.pid} on port {record.ports.get(variable)}, and {variable} says {port}"
    return ""


def _end(service: Service) -> Record | None:
    """Ends the process we started and returns what it was; None if there was none."""
    record = Record.read(service.pid_file)
    if record is None:
        return None
    try:
        gone = record.end(service.farewell)
    except psutil.AccessDenied:
        raise ServiceError(
            f"{service.title} (pid {record.pid}) belongs to another user: run this as the one who ran 'make up'"
        ) from None
    if not gone:
        raise ServiceError(f"{service.title} (pid {record.pid}) does not end, not even killed: see {service.log}")
    service.pid_file.unlink(missing_ok=True)
    return record


def _check_ports(service: Service) -> None:
    for variable, port in service.ports.items():
        until = time.monotonic() + 15
        while port_taken(port):
            owner = port_owner(port)
            if owner is None and time.monotonic() < until:
                time.sleep(0.05)  # a killed server's threads may hold its port a moment longer than it has a pid
                continue
            raise ServiceError(
                f"{service.title} cannot listen on 127.0.0.1:{port}, which {owner or 'another process'} uses: stop "
                f"that, set {variable} to a free port, or name a {service.title} of your own in {service.variable}"
            )


def _stays(service: Service) -> bool:
    """Whether it runs already and is well, or becomes so; one that is just dying is none."""
    return _running(service) is not None and _settled(service).running


def _await(service: Service, since: float | None) -> Status:
    """Until it is healthy. ``since``: when we started it; None for one that ran before."""
    if service.external:
        return _look(service)
    state = _settled(service)
    if not state.running:
        raise _failure(service, f"ended at once ({state.detail})" if state.detail else "ended at once")
    return replace(state, detail=f"started in {time.monotonic() - since:.1f} s" if since else "runs already")


def _settled(service: Service) -> Status:
    """Its status once it is healthy or has ended."""
    until = time.monotonic() + service.patience
    while True:
        state = _look(service)
        if state.healthy or not state.running:
            return state
        if service.lacks:
            raise ServiceError(f"{service.title} runs as pid {state.pid}, and {service.lacks}")
        if time.monotonic() > until:
            raise _failure(service, f"runs as pid {state.pid} and does not answer ({state.detail})")
        time.sleep(0.05)


def _failure(service: Service, what: str) -> ServiceError:
    logs = "\n".join(f"{log}:\n{tail(log)}" for log in service.logs() if log.is_file())
    return ServiceError(f"{service.title} {what}. The end of its log:\n{logs}")


def _look(service: Service) -> Status:
    record = None if service.external else Record.read(service.pid_file)
    if not service.external and record is None:
        taken = [port for port in service.ports.values() if port_taken(port)]
        detail = f"port {taken[0]} is used by {port_owner(taken[0]) or 'another process'}" if taken else ""
        return Status(service.name, False, False, service.where, detail=detail)
    pid = record.pid if record else None
    if record and (moved := _moved(service, record)):
        return Status(service.name, True, False, service.where, pid, detail=moved)
    if record and not port_taken(next(iter(service.ports.values()))):
        return Status(service.name, True, False, service.where, pid, detail="does not listen yet")
    try:
        version = service.probe()
    except Exception as problem:  # whatever a client library raises: it is not well, and this is why
        detail = redact(" ".join(str(problem).split())) or type(problem).__name__
        return Status(service.name, record is not None, False, service.where, pid, "", service.external, detail)
    detail = f"named in {service.variable}" if service.external else ""
    return Status(service.name, True, True, service.where, pid, version, service.external, detail)
