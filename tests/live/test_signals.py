"""Ticks through real Kafka and Redis: exactly what must fire fires, once, whatever dies on the way."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
import redis
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.abstract import ConsumerProtocolAssignment
from kafka.coordinator.assignors.range import RangePartitionAssignor

from sise.errors import SiseError
from sise.indicators.compute import compute_indicators
from sise.lake import Lake
from sise.ops.services import start, stop
from sise.reader import LakeReader
from sise.serving import relay as relay_module
from sise.serving.archive import archive_signals
from sise.serving.ended import Outage
from sise.serving.feeds import eligible_rows, produce
from sise.serving.kafka import check_slots, ensure_topics, epoch_of_ticks, read_all
from sise.serving.prices import LatestPrices
from sise.serving.relay import relay
from sise.serving.sender import Sender
from sise.serving.signals import SignalStore, connect
from sise.settings import Settings
from sise.signals.curves import load_curves
from sise.signals.explain import explain
from sise.signals.labelled import TestFeed, rules_at
from sise.signals.rules import LiveRules
from sise.topics import DEAD, RULES, SIGNALS, TICKS, key_of, topic_of
from tests.builders import walk
from tests.conftest import CONF, HERE
from tests.spark.test_compute import load, prices

SHARES = [f"A{n:02}" for n in range(60)]


@pytest.fixture(scope="module")
def lake_root(spark, registry, calendars, roomy) -> str:
    days = calendars["KR"].between(date(2023, 1, 2), date(2024, 12, 30))[:262]
    root = roomy / "signals-lake"
    lake = Lake(spark, str(root), registry.extra_columns)
    rows = [r for n, s in enumerate(SHARES) for r in walk(s, days, prices(n, 262), volume=1000.0 + n)]
    rights = {"country": "KR", "symbol": SHARES[-1], "ex_date": calendars["KR"].next(days[-1]), "kind": "rights"}
    load(lake, rows, [rights | {"factor": None, "confirmed": True}])  # no rule fires on that share
    compute_indicators(spark, lake, registry, calendars)
    return str(root)


@pytest.fixture
def live(services: Settings, lake_root, roomy, tmp_path) -> Settings:
    """The shared services with topics, keys, conf and checkpoints of one test's own."""
    name = f"t{time.time_ns()}"
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    settings = dataclasses.replace(
        services, lake=lake_root, conf=conf, topic_prefix=f"{name}-", redis_prefix=f"{name}:", partitions=2
    )
    ensure_topics(settings)
    return settings


def environment(settings: Settings, checkpoints: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SISE_LAKE": settings.lake,
        "SISE_CONF": str(settings.conf),
        "SISE_KAFKA": settings.kafka,
        "SISE_REDIS_URL": settings.redis,
        "SISE_TOPIC_PREFIX": settings.topic_prefix,
        "SISE_REDIS_PREFIX": settings.redis_prefix,
        "SISE_LOCAL": str(checkpoints),
        "SISE_MASTER": "local[4]",
    }


class Job:
    """A job in a process group of its own, killed at the end if it still lives."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path):
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=HERE, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_for(self, words: str, seconds: float = 240) -> None:
        until(lambda: words in self.log.read_text(errors="replace") or self.process.poll() is not None, seconds)
        assert words in self.log.read_text(errors="replace"), self.log.read_text(errors="replace")[-3000:]

    def stop(self, whole: bool) -> dict:
        """As a person stops it, who signals what they started, or a service manager, which signals the ``whole`` group;
        the job's record."""
        (os.killpg if whole else os.kill)(self.process.pid, signal.SIGTERM)
        code, said = self.process.wait(120), self.log.read_text(errors="replace")
        assert code == 0, said[-3000:]
        return json.loads(said.splitlines()[-1])

    def kill(self) -> None:
        """As a power cut: every process of the job at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture
def run_job(tmp_path) -> Iterator[Callable[..., Job]]:
    jobs = []

    def run(settings: Settings, *command: str) -> Job:
        log = tmp_path / f"job-{len(jobs)}.log"
        jobs.append(Job(list(command), environment(settings, tmp_path), log))
        return jobs[-1]

    yield run
    for job in jobs:
        job.kill()
        print(job.log.name, job.log.read_text(errors="replace")[-1500:])  # shown where the test has failed


def detect(trigger: str, *more: str) -> list[str]:
    return ["./spark-submit.sh", "jobs/detect_signals.py", "--trigger", trigger, *more]


RELAY = [".venv/bin/python", "jobs/relay_signals.py"]


def until(done: Callable[[], bool], seconds: float = 300) -> bool:
    """Whether ``done`` came true in time. The bound is for a machine that does ten other things."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.2)
    return done()


def labelled(
    settings: Settings, registry, count: int, seed: int, sent: list[dict] | None = None
) -> set[tuple[str, str]]:
    """Sends labelled ticks; what must fire: (symbol, rule). ``sent`` gets the ticks."""
    rules = LiveRules.load(settings.conf_file("watchlists.json"), registry)
    states = eligible_rows(LakeReader(settings.lake))
    half = [s for n, s in enumerate(states) if n % 3 == seed % 3]  # each call has shares of its own
    feed = TestFeed(
        registry, rules, load_curves(settings.conf_file("volume_curves.json")), half, 0.02, 0.6, count, seed
    )
    sent = [] if sent is None else sent
    ticks = feed.ticks

    class Recording:
        name = "test"

        def ticks(self):
            for tick in ticks():
                sent.append(tick)
                yield tick

    produce(Recording(), settings, lambda: False, rate=50.0)
    return {(t["symbol"], rule) for t in sent for rule in t.get("label", "").split(",") if rule}


def back_to_the_close(settings: Settings, registry, sent: list[dict]) -> int:
    """After the labelled ticks, one at the last close for each share of which no rule holds there; how many."""
    rules = LiveRules.load(settings.conf_file("watchlists.json"), registry)
    curves = load_curves(settings.conf_file("volume_curves.json"))
    newest, sender = {tick["symbol"]: tick for tick in sent}, Sender(settings)
    before = len(sent)
    for state in eligible_rows(LakeReader(settings.lake)):
        if tick := newest.get(state["symbol"]):
            price, when = round(state["close"], 2), tick["timestamp"] + 1000
            if not rules_at(registry, rules, curves, state, price, tick["day_volume"], when):
                same = {name: value for name, value in tick.items() if name != "label"}
                sent.append(same | {"price": price, "timestamp": when, "clock": tick["clock"] + 1000})
    sender.send(topic_of(TICKS, settings.topic_prefix), [(key_of(t), json.dumps(t).encode()) for t in sent[before:]])
    sender.close()
    return len(sent) - before


