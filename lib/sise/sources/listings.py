"""Who is listed: KOSPI and KOSDAQ from KRX and KIS's master files, NASDAQ from its directory and Yahoo's screener.

Both are whole listings: a share that they no longer name has left. So neither is taken unless it came whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pandas as pd
import requests
from pyspark.sql import DataFrame, SparkSession

from sise.calendars import Calendar, normal_market
from sise.errors import InputError
from sise.sources.base import ACTIONS, BARS, INDICES, SYMBOLS, Request
from sise.sources.http import Edge, RequestsSession
from sise.sources.master import Listed, read_masters
from sise.sources.outcome import Again, Failed
from sise.sources.plan import last_session
from sise.sources.settings import SourceSettings
from sise.sources.yahoo import YahooVendor, yahoo_symbol

__all__ = ["KrListing", "NasdaqListing", "read_directory"]

_KEEP_SECONDS = 3_600
_NOT_COMMON = re.compile(
    r"\b(warrants?|units?|rights?|preferred|notes?|debentures?|bonds?|preference)\b", re.IGNORECASE
)
_PAGE = 250
_EXCHANGES = ("NMS", "NGM", "NCM")


class _Listing:
    """The part of Source that a listing has nothing for. ``partial``: what it leaves null is not known, not gone."""

    whole_listing = True
    partial = True
    name = ""

    def __init__(self, settings: SourceSettings):
        self.settings, self.shrink_limit = settings, settings.shrink_limit

    def symbols(self, spark: SparkSession, request: Request) -> DataFrame:
        rows = [row for row in self.rows() if not request.markets or row["market"] in request.markets]
        if not rows:
            raise InputError(f"--source {self.name} lists no share of {', '.join(request.markets)}")
        return spark.createDataFrame(rows, SYMBOLS)

    def rows(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def bars(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], BARS)

    def actions(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], ACTIONS)

    def indices(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], INDICES)


class KrListing(_Listing):
    """``krx``: the exchange's own list with market caps of the last session, flags from KIS's master files. ``kis``:
    the master files alone, which need no login."""

    def __init__(
        self,
        name: str,
        settings: SourceSettings,
        calendars: Mapping[str, Calendar],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        super().__init__(settings)
        self.name, self.calendars, self.now = name, calendars, now

    def rows(self) -> list[dict[str, Any]]:
        masters = read_masters(self.settings)
        if self.name == "kis":
            return [_row_of_master(share) for share in masters.values() if not share.is_etf]
        from sise.sources.krx import KrxVendor

        vendor = KrxVendor(self.settings, self.calendars)
        vendor.open()
        try:
            listed = vendor.listing()
            day = last_session(self.calendars["KR"], self.settings, self.now())
            quotes = pd.concat([vendor.quotes(market, day) for market in vendor.markets])
        finally:
            vendor.close()
        if listed.empty or quotes.empty:
            raise Failed("KRX's listing came empty")
        caps = dict(zip(quotes["ISU_SRT_CD"].str.strip(), map(_whole, quotes["MKTCAP"]), strict=True))
        rows = [_row_of_krx(share, caps, masters) for share in listed.to_dict("records")]
        return [row for row in rows if row["market"] in vendor.markets]


def _row_of_krx(
    share: Mapping[str, Any], caps: Mapping[str, int | None], masters: Mapping[str, Listed]
) -> dict[str, Any]:
    symbol, section = share["ISU_SRT_CD"].strip(), share.get("SECT_TP_NM") or ""
    master = masters.get(symbol)
    shares = _whole(share["LIST_SHRS"])
    cap = caps.get(symbol)
    return {
        "country": "KR",
        "symbol": symbol,
        "valid_from": None,
        "name": share["ISU_ABBRV"].strip(),
        "market": normal_market(share["MKT_TP_NM"]),
        "market_cap": None if cap is None else float(cap),
        "listed_shares": shares,
        "is_etf": False,
        "is_warning": _either(master.is_warning if master else None, section.startswith("투자주의환기")),
        "is_administration": _either(master.is_administration if master else None, section.startswith("관리")),
        "is_halted": master.is_halted if master else None,
        "active": True,
    }


def _either(told: bool | None, shown: bool) -> bool | None:
    return True if shown else told


def _row_of_master(share: Listed) -> dict[str, Any]:
    return {
        "country": "KR",
        "symbol": share.symbol,
        "valid_from": None,
        "name": share.name,
        "market": share.market,
        "market_cap": share.market_cap,
        "listed_shares": share.listed_shares,
        "is_etf": False,
        "is_warning": share.is_warning,
        "is_administration": share.is_administration,
        "is_halted": share.is_halted,
        "active": True,
    }


def _whole(text: Any) -> int | None:
    digits = str(text).replace(",", "").strip()
    return int(digits) if digits.isdigit() and int(digits) > 0 else None


class NasdaqListing(_Listing):
    """Common shares of the directory, their market caps from the screener. A cap below ``floor`` (SISE_MIN_CAP_USD),
    or none, takes no share up; one that was taken up stays until it leaves the directory: what fell must not
    vanish, or every figure about past signals would look better than it was."""

    name = "yahoo"

    def __init__(self, settings: SourceSettings):
        super().__init__(settings)
        self.floor = settings.min_cap_usd

    def rows(self) -> list[dict[str, Any]]:
        directory = read_directory(self.settings)
        quotes = self._screen()
        rows = []
        for symbol, (name, status) in directory.items():
            quote = quotes.get(yahoo_symbol("NASDAQ", symbol), {})
            cap, shares = quote.get("marketCap"), quote.get("sharesOutstanding")
            rows.append(
                {
                    "country": "US",
                    "symbol": symbol,
                    "valid_from": None,
                    "name": name,
                    "market": "NASDAQ",
                    "market_cap": float(cap) if cap else None,
                    "listed_shares": int(shares) if shares else None,
                    "is_etf": False,
                    "is_warning": status not in {"", "N"},
                    "is_administration": False,
                    "is_halted": None,
                    "active": True,
                }
            )
        return rows

    def _screen(self) -> dict[str, dict[str, Any]]:
        """All pages of the screener, by Yahoo's symbol; one that breaks off half-way is a failure, not a short list."""
        import yfinance
        from yfinance import EquityQuery

        vendor = YahooVendor(self.settings, {})
        vendor.open()
        query = EquityQuery("is-in", ["exchange", *_EXCHANGES])
        found: dict[str, dict[str, Any]] = {}
        offset, total = 0, None
        try:
            while total is None or offset < total:  # small ones too: one that fell has another cap than the last known
                page = vendor.crumb.renewed(
                    partial(
                        yfinance.screen, query, size=_PAGE, offset=offset, sortField="intradaymarketcap", sortAsc=False
                    )
                )
                quotes, total = page.get("quotes") or [], int(page.get("total") or 0)
                if not quotes and offset < total:
                    raise Failed(f"Yahoo's screener ends at {offset} of {total} shares")
                found |= {quote["symbol"]: quote for quote in quotes}
                offset += len(quotes)
        except (KeyError, TypeError, ValueError) as problem:
            raise Failed(f"Yahoo's screener answers in another form than known ({problem!r})") from problem
        finally:
            vendor.close()
        if not found:
            raise Failed("Yahoo's screener names no share of NASDAQ")
        return found


