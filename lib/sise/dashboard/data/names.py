"""Who is listed, and finding a share by its code or name."""

from __future__ import annotations

import unicodedata

import pandas as pd

from sise.dashboard.data.view import LakeView

__all__ = ["find", "listing", "name_of", "share_key"]

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_COLUMNS = ["country", "symbol", "valid_from", "name", "market", "market_cap", "listed_shares", "active"]


def share_key(country: str, symbol: str) -> str:
    return f"{country}:{symbol}"


def listing(view: LakeView) -> pd.DataFrame:
    """Each share as its newest row of ``symbols`` describes it: _COLUMNS, ``share`` (KR:005930) as the index, and
    ``find``, what a search looks at."""

    def build() -> pd.DataFrame:
        rows = view.read("symbols", _COLUMNS)
        if view.exists("universe"):  # shares that trade but were never listed in symbols can be found, too
            traded = view.read("universe", ["country", "symbol", "name", "market"])
            known = set(zip(rows["country"], rows["symbol"], strict=True))
            new = [pair not in known for pair in zip(traded["country"], traded["symbol"], strict=True)]
            if any(new):
                rows = pd.concat([rows, traded[new].assign(active=True)], ignore_index=True)
        rows = rows.sort_values("valid_from", na_position="first").drop_duplicates(["country", "symbol"], keep="last")
        rows = rows.assign(share=rows["country"].astype(str) + ":" + rows["symbol"].astype(str))
        rows["name"] = rows["name"].fillna("")
        found = [_folded(f"{symbol}\n{name}") for symbol, name in zip(rows["symbol"], rows["name"], strict=True)]
        # Texts, of an empty table too: pandas takes an empty list for numbers.
        rows["find"] = pd.Series(found, rows.index, dtype=object)
        rows["initials"] = pd.Series([_initials(name) for name in rows["name"]], rows.index, dtype=object)
        return rows.sort_values("market_cap", ascending=False, na_position="last").set_index("share")

    return view.memo(["symbols", "universe"], "listing", build)


def name_of(view: LakeView, share: str) -> str:
    """The share's name, "" where it is not known."""
    rows = listing(view)
    return str(rows.at[share, "name"]) if share in rows.index else ""


def find(view: LakeView, text: str, limit: int = 12) -> pd.DataFrame:
    """The shares whose code or name fits ``text``, best first: the code itself, codes that begin so, names that begin
    so, names that have it anywhere, and names whose Korean initials have it (ㅅㅅㅈㅈ); each by market cap."""
    wanted = _folded(text.strip())
    rows = listing(view)
    if not wanted or rows.empty:
        return rows.head(limit)
    code = rows["symbol"].str.casefold()
    words = rows["find"].str.partition("\n")[2]
    bare = wanted.removeprefix("kr:").removeprefix("us:")
    place = pd.Series(9, index=rows.index)
    place[rows["initials"].str.contains(wanted, regex=False) & (wanted[0] in _INITIALS)] = 4
    place[words.str.contains(wanted, regex=False)] = 3
    place[words.str.startswith(wanted)] = 2
    place[code.str.startswith(bare)] = 1
    place[code == bare] = 0
    found = place[place < 9].sort_values(kind="stable")
    return rows.loc[found.index[:limit]]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _initials(text: str) -> str:
    return "".join(_INITIALS[(ord(c) - 0xAC00) // 588] if "가" <= c <= "힣" else c for c in text)
