"""Set-up: the jars are what the lock says, or nothing runs; a second run fetches nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HERE

spec = importlib.util.spec_from_file_location("bootstrap", HERE / "tools" / "bootstrap.py")
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)

JAR = "org.apache.commons:commons-pool2:2.13.1"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "LOCAL", tmp_path)
    monkeypatch.setattr(bootstrap, "JARS_LOCK", tmp_path / "jars.lock")
    return tmp_path


def lock(place, sha):
    (place / "jars.lock").write_text(f"# a comment\nspark {JAR} {sha}\n")


def true_hash():
    line = next(line for line in (HERE / "conf" / "jars.lock").read_text().splitlines() if JAR in line)
    return line.split()[-1]


def test_a_jar_comes_once_and_is_checked_every_time(place, monkeypatch):
    lock(place, true_hash())
    java = bootstrap.find_java()
    bootstrap.bring_jars(java)
    jar = place / "jars" / "spark" / "commons-pool2-2.13.1.jar"
    assert hashlib.sha256(jar.read_bytes()).hexdigest() == true_hash()

    def no_network(*_):
        raise AssertionError("a second run fetches nothing")

    monkeypatch.setattr(bootstrap, "_fetch", no_network)
    bootstrap.bring_jars(java)
    jar.write_bytes(jar.read_bytes() + b"!")
    with pytest.raises(bootstrap.Problem, match=r"is not the file that conf/jars\.lock names"):
        bootstrap.bring_jars(java)


def test_a_wrong_hash_in_the_lock_stops_with_both(place):
    lock(place, "0" * 64)
    with pytest.raises(bootstrap.Problem, match=rf"{JAR} is not the file.*{true_hash()}.*{'0' * 64}"):
        bootstrap.bring_jars(bootstrap.find_java())
    assert not list(place.glob("jars/spark/*"))


def test_a_line_that_is_no_jar_is_named(place):
    (place / "jars.lock").write_text("spark delta-spark 4.4.0\n")
    with pytest.raises(bootstrap.Problem, match=r"jars\.lock:1"):
        bootstrap.locked_jars()


def test_a_jar_that_left_the_lock_leaves_the_folder(place):
    lock(place, true_hash())
    old = place / "jars" / "spark" / "commons-pool2-2.12.0.jar"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    bootstrap.bring_jars(bootstrap.find_java())
    assert not old.exists()


def test_java_is_found_by_version(tmp_path, monkeypatch):
    for version in ("11.0.2", "17.0.9"):
        home = tmp_path / version
        (home / "bin").mkdir(parents=True)
        (home / "bin" / "java").write_text("")
        (home / "release").write_text(f'JAVA_VERSION="{version}"\n')
    assert [bootstrap.java_version(tmp_path / v) for v in ("11.0.2", "17.0.9", "none")] == [11, 17, 0]
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "17.0.9"))
    assert bootstrap.find_java() == tmp_path / "17.0.9"
    monkeypatch.setattr(bootstrap, "java_candidates", lambda: [tmp_path / "11.0.2"])
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "11.0.2"))
    assert bootstrap.find_java() is None


@pytest.mark.parametrize(
    "folder", [".jre/jdk-21.0.5+11-jre", ".jdk/jdk-21.0.5+11", ".jre/jdk-21.0.5+11-jre/Contents/Home"]
)
def test_java_is_found_where_install_jdk_puts_it(tmp_path, monkeypatch, folder):
    (tmp_path / folder / "bin").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / folder in bootstrap.java_candidates()


def test_java_goes_by_the_proxy_that_the_environment_names(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert bootstrap._proxies() == []
    monkeypatch.setenv("https_proxy", "http://gate:3128")
    monkeypatch.setenv("no_proxy", "localhost, .example.org")
    assert bootstrap._proxies() == [
        "-Dhttps.proxyHost=gate", "-Dhttps.proxyPort=3128", "-Dhttp.nonProxyHosts=localhost|*.example.org"
    ]  # fmt: skip


def test_a_venv_that_was_moved_is_made_anew(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "_create_venv", lambda: made.append("venv"))
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    monkeypatch.setattr(bootstrap, "_pip_install", lambda *_: 0)
    monkeypatch.setattr(bootstrap, "_uv_install", lambda *_: True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    for here, count in ((HERE, 1), (HERE, 1), (tmp_path, 2)):
        monkeypatch.setattr(bootstrap, "HERE", here)
        if here == tmp_path:
            (tmp_path / "setup.cfg").write_bytes((HERE / "setup.cfg").read_bytes())
        bootstrap.bring_venv()
        assert len(made) == count


def test_what_pip_cannot_install_is_told_and_is_a_failure(capfd):
    assert bootstrap._pip_install(Path(sys.executable), ["--no-index", "no-such-package==1"]) != 0
    assert "no-such-package" in capfd.readouterr().err


def test_uv_installs_what_the_lock_names_and_pip_where_it_cannot(tmp_path, monkeypatch, capsys):
    lock = bootstrap.LOCK.read_text()
    own = bootstrap.locked_package(lock, "uv")
    assert own.startswith("uv==") and "uvicorn" not in own
    python = bootstrap.VENV / "bin" / "python"
    assert bootstrap._uv_install(python, ["--require-hashes", "--dry-run", "-r", str(bootstrap.LOCK)])
    assert "Would make no changes" in capsys.readouterr().err
    (tmp_path / "lock").write_text("rich==14.0.0 --hash=sha256:" + "0" * 64 + "\n")
    assert not bootstrap._uv_install(python, ["--require-hashes", "--dry-run", "--no-index", "-r", f"{tmp_path}/lock"])
    assert "rich" in capsys.readouterr().err
    monkeypatch.setattr(bootstrap, "locked_package", lambda *_: "no-such-package==1 --hash=sha256:" + "0" * 64)
    assert not bootstrap._uv_install(python, []), "this machine's uv could not be brought"


def test_uv_takes_pip_s_settings_or_leaves_it_to_pip():
    listed = """:env:.find-links='/wheels /more'
