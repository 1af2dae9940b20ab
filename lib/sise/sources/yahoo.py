"""Yahoo through yfinance: bars, splits and dividends of a share in one question. Close is split-adjusted as of today.

Errors are taken as errors (yfinance only logs them), every request goes through our edge, and what the library would
smooth over is looked at in the raw answer: its currency, days that come twice, dividends in another currency.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from sise.calendars import ZONES, Calendar
from sise.sources.asks import Answer, Ask, bars_table
from sise.sources.http import Edge
from sise.sources.outcome import Failed, Fate, NoData, VendorError
from sise.sources.settings import SourceSettings
from sise.sources.yahoo_quotes import quoted_bar
from sise.sources.yahoo_session import Crumb, YahooSession

__all__ = ["QUOTED_AT_ONCE", "YahooVendor", "yahoo_symbol"]

_CURRENCY = {"KR": "KRW", "US": "USD"}
_SUFFIX = {"KOSPI": ".KS", "KOSDAQ": ".KQ"}
_QUOTES = "https://query1.finance.yahoo.com/v7/finance/quote"
QUOTED_AT_ONCE = 100
_INDICES = {"NASDAQ": "^IXIC", "KOSPI": "^KS11", "KOSDAQ": "^KQ11"}


def yahoo_symbol(market: str, symbol: str) -> str:
    """A share's name at Yahoo: BRK.B is BRK-B, 005930 is 005930.KS."""
    return symbol.replace(".", "-").replace("/", "-") + _SUFFIX.get(market, "")


