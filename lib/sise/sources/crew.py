"""Asks a vendor many questions, several at once, and puts each answer into the ledger the moment it is there."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from sise.redact import redact
from sise.sources.asks import Answer, Ask, Vendor
from sise.sources.ledger import Ledger
from sise.sources.outcome import Blocked, ClockWrong, Fate, Refused, Spent, VendorError

__all__ = ["Crew", "Progress"]

# After so many failures with no answer between them the vendor is down: asking on would only be noise.
_IN_A_ROW = 20


@dataclass
class Progress:
    """How far a run is. The estimate is what is left at the pace of the last minute, waits for the vendor included."""

    total: int
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    _recent: deque[float] = field(default_factory=deque)
    _started: float = 0.0

    def __post_init__(self) -> None:
        self._started = self.clock()

    def add(self, fate: str) -> None:
        now = self.clock()
        self.done += 1
        self.fates[fate] += 1
        self._recent.append(now)
        while self._recent and now - self._recent[0] > 60:
            self._recent.popleft()

    def seconds_left(self) -> float | None:
        """None while there is nothing to judge by."""
        now = self.clock()
        window = min(60.0, now - self._started)
        recent = sum(1 for at in list(self._recent) if now - at <= 60)  # a copy: answers come in meanwhile
        if not recent or window <= 0:
            return None
        return (self.total - self.done) * window / recent

    def is_long(self, part: float, seconds: float) -> bool:
        """Whether ``part`` of the questions is done and the others take longer than ``seconds``, or nobody can tell."""
        left = self.seconds_left()
        return self.done >= part * self.total and (left is None or left > seconds)

    def line(self) -> str:
        left = self.seconds_left()
        others = ", ".join(f"{count} {fate}" for fate, count in sorted(self.fates.items()) if fate != Fate.OK)
        return (
            f"{self.done:,} of {self.total:,} asked"
            + (f" ({others})" if others else "")
            + (
                ", no pace to judge by yet"
                if left is None
                else f", about {_words(left)} left at the last minute's pace"
            )
        )


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


class Crew:
    """``hold``: while it says so, nothing new is asked (the lake has to catch up)."""

    def __init__(
        self,
        vendor: Vendor,
        ledger: Ledger,
        campaign: int,
        asks: Sequence[Ask],
        hold: Callable[[], bool] = lambda: False,
    ):
        self.vendor, self.ledger, self.campaign, self.hold = vendor, ledger, campaign, hold
        self.asks = list(asks)
        self.progress = Progress(len(self.asks))
        self.ended_by: VendorError | None = None
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._fruitless = 0
        self._thread = threading.Thread(target=self._run, name=f"ask {vendor.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Nothing new is asked; what is under way is waited for and kept."""
        self._stop.set()
        self._thread.join()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(self.vendor.workers, thread_name_prefix=self.vendor.name) as pool:
                self._ask_all(pool)
        except BaseException as problem:
            self.failure = problem

    def _ask_all(self, pool: ThreadPoolExecutor) -> None:
        left = deque(self.asks)
        under_way: dict[Future[Answer], Ask] = {}
        while left or under_way:
            while left and len(under_way) < self.vendor.workers and not self._over and not self.hold():
                ask = left.popleft()
                under_way[pool.submit(self._answer, ask)] = ask
            if not under_way:
                if self._over:
                    break
                self._stop.wait(0.1)
                continue
            for future in wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED).done:
                self._keep(under_way.pop(future), future)
        why = str(self.ended_by) if self.ended_by else "the run was ended"
        fate = self.ended_by.fate if isinstance(self.ended_by, Blocked) else Fate.SKIPPED
        for ask in left:
            self.ledger.put(self.campaign, ask, Answer(fate, why))
            self.progress.fates[fate] += 1

    @property
    def _over(self) -> bool:
        return self._stop.is_set() or self.ended_by is not None

    def _answer(self, ask: Ask) -> Answer:
        started = time.monotonic()
        answer = self.vendor.ask(ask)
        answer.seconds = round(time.monotonic() - started, 3)
        return answer

    def _keep(self, ask: Ask, future: Future[Answer]) -> None:
        try:
            answer = future.result()
            self._fruitless = 0
        except VendorError as problem:
            answer = Answer(problem.fate, redact(str(problem)))
            if isinstance(problem, (Blocked, ClockWrong, Refused, Spent)):
                self.ended_by = self.ended_by or problem
            elif problem.fate == Fate.FAILED:
                self._fruitless += 1
            else:
                self._fruitless = 0
        except Exception as problem:  # an answer that nobody foresaw is one question's failure, not the run's
            answer = Answer(Fate.FAILED, redact(f"{type(problem).__name__}: {problem}"))
            self._fruitless += 1
        if self._fruitless >= _IN_A_ROW and self.ended_by is None:
            self.ended_by = VendorError(
                f"{self.vendor.name}: the last {_IN_A_ROW} questions failed ({answer.reason}): "
                "it looks down; run again later"
            )
        self.ledger.put(self.campaign, ask, answer)
        self.progress.add(answer.fate)
