"""Child processes that outlive their parent: started in a session of their own, found again and ended by pid.

A pid alone says little, since the system gives it to somebody else later. So the record of a process also holds its
birth, and a record whose pid was born at another moment is that of a process which is gone.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Launch", "Record", "launch", "port_owner", "port_taken", "tail"]

_children: dict[int, subprocess.Popen[bytes]] = {}  # those started by this very process, which has to reap them
_LOG_LIMIT = 10 * 2**20


@dataclass(frozen=True)
class Launch:
    """How to start a program; ``user`` is the id it runs as, None for our own."""

    argv: Sequence[str]
    user: int | None = None

    def popen(self) -> dict[str, Any]:
        """Arguments for subprocess: few variables, so that no secret of ours is in a server's environment."""
        env = {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if k in os.environ}
        options: dict[str, Any] = {"args": list(self.argv), "env": env, "cwd": "/", "stdin": subprocess.DEVNULL}
        if self.user is not None:
            options |= {"user": self.user, "group": self.user_group(), "extra_groups": []}
        return options

    def user_group(self) -> int:
        import pwd

        assert self.user is not None
        return pwd.getpwuid(self.user).pw_gid


def birth(pid: int) -> str | None:
    """When the process was born, as exactly as the system tells; None if there is none or it is a zombie."""
    if pid in _children:
        _children[pid].poll()
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():  # ticks since boot: psutil's time moves when somebody sets the clock
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {stat.read_text().rpartition(')')[2].split()[19]}"
        return f"{process.create_time():.2f}"
    except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        return None


@dataclass(frozen=True)
class Record:
    """A process we started: which, when it was born, the ports it was given, by setting, and the folder of its pid
    file."""

    pid: int
    born: str
    ports: Mapping[str, int]
    home: str = ""

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record at ``path`` if its process still runs. A stale or broken file is removed, and one that came here
        with a copy of the folder: the process is the other one's."""
        try:
            record = cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            path.unlink()
            return None
        copied = record.home not in ("", str(path.parent)) and (Path(record.home) / path.name).is_file()
        if record.alive() and not copied:
            return record
        path.unlink(missing_ok=True)
        return None

    def write(self, path: Path) -> None:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(path)

    def alive(self) -> bool:
        return birth(self.pid) == self.born

    def end(self, steps: Sequence[tuple[signal.Signals, float]]) -> bool:
        """Sends each signal and waits its seconds until the process is gone; whether it went."""
        for number, seconds in steps:
            with suppress(psutil.NoSuchProcess):
                if self.alive():
                    psutil.Process(self.pid).send_signal(number)
            until = time.monotonic() + seconds
            # psutil would wait until somebody reaps it, too, which in a container may be never.
            while self.alive():
                if time.monotonic() > until:
                    break
                time.sleep(0.02)
            else:
                return True
        return False


def launch(what: Launch, log: Path, pid_file: Path, ports: Mapping[str, int]) -> Record:
    """Starts the program in a session of its own, its output appended to ``log``, and writes the pid file."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        child = subprocess.Popen(**what.popen(), stdout=out, stderr=out, start_new_session=True)
    _children[child.pid] = child
    record = Record(child.pid, birth(child.pid) or "gone", dict(ports), str(pid_file.parent))
    try:
        record.write(pid_file)
    except OSError:  # nobody would find it again
        child.kill()
        child.wait()
        raise
    return record


def port_taken(port: int) -> bool:
    """Whether something listens where 127.0.0.1:port would be. Sockets that merely linger don't count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return False  # a port below 1024: the service's own log says so
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            return True
        return False


def port_owner(port: int) -> str | None:
    """'pid 123 (redis-server)', or None where the system does not tell."""
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pids = [c.pid for c in listening if c.laddr.port == port and c.pid]
        return f"pid {pids[0]} ({psutil.Process(pids[0]).name()})" if pids else None
    except (psutil.Error, OSError):
        return None


def tail(log: Path, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