def followed_wrong(settings: Settings, rules: LiveRules, sent: list[dict]) -> dict[str, tuple]:
    """The signals whose running figures are not what a plain loop finds over the ticks that were sent."""
    wrong = {}
    for row in SignalStore(connect(settings), settings, "").active():
        since = [t["price"] for t in sent if t["symbol"] == row["symbol"] and t["timestamp"] >= int(row["timestamp"])]
        sign = -1 if rules.by_name[row["signal_type"]].direction == "short" else 1
        changes = [sign * (price / float(row["trigger_price"]) - 1) for price in since]
        if changes:
            want = (since[-1], changes[-1], max(0, *changes), min(0, *changes))
            got = tuple(float(row[name]) for name in ("last_price", "pnl", "best", "worst"))
            if got != pytest.approx(want, abs=1e-12):
                wrong[row["id"]] = (got, want)
    return wrong


def fired(settings: Settings) -> list[tuple[str, str]]:
    client = connect(settings)
    rows = client.xrange(f"{settings.redis_prefix}signals")
    found = [json.loads(row[b"signal"]) for _, row in rows]
    return [(s["symbol"], s["signal_type"]) for s in found]


def next_session(settings: Settings, spark, registry, calendars) -> str:
    """Every share gets a bar for the session of live_state, which moves on to the one after it: that is given."""
    lake = Lake(spark, settings.lake, registry.extra_columns)
    day = lake.read("live_state").first()["valid_session"]
    rows = [r for n, s in enumerate(SHARES) for r in walk(s, [day], [prices(n, 262)[-1]], volume=1000.0)]
    load(lake, rows)
    compute_indicators(spark, lake, registry, calendars)
    return str(LakeReader(settings.lake).rows("live_state", ["valid_session"])["valid_session"][0])


def fires_in(settings: Settings, session: str) -> set[tuple[str, str]]:
    found = [s for s in read_all(settings, SIGNALS) if s["session"] == session]
    return {(s["symbol"], s["signal_type"]) for s in found}


def explained(settings: Settings, spark, registry) -> dict[str, int]:
    """Archives what has fired and explains each signal; the version of live_state by which each was judged."""
    archive_signals(spark, Lake(spark, settings.lake, registry.extra_columns), settings)
    reader, versions = LakeReader(settings.lake), {}
    curves = load_curves(settings.conf_file("volume_curves.json"))
    for row in reader.rows("signals").to_pylist():
        told = list(explain(reader, registry, curves, row | {"indicators": dict(row["indicators"])}))
        assert next(value for _, what, value in told if what == "measure").endswith(": holds")
        inputs = [value.partition(" (the stream found ") for step, _, value in told if step == "inputs"]
        assert any(then for *_, then in inputs) and all(now == then.rstrip(")") for now, _, then in inputs if then)
        versions[row["signal_id"]] = row["state_version"]
    return versions


@pytest.fixture
def own_lake(live, tmp_path) -> Settings:
    """As ``live``, with a lake that the test may write to."""
    shutil.copytree(live.lake, tmp_path / "lake")
    return dataclasses.replace(live, lake=str(tmp_path / "lake"))


def test_a_relay_to_which_its_group_gives_nothing_joins_it_anew(services, monkeypatch, capsys):
    """The client's leader gave itself no partition, and sees nothing that would make it ask again."""
    settings = dataclasses.replace(services, topic_prefix=f"anew{time.time_ns()}-", partitions=2)
    ensure_topics(settings)
    given, members_seen = RangePartitionAssignor.assign, []

    def nothing_for_the_first(cluster, members):
        found = given(cluster, members)
        members_seen.extend(member for member in found if member not in members_seen)
        return {m: ConsumerProtocolAssignment(0, [], b"") if m == members_seen[0] else found[m] for m in found}

    monkeypatch.setattr(RangePartitionAssignor, "assign", staticmethod(nothing_for_the_first))
    monkeypatch.setattr(relay_module, "_SILENCE", 1.0)
    monkeypatch.setattr(relay_module, "_PATIENCE", 20.0)  # longer than metadata live: the client has seen all there is
    reader = relay_module._Reader(settings)
    try:
        assert until(lambda: reader.poll() == [] and time.monotonic() - reader._since > 15)
        assert not reader.joined and len(members_seen) == 1, "it stays without for as long as nobody does something"
        assert until(lambda: reader.poll() == [] and reader.joined, 60) and len(members_seen) == 2
        said = capsys.readouterr().err
        assert "has given it no partition" in said and "joining its group anew" in said
    finally:
        reader.close()


def test_realtime_fires_exactly_the_labelled_ones_through_kills(own_lake, registry, calendars, spark, run_job):
    """Real-time detection and two relay members; both kinds are killed with ticks on the way."""
    live, before = own_lake, LakeReader(own_lake.lake).open("live_state").version()
    detection = run_job(live, *detect("realtime", "--checkpoint-seconds", "30"))
    relays = [run_job(live, *RELAY) for _ in range(2)]
    detection.wait_for("watching with rules")
    early: list[dict] = []
    wanted = labelled(live, registry, 20, 0, early)
    assert wanted and until(lambda: set(fired(live)) >= wanted), "the first ones fire"
    sender = Sender(live)
    bad = [b"{", b'{"country":"KR"}', json.dumps({"country": "KR", "symbol": "A01", "price": -1}).encode()]
    sender.send(topic_of(TICKS, live.topic_prefix), [(b"KR:A01", value) for value in bad])
    wanted |= labelled(live, registry, 20, 1, early)
    detection.kill()
    relays[0].kill()
    late: list[dict] = []
    wanted |= labelled(live, registry, 20, 2, late)  # nobody detects just now
    assert back_to_the_close(live, registry, late) > 3
    detection = run_job(live, *detect("realtime"))
    relays[1].kill()
    detection.wait_for("watching with rules")
    newest = {f"{live.redis_prefix}price:KR:{t['symbol']}": str(t["timestamp"]).encode() for t in late}
    client = connect(live)
    assert until(lambda: all(client.hget(key, "timestamp") == when for key, when in newest.items()))
    run_job(live, *RELAY)  # the ticks that came after what it fires are past
    assert until(lambda: set(fired(live)) >= wanted), wanted - set(fired(live))
    time.sleep(3)  # for what should not come
    assert until(lambda: client.hlen(f"{live.redis_prefix}outbox") == 0)
    got = fired(live)
    assert len(got) == len(set(got)) and set(got) == wanted, "none lost, none doubled, none that was not true"
    published = read_all(live, SIGNALS)
    assert {(s["symbol"], s["signal_type"]) for s in published} == wanted
    assert {s["id"] for s in published} == {f"KR:{a}:{b}:{published[0]['session']}:1" for a, b in wanted}
    rules = LiveRules.load(live.conf_file("watchlists.json"), registry)
    sent = early + late
    assert until(lambda: not followed_wrong(live, rules, sent), 60), followed_wrong(live, rules, sent)
    reasons = {letter["message"]: letter["reason"] for letter in read_all(live, DEAD)}
    assert set(reasons) == {value.decode() for value in bad}
    symbol, rule = min(wanted)
    key = f"{live.redis_prefix}signal:KR:{symbol}:{rule}:{published[0]['session']}:1"
    assert 0 < client.ttl(key) <= live.signal_ttl_seconds
    assert until(lambda: client.exists(f"{live.redis_prefix}price:KR:{symbol}") == 1), "by a query of its own"
    # a new session: its ticks are there before the detection, minutes from its checkpoint, has seen the new state
    session = next_session(live, spark, registry, calendars)
    again = labelled(live, registry, 15, 0)
    assert again and until(lambda: fires_in(live, session) == again), again - fires_in(live, session)
    told = explained(live, spark, registry)
    now = LakeReader(live.lake).open("live_state").version()
    assert len(told) == len(wanted) + len(again) and {v for i, v in told.items() if session in i} == {now}
    assert {v for i, v in told.items() if session not in i} == {before} != {now}
    record = detection.stop(whole=False)
    assert record["status"] == "ok" and set(record["details"]["queries"]) == {"detect", "prices"}


