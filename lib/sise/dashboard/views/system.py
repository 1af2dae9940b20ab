"""How the installation is: services, streams, runs, data."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.system import backup, coverage, latency, missed, quality, rejected, runs, tables
from sise.dashboard.formats import ago, escaped
from sise.dashboard.parts import column, empty, grid, records, strip
from sise.errors import SiseError
from sise.ops.services import status

__all__ = ["show"]


def show(here: Here) -> None:
    _now(here)
    _data(here)
    _runs(here)
    _quality(here)


@st.fragment(run_every=10.0)
def _now(here: Here) -> None:
    words = here.words
    left, right = st.columns([3, 4])
    with left:
        st.subheader(words("sys.services"), anchor=False)
        _services(here)
    with right:
        st.subheader(words("sys.topics"), anchor=False)
        _topics(here)
    waits, made = latency(here.shared.feed.now()), backup(here.view)
    language = here.prefs.language
    aged = words("sys.nobackup") if made is None else ago(datetime.now(UTC) - made, language)
    count = words("sys.over", count=f"{int(waits['signals']):,}")

    def ms(name: str) -> str:
        return f"{waits[name]:,.0f} ms" if name in waits else "–"

    strip(
        [
            (words("sys.p50"), ms("p50"), count),
            (words("sys.p95"), ms("p95"), count),
            (words("sys.max"), ms("max"), words("sys.path")),
            (words("sys.backup"), aged, words("sys.nobackup.todo") if made is None else here.prefs.moment(made)),
        ]
    )


def _services(here: Here) -> None:
    words = here.words
    found = _status(here)
    rows = pd.DataFrame(
        [
            {
                "service": s.name,
                "state": "healthy" if s.healthy else "noanswer" if s.external or s.running else "stopped",
                "good": s.healthy,
                "where": s.where,
                "version": s.version,
                "detail": s.detail,
            }
            for s in found
        ]
    )
    columns = [
        column("service", words("sys.service")),
        column("state", words("sys.state"), "state"),
        column("where", words("sys.where"), phone=False),
        column("version", words("sys.version"), phone=False),
        column("detail", "", wide=True, phone=False),
    ]
    said = {s: words(f"sys.{s}") for s in ("healthy", "noanswer", "stopped")}
    grid(here, columns, records(rows, columns, "service"), "sys-services", words=said)
    if not all(s.healthy for s in found):
        st.caption(words("sys.up"))


@st.cache_data(ttl=8, show_spinner=False)
def _looked(key: str, _here: Here) -> list[object]:
    return list(status(_here.settings))


def _status(here: Here) -> list:  # type: ignore[type-arg]
    return _looked(here.settings.redis, here)


@st.cache_data(ttl=8, show_spinner=False)
def _streams(key: str, _here: Here) -> pd.DataFrame | str:
    try:
        return _here.shared.streams.look()
    except SiseError as problem:
        return str(problem)


def _topics(here: Here) -> None:
    words = here.words
    rows = _streams(here.settings.kafka, here)
    if isinstance(rows, str):
        st.warning(escaped(rows), icon=":material/cloud_off:")
        return
    rows = rows.assign(about=[words(f"topic.{kind}") for kind in rows["kind"]])
    columns = [
        column("topic", words("sys.topic")),
        column("records", words("sys.records"), "int"),
        column("rate", words("sys.rate"), "number"),
        column("lag", words("sys.lag"), "int", title=words("sys.lag.about")),
        column("about", "", phone=False),
    ]
    grid(here, columns, records(rows, columns, "topic"), "sys-topics", empty=words("sys.notopics"))


def _data(here: Here) -> None:
    words = here.words
    left, right = st.columns([4, 3])
    with left:
        st.subheader(words("sys.coverage"), anchor=False)
        rows = coverage(here.view, here.shared.calendars, here.shared.today())
        if rows.empty:
            empty(words("market.none"), words("market.todo"))
        else:
            days = {c: [None if pd.isna(day) else str(day) for day in rows[c]] for c in ("last", "indicators", "live")}
            shown = rows.assign(**days)
            columns = [
                column("market", words("col.market")),
                column("last", words("sys.newest")),
                column("sessions_behind", words("sys.behind"), "int", title=words("sys.behind.about")),
                column("coverage", words("sys.share"), "meter", title=words("sys.share.about")),
                column("bars", words("sys.bars"), "int", phone=False),
                column("expected", words("sys.expected"), "int", phone=False),
                column("indicators", words("sys.indicators"), phone=False),
                column("live", words("sys.live"), phone=False, title=words("sys.live.about")),
            ]
            grid(here, columns, records(shown, columns, "market"), "sys-coverage")
            low = rows[rows["coverage"] < here.settings.coverage_floor]
            if len(low):
                st.warning(words("sys.low", markets=", ".join(low["market"])))
            if len(late := rows[rows["sessions_behind"] > 1]):  # of today's there may be none yet
                st.warning(words("sys.late", markets=", ".join(late["market"])), icon=":material/history:")
            for country, lacking in missed(here.view, here.shared.calendars).items():
                named = ", ".join(map(str, lacking))
                st.warning(words("sys.gap", country=country, days=named), icon=":material/event_busy:")
    with right:
        st.subheader(words("sys.tables"), anchor=False)
        rows = tables(here.view)
        rows = rows.assign(newest=[str(day) if day is not None else "" for day in rows["newest"]])
        columns = [
            column("table", words("sys.table")),
            column("rows", words("sys.rows"), "int"),
            column("version", words("sys.version"), "int", phone=False),
            column("newest", words("sys.newest")),
        ]
        grid(here, columns, records(rows, columns, "table"), "sys-tables", empty=words("market.none"), height=250)


def _runs(here: Here) -> None:
    words = here.words
    st.subheader(words("sys.runs"), anchor=False)
    rows = runs(here.view)
    rows = rows.assign(good=rows["status"] == "ok")
    columns = [
        column("started_at", words("col.time"), "moment"),
        column("job", words("sys.job")),
        column("status", words("sys.state"), "state"),
        column("seconds", words("sys.seconds"), "seconds"),
        column("rows_in", words("sys.in"), "int", phone=False),
        column("rows_out", words("sys.out"), "int"),
        column("rows_rejected", words("sys.refused"), "int"),
        column("arguments", words("sys.arguments"), phone=False, wide=True),
        column("error", words("sys.error"), wide=True),
    ]
    said = {s: words(f"sys.{s}") for s in ("ok", "failed")}
    grid(here, columns, records(rows, columns, "run_id"), "sys-runs", empty=words("sys.noruns"), words=said, height=330)


def _quality(here: Here) -> None:
    words = here.words
    left, right = st.columns(2)
    with left:
        st.subheader(words("sys.quality"), anchor=False)
        rows, written = quality(here.settings.local)
        if written is None:
            empty(words("sys.noquality"), words("sys.noquality.todo"))
        else:
            _report(here, rows, written)
    with right:
        st.subheader(words("sys.rejected"), anchor=False)
        by, newest = rejected(here.view)
        columns = [
            column("reason", words("sys.reason"), wide=True),
            column("rows", words("sys.rows"), "int"),
            column("shares", words("sys.shares"), "int"),
            column("newest", words("sys.newest"), "moment", phone=False),
        ]
        grid(here, columns, records(by, columns, "reason"), "sys-reasons", empty=words("sys.norejected"))
        if len(newest):
            columns = [
                column("symbol", words("col.share")),
                column("date", words("col.session")),
                column("reason", words("sys.reason"), wide=True),
                column("row", words("sys.row"), wide=True, phone=False),
            ]
            newest = newest.assign(n=newest.index)
            rows_ = [{k: v for k, v in r.items() if k != "share"} for r in records(newest, columns, "n")]
            grid(here, columns, rows_, "sys-rejected", height=300)


def _report(here: Here, rows: pd.DataFrame, written: datetime) -> None:
    words = here.words
    by = rows.groupby("check").agg(rows=("symbol", "size"), shares=("symbol", "nunique")) if len(rows) else rows
    said = " · ".join(
        f"{words('check.' + k)} {int(v['rows']):,} ({int(v['shares'])})" for k, v in by.to_dict("index").items()
    )
    st.caption(words("sys.written", when=here.prefs.moment(written)) + (f" · {said}" if said else ""))
    named = rows[rows["check"] != "no_trade"] if len(rows) else rows
    named = named.sort_values("date", ascending=False).head(300) if len(named) else named
    named = (
        named.assign(kind=[words(f"check.{c}") for c in named["check"]], n=range(len(named))) if len(named) else named
    )
    columns = [
        column("date", words("col.session")),
        column("symbol", words("col.share"), "name"),
        column("kind", words("sys.check")),
        column("change", words("col.change"), "pct", digits=1),
        column("likely_cause", words("sys.cause"), wide=True, phone=False),
    ]
    found = records(named, columns, "n") if len(named) else []
    grid(here, columns, found, "sys-quality", empty=words("sys.clean"), height=300)
