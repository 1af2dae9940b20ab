"""The bars that a day's shares are computed from, read and adjusted in this process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from sise.calendars import Calendar
from sise.indicators.batch import PRICES
from sise.indicators.day import Bars
from sise.indicators.progress import Span
from sise.indicators.registry import KEPT_SESSIONS, Registry
from sise.lake import Lake
from sise.prices.factors import factors_of, price_changing

__all__ = ["read_bars"]

_COLUMNS = ("country", "symbol", "date", "market", *PRICES, "basis")
# Bars of a share that trades every day lie within this many sessions; others are looked up further back.
_SLACK = 1.2
# Up to so many shares are looked up by their symbols; of more, every share's bars are read.
_NAMED = 500


def read_bars(
    lake: Lake,
    version: int,
    actions: pd.DataFrame,
    shares: pd.DataFrame,
    registry: Registry,
    calendars: Mapping[str, Calendar],
    span: Span,
) -> Bars:
    """Of each of ``shares`` the bars from its ``tail_from`` on (null: all), days without trade left out, adjusted to
    the span's basis as prices/adjust.py does.

    Shares that trade daily are read by date, so that files of earlier years are not opened; the others, few on most
    days, from wherever their bars lie.
    """
    back = int(registry.tail * _SLACK) + 2 * KEPT_SESSIONS
    since = min((calendars[c].back(day, back) for c, day in span.as_of.items()), default=date.max)
    deep = ~(shares["tail_from"] >= np.datetime64(since)).to_numpy()
    none = lake.arrow.schema("prices", _COLUMNS).empty_table()
    parts = [(none, np.empty(0, int))]
    for chosen, dated in ((~deep, [("date", ">=", since)]), (deep, [])):
        if chosen.any():
            symbols = shares["symbol"][chosen].unique().tolist()
            named = [("symbol", "in", symbols)] if dated == [] or len(symbols) <= _NAMED else []
            rows = lake.arrow.rows("prices", _COLUMNS, [*dated, *named, ("volume", ">", 0)], version)
            of = _places(rows, shares)
            keep = (of >= 0) & chosen[of]
            parts.append((rows.filter(pa.array(keep)), of[keep]))
    rows, of = pa.concat_tables([rows for rows, _ in parts]), np.concatenate([of for _, of in parts])
    day, start = _days(rows["date"]), shares["tail_from"].to_numpy("datetime64[D]")
    first = np.where(np.isnat(start), np.iinfo(np.int32).min, start.astype(np.int64))
    keep = np.flatnonzero(day >= first[of])
    keep = keep[np.lexsort((day[keep], of[keep]))]
    rows, of, day = rows.take(pa.array(keep)).combine_chunks(), of[keep], day[keep]
    lacking = _lacking(of, day, _days(rows["basis"]), shares, price_changing(actions, span.adjusted_to))
    prices = {name: rows[name].to_numpy().astype(float) for name in PRICES}
    prices = {name: values / lacking if name == "volume" else values * lacking for name, values in prices.items()}
    return Bars(of, day, rows["market"].combine_chunks(), prices)


def _places(rows: pa.Table, shares: pd.DataFrame) -> np.ndarray:
    """Of each row the place of its share in ``shares``, -1 where it is none of them."""
    names = [rows[c].combine_chunks().dictionary_encode() for c in ("country", "symbol")]
    countries, symbols = ({value: n for n, value in enumerate(c.dictionary.to_pylist())} for c in names)
    places = np.full((len(countries) + 1, len(symbols) + 1), -1)  # the last ones: of shares without a row
    for n, (country, symbol) in enumerate(zip(shares["country"], shares["symbol"], strict=True)):
        places[countries.get(country, -1), symbols.get(symbol, -1)] = n
    places[-1, :] = places[:, -1] = -1
    codes = [c.indices.to_numpy() for c in names]
    return np.asarray(places[codes[0], codes[1]])


def _days(dates: pa.ChunkedArray) -> np.ndarray:
    """Days since 1970; a null is one before all."""
    return dates.combine_chunks().cast(pa.int32()).fill_null(np.iinfo(np.int32).min).to_numpy().astype(np.int64)


def _lacking(
    of: np.ndarray, day: np.ndarray, basis: np.ndarray, shares: pd.DataFrame, actions: pd.DataFrame
) -> np.ndarray:
    """What each stored price is to be multiplied by."""
    lacking = np.ones(len(of))
    known = actions.groupby(["country", "symbol"])
    for n, share in enumerate(zip(shares["country"], shares["symbol"], strict=True)):
        if share in known.indices:
            part = slice(*np.searchsorted(of, [n, n + 1]))
            days, known_to = (values[part].astype("datetime64[D]") for values in (day, basis))
            lacking[part] = factors_of(days, known_to, known.get_group(share).to_dict("records"))[0]
    return lacking
