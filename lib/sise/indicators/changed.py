"""Which shares a run has to compute, and from where: what changed since the last one, and the states it can go on from.

All in this process: a row for each changed bar, ten states a share.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import numpy as np
import pandas as pd

from sise.calendars import Calendar
from sise.indicators.keep import joined
from sise.indicators.progress import Progress, Span, span_before
from sise.indicators.registry import Registry

__all__ = ["LONG_AGO", "affected_shares", "with_states"]

_SHARE = ["country", "symbol"]
LONG_AGO = date(1900, 1, 1)


def affected_shares(
    keys: pd.DataFrame,
    actions: pd.DataFrame,
    moved: pd.DataFrame,
    computed: pd.DataFrame,
    done: Progress,
    span: Span,
    calendars: Mapping[str, Calendar],
) -> pd.DataFrame:
    """(country, symbol, start): the first changed bar of each share, long ago for one whose factor changed or fell due.

    ``keys``: country, symbol, date of the changed bars; ``actions``: the table, ``moved``: its changed rows;
    ``computed``: the shares in live_state; ``done``: what the last run had read, ``span``: what this one has.
    """
    before = span_before(done)
    stood_for = {c: calendars[c].next(day) for c, day in before.as_of.items()}
    stood_for |= {c: date.fromisoformat(session[0]) for c, session in done.session.items()}
    following = {c: calendars[c].next(day) for c, day in span.as_of.items()}
    # An action announced ahead changes no bar until its ex-date; the one of the next session re-bases live_state.
    actions, moved = (a[(a["kind"] != "dividend") & a["factor"].notna()] for a in (actions, moved))
    due = _between(actions, before.adjusted_to, span.adjusted_to)
    due |= _between(actions, stood_for, following) | _between(actions, following, stood_for)
    # A basis may lie beyond the next session: prices of a vendor that were loaded days after their last bar.
    reached = _of_country(moved, following, LONG_AGO), _of_country(moved, span.adjusted_to, LONG_AGO)
    changed = moved["ex_date"] <= np.maximum(*reached)
    again = pd.concat([moved[changed][_SHARE], actions[due][_SHARE]]).drop_duplicates()
    # A share that was never computed has its bars among the keys, if it has any.
    again = again.merge(computed[_SHARE], on=_SHARE).assign(start=pd.Timestamp(LONG_AGO))
    starts = joined([keys.rename(columns={"date": "start"})[[*_SHARE, "start"]], again])
    return starts.groupby(_SHARE, as_index=False)["start"].min()


def _of_country(rows: pd.DataFrame, days: Mapping[str, date], otherwise: date | None) -> pd.Series:
    found = pd.to_datetime(rows["country"].map(dict(days)))
    return found if otherwise is None else found.fillna(pd.Timestamp(otherwise))


def _between(actions: pd.DataFrame, after: Mapping[str, date], until: Mapping[str, date]) -> pd.Series:
    """Whose ex-date lies after the one day of its country, up to the other."""
    ex_date = actions["ex_date"]
    return (ex_date > _of_country(actions, after, LONG_AGO)) & (ex_date <= _of_country(actions, until, LONG_AGO))


def with_states(starts: pd.DataFrame, states: pd.DataFrame, registry: Registry) -> pd.DataFrame:
    """``starts`` with the columns of indicator_state: the newest state kept from before each share's ``start``, null
    for one that starts over."""
    fields = ["date", "bars", "tail_from", *registry.state]
    found = starts.merge(states[[*_SHARE, *fields]], on=_SHARE)
    usable = (found["date"] < found["start"]) & (found["bars"] >= registry.warm) & (not registry.remembering)
    newest = found[usable].sort_values("date").drop_duplicates(_SHARE, keep="last")
    return starts.merge(newest[[*_SHARE, *fields]], on=_SHARE, how="left")
