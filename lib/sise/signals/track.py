"""The signals that fired, evaluated: only those that are not finished, or whose days have changed since the last run.

What has been done is written with signal_summary's commit (the versions that were read): it is the last table of a
run, so a run killed before it is done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.columns import numbered_sessions
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.session import Hold, described
from sise.settings import Settings
from sise.signals.performance import HORIZONS, LOOKAHEAD, evaluate
from sise.signals.summary import ALL, sentence, summarize
from sise.watchlists.rules import DIRECTIONS, load_directions
from sise.watchlists.universe import Read

__all__ = ["evaluated", "last_sessions", "pinned", "track_signals"]

_SHARE = ["country", "symbol"]
_BEHIND = 10  # sessions; a signal's own may have no bar, and its share a locked one soon
_READ = ("prices", "actions", "symbols", "indices")
# Which rows of a share a change concerns: those that depend on a day from this one on. All, where it is a factor: it
# may count for one of two bars, whatever their days, since each has a basis of its own.
_DATED = {"prices": "date", "actions": "IF(kind = 'dividend', ex_date, DATE'1900-01-01')", "symbols": "valid_from"}


def track_signals(spark: SparkSession, lake: Lake, settings: Settings, calendars: Mapping[str, Calendar]) -> Outcome:
    """Brings signal_performance and signal_summary up to date with the signals archived and the prices known."""
    for name in ("signals", "prices"):
        lake.demand(name)
    directions = _directions_before(lake) | load_directions(settings.conf_file("watchlists.json"))
    versions = {name: lake.version(name) for name in ("signals", *_READ)}
    read = pinned(lake, versions)
    outcome = Outcome(versions=dict(versions))
    done = _progress(lake, calendars)
    with Hold() as hold:
        with described(spark, "signals: which are not finished, or have changed days"):
            changed = _changes(lake, done, versions, outcome)
            # What --source test made to fire has invented prices: it says nothing of a rule.
            made = F.coalesce(F.col("label"), F.lit("")) != ""
            outcome.details["labelled"] = read("signals").where(made).count()
            signals = _with_direction(read("signals").where(~made), directions)
            known = lake.read("signal_performance")
            todo = hold(_select_todo(signals, known, changed, waiting=done != versions))
            outcome.rows_in, first = todo.agg(F.count(F.lit(1)), F.min("session")).collect()[0]
        if outcome.rows_in:
            with described(spark, f"signals: evaluate {outcome.rows_in}"):
                as_of = last_sessions(read("prices"))
                rows = hold(_performance(todo, evaluated(todo, read, calendars, as_of, first, _BEHIND), as_of))
            with described(spark, "signals: merge their performance"):
                outcome.rows_out = lake.merge("signal_performance", rows).changed
        if done is None or done["signals"] != versions["signals"]:
            with described(spark, "signals: take out the performance of those that are gone"):
                _take_out(lake, signals, outcome, hold)
        with described(spark, "signals: figures by rule, market and month"):
            _summarize(lake, versions, done, calendars, outcome, hold)
    if count := outcome.details["labelled"]:
        outcome.say(f"{count} signals of produce_ticks --source test are left out: their prices are invented")
    _say_unknown(signals, directions, outcome)
    return outcome


def pinned(lake: Lake, versions: Mapping[str, int]) -> Read:
    """Reads a table at its version in ``versions``."""
    return lambda name: lake.read(name, versions[name] if versions.get(name, -1) >= 0 else None)


def last_sessions(prices: DataFrame) -> dict[str, date]:
    rows = prices.groupBy("country").agg(F.max("date").alias("date")).collect()
    return {row["country"]: row["date"] for row in rows}


def evaluated(
    entries: DataFrame,
    read: Read,
    calendars: Mapping[str, Calendar],
    as_of: Mapping[str, date],
    first: date,
    behind: int = 0,
) -> DataFrame:
    """``performance.evaluate`` over the tables of the lake; ``first``: the earliest session of ``entries``."""
    known = [c for c in calendars if c in as_of]
    first = min((calendars[c].back(first, behind) for c in known), default=first)
    end = max((calendars[c].after(as_of[c], LOOKAHEAD) for c in known), default=first)
    sessions = numbered_sessions(entries.sparkSession, calendars, first, end)
    shares = F.broadcast(entries.select(*_SHARE).distinct())
    prices = read("prices").where(F.col("date") >= F.lit(first)).join(shares, on=_SHARE, how="left_semi")
    return evaluate(entries, prices, read("actions"), read("indices"), read("symbols"), sessions, as_of, behind)


def _directions_before(lake: Lake) -> dict[str, str]:
    """By name, what a live rule that is gone from the file was taken for when it was last in force."""
    found: dict[str, str] = {}
    for row in lake.read("live_rules").orderBy("since").select("rules").collect():
        found |= {rule["name"]: rule.get("direction", DIRECTIONS[0]) for rule in json.loads(row["rules"])}
    return found


def _with_direction(signals: DataFrame, directions: Mapping[str, str]) -> DataFrame:
    """The direction that the rule has now, or had last; a signal of a rule that nobody knows is taken for long."""
    short = [rule for rule, direction in directions.items() if direction == "short"]
    taken_for = F.when(F.col("signal_type").isin(short), F.lit("short")).otherwise(F.lit(DIRECTIONS[0]))
    names = {"signal_id": "entry_id", "signal_type": "rule"}
    kept = ("signal_id", "signal_type", *_SHARE, "market", "session", "rule_version")
    return signals.select(*[F.col(c).alias(names.get(c, c)) for c in kept], taken_for.alias("direction"))


@dataclass(frozen=True)
class _Changes:
    """Since the last run: the earliest changed day by share and by index; None where everything is to be done."""

    shares: DataFrame
    indices: DataFrame


def _changes(
    lake: Lake, done: Mapping[str, int] | None, versions: Mapping[str, int], outcome: Outcome
) -> _Changes | None:
    if done is None:
        return None
    frames = {name: lake.changes(name, done[name], versions[name]) for name in _READ}
    if any(frame is None for frame in frames.values()):
        outcome.say("the change feed no longer reaches back to the last run: every signal is evaluated again")
        return None
    found = [frames[name].select(*_SHARE, F.expr(c).alias("since")) for name, c in _DATED.items()]  # type: ignore[union-attr]
    shares = reduce(DataFrame.unionByName, found).groupBy(*_SHARE).agg(F.min("since").alias("_since"))
    index = frames["indices"]
    assert index is not None
    return _Changes(shares, index.groupBy(F.col("index").alias("market")).agg(F.min("date").alias("_index_since")))


def _select_todo(signals: DataFrame, known: DataFrame, changed: _Changes | None, waiting: bool) -> DataFrame:
    """The signals that have no row, or one that may depend on something that has changed since; those that wait for
    a session's end only where a table has moved on at all (``waiting``)."""
    if changed is None:
        return signals
    known = known.select(
        F.col("signal_id").alias("entry_id"), "complete", "until", F.col("direction").alias("_direction")
    )
    rows = (
        signals.join(known, on="entry_id", how="left")
        .join(changed.shares, on=_SHARE, how="left")
        .join(F.broadcast(changed.indices), on="market", how="left")
    )
    fresh = F.col("complete").isNull() | (F.col("direction") != F.col("_direction"))
    if waiting:
        fresh = fresh | ~F.col("complete")
    touched = _true(F.col("until") >= F.col("_since")) | _true(F.col("until") >= F.col("_index_since"))
    return rows.where(_true(fresh) | touched).select(*signals.columns)


