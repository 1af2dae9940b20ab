"""Judge a file of rules as scan_watchlists and detect_signals would load it; exit code 0 if they would take it."""

import sys
from pathlib import Path

from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.signals.rules import LiveRules
from sise.watchlists.rules import load_rules
from sise.watchlists.universe import session_shares

parser = Parser(prog="check_rules.py", description=__doc__)
parser.add_argument("--path", type=Path, metavar="FILE", help="default: conf/watchlists.json")


def work(job: Context) -> Outcome:
    path = job.args.path or job.settings.conf_file("watchlists.json")
    shares = session_shares(job.lake, job.registry, job.settings, {}, dict(job.calendars))
    rules, live = load_rules(path, shares), LiveRules.load(path, job.registry)
    outcome = Outcome(rows_in=len(rules), details={"rules": [rule.name for rule in rules], "live": live.version})
    outcome.say(f"{path}: {len(rules)} rules of a session, {len(live.rules)} of the tick: all is well")
    return outcome


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
