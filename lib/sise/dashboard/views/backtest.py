"""A rule over the whole lake: asked here, answered by jobs/backtest_rule.py in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
import streamlit as st

from sise.dashboard.asks import Ask, backtest_arguments
from sise.dashboard.context import Here
from sise.dashboard.data.worth import ALL, backtests
from sise.dashboard.edit import read_rules
from sise.dashboard.formats import escaped
from sise.dashboard.parts import column, empty, grid, line, lines, records
from sise.dashboard.preview import picked, session_rows
from sise.dashboard.views.performance import figure_columns
from sise.errors import InputError, SiseError
from sise.watchlists.rules import Rule

__all__ = ["show"]

_OWN = ""  # no rule has this name, in any language


def show(here: Here) -> None:
    words = here.words
    left, right = st.columns([2, 3])
    with left:
        _ask(here)
    with right:
        st.subheader(words("test.answer"), anchor=False)
        _running(here)
        _answer(here)
    _kept(here)


def _ask(here: Here) -> None:
    words = here.words
    st.subheader(words("test.question"), anchor=False)
    entries = [r for r in read_rules(here.settings).rules if isinstance(r, dict) and {"when", "cross"} & set(r)]
    name = st.selectbox(
        words("col.rule"),
        [_OWN, *[r["name"] for r in entries]],
        format_func=lambda rule: words.rule(rule) if rule else words("test.own"),
        index=1,
        key="b-rule",
    )
    when = None
    if name == _OWN:
        when = st.text_area(words("test.when"), "rsi_14 < 30 AND close > sma_200", key="b-when", height=90)
        _matches(here, when)
    a, b = st.columns(2)
    direction = a.segmented_control(
        words("filter.side"),
        ["long", "short"],
        key="b-side",
        default="long" if when is not None else None,
        format_func=lambda s: words(f"side.{s}"),
        help=words("test.side"),
    )
    markets = b.pills(
        words("filter.market"), ["KOSPI", "KOSDAQ", "NASDAQ", "NYSE"], selection_mode="multi", key="b-market"
    )
    start = a.date_input(words("test.start"), None, min_value=date(1990, 1, 1), key="b-start")
    end = b.date_input(words("test.end"), None, min_value=date(1990, 1, 1), key="b-end")
    every = st.toggle(words("test.every"), key="b-every", help=words("test.every.about"))
    if st.button(words("test.run"), type="primary", icon=":material/play_arrow:", width="stretch"):
        try:
            arguments = backtest_arguments(
                None if when is not None else str(name), when, direction, _iso(start), _iso(end), markets or (), every
            )
            ask = here.shared.asks.start("backtest_rule", arguments)
            st.session_state["b-ask"] = ask.number
        except InputError as problem:
            st.error(escaped(str(problem)))
    st.caption(words("test.caveats"))


def _iso(day: Any) -> str | None:
    return day.isoformat() if isinstance(day, date) else None


def _matches(here: Here, when: str) -> None:
    """What the rule that is being written would pick today: an error shows before a JVM is started for it."""
    words = here.words
    try:
        found = picked(session_rows(here.view, here.shared.calendars), Rule("when", when))
    except SiseError as problem:
        st.warning(escaped(str(problem)))
        return
    shown = ", ".join(found["symbol"].head(8))
    st.caption(words("test.matches", count=len(found), symbols=escaped(shown + (" …" if len(found) > 8 else ""))))


@st.fragment(run_every=1.0)
def _running(here: Here) -> None:
    words = here.words
    ask = here.shared.asks.latest()
    if ask is None or not ask.running:
        if st.session_state.pop("b-waits", False):
            st.rerun()  # the answer is there: show it
        return
    st.session_state["b-waits"] = True
    said = next((line_ for line_ in reversed(ask.said) if line_.startswith("backtest_rule")), "")
    with st.status(words("test.running", seconds=f"{ask.seconds:.0f}"), expanded=True, state="running"):
        st.text(" ".join(ask.arguments) + (f"\n{said}" if said else ""))
        if st.button(words("test.cancel"), key="b-cancel"):
            here.shared.asks.cancel(ask.number)


def _answer(here: Here) -> None:
    words = here.words
    ask: Ask | None = here.shared.asks.get(st.session_state.get("b-ask"))
    if ask is not None and not ask.running and ask.error:
        st.error(f"{words('test.failed')}\n\n{escaped(ask.error)}", icon=":material/error:")
        return
    kept = backtests(here.view)
    wanted = ask.record["details"]["backtest_id"] if ask and ask.record and not ask.error else None
    chosen = wanted or st.session_state.get("b-kept")
    if chosen is None and len(kept):
        chosen = kept["backtest_id"].iloc[0]
    if chosen is None:
        empty(words("test.none"))
        return
    _show(here, str(chosen))


def _rule(here: Here, row: Mapping[Any, Any]) -> str:
    return str(row["when"]) if row["rule"] == "when" else here.words.rule(row["rule"])


def _label(here: Here, row: Mapping[Any, Any]) -> str:
    """What tells one backtest from all others: two labels that are the same would open the same."""
    parts = [_rule(here, row), here.words(f"side.{row['direction']}"), row.get("markets") or ""]
    parts += [f"{row['first_session']} … {row['last_session']}", here.words("test.every") if row["every_bar"] else ""]
    return " · ".join([*filter(None, parts), row["backtest_id"][:6]])


def _show(here: Here, number: str) -> None:
    words = here.words
    rows = here.view.frame("backtests", None, [("backtest_id", "=", number)])
    if rows.empty:
        empty(words("test.written"))
        return
    first = rows.iloc[0]
    side = words(f"side.{first['direction']}")
    st.markdown(f"**{escaped(words.rule(first['rule']) if first['rule'] != 'when' else words('test.own'))}** · {side}")
    st.code(first["when"], language="sql", wrap_lines=True)
    st.caption(
        words("test.span", first=first["first_session"], last=first["last_session"])
        + (f" · {first['markets']}" if first.get("markets") else "")
        + (f" · {words('test.every')}" if first["every_bar"] else "")
    )
    if not rows["signals"].any():
        empty(words("test.noentry"))
        return
    whole = rows[rows["month"] == ALL].sort_values(["horizon", "market"])
    whole = whole.assign(where=[words("filter.all") if m == ALL else m for m in whole["market"]], n=range(len(whole)))
    columns = [
        column("horizon", words("worth.horizon"), "int"),
        column("where", words("col.market")),
        *figure_columns(here),
    ]
    grid(here, columns, records(whole, columns, "n"), "b-figures", height=420)
    months = rows[(rows["market"] == ALL) & (rows["month"] != ALL) & (rows["horizon"] == 5)].sort_values("month")
    if len(months) > 1:
        days = [f"{month}-01" for month in months["month"]]
        lines(
            here,
            days,
            [
                {
                    "title": words("test.bymonth"),
                    "percent": True,
                    "lines": [
                        line(words("col.mean"), months["mean"].astype(float), "blue"),
                        line(words("worth.market"), months["mean_market"].astype(float), "grey", dash=True),
                    ],
                },
                {"title": words("col.cases"), "lines": [line(words("col.cases"), months["cases"], "grey", bars=True)]},
            ],
            "b-months",
            260,
        )


def _kept(here: Here) -> None:
    words = here.words
    st.subheader(words("test.kept"), anchor=False)
    rows = backtests(here.view)
    if rows.empty:
        empty(words("test.none"))
        return
    found = rows.to_dict("records")
    labels = {row["backtest_id"]: _label(here, row) for row in found}
    st.selectbox(
        words("test.look"),
        list(labels),
        format_func=lambda i: labels[i],
        key="b-kept",
        index=None,
        placeholder=words("test.look.hint"),
        on_change=lambda: st.session_state.pop("b-ask", None),
    )
    shown = pd.DataFrame(rows).assign(
        what=[_rule(here, row) for row in found],
        where=[row.get("markets") or words("filter.all") for row in found],
        first=rows["first_session"].astype(str),
        last=rows["last_session"].astype(str),
    )
    columns = [
        column("what", words("col.rule"), wide=True),
        column("direction", words("col.side"), "side", phone=False),
        column("where", words("col.market"), phone=False),
        column("first", words("col.first"), phone=False),
        column("last", words("col.lastday"), phone=False),
        *figure_columns(here),
    ]
    said = {s: words(f"side.{s}") for s in ("long", "short")}
    grid(here, columns, records(shown, columns, "backtest_id"), "b-all", words=said, height=360)
