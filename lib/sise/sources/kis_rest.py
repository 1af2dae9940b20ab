"""KIS's REST: one token shared by all processes, its own words for limits and expiry, pages."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from sise.redact import hide
from sise.sources.http import Edge, RequestsSession, json_of
from sise.sources.outcome import Again, Failed, Refused
from sise.sources.secrets import read_secret_file, secret, write_secret_file
from sise.sources.settings import SourceSettings

__all__ = ["KisRest"]

_TOO_FAST = "EGW00201"
_TOO_SOON = "EGW00133"  # a token was given less than a minute ago, to a process that does not share ours
_STALE = {"EGW00121", "EGW00123"}  # the token is not valid, or has run out
_WRONG_KEYS = {"EGW00002", "EGW00103", "EGW00105", "EGW00300"}
# KIS gives one token a minute and the same one for hours: a token is renewed well before its end.
_MARGIN = timedelta(minutes=10)


class _StaleToken(Exception):
    pass


class KisRest:
    """GETs with a token. The keys come from KIS_APP_KEY and KIS_APP_SECRET."""

    def __init__(self, settings: SourceSettings, spend: Callable[[], None] = lambda: None):
        self.settings = settings
        self.edge = Edge("kis", settings, settings.kis_rate, timedelta(hours=settings.kis_block_hours), spend)
        self._session = RequestsSession(self.edge, {}, judge=_whole, early=self._judge)
        self._token = ""

    def open(self) -> None:
        otherwise = "take another source"
        self._key = secret(self.settings, "KIS_APP_KEY", "KIS's Open API asks who calls", otherwise)
        self._secret = secret(self.settings, "KIS_APP_SECRET", "it belongs to KIS_APP_KEY", otherwise)
        self._token = self._shared_token()

    def get(
        self, path: str, tr_id: str, params: Mapping[str, str], more: bool = False
    ) -> tuple[Mapping[str, Any], bool]:
        """The answer, and whether there is another page (to be asked for with ``more``)."""
        for last in (False, True):
            token = self._token  # the one sent: another thread may have renewed it by the time it is refused
            headers = {
                "authorization": f"Bearer {token}",
                "appkey": self._key,
                "appsecret": self._secret,
                "tr_id": tr_id,
                "tr_cont": "N" if more else "",
                "custtype": "P",
            }
            try:
                response = self._session.get(self.settings.kis_url + path, params=dict(params), headers=headers)
                told = json_of(response, "KIS")
                break
            except _StaleToken as problem:
                if last:
                    raise Refused("KIS refuses a token that it has just given: look at KIS_APP_KEY") from problem
                self._token = self._shared_token(not_this=token)
        if str(told.get("rt_cd", "0")) != "0":
            raise Failed(f"KIS: {told.get('msg_cd', '')} {str(told.get('msg1', '')).strip()}")
        return told, response.headers.get("tr_cont", "") in ("M", "F")

    def approval_key(self) -> str:
        """The key that the WebSocket asks for."""
        body = {"grant_type": "client_credentials", "appkey": self._key, "secretkey": self._secret}
        told = json_of(self._session.post(self.settings.kis_url + "/oauth2/Approval", json=body), "KIS")
        if not told.get("approval_key"):
            raise Refused(f"KIS gives no approval key: {_why(told)}")
        return hide(str(told["approval_key"]))

    def close(self) -> None:
        self._session.close()

    @property
    def _token_file(self) -> Path:
        whose = hashlib.sha256(f"{self.settings.kis_url} {self._key}".encode()).hexdigest()[:12]
        return self.settings.state / f"kis-token-{whose}.json"

    def _shared_token(self, not_this: str = "") -> str:
        """The token that any process has got today, else a new one: one process at a time asks for it."""
        self._token_file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._token_file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (known := self._known_token()) and known != not_this:
                return known
            body = {"grant_type": "client_credentials", "appkey": self._key, "appsecret": self._secret}
            told = json_of(self._session.post(self.settings.kis_url + "/oauth2/tokenP", json=body), "KIS")
            token = hide(str(told.get("access_token") or ""))
            if not token:
                raise Refused(f"KIS gives no token: {_why(told)}")
            until = datetime.now(UTC) + timedelta(seconds=float(told.get("expires_in") or 86_400))
            write_secret_file(self._token_file, json.dumps({"token": token, "until": until.isoformat()}))
            return token
        finally:
            os.close(lock)

    def _known_token(self) -> str:
        try:
            kept = json.loads(read_secret_file(self._token_file))
            good = datetime.fromisoformat(kept["until"]) - _MARGIN > datetime.now(UTC)
            return hide(str(kept["token"])) if good else ""
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ""

    def _judge(self, response: requests.Response) -> None:
        """KIS says what is wrong in the body, mostly with HTTP 500."""
        try:
            told = response.json()
        except ValueError:
            return
        code = str(told.get("msg_cd") or told.get("error_code") or "") if isinstance(told, dict) else ""
        if code == _TOO_FAST:
            self.edge.limiter.pause(1.0)
            raise Again(f"KIS: too many requests a second ({_TOO_FAST})")
        if code == _TOO_SOON:
            raise Again(f"KIS gives one token a minute ({_TOO_SOON})", wait=61.0)
        if code in _STALE:
            raise _StaleToken(code)
        if code in _WRONG_KEYS or (response.status_code == 403 and "oauth2" in response.url):
            told_why = told.get("error_description") or told.get("msg1") or code
            raise Refused(f"KIS refuses the keys ({told_why}): look at KIS_APP_KEY and KIS_APP_SECRET")


def _whole(response: requests.Response) -> None:
    """An answer that is empty or broke off is none: it is asked for again."""
    if response.status_code < 400 and not isinstance(json_of(response, "KIS"), dict):
        raise Failed(f"KIS's answer has another form than known ({response.text[:40]})")


def _why(told: Mapping[str, Any]) -> str:
    return str(told.get("error_description") or told.get("msg1") or "no reason given")
