"""Words for the person at the terminal, on the real stderr.

spark-submit sends a Python job's stderr to its own stdout, where the JSON line alone belongs; so under it the
words go through the JVM's stderr.
"""

from __future__ import annotations

import os
import sys

__all__ = ["on_terminal", "tell"]


def on_terminal() -> bool:
    """Whether somebody watches stderr; spark-submit.sh knows it, a job under it cannot."""
    return os.environ.get("SISE_PROGRESS") == "true" or sys.stderr.isatty()


def tell(line: str) -> None:
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        print(line, file=sys.stderr, flush=True)
        return
    from pyspark import SparkContext  # here: what runs without a JVM tells things, too

    SparkContext._ensure_initialized()  # connects to the JVM that is already there
    jvm = SparkContext._jvm
    assert jvm is not None
    jvm.java.lang.System.err.println(line)
