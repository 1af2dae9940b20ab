"""The one edge to vendors over HTTP: pace, timeouts, patience, blocks. Every request of a source goes through it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import requests
from curl_cffi.requests.exceptions import RequestException as CurlProblem
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from sise.redact import redact
from sise.sources.circuit import Circuit
from sise.sources.outcome import Again, ClockWrong, Failed
from sise.sources.settings import SourceSettings

__all__ = ["Edge", "Limiter", "RequestsSession", "json_of", "rewritten"]

R = TypeVar("R")
# A vendor that asks for a longer pause than this has blocked us, whatever the status says.
_LONGEST_PAUSE = 300.0
# A body has to be there within so many times the timeout.
_BODY = 3


@dataclass
class Limiter:
    """Spaces requests evenly, over all threads. ``pause`` moves everybody's next turn: what one was told, all heed."""

    rate: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        with self._lock:
            turn = max(self.clock(), self._next)
            self._next = turn + 1 / self.rate
        if (left := turn - self.clock()) > 0:
            self.sleep(left)

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, self.clock() + seconds)


class Edge:
    """Sends one vendor's requests. ``spend`` is called before each (it may raise Spent); ``count`` is how many went."""

    def __init__(
        self,
        vendor: str,
        settings: SourceSettings,
        rate: float,
        block: timedelta = timedelta(hours=1),
        spend: Callable[[], None] = lambda: None,
        attempts: int | None = None,
    ):
        self.vendor, self.settings, self.spend = vendor, settings, spend
        self.limiter = Limiter(rate)
        self.circuit = Circuit(vendor, settings.state / "circuits" / f"{vendor}.json", block)
        self.attempts = attempts or settings.http_attempts
        self.count = 0
        self._local = threading.local()
        self._lock = threading.Lock()
        self._backoff = wait_random_exponential(settings.backoff_seconds, max=settings.backoff_cap_seconds)

    def send(
        self,
        call: Callable[[float], R],
        judge: Callable[[R], None] | None = None,
        early: Callable[[R], None] | None = None,
    ) -> R:
        """The response to ``call(timeout)``, tried again with growing, random waits while it is worth it.

        ``judge`` looks at a response and raises Again, NoData, Failed or Blocked; ``early`` does so even before its
        status is heeded (429, 5xx), for a vendor that says in the body what it means. Raises
        Failed when the attempts are used up, Blocked when the vendor has asked to be left alone."""
        attempts = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            retry=retry_if_exception_type(Again),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return attempts(self._once, call, judge, early)
        except Again as problem:
            if problem.limited:
                raise self.circuit.open(str(problem)) from problem
            raise Failed(f"{self.vendor}: {redact(str(problem))}, tried {self.attempts} times") from problem

    def taken(self) -> int:
        """How many requests this thread has sent since it last asked."""
        sent = getattr(self._local, "sent", 0)
        self._local.sent = 0
        return sent

    def _once(
        self, call: Callable[[float], R], judge: Callable[[R], None] | None, early: Callable[[R], None] | None
    ) -> R:
        self.circuit.check()
        self.limiter.wait()
        self.circuit.check()  # another thread may have met the block meanwhile
        self.spend()
        with self._lock:
            self.count += 1
        self._local.sent = getattr(self._local, "sent", 0) + 1
        try:
            response = call(self.settings.http_timeout)
        except (requests.RequestException, CurlProblem, OSError) as problem:
            kind = "no answer in time" if _timed_out(problem) else "the connection broke"
            raise Again(f"{kind} ({type(problem).__name__})") from problem
        if early is not None:
            early(response)
        self._heed(response)
        if judge is not None:
            judge(response)
        if (status := getattr(response, "status_code", 200)) >= 400:
            raise Failed(f"{self.vendor} answers HTTP {status}")
        return response

    def _heed(self, response: Any) -> None:
        """Status and headers that mean "later", and the vendor's clock."""
        headers: Mapping[str, str] = response.headers
        if not headers.get("Age"):  # else it is a cache's copy, with the clock of another moment
            self._compare_clocks(headers.get("Date"))
        status = response.status_code
        if status == 429 or status >= 500:
            pause = _seconds(headers.get("Retry-After"))
            reason = f"{self.vendor} answers HTTP {status}" + (f", Retry-After {pause:g} s" if pause else "")
            if pause is not None and pause > _LONGEST_PAUSE:
                raise self.circuit.open(reason, timedelta(seconds=pause))
            if pause is not None:
                self.limiter.pause(pause)
            raise Again(reason, pause, limited=status == 429)

    def _compare_clocks(self, told: str | None) -> None:
        if not told:
            return
        try:
            skew = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return
        if abs(skew) > self.settings.clock_skew_seconds:
            raise ClockWrong(
                f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} {self.vendor}'s, so "
                "which session is over cannot be told: set the clock (NTP), or raise SISE_CLOCK_SKEW"
            )

    def _wait(self, state: RetryCallState) -> float:
        problem = state.outcome.exception() if state.outcome is not None else None
        told = problem.wait if isinstance(problem, Again) else None
        return max(told or 0.0, float(self._backoff(state)))

    def _sleep(self, seconds: float) -> None:
        self.limiter.sleep(seconds)


def _timed_out(problem: BaseException) -> bool:
    return "timeout" in type(problem).__name__.lower() or "timed out" in str(problem).lower()


def _seconds(text: str | None) -> float | None:
    """Retry-After, in seconds or as a date; None where there is none that can be read."""
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def json_of(response: Any, vendor: str) -> Any:
    """The response's JSON. A body that broke off or is HTML is worth another try; raises Again."""
    text = response.text
    try:
        return response.json()
    except ValueError as problem:
        start = text.lstrip()[:40]
        what = "HTML" if start[:1] == "<" else "an empty body" if not start else "JSON that breaks off"
        raise Again(
            f"{vendor} answers {what} instead of JSON (HTTP {response.status_code}, {len(text)} characters)"
        ) from (problem)


def rewritten(url: str, bases: Mapping[str, str]) -> str:
    """``url`` with the base that the library knows replaced by the one of the settings."""
    for known, ours in bases.items():
        if url == known or url.startswith(known + "/") or url.startswith(known + "?"):
            return ours + url[len(known) :]
    return url


class RequestsSession(requests.Session):
    """A requests session whose every request goes through an edge, whatever library makes it."""

    def __init__(
        self,
        edge: Edge,
        bases: Mapping[str, str],
        judge: Callable[[requests.Response], None] | None = None,
        early: Callable[[requests.Response], None] | None = None,
    ):
        super().__init__()
        self.edge, self.bases, self.judge, self.early = edge, bases, judge, early

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        options.pop("timeout", None)
        where = rewritten(str(url), self.bases)

        def call(timeout: float) -> requests.Response:
            asked = {**options, "stream": True, "timeout": timeout}
            response = super(RequestsSession, self).request(method, where, *args, **asked)
            # The timeout is one of silence: a body that drips a byte now and then would never end.
            end = threading.Timer(_BODY * timeout, response.raw.shutdown)
            end.start()
            try:
                response.content  # noqa: B018 - reads it
            finally:
                end.cancel()
            return response

        return self.edge.send(call, self.judge, self.early)
