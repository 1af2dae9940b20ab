"""Watchlists as people look at them: a session's entries, what came and went, and people's own lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import pandas as pd

from sise.dashboard.data.share import states
from sise.dashboard.data.view import LakeView

__all__ = ["changes", "entries", "sessions", "sizes", "snapshot", "with_distance"]


def sessions(view: LakeView) -> list[date]:
    """The sessions that watchlists were made for, newest first."""
    days = view.frame("watchlist", ["date"])["date"]
    return sorted(set(days), reverse=True)


def _by_country(view: LakeView, day: date | None) -> dict[str, list[date]]:
    """Each country's sessions up to ``day``, newest first: KR and US need not have the same."""
    rows = view.frame("watchlist", ["date", "country"]).drop_duplicates()
    if day is not None:
        rows = rows[rows["date"] <= day]
    return {c: sorted(set(part["date"]), reverse=True) for c, part in rows.groupby("country")}


def _rows(view: LakeView) -> pd.DataFrame:
    def build() -> pd.DataFrame:
        rows = view.read("watchlist")
        if not rows.empty:
            rows["figures"] = [dict(pairs or ()) for pairs in rows["figures"]]
        return rows

    return view.memo(["watchlist"], "watchlist", build)


def entries(view: LakeView, name: str | None = None, day: date | None = None) -> pd.DataFrame:
    """The entries of each country's last session (on or before ``day``), of one list or of all: date, country,
    market, list, symbol, name, rank, figures (a dict), since: the first of the sessions in a row that it stands
    there."""
    rows = _rows(view)
    if name is not None:
        rows = rows[rows["list"] == name]
    parts = []
    for country, days in _by_country(view, day).items():
        mine = rows[(rows["country"] == country) & (rows["date"] <= days[0])]
        now = mine[mine["date"] == days[0]]
        parts.append(now.assign(since=_since(mine, now, days)))
    if not parts:
        return rows.assign(since=pd.Series(dtype=object))
    found = pd.concat(parts, ignore_index=True)
    return found.sort_values(["market", "list", "rank"], ignore_index=True)


def _since(mine: pd.DataFrame, now: pd.DataFrame, days: Sequence[date]) -> list[date]:
    place = {day: n for n, day in enumerate(days)}
    there: dict[tuple[str, str], set[int]] = {}
    for day, name, symbol in zip(mine["date"], mine["list"], mine["symbol"], strict=True):
        there.setdefault((name, symbol), set()).add(place[day])
    found = []
    for name, symbol in zip(now["list"], now["symbol"], strict=True):
        n = 0
        while n + 1 in there[name, symbol]:
            n += 1
        found.append(days[n])
    return found


def changes(view: LakeView, name: str, day: date | None = None) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, date]]:
    """(entered, left, the session compared with by country) of a list since the session before its last one."""
    rows = _rows(view)
    rows = rows[rows["list"] == name]
    came, went, compared = [], [], {}
    for country, days in _by_country(view, day).items():
        if len(days) < 2:
            continue
        compared[country] = days[1]
        here = rows[rows["country"] == country]
        now, before = here[here["date"] == days[0]], here[here["date"] == days[1]]
        came.append(now[~now["symbol"].isin(before["symbol"])])
        went.append(before[~before["symbol"].isin(now["symbol"])])
    empty = rows.iloc[:0]
    return pd.concat([empty, *came]), pd.concat([empty, *went]), compared


def sizes(view: LakeView, day: date | None = None) -> dict[str, int]:
    """How many shares stand on each list that has any."""
    return {str(k): int(v) for k, v in entries(view, None, day).groupby("list").size().items()}


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
