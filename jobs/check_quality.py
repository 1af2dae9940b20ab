"""Report every flagged bar by name: jumps with their likely cause, days without trade, vendors' rounding."""

import sys
from pathlib import Path

from sise.ops.arguments import check_span, iso_date
from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.prices.check import check_quality

parser = Parser(prog="check_quality.py", description=__doc__)
parser.add_argument("--start", type=iso_date, metavar="DATE", help="first session (default: all)")
parser.add_argument("--end", type=iso_date, metavar="DATE", help="last session (default: all)")
parser.add_argument(
    "--output", type=Path, metavar="FILE", help="the report as CSV (default: .local/reports/quality.csv)"
)


def work(job: Context) -> Outcome:
    output = job.args.output or job.settings.local / "reports" / "quality.csv"
    check_span(job.args)
    return check_quality(job.spark, job.lake, job.settings, output, job.args.start, job.args.end)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
