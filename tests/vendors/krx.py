"""KRX's data service (login, getJsonData.cmd) and Naver's charts: recorded answers, or made from given quotes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tests.vendors.server import Asked, Reply, VendorServer

_MARKETS = {"STK": "KOSPI", "KSQ": "KOSDAQ"}


def quote(symbol: str, close: float, change: float = 0.0, market: str = "STK", **other: Any) -> dict[str, str]:
    """A row of MDCSTAT01501; open, high and low are the close unless given."""
    numbers = {"open": close, "high": close, "low": close, "volume": 100, "value": close * 100, "shares": 1_000_000}
    assert set(other) <= set(numbers), other
    given = numbers | other
    return {
        "ISU_SRT_CD": symbol,
        "ISU_CD": f"KR7{symbol}000",
        "ISU_ABBRV": f"Share {symbol}",
        "MKT_NM": _MARKETS[market],
        "SECT_TP_NM": "",
        "TDD_CLSPRC": f"{close:,.0f}",
        "FLUC_TP_CD": "1",
        "CMPPREVDD_PRC": f"{change:,.0f}",
        "FLUC_RT": f"{100 * change / (close - change) if close != change else 0:.2f}",
        "TDD_OPNPRC": f"{given['open']:,.0f}",
        "TDD_HGPRC": f"{given['high']:,.0f}",
        "TDD_LWPRC": f"{given['low']:,.0f}",
        "ACC_TRDVOL": f"{given['volume']:,.0f}",
        "ACC_TRDVAL": f"{given['value']:,.0f}",
        "MKTCAP": f"{close * given['shares']:,.0f}",
        "LIST_SHRS": f"{given['shares']:,.0f}",
        "MKT_ID": market,
    }


class KrxServer(VendorServer):
    """``recorded``: the folder of recorded answers; ``quotes``: (market id, day) → rows, for days that are not there;
    ``account``: the one id and password that may log in. Without a login it says LOGOUT, as KRX does."""

    def __init__(
        self,
        recorded: Path | None = None,
        quotes: Mapping[tuple[str, date], Sequence[Mapping[str, str]]] | None = None,
        account: tuple[str, str] = ("tester", "secret-word"),
        **options: Any,
    ):
        self.quotes = dict(quotes or {})
        self.account, self.logins, self.code = account, 0, "CD001"
        self.charts: dict[str, Sequence[tuple[date, float, float, float, float, int]]] = {}
        self.indices: dict[str, Sequence[tuple[date, float]]] = {}
        self._recorded: dict[str, bytes] = {}
        if recorded is not None:
            for entry in json.loads((recorded / "index.json").read_text(encoding="utf-8")):
                self._recorded[_key(entry["form"])] = (recorded / entry["file"]).read_bytes()
        super().__init__(**options)

    def answer(self, asked: Asked) -> Reply:
        if asked.path.endswith("MDCCOMS001D1.cmd"):
            return self._login(asked)
        if asked.path.endswith("sise.nhn"):
            return self._chart(asked)
        if not asked.path.endswith("getJsonData.cmd"):
            return Reply(
                "<html></html>", headers={"Content-Type": "text/html", "Set-Cookie": "JSESSIONID=first; Path=/"}
            )
        if "JSESSIONID=in" not in asked.headers.get("Cookie", ""):
            return Reply("LOGOUT", status=400)
        form = asked.form
        if (known := self._recorded.get(_key(form))) is not None:
            return Reply(known)
        if form["bld"].endswith("MDCSTAT01501"):
            day = date(int(form["trdDd"][:4]), int(form["trdDd"][4:6]), int(form["trdDd"][6:]))
            rows = self.quotes.get((form["mktId"], day))
            if rows is None:  # no session: every share with dashes
                some = next(iter(self.quotes.values()), [quote("005930", 1)])
                rows = [
                    {k: "-" if k[:3] in ("TDD", "ACC", "CMP", "FLU", "MKT") else v for k, v in r.items()} for r in some
                ]
            return _json({"OutBlock_1": list(rows)})
        if form["bld"].endswith("MDCSTAT00301"):
            return _json({"output": self._index(form)})
        return _json({"OutBlock_1": [], "output": []})

    def _login(self, asked: Asked) -> Reply:
        self.logins += 1
        form = asked.form
        good = (form.get("mbrId"), form.get("pw")) == self.account
        if self.code == "CD011" and form.get("skipDup") != "Y":
            return _json({"_error_code": "CD011", "_error_message": "duplicate"})
        code = ("CD001" if self.code == "CD011" else self.code) if good else "CD002"
        reply = _json({"_error_code": code, "_error_message": ""})
        return Reply(reply.body, headers={"Set-Cookie": "JSESSIONID=in; Path=/"}) if code == "CD001" else reply

    def _index(self, form: Mapping[str, str]) -> list[dict[str, str]]:
        market = {"1": "KOSPI", "2": "KOSDAQ"}[form["indIdx"]]
        return [
            {
                "TRD_DD": f"{day:%Y/%m/%d}",
                **{f"{name}_IDX": f"{close:,.2f}" for name in ("CLSPRC", "OPNPRC", "HGPRC", "LWPRC")},
                "ACC_TRDVOL": "1,000",
            }
            for day, close in self.indices.get(market, ())
            if form["strtDd"] <= f"{day:%Y%m%d}" <= form["endDd"]
        ]

    def _chart(self, asked: Asked) -> Reply:
        rows = list(self.charts.get(asked.query["symbol"], ()))[-int(asked.query["count"]) :]
        items = "".join(f'<item data="{day:%Y%m%d}|{"|".join(f"{v:.0f}" for v in values)}" />' for day, *values in rows)
        text = f'<?xml version="1.0" encoding="EUC-KR" ?><protocol><chartdata>{items}</chartdata></protocol>'
        return Reply(text, headers={"Content-Type": "text/xml"})


def _key(form: Mapping[str, str]) -> str:
    return json.dumps({k: v for k, v in sorted(form.items()) if k != "segTpCd"})


def _json(value: Any) -> Reply:
    return Reply(json.dumps(value, ensure_ascii=False))
