"""KIS: daily bars of a KOSPI or KOSDAQ share (as traded, with the reference price), and corporate actions of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sise.calendars import Calendar
from sise.sources.asks import Answer, Ask, bars_table
from sise.sources.kis_actions import KINDS, actions_of
from sise.sources.kis_rest import KisRest
from sise.sources.outcome import Failed, Fate, NoData
from sise.sources.plan import final_at, in_parts
from sise.sources.settings import SourceSettings

__all__ = ["KisVendor", "quotes_of"]

_DAILY = "/uapi/domestic-stock/v1/quotations/inquire-daily-itemchartprice"
_QUOTES = "/uapi/domestic-stock/v1/quotations/intstock-multprice"
_ROWS = 100
_PAGES = 50
_DOWN = {"4", "5"}  # KIS's signs: lower limit, down
# A split's record date lies before its ex-date by as long as trading stands still, a future one is announced.
_EARLIER, _LATER = timedelta(days=90), timedelta(days=30)


class KisVendor:
    """A question a share and 100 sessions. ``basis`` of the bars is their own date (FID_ORG_ADJ_PRC = 1: as traded)."""

    name = "kis"
    by = "symbol"
    markets: Sequence[str] = ("KOSPI", "KOSDAQ")
    usual = markets
    workers = 4
    span = _ROWS
    rebased = False

    def __init__(
        self,
        settings: SourceSettings,
        calendars: Mapping[str, Calendar],
        spend: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self.settings, self.calendar, self.now = settings, calendars["KR"], now
        self.rest = KisRest(settings, spend)

    def open(self) -> None:
        self.rest.open()

    def ask(self, ask: Ask) -> Answer:
        self.rest.edge.taken()
        answer = self._bars(ask) if ask.kind == "bars" else self._actions(ask)
        answer.requests = self.rest.edge.taken()
        return answer

    def extras(self, markets: Sequence[str], first: date, last: date) -> list[Ask]:
        spans = in_parts(first, last, 3)  # of a longer span there may be more pages than are read
        return [Ask(f"actions {kind}", "KR", "KR", None, *span) for kind in KINDS for span in spans]

    def close(self) -> None:
        self.rest.close()

    def _bars(self, ask: Ask) -> Answer:
        assert ask.symbol is not None
        found: dict[str, Mapping[str, Any]] = {}
        last = ask.last
        while True:
            params = {
                "FID_COND_MRKT_DIV_CODE": "J",
                "FID_INPUT_ISCD": ask.symbol,
                "FID_INPUT_DATE_1": f"{ask.first:%Y%m%d}",
                "FID_INPUT_DATE_2": f"{last:%Y%m%d}",
                "FID_PERIOD_DIV_CODE": "D",
                "FID_ORG_ADJ_PRC": "1",
            }
            told, _ = self.rest.get(_DAILY, "FHKST03010100", params)
            page = [row for row in told.get("output2") or [] if row.get("stck_bsop_date")]
            found |= {row["stck_bsop_date"]: row for row in page}
            earliest = min((_day(row["stck_bsop_date"]) for row in page), default=ask.first)
            if len(page) < _ROWS or earliest <= ask.first or earliest > last:
                break
            last = earliest - timedelta(days=1)
        rows = [row for text, row in sorted(found.items()) if ask.first <= _day(text) <= ask.last]
        if not rows:
            raise NoData(f"KIS has no bar of {ask.symbol} from {ask.first} to {ask.last}")
        return Answer(Fate.OK, bars=self._table(ask, rows))

    def _table(self, ask: Ask, rows: Sequence[Mapping[str, Any]]):  # type: ignore[no-untyped-def]
        days = [_day(row["stck_bsop_date"]) for row in rows]
        close = [_number(row.get("stck_clpr")) for row in rows]
        now = self.now()
        return bars_table(
            {
                "country": "KR",
                "symbol": ask.symbol,
                "date": days,
                "market": ask.market,
                "open": [_number(row.get("stck_oprc")) for row in rows],
                "high": [_number(row.get("stck_hgpr")) for row in rows],
                "low": [_number(row.get("stck_lwpr")) for row in rows],
                "close": close,
                "volume": [_number(row.get("acml_vol")) for row in rows],
                "value": [_number(row.get("acml_tr_pbmn")) for row in rows],
                "reference": [
                    None if price is None or (change := _change(row)) is None else price - change
                    for price, row in zip(close, rows, strict=True)
                ],
                "basis": days,
                "provisional": [now < final_at(self.settings, "KR", day) for day in days],
            },
            len(rows),
        )

    def _actions(self, ask: Ask) -> Answer:
        kind = ask.kind.removeprefix("actions ")
        path, tr_id, extra = KINDS[kind]
        span = {"F_DT": f"{ask.first - _EARLIER:%Y%m%d}", "T_DT": f"{ask.last + _LATER:%Y%m%d}"}
        rows: list[Mapping[str, Any]] = []
        more = False
        for _ in range(_PAGES):
            told, more = self.rest.get(path, tr_id, {"CTS": "", **span, "SHT_CD": "", **extra}, more)
            rows += told.get("output1") or []
            if not more:
                break
        if more:
            raise Failed(
                f"KIS has more than {_PAGES} pages of {kind} from {ask.first} to {ask.last}: not all were read"
            )
        actions = [a for row in rows for a in actions_of(kind, row, self.calendar) if a["ex_date"] >= ask.first]
        return Answer(Fate.OK, actions=actions)


def quotes_of(rest: KisRest, symbols: Sequence[str]) -> list[Mapping[str, Any]]:
    """The present prices of up to 30 shares, as KIS has them: inter_shrn_iscd, inter2_prpr, acml_vol …"""
    params: dict[str, str] = {}
    for n, symbol in enumerate(symbols, 1):
        params |= {f"FID_COND_MRKT_DIV_CODE_{n}": "J", f"FID_INPUT_ISCD_{n}": symbol}
    told, _ = rest.get(_QUOTES, "FHKST11300006", params)
    return list(told.get("output") or [])


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _number(text: Any) -> float | None:
    try:
        return float(str(text).replace(",", ""))
    except ValueError:
        return None


def _change(row: Mapping[str, Any]) -> float | None:
    """The change against the reference price, with its sign, which KIS gives beside it."""
    change = _number(row.get("prdy_vrss"))
    if change is None:
        return None
    return -abs(change) if str(row.get("prdy_vrss_sign")) in _DOWN else abs(change)