def test_micro_batches_take_up_new_thresholds_and_a_new_state(own_lake, registry, calendars, spark, run_job):
    live = own_lake
    detection = run_job(live, *detect("micro-batch"))
    detection.wait_for("watching with rules")
    wanted = labelled(live, registry, 15, 0)
    assert until(lambda: set(fired(live)) >= wanted)
    # a threshold changes while it runs: what fires now is what the new one says
    path = live.conf_file("watchlists.json")
    path.write_text(
        path.read_text().replace('"fires": "<", "at": 30, "relaxed": 32', '"fires": "<", "at": 20, "relaxed": 25')
    )
    detection.wait_for("taken up with the next batch")
    wanted |= labelled(live, registry, 15, 1)
    assert until(lambda: set(fired(live)) >= wanted)
    # a new session: the state moves on, its ticks count, those of the old session do not
    session = next_session(live, spark, registry, calendars)
    again = labelled(live, registry, 15, 2)
    assert again and until(lambda: fires_in(live, session) >= again)
    assert fires_in(live, session) == again
    assert not read_all(live, DEAD)
    run_job(live, *detect("micro-batch")).wait_for("another detect_signals.py runs on the checkpoints in ")
    told = explained(live, spark, registry)
    assert len(told) == len(wanted) + len(again)
    # of another run's signals some have the same ids: the archive keeps its own, and says so
    lake = Lake(spark, live.lake, registry.extra_columns)
    spark.sql(f"UPDATE delta.`{lake.path('signals')}` SET trigger_price = 1 WHERE signal_id = '{min(told)}'")
    outcome = archive_signals(spark, lake, live)
    assert outcome.rows_out == 0 and outcome.details["other"] == 1 and "others of the same ids" in outcome.lines[-1]
    record = detection.stop(whole=True)
    assert record["status"] == "ok" and record["details"]["queries"]["detect"]["batch"] > 0


@contextmanager
def running_relay(settings: Settings, registry) -> Iterator[Callable[[], bool]]:
    """A relay in this process, stopped at the end; gives whether it has ended before. What it raises is raised."""
    enough = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(relay, settings, registry, enough.is_set)
        try:
            yield work.done
        finally:
            enough.set()
            work.result(240)


def test_the_relay_waits_for_redis_and_loses_nothing(alone, lake_root, registry, roomy):
    """Redis is stopped with records in Kafka, and comes back half a minute later."""
    settings = dataclasses.replace(alone, lake=lake_root, conf=CONF, partitions=1)
    start(settings, ("kafka", "redis"))
    ensure_topics(settings)
    records = [record("A01", n, ["rsi_oversold"] if n % 2 == 0 else []) for n in range(200)]
    sender = Sender(settings)
    sender.send(topic_of(RULES, ""), [(b"KR:A01", r) for r in records[:100]])
    counts = relay(settings, registry, lambda: False, idle_seconds=2)
    assert counts == {"records": 100, "signals": 50} and len(fired(settings)) == 50
    sender.send(topic_of(RULES, ""), [(b"KR:A01", r) for r in records[100:]])
    stop(settings, ("redis",))
    with pytest.raises(SiseError, match="make up"):
        connect(settings)
    start(settings, ("redis",))
    watch = connect(settings)
    with running_relay(settings, registry) as ended:
        assert until(lambda: ended() or len(watch.client_list()) == 2), "the relay has reached Redis"
        watch.close()
        stop(settings, ("redis",))
        time.sleep(8)
        start(settings, ("redis",))
        assert until(lambda: ended() or len(fired(settings)) == 100) and len(fired(settings)) == 100
    ids = [s["id"] for s in read_all(settings, SIGNALS)]
    assert len(set(ids)) == 100, "every signal is in Kafka as well"
    assert [int(i.rsplit(":", 1)[1]) for i in ids] == sorted(int(i.rsplit(":", 1)[1]) for i in ids)


