"""Secrets: from the environment, else from a file that nobody else can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sise.errors import ConfigError
from sise.redact import hide
from sise.sources.settings import SourceSettings

__all__ = ["read_secret_file", "secret", "write_secret_file"]


def secret(settings: SourceSettings, name: str, why: str, otherwise: str) -> str:
    """The value of ``name``. Raises ConfigError with why it is needed and what to do; never tells a value."""
    value = os.environ.get(name, "").strip()
    if not value and settings.secrets_file.exists():
        for line in read_secret_file(settings.secrets_file).splitlines():
            key, sign, text = line.strip().partition("=")
            if sign and key.strip() == name:
                value = text.strip().strip("\"'")
    if not value:
        raise ConfigError(
            f"{name} is not set: {why}; export {name}, or write {name}=… into {settings.secrets_file} (chmod 600), "
            f"or {otherwise}"
        )
    return hide(value)


def read_secret_file(path: Path) -> str:
    """The file's text; refuses one that others may read, or that is another user's."""
    with path.open(encoding="utf-8") as file:
        about = os.fstat(file.fileno())
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o077:
            raise ConfigError(f"{path} has mode {mode:04o}, so others may read its secrets: chmod 600 {path}")
        if about.st_uid != os.geteuid():
            raise ConfigError(f"{path} belongs to another user: make a file of your own, or set SISE_SECRETS")
        return file.read()


def write_secret_file(path: Path, text: str) -> None:
    """Writes the file whole, mode 0600 from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)
