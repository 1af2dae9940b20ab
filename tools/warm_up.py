"""The daily jobs on a few generated shares, in one process and a lake of their own (SISE_LAKE): what bootstrap.py has
Java keep the classes of. Started by spark-submit.sh."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

JOBS = Path(__file__).resolve().parent.parent / "jobs"
SOURCE = ["--source", "sample", "--symbols", "12"]
RUNS = [
    ["collect_symbols", *SOURCE],
    ["collect_prices", *SOURCE, "--start", "2025-06-02"],
    ["compute_indicators"],
]


def main() -> int:
    os.environ["SISE_TODAY"] = "2025-12-31"
    for name, *arguments in RUNS:
        sys.argv = [f"{name}.py", *arguments]
        try:
            runpy.run_path(str(JOBS / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            if end.code:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
