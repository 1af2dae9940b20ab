"""What stands above every page: where to find a share, and the viewer's preferences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.names import find
from sise.dashboard.i18n import LANGUAGES
from sise.dashboard.parts import keeper, search
from sise.dashboard.prefs import COLOURS, COOKIE, THEMES, ZONES, Preferences

__all__ = ["header", "preferences"]


def preferences() -> Preferences:
    """This viewer's, from the browser at first and then from what was chosen."""
    if "prefs" not in st.session_state:
        context = st.context
        st.session_state["prefs"] = Preferences.of(context.cookies, context.locale, context.timezone)
    found: Preferences = st.session_state["prefs"]
    return found


def header(here: Here, paths: list[str]) -> None:
    """The search and the preferences, on every page."""
    with st.container(key="sise-top"):
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            _search(here)
        with right:
            _choices(here)
    keeper(COOKIE, here.prefs.cookie, here.prefs.theme, paths)


@st.fragment
def _search(here: Here) -> None:
    text = str(st.session_state.get("search", {}).get("text") or "")
    rows = find(here.view, text).reset_index() if text.strip() else None
    found = [] if rows is None else rows[["share", "symbol", "name", "market"]].fillna("").to_dict("records")
    search(here, text, found)


def _choices(here: Here) -> None:
    words, prefs = here.words, here.prefs
    with st.popover(words("prefs.title"), icon=":material/tune:", width="stretch"):
        chosen: dict[str, Any] = {}
        for name, options in (
            ("language", list(LANGUAGES)),
            ("colours", list(COLOURS)),
            ("zone", list(ZONES)),
            ("theme", list(THEMES)),
        ):
            labels = {o: LANGUAGES[o] if name == "language" else words(f"prefs.{name}.{o}") for o in options}
            chosen[name] = st.segmented_control(
                words(f"prefs.{name}"),
                options,
                default=getattr(prefs, name),
                format_func=labels.__getitem__,
                key=f"prefs-{name}-{prefs.cookie}",
                required=True,
            )
    wanted = replace(prefs, **chosen)
    if wanted != prefs:
        st.session_state["prefs"] = wanted
        st.rerun()
