"""Parquet and CSV files of a path, through Hadoop's file systems, so that s3a:// works as a folder does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from sise.errors import InputError

__all__ = ["files_of", "frames_of"]


def files_of(spark: SparkSession, path: str) -> Mapping[str, list[str]]:
    """The files of a path, a file or a folder with whatever folders are in it, by kind: parquet, csv. Hidden ones are
    none. Raises InputError where the path does not exist."""
    where = _place(spark, path)
    system = where.getFileSystem(spark._jsc.hadoopConfiguration())
    if not system.exists(where):
        raise InputError(f"{path} does not exist: --path takes a parquet or csv file, or a folder of them")
    found: dict[str, list[str]] = {}
    entries = system.listFiles(where, True)
    while entries.hasNext():
        file = entries.next().getPath()
        name = str(file.getName())
        kind = name.rpartition(".")[2].lower()
        if kind in {"parquet", "csv"} and not name.startswith((".", "_")):
            found.setdefault(kind, []).append(str(file.toString()))
    return {kind: sorted(files) for kind, files in found.items()}


def frames_of(spark: SparkSession, kind: str, files: Sequence[str]) -> list[DataFrame]:
    """The files as few frames, each of files with the same columns of the same types; of CSV all is text."""
    if kind == "csv":
        reader = spark.read.option("header", "true").option("enforceSchema", "false")
        groups: dict[str, list[str]] = {}
        for file in files:
            groups.setdefault(_first_line(spark, file) if len(files) > 1 else "", []).append(file)
        if len(groups) > 1:
            groups.pop("", None)  # files with nothing in them
        return [reader.csv(group) for group in groups.values()]
    try:
        return [spark.read.option("mergeSchema", str(len(files) > 1).lower()).parquet(*files)]
    except (PySparkException, Py4JJavaError):  # types that do not go together: each file is asked for its own
        forms: dict[str, list[str]] = {}
        for file in files:
            forms.setdefault(spark.read.parquet(file).schema.simpleString(), []).append(file)
        if len(forms) < 2:
            raise
        return [spark.read.parquet(*some) for some in forms.values()]


def _place(spark: SparkSession, path: str) -> Any:
    assert spark._jvm is not None
    return spark._jvm.org.apache.hadoop.fs.Path(path)


def _first_line(spark: SparkSession, file: str) -> str:
    """Of a CSV: the names of its columns."""
    where, jvm = _place(spark, file), spark._jvm
    assert jvm is not None
    stream = where.getFileSystem(spark._jsc.hadoopConfiguration()).open(where)
    try:
        return str(jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(stream, "UTF-8")).readLine() or "")
    finally:
        stream.close()
