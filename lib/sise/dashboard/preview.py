"""What a rule would pick on the last session, without a JVM: its expressions evaluated by DuckDB over the rows that
watchlists/universe.py describes. Tests compare it with Spark's answer."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from sise.calendars import Calendar
from sise.dashboard.data.market import last_session
from sise.dashboard.data.view import LakeView
from sise.errors import InputError
from sise.prices.factors import factors_of
from sise.settings import Settings
from sise.watchlists.rules import NOT_OWN, Rule
from sise.watchlists.suspect import FIRST_LISTING_DAYS, LASTING, PAUSE, SUSPECT

__all__ = ["picked", "session_rows"]

_KEY = ["country", "symbol"]
_LISTED = ["name", "market_cap", "listed_shares", "is_etf", "is_warning", "is_administration", "is_halted", "active"]
_LOOK_BACK = timedelta(days=70)  # 40 sessions and a long holiday; who paused for longer is looked up
_PATIENCE = 10.0


def session_rows(view: LakeView, calendars: Mapping[str, Calendar]) -> pa.Table:
    """A row for each share that traded on its country's last session, with every column that a rule may name and
    ``eligible``; as watchlists/universe.py has it."""
    tables = ["indicators", "live_state", "prices", "symbols", "actions"]

    def build() -> pa.Table:
        parts = []
        for country in ("KR", "US"):
            day = last_session(view, country)
            if day is not None:
                parts.append(_country_rows(view, calendars[country], country, day))
        if not parts:
            raise InputError(f"{view.reader.root} has no indicators yet: run jobs/compute_indicators.py first")
        return pa.Table.from_pandas(pd.concat(parts, ignore_index=True), preserve_index=False)

    return view.memo(tables, "session_rows", build)


def _country_rows(view: LakeView, calendar: Calendar, country: str, day: date) -> pd.DataFrame:
    settings = view.settings
    drop = {"filter_state"}
    columns = [c for c in view.columns("indicators") if c not in drop]
    mine = ("country", "=", country)
    recent = view.read("indicators", columns, [mine, ("date", ">=", day - _LOOK_BACK), ("date", "<=", day)])
    now, before = recent[recent["date"] == day], recent[recent["date"] < day]
    before = before.sort_values("date").drop_duplicates("symbol", keep="last")
    alone = tuple(now[~now["symbol"].isin(before["symbol"])]["symbol"])
    if alone:  # on their first day, or back from a pause: some on most days, and years of all would be read for them
        where = [mine, ("symbol", "in", alone), ("date", "<", day - _LOOK_BACK)]
        earlier = view.read("indicators", columns, where).sort_values("date").drop_duplicates("symbol", keep="last")
        before = pd.concat([before, earlier])
    past = [c for c in columns if c not in {*_KEY, "date", "market"}]
    before = before[["symbol", *past]].rename(columns={c: f"prev_{c}" for c in past})
    rows = now.merge(before, on="symbol", how="left")
    rows = rows.merge(_listings(view, country, day), on="symbol", how="left")
    rows = rows.merge(_bars(view, country, day), on="symbol", how="left")
    same = rows["close"] / rows["stored"]
    same = same.mask((same / rows["lacking"] - 1).abs() < 1e-9, rows["lacking"])  # as in watchlists/universe.py
    for column in ("open", "high", "low"):
        rows[column] = rows[column] * same
    rows["market_cap"] = rows["market_cap"].fillna(rows["listed_shares"] * rows["traded"])
    rate = settings.krw_per_usd.on(day) if country == "KR" else 1.0
    rows["market_cap_usd"] = rows["market_cap"] / rate
    mean = rows["volume_avg_20"] * rows["close"] if "volume_avg_20" in rows else pd.Series(np.nan, index=rows.index)
    rows["turnover"] = mean.fillna(rows["value"]).fillna(rows["volume"] * rows["close"])
    rows["large_cap_usd"] = settings.large_cap_usd
    suspect = _suspects(view, calendar, country, day, settings.suppress_bars)
    rows["eligible"] = _eligible(rows, suspect, settings, country)
    return rows.drop(columns=["stored", "traded", "lacking"])


def _eligible(rows: pd.DataFrame, suspect: set[str], settings: Settings, country: str) -> pd.Series:
    floor = settings.turnover_floor_krw if country == "KR" else settings.turnover_floor_usd
    good = (rows["turnover"] >= floor) & ~rows["symbol"].isin(suspect)
    good &= rows["active"].astype("boolean").fillna(True).astype(bool)
    for flag in ("is_halted", "is_warning", "is_administration", "is_etf"):
        good &= ~rows[flag].astype("boolean").fillna(False).astype(bool)
    return good


def _listings(view: LakeView, country: str, day: date) -> pd.DataFrame:
    """The listing valid on the day; some days before its first row a share is taken as that row describes it, and
    further back only name and is_etf are (as in watchlists/universe.py)."""
    rows = view.read("symbols", ["symbol", "valid_from", *_LISTED], [("country", "=", country)])
    rows = rows.sort_values("valid_from")
    valid = rows[rows["valid_from"] <= day].drop_duplicates("symbol", keep="last")
    first = rows.drop_duplicates("symbol", keep="first")
    first = first[~first["symbol"].isin(valid["symbol"])].copy()
    late = first["valid_from"] > day + timedelta(days=FIRST_LISTING_DAYS)
    for column in (c for c in _LISTED if c not in LASTING):
        first[column] = first[column].mask(late)
    return pd.concat([valid, first]).drop(columns="valid_from")


def _bars(view: LakeView, country: str, day: date) -> pd.DataFrame:
    columns = ["symbol", "date", "open", "high", "low", "value", "flags", "close", "basis"]
    rows = view.read("prices", columns, [("date", "=", day), ("country", "=", country)])
    known = view.read("actions", None, [("country", "=", country), ("ex_date", ">=", day)])
    applied, rows["lacking"] = pd.Series(1.0, index=rows.index), 1.0
    for symbol, actions in known.groupby("symbol"):
        at = rows.index[rows["symbol"] == symbol]
        if len(at):
            dates, bases = list(rows.loc[at, "date"]), list(rows.loc[at, "basis"])
            rows.loc[at, "lacking"], applied[at] = factors_of(dates, bases, actions.to_dict("records"))
    rows["stored"], rows["traded"] = rows["close"], rows["close"] / applied
    return rows.drop(columns=["date", "close", "basis"])


def _suspects(view: LakeView, calendar: Calendar, country: str, day: date, bars: int) -> set[str]:
    if not bars:
        return set()
    where = [("country", "=", country), ("date", ">=", calendar.back(day, bars + PAUSE)), ("date", "<=", day)]
    rows = view.read("prices", ["symbol", "date", "flags"], [*where, ("volume", ">", 0)])
    flagged = [flags is not None and len(flags) > 0 and not set(SUSPECT).isdisjoint(flags) for flags in rows["flags"]]
    some = rows[["symbol", "date"]].assign(flagged=flagged)
    some = some[some["symbol"].isin(rows["symbol"][flagged])].sort_values("date").groupby("symbol").tail(bars)
    return set(some["symbol"][some["flagged"]])


def picked(rows: pa.Table, rule: Rule) -> pd.DataFrame:
    """What ``rule`` picks among ``session_rows``: country, market, symbol, name, rank and the columns it names, ranked
    in each market from 1. Raises InputError with what DuckDB says of an expression."""
    expression, _, direction = rule.rank_by.rpartition(" ")
    for text in (rule.when, expression):
        if found := NOT_OWN.search(text):
            raise InputError(f"{found.group(0)!r} is not for rules: they look at the share's own columns only")
    options = {"enable_external_access": "false", "memory_limit": "1GB", "threads": "2"}
    con = duckdb.connect(config={**options, "python_enable_replacements": "false"})
    try:
        con.register("shares", rows)
        con.execute("SET lock_configuration = true")
        timer = threading.Timer(_PATIENCE, con.interrupt)
        timer.start()
        try:
            return _pick(con, rule, expression, direction)
        except duckdb.Error as problem:
            raise InputError(_in_words(str(problem), rows.column_names)) from problem
        finally:
            timer.cancel()
    finally:
        con.close()


def _in_words(said: str, columns: list[str]) -> str:
    """What DuckDB complains of; a column that there is not comes with those that are called alike."""
    first = re.sub(r"^\w+ Error:\s*", "", said.strip().splitlines()[0])
    missing = re.search(r'Referenced column "([^"]+)"', first)
    if missing is None:
        return first
    near = difflib.get_close_matches(missing[1], columns, 5, 0.5)
    return (
        f"there is no column {missing[1]}: {'is it ' + ', '.join(near) if near else 'there are ' + ', '.join(columns)}"
    )


def _pick(con: Any, rule: Rule, expression: str, direction: str) -> pd.DataFrame:
    shares = con.table("shares")
    kind = shares.select(duckdb.SQLExpression(rule.when).alias("when_")).types[0]
    if str(kind) != "BOOLEAN":  # DuckDB would take a number for true or false, Spark does not
        raise InputError(f"{rule.when!r} is a {str(kind).lower()}, and a condition has to be true or false")
    held = shares.filter("eligible").filter(duckdb.SQLExpression(rule.when))
    by = duckdb.SQLExpression(expression).alias("by_")
    numbers = [c for c, kind in zip(shares.columns, shares.types, strict=True) if str(kind) in ("DOUBLE", "BIGINT")]
    named = [c for c in dict.fromkeys(["close", *rule.columns(numbers)])]
    said = held.select(*[duckdb.ColumnExpression(c) for c in dict.fromkeys([*_KEY, "market", "name", *named])], by).df()
    said = said.sort_values("symbol", kind="stable")
    said = said.sort_values("by_", ascending=direction == "asc", na_position="last", kind="stable")
    said["rank"] = said.groupby("market").cumcount() + 1
    if rule.top is not None:
        said = said[said["rank"] <= rule.top]
    return said.drop(columns="by_").sort_values(["market", "rank"], ignore_index=True)
