"""What pages are put together from: the grid, the chart, strips of figures, and states that say what to do."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.formats import escaped

__all__ = [
    "begun",
    "chart",
    "column",
    "empty",
    "grid",
    "heat_map",
    "keeper",
    "line",
    "lines",
    "plain",
    "records",
    "search",
    "strip",
]

_STATIC = Path(__file__).parent / "static"


class Stamped(Protocol):
    @property
    def stamp(self) -> str: ...


T = TypeVar("T", bound=Stamped)


def _base() -> str:
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{base}/app/static" if base else "/app/static"


@cache
def _stamp() -> str:
    parts = [path.read_bytes() for path in sorted(_STATIC.glob("*.*js"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _loader(name: str) -> str:
    """A component's code comes from the server's static files, once for a browser, and not with every message."""
    return f"""
const code = import(location.origin + "{_base()}/{name}.js?{_stamp()}");
export default function (component) {{
  let gone = false, end = null;
  code.then((found) => {{ if (!gone) end = found.default(component); }});
  return () => {{ gone = true; if (end) end(); }};
}}"""


@st.cache_resource
def _component(name: str, base: str) -> Any:
    return st.components.v2.component(f"sise_{name}", js=_loader(name), isolate_styles=True)


def column(key: str, label: str, kind: str = "text", **more: Any) -> dict[str, Any]:
    """A column of the grid. ``kind`` says how its values are written (static/grid.js); ``phone=False`` leaves it out
    on narrow screens."""
    return {"key": key, "label": label, "kind": kind, **more}


def plain(value: Any) -> Any:
    """A value as JSON has it: what is not known is null."""
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    return value


def records(rows: pd.DataFrame, columns: Sequence[Mapping[str, Any]], ids: str | None = None) -> list[dict[str, Any]]:
    """Rows for the grid: the columns' values and what identifies and opens a row (share, country, symbol, name)."""
    keys = [c["key"] for c in columns]
    keys += [k for k in ("share", "country", "symbol", "name", "good") if k not in keys]
    keys += [c["rising"] for c in columns if c.get("rising") and c["rising"] not in keys]
    there = [k for k in keys if k in rows]
    found = []
    for n, values in enumerate(zip(*[rows[k] for k in there], strict=True)):
        row = {k: plain(v) for k, v in zip(there, values, strict=True)}
        if "share" not in row and row.get("country") and row.get("symbol"):
            row["share"] = f"{row['country']}:{row['symbol']}"
        row["id"] = f"{rows[ids].iat[n]}" if ids else f"{row.get('share', '')}#{n}"
        found.append(row)
    return found


def grid(
    here: Here,
    columns: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]] | str,
    key: str,
    empty: str = "",
    words: Mapping[str, str] | None = None,
    sort: tuple[str, bool] | None = None,
    height: int | None = None,
    flash: bool = False,
    open_share: bool = True,
) -> None:
    """A table whose rows open their share. ``rows``: as ``records`` makes them, or their JSON, where many viewers are
    shown the same. ``sort``: (column, whether the largest first)."""
    data = {
        "columns": list(columns),
        "rows": rows if isinstance(rows, str) else list(rows),
        "empty": empty,
        "words": dict(words or {}),
        "sort": {"key": sort[0], "down": sort[1]} if sort else None,
        "locale": here.prefs.locale,
        "zone": str(here.prefs.tz.key),
        "colours": here.prefs.palette,
        "height": height,
        "flash": flash,
        "opens": open_share,
    }
    _component("grid", _base())(key=key, data=data, on_opened_change=lambda: _noted(key, "opened"))


def _noted(key: str, trigger: str) -> None:
    """Which share is to be opened: the page of the share, to which the browser goes, asks for it."""
    share = st.session_state[key].get(trigger)
    if share:
        st.session_state["share"], st.session_state["share-asked"] = str(share), True