def test_kafka_is_killed_and_comes_back_and_nothing_is_lost(alone, lake_root, registry):
    """With ticks and records on their way: neither the feed nor the relay ends, and both go on."""
    settings = dataclasses.replace(alone, lake=lake_root, conf=CONF, partitions=2)
    broker = start(settings, ("kafka", "redis"))[0]
    ensure_topics(settings)
    enough, sent = threading.Event(), iter(range(1_000_000))

    class Endless:
        name = "test"

        def ticks(self):
            while not enough.is_set():
                yield {"country": "KR", "symbol": f"A{next(sent) % 7:02}", "n": next(sent)}

    records = [record(f"A{n % 20:02}", n, ["rsi_oversold"] if n // 20 % 2 == 0 else []) for n in range(200)]
    messages = [(b"KR:A%02d" % (n % 20), value) for n, value in enumerate(records)]
    sender = Sender(settings)
    with running_relay(settings, registry) as ended, ThreadPoolExecutor(1) as pool:
        feed = pool.submit(produce, Endless(), settings, lambda: False, 200.0)
        sender.send(topic_of(RULES, ""), messages[:100])
        assert until(lambda: ended() or len(fired(settings)) == 60)
        os.kill(broker.pid, signal.SIGKILL)
        for key, value in messages[100:]:
            sender.put(topic_of(RULES, ""), key, value)
        time.sleep(10)
        start(settings, ("kafka",))
        sender.flush()
        assert until(lambda: ended() or len(fired(settings)) == 100) and not ended()
        # a relay that is stopped gives up what Kafka does not take: its client needs some seconds to see it again
        assert until(lambda: ended() or not connect(settings).hlen(f"{settings.redis_prefix}outbox")) and not ended()
        enough.set()
        outcome = feed.result(240)
    sender.close()
    ticks = read_all(settings, TICKS)
    assert len({tick["n"] for tick in ticks}) == outcome.rows_out > 300
    assert {s["id"] for s in read_all(settings, SIGNALS)} == {
        f"KR:{a}:{b}:2024-01-31:{n}" for n, a, b in counted(settings)
    }


def test_detection_waits_for_a_kafka_that_is_away_for_minutes(alone, lake_root, registry, run_job, tmp_path):
    """For longer than Spark's queries have patience: they end, and start again where they were."""
    shutil.copytree(lake_root, tmp_path / "lake")
    settings = dataclasses.replace(alone, lake=str(tmp_path / "lake"), conf=CONF, partitions=2)
    broker = start(settings, ("kafka", "redis"))[0]
    ensure_topics(settings)
    detection = run_job(settings, *detect("realtime"))
    run_job(settings, *RELAY)
    detection.wait_for("watching with rules")
    wanted = labelled(settings, registry, 15, 0)
    assert wanted and until(lambda: set(fired(settings)) >= wanted)
    wanted |= labelled(settings, registry, 15, 1)
    os.kill(broker.pid, signal.SIGKILL)
    detection.wait_for("Kafka is away: detection waits", 600)
    start(settings, ("kafka",))
    wanted |= labelled(settings, registry, 15, 2)
    detection.wait_for("Kafka is back")
    assert until(lambda: set(fired(settings)) >= wanted), wanted - set(fired(settings))
    got = fired(settings)
    assert len(got) == len(set(got)) and set(got) == wanted
    assert detection.stop(whole=False)["status"] == "ok"


def test_only_a_kafka_that_was_away_starts_queries_again(live):
    """A Kafka that answers again before its query has given up, and what only looks like one."""
    epoch, long_ago = epoch_of_ticks(live), time.monotonic() - 100
    gave_up = (
        "[STREAM_FAILED] Query [id = 1] terminated with exception: org.apache.kafka.common.errors.TimeoutException: "
        "Timed out waiting for a node assignment. Call: describeTopics"
    )
    assert Outage(live, epoch, long_ago).over(gave_up) is True
    assert Outage(live, epoch, time.monotonic()).over(gave_up) is None, "it would end so for ever"
    assert Outage(live, epoch, long_ago).over("[STREAM_FAILED] division by zero") is None
    nowhere = dataclasses.replace(live, topic_prefix=f"not-{live.topic_prefix}")
    assert Outage(nowhere, epoch, long_ago).over(gave_up) is None
    with pytest.raises(SiseError, match="made anew"):
        Outage(live, "another", long_ago).over(gave_up)


def counted(settings: Settings) -> list[tuple[int, str, str]]:
    """(which of its share and rule it is, symbol, rule) of every signal."""
    found: dict[tuple[str, str], int] = {}
    numbers = []
    for which in fired(settings):
        found[which] = found.get(which, 0) + 1
        numbers.append((found[which], *which))
    return numbers


def test_a_message_that_kafka_refuses_is_an_error_that_names_the_topic(live):
    sender = Sender(live)
    with pytest.raises(SiseError, match=f"does not take a message for {topic_of(DEAD, live.topic_prefix)}"):
        sender.send(topic_of(DEAD, live.topic_prefix), [(None, b"x" * 2_000_000)])
    limited = {topic_of(RULES, live.topic_prefix): {"max.message.bytes": "200"}}
    admin = KafkaAdminClient(bootstrap_servers=live.kafka)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, values) for name, values in limited.items()])
    admin.close()
    with pytest.raises(SiseError, match=f"does not take a message for {topic_of(RULES, live.topic_prefix)}"):
        sender.send(topic_of(RULES, live.topic_prefix), [(None, b"x" * 2_000)])
    sender.send(topic_of(DEAD, live.topic_prefix), [(None, b'{"it": "goes on"}')])
    assert read_all(live, DEAD) == [{"it": "goes on"}]
    sender.close()


def test_a_redis_that_cannot_write_is_waited_for(alone, rules):
    """It answers, and refuses: without a replica that it was told to have, or without memory."""
    start(alone, ("redis",))
    client, said = connect(alone), []
    store = SignalStore(client, alone, "epoch")
    for n, (name, bad, good) in enumerate([("min-replicas-to-write", 1, 0), ("maxmemory", 1, 0)]):
        client.config_set(name, bad)
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(store.fire_patiently, [record(f"B{n}", n, RSI)], rules, said.append, lambda: False)
            assert until(lambda: len(said) == 2 * n + 1)  # noqa: B023
            client.config_set(name, good)
            assert len(work.result(60)) == n + 1 == len(store.unpublished())
        assert "Redis is back" in said[-1]
    client.config_set("maxmemory", 1)
    with pytest.raises(SiseError, match="stopped while Redis was away"):
        store.fire_patiently([record("B9", 9, RSI)], rules, said.append, lambda: True)
    client.config_set("maxmemory", 0)
    assert len(fired(alone)) == 2


def record(
    symbol: str, offset: int, relaxed: list[str], strict: list[str] | None = None, timestamp: int | None = None, **other
):
    value = {
        "country": "KR",
        "symbol": symbol,
        "market": "KOSPI",
        "price": 1000.1,
        "day_volume": 10,
        "timestamp": 1_700_000_000_000 + offset if timestamp is None else timestamp,
        "session": "2024-01-31",
        "relaxed": relaxed,
        "strict": relaxed if strict is None else strict,
        "indicators": {"rsi_14": 29.123456789012345},
        "partition": 0,
        "offset": offset,
        "received": 1_800_000_000_000,
        "as_of": "2024-01-30",
        "version": "v1",
    }
    return json.dumps(value | other).encode()


@pytest.fixture
def store(live) -> SignalStore:
    return SignalStore(connect(live), live, "epoch")


@pytest.fixture
def rules(registry) -> LiveRules:
    return LiveRules.load(CONF / "watchlists.json", registry)


RSI = ["rsi_oversold"]


