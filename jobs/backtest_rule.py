"""Evaluate a rule over the lake's whole history, on the universe of each day, as fired signals are evaluated."""

import sys

from sise.ops.arguments import iso_date, market_names
from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.signals.backtest import Question, backtest_rule
from sise.watchlists.rules import DIRECTIONS

parser = Parser(prog="backtest_rule.py", description=__doc__)
which = parser.add_mutually_exclusive_group(required=True)
which.add_argument("--rule", metavar="NAME", help="a rule of conf/watchlists.json")
which.add_argument("--when", metavar="SQL", help='a condition as rules have them: "rsi_14 < 30"')
parser.add_argument("--direction", choices=DIRECTIONS, help="default: the rule's own; of --when, long")
parser.add_argument("--start", type=iso_date, metavar="DATE", help="first session of an entry's signal (default: all)")
parser.add_argument("--end", type=iso_date, metavar="DATE", help="last session of an entry's signal (default: all)")
parser.add_argument(
    "--market", type=market_names, default=[], metavar="M[,M]", help="only these markets (default: all)"
)
parser.add_argument(
    "--every-bar", action="store_true", help="an entry on each bar on which the rule holds, not only on the first"
)


def work(job: Context) -> Outcome:
    a = job.args
    question = Question(a.rule, a.when, a.direction, a.start, a.end, tuple(a.market), a.every_bar)
    return backtest_rule(job.spark, job.lake, job.registry, job.settings, job.calendars, question)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
