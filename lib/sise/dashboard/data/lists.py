"""Watchlists as people look at them: a session's entries, what came and went, and people's own lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from sise.dashboard.data.share import states
from sise.dashboard.data.view import LakeView

__all__ = ["changes", "entries", "sessions", "snapshot", "with_distance"]


@dataclass(frozen=True)
class _History:
    """Every entry of every session. ``rows``: watchlist's but ``figures``, with ``since``; ``at``: where a country's
    session is in them. The figures stay in Arrow, where years of them are small."""

    rows: pd.DataFrame
    figures: pa.ChunkedArray
    at: Mapping[tuple[str, date], np.ndarray]

    def days(self, day: date | None) -> dict[str, list[date]]:
        """Each country's sessions up to ``day``, newest first: KR and US need not have the same."""
        found: dict[str, list[date]] = {}
        for country, session in sorted(self.at, key=lambda key: key[1], reverse=True):
            if day is None or session <= day:
                found.setdefault(country, []).append(session)
        return dict(sorted(found.items()))

    def of(self, country: str, session: date, name: str | None) -> pd.DataFrame:
        """The entries of one session, of one list or of all."""
        rows = self.rows.iloc[self.at[country, session]]
        rows = rows if name is None else rows[rows["list"] == name]
        return rows.assign(figures=[dict(pairs or ()) for pairs in self.figures.take(pa.array(rows.index)).to_pylist()])


def _history(view: LakeView) -> _History:
    def build() -> _History:
        if not view.exists("watchlist"):
            return _History(view.read("watchlist").assign(since=None), pa.chunked_array([], pa.null()), {})
        table = view.reader.rows("watchlist")
        rows = table.drop_columns(["figures"]).to_pandas(date_as_object=True)
        rows["since"] = _since(rows)
        return _History(rows, table["figures"], rows.groupby(["country", "date"]).indices)

    return view.memo(["watchlist"], "watchlist", build)


def _since(rows: pd.DataFrame) -> pd.Series:
    """The first of its country's sessions in a row in which the share stands on the list."""
    days = pd.to_datetime(rows["date"])
    number = days.groupby(rows["country"]).rank("dense").to_numpy()
    share = rows.groupby(["country", "list", "symbol"], sort=False).ngroup().to_numpy()
    order = np.lexsort((number, share))
    begins = np.ones(len(rows), bool)
    begins[1:] = (np.diff(share[order]) != 0) | (np.diff(number[order]) > 1)
    first = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
    found = np.empty(len(rows), object)
    found[order] = rows["date"].to_numpy(object)[order][first]
    return pd.Series(found, rows.index, dtype=object)


def sessions(view: LakeView) -> list[date]:
    """The sessions that watchlists were made for, newest first."""
    return sorted({day for _, day in _history(view).at}, reverse=True)


def entries(view: LakeView, name: str | None = None, day: date | None = None) -> pd.DataFrame:
    """The entries of each country's last session (on or before ``day``), of one list or of all: date, country,
    market, list, symbol, name, rank, figures (a dict), since: the first of the sessions in a row that it stands
    there."""

    def build() -> pd.DataFrame:
        history = _history(view)
        parts = [history.of(country, days[0], name) for country, days in history.days(day).items()]
        if not parts:
            return history.rows.assign(figures=None)
        return pd.concat(parts, ignore_index=True).sort_values(["market", "list", "rank"], ignore_index=True)

    return view.memo(["watchlist"], ("entries", name, day), build, 8)


def changes(view: LakeView, name: str, day: date | None = None) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, date]]:
    """(entered, left, the session compared with by country) of a list since the session before its last one."""
    history = _history(view)
    came, went, compared = [], [], {}
    for country, days in history.days(day).items():
        if len(days) < 2:
            continue
        compared[country] = days[1]
        now, before = (history.of(country, session, name) for session in days[:2])
        came.append(now[~now["symbol"].isin(before["symbol"])])
        went.append(before[~before["symbol"].isin(now["symbol"])])
    empty = history.rows.iloc[:0].assign(figures=None)
    return pd.concat([empty, *came]), pd.concat([empty, *went]), compared


def snapshot(view: LakeView, shares: Iterable[str]) -> pd.DataFrame:
    """For each share (KR:005930, in the order given) what live_state and the listing say: country, symbol, name,
    market, close, as_of; a share without a state has nulls."""
    from sise.dashboard.data.names import listing

    known, states_ = listing(view), states(view)
    rows = []
    for share in shares:
        country, _, symbol = share.partition(":")
        state = states_.get(share, {})
        listed: Mapping[str, object] = known.loc[share].to_dict() if share in known.index else {}
        rows.append(
            {
                "country": country,
                "symbol": symbol,
                "name": listed.get("name", ""),
                "market": state.get("market") or listed.get("market"),
                "close": state.get("close"),
                "as_of": state.get("as_of"),
            }
        )
    return pd.DataFrame(rows, columns=["country", "symbol", "name", "market", "close", "as_of"])


def with_distance(rows: pd.DataFrame, levels: Mapping[str, tuple[str, float, float] | None]) -> pd.DataFrame:
    """Adds the nearest trigger level of each share: level_rule, level_price, level_away (a fraction from the close).
    ``levels``: by share, None where no rule can fire today."""
    shares = rows["country"] + ":" + rows["symbol"]
    found = [levels.get(share) or (None, None, None) for share in shares]
    return rows.assign(
        level_rule=[f[0] for f in found],
        level_price=pd.array([f[1] for f in found], "Float64"),
        level_away=pd.array([f[2] for f in found], "Float64"),
    )
