"""KRX through pykrx: whole markets by session (unadjusted, with the exchange's reference price), listings, indices.

pykrx runs as it is, with three things taken out of its hands: its requests go through our edge (it has no timeouts and
retries nothing), it logs in when we say so (it would do so, and print the login ID, on import), and its tables are
taken before it turns errors into empty frames and volumes into 32 bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pandas as pd
import requests

from sise.calendars import Calendar
from sise.sources.asks import Answer, Ask, bars_table
from sise.sources.http import Edge, RequestsSession, json_of
from sise.sources.outcome import Failed, Fate, Refused, VendorError
from sise.sources.plan import final_at
from sise.sources.quiet import silent
from sise.sources.secrets import secret
from sise.sources.settings import SourceSettings

__all__ = ["KrxVendor", "pykrx_through", "table_of"]

_HOST = "https://data.krx.co.kr"
_NAVER = "http://fchart.stock.naver.com"
MARKET_IDS = {"KOSPI": "STK", "KOSDAQ": "KSQ"}
_INDICES = {"KOSPI": ("1", "001"), "KOSDAQ": ("2", "001")}
_BLOCK_WORDS = ("차단", "비정상적인 접근", "access denied", "request blocked")
_ENDED = "LOGOUT"
_EMPTIES = 5


class KrxVendor:
    """Two questions a session (KOSPI, KOSDAQ). ``now``: the clock that says whether a bar is still provisional."""

    name = "krx"
    by = "market-day"
    markets: Sequence[str] = ("KOSPI", "KOSDAQ")
    usual = markets
    workers = 1  # one account, one session
    span = 1
    rebased = False

    def __init__(
        self,
        settings: SourceSettings,
        calendars: Mapping[str, Calendar],
        spend: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self.settings, self.calendar, self.now = settings, calendars["KR"], now
        block = timedelta(hours=settings.krx_block_hours)
        self.edge = Edge("krx", settings, settings.krx_rate, block, spend)
        self._login = _Login(self.edge, settings)
        self._empties = 0

    def open(self) -> None:
        self._login.open()

    def ask(self, ask: Ask) -> Answer:
        self.edge.taken()
        question = self._indices if ask.kind == "indices" else self._bars
        try:
            answer = question(ask)
        except KeyError as problem:
            raise Failed(f"KRX's answer has another form than known (no {problem})") from problem
        except _LoggedOut:
            if not self._login.expired():
                raise
            self._login.open()
            answer = question(ask)
        answer.requests = self.edge.taken()
        return answer

    def extras(self, markets: Sequence[str], first: date, last: date) -> list[Ask]:
        return [Ask("indices", "KR", market, None, first, last) for market in markets]

    def close(self) -> None:
        self._login.close()

    def quotes(self, market: str, day: date) -> pd.DataFrame:
        """The exchange's own table of a market's session, as text."""
        from pykrx.website.krx.market.core import 전종목시세

        return table_of(lambda: 전종목시세().fetch(trdDd=f"{day:%Y%m%d}", mktId=MARKET_IDS[market]))

    def listing(self) -> pd.DataFrame:
        """The exchange's table of all listed shares, as text."""
        from pykrx.website.krx.market.core import 전종목기본정보

        return table_of(lambda: 전종목기본정보().fetch(mktId="ALL", segTpCd="ALL"))

    def _bars(self, ask: Ask) -> Answer:
        rows = self.quotes(ask.market, ask.first)
        if rows.empty:
            raise self._empty(f"{ask.market} on {ask.first}")
        self._empties = 0
        close, volume = _numbers(rows["TDD_CLSPRC"]), _numbers(rows["ACC_TRDVOL"])
        if not (close.fillna(0) > 0).any() or not (volume.fillna(0) > 0).any():
            return Answer(
                Fate.CLOSED,
                f"KRX has no trade at all on {ask.first}, which the calendar takes for a session: if the exchange was "
                "closed, name the day in conf/calendar_overrides.json",
            )
        change = _numbers(rows["CMPPREVDD_PRC"])
        final = self.now() >= final_at(self.settings, "KR", ask.first)
        numbers = {
            "open": "TDD_OPNPRC",
            "high": "TDD_HGPRC",
            "low": "TDD_LWPRC",
            "close": "TDD_CLSPRC",
            "volume": "ACC_TRDVOL",
            "value": "ACC_TRDVAL",
        }
        columns: dict[str, Any] = {name: _numbers(rows[source]) for name, source in numbers.items()}
        problem = _unreadable(rows, numbers)
        columns |= {
            "country": "KR",
            "symbol": rows["ISU_SRT_CD"].str.strip(),
            "date": ask.first,
            "market": ask.market,
            "reference": close - change,
            "basis": ask.first,
            "provisional": not final,
            "problem": problem,
        }
        # A listed share without any figure of the day (not yet, or no longer, quoted) has no bar.
        quoted = ~(close.isna() & volume.isna() & problem.isna())
        table = bars_table(columns, len(rows)).filter(quoted.to_numpy())
        return Answer(Fate.OK, "" if final else "provisional: volumes settle until the next morning", table)

    def _empty(self, what: str) -> VendorError:
        """A session without a share is no answer: it is how some blocks look. A few in a row are taken for one."""
        self._empties += 1
        if self._empties < _EMPTIES:
            return Failed(f"KRX's table of {what} is empty, though the calendar has a session")
        self._empties = 0
        return self.edge.circuit.open(f"{_EMPTIES} tables in a row were empty, the last one of {what}")

    def _indices(self, ask: Ask) -> Answer:
        from pykrx.website.krx.market.core import 개별지수시세

        group, ticker = _INDICES[ask.market]
        rows = table_of(lambda: 개별지수시세().fetch(ticker, group, f"{ask.first:%Y%m%d}", f"{ask.last:%Y%m%d}"))
        if rows.empty:
            if len(self.calendar.between(ask.first, ask.last)) > 1:
                raise self._empty(f"the {ask.market} index from {ask.first} to {ask.last}")
            # a single session may be one on which the exchange was closed
            return Answer(Fate.NO_DATA, f"KRX has no {ask.market} index from {ask.first} to {ask.last}")
        self._empties = 0
        days = pd.to_datetime(rows["TRD_DD"], format="%Y/%m/%d").dt.date
        found = {
            "open": _numbers(rows["OPNPRC_IDX"]),
            "high": _numbers(rows["HGPRC_IDX"]),
            "low": _numbers(rows["LWPRC_IDX"]),
            "close": _numbers(rows["CLSPRC_IDX"]),
            "volume": _numbers(rows["ACC_TRDVOL"]),
        }
        indices = [
            {"index": ask.market, "date": day, **{name: _plain(values.iloc[n]) for name, values in found.items()}}
            for n, day in enumerate(days)
            if ask.first <= day <= ask.last and found["close"].iloc[n] > 0
        ]
        return Answer(Fate.OK if indices else Fate.NO_DATA, indices=indices)


