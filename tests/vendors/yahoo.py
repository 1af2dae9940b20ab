"""Yahoo's chart, screener, crumb and stream, from given bars."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from tests.vendors.server import Asked, Reply, VendorServer

_ZONE = ZoneInfo("America/New_York")
Row = tuple[date, float | None, float | None, float | None, float | None, int | None]


@dataclass
class Share:
    """``rows``: (day, open, high, low, close, volume), split-adjusted; ``splits``: (day, new, old)."""

    rows: Sequence[Row]
    splits: Sequence[tuple[date, float, float]] = ()
    dividends: Sequence[tuple[Any, ...]] = ()  # (day, amount) or (day, amount, currency)
    currency: str = "USD"
    cap: float = 1e9
    zone: ZoneInfo = field(default=_ZONE)
    last_trade: date | None = None

    def moment(self, day: date) -> int:
        return int(datetime.combine(day, time(9, 30), self.zone).timestamp())


class YahooServer(VendorServer):
    """``shares``: by Yahoo's symbol; ``quotes``: what it quotes, if not the shares' last rows. ``alter``: may change a
    chart before it is sent. ``crumb``: the one that it gives; quotes and the screener refuse others with the status
    ``refusal``."""

    def __init__(self, shares: Mapping[str, Share], **options: Any):
        self.shares = dict(shares)
        self.alter: Callable[[dict[str, Any]], None] = lambda chart: None
        self.quotes: list[dict[str, Any]] = []
        self.crumb, self.refusal = "crumb", 401
        super().__init__(**options)

    def answer(self, asked: Asked) -> Reply:
        if asked.path.startswith("/v8/finance/chart/"):
            return self._chart(asked)
        if asked.path == "/v1/test/getcrumb":
            return Reply(self.crumb, headers={"Content-Type": "text/plain"})
        if asked.path in ("/v1/finance/screener", "/v7/finance/quote") and asked.query.get("crumb") != self.crumb:
            error = {"code": "Unauthorized", "description": "Invalid Crumb"}
            return Reply(json.dumps({"finance": {"result": None, "error": error}}), status=self.refusal)
        if asked.path == "/v7/finance/quote":
            told = self.quotes or self._quotes(asked.query.get("symbols", "").split(","))
            return Reply(json.dumps({"quoteResponse": {"result": told, "error": None}}))
        if asked.path == "/v1/finance/screener":
            return self._screen(json.loads(asked.body))
        if asked.path in ("", "/"):
            return Reply("", status=404, headers={"Set-Cookie": "A3=x"})
        if asked.path.endswith("nasdaqlisted.txt"):
            return Reply(self.directory, headers={"Content-Type": "text/plain"})
        return Reply("not found", status=404)

    directory = ""

    def _chart(self, asked: Asked) -> Reply:
        symbol = unquote(asked.path.rsplit("/", 1)[1])
        share = self.shares.get(symbol)
        if share is None:
            error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            return Reply(json.dumps({"chart": {"result": None, "error": error}}), status=404)
        low, high = int(asked.query.get("period1", 0)), int(asked.query.get("period2", 2**40))
        rows = [row for row in share.rows if low <= share.moment(row[0]) < high]
        last = share.last_trade or max((row[0] for row in share.rows), default=date(2020, 1, 1))
        events: dict[str, Any] = {}
        splits = [(share.moment(day), new, old) for day, new, old in share.splits if low <= share.moment(day) < high]
        if splits:
            events["splits"] = {
                str(at): {"date": at, "numerator": new, "denominator": old, "splitRatio": f"{new:g}:{old:g}"}
                for at, new, old in splits
            }
        paid = [d for d in share.dividends if low <= share.moment(d[0]) < high]
        if paid:
            events["dividends"] = {
                str(share.moment(d[0])): {"date": share.moment(d[0]), "amount": d[1]}
                | ({"currency": d[2]} if len(d) > 2 else {})
                for d in paid
            }
        quote = {
            name: [row[n] for row in rows] for n, name in enumerate(("open", "high", "low", "close", "volume"), start=1)
        }
        result: dict[str, Any] = {
            "meta": {
                "currency": share.currency,
                "symbol": symbol,
                "instrumentType": "EQUITY",
                "exchangeTimezoneName": str(share.zone),
                "regularMarketTime": int(datetime.combine(last, time(16), share.zone).timestamp()),
                "gmtoffset": 0,
                "timezone": "EST",
                "priceHint": 2,
                "dataGranularity": "1d",
                "validRanges": ["1d", "max"],
                "firstTradeDate": 0,
            },
            "indicators": {"quote": [quote], "adjclose": [{"adjclose": quote["close"]}]},
        }
        if rows:
            result["timestamp"] = [share.moment(row[0]) for row in rows]
        else:
            result["indicators"] = {"quote": [{}], "adjclose": [{}]}
        if events:
            result["events"] = events
        self.alter(result)
        return Reply(json.dumps({"chart": {"result": [result], "error": None}}))

    def _quotes(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Of the shares' last rows."""
        found = []
        for name in names:
            if (share := self.shares.get(name)) is None or len(share.rows) < 2:
                continue
            day, *values = share.rows[-1]
            at = int(datetime.combine(share.last_trade or day, time(16), share.zone).timestamp())
            told = dict(zip(("Open", "DayHigh", "DayLow", "Price", "Volume"), values, strict=True))
            told |= {"PreviousClose": share.rows[-2][4], "Time": at}
            quote = {"symbol": name, "currency": share.currency}
            found.append(quote | {f"regularMarket{field}": value for field, value in told.items()})
        return found

    def _screen(self, body: Mapping[str, Any]) -> Reply:
        ranked = sorted(self.shares.items(), key=lambda item: -item[1].cap)
        ranked = [item for item in ranked if not item[0].startswith("^")]
        page = ranked[body["offset"] : body["offset"] + body["size"]]
        quotes = [{"symbol": name, "marketCap": share.cap, "exchange": "NMS"} for name, share in page]
        told = {"finance": {"result": [{"total": len(ranked), "count": len(quotes), "quotes": quotes}], "error": None}}
        return Reply(json.dumps(told))


def directory(rows: Sequence[tuple[str, str]], **other: Mapping[str, str]) -> str:
    """nasdaqlisted.txt of (symbol, security name); ``other``: by symbol, what differs from an ordinary share."""
    head = "Symbol|Security Name|Market Category|Test Issue|Financial Status|Round Lot Size|ETF|NextShares"
    lines = []
    for symbol, name in rows:
        fields = {"market": "Q", "test": "N", "status": "N", "lot": "100", "etf": "N", "next": "N"} | dict(
            other.get(symbol, {})
        )
        lines.append("|".join([symbol, name, *fields.values()]))
    return "\r\n".join([head, *lines, "File Creation Time: 1121202521:30|||||||"])


def pricing(symbol: str, price: float, at: datetime, day_volume: int, **other: Any) -> str:
    """A message of Yahoo's stream: protobuf in base64 in JSON."""
    from yfinance.pricing_pb2 import PricingData

    data = PricingData(
        id=symbol, price=price, time=int(at.astimezone(UTC).timestamp() * 1000), day_volume=day_volume, **other
    )
    return json.dumps({"type": "pricing", "message": base64.b64encode(data.SerializeToString()).decode()})
