"""Parquet and CSV files of a path, through Hadoop's file systems, so that s3a:// works as a folder does."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sise.console import tell
from sise.errors import InputError

__all__ = ["SURPLUS", "files_of", "frames_of", "shown"]

SURPLUS = "_surplus"  # of a CSV's row with more fields than its header: the row; else null

_HEAD = 8_192
_MOST = 64 * 2**20  # characters of a file that are looked at for its encoding
_PACKED = (".gz", ".bz2")
_ENCODINGS = ("UTF-8", "MS949")  # the latter as Excel in Korea and the exchange's site write it
_EMPTY = ("UTF-8", "")


def files_of(spark: SparkSession, path: str) -> Mapping[str, list[str]]:
    """The files of a path, a file or a folder with whatever folders are in it, by kind: parquet, csv (which may be
    packed: .csv.gz, .csv.bz2). What is hidden, or lies in a hidden folder (.ipynb_checkpoints, _delta_log), is none;
    others are told. Raises InputError where the path does not exist."""
    where = _place(spark, path)
    system = where.getFileSystem(spark._jsc.hadoopConfiguration())
    if not system.exists(where):
        raise InputError(f"{path} does not exist: --path takes a parquet or csv file, or a folder of them")
    root = str(system.getFileStatus(where).getPath().toUri().getPath())
    found: dict[str, list[str]] = {}
    others: list[str] = []
    entries = system.listFiles(where, True)
    while entries.hasNext():
        file = entries.next().getPath()
        below = str(file.toUri().getPath())[len(root) :].strip("/") or str(file.getName())
        if any(part.startswith((".", "_")) and "=" not in part for part in below.split("/")):
            continue
        name = below.lower()
        kind = next((name.removesuffix(end) for end in _PACKED if name.endswith(f".csv{end}")), name).rpartition(".")[2]
        if kind in {"parquet", "csv"}:
            found.setdefault(kind, []).append(str(file.toString()))
        else:
            others.append(below)
    if found and others:
        shown = ", ".join(sorted(others)[:5])
        tell(f"{path}: {len(others)} files are neither parquet nor csv and were left out: {shown}")
    return {kind: sorted(files) for kind, files in found.items()}


def frames_of(spark: SparkSession, kind: str, files: Sequence[str]) -> list[DataFrame]:
    """The files as few frames, each of files with the same columns of the same types; of CSV all is text, and there is
    the column SURPLUS. Raises InputError that names a file which cannot be read."""
    if kind == "csv":
        groups: dict[tuple[str, str], list[str]] = {}
        for file in files:
            with _readable(file, "csv"):
                groups.setdefault(_form(spark, file), []).append(file)
        if len(groups) > 1:
            groups.pop(_EMPTY, None)
        return [_csv(spark, group, encoding) for (encoding, _), group in groups.items()]
    try:
        return [spark.read.option("mergeSchema", str(len(files) > 1).lower()).parquet(*_literally(files))]
    except (PySparkException, Py4JJavaError):  # types that do not go together, or a file that is none
        forms: dict[str, list[str]] = {}
        for file in files:
            with _readable(file, "parquet"):
                forms.setdefault(spark.read.parquet(*_literally([file])).schema.simpleString(), []).append(file)
        if len(forms) < 2:
            raise
        return [spark.read.parquet(*_literally(some)) for some in forms.values()]


def _csv(spark: SparkSession, files: Sequence[str], encoding: str) -> DataFrame:
    """Spark drops the fields that a row has too many: of 12,345 without quotes it would keep 12."""
    reader = spark.read.option("header", "true").option("enforceSchema", "false").option("encoding", encoding)
    paths = list(_literally(files))
    named = reader.csv(paths).schema
    whole = T.StructType([*named, T.StructField(SURPLUS, T.StringType())])
    rows = reader.option("columnNameOfCorruptRecord", SURPLUS).schema(whole).csv(paths)
    # Such a row has as many separators as there are columns, or more; those at its end have nothing behind them.
    bare = F.regexp_replace(F.regexp_replace(SURPLUS, '"[^"]*"', ""), r"[,\s]+$", "")
    return rows.withColumn(SURPLUS, F.when(F.regexp_count(bare, F.lit(",")) >= len(named), F.col(SURPLUS)))


def shown(file: str) -> str:
    """A file as a person names it, not as Spark does."""
    return unquote(file).removeprefix("file://").removeprefix("file:")


def _literally(files: Sequence[str]) -> Iterator[str]:
    """Their paths as Spark is to be given them, which takes a path for a pattern."""
    return (re.sub(r"([\[\]{}*?\\])", r"\\\1", file) for file in files)


@contextmanager
def _readable(file: str, kind: str) -> Iterator[None]:
    """What Java says of a file that it cannot read, as an InputError that names it."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as problem:
        why = str(problem.java_exception) if isinstance(problem, Py4JJavaError) else str(problem)
        first = why.strip().splitlines()[0][:300]
        said = f"{shown(file)} cannot be read as {kind}: is it damaged, or cut off? ({first})"
        raise InputError(said) from problem


def _place(spark: SparkSession, path: str) -> Any:
    assert spark._jvm is not None
    return spark._jvm.org.apache.hadoop.fs.Path(path)


def _form(spark: SparkSession, file: str) -> tuple[str, str]:
    """Of a CSV: its encoding, and the line of its columns' names."""
    with closing(_opened(spark, file)) as stream:
        head = bytes(stream.readNBytes(_HEAD))
    for encoding in _ENCODINGS:
        with suppress(UnicodeDecodeError):
            line = codecs.getincrementaldecoder(encoding)().decode(head).partition("\n")[0].strip()
            if _is_text(spark, file, encoding):  # its first name that is no ASCII may stand far behind
                return encoding, line
    raise InputError(f"{shown(file)} is neither UTF-8 nor CP949 text: save it as CSV in UTF-8")


def _opened(spark: SparkSession, file: str) -> Any:
    """Its bytes, unpacked, as Java's stream."""
    assert spark._jvm is not None
    conf = spark._jsc.hadoopConfiguration()
    where = _place(spark, file)
    stream = where.getFileSystem(conf).open(where)
    codec = spark._jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(conf).getCodec(where)
    return stream if codec is None else codec.createInputStream(stream)


def _is_text(spark: SparkSession, file: str, encoding: str) -> bool:
    java: Any = spark._jvm
    decoder = java.java.nio.charset.Charset.forName(encoding).newDecoder()  # which reports what it cannot read
    with closing(java.java.io.InputStreamReader(_opened(spark, file), decoder)) as reader:
        try:
            reader.skip(_MOST)
        except Py4JJavaError as problem:
            if (
                "CharacterCodingException" in str(problem)
                or "MalformedInput" in str(problem)
                or "Unmappable" in str(problem)
            ):
                return False
            raise
    return True
