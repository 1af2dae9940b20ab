"""Naver's daily quotes through pykrx: KOSPI and KOSDAQ by share, without a login, split-adjusted as of today.

No traded value and no reference price: KRX itself is the better source where there is an account. Naver counts back
from today, so a question for an old span brings everything since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pyarrow as pa

from sise.calendars import Calendar
from sise.sources.asks import Answer, Ask, bars_table
from sise.sources.http import Edge
from sise.sources.krx import pykrx_through, table_of
from sise.sources.outcome import Failed, Fate, NoData
from sise.sources.plan import final_at
from sise.sources.settings import SourceSettings

__all__ = ["NaverVendor"]


class NaverVendor:
    """A question a share. ``basis`` of the bars is the last session that has opened, whatever span was asked for."""

    name = "naver"
    by = "symbol"
    markets: Sequence[str] = ("KOSPI", "KOSDAQ")
    usual = markets
    workers = 4
    span = 0
    rebased = True

    def __init__(
        self,
        settings: SourceSettings,
        calendars: Mapping[str, Calendar],
        spend: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self.settings, self.calendar, self.now = settings, calendars["KR"], now
        self.edge = Edge("naver", settings, settings.naver_rate, timedelta(hours=settings.krx_block_hours), spend)

    def open(self) -> None:
        pykrx_through(self.edge, self.settings).auth.set_auth_session(None)  # KRX's cookie is not Naver's to see

    def ask(self, ask: Ask) -> Answer:
        from pykrx.website.naver.wrap import get_market_ohlcv_by_date

        assert ask.symbol is not None
        self.edge.taken()
        rows = table_of(lambda: get_market_ohlcv_by_date(f"{ask.first:%Y%m%d}", f"{ask.last:%Y%m%d}", ask.symbol))
        sent = self.edge.taken()
        if rows.empty and not len(rows.columns):
            raise Failed("Naver's answer is not the XML that is known")
        if rows.empty:
            raise NoData(f"Naver has no bar of {ask.symbol} from {ask.first} to {ask.last}")
        days = [moment.date() for moment in rows.index]
        bars = _bars(ask, rows, days, max(max(days), self._basis()), self._provisional(days))
        return Answer(Fate.OK, bars=bars, requests=sent)

    def extras(self, markets: Sequence[str], first: date, last: date) -> list[Ask]:
        return []

    def close(self) -> None:
        pass

    def _basis(self) -> date:
        """The newest session that has opened: its splits are in the prices, of old spans too."""
        day = self.calendar.back(self.calendar.today(self.now()), 0)
        return day if self.now() >= self.calendar.hours(day)[0] else self.calendar.back(day, 1)

    def _provisional(self, days: Sequence[date]) -> list[bool]:
        now = self.now()
        return [now < final_at(self.settings, "KR", day) for day in days]


def _bars(ask: Ask, rows: pd.DataFrame, days: Sequence[date], basis: date, provisional: list[bool]) -> pa.Table:
    return bars_table(
        {
            "country": "KR",
            "symbol": ask.symbol,
            "date": list(days),
            "market": ask.market,
            "open": rows["시가"].astype("float64"),
            "high": rows["고가"].astype("float64"),
            "low": rows["저가"].astype("float64"),
            "close": rows["종가"].astype("float64"),
            "volume": rows["거래량"].astype("float64"),
            "basis": basis,
            "provisional": provisional,
        },
        len(rows),
    )
