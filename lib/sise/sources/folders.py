"""Parquet and CSV files of a path, through Hadoop's file systems, so that s3a:// works as a folder does."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from sise.errors import InputError

__all__ = ["files_of", "frames_of"]

_HEAD = 8_192
_ENCODINGS = ("UTF-8", "MS949")  # the latter as Excel in Korea and the exchange's site write it
_EMPTY = ("UTF-8", "")


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
        groups: dict[tuple[str, str], list[str]] = {}
        for file in files:
            groups.setdefault(_form(spark, file), []).append(file)
        if len(groups) > 1:
            groups.pop(_EMPTY, None)
        return [reader.option("encoding", encoding).csv(group) for (encoding, _), group in groups.items()]
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


def _form(spark: SparkSession, file: str) -> tuple[str, str]:
    """Of a CSV: its encoding, as its beginning tells it, and the line of its columns' names."""
    where = _place(spark, file)
    stream = where.getFileSystem(spark._jsc.hadoopConfiguration()).open(where)
    try:
        head = bytes(stream.readNBytes(_HEAD))
    finally:
        stream.close()
    for encoding in _ENCODINGS:
        with suppress(UnicodeDecodeError):
            return encoding, codecs.getincrementaldecoder(encoding)().decode(head).partition("\n")[0].strip()
    raise InputError(f"{file} is neither UTF-8 nor CP949 text: save it as CSV in UTF-8")
