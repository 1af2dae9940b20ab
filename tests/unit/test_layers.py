"""Data and imports go one way (docs/architecture.md)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HERE

LIB = HERE / "lib" / "sise"
# A module of the room on the left may import nothing of the rooms on the right.
FORBIDDEN = {
    "settings": {"lake", "prices", "indicators", "watchlists", "sources", "ops"},
    "tables": {"lake", "prices", "indicators", "watchlists", "sources", "ops"},
    "lake": {"prices", "indicators", "watchlists", "sources", "ops"},
    "sources": {"lake", "prices", "indicators", "watchlists"},
    "prices": {"indicators", "watchlists", "signals"},
    "indicators": {"watchlists", "signals", "sources"},
    "watchlists": {"signals", "sources"},
    "signals": {"sources", "serving"},
    "topics": {"lake", "prices", "indicators", "watchlists", "signals", "serving", "sources", "ops"},
    "ops": {"serving", "signals"},
    "reader": {"lake", "prices", "indicators", "watchlists", "sources", "ops", "session"},
    "dashboard": {"lake", "session", "sources", "serving.streams"},
    "cli": {"lake", "prices", "indicators", "watchlists", "sources", "ops", "session"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_knows_what_stands_above_it(room):
    paths = [LIB / f"{room}.py"] if (LIB / f"{room}.py").exists() else sorted((LIB / room).rglob("*.py"))
    assert paths
    for path in paths:
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("sise.")}
        assert not rooms & FORBIDDEN[room], f"{path.name} imports {rooms & FORBIDDEN[room]}"


def test_the_command_line_needs_no_jvm():
    for path in (LIB / "cli.py", LIB / "reader.py", LIB / "settings.py", LIB / "tables.py"):
        assert not {name for name in imports(path) if name.split(".")[0] in {"pyspark", "delta"}}, path
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, sise.cli, sise.ops.services; print(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(LIB.parent)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "kafka" in loaded and not {"pyspark", "delta"} & set(loaded)


def test_the_viewer_needs_no_jvm():
    """Whatever a page imports, and what that imports."""
    for path in (LIB / "dashboard").rglob("*.py"):
        assert not {name for name in imports(path) if name.split(".")[0] in {"pyspark", "delta"}}, path
    names = [p.stem for p in sorted((LIB / "dashboard" / "views").glob("*.py")) if p.stem != "__init__"]
    wanted = ", ".join(f"sise.dashboard.views.{name}" for name in names)
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {wanted}, sise.dashboard.shell; print(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(LIB.parent)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "streamlit" in loaded and not {"pyspark", "delta", "py4j"} & set(loaded)


def test_transforms_open_no_connection():
    """prices, indicators and watchlists take frames and tables: no files, no network, no sessions of their own."""
    for room in ("indicators", "prices", "watchlists", "signals"):
        for path in (LIB / room).rglob("*.py"):
            assert not imports(path) & {"requests", "urllib.request", "socket", "redis", "psycopg2", "kafka"}, path
            assert "getOrCreate" not in path.read_text(encoding="utf-8"), path


def test_files_and_jobs_stay_short():
    for path in LIB.rglob("*.py"):
        limit = 420 if path.name == "tables.py" else 360 if path.name in {"rolling.py", "compute.py"} else 300
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, path
    for path in (HERE / "jobs").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40, path
