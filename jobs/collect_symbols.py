"""Collect the listing of shares, with a row for each change, into the table symbols."""

import sys

from sise.ops.arguments import VENDORS, add_source, request_of, source_of
from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.ops.vendors import listing_of
from sise.prices.collect import today_of
from sise.prices.symbols import collect_symbols

parser = Parser(prog="collect_symbols.py", description=__doc__)
add_source(parser)


def work(job: Context) -> Outcome:
    today = today_of(job.settings, job.calendars)
    source = listing_of(job) if job.args.source in VENDORS else source_of(job)
    return collect_symbols(job.spark, job.lake, source, request_of(job.args), today)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
