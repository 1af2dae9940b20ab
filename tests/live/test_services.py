"""Kafka, Redis and PostgreSQL for real: started, found again, killed, restarted, and never somebody else's."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from sise.dashboard.data.system import Streams
from sise.errors import ServiceError, SiseError
from sise.ops.services import NAMES, start, status, stop
from sise.ops.services.kafka import cluster_id
from sise.ops.services.process import Record, birth
from sise.serving.kafka import TOPICS, ensure_topics, read_all
from sise.serving.sender import Sender
from sise.settings import Settings
from sise.topics import DEAD, TICKS
from tests.conftest import HERE
from tests.live.conftest import settings_in

VARIABLES = {
    "SISE_LOCAL": "local",
    "SISE_CONF": "conf",
    "SISE_KAFKA_PORT": "kafka_port",
    "SISE_KAFKA_CONTROLLER_PORT": "kafka_controller_port",
    "SISE_REDIS_PORT": "redis_port",
    "SISE_POSTGRES_PORT": "postgres_port",
}


def sise(settings: Settings, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command as a person calls it, in an environment that has these settings."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SISE_")}
    env |= {variable: str(getattr(settings, name)) for variable, name in VARIABLES.items()}
    env |= {"PYTHONPATH": str(HERE / "lib"), **more}
    command = [sys.executable, "-m", "sise.cli", "services", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=HERE)


def pid_file(settings: Settings, name: str) -> Path:
    return settings.local / "services" / name / f"{name}.pid"


def pids(settings: Settings) -> dict[str, int | None]:
    return {service.name: service.pid for service in status(settings)}


def query(settings: Settings, statement: str) -> list[tuple]:
    opened = psycopg2.connect(settings.postgres, connect_timeout=10)
    with closing(opened) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def read(settings: Settings, topic: str, count: int) -> list:
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=20_000,
    )
    with closing(consumer):
        consumer.assign([TopicPartition(topic, 0)])
        return [record for _, record in zip(range(count), consumer, strict=False)]


def write(settings: Settings, topic: str, value: bytes, timestamp: int | None = None) -> None:
    with closing(KafkaProducer(bootstrap_servers=settings.kafka)) as producer:
        producer.send(topic, value, timestamp_ms=timestamp).get(20)


# The set that runs ------------------------------------------------------------------------------------------------


def test_all_are_healthy_and_a_second_start_says_so(services):
    before = status(services)
    assert [s.name for s in before] == list(NAMES)
    assert all(s.running and s.healthy and s.pid and s.version and not s.external for s in before)
    major = {s.name: int(s.version.split(".")[0]) for s in before}
    assert major["kafka"] == 4 and major["redis"] >= 6 and major["postgres"] == 18
    again = start(services)
    assert [s.pid for s in again] == [s.pid for s in before]
    assert {s.detail for s in again} == {"runs already"}


def test_the_command_line_shows_them_and_no_password(services):
    for command in ("up", "status"):
        answer = sise(services, command)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.count("healthy") == 3
        for pid in pids(services).values():
            assert str(pid) in answer.stdout
        assert services.postgres_password_file.read_text().strip() not in answer.stdout + answer.stderr


def test_they_listen_on_this_machine_only(services):
    for name, pid in pids(services).items():
        process = psutil.Process(pid)
        sockets = [c for p in (process, *process.children(recursive=True)) for c in p.net_connections("inet")]
        listening = {(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in sockets if c.status == "LISTEN"}
        wanted = {
            "kafka": {services.kafka_port, services.kafka_controller_port},
            "redis": {services.redis_port},
            "postgres": {services.postgres_port},
        }[name]
        assert listening == {("127.0.0.1", port) for port in wanted}


def test_all_state_is_under_local_and_servers_see_none_of_our_variables(services):
    for name, pid in pids(services).items():
        folder = services.local / "services" / name
        assert any((folder / "data").iterdir()) and (folder / f"{name}.log").is_file()
        assert os.getsid(pid) == pid  # a session of its own: Ctrl-C in our terminal is not for it
        assert not [key for key in psutil.Process(pid).environ() if key.startswith(("SISE_", "KRX_"))]
    assert stat.S_IMODE(services.postgres_password_file.stat().st_mode) == 0o600


def test_the_broker_behaves_as_the_stream_needs(services):
    with closing(KafkaAdminClient(bootstrap_servers=services.kafka)) as admin:
        admin.create_topics([NewTopic("behaviour", 1, 1)])
    write(services, "behaviour", b"then", timestamp=1_000)
    (record,) = read(services, "behaviour", 1)
    assert record.timestamp_type == 1 and record.timestamp > 1_600_000_000_000, "the time is the broker's"
    producer = KafkaProducer(bootstrap_servers=services.kafka, max_block_ms=1_500)
    with closing(producer), pytest.raises(Exception, match=r"(?i)metadata|unknown"):
        producer.send("no-such-topic", b"x").get(5)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_the_broker_has_the_libraries_of_every_compression(services, codec):
    """A topic's own codec makes the broker compress what came uncompressed."""
    with closing(KafkaAdminClient(bootstrap_servers=services.kafka)) as admin:
        admin.create_topics([NewTopic(codec, 1, 1, topic_configs={"compression.type": codec})])
    write(services, codec, b"tick" * 1_000)


