"""Watch the ticks in Kafka: which share is near or inside a live rule, and what its latest price is."""

import sys
import time
from pathlib import Path

from sise.console import tell
from sise.ops.job import Context, Parser, run_job
from sise.ops.outcome import Outcome
from sise.serving.streams import Detection

parser = Parser(prog="detect_signals.py", description=__doc__)
parser.add_argument("--trigger", choices=["realtime", "micro-batch"], default="realtime", help="default: realtime")
parser.add_argument("--checkpoints", metavar="FOLDER", help="default: SISE_LOCAL/checkpoints")
parser.add_argument("--checkpoint-seconds", type=int, default=300, metavar="N", help="real-time mode's (default 300)")
parser.add_argument("--seconds", type=float, metavar="N", help="end after so long (default: run until stopped)")


def work(job: Context) -> Outcome:
    folder = Path(job.args.checkpoints or job.settings.local / "checkpoints").absolute()
    args = job.args
    detection = Detection(
        job.spark, job.lake, job.registry, job.settings, args.trigger, folder, args.checkpoint_seconds
    )
    stopping = job.stopping
    detection.start()
    tell(f"detect: watching with rules {detection.file.rules.version}")
    started = time.monotonic()
    while not stopping.wait(1.0):
        detection.watch()
        if args.seconds and time.monotonic() - started > args.seconds:
            break
    detection.stop()
    return Outcome(details=detection.details)


if __name__ == "__main__":
    sys.exit(run_job(parser, work))