def test_a_rule_fires_on_the_edge_and_once(store, rules):
    assert store.fire([record("A", 1, RSI, [])], rules) == []  # relaxed only: not strict yet
    assert len(store.fire([record("A", 2, RSI)], rules)) == 1
    assert store.fire([record("A", 3, RSI), record("A", 4, RSI, []), record("A", 5, RSI)], rules) == []
    [again] = store.fire([record("A", 6, []), record("A", 7, RSI)], rules)
    assert json.loads(again)["id"] == "KR:A:rsi_oversold:2024-01-31:2"


def test_the_cooldown_counts_event_time_since_the_last_relaxed_record(store, rules):
    minute = 60_000
    assert len(store.fire([record("A", 1, RSI, timestamp=0)], rules)) == 1
    assert not store.fire([record("A", 2, RSI, timestamp=59 * minute)], rules)
    assert not store.fire([record("A", 3, RSI, timestamp=118 * minute)], rules), "seen 59 minutes ago"
    assert len(store.fire([record("A", 4, RSI, timestamp=179 * minute)], rules)) == 1


def test_what_a_replay_left_of_later_hours_does_not_hold_back_the_real_session(store, rules):
    hour = 3_600_000
    assert len(store.fire([record("A", 1, RSI, timestamp=15 * hour)], rules)) == 1
    assert not store.fire([record("A", 2, RSI, timestamp=15 * hour - 600_000)], rules), "a tick that comes late"
    [real] = store.fire([record("A", 3, RSI, timestamp=9 * hour)], rules)
    assert json.loads(real)["timestamp"] == 9 * hour
    assert not store.fire([record("A", 4, RSI, timestamp=9 * hour + 60_000)], rules)


def test_a_tick_that_comes_late_or_twice_arms_nothing(store, rules):
    def at(offset: int, second: int, relaxed: list[str]) -> bytes:
        return record("A", offset, relaxed, timestamp=second * 1000)

    assert len(store.fire([at(1, 10, RSI), at(2, 20, [])], rules)) == 1
    assert not store.fire([at(3, 10, RSI), at(4, 20, [])], rules), "a producer that sent both again"
    assert len(store.fire([at(5, 30, RSI), at(6, 90, RSI)], rules)) == 1
    assert not store.fire([at(7, 60, []), at(8, 91, RSI)], rules), "what was untrue before says nothing of now"
    assert not store.fire([at(9, 100, []), at(10, 95, RSI)], rules), "of what had fired, and was true until 100"
    assert len(store.fire([at(13, 101, []), at(14, 102, RSI)], rules)) == 1


def test_a_late_tick_fires_what_it_would_have_in_its_turn(store, rules):
    def at(offset: int, second: int, relaxed: list[str]) -> bytes:
        return record("A", offset, relaxed, timestamp=second * 1000)

    assert len(store.fire([at(1, 10, RSI), at(2, 20, []), at(3, 100, [])], rules)) == 1
    [missed] = store.fire([at(4, 95, RSI)], rules)
    assert json.loads(missed)["timestamp"] == 95_000, "true at its time, and not told yet"
    assert not store.fire([at(5, 94, RSI), at(6, 95, RSI)], rules)
    assert len(store.fire([at(7, 101, []), at(8, 102, RSI)], rules)) == 1


@pytest.mark.parametrize("lag", [1, 2, 4, 40])
def test_an_excursion_that_comes_twice_fires_once(store, rules, lag):
    """A producer that sends what was not acknowledged again, or two of the same feed, one behind the other."""
    one = [(n * 5000, RSI if 2 <= n <= 12 and n != 7 else []) for n in range(20)]
    twice = sorted(
        [*((n, *r) for n, r in enumerate(one)), *((n + lag, *r) for n, r in enumerate(one))], key=lambda r: r[0]
    )
    records = [record("A", n, relaxed, timestamp=when) for n, (_, when, relaxed) in enumerate(twice)]
    found = [json.loads(text)["timestamp"] for record_ in records for text in store.fire([record_], rules)]
    assert found == [10_000, 40_000]


def test_a_feed_that_is_delayed_tells_nothing_anew_of_what_another_told_live(store, rules, live):
    """A vendor's quotes a quarter of an hour late, after another vendor's of the same share."""
    minute, key = 60_000, f"{live.redis_prefix}price:KR:A"
    told = [record("A", n, RSI if n == 600 else [], timestamp=n * minute) for n in range(598, 616)]
    assert len(store.fire(told, rules)) == 1
    late = [record("A", n + 100, RSI if n == 600 else [], timestamp=n * minute, received=(n + 15) * minute)
            for n in range(600, 630)]  # fmt: skip
    assert store.fire(late, rules) == []
    prices, now = LatestPrices(store.client, live, lambda: rules, "epoch"), 1_700_000_000_000
    prices.write(ticks("A", (now, 1100.11)))
    prices.write(ticks("A", (now - 15 * minute, 900.09), offset=9))
    assert store.client.hget(key, "price") == b"1100.11"


def test_the_real_session_goes_before_a_replay_of_its_first_minutes(store, rules, live):
    opens, key = int(time.time() * 1000) + 600_000, f"{live.redis_prefix}price:KR:A"
    played = [record("A", n, RSI if n else [], timestamp=opens + n * 1000, received=opens - 900_000) for n in range(60)]
    assert len(store.fire(played, rules)) == 1, "and in it a tick may come late as in any other"
    assert not store.fire([record("A", 60, [], timestamp=opens + 50_000, received=opens - 900_000)], rules)
    real = [record("A", 60 + n, RSI if n == 9 else [], timestamp=opens + n * 1000, received=opens + n * 1000)
            for n in range(1, 20)]  # fmt: skip
    assert len(store.fire(real, rules)) == 1
    prices, now = LatestPrices(store.client, live, lambda: rules, "epoch"), int(time.time() * 1000)
    prices.write(ticks("A", (now + 600_000, 1100.11)))
    prices.write(ticks("A", (now, 900.09), offset=9))
    assert store.client.hget(key, "price") == b"900.09"


def test_a_late_tick_is_no_cooldown(store, registry):
    rules = LiveRules.load(CONF / "watchlists.json", registry)
    rules = LiveRules(tuple(dataclasses.replace(rule, cooldown_minutes=1) for rule in rules.rules))
    steady = [record("A", n, RSI, timestamp=n * 1000) for n in range(200)]
    late = record("A", 200, RSI, timestamp=100_000)
    assert len(store.fire([*steady, late, record("A", 201, RSI, timestamp=201_000)], rules)) == 1


def test_a_rule_that_the_file_no_longer_has_fires_once_and_not_on_every_tick(store, rules):
    backlog = [record("A", n, ["renamed_rule"], timestamp=n * 60_000) for n in range(1, 500)]
    assert len(store.fire(backlog, rules)) == 1
    left = [record("A", 500, []), record("A", 501, ["renamed_rule"])]
    assert len(store.fire(left, rules)) == 1, "what it shows itself still arms it again"


