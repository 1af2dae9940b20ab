"""Decide which rules fire: tick-rules in Kafka → signals in Redis and stock-signals. Start more to share the work."""

import sys

from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.serving.relay import relay

parser = Parser(prog="relay_signals.py", description=__doc__)
parser.add_argument("--idle", type=float, metavar="SECONDS", help="end after so long without a record (default: never)")


def work(job: Context) -> Outcome:
    counts = relay(job.settings, job.registry, job.stopping.is_set, job.args.idle)
    return Outcome(rows_in=counts["records"], rows_out=counts["signals"], details=dict(counts))


if __name__ == "__main__":
    sys.exit(run_job(parser, work, spark=False))