def read_directory(settings: SourceSettings) -> dict[str, tuple[str, str]]:
    """Symbol → (name, financial status) of the common shares in nasdaqlisted.txt, which is kept for an hour."""
    kept = settings.local / "cache" / "nasdaqlisted.txt"
    if not kept.is_file() or not 0 <= time.time() - kept.stat().st_mtime < _KEEP_SECONDS:
        edge = Edge("nasdaq", settings, 1.0, timedelta(hours=1))
        text = RequestsSession(edge, {}, _is_whole).get(f"{settings.nasdaq_url}/nasdaqlisted.txt").text
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(kept)
    return _common(kept.read_text(encoding="utf-8"))


def _is_whole(response: requests.Response) -> None:
    """The file's last line says when it was made: without it the file broke off."""
    if response.status_code < 400 and not _last_line(response.text).startswith("File Creation Time:"):
        raise Again(f"nasdaqlisted.txt breaks off ({len(response.content)} bytes)")


def _last_line(text: str) -> str:
    return text.strip().rsplit("\n", 1)[-1]


def _common(text: str) -> dict[str, tuple[str, str]]:
    lines = text.strip().splitlines()
    columns = [name.strip() for name in lines[0].split("|")]
    needed = ("Symbol", "Security Name", "Test Issue", "Financial Status", "ETF", "NextShares")
    if missing := set(needed) - set(columns):
        raise Failed(f"nasdaqlisted.txt has no column {', '.join(sorted(missing))}: its form has changed")
    found = {}
    for line in lines[1:-1]:
        row = dict(zip(columns, (field.strip() for field in line.split("|")), strict=False))
        if not row.get("Symbol") or [row.get(c) for c in ("Test Issue", "ETF", "NextShares")] != ["N", "N", "N"]:
            continue
        name, dash, kind = row["Security Name"].rpartition(" - ")
        if _NOT_COMMON.search(kind):
            continue
        found[row["Symbol"]] = (name if dash else kind, row["Financial Status"])
    return found
