"""Compute the indicators: only what is new, or --rebuild-from DATE, or --full."""

import sys

from sise.indicators.compute import compute_indicators
from sise.ops.arguments import iso_date
from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome

parser = Parser(prog="compute_indicators.py", description=__doc__)
parser.add_argument("--rebuild-from", type=iso_date, metavar="DATE", help="compute all rows from this session on again")
parser.add_argument("--full", action="store_true", help="compute every share from its first bar")


def work(job: Context) -> Outcome:
    return compute_indicators(
        job.spark, job.lake, job.registry, job.calendars, full=job.args.full, rebuild_from=job.args.rebuild_from
    )


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
