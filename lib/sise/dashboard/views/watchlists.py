"""Watchlists: who stands on which, since when and how far from a trigger."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.lists import changes, entries, sessions
from sise.dashboard.data.market import last_session
from sise.dashboard.data.share import levels_of_many, memberships, nearest
from sise.dashboard.formats import escaped
from sise.dashboard.parts import column, empty, grid, records
from sise.dashboard.views.own_lists import show_own
from sise.signals.levels import Level

__all__ = ["csv_of", "show"]

_PAGE = 200  # rows shown at once
_BUDGET = 0.25  # seconds of a look that go into trigger levels; the rest comes with the next look


def show(here: Here) -> None:
    words = here.words
    lists, own = st.tabs([words("lists.today"), words("lists.own")])
    with lists:
        _today(here)
    with own:
        show_own(here)


def _today(here: Here) -> None:
    words = here.words
    days = sessions(here.view)
    if not days:
        empty(words("lists.none"), words("lists.todo"))
        return
    a, b, c = st.columns([2, 3, 2], vertical_alignment="bottom")
    day = a.selectbox(words("col.session"), days, format_func=str, key="w-day")
    market = b.segmented_control(
        words("filter.market"), ["KOSPI", "KOSDAQ", "NASDAQ", "NYSE"], key="w-market", selection_mode="multi"
    )
    rows = entries(here.view, None, day)
    counts = rows.groupby("list").size().to_dict()
    configured = [rule["name"] for rule in _rules(here) if {"when", "cross"} & set(rule)]
    names = list(dict.fromkeys([*configured, *sorted(counts)]))
    chosen = st.pills(
        words("col.list"),
        names,
        default=next((n for n in names if counts.get(n)), None),
        format_func=lambda n: f"{escaped(words.rule(n))} {counts.get(n, 0)}",
        key="w-list",
        label_visibility="collapsed",
    )
    if chosen is None:
        empty(words("lists.pick"))
        return
    _tell_days(here, rows, day, newest=day == max(days))
    mine = rows[rows["list"] == chosen]
    if market:
        mine = mine[mine["market"].isin(market)]
    c.download_button(
        words("lists.csv"), csv_of(mine), f"{chosen}-{day}.csv", "text/csv", icon=":material/download:", width="stretch"
    )
    about = next((str(r.get("about", "")) for r in _rules(here) if r["name"] == chosen), "")
    st.caption(escaped(about) if about else words("lists.people"))
    _entries(here, mine.reset_index(drop=True), chosen)
    _changes(here, chosen, day, tuple(market or ()))
    _membership(here, mine)


def _tell_days(here: Here, rows: pd.DataFrame, day: date, newest: bool) -> None:
    """Which session each country's entries are of: none has to be the chosen one. Of the newest, whether the indicators
    have moved on."""
    words = here.words
    of = {str(country): max(part["date"]) for country, part in rows.groupby("country")}
    for country, last in sorted(of.items()) if newest else ():
        if (as_of := last_session(here.view, country)) is not None and last < as_of:
            st.warning(words("lists.stale", country=country, last=last, as_of=as_of), icon=":material/history:")
    if set(of.values()) <= {day}:
        return
    st.caption(words("lists.of", days=" · ".join(f"{country} {last}" for country, last in sorted(of.items()))))
    for country, last in sorted(of.items()):
        # New York's session of the day that Seoul has just closed is still to come: one less is as it should be.
        if (behind := len(here.shared.calendars[country].between(last, day)) - 1) > 1:
            st.warning(words("lists.behind", country=country, last=last, count=behind), icon=":material/history:")


def _rules(here: Here) -> list[dict[str, Any]]:
    from sise.dashboard.edit import read_rules

    return [rule for rule in read_rules(here.settings).rules if isinstance(rule, dict) and "name" in rule]


def _entries(here: Here, mine: pd.DataFrame, chosen: str) -> None:
    shown = _page(here, mine, chosen)
    levels, whole = _levels(here, shown)
    if whole:
        _table(here, shown, levels, chosen)
    else:
        st.fragment(_filling, run_every=2.0)(here, shown, chosen)


def _page(here: Here, mine: pd.DataFrame, chosen: str) -> pd.DataFrame:
    """The part of a long list that is shown: a table of thousands, with a level for each, is nothing to look at."""
    if len(mine) <= _PAGE:
        return mine
    words, count = here.words, len(mine)
    first = st.selectbox(
        words("lists.page"),
        range(0, count, _PAGE),
        format_func=lambda n: words("lists.rows", first=n + 1, last=min(n + _PAGE, count), count=f"{count:,}"),
        key=f"w-page-{chosen}",
        help=words("lists.page.about"),
    )
    return mine.iloc[first : first + _PAGE].reset_index(drop=True)


def _levels(here: Here, shown: pd.DataFrame) -> tuple[dict[str, list[Level]], bool]:
    """Of the entries of live_state's own session: beside another day's close its levels would tell nothing."""
    as_of = {country: last_session(here.view, country) for country in set(shown["country"])}
    shown = shown[[as_of[c] == day for c, day in zip(shown["country"], shown["date"], strict=True)]]
    shares = list(shown["country"] + ":" + shown["symbol"])
    return levels_of_many(here.view, here.shared.registry, here.shared.rules, shares, _BUDGET)


def _filling(here: Here, shown: pd.DataFrame, chosen: str) -> None:
    """The table while levels are still worked out, again and again until they are all there."""
    levels, whole = _levels(here, shown)
    if whole:
        st.rerun()  # the page as a whole: only that ends the timer
    _table(here, shown, levels, chosen)


def _table(here: Here, mine: pd.DataFrame, levels: dict[str, list[Level]], chosen: str) -> None:
    words = here.words
    figures = list(dict.fromkeys(k for pairs in mine["figures"] for k in pairs if k not in ("close", "volume")))
    rows = mine.assign(
        close=[pairs.get("close") for pairs in mine["figures"]],
        volume=[pairs.get("volume") for pairs in mine["figures"]],
        since=mine["since"].astype(str),
        **{f"f_{name}": [pairs.get(name) for pairs in mine["figures"]] for name in figures},
    )
    near = [nearest(levels.get(share)) for share in (mine["country"] + ":" + mine["symbol"])]
    for side in ("below", "above"):
        for what in ("rule", "price", "away"):
            rows[f"{side}_{what}"] = [getattr(n[side], what, None) for n in near]
    columns = [
        column("rank", "#", "int"),
        column("symbol", words("col.share"), "name"),
        column("market", words("col.market"), phone=False),
        column("close", words("col.close"), "price"),
        column("volume", words("col.volume"), "compact", phone=False),
        *[column(f"f_{name}", name, "compact" if "cap" in name else "number", phone=False) for name in figures],
        column("since", words("col.since"), phone=False, title=words("col.since.about")),
        column("below_rule", words("col.below"), "rule", title=words("col.below.about")),
        column("below_price", words("col.level"), "price", phone=False),
        column("below_away", "%", "pct", digits=1),
        column("above_rule", words("col.above"), "rule", title=words("col.above.about")),
        column("above_price", words("col.level"), "price", phone=False),
        column("above_away", "%", "pct", digits=1),
    ]
    said = {rule.name: words.rule(rule.name) for rule in here.shared.rules.rules}
    ids = rows.assign(id_=rows["market"] + rows["symbol"])
    grid(
        here, columns, records(ids, columns, "id_"), f"w-{chosen}", empty=words("lists.nobody"), words=said, height=460
    )


def csv_of(rows: pd.DataFrame) -> bytes:
    """The entries as CSV for a spreadsheet: with a BOM, so that Excel reads Korean; a text that a spreadsheet would
    take for a formula begins with an apostrophe."""
    figures = list(dict.fromkeys(k for pairs in rows["figures"] for k in pairs))
    plain = rows[["date", "country", "market", "list", "rank", "symbol", "name", "since"]].copy()
    for name in figures:
        plain[name] = [pairs.get(name) for pairs in rows["figures"]]
    for name in ("symbol", "name", "list"):
        plain[name] = [re.sub(r"^([=+\-@\t\r])", r"'\1", str(text or "")) for text in plain[name]]
    return plain.to_csv(index=False).encode("utf-8-sig")


def _changes(here: Here, chosen: str, day: date, markets: tuple[str, ...]) -> None:
    words = here.words
    came, went, compared = changes(here.view, chosen, day)
    if markets:
        came, went = came[came["market"].isin(markets)], went[went["market"].isin(markets)]
    if not compared:
        st.caption(words("lists.first"))
        return
    since = ", ".join(f"{country} {before}" for country, before in sorted(compared.items()))
    columns = [
        column("symbol", words("col.share"), "name"),
        column("market", words("col.market")),
        column("rank", "#", "int"),
        column("close", words("col.close"), "price"),
    ]
    for place, rows, key in zip(st.columns(2), (came, went), ("entered", "left"), strict=True):
        rows = rows.assign(close=[pairs.get("close") for pairs in rows["figures"]], id_=rows["market"] + rows["symbol"])
        with place:
            st.subheader(f"{words(f'lists.{key}')} · {len(rows)}", anchor=False)
            st.caption(words("lists.since", since=since))
            grid(here, columns, records(rows, columns, "id_"), f"w-{key}", empty=words("lists.nochange"), height=300)


def _membership(here: Here, mine: pd.DataFrame) -> None:
    words = here.words
    with st.expander(words("lists.history"), icon=":material/timeline:"):
        options = list(mine["country"] + ":" + mine["symbol"])
        names = dict(zip(options, mine["name"].fillna(""), strict=True))
        share = st.selectbox(
            words("col.share"),
            options,
            format_func=lambda s: f"{s} {names.get(s, '')}",
            key="w-share",
            index=None,
            placeholder=words("lists.pickshare"),
        )
        if share:
            country, _, symbol = share.partition(":")
            rows = memberships(here.view, country, symbol)
            rows = rows.groupby("list", as_index=False).agg(
                days=("date", "size"), first=("date", "min"), last=("date", "max"), best=("rank", "min")
            )
            rows = rows.assign(first=rows["first"].astype(str), last=rows["last"].astype(str))
            columns = [
                column("list", words("col.list"), "rule"),
                column("days", words("col.sessions"), "int"),
                column("first", words("col.first")),
                column("last", words("col.lastday")),
                column("best", words("col.bestrank"), "int"),
            ]
            said = {name: words.rule(name) for name in rows["list"]}
            grid(here, columns, records(rows, columns, "list"), "w-membership", words=said)
