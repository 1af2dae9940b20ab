"""What is sent to Kafka, until it is acknowledged: a broker that is away is waited for, and nothing is let go."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from sise.console import tell
from sise.errors import SiseError
from sise.serving.kafka import reached
from sise.settings import Settings

__all__ = ["Sender"]

_AHEAD = 50_000  # messages on their way at most: what makes them waits then
_PATIENCE = 5.0  # seconds without an acknowledgement before it is said
_ANEW = 3  # producers made in a row for the same messages
# Of the message, or of who sends it: another try would end the same.
_ITS_OWN = (AuthorizationError, InvalidTopicError, MessageSizeTooLargeError, RecordListTooLargeError)


class Sender:
    """Acknowledged by every replica, idempotent, and quick: a message waits ``linger_ms`` at most for company.

    ``stop``: whether to give up waiting for a Kafka that is away; then, as for what Kafka refuses, SiseError. After an
    error that ends a producer what is not acknowledged is sent again by another, so a message may come twice.

    (The client's own limit, two minutes from a message's making, would let it go; and one that it had tried before
    leaves the producer without its id, with which it sends nothing any more and says nothing either.)
    """

    def __init__(self, settings: Settings, stop: Callable[[], bool] = lambda: False, linger_ms: int = 5):
        self.settings, self.stop, self.linger_ms = settings, stop, linger_ms
        self._on_the_way: deque[tuple[Any, str, bytes | None, bytes]] = deque()
        self._producer = self._made()

    def _made(self) -> KafkaProducer:
        with reached(self.settings):
            return KafkaProducer(
                bootstrap_servers=self.settings.kafka,
                acks="all",
                enable_idempotence=True,
                linger_ms=self.linger_ms,
                max_block_ms=5_000,
                delivery_timeout_ms=86_400_000,
                reconnect_backoff_max_ms=1_000,
            )

    def put(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Takes a message to send; ``flush`` says when it is acknowledged."""
        self._on_the_way.append((self._sent(topic, key, value), topic, key, value))
        while self._on_the_way and self._on_the_way[0][0].succeeded():
            self._on_the_way.popleft()
        if len(self._on_the_way) > _AHEAD or (self._on_the_way and self._on_the_way[0][0].failed()):
            self.flush()

    def send(self, topic: str, messages: Iterable[tuple[bytes | None, bytes]]) -> None:
        """Sends every (key, value) and waits until all are acknowledged."""
        for key, value in messages:
            self.put(topic, key, value)
        self.flush()

    def flush(self) -> None:
        """Waits until everything is acknowledged."""
        if not self._on_the_way:
            return
        for _ in range(_ANEW):
            self._patiently(lambda: self._producer.flush(_PATIENCE))
            failed = next((future.exception for future, *_ in self._on_the_way if future.failed()), None)
            if failed is None:
                self._on_the_way.clear()
                return
            self.close()  # the client would fail all that comes with the same error
            self._producer = self._made()
            left = [message for message in self._on_the_way if not message[0].succeeded()]
            self._on_the_way.clear()
            if isinstance(failed, _ITS_OWN):
                break
            tell(f"Kafka: {failed}: what was not acknowledged is sent again")
            for _, topic, key, value in left:
                self._on_the_way.append((self._sent(topic, key, value), topic, key, value))
        self._on_the_way.clear()
        raise self._refused(", ".join(sorted({topic for _, topic, *_ in left})), failed) from failed

    def close(self) -> None:
        """Ends the producer; what is still on its way gets some seconds."""
        with suppress(KafkaError):  # what is not acknowledged by then: whoever needs it has asked ``flush``
            self._producer.close(_PATIENCE)

    def _sent(self, topic: str, key: bytes | None, value: bytes) -> Any:
        try:
            return self._producer.send(topic, value, key=key)
        except _ITS_OWN as problem:
            raise self._refused(topic, problem) from problem
        except KafkaTimeoutError:  # it does not know the topic's partitions yet
            return self._patiently(lambda: self._producer.send(topic, value, key=key))

    def _refused(self, topic: str, problem: BaseException | None) -> SiseError:
        return SiseError(f"Kafka at {self.settings.kafka} does not take a message for {topic}: {problem}")

    def _patiently(self, work: Callable[[], Any]) -> Any:
        """``work()``, again and again while it runs into its time."""
        since, waited = time.monotonic(), False
        while True:
            try:
                found = work()
            except KafkaTimeoutError as problem:
                left = f"{len(self._on_the_way)} messages are not acknowledged" if self._on_the_way else problem
                if self.stop():
                    raise SiseError(f"Kafka at {self.settings.kafka} does not answer: {left}") from problem
                if not waited:
                    tell(f"Kafka at {self.settings.kafka} does not answer ({left}): waiting, nothing is lost")
                waited = True
            else:
                if waited:
                    tell(f"Kafka answers again after {time.monotonic() - since:.0f} s")
                return found
