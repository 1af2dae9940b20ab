#!/usr/bin/env bash
# Starts any job: ./spark-submit.sh [spark-submit options] jobs/x.py [arguments]
#
# It finds the venv, Java, conf/, the locked jars and the package, and hands everything to Spark's own spark-submit.
# Nothing here is needed on a cluster: there, give spark-submit the same properties file, jars and package.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    echo "usage: ./spark-submit.sh [spark-submit options] jobs/JOB.py [arguments]"
    echo
    echo "jobs (./spark-submit.sh jobs/JOB.py --help for the arguments of one):"
    for job in "$here"/jobs/*.py; do
        printf '  jobs/%-24s %s\n' "$(basename "$job")" "$(sed -n '1s/^"""\(.*[^"]\)"*$/\1/p' "$job")"
    done
    echo
    echo "environment: SISE_MASTER (default local[*]; spark://…, yarn, k8s://…), SISE_LAKE (default ./lake), JAVA_HOME"
    echo "settings: conf/sise.env.example"
}

fail() { echo "spark-submit.sh: $*" >&2; exit 1; }

case "${1:-}" in ''|-h|--help) usage; exit 0 ;; esac

python="$here/.venv/bin/python"
[ -x "$python" ] || fail "$here/.venv is missing: run 'make setup' first"
spark_home=$("$python" -c 'import importlib.util as u; print(u.find_spec("pyspark").submodule_search_locations[0])') \
    || fail "the venv has no pyspark: run 'make setup'"
JAVA_HOME=$("$python" "$here/tools/bootstrap.py" java) || exit 1
export JAVA_HOME SPARK_HOME="$spark_home"

jars=$(ls "$here"/.local/jars/spark/*.jar 2>/dev/null | paste -sd, -) || true
[ -n "$jars" ] || fail "$here/.local/jars/spark holds no jars: run 'make setup'"
package="$here/.local/build/sise.zip"
"$python" "$here/tools/bootstrap.py" package "$package"

# The classes of Spark and of the jars, read once and kept by 'make setup': a job starts some seconds sooner. Java takes
# them only for the class path they were read from, in which no folder may hold a file.
archive="$here/.local/build/classes.jsa"
class_path=${jars//,/:}

# The caller's own --jars and --py-files come on top of ours; spark-submit itself would take only the last.
py_files="$package"
options=()
files=()
named=""  # the master that the caller names: --master before --conf before --properties-file before SISE_MASTER
conf_named=""
take_conf() { case "$1" in spark.master=*) conf_named=${1#spark.master=} ;; *) options+=(--conf "$1") ;; esac; }
while [ $# -gt 0 ]; do
    case "$1" in
        --jars) [ $# -gt 1 ] || fail "--jars needs a value"; jars="$jars,$2"; shift 2 ;;
        --jars=*) jars="$jars,${1#--jars=}"; shift ;;
        --py-files) [ $# -gt 1 ] || fail "--py-files needs a value"; py_files="$py_files,$2"; shift 2 ;;
        --py-files=*) py_files="$py_files,${1#--py-files=}"; shift ;;
        --properties-file) [ $# -gt 1 ] || fail "--properties-file needs a value"; files+=("$2"); shift 2 ;;
        --properties-file=*) files+=("${1#--properties-file=}"); shift ;;
        --master) [ $# -gt 1 ] || fail "--master needs a value"; named="$2"; shift 2 ;;
        --master=*) named="${1#--master=}"; shift ;;
        --conf|-c) [ $# -gt 1 ] || fail "$1 needs a value"; take_conf "$2"; shift 2 ;;
        --conf=*) take_conf "${1#--conf=}"; shift ;;
        *.py) break ;;
        -*=*|--supervise|--verbose|-v|--load-spark-defaults) options+=("$1"); shift ;;
        -*) [ $# -gt 1 ] || fail "$1 needs a value"; options+=("$1" "$2"); shift 2 ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || fail "no job given; ./spark-submit.sh --help lists them"
[ -f "$1" ] || fail "$1 does not exist; ./spark-submit.sh --help lists the jobs"

# After conf/spark-defaults.conf come what a job has of its own, the caller's --properties-file and the caller's options.
own=()
setting='^[[:space:]]*([^[:space:]=:#!][^[:space:]=:]*)([[:space:]]*[=:][[:space:]]*|[[:space:]]+)(.*[^[:space:]])'
of_job="$here/conf/$(basename "$1" .py).conf"
[ -f "$of_job" ] || of_job=/dev/null
file_named=""
for file in "$of_job" ${files[@]+"${files[@]}"}; do
    [ -r "$file" ] || fail "--properties-file $file does not exist"
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line =~ $setting ]] || continue
        case "${BASH_REMATCH[1]}" in
            spark.master) file_named="${BASH_REMATCH[3]}" ;;
            *) own+=(--conf "${BASH_REMATCH[1]}=${BASH_REMATCH[3]}") ;;
        esac
    done < "$file"
done
export SPARK_CONF_DIR="$here/conf"
master=${named:-${conf_named:-${file_named:-${SISE_MASTER:-local[*]}}}}
case "$master" in local*)
    # On one machine everything stays on it, the Spark UI too.
    export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
    own+=(--conf spark.driver.bindAddress=127.0.0.1 --conf spark.driver.host=127.0.0.1)
    # Not where somebody has a class path, Java options or files of Spark's own that this would put aside.
    java_options="${JDK_JAVA_OPTIONS:-} ${JAVA_TOOL_OPTIONS:-} ${SPARK_SUBMIT_OPTS:-}"
    case "$java_options" in *-Xlog*|*log4j*) archive="" ;; esac
    case "${own[*]-} ${options[*]-} $(cat "$here/conf/spark-defaults.conf")" in
        *extraClassPath*|*driver-class-path*|*defaultJavaOptions*|*log4j*) archive="" ;;
    esac
    for file in spark-env.sh java-opts metrics.properties core-site.xml hdfs-site.xml hive-site.xml; do
        [ ! -e "$here/conf/$file" ] || archive=""
    done
    if [ -f "$archive" ] || [ -n "${SISE_KEEP_CLASSES:-}" ]; then
        classes="\"-XX:SharedArchiveFile=$archive\" -Xlog:disable -Xlog:all=error:stderr"
        [ -z "${SISE_KEEP_CLASSES:-}" ] || classes="\"-XX:ArchiveClassesAtExit=$SISE_KEEP_CLASSES\""
        export SPARK_CONF_DIR="$here/.local/build/conf"
        mkdir -p "$SPARK_CONF_DIR"
        own+=(--driver-class-path "$class_path"
            --conf spark.driver.defaultJavaOptions="$classes \"-Dlog4j2.configurationFile=file:$here/conf/log4j2.properties\"")
    fi ;;
esac
[ -t 2 ] && progress=true || progress=false
export SISE_PROGRESS="$progress"
events="$here/.local/spark-events"
mkdir -p "$events"
find "$events" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} + 2>/dev/null || true
export PYSPARK_PYTHON=${PYSPARK_PYTHON:-$python} PYSPARK_DRIVER_PYTHON=${PYSPARK_DRIVER_PYTHON:-$python}
export SISE_CONF=${SISE_CONF:-$here/conf} SISE_LOCAL=${SISE_LOCAL:-$here/.local}
export SISE_SECRETS=${SISE_SECRETS:-$here/.local/secrets.env}
export JDK_JAVA_OPTIONS=${JDK_JAVA_OPTIONS:-}
[ -n "$JDK_JAVA_OPTIONS" ] || unset JDK_JAVA_OPTIONS

exec "$spark_home/bin/spark-submit" \
    --master "$master" \
    --properties-file "$here/conf/spark-defaults.conf" \
    --jars "$jars" --py-files "$py_files" \
    --conf spark.eventLog.dir="$events" \
    --conf spark.ui.showConsoleProgress="$progress" \
    ${own[@]+"${own[@]}"} ${options[@]+"${options[@]}"} "$@"
