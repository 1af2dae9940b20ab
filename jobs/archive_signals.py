"""Bring the fired signals from Kafka into the table signals, each once. Run it as often as you like."""

import sys

from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.serving.archive import archive_signals

parser = Parser(prog="archive_signals.py", description=__doc__)


def work(job: Context) -> Outcome:
    return archive_signals(job.spark, job.lake, job.settings)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