def chart(here: Here, data: Mapping[str, Any], key: str, height: int) -> None:
    """The share's chart (static/chart.js)."""
    more = {"locale": here.prefs.locale, "colours": here.prefs.palette, "height": height}
    _component("chart", _base())(key=key, data={**data, **more})


def keeper(cookie: str, value: str, theme: str, pages: Sequence[str]) -> None:
    """Keeps the preferences in the viewer's browser, and its theme where Streamlit looks for it."""
    data = {"cookie": cookie, "value": value, "theme": theme.capitalize(), "pages": list(pages)}
    _component("keeper", _base())(key="keeper", data=data, height=1)


def strip(figures: Sequence[tuple[str, str, str]]) -> None:
    """A line of figures: (what, value, the small print under it). Values and notes are plain text."""
    data = [{"label": label, "value": value, "note": note} for label, value, note in figures]
    _component("strip", _base())(data=data, key=f"strip-{'-'.join(f[0] for f in figures)}"[:200])


def empty(message: str, todo: str = "", icon: str = ":material/info:") -> None:
    """A state that says what to do. Both texts are the catalogue's or escaped by the caller."""
    st.info(f"{message}\n\n{todo}" if todo else message, icon=icon)


def begun(here: Here, key: str, what: str, now: T) -> T:
    """The file that this viewer's fields began with, where it is being edited: their keys end in its stamp. Where the
    file on the disk, ``now``, is another by then, says so and offers to load that: what was typed is never replaced
    without a word. Forget it with ``st.session_state.pop(key, None)`` after a write."""
    held: T = st.session_state.get(key, now)
    if held.stamp != now.stamp and not any(str(name).endswith(held.stamp) for name in st.session_state):
        held = now  # nothing of it is on the page: the viewer comes back from another one
    st.session_state[key] = held
    if held.stamp != now.stamp:
        st.warning(here.words("edit.changed", what=escaped(what)), icon=":material/sync_problem:")
        if st.button(here.words("edit.reload"), key=f"{key}-reload"):
            st.session_state[key] = now
            st.rerun()
    return held


def search(here: Here, text: str, found: Sequence[Mapping[str, Any]]) -> None:
    """The field that finds a share: what was typed comes back as state ``text``."""
    data = {
        "found": list(found),
        "text": text,
        "hint": here.words("search.hint"),
        "none": here.words("search.none"),
    }
    _component("search", _base())(
        key="search",
        data=data,
        default={"text": ""},
        on_text_change=lambda: None,
        on_picked_change=lambda: _noted("search", "picked"),
    )


def lines(here: Here, days: Sequence[Any], panes: Sequence[Mapping[str, Any]], key: str, height: int = 320) -> None:
    """Lines over days: each pane has a title and its lines (name, colour, dark, values)."""
    data = {"t": [plain(day) for day in days], "panes": list(panes), "height": height, "locale": here.prefs.locale}
    _component("lines", _base())(key=key, data=data)


def line(name: str, values: Any, tone: str, **more: Any) -> dict[str, Any]:
    """One line. ``tone``: a name of _TONES, told apart by colour-blind people and on both grounds."""
    light, dark = _TONES[tone]
    return {"name": name, "values": [plain(v) for v in values], "colour": light, "dark": dark, **more}


_TONES = {
    "blue": ("#1f6fb5", "#7db7ff"),
    "orange": ("#b36b00", "#ffb454"),
    "violet": ("#7b4bb7", "#c9a0ff"),
    "grey": ("#6b7280", "#9aa4af"),
    "teal": ("#00785a", "#2fcf9e"),
    "red": ("#c2410c", "#ff8a4c"),
}


def heat_map(here: Here, shares: Sequence[Mapping[str, Any]], span: float, key: str, height: int = 520) -> None:
    """Areas by ``size``, colours by ``value`` (full at ``span``); a click opens the share."""
    data = {"shares": list(shares), "span": span, "colours": here.prefs.palette, "height": height}
    _component("map", _base())(key=key, data=data, on_opened_change=lambda: _noted(key, "opened"))
