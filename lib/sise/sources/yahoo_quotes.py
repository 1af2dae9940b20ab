"""A session's bars from Yahoo's quotes, a hundred shares a question."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from sise.calendars import ZONES
from sise.sources.asks import Answer, Ask, bars_table
from sise.sources.outcome import Fate

__all__ = ["quoted_bar"]

_REASON = "quoted"
# What else than rounding lies between the close that Yahoo goes on from and ours is to be looked into.
_SAME = 1e-3
# So is a day's move that may be a split nobody has told yet.
_CALM = 0.25


def quoted_bar(quote: Mapping[str, Any], ask: Ask, close: float, currency: str) -> Answer | None:
    """The bar of the question's last session; None where the quote is not whole, is of another day or in another
    currency, or does not go on from the stored ``close``: the share's chart has to tell then."""
    fields = ("Open", "DayHigh", "DayLow", "Price", "Volume", "PreviousClose", "Time")
    values = [quote.get(f"regularMarket{field}") for field in fields]
    if not all(isinstance(value, (int, float)) and isfinite(value) and value > 0 for value in values):
        return None
    opened, high, low, last, volume, before, at = map(float, values)  # type: ignore[arg-type]
    try:
        traded = datetime.fromtimestamp(at, UTC).astimezone(ZONES[ask.country]).date()
    except (ValueError, OverflowError, OSError):
        return None
    ordered = low <= min(opened, last) and max(opened, last) <= high
    goes_on = abs(before / close - 1) <= _SAME and abs(last / before - 1) <= _CALM
    if quote.get("currency") != currency or traded != ask.last or not ordered or not goes_on:
        return None
    columns = {
        "country": ask.country,
        "symbol": ask.symbol,
        "date": ask.last,
        "market": ask.market,
        "open": opened,
        "high": high,
        "low": low,
        "close": last,
        "volume": volume,
        "basis": ask.last,
        "provisional": True,  # until the share's chart was asked for
    }
    return Answer(Fate.OK, _REASON, bars_table(columns, 1))
