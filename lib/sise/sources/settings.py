"""What the vendors' sources may be told beside Settings: addresses, pace, patience. All from the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import time
from pathlib import Path

from sise.settings import Settings, _fraction, _positive, _setting, _url, _whole

__all__ = ["SourceSettings"]

_web = _url("http", "https")
_socket = _url("ws", "wss")


def _base(parse: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: parse(text).rstrip("/")


def _clock(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError as problem:
        raise ValueError(f"{text!r} is not a time like 18:00") from problem


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"{text!r} is not a number above 0")
    return value


@dataclass(frozen=True)
class SourceSettings(Settings):
    """Settings with the vendors' own. Rates are requests a second of one run, over all its threads."""

    secrets_file: Path = _setting(
        "SISE_SECRETS",
        Path(".local/secrets.env"),
        Path,
        "KEY=value lines, mode 0600, for secrets not in the environment",
    )
    krx_url: str = _setting("SISE_KRX_URL", "https://data.krx.co.kr", _base(_web), "the KRX data service")
    naver_url: str = _setting("SISE_NAVER_URL", "http://fchart.stock.naver.com", _base(_web), "Naver's chart service")
    yahoo_url: str = _setting(
        "SISE_YAHOO_URL", "", _base(_web), "instead of Yahoo's own hosts: one address for all of them"
    )
    yahoo_stream_url: str = _setting(
        "SISE_YAHOO_STREAM_URL", "wss://streamer.finance.yahoo.com/?version=2", _socket, "Yahoo's stream of ticks"
    )
    nasdaq_url: str = _setting(
        "SISE_NASDAQ_URL", "https://www.nasdaqtrader.com/dynamic/symdir", _base(_web), "where nasdaqlisted.txt is"
    )
    kis_url: str = _setting(
        "SISE_KIS_URL",
        "https://openapi.koreainvestment.com:9443",
        _base(_web),
        "KIS REST; paper: https://openapivts.koreainvestment.com:29443",
    )
    kis_stream_url: str = _setting(
        "SISE_KIS_STREAM_URL", "ws://ops.koreainvestment.com:21000", _base(_socket), "KIS WebSocket; paper: port 31000"
    )
    kis_master_url: str = _setting(
        "SISE_KIS_MASTER_URL",
        "https://new.real.download.dws.co.kr/common/master",
        _base(_web),
        "where KIS publishes kospi_code.mst.zip and kosdaq_code.mst.zip",
    )
    krx_rate: float = _setting("SISE_KRX_RATE", 1.0, _above_zero, "requests a second to KRX")
    naver_rate: float = _setting("SISE_NAVER_RATE", 5.0, _above_zero, "requests a second to Naver")
    yahoo_rate: float = _setting("SISE_YAHOO_RATE", 5.0, _above_zero, "requests a second to Yahoo")
    kis_rate: float = _setting("SISE_KIS_RATE", 15.0, _above_zero, "requests a second to KIS (paper: 2)")
    http_timeout: float = _setting("SISE_HTTP_TIMEOUT", 20.0, _above_zero, "seconds that a vendor may stay silent")
    http_attempts: int = _setting("SISE_HTTP_ATTEMPTS", 5, _whole(1), "how often one request is tried")
    backoff_seconds: float = _setting("SISE_BACKOFF", 1.0, _positive, "first wait before trying again; it doubles")
    backoff_cap_seconds: float = _setting("SISE_BACKOFF_CAP", 60.0, _positive, "longest wait before trying again")
    krx_block_hours: float = _setting(
        "SISE_KRX_BLOCK_HOURS", 24.0, _positive, "KRX is left alone so long after a block"
    )
    yahoo_block_hours: float = _setting("SISE_YAHOO_BLOCK_HOURS", 1.0, _positive, "the same for Yahoo")
    kis_block_hours: float = _setting("SISE_KIS_BLOCK_HOURS", 0.1, _positive, "the same for KIS")
    clock_skew_seconds: float = _setting(
        "SISE_CLOCK_SKEW", 300.0, _positive, "a run ends if this machine's clock differs more from the vendor's"
    )
    krx_evening: time = _setting(
        "SISE_KRX_EVENING", time(18, 0), _clock, "Seoul: from then on a session's bars are asked"
    )
    krx_final: time = _setting(
        "SISE_KRX_FINAL", time(8, 0), _clock, "Seoul, the next day: from then on they are no longer provisional"
    )
    us_evening: time = _setting(
        "SISE_US_EVENING", time(18, 0), _clock, "New York: from then on a session's bars are asked"
    )
    recheck_sessions: int = _setting(
        "SISE_RECHECK_SESSIONS", 5, _whole(1), "the last so many sessions are asked for again"
    )
    history_years: float = _setting("SISE_HISTORY_YEARS", 4.0, _positive, "how much history a new share gets, years")
    yahoo_charts: int = _setting(
        "SISE_YAHOO_CHARTS",
        2_400,
        _whole(0),
        "a day's run asks for so many charts of single shares; the others are quoted, each in its turn",
    )
    yahoo_workers: int = _setting("SISE_YAHOO_WORKERS", 10, _whole(1), "how many requests to Yahoo are under way")
    min_cap_usd: float = _setting(
        "SISE_MIN_CAP_USD", 1e8, _positive, "NASDAQ: a share of a smaller market cap is not taken up"
    )
    shrink_limit: float = _setting(
        "SISE_SHRINK_LIMIT", 0.2, _fraction, "a listing that lost more of a market's shares than this is not believed"
    )
    merge_rows: int = _setting("SISE_MERGE_ROWS", 250_000, _whole(1), "answers are merged when so many rows wait")
    kis_stream_limit: int = _setting(
        "SISE_KIS_REGISTRATIONS", 41, _whole(0), "shares that one KIS WebSocket may register"
    )
    silence_seconds: float = _setting(
        "SISE_SILENCE", 30.0, _above_zero, "in the session, a source silent for so long gives way"
    )

    @property
    def state(self) -> Path:
        """Circuits, ledgers and tokens: what must survive a process."""
        return self.local / "state"
