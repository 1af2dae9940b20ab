"""The jobs as people start them: through spark-submit.sh, on one machine and on a standalone cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sise.errors import ConfigError, InputError, UsageError
from sise.ops.job import Parser, run_job
from sise.reader import LakeReader
from tests.conftest import HERE
from tests.live.conftest import free_ports

SOURCE = ("--source", "sample", "--symbols", "24")


def environment(lake: Path, **other: str) -> dict[str, str]:
    return {**os.environ, "SISE_LAKE": str(lake), "SISE_TODAY": "2026-01-02", **other}


def run(lake: Path, job: str, *arguments: str, options: tuple[str, ...] = (), **env: str):
    """(exit code, the JSON line, stderr) of a job."""
    done = subprocess.run(
        [HERE / "spark-submit.sh", *options, f"jobs/{job}.py", *arguments],
        cwd=HERE,
        env=environment(lake, **env),
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1, f"one line on stdout, not {done.stdout!r}; stderr: {done.stderr[-2000:]}"
    return done.returncode, json.loads(lines[0]), done.stderr


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A standalone master and two workers on 127.0.0.1: its URL."""
    home = Path(next(iter(__import__("pyspark").__path__)))
    folder = tmp_path_factory.mktemp("cluster")
    (port,) = free_ports(1)
    env = {
        **os.environ,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_WORKER_DIR": str(folder / "work"),
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_CONF_DIR": str(folder),
    }
    master = f"spark://127.0.0.1:{port}"
    base = [home / "bin" / "spark-class"]
    args = [
        ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"],
        *[
            [
                "org.apache.spark.deploy.worker.Worker",
                "--host",
                "127.0.0.1",
                "--webui-port",
                "0",
                "--cores",
                "1",
                "--memory",
                "2g",
                "--work-dir",
                str(folder / f"work{n}"),
                master,
            ]
            for n in (1, 2)
        ],
    ]
    logs = [(folder / f"log{n}").open("w") for n in range(3)]
    processes = [
        subprocess.Popen([*base, *a], env=env, stdout=log, stderr=log, start_new_session=True)
        for a, log in zip(args, logs, strict=True)
    ]
    try:
        deadline = time.monotonic() + 400
        while (folder / "log0").read_text().count("Registering worker") < 2:
            assert time.monotonic() < deadline, (folder / "log0").read_text()[-2000:]
            assert all(p.poll() is None for p in processes), "a part of the cluster ended"
            time.sleep(0.2)
        yield master
    finally:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(processes):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, ending)
                    process.wait(timeout=30)
        for log in logs:
            log.close()


@pytest.fixture(scope="module")
def batch(cluster, tmp_path_factory):
    """The whole batch on the cluster, with the lake in a shared folder: (lake, records)."""
    lake = tmp_path_factory.mktemp("cluster-lake") / "lake"
    on = {"SISE_MASTER": cluster}
    options = ("--executor-memory", "1g", "--conf", "spark.executor.cores=1")
    records = []
    for job, *arguments in (
        ("collect_symbols", *SOURCE),
        ("collect_prices", *SOURCE),
        ("compute_indicators",),
        ("scan_watchlists",),
    ):
        code, record, errors = run(lake, job, *arguments, options=options, **on)
        assert code == 0 and record["status"] == "ok", errors[-3000:]
        records.append(record)
    return lake, records


@pytest.mark.slow
def test_the_batch_passes_on_a_cluster_of_two_workers(batch):
    lake, records = batch
    symbols, prices, indicators, watchlists = records
    overview = {name: rows for name, rows, _, _ in LakeReader(str(lake)).overview()}
    assert overview["runs"] == 4 and symbols["details"]["symbols"] == 24
    assert overview["prices"] == prices["rows_out"] > 20_000
    assert overview["indicators"] == indicators["rows_out"] > 20_000
    assert overview["indices"] > 3000 and overview["watchlist"] == watchlists["rows_out"] > 0


@pytest.mark.slow
def test_one_machine_gives_the_same_and_twice_changes_nothing(batch, spark, registry, calendars, tmp_path):
    """The same market computed in one go here equals the cluster's; the viewer reads what Spark wrote."""
    from datetime import date

    from sise.indicators.compute import compute_indicators
    from sise.lake import Lake
    from sise.prices.collect import collect_prices, today_of
    from sise.prices.symbols import collect_symbols
    from sise.settings import Settings
    from sise.sources.base import Request
    from sise.sources.sample import SampleSource

    lake, _ = batch
    settings = Settings(lake=str(tmp_path / "lake"), today=date(2026, 1, 2))
    here = Lake(spark, settings.lake, registry.extra_columns)
    source = SampleSource(calendars, 24)
    for _ in range(2):
        collect_symbols(spark, here, source, Request(), today_of(settings, calendars))
        again = collect_prices(spark, here, source, Request(), settings, calendars)
        computed = compute_indicators(spark, here, registry, calendars)
    assert again.rows_out == 0 and again.details["actions"] == 0 and computed.rows_out == 0
    for name in ("symbols", "prices", "actions", "indices", "indicators", "indicator_state", "live_state"):
        skipped = {"collected_at", "filter_state"}
        frames = []
        for root in (str(lake), settings.lake):
            frame = LakeReader(root).rows(name).to_pandas()
            frame = frame[[c for c in frame if c not in skipped]]
            keys = [c for c in frame if c in {"country", "symbol", "date", "valid_from", "ex_date", "kind", "index"}]
            frames.append(frame.sort_values(keys).reset_index(drop=True).astype(str))
        assert frames[0].equals(frames[1]), name


