"""The edge to vendors: every way in which a server can fail, against a real one."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from sise.errors import ConfigError, SiseError
from sise.redact import hide, redact
from sise.sources.circuit import Circuit
from sise.sources.http import Edge, Limiter, RequestsSession, json_of, rewritten
from sise.sources.outcome import Blocked, ClockWrong, Failed, Spent
from sise.sources.secrets import secret, write_secret_file
from sise.sources.settings import SourceSettings
from tests.vendors.server import Reply, VendorServer, first


class Plain(VendorServer):
    def answer(self, asked):
        return Reply(json.dumps({"ok": True}))


@pytest.fixture
def server():
    with Plain() as made:
        yield made


@pytest.fixture
def settings(tmp_path):
    return SourceSettings(
        local=tmp_path, backoff_seconds=0.02, backoff_cap_seconds=0.05, http_timeout=20, http_attempts=4
    )


def impatient(settings):
    """Where it is the test that nothing comes; else a machine that does ten other things would be such a vendor."""
    return replace(settings, http_timeout=0.5)


def session_of(settings, rate=1000.0, **options):
    edge = Edge("vendor", settings, rate, timedelta(hours=24), **options)
    return RequestsSession(edge, {"https://vendor.example": ""}, lambda response: json_of(response, "vendor") and None)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply("{}", 500), "HTTP 500"),
        (Reply("{}", 503), "HTTP 503"),
        (Reply('{"ok": true}', cut=4), "connection broke"),
        (Reply('{"ok": tr'), "breaks off"),
        (Reply("<html>maintenance</html>"), "HTML"),
        (Reply(""), "empty body"),
        (Reply("{}", silent=1.5), "no answer in time"),
    ],
)
def test_what_passes_is_tried_again_and_what_stays_is_a_failure(server, settings, reply, said):
    settings = impatient(settings) if reply.silent else settings
    server.fault = first(2, reply)
    assert session_of(settings).get(server.url).json() == {"ok": True}
    assert len(server.asked) == 3
    server.fault = first(99, reply)
    with pytest.raises(Failed, match=f"{said}.*tried 4 times"):
        session_of(settings).get(server.url)
    assert len(server.asked) == 3 + 4


def test_a_socket_that_accepts_and_says_nothing(settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(Failed, match="no answer in time"):
            session_of(impatient(settings)).get(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert 4 * 0.5 < time.monotonic() - started < 60


def test_a_body_that_drips_is_silence_too(settings):
    def drip(listener):
        for _ in range(4):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(40):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        break
                    time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        started = time.monotonic()
        with pytest.raises(Failed):
            session_of(impatient(settings)).get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        assert time.monotonic() - started < 60


def test_retry_after_is_heeded_by_every_thread(server, settings, monkeypatch):
    server.fault = first(1, Reply("{}", 429, {"Retry-After": "1"}))
    session, told = session_of(settings), threading.Event()
    limiter = session.edge.limiter
    monkeypatch.setattr(limiter, "pause", lambda seconds, pause=limiter.pause: (pause(seconds), told.set()))
    other = threading.Thread(target=lambda: (told.wait(60), session.get(server.url)))
    other.start()
    session.get(server.url)
    other.join()
    times = [asked.at for asked in server.asked]
    assert len(times) == 3 and times[1] - times[0] >= 0.95
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    server.fault = first(1, Reply("{}", 503, {"Retry-After": when}))
    session.get(server.url)
    assert 3 < server.asked[-1].at - server.asked[-2].at < 60


def test_a_limit_that_stays_is_a_block_that_other_processes_see(server, settings):
    server.fault = first(99, Reply("{}", 429))
    with pytest.raises(Blocked, match="nothing is asked before"):
        session_of(settings).get(server.url)
    assert len(server.asked) == 4
    with pytest.raises(Blocked, match="429"):  # another session, as another process would make it
        session_of(settings).get(server.url)
    assert len(server.asked) == 4


def test_a_long_retry_after_opens_the_circuit_at_once(server, settings):
    server.fault = first(99, Reply("{}", 429, {"Retry-After": "7200"}))
    with pytest.raises(Blocked):
        session_of(settings).get(server.url)
    assert len(server.asked) == 1
    told = json.loads((settings.state / "circuits" / "vendor.json").read_text())
    left = datetime.fromisoformat(told["until"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)


def test_a_block_lasts_its_period_and_is_never_shortened(tmp_path):
    now = [datetime(2025, 3, 31, tzinfo=UTC)]
    circuit = Circuit("krx", tmp_path / "krx.json", timedelta(hours=24), lambda: now[0])
    circuit.check()
    circuit.open("refused")
    circuit.open("again", timedelta(minutes=1))
    now[0] += timedelta(hours=23, minutes=59)
    with pytest.raises(Blocked, match="2025-04-01 00:00"):
        circuit.check()
    now[0] += timedelta(minutes=2)
    circuit.check()
    (tmp_path / "krx.json").write_text("{")
    with pytest.raises(SiseError, match="remove it"):
        circuit.check()


def test_threads_that_meet_a_block_at_once_keep_the_longest(tmp_path):
    circuit = Circuit("krx", tmp_path / "krx.json", timedelta(hours=24))
    circuit.open("first", timedelta(hours=1))
    start, problems, over = threading.Barrier(12), [], threading.Event()

    def look():
        start.wait()
        while not over.is_set():
            with pytest.raises(Blocked):
                circuit.check()

    def meet(n):
        start.wait()
        for turn in range(20):
            circuit.open(f"{n}", timedelta(hours=20 - n, minutes=-turn))

    def noted(work, *given):
        try:
            work(*given)
        except BaseException as problem:  # pytest's Failed is one
            problems.append(problem)

    readers = [threading.Thread(target=noted, args=(look,)) for _ in range(2)]
    writers = [threading.Thread(target=noted, args=(meet, n)) for n in range(10)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert not problems
    told = json.loads((tmp_path / "krx.json").read_text())
    left = datetime.fromisoformat(told["until"]) - datetime.now(UTC)
    assert left > timedelta(hours=19.9) and sorted(p.name for p in tmp_path.iterdir()) == ["krx.json", "krx.lock"]


def test_threads_share_one_rate(server, settings):
    session = session_of(settings, rate=50.0)
    threads = [threading.Thread(target=lambda: [session.get(server.url) for _ in range(5)]) for _ in range(6)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 30 and time.monotonic() - started >= 29 / 50 * 0.98


def test_waits_grow_and_have_a_cap(settings):
    waits: list[float] = []
    edge = Edge(
        "vendor", SourceSettings(local=settings.local, backoff_seconds=1, backoff_cap_seconds=8, http_attempts=9), 1e6
    )
    edge.limiter = Limiter(1e6, sleep=waits.append)

    def refuse(timeout):
        raise OSError("refused")

    with pytest.raises(Failed, match="9 times"):
        edge.send(refuse)
    waits = [w for w in waits if w > 1e-3]
    assert max(waits) <= 8 and len(set(waits)) == len(waits)  # random, capped


def test_a_wrong_clock_ends_the_run(server, settings):
    yesterday = format_datetime(datetime.now(UTC) - timedelta(hours=20), usegmt=True)
    server.fault = first(9, Reply("{}", headers={"Date": yesterday}))
    with pytest.raises(ClockWrong, match="ahead of vendor's"):
        session_of(settings).get(server.url)
    assert len(server.asked) == 1


def test_a_budget_ends_before_the_request(server, settings):
    left = [2]

    def spend():
        if left[0] == 0:
            raise Spent("used up")
        left[0] -= 1

    session = session_of(settings, spend=spend)
    session.get(server.url)
    session.get(server.url)
    with pytest.raises(Spent):
        session.get(server.url)
    assert len(server.asked) == 2


def test_only_the_known_host_is_replaced():
    bases = {"https://data.krx.co.kr": "http://127.0.0.1:1"}
    assert rewritten("https://data.krx.co.kr/a?b", bases) == "http://127.0.0.1:1/a?b"
    assert rewritten("https://data.krx.co.kr.evil.example/a", bases) == "https://data.krx.co.kr.evil.example/a"


def test_secrets_come_from_the_environment_or_a_closed_file_and_are_never_shown(tmp_path, monkeypatch):
    path = tmp_path / "secrets.env"
    settings = SourceSettings(local=tmp_path, secrets_file=path)
    monkeypatch.delenv("KRX_PW", raising=False)
    with pytest.raises(ConfigError, match=r"KRX_PW is not set: why; export KRX_PW.*chmod 600"):
        secret(settings, "KRX_PW", "why", "otherwise")
    write_secret_file(path, "# mine\nKRX_PW = 'p&ss word1'\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret(settings, "KRX_PW", "why", "otherwise") == "p&ss word1"
    assert redact("pw=p&ss word1 pw=p%26ss%20word1") == "pw=*** pw=***"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"0640.*chmod 600") as caught:
        secret(settings, "KRX_PW", "why", "otherwise")
    assert "p&ss" not in str(caught.value)
    monkeypatch.setenv("KRX_PW", "from-env")
    assert secret(settings, "KRX_PW", "why", "otherwise") == "from-env"
    assert "p&ss" not in repr(settings)


def test_a_failure_does_not_tell_a_secret(server, settings):
    hide("very-secret-key")
    server.fault = first(99, Reply("{}", 500))
    with pytest.raises(Failed) as caught:
        session_of(settings).get(f"{server.url}/?appkey=very-secret-key")
    assert "very-secret-key" not in str(caught.value)
