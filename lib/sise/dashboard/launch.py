"""``sise dashboard``: starts Streamlit on the viewer, on this machine only unless somebody answers for who comes in."""

from __future__ import annotations

import ipaddress
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from sise.errors import ConfigError
from sise.settings import Settings

__all__ = ["check_access", "command", "prepare"]

_OIDC = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
_OPTIONS = {
    "server.enableStaticServing": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # what went wrong is in the log; a page shows no paths and no values
    "runner.postScriptGC": "false",  # a full collection after each tick of each viewer's timer cost 80 of its 90 ms
    "runner.fastReruns": "false",  # else the live part's own rerun may cut a page short that is just opening
    "theme.baseFontSize": "14",
    "theme.light.primaryColor": "#1f6fb5",
    "theme.dark.primaryColor": "#6ea8ff",
    "theme.light.secondaryBackgroundColor": "#f3f5f8",
    "theme.dark.backgroundColor": "#0f1318",
    "theme.dark.secondaryBackgroundColor": "#1a2028",
    "theme.dark.textColor": "#e3e7ec",
    "theme.light.textColor": "#1b222b",
}


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def secrets_files(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Where Streamlit looks for secrets: the user's, and the folder's that it is started in."""
    home = Path((environment or os.environ).get("HOME", "~")).expanduser()
    return [home / ".streamlit" / "secrets.toml", Path.cwd() / ".streamlit" / "secrets.toml"]


def _oidc(files: Sequence[Path]) -> bool:
    """Whether the secrets name an OIDC provider in full, for everybody ([auth]) or by provider ([auth.x])."""
    found: dict[str, object] = {}
    for path in files:
        if path.is_file():
            try:
                found.update(tomllib.loads(path.read_text(encoding="utf-8")).get("auth", {}))
            except tomllib.TOMLDecodeError as problem:
                raise ConfigError(f"{path} is not TOML: {problem}") from problem
    own = {k for k, v in found.items() if v and not isinstance(v, dict)}
    providers = [own | {k for k, v in part.items() if v} for part in found.values() if isinstance(part, dict)]
    return any(set(_OIDC) <= keys for keys in (own, *providers))


def check_access(host: str, settings: Settings, files: Sequence[Path]) -> str:
    """Who lets people in: "loopback", "oidc" or "proxy". Raises ConfigError where ``host`` can be reached from other
    machines and nobody does."""
    if _oidc(files):
        return "oidc"
    if _loopback(host):
        return "loopback"
    if settings.dashboard_proxy:
        return "proxy"
    raise ConfigError(
        f"--host {host} lets other machines in, and nobody asks who they are: configure Streamlit's OIDC ([auth] in "
        f"{files[-1]}: {', '.join(_OIDC)}), or put a reverse proxy that does before it and name that in "
        "SISE_DASHBOARD_PROXY (docs/dashboard.md), or stay on 127.0.0.1"
    )


def command(host: str, port: int, headless: bool) -> list[str]:
    options = {**_OPTIONS, "server.address": host, "server.port": str(port), "server.headless": str(headless).lower()}
    if not _loopback(host):
        options["browser.serverPort"] = str(port)
    chosen = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(Path(__file__).with_name("app.py")), *chosen]


def prepare(host: str, port: int, headless: bool) -> list[str]:
    """The command that is the viewer, once it is known who lets people in; notes that for its pages."""
    os.environ["SISE_DASHBOARD_GUARD"] = check_access(host, Settings.from_env(), secrets_files())
    return command(host, port, headless)