@pytest.mark.slow
def test_a_job_killed_in_the_middle_leaves_the_last_good_state(batch, tmp_path):
    lake, _ = batch
    before = [(name, rows) for name, rows, _, _ in LakeReader(str(lake)).overview() if name != "runs"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [HERE / "spark-submit.sh", "jobs/compute_indicators.py", "--full"],
            cwd=HERE,
            env=environment(lake),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        log = lake / "indicators"
        files = len(list(log.glob("*.parquet")))
        deadline = time.monotonic() + 400
        # killed while it writes: data files of the new version are there, its commit is not
        while len(list(log.glob("*.parquet"))) == files and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, (tmp_path / "out").read_text()
        assert len(list(log.glob("*.parquet"))) > files, "it has begun to write"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert [(name, rows) for name, rows, _, _ in LakeReader(str(lake)).overview() if name != "runs"] == before
    code, record, _ = run(lake, "compute_indicators", "--full")
    assert code == 0 and record["rows_out"] == dict(before)["indicators"]
    killed = [row for row in LakeReader(str(lake)).rows("runs").to_pylist() if "killed" in (row["error"] or "")]
    assert [(row["job"], row["status"], dict(row["arguments"])["full"]) for row in killed] == [
        ("compute_indicators", "failed", "True")
    ]
    assert [(name, rows) for name, rows, _, _ in LakeReader(str(lake)).overview() if name != "runs"] == before


@pytest.mark.slow
def test_errors_come_as_one_json_line_with_the_remedy(tmp_path):
    code, record, errors = run(tmp_path / "lake", "scan_watchlists")
    assert code == 1 and record["status"] == "failed"
    assert "run jobs/compute_indicators.py first" in record["error"] and "Traceback" not in errors
    assert LakeReader(str(tmp_path / "lake")).rows("runs")["status"].to_pylist() == ["failed"]
    code, record, errors = run(tmp_path / "lake", "collect_prices", "--source", "ftp")
    assert code == 2 and "choose from" in record["error"] and "Traceback" not in errors
    code, record, _ = run(tmp_path / "none", "collect_prices", "--source", "files", SISE_COVERAGE_FLOOR="7")
    assert code == 1 and "SISE_COVERAGE_FLOOR=7" in record["error"]


@pytest.mark.slow
def test_a_wrong_rule_is_told_once(batch, tmp_path):
    """PySpark has a line of its own for it, which would stand on stdout before the job's."""
    rules = {"rules": [{"name": "odd", "when": "nosuch > 1"}]}
    shutil.copytree(HERE / "conf", tmp_path / "conf")
    (tmp_path / "conf" / "watchlists.json").write_text(json.dumps(rules))
    shutil.copytree(batch[0], tmp_path / "lake")
    code, record, errors = run(tmp_path / "lake", "scan_watchlists", SISE_CONF=str(tmp_path / "conf"))
    assert code == 1 and "rule odd" in record["error"] and "Traceback" not in errors


@pytest.mark.parametrize(("problem", "code"), [(UsageError, 2), (InputError, 1), (ConfigError, 1), (ValueError, 1)])
def test_only_wrong_arguments_end_with_2(problem, code, capsys):
    def work(job):
        raise problem("so")

    assert run_job(Parser(prog="some.py"), work, [], spark=False) == code
    assert json.loads(capsys.readouterr().out)["status"] == "failed"


def test_the_spark_ui_tells_what_ran(batch):
    """Event logs are in .local/spark-events, and their jobs speak of the domain."""
    _, records = batch
    # those of a cluster have another name than those of the jobs that other tests start meanwhile
    events = sorted((HERE / ".local" / "spark-events").glob("*app-*"), key=lambda p: p.stat().st_mtime)
    assert len(events) >= len(records)
    words = subprocess.run(
        [sys.executable, "-c", EVENTS, *map(str, events[-len(records) :])], capture_output=True, text=True, check=True
    ).stdout
    for what in (
        "indicators: compute and write every share's whole history",
        "prices: read and check bars from sample",
        "watchlists: apply the rules",
    ):
        assert what in words


EVENTS = """
import glob, io, os, sys
import pyarrow as pa
for path in sys.argv[1:]:
    for name in ([path] if os.path.isfile(path) else glob.glob(path + '/*')):
        data = open(name, 'rb').read()
        if name.rstrip('.inprogress').endswith('.zstd') or '.zst' in name:
            data = pa.input_stream(io.BytesIO(data), compression='zstd').read()
        for line in data.decode('utf-8', 'replace').splitlines():
            if 'spark.job.description' in line:
                print(line.split('spark.job.description\\":\\"')[1].split('\\"')[0])
"""


def sise(lake: Path, *arguments: str):
    return subprocess.run(
        [HERE / ".venv" / "bin" / "sise", *arguments], env=environment(lake), cwd=HERE, capture_output=True, text=True
    )


def test_the_command_line(batch, tmp_path):
    lake, _ = batch
    status = sise(lake, "status").stdout
    for word in ("prices", "indicators", "watchlist", "2025-12-30", "compute_indicators"):
        assert word in status
    shown = sise(lake, "show", "indicators", "NA", "--last", "3").stdout
    assert shown.count("2025-12-") == 3 and "rsi_14" in shown
    assert "000020" in sise(lake, "show", "watchlist", "top_market_cap").stdout
    for arguments, message in (
        (("show", "indicators", "XXXX"), "XXXX has no row in indicators"),
        (("show", "indicators", "NA", "--column", "rsi"), "no column rsi: there are"),
        (("show", "watchlist", "rsi"), "there are bollinger_lower_touch"),
    ):
        answer = sise(lake, *arguments)
        assert answer.returncode == 1 and message in re.sub(r"\s+", " ", answer.stderr)
    assert "run the jobs first" in sise(tmp_path / "none", "status").stderr
