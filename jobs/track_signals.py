"""Evaluate the archived signals: returns after 1, 5 and 20 sessions, best and worst, against the market's own."""

import sys

from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.signals.track import track_signals

parser = Parser(prog="track_signals.py", description=__doc__)


def work(job: Context) -> Outcome:
    return track_signals(job.spark, job.lake, job.settings, job.calendars)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
