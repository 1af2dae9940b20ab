"""Kafka as one KRaft node, broker and controller in one JVM, from the jars of conf/jars.lock."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from kafka.admin import KafkaAdminClient

from sise.errors import ServiceError
from sise.ops.services.base import Service
from sise.ops.services.process import Launch, tail

__all__ = ["Kafka", "properties"]

logging.getLogger("kafka").addHandler(logging.NullHandler())  # a broker that is not up yet is no news

# What a broker of this project does, here and in docker-compose.yml.
BEHAVIOUR = {
    "auto.create.topics.enable": "false",  # a typo is an error, not a topic
    "log.message.timestamp.type": "LogAppendTime",  # "now" is when the broker had it
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}
# A machine that other work runs on: few partitions for the broker's own topics, small buffers, few threads.
MODEST = {
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "controller.quorum.election.timeout.ms": "200",  # the only voter need not wait for others
    # After a kill the broker may come back only when its former session has run out: 3 s, not 9.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.segment.bytes": "67108864",
    "num.network.threads": "2",
    "num.io.threads": "4",
}
LOG4J = """\
status = error
name = kafka
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c{{1}})%n%throwable
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


def properties(port: int, controller_port: int, data: Path) -> dict[str, str]:
    """server.properties of the local broker."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        # Static voters: their address may change between two starts, with the setting.
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        **BEHAVIOUR,
        **MODEST,
    }


class Kafka(Service):
    name = "kafka"
    title = "Kafka"
    variable = "SISE_KAFKA"

    @property
    def external(self) -> bool:
        return bool(self.settings.kafka_servers)

    @property
    def where(self) -> str:
        return self.settings.kafka

    @property
    def ports(self) -> dict[str, int]:
        return {
            "SISE_KAFKA_PORT": self.settings.kafka_port,
            "SISE_KAFKA_CONTROLLER_PORT": self.settings.kafka_controller_port,
        }

    @property
    def own_log(self) -> Path:
        return self.home / "server.log"  # log4j's; self.log has what the JVM itself says

    def logs(self) -> list[Path]:
        return [self.log, self.own_log]

    def jars(self) -> Path:
        """The locked jars: of this .local, or of the project whose conf/ is in use."""
        places = [self.settings.local.resolve(), self.settings.conf.resolve().parent / ".local"]
        for place in places:
            if any((place / "jars" / "kafka").glob("kafka_2.13-*.jar")):
                return place / "jars" / "kafka"
        raise ServiceError(
            f"Kafka's jars are not in {places[-1] / 'jars' / 'kafka'}: run 'make setup', or name a broker in SISE_KAFKA"
        )

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        scratch = self.home / "tmp"  # the compression libraries unpack themselves there, and stay after a kill -9
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        lines = properties(self.settings.kafka_port, self.settings.kafka_controller_port, self.data)
        escaped = {key: value.replace("\\", "\\\\") for key, value in lines.items()}
        (self.home / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in escaped.items()), "utf-8")
        (self.home / "log4j2.properties").write_text(LOG4J.format(log=self.own_log), encoding="utf-8")
        if (self.data / "meta.properties").is_file():
            return
        arguments = ["format", "--ignore-formatted", "--config", str(self.home / "server.properties")]
        command = Launch([*self._java("64m"), "kafka.tools.StorageTool", *arguments, "--cluster-id", cluster_id()])
        with self.log.open("ab") as out:
            if subprocess.run(**command.popen(), stdout=out, stderr=out).returncode:
                raise ServiceError(f"Kafka's data folder {self.data} could not be made ({self.log}):\n{tail(self.log)}")

    def launch(self) -> Launch:
        return Launch([*self._java("512m"), "kafka.Kafka", str(self.home / "server.properties")])

    def _java(self, heap: str) -> list[str]:
        return [
            find_java(self.settings.conf),
            f"-Xmx{heap}",
            "-XX:+UseG1GC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            "-Djava.net.preferIPv4Stack=true",
            f"-Djava.io.tmpdir={self.home / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}",
            *("-cp", f"{self.jars()}/*"),
        ]

    def probe(self) -> str:
        admin = KafkaAdminClient(
            bootstrap_servers=self.settings.kafka.split(","), bootstrap_timeout_ms=5_000, request_timeout_ms=5_000
        )
        try:
            if not admin.describe_cluster()["brokers"]:
                raise ServiceError("no broker has registered yet")
        finally:
            admin.close()
        if self.external:
            return ""
        return next(self.jars().glob("kafka_2.13-*.jar")).stem.partition("-")[2]


def cluster_id() -> str:
    """A random id as Kafka writes them. One that starts with '-' would be taken for an option, by Kafka's tools too."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        continue
    return text


def find_java(conf: Path) -> str:
    """The java that setup found or brought (tools/bootstrap.py knows where), else JAVA_HOME's, else PATH's."""
    finder = conf.resolve().parent / "tools" / "bootstrap.py"
    if finder.is_file():
        answer = subprocess.run([sys.executable, str(finder), "java"], capture_output=True, text=True)
        if answer.returncode == 0:
            return str(Path(answer.stdout.strip()) / "bin" / "java")
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if found is None or not Path(found).exists():
        raise ServiceError("Kafka needs Java 17 or 21 and none was found: run 'make setup', or set JAVA_HOME")
    return found
