"""The viewer's entry for Streamlit (started by ``sise dashboard``): pages, preferences, and what goes wrong."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

import streamlit as st

from sise.dashboard.app_pages import PAGES
from sise.dashboard.context import Here, Shared, shared
from sise.dashboard.formats import escaped
from sise.dashboard.login import let_in
from sise.dashboard.prefs import Preferences
from sise.dashboard.reruns import install
from sise.dashboard.shell import header, preferences
from sise.errors import SiseError

# Dense: less room around, nothing that jumps.
_STYLE = """<style>
.block-container { padding: 4.1rem 1.6rem 2rem; max-width: 1700px; }
[data-testid="stHeader"] { height: 3rem; }
[data-testid="stVerticalBlock"] { gap: .7rem; }
h1 { font-size: 1.35rem !important; padding: .1rem 0 !important; }
h2 { font-size: 1.08rem !important; padding: .4rem 0 .1rem !important; }
h3 { font-size: .98rem !important; padding: .3rem 0 .1rem !important; }
[data-testid="stCaptionContainer"] p { font-size: .8rem; }
[data-testid="stHeading"] { margin-bottom: .45rem; }
[data-stale="true"] { opacity: 1 !important; }
.st-key-sise-top [data-testid="stHorizontalBlock"] { flex-wrap: nowrap; }
.st-key-sise-top [data-testid="stColumn"] { min-width: 0; }
.st-key-sise-top [data-testid="stColumn"]:last-child { min-width: 6.2rem; }
@media (max-width: 640px) { .block-container { padding: 4rem .7rem 2rem; } }
</style>"""


def _page(name: str, pages: dict[str, object], all_: Shared, prefs: Preferences) -> None:
    here = Here(all_, prefs, pages)
    paths = ["/", *(f"/{page}" for page in PAGES)]
    header(here, paths)
    show: Callable[[Here], None] = importlib.import_module(f"sise.dashboard.views.{name}").show
    try:
        show(here)
    except SiseError as problem:  # names the thing and the remedy already
        st.error(f"{here.words('error.page')}\n\n{escaped(str(problem))}", icon=":material/error:")


def main() -> None:
    prefs = preferences()
    words = prefs.words
    st.set_page_config(page_title="sise", page_icon="📈", layout="wide", initial_sidebar_state="collapsed")
    st.html(_STYLE)
    try:
        all_ = shared()
    except SiseError as problem:
        st.error(f"{words('error.start')}\n\n{escaped(str(problem))}", icon=":material/error:")
        return
    if not let_in(words, all_.settings):
        return
    pages: dict[str, object] = {}
    for n, (name, icon) in enumerate(PAGES.items()):
        show = partial(_page, name, pages, all_, prefs)
        pages[name] = st.Page(show, title=words(f"page.{name}"), icon=icon, url_path=name, default=n == 0)
    st.navigation(list(pages.values()), position="top").run()  # type: ignore[arg-type]


install()
main()
