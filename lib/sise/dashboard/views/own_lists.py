"""People's own lists on the page Watchlists: written, saved and deleted there."""

from __future__ import annotations

import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.lists import snapshot
from sise.dashboard.data.names import find, listing
from sise.dashboard.data.share import levels_of_many, nearest
from sise.dashboard.edit import ListFile, delete_list, read_lists, save_list
from sise.dashboard.formats import escaped
from sise.dashboard.parts import begun, column, grid, records
from sise.errors import SiseError

__all__ = ["show_own"]

_NEW = ""  # no list has this name, in any language


def show_own(here: Here) -> None:
    words = here.words
    known = read_lists(here.settings)
    before = st.session_state.get("o-open", _NEW)
    if before not in (*known, _NEW):  # the selectbox falls back to another list: not without a word
        st.warning(words("own.gone", name=escaped(before)), icon=":material/sync_problem:")
    a, b = st.columns([2, 3])
    with a:
        chosen = str(
            st.selectbox(
                words("col.list"), [*known, _NEW], key="o-list", format_func=lambda name: name or words("own.new")
            )
        )
        st.session_state["o-open"] = chosen
        fresh = chosen == _NEW
        held = ListFile("", "") if fresh else begun(here, f"o-file-{chosen}", f"conf/lists/{chosen}.txt", known[chosen])
        name = st.text_input(words("own.name"), key="o-name", max_chars=40) if fresh else chosen
        text = st.text_area(
            words("own.symbols"),
            value=held.text,
            height=260,
            help=words("own.help"),
            key=f"o-text-{chosen}-{held.stamp}",
            placeholder="005930\nKR:000660\nUS:AAPL  # …",
        )
        # Keys name the list: a press that arrives after the list is gone must not reach the one that took its place.
        save, remove = st.columns(2)
        if save.button(words("own.save"), type="primary", width="stretch", disabled=not name, key=f"o-save-{chosen}"):
            try:
                shares = save_list(here.settings, name.strip(), text, held.stamp)
            except SiseError as problem:
                st.error(escaped(str(problem)))
            else:
                st.toast(words("own.saved", name=escaped(name), count=len(shares)))
                _forget(chosen)
                st.rerun()
        if not fresh and remove.button(words("own.delete"), width="stretch", key=f"o-delete-{chosen}"):
            try:
                kept = delete_list(here.settings, chosen)
            except SiseError as problem:
                st.error(escaped(str(problem)))
            else:
                st.toast(words("own.deleted", kept=escaped(kept.name)))
                _forget(chosen)
                st.rerun()
    with b:
        _preview(here, text)


def _forget(chosen: str) -> None:
    for key in ("o-list", "o-open", f"o-file-{chosen}"):
        st.session_state.pop(key, None)


def _preview(here: Here, text: str) -> None:
    """The list as it is typed, with prices and levels of the last session: no job has to run first."""
    words = here.words
    index = listing(here.view).index
    shares: list[str] = []
    unknown: list[str] = []
    for line in text.splitlines():
        code = line.partition("#")[0].strip().upper()
        if not code:
            continue
        found = next((s for s in ([code] if ":" in code else [f"KR:{code}", f"US:{code}"]) if s in index), None)
        (shares if found else unknown).append(found or code)
    if unknown:
        near = find(here.view, unknown[0], 1)
        hint = f" {words('own.maybe', share=escaped(near.index[0]))}" if len(near) else ""
        st.warning(words("own.unknown", symbols=escaped(", ".join(unknown[:8]))) + hint)
    levels, _ = levels_of_many(here.view, here.shared.registry, here.shared.rules, shares, 1.0)
    rows = snapshot(here.view, shares)
    rows["as_of"] = [None if day is None else str(day) for day in rows["as_of"]]
    near_ = [nearest(levels.get(s)) for s in shares]
    for what in ("rule", "price", "away"):
        rows[what] = [getattr(n["below"] or n["above"], what, None) for n in near_]
    columns = [
        column("symbol", words("col.share"), "name"),
        column("market", words("col.market"), phone=False),
        column("close", words("col.close"), "price"),
        column("as_of", words("col.session"), phone=False),
        column("rule", words("col.near"), "rule"),
        column("price", words("col.level"), "price", phone=False),
        column("away", "%", "pct", digits=1),
    ]
    said = {rule.name: words.rule(rule.name) for rule in here.shared.rules.rules}
    grid(here, columns, records(rows, columns), "own", empty=words("own.empty"), words=said, height=420)
    st.caption(words("own.note"))
