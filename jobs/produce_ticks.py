"""Send ticks to Kafka: live ones (kis, yahoo), stored bars walked into ticks (replay), or a test's own (test)."""

import sys

from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.serving.feeds import add_feed, feed_of, produce

parser = Parser(prog="produce_ticks.py", description=__doc__)
add_feed(parser)


def work(job: Context) -> Outcome:
    feed = feed_of(job.args, job.settings, job.registry, job.calendars, job.stopping.is_set)
    args = job.args
    return produce(feed, job.settings, job.stopping.is_set, args.rate, args.speed, args.count)


if __name__ == "__main__":
    sys.exit(run_job(parser, work, spark=False))