def test_offsets_seen_before_change_nothing_and_a_new_topic_starts_anew(store, rules, live):
    batch = [record("A", n, RSI if n % 2 else []) for n in range(10)]
    first = store.fire(batch, rules)
    before = store.client.hgetall(f"{live.redis_prefix}armed:KR:A")
    assert len(first) == 5 and store.fire(batch, rules) == [] and store.fire(batch[3:], rules) == []
    assert store.client.hgetall(f"{live.redis_prefix}armed:KR:A") == before
    other = SignalStore(store.client, live, "another")
    assert len(other.fire([record("A", 0, []), record("A", 1, RSI)], rules)) == 1


def test_offsets_are_compared_in_the_topic_that_the_record_is_of(store, rules):
    def of(epoch: str, *offsets: int) -> list[bytes]:
        return [record("A", n, RSI if n % 2 else [], epoch=epoch) for n in offsets]

    left = of("old", *range(100, 104))  # still in tick-rules when the topic is another one
    assert len(store.fire([*left, *of("new", 0, 1)], rules)) == 3
    assert store.fire([*left, *of("new", 0, 1)], rules) == [], "each is refused by its own"
    assert len(store.fire(of("new", 2, 3), rules)) == 1
    earlier = [record("A", n, RSI if n % 2 else []) for n in range(2)]
    assert len(store.fire([*earlier, *of("epoch", 1)], rules)) == 1, "one that does not say is of the store's own"


def test_a_relay_goes_on_when_the_ticks_topic_is_made_anew(live, registry):
    sender = Sender(live)

    def send(*offsets: int) -> None:
        epoch = epoch_of_ticks(live)
        records = [record("A01", n, RSI if n % 2 else [], epoch=epoch) for n in offsets]
        sender.send(topic_of(RULES, live.topic_prefix), [(b"KR:A01", r) for r in records])

    with running_relay(live, registry) as ended:
        send(50, 51)
        assert until(lambda: ended() or len(fired(live)) == 1)
        before = epoch_of_ticks(live)
        admin = KafkaAdminClient(bootstrap_servers=live.kafka)
        admin.delete_topics([topic_of(TICKS, live.topic_prefix)])
        assert until(lambda: topic_of(TICKS, live.topic_prefix) not in admin.list_topics())
        admin.close()
        ensure_topics(live)
        assert epoch_of_ticks(live) != before
        send(0, 1)
        assert until(lambda: ended() or len(fired(live)) == 2) and not ended()


def test_what_a_dead_member_has_fired_and_not_sent_is_sent_by_another(live, registry, rules):
    """It wrote Redis and died before Kafka had it; the records come again to another, which refuses them."""
    ensure_topics(live)
    store = SignalStore(connect(live), live, epoch_of_ticks(live))
    with running_relay(live, registry) as ended:
        Sender(live).send(topic_of(RULES, live.topic_prefix), [(b"KR:A02", record("A02", 1, RSI))])
        assert until(lambda: ended() or len(read_all(live, SIGNALS)) == 1)
        assert until(lambda: ended() or store.unpublished() == [])
        told = [record("A01", n, RSI if n % 2 else []) for n in range(4)]
        left = store.fire(told, rules)
        Sender(live).send(topic_of(RULES, live.topic_prefix), [(b"KR:A01", r) for r in told])
        assert len(left) == 2 and store.unpublished(5) == [] and len(store.unpublished()) == 2
        assert until(lambda: ended() or len(read_all(live, SIGNALS)) == 3) and not ended()
        assert until(lambda: ended() or store.unpublished() == [])
    sent = [one["id"] for one in read_all(live, SIGNALS)]
    assert sorted(sent) == [
        f"KR:{share}:rsi_oversold:2024-01-31:{n}" for share, n in (("A01", 1), ("A01", 2), ("A02", 1))
    ]


def test_numbers_arrive_as_they_were_and_text_cannot_break_out(store, rules):
    hostile = '"},"price":1,"x":{"' + "<script>alert(1)</script>"
    [text] = store.fire([record("A", 1, RSI, label=hostile)], rules)
    found = json.loads(text)
    assert found["trigger_price"] == 1000.1 and found["indicators"]["rsi_14"] == 29.123456789012345
    assert found["label"] == hostile
    [active] = store.active()
    assert active["trigger_price"] == "1000.1" and active["label"] == hostile


def ticks(symbol: str, *pairs: tuple[int, float], session: str = "2024-01-31", offset: int = 0, moves=()):
    """Rows of tick_prices; the pairs are (timestamp, price), the moves (ex_date, factor)."""
    told = [{"ex_date": day, "factor": factor} for day, factor in moves] or None
    same = {"country": "KR", "symbol": symbol, "day_volume": 5, "partition": 0, "session": session, "moves": told}
    rows = [same | {"price": price, "timestamp": when, "offset": offset + n} for n, (when, price) in enumerate(pairs)]
    kind = pa.list_(pa.struct([("ex_date", pa.string()), ("factor", pa.float64())]))
    table = pa.Table.from_pylist(rows)
    return table.set_column(table.schema.get_field_index("moves"), "moves", table["moves"].cast(kind))


def test_open_signals_follow_the_price_in_the_rule_s_direction(store, rules, live):
    [long] = store.fire([record("A", 10, RSI)], rules)
    assert len(store.fire([record("B", 10, ["rsi_overbought"])], rules)) == 1
    at = json.loads(long)["timestamp"]
    prices = LatestPrices(store.client, live, lambda: rules, "epoch")

    moves = (at - 1, 1.0), (at + 1, 1100.11), (at + 3, 1050.105), (at + 2, 900.09)  # the last one came late
    prices.write(pa.concat_tables([ticks("A", *moves), ticks("B", (at + 1, 900.09))]))
    found = {signal["symbol"]: signal for signal in store.active()}
    assert [float(found["A"][k]) for k in ("pnl", "best", "worst")] == pytest.approx([0.05, 0.1, -0.1])
    assert [float(found["B"][k]) for k in ("pnl", "best", "worst")] == pytest.approx([0.1, 0.1, 0.0])
    prices.write(ticks("A", (at + 4, 1000.1), offset=9))
    assert float(store.active()[0]["best"]) == pytest.approx(0.1) and found["A"]["last_price"] == "1050.105"
    stored = store.client.hgetall(f"{live.redis_prefix}price:KR:A")
    assert stored[b"price"] == b"1000.1" and abs(int(stored[b"written"]) / 1000 - time.time()) < 30