def test_redis_has_streams_and_scripts(services):
    with closing(redis.Redis.from_url(services.redis)) as client:
        first = client.xadd("stream", {"a": 1})
        assert client.eval("return redis.call('XLEN', KEYS[1])", 1, "stream") == 1
        assert client.xtrim("stream", minid=first) == 0
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_the_role_owns_its_database_and_nothing_else(services):
    assert query(services, "SELECT current_user, current_database(), current_setting('timezone')") == [
        ("sise", "sise", "UTC")
    ]
    assert query(services, "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user") == [(False,)]
    assert query(services, "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'sise'") == [
        ("UTF8",)
    ]
    query(services, "CREATE TABLE mine (a int)")
    for url in (
        services.postgres.replace("sise:", "postgres:", 1),
        f"postgresql://sise:x@{services.postgres.split('@')[1]}",
    ):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(url, connect_timeout=5)


def test_a_cluster_id_is_never_taken_for_an_option():
    ids = {cluster_id() for _ in range(2_000)}
    assert len(ids) == 2_000 and {len(text) for text in ids} == {22} and not [i for i in ids if i[0] == "-"]


# Named in the environment -----------------------------------------------------------------------------------------


def test_what_the_environment_names_is_used_and_never_touched(services, alone):
    own = replace(alone, kafka_servers=services.kafka, redis_url=services.redis, postgres_url=services.postgres)
    before = pids(services)
    for found in (start(own), status(own)):
        assert all(s.external and s.healthy and s.pid is None for s in found)
    assert all(s.external and "left alone" in s.detail for s in stop(own))
    named = {"SISE_KAFKA": own.kafka, "SISE_REDIS_URL": own.redis, "SISE_POSTGRES_URL": own.postgres}
    for command in ("up", "status", "down"):
        answer = sise(alone, command, **named)
        assert answer.returncode == 0 and "SISE_POSTGRES_URL" in answer.stdout
        assert services.postgres_password_file.read_text().strip() not in answer.stdout + answer.stderr
    assert pids(services) == before and all(s.healthy for s in status(services))
    assert not list((alone.local / "services").glob("*/*"))


def test_a_named_one_that_does_not_answer_is_said_and_not_replaced(alone):
    own = replace(alone, redis_url=f"redis://:hush@127.0.0.1:{alone.redis_port}/0")
    (found,) = start(own, ["redis"])
    assert found.external and not found.running and not found.healthy and "refused" in found.detail
    answer = sise(alone, "status", SISE_REDIS_URL=own.redis)
    assert answer.returncode == 1 and "no answer" in answer.stdout and "hush" not in answer.stdout


# Pids and ports ---------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_named_with_its_setting_and_nothing_starts(alone):
    with socket.socket() as other:
        other.bind(("127.0.0.1", alone.postgres_port))
        other.listen()
        with pytest.raises(ServiceError) as caught:
            start(alone)
        message = str(caught.value)
        assert f"127.0.0.1:{alone.postgres_port}" in message and "SISE_POSTGRES_PORT" in message
        assert f"pid {os.getpid()}" in message
        assert pids(alone) == dict.fromkeys(NAMES)
        (found,) = [s for s in status(alone) if s.name == "postgres"]
        assert not found.running and f"port {alone.postgres_port} is used by pid {os.getpid()}" in found.detail
        answer = sise(alone, "up")
        assert answer.returncode == 1 and "SISE_POSTGRES_PORT" in answer.stderr


