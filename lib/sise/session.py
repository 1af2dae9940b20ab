"""The Spark session of a job, and the words by which a person finds its work in the Spark UI."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from signal import Signals
from typing import Any, TypeVar

from pyspark.java_gateway import ensure_callback_server_started
from pyspark.logger import PySparkLogger
from pyspark.sql import DataFrame, SparkSession
from pyspark.storagelevel import StorageLevel
from pyspark.util import inheritable_thread_target

from sise.console import on_terminal, tell
from sise.errors import SiseError

__all__ = [
    "STEPS",
    "Hold",
    "beside",
    "described",
    "keep_names",
    "keep_signals",
    "open_session",
    "small_plans",
]

T = TypeVar("T")

_ASKED_FOR = (
    "PythonSQLUtils",
    "PythonUtils",
    "functions",
    "org.apache.spark.sql.classic.SparkSession",
    "org.apache.spark.sql.expressions.Window",
    "org.apache.spark.sql.functions",
)


def open_session(name: str) -> SparkSession:
    """The session that spark-submit configured (conf/spark-defaults.conf, jars); says so where Delta is missing."""
    spark = SparkSession.builder.appName(f"sise {name}").getOrCreate()
    if "DeltaSparkSessionExtension" not in (spark.conf.get("spark.sql.extensions", "") or ""):
        spark.stop()
        raise SiseError(
            "this Spark session has no Delta Lake: start the job with ./spark-submit.sh, or give spark-submit the "
            "jars of conf/jars.lock and --properties-file conf/spark-defaults.conf"
        )
    keep_names(spark)
    # PySpark tells what is wrong with an expression before it raises, between a job's own lines: it tells it itself.
    for logger in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(logger).setLevel(logging.CRITICAL)
    return spark


def keep_names(spark: SparkSession) -> None:
    """Has PySpark look up once what it asks the JVM for at each use of a column: a name without its package is searched
    in all the jars, a millisecond each time."""
    jvm = spark._jvm
    for name in _ASKED_FOR:
        setattr(jvm, name, getattr(jvm, name))


class _SignalHandler:
    """Java's interface of a signal's handler, which Java calls in a thread of its own."""

    def __init__(self, call: Callable[[], None]):
        self._call = call

    def handle(self, _: object) -> None:
        self._call()

    class Java:
        implements = ("sun.misc.SignalHandler",)


def keep_signals(spark: SparkSession, numbers: Iterable[Signals], call: Callable[[], None]) -> None:
    """Has the JVM call ``call`` on these signals instead of ending: whoever stops a service signals spark-submit, which
    is the JVM, or all processes at once, and Spark would end under queries that Python is still to stop. The JVM
    ends when Python has."""
    gateway: Any = spark.sparkContext._gateway
    ensure_callback_server_started(gateway)
    java, handler = gateway.jvm.sun.misc, _SignalHandler(call)
    for number in numbers:
        java.Signal.handle(java.Signal(number.name.removeprefix("SIG")), handler)


# (what, seconds) of the steps this process has run, for the run's record.
STEPS: list[tuple[str, float]] = []


class Hold:
    """Computes frames once, for the length of a block: ``hold(frame)`` gives a frame of the same rows whose plan is
    only those rows, so that what follows is planned in no time; the block's end lets the rows go. ``eager=False``
    leaves the computing to the first query that reads them all.

    (A persisted frame would keep its whole plan, to be analysed again by each query over it, and would answer for
    the next, equal query on a table that has moved on.)
    """

    def __init__(self) -> None:
        self._frames: list[DataFrame] = []

    def __call__(self, frame: DataFrame, *, eager: bool = True) -> DataFrame:
        held = frame.localCheckpoint(eager=eager, storageLevel=StorageLevel.MEMORY_AND_DISK)
        self._frames.append(held)
        return held

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        for frame in self._frames:
            frame._jdf.queryExecution().logical().rdd().unpersist(False)
        self._frames.clear()


@contextmanager
def small_plans(spark: SparkSession, small: bool = True) -> Iterator[None]:
    """Plans made inside are interpreted, not compiled, if ``small``: a day has too few rows for it."""
    values = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"} if small else {}
    before = {name: spark.conf.get(name) or "" for name in values}
    try:
        for name, value in values.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


@contextmanager
def beside(spark: SparkSession, work: Callable[[], T]) -> Iterator[Future[T]]:
    """``work`` in a thread of its own while the block runs, which ends when both have: the driver plans the one's Spark
    jobs while the other's are done."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(inheritable_thread_target(spark)(work))


@contextmanager
def described(spark: SparkSession, what: str) -> Iterator[None]:
    """Spark jobs started inside carry ``what`` as their description; the one before comes back afterwards.

    On a terminal the step is announced; its seconds are kept in STEPS.
    """
    context = spark.sparkContext
    before = context.getLocalProperty("spark.job.description")
    context.setJobDescription(what)
    if on_terminal():
        tell(f"  … {what}")
    started = time.monotonic()
    try:
        yield
    finally:
        STEPS.append((what, round(time.monotonic() - started, 2)))
        context.setLocalProperty("spark.job.description", before)  # type: ignore[arg-type]
