#!/usr/bin/env bash
# Starts one of Spark's own daemons with the venv's Spark and the Java that setup found.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python="$here/.venv/bin/python"
JAVA_HOME=$("$python" "$here/tools/bootstrap.py" java)
SPARK_HOME=$("$python" -c 'import importlib.util as u; print(u.find_spec("pyspark").submodule_search_locations[0])')
export JAVA_HOME SPARK_HOME PYSPARK_PYTHON="$python" SPARK_CONF_DIR="$here/conf"
exec "$SPARK_HOME/bin/spark-class" "$@"
