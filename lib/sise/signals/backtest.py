"""A rule over the lake's whole history: every share and day it would have picked, evaluated as signals are.

The rows that the rule sees, and who may be picked on a day, come from watchlists/universe.py, which the watchlists
use too; the returns from performance.py, as those of the signals do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.errors import InputError, UsageError
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.session import Hold, described
from sise.settings import Settings
from sise.signals.summary import ALL, no_figures, sentence, summarize
from sise.signals.track import evaluated, last_sessions, pinned
from sise.watchlists.rules import Rule, checked_rule, load_directions, load_rules
from sise.watchlists.scan import failing
from sise.watchlists.universe import RECENT_SESSIONS, Read, Spans, eligible, session_shares, shares_between

__all__ = ["Question", "backtest_rule", "find_entries", "select_entries"]

_SHARE = ["country", "symbol"]
_READ = ("indicators", "prices", "actions", "symbols", "indices")
_AD_HOC = "when"


@dataclass(frozen=True)
class Question:
    """Which rule (one of conf/watchlists.json, or an expression like a rule's ``when``), and over which days."""

    rule: str | None = None
    when: str | None = None
    direction: str | None = None
    start: date | None = None
    end: date | None = None
    markets: tuple[str, ...] = ()
    every_bar: bool = False

    def __post_init__(self) -> None:
        if (self.rule is None) == (self.when is None):
            raise UsageError("name a rule of conf/watchlists.json with --rule, or write one with --when")
        if self.start and self.end and self.start > self.end:
            raise UsageError(f"--start {self.start} is after --end {self.end}")


def backtest_rule(
    spark: SparkSession,
    lake: Lake,
    registry: Registry,
    settings: Settings,
    calendars: Mapping[str, Calendar],
    question: Question,
) -> Outcome:
    """Evaluates a rule's entries from the first to the last session asked for; the figures go into ``backtests``.

    A table, and not a report file: two rules, or one rule before and after a change, are compared with a query, by
    the viewer too. Its id follows from the question, the rule, the settings, the calendar and the versions of the
    tables read, so the same question about the same data has one answer in it, however often it is asked.
    """
    for name in ("indicators", "prices"):
        lake.demand(name)
    rule = _rule(question, settings, session_shares(lake, registry, settings, {}, calendars))
    versions = {name: lake.version(name) for name in _READ}
    read = pinned(lake, versions)
    outcome = Outcome(versions=dict(versions))
    with described(spark, "backtest: which sessions there are"):
        spans = _spans(read("indicators"), question)
    with Hold() as hold:
        picked = find_entries(read, registry, settings, calendars, rule, spans, question.every_bar)
        if question.markets:
            picked = picked.where(F.col("market").isin(*question.markets))
        with described(spark, f"backtest: the entries of {rule.name}"), failing(rule.name, "a bar of that time"):
            entries = hold(picked)
            outcome.rows_in = entries.count()
        as_of, first = last_sessions(read("prices")), min(day for day, _ in spans.values())
        with described(spark, f"backtest: evaluate {outcome.rows_in} entries"):
            results = evaluated(entries, read, calendars, as_of, first)
            figures = hold(summarize(results) if outcome.rows_in else no_figures(summarize(results)))
        known = {c: calendars[c].fingerprint(day) for c, day in sorted(as_of.items())}
        asked = _asked(question, rule, spans, settings, {"versions": versions, "sessions": known})
        with described(spark, "backtest: keep the figures"):
            outcome.rows_out = lake.merge("backtests", _rows(figures, asked, rule, spans, versions)).changed
        _tell(figures, asked, rule, spans, outcome)
        _tell_unlisted(read("symbols"), spans, outcome)
    return outcome


def _tell_unlisted(symbols: DataFrame, spans: Spans, outcome: Outcome) -> None:
    known = symbols.groupBy("country").agg(F.min("valid_from").alias("since")).collect()
    since = {row["country"]: row["since"] for row in known}
    for country, (first, _) in spans.items():
        if country not in since or since[country] > first:
            before = f"before {since[country]}" if country in since else "on any day"
            outcome.say(
                f"{country}: {before} no listing is known: no share has a market cap there, and none is left out for a "
                "warning, a halt or administration"
            )


def _rule(question: Question, settings: Settings, shares: DataFrame) -> Rule:
    if question.when is not None:
        entry = {"name": _AD_HOC, "when": question.when, "direction": question.direction or "long"}
        return checked_rule(entry, shares)
    path = settings.conf_file("watchlists.json")
    rules = {rule.name: rule for rule in load_rules(path, shares)}
    if question.rule not in rules:
        if question.rule in load_directions(path):
            raise InputError(
                f"rule {question.rule!r} in {path} looks at ticks alone ('live'), which have no history: a backtest "
                "needs 'when' or 'cross'"
            )
        raise InputError(f"no rule {question.rule!r} in {path}: there are {', '.join(sorted(rules))}")
    rule = rules[question.rule]
    return rule if question.direction is None else Rule(**{**vars(rule), "direction": question.direction})


def _spans(indicators: DataFrame, question: Question) -> dict[str, tuple[date, date]]:
    """The sessions of each country that the question covers."""
    rows = indicators
    if question.start:
        rows = rows.where(F.col("date") >= F.lit(question.start))
    if question.end:
        rows = rows.where(F.col("date") <= F.lit(question.end))
    if question.markets:
        rows = rows.where(F.col("market").isin(*question.markets))
    found = rows.groupBy("country").agg(F.min("date").alias("first"), F.max("date").alias("last")).collect()
    if not found:
        raise InputError("no indicators of those days and markets: see 'sise status' for the days there are")
    return {row["country"]: (row["first"], row["last"]) for row in found}


def find_entries(
    read: Read,
    registry: Registry,
    settings: Settings,
    calendars: Mapping[str, Calendar],
    rule: Rule,
    spans: Spans,
    every_bar: bool = False,
) -> DataFrame:
    """``select_entries`` over the tables of the lake, with the bars that stand before ``spans``. Complains of days
    before the first rate of SISE_KRW_PER_USD."""
    if "KR" in spans:
        settings.krw_per_usd.on(spans["KR"][0])
    wide = {c: (calendars[c].back(first, RECENT_SESSIONS), last) for c, (first, last) in spans.items()}
    named = rule.columns(registry.columns) + rule.columns([f"prev_{c}" for c in registry.columns])
    columns = list(dict.fromkeys(name.removeprefix("prev_") for name in named))
    rows = shares_between(read, registry, settings, wide, calendars, columns)
    return select_entries(rows, rule, settings, spans, every_bar)


def select_entries(rows: DataFrame, rule: Rule, settings: Settings, spans: Spans, every_bar: bool = False) -> DataFrame:
    """(entry_id, country, market, symbol, session, direction) of the days in ``spans`` on which the rule picks a share.

    ``rows``: of universe.shares_between, some weeks longer at the start. A share is picked when it may be on a
    watchlist that day and the rule holds, and did not on the share's bar before (``every_bar``: whether it did or
    not). Unknown is no holding, as is what lies before ``rows``. A rule with ``top`` holds for the first so many of
    its market on that day.
    """
    rows = rows.withColumn("_eligible", eligible(settings)).withColumn(
        "_holds", F.coalesce(rule.condition, F.lit(False))
    )
    if rule.top is not None:
        order = Window.partitionBy("date", "market", "_listed").orderBy(rule.order, F.col("symbol"))
        listed = rows.withColumn("_listed", F.col("_holds") & F.col("_eligible"))
        rows = listed.withColumn("_holds", F.col("_listed") & (F.row_number().over(order) <= rule.top))
    share = Window.partitionBy("symbol", "country").orderBy("date")
    rows = rows.select(*_SHARE, "market", "date", "_eligible", "_holds")
    held = F.coalesce(F.lag("_holds").over(share), F.lit(False))
    begins = F.lit(True) if every_bar else ~held
    rows = rows.withColumn("_picked", F.col("_holds") & F.col("_eligible") & begins).where("_picked")
    within = F.lit(False)
    for country, (first, last) in spans.items():
        within = within | ((F.col("country") == country) & F.col("date").between(F.lit(first), F.lit(last)))
    return rows.where(within).select(
        F.concat_ws(":", *_SHARE, "date").alias("entry_id"),
        *_SHARE,
        "market",
        F.col("date").alias("session"),
        F.lit(rule.direction).alias("direction"),
    )


def _asked(
    question: Question, rule: Rule, spans: Spans, settings: Settings, read: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the answer depends on, ``read`` and the question; its hash is the id."""
    asked = {
        "rule": rule.name,
        "when": rule.when,
        "version": rule.version,
        "direction": rule.direction,
        "spans": {c: [str(day) for day in spans[c]] for c in sorted(spans)},
        "markets": sorted(question.markets),
        "every_bar": question.every_bar,
        **read,
        "settings": {
            name: str(getattr(settings, name))
            for name in ("krw_per_usd", "large_cap_usd", "turnover_floor_krw", "turnover_floor_usd", "suppress_bars")
        },
    }
    content = json.dumps(asked, sort_keys=True)
    return {
        "backtest_id": hashlib.sha256(content.encode()).hexdigest()[:16],
        "every_bar": question.every_bar,
        "markets": ",".join(sorted(question.markets)),
    }


def _rows(
    figures: DataFrame, asked: Mapping[str, Any], rule: Rule, spans: Spans, versions: Mapping[str, int]
) -> DataFrame:
    """Rows of ``backtests``."""
    pairs = [item for name, version in sorted(versions.items()) for item in (F.lit(name), F.lit(version))]
    said = {
        **{name: F.lit(value) for name, value in asked.items()},
        "rule": F.lit(rule.name),
        "when": F.lit(rule.when),
        "direction": F.lit(rule.direction),
        "rule_version": F.lit(rule.version),
        "first_session": F.lit(min(first for first, _ in spans.values())),
        "last_session": F.lit(max(last for _, last in spans.values())),
        "versions": F.create_map(*pairs),
    }
    return figures.withColumns(said).coalesce(1)


def _tell(figures: DataFrame, asked: Mapping[str, Any], rule: Rule, spans: Spans, outcome: Outcome) -> None:
    """The figures over all months, for the person and the JSON line."""
    whole = figures.where(F.col("month") == ALL).orderBy("horizon", F.col("market") != ALL, "market").collect()
    outcome.details = {
        "backtest_id": asked["backtest_id"],
        "rule": rule.name,
        "when": rule.when,
        "direction": rule.direction,
        "sessions": {country: [first, last] for country, (first, last) in spans.items()},
        "figures": [{k: v for k, v in row.asDict().items() if k != "month"} for row in whole],
    }
    days = ", ".join(f"{country} {first} … {last}" for country, (first, last) in sorted(spans.items()))
    outcome.say(f"{rule.name} ({rule.direction}: {rule.when}), {days}: {outcome.rows_in} entries")
    for row in whole if outcome.rows_in else ():
        where = "all markets" if row["market"] == ALL else row["market"]
        outcome.say(f"{row['horizon']} sessions, {where}: {sentence(row)}")
