"""produce_ticks.py from KIS's servers to a real Kafka, its state in a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime

import pyarrow as pa
import redis
from deltalake import write_deltalake

from sise.serving.kafka import read_all
from sise.topics import TICKS
from tests.conftest import HERE
from tests.vendors.kis import KisServer
from tests.vendors.stream import StreamServer, kis_frame, kis_trade

AT = datetime(2025, 3, 31, 1, 0, tzinfo=UTC)


def test_ticks_reach_kafka_and_their_state_redis(services, tmp_path):
    shares = [("005930", 4e14), ("0126Z0", 1e11), ("000660", 1e14)]
    listed = {
        "country": ["KR"] * 3, "symbol": [s for s, _ in shares], "market": ["KOSPI"] * 3,
        "market_cap": [c for _, c in shares], "active": [True] * 3, "valid_from": [date(2025, 1, 2)] * 3,
    }  # fmt: skip
    write_deltalake(str(tmp_path / "lake" / "symbols"), pa.table(listed))
    with KisServer() as rest, StreamServer() as stream:
        rest.prices = {"0126Z0": (12_345, 777)}
        env = {
            **os.environ, "SISE_LAKE": str(tmp_path / "lake"), "SISE_LOCAL": str(tmp_path / "local"),
            "SISE_KAFKA_PORT": str(services.kafka_port), "SISE_REDIS_PORT": str(services.redis_port),
            "SISE_KIS_URL": rest.url, "SISE_KIS_STREAM_URL": stream.url, "SISE_KIS_REGISTRATIONS": "2",
            "SISE_TOPIC_PREFIX": "vendor-", "SISE_REDIS_PREFIX": "vendor:", "KIS_APP_KEY": "key",
            "KIS_APP_SECRET": "app-secret",
        }  # fmt: skip
        command = [sys.executable, "jobs/produce_ticks.py", "--source", "kis", "--symbols", "all", "--any-time"]
        job = subprocess.Popen(command, cwd=HERE, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            stream.await_clients(2, seconds=200)
            asked = [r["body"]["input"]["tr_key"] for r in stream.received if "body" in r]
            assert asked == ["005930", "000660"]  # the largest two
            stream.send(kis_frame(kis_trade("005930", AT, 57_800, 3, 1_000), kis_trade("000660", AT, 190_700, 1, 50)))
            stream.send(kis_frame(kis_trade("005930", AT, 57_800, 3, 1_000)))
            settings = services.__class__(kafka_port=services.kafka_port, topic_prefix="vendor-")
            client = redis.Redis(port=services.redis_port, decode_responses=True)
            end = time.monotonic() + 200
            while json.loads(client.get("vendor:feed") or "{}").get("counts", {}).get("duplicates") != 1:
                assert job.poll() is None and time.monotonic() < end
                time.sleep(0.2)
        finally:
            job.send_signal(signal.SIGTERM)
            out, err = job.communicate(timeout=120)
    ticks = read_all(settings, TICKS)
    record = json.loads(out.strip().splitlines()[-1])
    assert job.returncode == 0, err
    streamed = {t["symbol"]: t for t in ticks if t["source"] == "kis"}
    assert set(streamed) == {"005930", "000660"} and len([t for t in ticks if t["source"] == "kis"]) == 2
    assert (
        streamed["005930"]["timestamp"] == int(AT.timestamp() * 1000) and streamed["005930"]["session"] == "2025-03-31"
    )
    assert record["rows_out"] == len(ticks) and record["details"]["counts"]["duplicates"] == 1
    state = json.loads(client.get("vendor:feed"))
    assert state["countries"]["KR"]["shares"] == 3 and state["countries"]["KR"]["source"] == "kis"
    assert json.loads(client.hget("vendor:feed:prices", "KR:005930"))["source"] == "kis"
    assert "app-secret" not in out + err
