"""A run that was killed is told once, by the next one."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from sise.begun import Begun, died, told_once
from sise.dashboard.data.system import runs
from sise.dashboard.data.view import LakeView
from sise.settings import Settings

STARTED = datetime(2025, 3, 31, 7, tzinfo=UTC)
KILLED = """
import os, signal
from datetime import datetime, UTC
from pathlib import Path
from sise.begun import Begun
from sise.settings import Settings
settings = Settings(lake="a-lake", local=Path({local!r}))
Begun(settings, "scan-{n}", "scan_watchlists", {{"date": "2025-03-31"}}, datetime(2025, 3, 31, 7, {n}, tzinfo=UTC))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_told_once_and_a_living_one_not(tmp_path):
    settings = Settings(lake="a-lake", local=tmp_path)
    living = Begun(settings, "compute-1", "compute_indicators", {}, STARTED)
    assert died(settings) == []
    for n in (2, 1):
        subprocess.run([sys.executable, "-c", KILLED.format(local=str(tmp_path), n=n)], check=False)
    (tmp_path / "state" / "runs" / "other.json").write_text("{}")
    rows = died(settings)
    assert [row["run_id"] for row in rows] == ["scan-1", "scan-2"] and rows[0]["arguments"] == {"date": "2025-03-31"}
    assert rows[0]["status"] == "failed" and "killed" in rows[0]["error"] and rows[0]["started_at"].minute == 1
    shown = runs(LakeView(settings))
    assert list(shown["run_id"]) == ["scan-2", "scan-1"] and list(shown["arguments"]) == ["date=2025-03-31"] * 2
    assert died(Settings(lake="another", local=tmp_path)) == []

    def on_a_full_disk():
        with told_once(settings) as mine:
            assert len(mine) == 2 and died(settings) == [], "nobody else tells them meanwhile"
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        on_a_full_disk()
    with told_once(settings) as mine:
        assert [row["run_id"] for row in mine] == ["scan-1", "scan-2"]
    assert died(settings) == []
    living.ended()
    assert [file.name for file in (tmp_path / "state" / "runs").glob("*")] == ["other.json"]


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path):
    (tmp_path / "state").write_text("a file")
    begun = Begun(Settings(lake="a-lake", local=tmp_path), "compute-1", "compute_indicators", {}, STARTED)
    begun.ended()
    assert died(Settings(lake="a-lake", local=tmp_path)) == []
