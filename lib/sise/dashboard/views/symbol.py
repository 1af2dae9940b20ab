"""One share: its chart, where its rules would fire, its signals and its past."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.names import listing
from sise.dashboard.data.share import actions, fired, history, levels, memberships
from sise.dashboard.formats import compact, escaped, price, signed
from sise.dashboard.parts import chart, column, empty, grid, records, strip

__all__ = ["chart_data", "marks", "show"]

_SPANS = {"30d": 21, "3m": 63, "1y": 252, "3y": 756, "all": 10**6}
# (column, label, on a light ground, on a dark one, width, dashed)
_LINES = (
    ("sma_20", "SMA 20", "#b36b00", "#ffb454", 1, False),
    ("sma_60", "SMA 60", "#1f6fb5", "#7db7ff", 1, False),
    ("sma_200", "SMA 200", "#7b4bb7", "#c9a0ff", 2, False),
    ("bb_upper", "BB", "#8a8f98", "#8a919c", 1, True),
    ("bb_lower", "BB", "#8a8f98", "#8a919c", 1, True),
)


def show(here: Here) -> None:
    words = here.words
    asked, before = st.session_state.pop("share-asked", False), st.session_state.get("share")
    share = before if asked else st.query_params.get("share") or before or _first(here)
    if share is None or share not in listing(here.view).index:
        empty(words("symbol.none", share=escaped(share or "")), words("symbol.todo"), icon=":material/search:")
        return
    st.session_state["share"] = share
    st.query_params["share"] = share
    country, _, symbol = share.partition(":")
    listed = listing(here.view).loc[share].to_dict()
    st.title(
        f"{escaped(listed['name'] or symbol)} :gray[{escaped(symbol)} · {escaped(str(listed['market']))}]", anchor=False
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        span = st.segmented_control(
            words("symbol.span"),
            list(_SPANS),
            default="1y",
            format_func=lambda s: words(f"span.{s}"),
            key="y-span",
            required=True,
            label_visibility="collapsed",
        )
        raw = st.toggle(words("symbol.raw"), key="y-raw", help=words("symbol.raw.about"))
        log = st.toggle(words("symbol.log"), key="y-log")
        near = st.toggle(words("symbol.levels"), key="y-levels", help=words("symbol.levels.about"))
    bars = history(here.view, country, symbol, raw)
    if bars.empty:
        empty(words("symbol.nobars"), words("symbol.nobars.todo"))
        return
    _figures(here, country, bars, listed)
    at = levels(here.view, here.shared.registry, here.shared.rules, share)
    data = chart_data(here, country, bars, raw)
    data |= {"log": log, "shown": _SPANS[str(span)]}
    data["marks"] = marks(here, country, symbol)
    if near and not raw:
        data["levels"] = [{"price": x.price, "label": words.rule(x.rule)} for x in at if x.price is not None]
    chart(here, data, "chart", 680)
    left, right = st.columns(2)
    with left:
        _levels(here, country, at)
    with right:
        _past(here, country, symbol)
    _flags(here, bars)


def _first(here: Here) -> str | None:
    live = here.shared.feed.now()
    known = listing(here.view)
    return next((s["share"] for s in live.signals if s["share"] in known.index), next(iter(known.index), None))


def chart_data(here: Here, country: str, bars: pd.DataFrame, raw: bool) -> dict[str, Any]:
    """The chart's columns: prices to six significant digits at least, whatever their size, and ``digits`` for the
    labels; nulls where an indicator is not warm."""
    last = bars["close"].iloc[-1]
    digits = 4 if last < 1 else 0 if country == "KR" and last >= 100 else 2

    def values(column_: str, places: int) -> list[float | None]:
        found = bars[column_].round(places)
        return [v if math.isfinite(v) else None for v in found.tolist()]

    def prices(column_: str) -> list[float | None]:
        found = bars[column_].astype(float).tolist()
        short = [float(f"{v:.6g}") if abs(v) < 10_000 else round(v, 2) for v in found]
        return [v if math.isfinite(v) else None for v in short]

    return {
        "t": [day.isoformat() for day in bars["date"]],
        **{short: prices(name) for short, name in zip("ohlc", ("open", "high", "low", "close"), strict=True)},
        "v": values("volume", 0),
        "change": values("change", 5),
        "digits": digits,
        "lines": [
            {
                "name": label,
                "colour": light,
                "dark": dark,
                "width": width,
                "dash": dash,
                "values": prices(name),
            }
            for name, label, light, dark, width, dash in _LINES
            if name in bars
        ],
        "rsi": values("rsi_14", 1) if "rsi_14" in bars else None,
        "macd": {s: prices(n) for s, n in (("line", "macd"), ("signal", "macd_signal"), ("hist", "macd_hist"))}
        if "macd" in bars
        else None,
        "words": {k: here.words(f"chart.{k}") for k in ("open", "high", "low", "close", "volume")},
    }


def marks(here: Here, country: str, symbol: str) -> list[dict[str, str]]:
    """What stands on the bars: signals in the direction that is stored with them (a rule's may have changed since; a
    signal that is not evaluated yet has the one of its rule), splits and dividends."""
    words, found = here.words, []
    short = {rule.name for rule in here.shared.rules.rules if rule.direction == "short"}
    archived = fired(here.view, country, symbol)
    for day, rule, stored in zip(archived["session"], archived["signal_type"], archived["direction"], strict=True):
        kind = stored if stored in ("long", "short") else "short" if rule in short else "long"
        found.append({"t": day.isoformat(), "kind": kind, "label": words.rule(rule)})
    for row in actions(here.view, country, symbol).to_dict("records"):
        dividend, factor = row["kind"] == "dividend", row["factor"]
        label = words("kind.dividend.short") if dividend else words(f"kind.{row['kind']}")
        if not dividend and pd.notna(factor):
            label += f" ×{factor:g}"
        if not row["confirmed"]:
            label += f" ({words('action.unconfirmed')})"
        found.append({"t": row["ex_date"].isoformat(), "kind": "dividend" if dividend else "split", "label": label})
    return sorted(found, key=lambda mark: mark["t"])


def _figures(here: Here, country: str, bars: pd.DataFrame, listed: Mapping[Any, Any]) -> None:
    words, language, last = here.words, here.prefs.language, bars.iloc[-1]
    cap = listed["market_cap"]
    if cap != cap and listed["listed_shares"] == listed["listed_shares"]:
        cap = listed["listed_shares"] * last["close"]
    year = bars.tail(252)
    of_day = last["date"].isoformat() + (f" · {words('symbol.provisional')}" if last["provisional"] else "")
    strip(
        [
            (words("col.close"), price(last["close"], country, language), of_day),
            (words("col.change"), signed(last["change"]), words("symbol.oneday")),
            (words("symbol.20"), signed(last.get("return_20")), words("symbol.20.note")),
            (
                words("symbol.year"),
                f"{price(year['low'].min(), country, language)} – {price(year['high'].max(), country, language)}",
                words("symbol.year.note"),
            ),
            (
                "RSI 14",
                f"{last['rsi_14']:.1f}" if last.get("rsi_14") == last.get("rsi_14") and "rsi_14" in bars else "–",
                "",
            ),
            (words("col.volume"), f"{last['volume']:,.0f}", _times(words, last.get("volume_ratio_20"))),
            (words("col.cap"), compact(cap, country, language), ""),
        ]
    )


def _times(words: Any, ratio: Any) -> str:
    return "" if ratio is None or ratio != ratio else words("symbol.times", ratio=f"{ratio:.2f}")


def _levels(here: Here, country: str, at: list[Any]) -> None:
    words = here.words
    st.subheader(words("symbol.where"), anchor=False)
    rows = pd.DataFrame(
        [
            {
                "rule": x.rule,
                "side": None if x.side is None or x.price is None else words(f"level.{x.side}"),
                "price": x.price,
                "away": x.away,
                "why": words(f"why.{x.why}") if x.why else words("why.now") if x.now else "",
                "country": country,
            }
            for x in at
        ]
    )
    columns = [
        column("rule", words("col.rule"), "rule"),
        column("side", ""),
        column("price", words("col.level"), "price"),
        column("away", words("col.away"), "pct", digits=1),
        column("why", ""),
    ]
    found = records(rows, columns, "rule") if len(rows) else []
    said = {x.rule: words.rule(x.rule) for x in at}
    grid(here, columns, found, "levels", empty=words("symbol.nolevels"), words=said)


def _past(here: Here, country: str, symbol: str) -> None:
    words = here.words
    tabs = st.tabs([words("symbol.signals"), words("symbol.actions"), words("symbol.lists")])
    with tabs[0]:
        rows = fired(here.view, country, symbol).rename(columns={"signal_id": "id_"})
        rows = rows.assign(country=country, session=rows["session"].astype(str))
        columns = [
            column("session", words("col.session")),
            column("signal_type", words("col.rule"), "rule"),
            column("trigger_price", words("col.trigger"), "price"),
            *[column(f"return_{n}", words("col.after", n=n), "pct", digits=1) for n in (1, 5, 20)],
        ]
        said = {name: words.rule(name) for name in rows["signal_type"].unique()}
        grid(
            here,
            columns,
            records(rows, columns, "id_"),
            "past",
            empty=words("symbol.nosignals"),
            words=said,
            height=330,
        )
    with tabs[1]:
        rows = actions(here.view, country, symbol).reset_index(drop=True)
        rows = rows.assign(
            country=country,
            ex_date=rows["ex_date"].astype(str),
            kind=[words(f"kind.{k}") for k in rows["kind"]],
            state=[words("action.confirmed") if c else words("action.unconfirmed") for c in rows["confirmed"]],
            n=rows.index,
        )
        columns = [
            column("ex_date", words("col.exdate")),
            column("kind", words("col.kind")),
            column("factor", words("col.factor"), "number"),
            column("amount", words("col.amount"), "price"),
            column("state", ""),
        ]
        grid(here, columns, records(rows, columns, "n"), "actions", empty=words("symbol.noactions"), height=330)
    with tabs[2]:
        rows = memberships(here.view, country, symbol)
        rows = rows.assign(date=rows["date"].astype(str), n=rows.index)
        columns = [
            column("date", words("col.session")),
            column("list", words("col.list"), "rule"),
            column("rank", words("col.rank"), "int"),
        ]
        said = {name: words.rule(name) for name in rows["list"].unique()}
        grid(
            here,
            columns,
            records(rows, columns, "n"),
            "memberships",
            empty=words("symbol.nolists"),
            words=said,
            height=330,
        )


def _flags(here: Here, bars: pd.DataFrame) -> None:
    """Bars of the last quarter that quality flagged: what the chart says there is to be doubted."""
    recent = bars.tail(63)
    doubted = [
        (day.isoformat(), [f for f in flags if f in ("jump", "glitch", "unconfirmed_action")])
        for day, flags in zip(recent["date"], recent["flags"], strict=True)
        if flags is not None
    ]
    if named := [f"{day} ({', '.join(flags)})" for day, flags in doubted if flags]:
        st.caption(here.words("symbol.flagged", days=escaped(", ".join(named))))
