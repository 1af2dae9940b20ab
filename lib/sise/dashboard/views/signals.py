"""Signals as they fire, newest first."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.market import sparks
from sise.dashboard.data.names import listing
from sise.dashboard.formats import ago, escaped
from sise.dashboard.live import Live
from sise.dashboard.parts import column, grid, plain, strip
from sise.errors import SiseError

__all__ = ["filtered", "show"]

EVERY = 0.5  # seconds between looks at the shared reader: a signal is on the page within a second
_SPANS = {"15m": 15 * 60, "1h": 3600, "today": 86_400, "all": None}


def show(here: Here) -> None:
    words = here.words
    a, b, c, d = st.columns([2, 3, 2, 2], vertical_alignment="bottom")
    markets = a.pills(
        words("filter.market"), ["KOSPI", "KOSDAQ", "NASDAQ", "NYSE"], selection_mode="multi", key="s-market"
    )
    names = [rule.name for rule in here.shared.rules.rules]
    rules = b.multiselect(
        words("filter.rule"), names, format_func=words.rule, key="s-rule", placeholder=words("filter.all")
    )
    span = c.segmented_control(
        words("filter.time"),
        list(_SPANS),
        default="all",
        format_func=lambda s: words(f"span.{s}"),
        key="s-span",
        required=True,
    )
    side = d.segmented_control(
        words("filter.side"), ["long", "short"], format_func=lambda s: words(f"side.{s}"), key="s-side"
    )
    _live(here, tuple(markets or ()), tuple(rules or ()), str(span), side)


@st.fragment(run_every=EVERY)
def _live(here: Here, markets: tuple[str, ...], rules: tuple[str, ...], span: str, side: str | None) -> None:
    words, live = here.words, here.shared.feed.now()
    if live.away:
        gone = ago(timedelta(seconds=time.monotonic() - live.since), here.prefs.language)
        where = escaped(here.shared.feed.where)
        told = (
            words("redis.fault", where=where, why=escaped(live.away), since=gone)
            if live.fault
            else f"{words('redis.away', where=where, since=gone)}\n\n{words('redis.todo')}"
        )
        st.warning(told, icon=":material/cloud_off:")
    short = {rule.name for rule in here.shared.rules.rules if rule.direction == "short"}
    now = int(time.time())  # fifty viewers who look at the same are one answer a second
    key = (now if _SPANS[span] else 0, live.version, markets, rules, span, side, tuple(sorted(short)))
    rows, text = _answer(here, key, lambda: filtered(live, markets, rules, _SPANS[span], side, short), short)
    _figures(here, live, rows)
    columns = [
        column("arrived", words("col.time"), "time"),
        column("symbol", words("col.share"), "name"),
        column("market", words("col.market"), phone=False),
        column("signal_type", words("col.rule"), "rule"),
        column("side", words("col.side"), "side", phone=False),
        column("trigger_price", words("col.trigger"), "price"),
        column("last_price", words("col.last"), "price", phone=False),
        column("pnl", words("col.pnl"), "pct", title=words("col.pnl.about")),
        column("best", words("col.best"), "pct", phone=False),
        column("worst", words("col.worst"), "pct", phone=False),
        column("spark", words("col.spark"), "spark", phone=False, title=words("col.spark.about")),
    ]
    said = {name: words.rule(name) for name in {r["signal_type"] for r in rows}}
    grid(
        here,
        columns,
        text,
        "signals",
        empty=words("signals.none") if not live.signals else words("signals.filtered"),
        words=said | {s: words(f"side.{s}") for s in ("long", "short")},
        height=720,
        flash=True,
    )


_answers: OrderedDict[Any, tuple[list[Any], str]] = OrderedDict()


def _answer(here: Here, key: Any, find: Callable[[], list[Any]], short: set[str]) -> tuple[list[Any], str]:
    """(the signals, the grid's rows as JSON), worked out once for all viewers with the same filters."""
    known = _answers.get(key)
    if known is None:
        rows = find()
        known = (
            rows,
            json.dumps(_records(here, rows, short), ensure_ascii=False, separators=(",", ":"), allow_nan=False),
        )
        _answers[key] = known
        while len(_answers) > 64:
            with suppress(KeyError):  # another viewer's run was quicker
                _answers.popitem(last=False)
    return known


def filtered(
    live: Live,
    markets: tuple[str, ...] = (),
    rules: tuple[str, ...] = (),
    seconds: float | None = None,
    side: str | None = None,
    short: set[str] | frozenset[str] = frozenset(),
    most: int = 200,
) -> list[Any]:
    """The newest signals that meet every filter; an empty one lets all through. ``seconds``: arrived since."""
    since = 0 if seconds is None else (time.time() - seconds) * 1000
    found = []
    for signal in live.signals:
        if signal["arrived"] < since:
            break  # newest first
        if markets and signal.get("market") not in markets:
            continue
        if rules and signal["signal_type"] not in rules:
            continue
        if side and (signal["signal_type"] in short) != (side == "short"):
            continue
        found.append(signal)
        if len(found) == most:
            break
    return found


def _records(here: Here, rows: list[Any], short: set[str]) -> list[dict[str, Any]]:
    try:
        closes, names = sparks(here.view), listing(here.view)["name"]
    except SiseError:
        closes, names = {}, pd.Series(dtype=object)  # Redis alone is worth showing
    keys = ("arrived", "market", "signal_type", "trigger_price", "last_price", "pnl", "best", "worst")
    return [
        {
            **{k: plain(signal.get(k)) for k in keys},
            "id": signal["id"],
            "share": signal["share"],
            "country": signal["country"],
            "symbol": signal["symbol"],
            "name": names.get(signal["share"], ""),
            "side": "short" if signal["signal_type"] in short else "long",
            # a signal that is no longer followed has no price of now
            "spark": plain([*closes.get(signal["share"], [])[-29:], *filter(None, [signal.get("last_price")])]),
        }
        for signal in rows
    ]


def _figures(here: Here, live: Live, rows: list[Any]) -> None:
    words = here.words
    open_ = [s["pnl"] for s in rows if s.get("pnl") is not None]
    ahead = sum(p > 0 for p in open_)
    last = "–"
    if live.signals:
        last = here.prefs.moment(datetime.fromtimestamp(live.signals[0]["arrived"] / 1000, UTC), seconds=True)
    ticks = [s["priced"] for s in rows if s.get("priced") is not None]
    priced = here.prefs.moment(datetime.fromtimestamp(max(ticks) / 1000, UTC), seconds=True) if ticks else "–"
    mean = f"{sum(open_) / len(open_):+.2%}" if open_ else "–"
    strip(
        [
            (words("signals.shown"), f"{len(rows):,}", words("signals.of", count=f"{len(live.signals):,}")),
            (words("signals.ahead"), f"{ahead}/{len(open_)}" if open_ else "–", words("signals.open")),
            (words("signals.mean"), mean, words("signals.cases", count=len(open_))),
            (words("signals.priced"), priced, words("signals.priced.note")),
            (words("signals.last"), last, words("signals.live") if not live.away else words("signals.paused")),
        ]
    )
