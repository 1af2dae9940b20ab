"""Apply the rules of conf/watchlists.json and people's own lists to a session, into the table watchlist."""

import sys

from sise.ops.arguments import iso_date
from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.watchlists.scan import scan_watchlists

parser = Parser(prog="scan_watchlists.py", description=__doc__)
parser.add_argument("--date", type=iso_date, metavar="DATE", help="the session (default: the last one of each country)")


def work(job: Context) -> Outcome:
    return scan_watchlists(job.spark, job.lake, job.registry, job.settings, dict(job.calendars), job.args.date)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