def test_another_checkouts_redis_is_not_ours(services, alone):
    with pytest.raises(ServiceError, match=f"{services.redis_port}.*redis-server.*SISE_REDIS_PORT"):
        start(replace(alone, redis_port=services.redis_port), ["redis"])
    stop(replace(alone, redis_port=services.redis_port))
    assert all(s.healthy for s in status(services))


def test_a_copy_of_the_folder_does_not_own_the_original_s_servers(alone):
    start(alone, ["redis"])
    copy = replace(alone, local=alone.local.parent / "copy")
    shutil.copytree(alone.local, copy.local)
    assert stop(copy, ["redis"])[0].detail == "was not running"
    with pytest.raises(ServiceError, match="redis-server"):
        start(copy, ["redis"])
    assert next(s for s in status(alone) if s.name == "redis").healthy
    moved = replace(alone, local=alone.local.parent / "moved")
    alone.local.rename(moved.local)
    assert "stopped" in stop(moved, ["redis"])[0].detail, "it is the same one, elsewhere"


def test_a_full_disk_leaves_no_server_that_nobody_knows(alone, monkeypatch):
    started = []

    def full(record, path):
        started.append(record)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Record, "write", full)
    with pytest.raises(ServiceError, match=r"No space left.*SISE_LOCAL"):
        start(alone, ["redis"])
    assert len(started) == 1 and not started[0].alive()


def test_a_pid_that_somebody_else_has_by_now_is_never_killed(alone):
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        born = birth(stranger.pid)
        assert born and Record(stranger.pid, born, {}).alive()
        file = pid_file(alone, "redis")
        file.parent.mkdir(parents=True)
        ports = {"SISE_REDIS_PORT": alone.redis_port}
        Record(stranger.pid, born + "0", ports).write(file)
        assert pids(alone)["redis"] is None and not file.exists()
        Record(stranger.pid, born + "0", ports).write(file)
        assert stop(alone, ["redis"])[0].detail == "was not running"
        Record(stranger.pid, born + "0", ports).write(file)
        (found,) = start(alone, ["redis"])
        assert found.healthy and found.pid != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


@pytest.mark.parametrize("content", ["", "4711", '{"pid": 4711}', "gone"])
def test_a_stale_or_broken_pid_file_is_cleaned_up(alone, content):
    if content == "gone":
        child = subprocess.Popen([sys.executable, "-c", ""])
        content = json.dumps({"pid": child.pid, "born": birth(child.pid) or "x", "ports": {}})
        child.wait()
    file = pid_file(alone, "redis")
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert pids(alone)["redis"] is None
    assert not file.exists()


def test_two_starts_at_once_start_one(alone):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: start(alone, ["redis"])[0], range(2))
    assert first.pid == second.pid and {first.detail, second.detail} > {"runs already"}


def test_a_killed_one_is_started_again_at_once(alone):
    (killed,) = start(alone, ["redis"])
    os.kill(killed.pid, signal.SIGKILL)
    (found,) = start(alone, ["redis"])
    assert found.healthy and found.pid != killed.pid and found.detail.startswith("started")


def test_one_that_hangs_is_said_and_can_be_stopped(alone, monkeypatch):
    (found,) = start(alone, ["redis"])
    monkeypatch.setattr("sise.ops.services.redis.Redis.patience", 0.5)
    monkeypatch.setattr("sise.ops.services.redis.Redis.farewell", ((signal.SIGTERM, 0.5), (signal.SIGKILL, 10)))
    os.kill(found.pid, signal.SIGSTOP)
    with pytest.raises(ServiceError, match=rf"Redis runs as pid {found.pid} and does not answer"):
        start(alone, ["redis"])
    assert birth(found.pid), "what another call started is not stopped by one that fails"
    assert stop(alone, ["redis"])[0].detail.startswith("stopped")
    assert birth(found.pid) is None


def test_a_port_that_moved_under_a_running_server_is_said(alone):
    (found,) = start(alone, ["redis"])
    moved = replace(alone, redis_port=settings_in(alone.local).redis_port)
    with pytest.raises(ServiceError, match=rf"pid {found.pid} on port {alone.redis_port}, and SISE_REDIS_PORT says"):
        start(moved, ["redis"])
    assert not status(moved)[1].healthy
    assert stop(moved, ["redis"])[0].detail.startswith("stopped")


def test_an_unknown_name_is_refused(alone):
    with pytest.raises(ServiceError, match="no service kafak: there are kafka, redis, postgres"):
        start(alone, ["kafak"])


# Coming up and going down -----------------------------------------------------------------------------------------


