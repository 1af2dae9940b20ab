"""How signals turned out, never a figure without its number of cases."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.names import listing
from sise.dashboard.data.worth import ALL, HORIZONS, curve, distribution, extremes, outcomes, summary
from sise.dashboard.formats import percent
from sise.dashboard.parts import column, empty, grid, line, lines, records, strip

__all__ = ["figure_columns", "show"]

FEW = 30  # below so many cases a figure says little, and the page says so


def show(here: Here) -> None:
    words = here.words
    if not here.view.exists("signal_summary"):
        empty(words("worth.none"), words("worth.todo"))
        return
    a, b, c = st.columns([2, 3, 4], vertical_alignment="bottom")
    horizon = a.segmented_control(
        words("worth.horizon"),
        list(HORIZONS),
        default=5,
        key="p-horizon",
        required=True,
        format_func=lambda n: words("worth.sessions", n=n),
    )
    market = b.segmented_control(
        words("filter.market"),
        [ALL, "KOSPI", "KOSDAQ", "NASDAQ", "NYSE"],
        default=ALL,
        key="p-market",
        required=True,
        format_func=lambda m: words("filter.all") if m == ALL else m,
    )
    by_rule = summary(here.view, int(horizon), str(market))
    rules = c.multiselect(
        words("filter.rule"),
        list(by_rule["rule"]),
        format_func=words.rule,
        key="p-rule",
        placeholder=words("filter.all"),
    )
    rows = outcomes(here.view, int(horizon), rules, str(market))
    _figures(here, distribution(rows))
    st.subheader(words("worth.byrule"), anchor=False)
    shown = by_rule[by_rule["rule"].isin(rules)] if rules else by_rule
    said = {name: words.rule(name) for name in by_rule["rule"]}
    columns = [column("rule", words("col.rule"), "rule"), *figure_columns(here)]
    grid(here, columns, records(shown, columns, "rule"), "p-rules", empty=words("worth.nocase"), words=said)
    left, right = st.columns([3, 2])
    with left:
        _curve(here, rows)
    with right:
        _months(here, int(horizon), str(market), rules)
    _extremes(here, rows, said)
    st.caption(words("worth.caveat"))


def figure_columns(here: Here) -> list[dict[str, object]]:
    """The figures of signal_summary and backtests, the number of cases first."""
    words = here.words
    return [
        column("cases", words("col.cases"), "int", title=words("col.cases.about")),
        column("hit_rate", words("col.hits"), "points", digits=0, title=words("col.hits.about")),
        column("mean", words("col.mean"), "pct"),
        column("median", words("col.median"), "pct"),
        column("spread", words("col.spread"), "points", digits=1, phone=False, title=words("col.spread.about")),
        column("mean_excess", words("col.excess"), "pct", title=words("col.excess.about")),
        column("market_cases", words("col.marketcases"), "int", phone=False, title=words("col.marketcases.about")),
        column("best", words("col.best"), "pct", digits=1, phone=False),
        column("worst", words("col.worst"), "pct", digits=1, phone=False),
        column("open", words("col.open"), "int", phone=False, title=words("col.open.about")),
        column("no_entry", words("col.noentry"), "int", phone=False, title=words("col.noentry.about")),
        column("suspect", words("col.suspect"), "int", phone=False, title=words("col.suspect.about")),
    ]


def _figures(here: Here, found: dict[str, float]) -> None:
    words, cases = here.words, int(found["cases"])
    few = words("worth.few") if cases < FEW else ""

    def show_(name: str, digits: int = 2) -> str:
        return percent(found.get(name), digits)

    note = words("worth.over", count=f"{cases:,}")
    strip(
        [
            (words("col.cases"), f"{cases:,}", few),
            (words("col.hits"), show_("hit_rate", 0), note),
            (words("col.mean"), show_("mean"), note),
            (words("col.median"), show_("median"), note),
            (words("worth.range"), f"{show_('p10', 1)} … {show_('p90', 1)}", words("worth.range.note")),
            (words("col.excess"), show_("excess"), words("worth.over", count=f"{int(found.get('market_cases', 0)):,}")),
        ]
    )


def _curve(here: Here, rows: pd.DataFrame) -> None:
    words = here.words
    st.subheader(words("worth.curve"), anchor=False)
    by = curve(rows)
    if by.empty:
        empty(words("worth.nocase"))
        return
    lines(
        here,
        by["session"],
        [
            {
                "title": "",
                "percent": True,
                "lines": [
                    line(words("worth.signals"), by["equity"], "blue"),
                    line(words("worth.market"), by["market_equity"], "grey", dash=True),
                ],
            },
            {"title": words("col.cases"), "lines": [line(words("col.cases"), by["cases"], "grey", bars=True)]},
        ],
        "p-curve",
        360,
    )
    st.caption(words("worth.curve.about"))


def _months(here: Here, horizon: int, market: str, rules: list[str]) -> None:
    words = here.words
    st.subheader(words("worth.bymonth"), anchor=False)
    rows = summary(here.view, horizon, market, None)
    if rules:
        rows = rows[rows["rule"].isin(rules)]
    rows = rows[rows["cases"] > 0].sort_values(["month", "cases"], ascending=False)
    columns = [
        column("month", words("col.month")),
        column("rule", words("col.rule"), "rule"),
        column("cases", words("col.cases"), "int"),
        column("hit_rate", words("col.hits"), "points", digits=0),
        column("mean", words("col.mean"), "pct"),
        column("mean_excess", words("col.excess"), "pct", phone=False),
    ]
    said = {name: words.rule(name) for name in rows["rule"].unique()}
    ids = rows.assign(id_=rows["month"] + rows["rule"])
    grid(here, columns, records(ids, columns, "id_"), "p-months", empty=words("worth.nocase"), words=said, height=372)


def _extremes(here: Here, rows: pd.DataFrame, said: dict[str, str]) -> None:
    words = here.words
    best, worst = extremes(rows)
    names = listing(here.view)["name"]
    columns = [
        column("symbol", words("col.share"), "name"),
        column("rule", words("col.rule"), "rule"),
        column("session", words("col.session"), phone=False),
        column("entry_price", words("col.entry"), "price", phone=False),
        column("return", words("col.return"), "pct", digits=1),
        column("market_return", words("worth.market"), "pct", digits=1, phone=False),
    ]
    for place, part, key in zip(st.columns(2), (best, worst), ("best", "worst"), strict=True):
        with place:
            st.subheader(words(f"worth.{key}"), anchor=False)
            part = part.assign(
                share=part["country"] + ":" + part["symbol"], session=part["session"].astype(str), id_=part["signal_id"]
            )
            part["name"] = part["share"].map(names)
            grid(here, columns, records(part, columns, "id_"), f"p-{key}", empty=words("worth.nocase"), words=said)