class YahooVendor:
    """A question a share, ten at once; beyond SISE_YAHOO_CHARTS a day, quotes of a hundred shares. ``basis`` of the
    bars is the day of the last trade that Yahoo knows."""

    name = "yahoo"
    by = "symbol"
    markets: Sequence[str] = ("NASDAQ", "NYSE", "KOSPI", "KOSDAQ")
    usual: Sequence[str] = ("NASDAQ", "NYSE")
    span = 0
    rebased = True

    def __init__(
        self,
        settings: SourceSettings,
        calendars: Mapping[str, Calendar],
        spend: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self.settings, self.calendars, self.now = settings, calendars, now
        self.workers = settings.yahoo_workers
        block = timedelta(hours=settings.yahoo_block_hours)
        self.edge = Edge("yahoo", settings, settings.yahoo_rate, block, spend)
        self._raw = threading.local()
        self._data: Any = None

    def open(self) -> None:
        import yfinance
        from yfinance.data import YfData

        self.edge.circuit.check()
        folder = self.settings.local / "cache" / "yfinance"
        folder.mkdir(parents=True, exist_ok=True)
        yfinance.set_tz_cache_location(str(folder))
        yfinance.config.debug.hide_exceptions = False
        self.session = YahooSession(self.edge, self.settings.yahoo_url, self._keep_raw)
        self._data = YfData(session=self.session)
        self.crumb = Crumb(self._data, self.session)
        self._data.cache_get.cache_clear()  # an answer of an earlier run in this process is none to this question

    def ask(self, ask: Ask) -> Answer:
        self.edge.taken()
        answer = self._index(ask) if ask.kind == "indices" else self._share(ask)
        answer.requests = self.edge.taken()
        return answer

    @property
    def affordable(self) -> int:
        return self.settings.yahoo_charts

    def quotes(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """What Yahoo quotes of shares by its names, a hundred a request."""
        for n in range(0, len(names), QUOTED_AT_ONCE):
            asked = {"symbols": ",".join(names[n : n + QUOTED_AT_ONCE])}
            try:
                told = self.crumb.renewed(partial(self._data.get_raw_json, _QUOTES, params=asked))
                found = [dict(quote) for quote in told["quoteResponse"]["result"]]
            except (KeyError, TypeError, ValueError) as problem:
                raise Failed("Yahoo's quotes have another form than known") from problem
            yield from found

    def quoted(self, asks: Sequence[Ask], closes: Mapping[str, float]) -> Iterator[tuple[Ask, Answer]]:
        self.edge.taken()
        named = {yahoo_symbol(ask.market, ask.symbol or ""): ask for ask in asks if closes.get(ask.key)}
        for quote in self.quotes(list(named)):
            ask = named.pop(str(quote.get("symbol")), None)
            if ask is None:
                continue
            if (answer := quoted_bar(quote, ask, closes[ask.key], _CURRENCY[ask.country])) is not None:
                answer.requests = self.edge.taken()  # a request is told of the first share that it was for
                yield ask, answer

    def extras(self, markets: Sequence[str], first: date, last: date) -> list[Ask]:
        return [Ask("indices", "US", "NASDAQ", None, first, last)] if "NASDAQ" in markets else []

    def close(self) -> None:
        if self._data is not None:
            self.session.close()

    def _history(self, name: str, country: str, first: date, last: date) -> tuple[pd.DataFrame, Mapping[str, Any]]:
        """Bars with actions as yfinance has them, and the raw answer they were made from."""
        from yfinance.exceptions import YFException
        from yfinance.scrapers.history import PriceHistory

        self._raw.chart = None
        history = PriceHistory(self._data, name, str(ZONES[country]), session=self.session)
        try:
            rows = history.history(
                start=str(first), end=str(last + timedelta(days=1)), auto_adjust=False, actions=True, keepna=True
            )
        except VendorError:
            raise
        except YFException as problem:
            raise NoData(f"Yahoo: {problem}") from problem
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
            raw = self._raw.chart
            if raw is not None and not raw.get("timestamp"):
                raise NoData(f"Yahoo has no bar of {name} from {first} to {last}") from problem
            raise Failed(f"Yahoo's answer for {name} has another form than known ({problem!r})") from problem
        finally:
            self._data.cache_get.cache_clear()  # else asking again would bring the same answer, a wrong one too
        if self._raw.chart is None:
            raise Failed(f"Yahoo's answer for {name} did not come through")
        return rows, self._raw.chart

    def _share(self, ask: Ask) -> Answer:
        assert ask.symbol is not None
        name = yahoo_symbol(ask.market, ask.symbol)
        rows, raw = self._history(name, ask.country, ask.first, ask.last)
        meta = raw.get("meta") or {}
        if (currency := meta.get("currency")) != _CURRENCY[ask.country]:
            raise Failed(f"Yahoo quotes {name} in {currency}, not in {_CURRENCY[ask.country]}: nothing of it is stored")
        zone = ZONES[ask.country]
        rows = rows[[ask.first <= moment.date() <= ask.last for moment in rows.index]]
        basis = _basis(meta, rows, zone, self.now())
        unknown = _without_volume(raw, zone)  # yfinance makes zeros of them, which would say that nothing was traded
        priced = rows[rows["Close"].notna() & rows["Volume"].notna()]
        good = priced[[moment.date() not in unknown for moment in priced.index]]
        said = _oddities(raw, zone, len(rows) - len(priced), len(priced) - len(good))
        if good.empty:
            raise NoData(f"Yahoo has no bar of {name} from {ask.first} to {ask.last}" + (f" ({said})" if said else ""))
        days = [moment.date() for moment in good.index]
        twice = _twice(raw, zone)
        columns = {
            "country": ask.country,
            "symbol": ask.symbol,
            "date": days,
            "market": ask.market,
            **{name.lower(): good[name].astype("float64") for name in ("Open", "High", "Low", "Close", "Volume")},
            "basis": [max(basis, day) for day in days],
            "provisional": False,
            "problem": [f"Yahoo gave {day} twice, with different prices" if day in twice else None for day in days],
        }
        return Answer(Fate.OK, said, bars_table(columns, len(good)), _actions(ask, raw, zone, good))

    def _index(self, ask: Ask) -> Answer:
        rows, raw = self._history(_INDICES[ask.market], ask.country, ask.first, ask.last)
        unknown = _without_volume(raw, ZONES[ask.country])
        found = []
        for moment, row in rows.iterrows():
            if pd.notna(row["Close"]) and ask.first <= moment.date() <= ask.last:
                names = ("Open", "High", "Low", "Close", "Volume")
                values = {n.lower(): None if pd.isna(row[n]) else float(row[n]) for n in names}
                if moment.date() in unknown:
                    values["volume"] = None
                found.append({"index": ask.market, "date": moment.date(), **values})
        return Answer(Fate.OK if found else Fate.NO_DATA, indices=found)

    def _keep_raw(self, chart: Mapping[str, Any]) -> None:
        self._raw.chart = chart


def _basis(meta: Mapping[str, Any], rows: pd.DataFrame, zone: ZoneInfo, now: datetime) -> date:
    """The day as of which splits are in the prices: the last trade's, maybe after the last bar asked for."""
    last = max((moment.date() for moment in rows.index), default=date.min)
    traded = meta.get("regularMarketTime")
    if isinstance(traded, datetime):
        told = traded.astimezone(zone).date()
    elif isinstance(traded, (int, float)):
        told = datetime.fromtimestamp(traded, UTC).astimezone(zone).date()
    else:
        return last
    return max(last, min(told, now.astimezone(zone).date()))


def _days(raw: Mapping[str, Any], zone: ZoneInfo) -> list[date]:
    return [datetime.fromtimestamp(at, UTC).astimezone(zone).date() for at in raw.get("timestamp") or []]


def _twice(raw: Mapping[str, Any], zone: ZoneInfo) -> set[date]:
    """Days that came more than once and not the same: nothing tells which is true."""
    days = _days(raw, zone)
    quote = raw["indicators"]["quote"][0]
    seen: dict[date, set[tuple[Any, ...]]] = {}
    for n, day in enumerate(days):
        row = tuple(quote[name][n] for name in ("open", "high", "low", "close"))
        if row[3] is not None:
            seen.setdefault(day, set()).add(row)
    return {day for day, rows in seen.items() if len(rows) > 1}


def _without_volume(raw: Mapping[str, Any], zone: ZoneInfo) -> set[date]:
    """Days that came with a price and, in none of their rows, a volume."""
    quote, days = raw["indicators"]["quote"][0], _days(raw, zone)
    volumes = quote.get("volume") or [None] * len(days)
    known = {day for day, volume in zip(days, volumes, strict=True) if volume is not None}
    return set(days) - known


def _oddities(raw: Mapping[str, Any], zone: ZoneInfo, empty: int, untraded: int) -> str:
    days = _days(raw, zone)
    said = []
    if days != sorted(days):
        said.append("bars out of order")
    if doubled := [day for day, count in Counter(days).items() if count > 1]:
        said.append(f"{len(doubled)} days twice ({min(doubled)} …)")
    if empty:
        said.append(f"{empty} rows without a price")
    if untraded:
        said.append(f"{untraded} rows without a volume")
    return ", ".join(said)


def _actions(ask: Ask, raw: Mapping[str, Any], zone: ZoneInfo, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Splits and dividends of the span, from the answer itself."""
    events = raw.get("events") or {}
    currency = (raw.get("meta") or {}).get("currency")
    found: dict[tuple[date, str], dict[str, Any]] = {}

    def add(at: float, kind: str, factor: float | None, amount: float | None, evidence: str) -> None:
        day = datetime.fromtimestamp(at, UTC).astimezone(zone).date()
        if ask.first <= day <= ask.last:
            found[day, kind] = {
                "country": ask.country,
                "symbol": ask.symbol,
                "ex_date": day,
                "kind": kind,
                "factor": factor,
                "amount": amount,
                "applied_by_source": None,
                "confirmed": True,
                "evidence": evidence,
            }

    for event in (events.get("splits") or {}).values():
        new, old = float(event.get("numerator") or 0), float(event.get("denominator") or 0)
        if new > 0 and old > 0 and new != old:
            add(event["date"], "split" if new > old else "reduction", old / new, None, f"Yahoo: split {new:g}:{old:g}")
    for event in (events.get("dividends") or {}).values():
        amount, said = float(event.get("amount") or 0), event.get("currency")
        if amount > 0 and (not said or said == currency):
            add(event["date"], "dividend", None, amount, "Yahoo")
    return list(found.values())
