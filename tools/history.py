"""make history: Spark's history server on .local/spark-events, on 127.0.0.1, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def command(port: int) -> tuple[list[str], dict[str, str]]:
    """The server's command line and environment."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None and spec.submodule_search_locations
    home = spec.submodule_search_locations[0]
    java = subprocess.run(
        [sys.executable, HERE / "tools" / "bootstrap.py", "java"], capture_output=True, text=True, check=True
    )
    events = HERE / ".local" / "spark-events"
    events.mkdir(parents=True, exist_ok=True)
    options = f"-Dspark.history.fs.logDirectory=file://{events} -Dspark.history.ui.port={port}"
    environment = {
        **os.environ,
        "JAVA_HOME": java.stdout.strip(),
        "SPARK_HISTORY_OPTS": options,
        "SPARK_CONF_DIR": str(HERE / "conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    return [f"{home}/bin/spark-class", "org.apache.spark.deploy.history.HistoryServer"], environment


def main() -> int:
    port = int(os.environ.get("SISE_HISTORY_PORT", "18080"))
    arguments, environment = command(port)
    print(f"history server: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    try:
        return subprocess.run(arguments, env=environment).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
