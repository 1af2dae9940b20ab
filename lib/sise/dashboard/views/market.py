"""The market as a whole: breadth, the map, movers."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.market import board, breadth, movers
from sise.dashboard.formats import compact, percent, signed
from sise.dashboard.parts import column, empty, grid, heat_map, line, lines, records, strip

__all__ = ["show"]

_SPANS = {"return_1": 0.05, "return_5": 0.10, "return_20": 0.20}
_MOST = 160


def show(here: Here) -> None:
    words = here.words
    a, b = st.columns([3, 4], vertical_alignment="bottom")
    there = [m for m in ("KOSPI", "KOSDAQ", "NASDAQ", "NYSE") if len(board(here.view, m))]
    if not there:
        empty(words("market.none"), words("market.todo"))
        return
    market = str(a.segmented_control(words("filter.market"), there, default=there[0], key="m-market", required=True))
    by = str(
        b.segmented_control(
            words("market.by"),
            list(_SPANS),
            default="return_1",
            key="m-by",
            required=True,
            format_func=lambda r: words(f"market.{r}"),
        )
    )
    rows, days = board(here.view, market), breadth(here.view, market)
    if len(days):
        _figures(here, days)
    country = "KR" if market in ("KOSPI", "KOSDAQ") else "US"
    capped = rows[rows["market_cap"].notna() & (rows["market_cap"] > 0)].head(_MOST)
    st.subheader(words("market.map"), anchor=False)
    if capped.empty:
        empty(words("market.nocap"), words("market.nocap.todo"))
    else:
        language = here.prefs.language
        shares = [
            {
                "share": row["share"],
                "symbol": row["symbol"],
                "name": row["name"] if isinstance(row["name"], str) else "",
                "size": float(row["market_cap"]),
                "value": float(row[by]) if row[by] == row[by] else 0.0,
                "label": signed(row[by], 1),
            }
            for row in capped.to_dict("records")
        ]
        heat_map(here, shares, _SPANS[by], "m-map")
        whole = compact(float(rows["market_cap"].sum()), country, language)
        part = percent(float(capped["market_cap"].sum() / rows["market_cap"].sum()), 0)
        st.caption(words("market.map.about", count=len(capped), part=part, whole=whole, span=percent(_SPANS[by], 0)))
    _movers(here, rows, by, country)
    if len(days):
        _breadth(here, days)


def _figures(here: Here, days: pd.DataFrame) -> None:
    words, last = here.words, days.iloc[-1]

    def part(count: float, of: float) -> str:
        return percent(count / of, 0) if of else "–"

    strip(
        [
            (words("col.session"), str(last["date"]), words("market.traded", count=f"{last['traded']:,}")),
            (words("market.advancers"), f"{last['advancers']:,}", part(last["advancers"], last["traded"])),
            (words("market.decliners"), f"{last['decliners']:,}", part(last["decliners"], last["traded"])),
            (words("market.highs"), f"{last['new_highs']:,}", words("market.of", count=f"{last['warm_252']:,}")),
            (words("market.lows"), f"{last['new_lows']:,}", words("market.of", count=f"{last['warm_252']:,}")),
            (
                words("market.oversold"),
                part(last["oversold"], last["warm_rsi"]),
                words("market.shares", count=f"{last['oversold']:,}"),
            ),
            (
                words("market.above"),
                part(last["above_200"], last["warm_200"]),
                words("market.of", count=f"{last['warm_200']:,}"),
            ),
        ]
    )


def _movers(here: Here, rows: pd.DataFrame, by: str, country: str) -> None:
    words, settings = here.words, here.settings
    floor = settings.turnover_floor_krw if country == "KR" else settings.turnover_floor_usd
    up, down = movers(rows, by, floor=floor)
    columns = [
        column("symbol", words("col.share"), "name"),
        column("close", words("col.close"), "price"),
        column(by, words("col.change"), "pct"),
        column("volume_ratio_20", words("col.ratio"), "number", phone=False, title=words("col.ratio.about")),
        column("rsi_14", "RSI", "number", phone=False),
        column("turnover", words("col.turnover"), "compact", phone=False),
    ]
    for place, part, key in zip(st.columns(2), (up, down), ("up", "down"), strict=True):
        with place:
            st.subheader(words(f"market.{key}"), anchor=False)
            grid(
                here,
                columns,
                records(part.assign(country=country), columns, "share"),
                f"m-{key}",
                empty=words("market.nobody"),
            )
    st.caption(words("market.floor", floor=compact(floor, country, here.prefs.language)))


def _breadth(here: Here, days: pd.DataFrame) -> None:
    words, by = here.words, days
    st.subheader(words("market.breadth"), anchor=False)
    warm = by["warm_rsi"].where(by["warm_rsi"] > 0)
    lines(
        here,
        by["date"],
        [
            {
                "title": words("market.line"),
                "lines": [line(words("market.line.name"), (by["advancers"] - by["decliners"]).cumsum(), "blue")],
            },
            {
                "title": words("market.extremes"),
                "lines": [
                    line(words("market.highs"), by["new_highs"], "teal"),
                    line(words("market.lows"), by["new_lows"], "red"),
                ],
            },
            {
                "title": "RSI",
                "percent": True,
                "lines": [
                    line(words("market.oversold"), by["oversold"] / warm, "orange"),
                    line(words("market.overbought"), by["overbought"] / warm, "violet"),
                ],
            },
        ],
        "m-breadth",
        420,
    )
