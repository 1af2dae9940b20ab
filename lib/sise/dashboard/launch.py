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

__all__ = ["GUARD", "check_access", "command", "prepare", "providers", "secrets_files"]

GUARD = "SISE_DASHBOARD_GUARD"  # tells the pages what check_access said

_SHARED, _PROVIDER = ("redirect_uri", "cookie_secret"), ("client_id", "client_secret", "server_metadata_url")
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


def providers(files: Sequence[Path]) -> list[str]:
    """The OIDC providers that the secrets name in full, as ``st.login`` calls them: "default" for what stands in [auth]
    itself, x for [auth.x]. As with Streamlit, the last file's [auth] counts as a whole."""
    auth: object = {}
    for path in files:
        if path.is_file():
            try:
                auth = tomllib.loads(path.read_text(encoding="utf-8")).get("auth", auth)
            except tomllib.TOMLDecodeError as problem:
                raise ConfigError(f"{path} is not TOML: {problem}") from problem
    if not isinstance(auth, dict) or not all(auth.get(k) for k in _SHARED):
        return []
    parts = {"default": auth} | {k: part for k, part in auth.items() if isinstance(part, dict)}
    # Streamlit refuses a name with an underscore: a login that cannot work lets nobody in.
    return [name for name, part in parts.items() if "_" not in name and all(part.get(k) for k in _PROVIDER)]


def check_access(host: str, settings: Settings, files: Sequence[Path]) -> str:
    """Who lets people in: "loopback", "oidc" or "proxy". Raises ConfigError where ``host`` can be reached from other
    machines and nobody does."""
    if providers(files):
        return "oidc"
    if _loopback(host):
        return "loopback"
    if settings.dashboard_proxy:
        return "proxy"
    raise ConfigError(
        f"the address {host} lets other machines in, and nobody asks who they are: configure Streamlit's OIDC ([auth] "
        f"in {files[-1]}: {', '.join((*_SHARED, *_PROVIDER))}), or put a reverse proxy that does before it and name "
        "that in SISE_DASHBOARD_PROXY (docs/dashboard.md), or stay on 127.0.0.1 (sise dashboard --host, or streamlit's "
        "--server.address where it is started without sise)"
    )


def command(host: str, port: int, headless: bool) -> list[str]:
    options = {**_OPTIONS, "server.address": host, "server.port": str(port), "server.headless": str(headless).lower()}
    if not _loopback(host):
        options["browser.serverPort"] = str(port)
    chosen = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(Path(__file__).with_name("app.py")), *chosen]


def prepare(host: str, port: int, headless: bool) -> list[str]:
    """The command that is the viewer, once it is known who lets people in; notes that for its pages."""
    os.environ[GUARD] = check_access(host, Settings.from_env(), secrets_files())
    return command(host, port, headless)