def test_one_that_fails_shows_its_log_and_takes_the_others_down(alone):
    data = alone.local / "services" / "redis" / "data"
    data.mkdir(parents=True)
    (data / "appendonly.aof").write_text("not what Redis writes")
    (data / "appendonlydir").write_text("no folder")  # where Redis 7 looks
    with pytest.raises(ServiceError) as caught:
        start(alone, ["redis", "postgres"])
    message = str(caught.value)
    assert "Redis ended at once" in message and str(data.parent / "redis.log") in message
    assert "append" in message.split("redis.log", 1)[1].lower()
    assert pids(alone) == dict.fromkeys(NAMES)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(alone.local) in " ".join(p.info["cmdline"] or ())]


def test_state_survives_a_kill_and_a_stop(alone):
    first = {s.name: s.pid for s in start(alone)}
    with closing(KafkaAdminClient(bootstrap_servers=alone.kafka)) as admin:
        admin.create_topics([NewTopic("kept", 1, 1)])
    write(alone, "kept", b"record")
    with closing(redis.Redis.from_url(alone.redis)) as client:
        client.set("kept", "key")
    query(alone, "CREATE TABLE kept (a text)")
    query(alone, "INSERT INTO kept VALUES ('row')")

    records = [Record.read(pid_file(alone, name)) for name in NAMES]
    assert [record.pid for record in records] == list(first.values())
    assert all(record.end([(signal.SIGKILL, 10)]) for record in records)
    lock = alone.local / "services" / "postgres" / "data" / "postmaster.pid"
    lines = lock.read_text().split("\n")
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]))  # after a reboot its pid is somebody else's
    assert pids(alone) == dict.fromkeys(NAMES)
    second = {s.name: s.pid for s in start(alone)}
    assert not set(first.values()) & set(second.values())
    check_kept(alone)

    assert sise(alone, "down").returncode == 0
    assert not any(psutil.pid_exists(pid) for pid in second.values() if birth(pid))
    assert "Traceback" not in sise(alone, "status").stderr
    alone.postgres_password_file.unlink()  # lost: the role gets a new one
    start(alone)
    check_kept(alone)
    assert [s.detail.split()[0] for s in stop(alone)] == ["stopped"] * 3
    assert {s.detail for s in stop(alone)} == {"was not running"}


def check_kept(settings: Settings) -> None:
    assert [record.value for record in read(settings, "kept", 1)] == [b"record"]
    with closing(redis.Redis.from_url(settings.redis)) as client:
        assert client.get("kept") == b"key"
    assert query(settings, "SELECT a FROM kept") == [("row",)]


def test_postgres_stops_under_its_clients_feet(alone):
    start(alone, ["postgres"])
    with closing(psycopg2.connect(alone.postgres)):
        (ended,) = stop(alone, ["postgres"])
    assert ended.detail.startswith("stopped")
    assert "fast shutdown request" in (alone.local / "services" / "postgres" / "postgres.log").read_text()


def test_postgres_runs_where_only_we_may_enter(alone):
    """A project in /root: another account cannot reach it, and no permission outside .local is changed for it."""
    closed = alone.local / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0o700)
    own = replace(alone, local=closed / "local")
    namespaces = shutil.which("unshare") and not subprocess.run(["unshare", "--user", "true"]).returncode
    if os.geteuid() == 0 and not namespaces:
        with pytest.raises(ServiceError, match="ordinary user"):
            start(own, ["postgres"])
        return
    try:
        for _ in range(2):
            start(own, ["postgres"])
            assert query(own, "SELECT 1") == [(1,)]
            stop(own, ["postgres"])
    finally:
        stop(own)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_kafka_is_looked_at_and_one_that_hangs_is_not_waited_for(alone):
    (kafka,) = start(alone, ["kafka"])
    streams = Streams(alone)
    assert streams.look().empty, "no topic yet"
    ensure_topics(alone)
    sender = Sender(alone)
    sender.send(TICKS.name, [(b"KR:A", b'{"n": 1}')] * 5)
    sender.close()
    found = streams.look().set_index("kind")
    assert list(found.index) == [topic.name for topic in TOPICS] and found.loc[TICKS.name, "records"] == 5
    assert read_all(alone, TICKS) == [{"n": 1}] * 5 and read_all(alone, DEAD) == []
    os.kill(kafka.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SiseError, match="Kafka does not answer"):
            streams.look()
    finally:
        os.kill(kafka.pid, signal.SIGCONT)
