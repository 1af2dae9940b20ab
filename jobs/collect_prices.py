"""Collect daily bars, corporate actions and indices into prices, actions and indices; refused rows are quarantined."""

import sys

from sise.ops.arguments import VENDORS, add_source, request_of, source_of
from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.ops.vendors import gather_prices
from sise.prices.collect import collect_prices

parser = Parser(prog="collect_prices.py", description=__doc__)
add_source(parser)


def work(job: Context) -> Outcome:
    if job.args.source in VENDORS:
        return gather_prices(job)
    return collect_prices(job.spark, job.lake, source_of(job), request_of(job.args), job.settings, job.calendars)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
