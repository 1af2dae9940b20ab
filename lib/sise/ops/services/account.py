"""The account a server runs as that refuses to run as root.

Started by root it runs as the owner of its data, else as ``postgres``, else as ``nobody``. Where that account cannot
reach the folders (a project in /root, a temporary folder of root's) it runs in a user namespace of its own instead,
in which root's files belong to that account and root's powers are gone. Permissions of other folders are left alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sise.errors import ServiceError
from sise.ops.services.process import Launch

__all__ = ["Account"]


@dataclass(frozen=True)
class Account:
    """``user`` to start as and the command to start through; ``owner`` is whom the data must belong to."""

    user: int | None = None
    through: tuple[str, ...] = ()
    owner: int | None = None

    @classmethod
    def choose(cls, home: Path, data: Path, program: str) -> Account:
        """For a server whose data is ``data``, in the existing folder ``home``. Tried, not computed from modes."""
        if os.geteuid() != 0:
            return cls()
        user = _candidate(data)
        account = cls(user=user, owner=user)
        if account.reaches(home, program):
            return account
        unshare = shutil.which("unshare")
        if unshare:
            ids = (f"--map-user={user}", f"--map-group={pwd.getpwuid(user).pw_gid}")
            inside = cls(through=(unshare, "--user", *ids, "--"), owner=0)
            if inside.reaches(home, program):
                return inside
        raise ServiceError(
            f"PostgreSQL does not run as root, the account {pwd.getpwuid(user).pw_name} cannot reach {home} and "
            f"{program}, and this system allows no user namespaces: run 'make up' as an ordinary user, move the "
            "project to a folder that others may enter, or name a database in SISE_POSTGRES_URL"
        )

    def command(self, argv: Sequence[str]) -> Launch:
        return Launch([*self.through, *argv], self.user)

    def reaches(self, home: Path, program: str) -> bool:
        check = self.command(["/bin/sh", "-c", 'cd "$1" && exec "$2" --version', "sh", str(home), program])
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.run(**check.popen(), **quiet).returncode == 0

    def own(self, data: Path) -> None:
        """Gives the folder to its owner, if it is not so already."""
        if self.owner is None or data.stat().st_uid == self.owner:
            return
        group = pwd.getpwuid(self.owner).pw_gid
        # The folder itself last: where this is cut short, it is done again.
        for folder, _, files in os.walk(data, topdown=False):
            for path in (*(os.path.join(folder, name) for name in files), folder):
                os.chown(path, self.owner, group, follow_symlinks=False)


def _candidate(data: Path) -> int:
    if data.is_dir() and data.stat().st_uid != 0:
        return data.stat().st_uid
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise ServiceError("PostgreSQL does not run as root, and there is no account 'nobody': run 'make up' as a user")
