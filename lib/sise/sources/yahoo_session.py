"""The session that yfinance asks Yahoo with: a browser's TLS (curl_cffi), our edge, our address where one is set."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from curl_cffi import requests as curl

from sise.sources.http import Edge, json_of
from sise.sources.outcome import Again, Failed, NoData

__all__ = ["Crumb", "YahooSession"]

R = TypeVar("R")
_CHART = re.compile(r"/v8/finance/chart/")
# Asked for its cookie alone; Yahoo answers 404 with one.
_COOKIE = re.compile(r"//fc\.yahoo\.com/?$")
# So many seconds after Yahoo gave no crumb it is asked for one again.
_WITHOUT = 60.0
_HOSTS = re.compile(r"^https://([a-z0-9.]+\.yahoo\.com)(?=/|$)")


class CrumbRefused(Failed):
    """Quotes and the screener are for those who send a crumb and the cookie it belongs to, and both run out."""


class YahooSession(curl.Session):
    """``base``: one address for all of Yahoo's hosts, '' for the real ones. ``keep``: is shown each chart."""

    def __init__(self, edge: Edge, base: str, keep: Callable[[Mapping[str, Any]], None]):
        super().__init__(impersonate="chrome")
        self.edge, self.base, self.keep = edge, base, keep
        self._cookie: Any = None

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> Any:
        for_cookie = bool(_COOKIE.search(url))
        if for_cookie and self._cookie is not None:
            return self._cookie  # yfinance asks for it before every question while it finds none to keep
        where = _HOSTS.sub(self.base, url) if self.base else url
        options.pop("timeout", None)

        def call(timeout: float) -> Any:
            asked = {**options, "timeout": timeout}
            response = super(YahooSession, self).request(method, where, *args, **asked)
            if for_cookie and response.status_code == 404:
                response.status_code = 200
            return response

        def judge(response: Any) -> None:
            if not for_cookie:
                self._judge(url, response)

        response = self.edge.send(call, judge)
        if for_cookie:
            self._cookie = response
        return response

    def forget(self) -> None:
        """The next cookie is a new one."""
        self._cookie = None
        self.cookies.clear()

    def _judge(self, url: str, response: Any) -> None:
        if "Too Many Requests" in response.text[:200]:
            raise Again("Yahoo answers Too Many Requests", limited=True)
        if not _CHART.search(url):
            if response.status_code in (401, 403):
                raise CrumbRefused(f"Yahoo refuses the crumb (HTTP {response.status_code})")
            return
        told = json_of(response, "Yahoo")
        chart = told.get("chart") if isinstance(told, dict) else None
        if not isinstance(chart, dict):
            raise Failed("Yahoo's answer holds no chart")
        if error := chart.get("error"):
            reason = f"Yahoo: {error.get('code', '')}: {error.get('description', '')}"
            raise NoData(reason) if response.status_code in (200, 400, 404) else Failed(reason)
        results = chart.get("result")
        if not results:
            raise NoData("Yahoo's answer is empty")
        self.keep(results[0])


class Crumb:
    """yfinance's crumb. It sends one with every question and keeps it for as long as the process lives; here one that
    is refused is renewed, and where none can be had questions are asked without: charts need none."""

    def __init__(self, data: Any, session: YahooSession):
        self.data, self.session = data, session
        self.again = 0.0
        self._ask = type(data)._get_cookie_and_crumb
        self._lock = threading.Lock()
        data._crumb = data._cookie = None  # another session's
        data._get_cookie_and_crumb = self._get

    def renewed(self, question: Callable[[], R]) -> R:
        """The question's answer; where Yahoo refuses the crumb, the answer to a second one with another."""
        try:
            return question()
        except CrumbRefused:
            if self.data._crumb is None:
                raise
            self._forget()
            return question()

    def _get(self, timeout: int = 30) -> tuple[str | None, str]:
        with self._lock:
            if self.data._crumb is not None or time.monotonic() >= self.again:
                try:
                    crumb, strategy = self._ask(self.data, timeout)
                    if crumb:
                        return crumb, strategy
                except Failed:
                    pass
                self._forget()
                self.again = time.monotonic() + _WITHOUT
            return None, self.data._cookie_strategy

    def _forget(self) -> None:
        from yfinance.cache import get_cookie_cache

        with self.data._cookie_lock:
            self.data._cookie_strategy = "basic"
            self.data._crumb = self.data._cookie = None
        get_cookie_cache().store("curlCffi", None)
        self.session.forget()