def test_a_tick_that_comes_late_does_not_take_the_price_back(store, rules, live):
    [signal] = store.fire([record("A", 10, RSI)], rules)
    at = json.loads(signal)["timestamp"]
    prices = LatestPrices(store.client, live, lambda: rules, "epoch")
    prices.write(ticks("A", (at + 5000, 1100.11)))
    prices.write(ticks("A", (at + 3000, 900.09), offset=1))
    key = f"{live.redis_prefix}price:KR:A"
    assert store.client.hmget(key, "price", "timestamp") == [b"1100.11", str(at + 5000).encode()]
    [found] = store.active()
    assert found["last_price"] == "1100.11"
    assert [float(found[k]) for k in ("pnl", "best", "worst")] == pytest.approx([0.1, 0.1, -0.1]), "it was there"
    prices.write(ticks("A", (at + 5000, 1050.105), offset=2))  # the same moment, later in Kafka
    assert store.client.hget(key, "price") == b"1050.105" and 0 < store.client.ttl(key) <= 3 * 86_400


def test_the_price_of_a_replay_of_the_session_to_come_gives_way_to_the_real_one(store, rules, live):
    prices, key = LatestPrices(store.client, live, lambda: rules, "epoch"), f"{live.redis_prefix}price:KR:A"
    close = 1_700_000_000_000
    prices.write(ticks("A", (close, 1100.11)))
    prices.write(ticks("A", (close - 6 * 3_600_000, 900.09), offset=1))
    assert store.client.hget(key, "price") == b"900.09"


def test_a_signal_that_was_fired_late_stands_at_the_latest_price(store, rules, live):
    """The relay was away: the ticks after it are past, and their price is the share's latest."""
    prices = LatestPrices(connect(live), live, lambda: rules, "epoch")
    when, at = 1_700_000_000_000, 1000.1
    for symbol, rule, price in (
        ("A", "rsi_oversold", 990.0),
        ("B", "rsi_overbought", 990.0),
        ("C", "rsi_oversold", 1010.0),
    ):
        prices.write(ticks(symbol, (when + 60_000, price)))
        store.fire([record(symbol, 1, [rule], timestamp=when)], rules)
    prices.write(ticks("D", (when - 60_000, 990.0)))  # of before
    prices.write(ticks("E", (when + 86_400_000, 990.0)))  # of another session
    for symbol in "DE":
        store.fire([record(symbol, 1, RSI, timestamp=when)], rules)
    found = {row["symbol"]: row for row in store.active()}
    worth = {s: tuple(float(found[s][c]) for c in ("last_price", "pnl", "best", "worst")) for s in found}
    down, up = 990.0 / at - 1, 1010.0 / at - 1
    assert worth["A"] == (990.0, down, 0, down) and worth["B"] == (990.0, -down, -down, 0)
    assert worth["C"] == (1010.0, up, up, 0) and worth["D"] == worth["E"] == (at, 0, 0, 0)
    missed = {name.decode().split(":")[1] for name in connect(live).smembers(f"{live.redis_prefix}missed")}
    assert missed == {"A", "B", "C"}
    # what follow_missed finds between: the signal's own price, up to 1,020 and down to 980
    names = [found[s]["id"] for s in "AB"]
    prices.follow_between([(name, "2024-01-31", when, 1020.0, 980.0) for name in names])
    prices.follow_between([(name, "2024-01-31", when, 1010.0, 985.0) for name in names])
    found = {row["symbol"]: row for row in store.active()}
    high, low = 1020.0 / at - 1, 980.0 / at - 1
    worth = {s: tuple(float(found[s][c]) for c in ("last_price", "pnl", "best", "worst")) for s in "AB"}
    assert worth == {"A": (990.0, down, high, low), "B": (990.0, -down, -low, -high)}


def test_ticks_that_are_read_again_do_not_take_the_price_back(store, rules, live):
    """Detection started with another trigger, or without its checkpoint: hours come again, in their order."""
    [signal] = store.fire([record("A", 10, RSI)], rules)
    at, hour, key = json.loads(signal)["timestamp"], 3_600_000, f"{live.redis_prefix}price:KR:A"
    prices = LatestPrices(store.client, live, lambda: rules, "epoch")
    prices.write(ticks("A", *((at + n * hour, 1000.1 + n) for n in range(6))))
    for _ in range(2):
        prices.write(ticks("A", (at + hour, 1001.1), offset=1))
        assert store.client.hget(key, "price") == b"1005.1" and store.active()[0]["last_price"] == "1005.1"
        prices.write(ticks("A", (at + 5 * hour, 1005.1), offset=5))
    LatestPrices(store.client, live, lambda: rules, "made anew").write(ticks("A", (at + hour, 1001.1), offset=1))
    assert store.client.hget(key, "price") == b"1001.1", "offsets of another topic say nothing"


def test_open_signals_of_a_rule_that_is_gone_or_turned_round(store, rules, live):
    [fired] = store.fire([record("B", 10, ["rsi_overbought"])], rules)
    at, known = json.loads(fired)["timestamp"], list(rules.rules)
    prices = LatestPrices(store.client, live, lambda: LiveRules(tuple(known)), "epoch")

    def after(n: int, price: float) -> list[float]:
        prices.write(ticks("B", (at + n, price), offset=n))
        return [float(store.active()[0][k]) for k in ("pnl", "best", "worst")]

    assert after(1, 950.095) == pytest.approx([0.05, 0.05, 0])
    assert after(2, 1020.102) == pytest.approx([-0.02, 0.05, -0.02])
    known[:] = [dataclasses.replace(rule, direction="long") for rule in known]
    assert after(3, 1000.1) == pytest.approx([0, 0.02, -0.05])
    known.clear()
    assert after(4, 1030.103) == pytest.approx([0.03, 0.03, -0.05]), "as it was last"
    known[:] = [dataclasses.replace(rule, direction="short") for rule in rules.rules]
    assert after(3, 1030.103) == pytest.approx([-0.03, 0.05, -0.03]), "turned round by a tick that comes late"
    assert after(5, 1030.103) == pytest.approx([-0.03, 0.05, -0.03])