class _LoggedOut(Failed):
    """The exchange has ended the session."""


class _Login:
    """One login a run. Another one only when the exchange has ended a session that was old enough to have expired by
    itself: an account has one session, and logging in against somebody else's would only go to and fro."""

    _LIFE = timedelta(minutes=50)

    def __init__(self, edge: Edge, settings: SourceSettings):
        self.edge, self.settings = edge, settings
        self._since: datetime | None = None
        self._modules: Any = None

    def open(self) -> None:
        otherwise = "run with --source naver, which needs none"
        name = secret(self.settings, "KRX_ID", "KRX's data service needs a login since 2026-01", otherwise)
        word = secret(self.settings, "KRX_PW", "it is the password of KRX_ID", otherwise)
        self.edge.circuit.check()
        if self._modules is None:
            self._modules = pykrx_through(self.edge, self.settings)
        auth = self._modules.auth
        with silent() as said:
            session = auth.KRXSession()
            good = session.refresh(name, word)
        if not good:
            raise Refused(
                "KRX wants the password of KRX_ID to be changed first (CD010): change it at data.krx.co.kr"
                if "비밀번호 변경" in said.getvalue()
                else "KRX refuses the login: look at KRX_ID and KRX_PW; trying it often locks the account"
            )
        session.expiry_time = (
            datetime.now(UTC) + timedelta(days=1)
        ).timestamp()  # when it ends is the exchange's to say
        auth.set_auth_session(session)
        self._since = datetime.now(UTC)

    def expired(self) -> bool:
        return self._since is not None and datetime.now(UTC) - self._since > self._LIFE

    def close(self) -> None:
        if self._modules is not None:
            self._modules.auth.set_auth_session(None)


def pykrx_through(edge: Edge, settings: SourceSettings) -> SimpleNamespace:
    """pykrx with its requests through ``edge``; imported so that it neither logs in nor prints."""
    hidden = {name: os.environ.pop(name) for name in ("KRX_ID", "KRX_PW") if name in os.environ}
    try:
        with silent():
            from pykrx.website.comm import auth, webio
    finally:
        os.environ.update(hidden)
    bases = {_HOST: settings.krx_url, _NAVER: settings.naver_url}
    through = SimpleNamespace(Session=lambda: RequestsSession(edge, bases, partial(_judge, edge)))
    auth.requests = webio.requests = through
    # pykrx's own would log in by itself: with the environment's password, before any question, Naver's too
    webio.get_auth_session = lambda: auth._auth_session
    return SimpleNamespace(auth=auth, webio=webio)


def _judge(edge: Edge, response: requests.Response) -> None:
    """Blocked, logged out, or neither. KRX has no status for either that could be relied on."""
    text = response.text
    start = text[:2_000].lower()
    if response.status_code == 403 or any(word in start for word in _BLOCK_WORDS):
        raise edge.circuit.open(f"HTTP {response.status_code}, {len(text)} characters that refuse")
    if text.strip()[:20].upper().startswith(_ENDED):
        raise _LoggedOut("KRX has ended the session (LOGOUT): is the account logged in elsewhere? It has one session")
    if response.url.endswith(".cmd") and "getJsonData" in response.url:
        json_of(response, "KRX")


def table_of(fetch: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What pykrx makes of the answer; an answer of another form is a failure, never an empty table."""
    try:
        with silent():
            return fetch()
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise Failed(f"KRX's answer has another form than known ({type(problem).__name__}: {problem})") from problem


def _numbers(texts: pd.Series) -> pd.Series:
    return pd.to_numeric(
        texts.astype("string").str.replace(",", "").str.strip().replace({"-": None, "": None}), errors="coerce"
    ).astype("float64")


def _unreadable(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.Series:
    """What of a row is no number, in words; null where all is well."""
    said = pd.Series([None] * len(rows), index=rows.index, dtype="object")
    for name, source in columns.items():
        text = rows[source].astype("string").str.strip()
        bad = text.notna() & ~text.isin(["-", ""]) & _numbers(rows[source]).isna()
        for n in rows.index[bad.fillna(False)]:
            said[n] = f"{said[n] + '; ' if said[n] else ''}{name} '{text[n]}' is not a number"
    return said


def _plain(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
