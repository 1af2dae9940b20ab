"""The session that yfinance asks Yahoo with: a browser's TLS (curl_cffi), our edge, our address where one is set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from curl_cffi import requests as curl

from sise.sources.http import Edge, json_of
from sise.sources.outcome import Again, Failed, NoData

__all__ = ["YahooSession"]

_CHART = re.compile(r"/v8/finance/chart/")
# Asked for its cookie alone; Yahoo answers 404 with one.
_COOKIE = re.compile(r"//fc\.yahoo\.com/?$")
_HOSTS = re.compile(r"^https://([a-z0-9.]+\.yahoo\.com)(?=/|$)")


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

    def _judge(self, url: str, response: Any) -> None:
        if "Too Many Requests" in response.text[:200]:
            raise Again("Yahoo answers Too Many Requests", limited=True)
        if not _CHART.search(url):
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