def test_a_signal_is_followed_through_an_ex_date_at_the_new_basis(store, rules, live):
    [signal] = store.fire([record("A", 10, RSI)], rules)
    at = json.loads(signal)["timestamp"]
    prices = LatestPrices(store.client, live, lambda: rules, "epoch")

    def after(hours: int, price: float, **other) -> list[float]:
        prices.write(ticks("A", (at + hours * 3_600_000, price), offset=hours, **other))
        return [float(store.active()[0][k]) for k in ("pnl", "best", "worst")]

    before = [("2023-06-01", 0.1), ("2024-01-31", 0.5)]
    assert after(1, 1000.1, moves=before) == pytest.approx([0, 0, 0]), "its own session was at the new basis, too"
    split = [*before, ("2024-02-01", 0.02)]
    on = {"session": "2024-02-01", "moves": split}
    assert after(20, 1050.105 / 50, **on) == pytest.approx([0.05, 0.05, 0])
    assert after(21, 990.099 / 50, **on) == pytest.approx([-0.01, 0.05, -0.01]), "re-based once"
    assert after(40, 1000.1 / 50, session="2024-02-02", moves=split) == pytest.approx([0, 0.05, -0.01])
    unknown = [*split, ("2024-02-05", None)]
    assert after(41, 1000.1 / 50, session="2024-02-02", moves=unknown) == pytest.approx([0, 0.05, -0.01]), "not due yet"
    assert after(60, 10.0, session="2024-02-05", moves=unknown) == pytest.approx([0, 0.05, -0.01]), "no one can tell"
    assert after(80, 10.0, session="2024-02-06", moves=unknown) == pytest.approx([0, 0.05, -0.01]), "nor later"
    assert store.client.hget(f"{live.redis_prefix}price:KR:A", "price") == b"10.0"
    told = [*split, ("2024-02-05", 0.5)]
    assert after(90, 1000.1 / 100, session="2024-02-06", moves=told) == pytest.approx([0, 0.05, -0.01]), "now they can"
    [late] = store.fire([record("B", 10, RSI)], rules)
    prices.write(ticks("B", (at + 100 * 3_600_000, 1000.1 / 50), session="2024-02-07", moves=[("2024-02-01", 0.02)]))
    there = store.client.hget(f"{live.redis_prefix}signal:{json.loads(late)['id']}", "pnl")
    assert float(there) == pytest.approx(0), "no tick came in the sessions between"


class Followed:
    """What a plain loop makes of a signal."""

    def __init__(self, text: str, sign: int):
        signal = json.loads(text)
        self.since, self.trigger, self.sign = signal["timestamp"], signal["trigger_price"], sign
        self.session, self.best, self.worst = signal["session"], 0.0, 0.0
        self.last, self.pnl = self.trigger, 0.0

    def see(self, pairs: list[tuple[int, float]], latest: bool, session: str, moves: list) -> None:
        if pairs[-1][0] < self.since:
            return
        factors = [factor for day, factor in moves if self.session < day <= session]
        if None in factors:
            return
        for _, price in (pair for pair in pairs if pair[0] >= self.since):
            pnl = self.sign * (price / (self.trigger * math.prod(factors)) - 1)
            self.best, self.worst = max(self.best, pnl), min(self.worst, pnl)
        if latest:
            self.last, self.pnl = pairs[-1][1], pnl


def test_signals_are_followed_as_a_plain_loop_does_it(store, rules, live, monkeypatch):
    """Prices that hardly move, ticks that come late, signals in between, new sessions, batches that die half-way."""
    rng, prices = random.Random(7), LatestPrices(store.client, live, lambda: rules, "epoch")
    follow, asked = prices._follow, []

    def dies_now_and_then(keys, args):
        if rng.random() < 0.1:
            raise RuntimeError("killed")
        asked.extend(json.loads(args[1]))
        return follow(keys=keys, args=args)

    monkeypatch.setattr(prices, "_follow", dies_now_and_then)
    known: dict[str, Followed] = {}
    newest: dict[str, int] = {}
    at, state = 1_700_000_000_000, {"session": "2024-01-31", "moves": [("2024-01-31", 0.2)]}
    stayed = shares = 0
    for n in range(200):
        at += rng.randrange(1, 400)
        if rng.random() < 0.3:
            rule, symbol = rng.choice(["rsi_oversold", "rsi_overbought"]), rng.choice("ABC")
            told = [
                record(symbol, n * 2, []),
                record(symbol, n * 2 + 1, [rule], timestamp=at, session=state["session"]),
            ]
            for text in store.fire(told, rules):
                known[json.loads(text)["id"]] = Followed(text, 1 if rule == "rsi_oversold" else -1)
        if n in (80, 160):
            day = f"2024-{2 + n // 160:02}-01"
            state = {"session": day, "moves": [*state["moves"], (day, 0.5 if n == 80 else None)]}
        late, batch = rng.choice([0, 0, 0, 300]), []
        for symbol in rng.sample("ABC", rng.randrange(1, 4)):
            pairs = [(at + k - late, rng.choice([1000.1, 1000.1, 990.099])) for k in range(rng.randrange(1, 3))]
            batch.append(ticks(symbol, *pairs, offset=n * 9, **state))
            shares += any(id_.startswith(f"KR:{symbol}:") for id_ in known)
            latest = pairs[-1][0] >= newest.get(symbol, 0)
            newest[symbol] = max(pairs[-1][0], newest.get(symbol, 0))
            for id_, one in known.items():
                if id_.startswith(f"KR:{symbol}:"):
                    stayed += one.last == pairs[-1][1] == pairs[0][1]
                    one.see(pairs, latest, **state)
        while True:  # a batch that dies comes again
            with suppress(RuntimeError):
                prices.write(pa.concat_tables(batch))
                break
    found = {one["id"]: one for one in store.active()}
    assert found.keys() == known.keys() and len(found) > 10 and stayed > 100
    assert 0 < len(asked) < 0.9 * shares, "where nothing has changed nothing is looked at"
    for id_, one in known.items():
        there = [float(found[id_][name]) for name in ("last_price", "pnl", "best", "worst")]
        assert there == pytest.approx([one.last, one.pnl, one.best, one.worst]), id_


def test_what_died_before_kafka_is_published_later(store, rules):
    records = [record("A", n, RSI if n % 2 else []) for n in range(400)]
    signals = store.fire(records, rules)
    assert len(signals) == 200 and store.unpublished() == signals  # the process dies here, and comes again:
    assert store.fire(records, rules) == []
    store.published(store.unpublished())
    assert store.unpublished() == []


def test_too_few_slots_are_refused():
    check_slots("local[6]", 6, 4)
    with pytest.raises(SiseError, match=r"SISE_MASTER='local\[6\]'"):
        check_slots("local[2]", 2, 4)


def test_redis_away_is_said_without_the_password():
    settings = dataclasses.replace(Settings(), redis_url="redis://me:secret@127.0.0.1:1/0")
    with pytest.raises(SiseError, match="make up") as problem:
        connect(settings)
    assert "secret" not in str(problem.value)
    assert isinstance(problem.value.__cause__, redis.exceptions.ConnectionError)