global.cert='/etc/own.crt'
:env:.default-timeout='180'
"""
    assert bootstrap.uv_settings(listed) == {"UV_FIND_LINKS": "/wheels,/more", "SSL_CERT_FILE": "/etc/own.crt"}
    assert bootstrap.uv_settings("") == {}
    assert bootstrap.uv_settings(listed + "global.proxy='http://gate:3128'\n") is None


def test_nobody_compiles_what_was_installed_or_zipped(tmp_path):
    """Also where Python keeps nothing of what it compiles, as in most containers."""
    bootstrap.build_package(tmp_path / "sise.zip")
    asked = (
        "import sise.errors, pandas, pyspark, importlib.util as u; print(sise.errors.__file__, *(u.cache_from_source"
    )
    asked += "(m.__file__) for m in (pandas, pyspark)))"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "sise.zip"), "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=env)
    ours, *installed = answer.stdout.split()
    assert ours == f"{tmp_path}/sise.zip/sise/errors.pyc"
    assert len(installed) == 2 and all(Path(path).is_file() for path in installed)


def test_help_lists_every_job_with_a_line():
    answer = subprocess.run([HERE / "spark-submit.sh", "--help"], capture_output=True, text=True, check=True).stdout
    for job in (HERE / "jobs").glob("*.py"):
        line = next(line for line in answer.splitlines() if job.name in line)
        assert len(line.split(job.name)[1].strip()) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs/nothing.py"], "jobs/nothing.py does not exist"),
        (["--conf"], "--conf needs a value"),
        (["--name", "x"], "no job given"),
    ],
)
def test_wrong_calls_are_named(arguments, message):
    answer = subprocess.run(
        [HERE / "spark-submit.sh", *arguments], capture_output=True, text=True, cwd=HERE, env=os.environ
    )
    assert answer.returncode and message in answer.stderr


def test_a_job_s_settings_come_before_those_of_all_and_the_caller_s_before_both(tmp_path):
    job = tmp_path / "detect_signals.py"
    job.write_text(
        "from pyspark.sql import SparkSession\n"
        "conf = SparkSession.builder.getOrCreate().sparkContext.getConf()\n"
        "for name in ('master', 'driver.extraJavaOptions', 'sql.extensions', 'ui.port', 'driver.memory',"
        " 'app.x', 'app.y'):\n"
        "    print('spark.' + name, conf.get('spark.' + name))\n"
    )
    (tmp_path / "my.conf").write_text(
        "# mine\nspark.driver.memory=1100m\r\n\n spark.app.x   a b = c \nspark.ui.port 1\nalone\nspark.app.y: 7\n"
        "spark.master local[3]\n"
    )
    mine = ["--properties-file", tmp_path / "my.conf", "--conf", "spark.ui.port=4055"]
    command = [HERE / "spark-submit.sh", *mine, job]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "+UseG1GC" in answer and "+UseParallelGC" not in answer
    assert "spark.sql.extensions io.delta" in answer and "spark.ui.port 4055" in answer
    assert "spark.master local[3]\n" in answer, "the environment's is the last to be asked"
    assert "spark.driver.memory 1100m\n" in answer and "spark.app.x a b = c\nspark.app.y 7\n" in answer


def test_a_job_takes_its_classes_from_the_archive_that_setup_made(tmp_path):
    if not (HERE / ".local" / "build" / "classes.jsa").is_file():
        pytest.skip("this Java could not keep classes (the set-up says why)")
    job = tmp_path / "job.py"
    job.write_text("from pyspark.sql import SparkSession\nprint(SparkSession.builder.getOrCreate().range(9).count())\n")
    options = f"-XX:+UseG1GC -Xlog:class+load:file={tmp_path}/classes.txt"  # not the collector they were kept under
    command = [HERE / "spark-submit.sh", "--conf", f"spark.driver.extraJavaOptions={options}", job]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "9\n" and "INFO" not in answer.stderr
    loaded = (tmp_path / "classes.txt").read_text().splitlines()
    assert sum("shared objects file (top)" in line for line in loaded) > 0.5 * len(loaded)


def test_classes_are_kept_once_and_a_java_that_cannot_is_no_failure(place, monkeypatch, capsys):
    runs = []

    def fails(command, env, tell, at_most):
        runs.append(env)
        return subprocess.CompletedProcess(command, 1, "", "no archive in this Java")

    (place / "build").mkdir()
    monkeypatch.setattr(bootstrap, "run_telling", fails)
    monkeypatch.setenv("SISE_MASTER", "spark://elsewhere:7077")
    for _ in range(2):
        bootstrap.keep_classes(bootstrap.find_java())
    assert len(runs) == 1 and "no archive in this Java" in capsys.readouterr().err
    assert "SISE_MASTER" not in runs[0] and not (place / "build" / "classes.jsa").exists()


def test_a_command_that_runs_on_is_told_of_and_ended_after_its_time(monkeypatch):
    told, wait = [], subprocess.Popen.communicate
    monkeypatch.setattr(subprocess.Popen, "communicate", lambda self, timeout: wait(self, timeout=timeout / 50))
    script = "import sys, time; print('out'); sys.stdout.flush(); time.sleep(1); print('more'); sys.exit('bad')"
    done = bootstrap.run_telling([sys.executable, "-c", script], os.environ, told.append)
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\nmore\n", "bad\n") and told
    with pytest.raises(subprocess.TimeoutExpired):
        bootstrap.run_telling([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, told.append, 0.5)


def test_a_redis_that_no_package_brings_is_installed_or_its_lack_is_said(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.delenv("SISE_REDIS_URL", raising=False)
    monkeypatch.setattr(bootstrap, "apt", lambda why, *packages: asked.append(packages))
    assert bootstrap._without_redis() == "" and bootstrap.bring_redis() is None and asked == []
    monkeypatch.setenv("PATH", str(tmp_path))  # no redis-server there, and none in a wheel
    hidden = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    monkeypatch.setattr(bootstrap, "_FIND_REDIS", hidden + bootstrap._FIND_REDIS)
    bootstrap.bring_redis()
    told = "".join(capsys.readouterr())
    assert asked == [("redis-server",)] and "SISE_REDIS_URL" in told and "batch jobs do not" in told
