"""The frame around every job: arguments, settings, session, lake; one JSON line at the end and a row in ``runs``."""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn

import pyarrow as pa
from pyspark.sql import SparkSession

from sise.begun import Begun, told_once
from sise.calendars import COUNTRIES, Calendar
from sise.console import tell
from sise.errors import SiseError, UsageError, cause_of
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.redact import redact
from sise.session import STEPS, keep_signals, open_session
from sise.settings import Settings

__all__ = ["Context", "Parser", "run_job"]


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints end in the job's JSON line as every other error does. No option may be cut
    short: --ful would be a full rebuild."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


@dataclass
class Context:
    """What a job works with."""

    settings: Settings
    args: argparse.Namespace
    name: str = "job"
    run_id: str = ""

    @cached_property
    def spark(self) -> SparkSession:
        """Opened when it is first asked for: a job that feeds Kafka or relays needs none."""
        return open_session(self.name.replace("_", " "))

    @cached_property
    def stopping(self) -> threading.Event:
        """Set by SIGTERM or Ctrl-C: a job that runs until it is stopped ends in order."""
        event, numbers = threading.Event(), (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            signal.signal(number, lambda *_: event.set())
        if "spark" in vars(self):
            keep_signals(self.spark, numbers, event.set)
        return event

    @cached_property
    def registry(self) -> Registry:
        return Registry.load(self.settings.conf_file("indicators.json"))

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.spark, self.settings.lake, self.registry.extra_columns)

    @cached_property
    def calendars(self) -> Mapping[str, Calendar]:
        overrides = self.settings.conf / "calendar_overrides.json"
        cache = self.settings.local / "cache"
        return {country: Calendar.load(country, overrides, cache) for country in COUNTRIES}


def run_job(
    parser: Parser, work: Callable[[Context], Outcome], argv: list[str] | None = None, *, spark: bool = True
) -> int:
    """Runs ``work``; returns the exit code: 0, 1 for a failure, 2 for wrong arguments.

    ``spark=False``: the job opens no session and leaves no row in ``runs``, only its line of JSON."""
    job = parser.prog.removesuffix(".py")
    started, clock = datetime.now(UTC), time.monotonic()
    run_id = f"{job}-{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    outcome, context, error, code = Outcome(), None, None, 0
    begun: Begun | None = None
    try:
        args = parser.parse_args(argv)
        context = Context(Settings.from_env(), args, job, run_id)
        if spark:
            begun = Begun(context.settings, run_id, job, _arguments(args), started)
            context.spark  # noqa: B018 - opened here, so that what fails later is recorded
        outcome = work(context)
        error, code = (outcome.failed, 1) if outcome.failed else (None, 0)
    except SiseError as problem:
        error, code = str(problem), 2 if isinstance(problem, UsageError) else 1
    except Exception as problem:  # the record of the run must name what nobody foresaw, too
        error, code = cause_of(problem), 1
        tell(redact(traceback.format_exc()))
    error = redact(error) if error else None
    seconds = round(time.monotonic() - clock, 3)
    record = {
        "run_id": run_id,
        "job": job,
        "status": "failed" if error else "ok",
        "seconds": seconds,
        "rows_in": outcome.rows_in,
        "rows_out": outcome.rows_out,
        "rows_rejected": outcome.rows_rejected,
        "error": error,
        "details": {**outcome.details, "steps": dict(STEPS)},
    }
    recorded = context is not None and "spark" in vars(context)
    if context is not None and recorded:
        try:
            _append(context, record, outcome, started)
        except Exception as problem:
            said = f"the run could not be recorded in {context.settings.lake}/runs: {cause_of(problem)}"
            error, code = redact(error or said), code or 1
            record |= {"status": "failed", "error": error}
            tell(redact(f"{job}: {said}"))
            begun = None  # its note stays: the next run tells that it was
    if begun is not None:
        begun.ended()
    for line in outcome.lines:
        tell(redact(f"{job}: {line}"))
    ending = f"failed after {seconds:.1f} s: {error}" if error else f"ok in {seconds:.1f} s"
    tell(f"{job}: {ending}")
    print(redact(json.dumps(record, default=str, ensure_ascii=False)), flush=True)
    if context is not None and recorded:
        context.spark.stop()
    return code


def _arguments(args: argparse.Namespace) -> dict[str, str]:
    return {k: str(v) for k, v in vars(args).items() if v is not None}


def _append(context: Context, record: Mapping[str, object], outcome: Outcome, started: datetime) -> None:
    row = {
        **{
            k: record[k]
            for k in ("run_id", "job", "status", "seconds", "rows_in", "rows_out", "rows_rejected", "error")
        },
        "arguments": _arguments(context.args),
        "started_at": started,
        "finished_at": datetime.now(UTC),
        "versions": dict(outcome.versions),
        "details": redact(json.dumps(record["details"], default=str, ensure_ascii=False)),
    }
    lake = Lake(context.spark, context.settings.lake)  # without the registry, which may be what failed
    with told_once(context.settings) as left:
        rows = [{name: _of_map(one.get(name)) for name in row} for one in (row, *left)]
        lake.arrow.append("runs", pa.Table.from_pylist(rows, lake.arrow.schema("runs")))


def _of_map(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else value