def _take_out(lake: Lake, signals: DataFrame, outcome: Outcome, hold: Hold) -> None:
    """A signal that somebody took out of the archive (a replay's, say) counts no more."""
    ids = signals.select(F.col("entry_id").alias("signal_id"))
    known = lake.read("signal_performance")
    gone = hold(known.join(ids, "signal_id", "left_anti"))
    if count := gone.count():
        lake.merge("signal_performance", known.limit(0), deletes=gone)
        outcome.rows_out += count
        outcome.say(f"{count} signals are not in the archive any more: their rows were taken out")


def _true(condition: Column) -> Column:
    return F.coalesce(condition, F.lit(False))


def _performance(todo: DataFrame, results: DataFrame, as_of: Mapping[str, date]) -> DataFrame:
    """Rows of signal_performance."""
    today = F.lit(max(as_of.values(), default=None))
    rows = results.join(todo.select("entry_id", "rule", "rule_version"), on="entry_id", how="inner")
    return rows.withColumnRenamed("entry_id", "signal_id").withColumn("evaluated_on", today)


def _summarize(
    lake: Lake,
    versions: Mapping[str, int],
    done: Mapping[str, int] | None,
    calendars: Mapping[str, Calendar],
    outcome: Outcome,
    hold: Hold,
) -> None:
    if done == versions and not outcome.rows_in:
        figures = lake.read("signal_summary")
    else:
        figures = hold(summarize(lake.read("signal_performance"), "rule"))
        note = {
            "versions": versions,
            "ids": {name: lake.identity(name) for name in versions},
            "performance": lake.version("signal_performance"),
            "sessions": {c: [str(known.today()), known.fingerprint(known.today())] for c, known in calendars.items()},
        }
        lake.replace("signal_summary", figures.coalesce(1), note=json.dumps(note))
    whole = figures.where((F.col("market") == ALL) & (F.col("month") == ALL)).orderBy("rule", "horizon").collect()
    outcome.details["rules"] = {}
    for row in whole:
        outcome.details["rules"].setdefault(row["rule"], {})[row["horizon"]] = {
            c: row[c] for c in ("signals", "cases", "open", "no_entry", "suspect", "hit_rate", "mean", "mean_excess")
        }
    outcome.say(f"{outcome.rows_in} signals evaluated, {outcome.rows_out} rows new or changed")
    for row in whole:
        if row["cases"] or row["horizon"] == HORIZONS[0]:
            outcome.say(f"{row['rule']}, {row['horizon']} sessions: {sentence(row)}")


def _say_unknown(signals: DataFrame, directions: Mapping[str, str], outcome: Outcome) -> None:
    names = [row["rule"] for row in signals.select("rule").distinct().collect()]
    if gone := sorted(set(names) - set(directions)):
        outcome.say(f"not in conf/watchlists.json, taken for long: {', '.join(gone)}")


def _progress(lake: Lake, calendars: Mapping[str, Calendar]) -> dict[str, int] | None:
    """The versions that the last run had read; None where there was none, or it was killed between its two commits, or
    a table is another one or older now, or a session of that time turned out to be none, or to be one."""
    note = lake.note("signal_summary") if lake.exists("signal_performance") else None
    try:
        done = json.loads(note or "")
        versions, ids, written = dict(done["versions"]), dict(done["ids"]), int(done["performance"])
        moved = any(
            calendars[c].fingerprint(date.fromisoformat(day)) != sessions
            for c, (day, sessions) in done["sessions"].items()
        )
    except (KeyError, TypeError, ValueError):
        return None
    other = (
        moved
        or written != lake.version("signal_performance")
        or any(lake.replaced(name, version, ids.get(name)) for name, version in versions.items())
    )
    return versions if not other and set(versions) == {"signals", *_READ} else None
