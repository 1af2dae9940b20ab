"""The Spark session of a job, and the words by which a person finds its work in the Spark UI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from sise.errors import SiseError

__all__ = ["described", "open_session"]


def open_session(name: str) -> SparkSession:
    """The session that spark-submit configured (conf/spark-defaults.conf, jars); says so where Delta is missing."""
    spark = SparkSession.builder.appName(f"sise {name}").getOrCreate()
    if "DeltaSparkSessionExtension" not in spark.conf.get("spark.sql.extensions", ""):
        spark.stop()
        raise SiseError(
            "this Spark session has no Delta Lake: start the job with ./spark-submit.sh, or give spark-submit the "
            "jars of conf/jars.lock and --properties-file conf/spark-defaults.conf"
        )
    return spark


@contextmanager
def described(spark: SparkSession, what: str) -> Iterator[None]:
    """Spark jobs started inside carry ``what`` as their description; the one before comes back afterwards."""
    context = spark.sparkContext
    before = context.getLocalProperty("spark.job.description")
    context.setJobDescription(what)
    try:
        yield
    finally:
        context.setLocalProperty("spark.job.description", before)
