"""KIS: tokens, daily bars, quotes of 30, the depository's announcements, master files; ticks are in kis_stream.py."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from tests.vendors.server import Asked, Reply, VendorServer

Row = tuple[date, float, float, float, float, int, float]  # day, open, high, low, close, volume, change


class KisServer(VendorServer):
    """``bars``: by share; ``announced``: by kind (rev-split …), pages of rows; ``prices``: (price, day volume)."""

    def __init__(self, bars: Mapping[str, Sequence[Row]] | None = None, keys=("key", "app-secret"), **options: Any):
        self.bars, self.keys = dict(bars or {}), keys
        self.announced: dict[str, list[list[dict[str, str]]]] = {}
        self.prices: dict[str, tuple[float, int]] = {}
        self.masters: dict[str, bytes] = {}
        self.tokens: list[str] = []
        super().__init__(**options)

    def answer(self, asked: Asked) -> Reply:
        if asked.path.endswith(".mst.zip"):
            return Reply(self.masters[asked.path.rsplit("/", 1)[1]], headers={"Content-Type": "application/zip"})
        if asked.path == "/oauth2/tokenP":
            given = json.loads(asked.body)
            if (given["appkey"], given["appsecret"]) != self.keys:
                return _json({"error_code": "EGW00103", "error_description": "wrong keys"}, 403)
            self.tokens.append(f"token-{len(self.tokens)}")
            return _json({"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": 86400})
        if asked.path == "/oauth2/Approval":
            given = json.loads(asked.body)
            return _json({"approval_key": "approved"}) if given["secretkey"] == self.keys[1] else _json({}, 403)
        if asked.headers.get("authorization") != f"Bearer {self.tokens[-1] if self.tokens else ''}":
            return _json({"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "expired token"}, 500)
        if asked.path.endswith("inquire-daily-itemchartprice"):
            return self._daily(asked.query)
        if asked.path.endswith("intstock-multprice"):
            return self._quotes(asked.query)
        kind = asked.path.rsplit("/", 1)[1]
        pages = self.announced.get(kind, [[]])
        page = int(asked.headers.get("tr_cont") == "N")
        more = {"tr_cont": "M"} if page + 1 < len(pages) else {"tr_cont": "D"}
        return Reply(json.dumps({"rt_cd": "0", "output1": pages[page]}), headers=more)

    def _daily(self, query: Mapping[str, str]) -> Reply:
        assert query["FID_ORG_ADJ_PRC"] == "1"
        rows = [
            row
            for row in self.bars.get(query["FID_INPUT_ISCD"], ())
            if query["FID_INPUT_DATE_1"] <= f"{row[0]:%Y%m%d}" <= query["FID_INPUT_DATE_2"]
        ]
        out = [
            {
                "stck_bsop_date": f"{day:%Y%m%d}",
                "stck_oprc": f"{opened:.0f}",
                "stck_hgpr": f"{high:.0f}",
                "stck_lwpr": f"{low:.0f}",
                "stck_clpr": f"{close:.0f}",
                "acml_vol": str(volume),
                "acml_tr_pbmn": f"{volume * close:.0f}",
                "prdy_vrss": f"{abs(change):.0f}",
                "prdy_vrss_sign": "5" if change < 0 else "2" if change > 0 else "3",
            }
            for day, opened, high, low, close, volume, change in sorted(rows, reverse=True)[:100]
        ]
        return _json({"rt_cd": "0", "output1": {}, "output2": out or [{}]})

    def _quotes(self, query: Mapping[str, str]) -> Reply:
        codes = [query[f"FID_INPUT_ISCD_{n}"] for n in range(1, 31) if f"FID_INPUT_ISCD_{n}" in query]
        out = [
            {
                "inter_shrn_iscd": code,
                "inter2_prpr": f"{self.prices[code][0]:.0f}",
                "acml_vol": str(self.prices[code][1]),
            }
            for code in codes
            if code in self.prices
        ]
        return _json({"rt_cd": "0", "output": out})


def master(market: str, shares: Sequence[Mapping[str, Any]]) -> bytes:
    """A master file, zipped: shares with code, name and what differs (group, halted, liquidation, administration,
    warning, care, shares in thousands, cap in 100 million won)."""
    kospi = market == "KOSPI"
    widths = [
        2,
        1,
        4,
        4,
        4,
        *[1] * (26 if kospi else 21),
        9,
        5,
        5,
        1,
        1,
        1,
        2,
        1,
        1,
        1,
        2,
        2,
        2,
        3,
        1,
        3,
        12,
        12,
        8,
        15,
    ]
    widths += [21, 2, 7, *[1] * (5 if kospi else 4), 9, 9, 9, 5, 9, 8, 9, 3, 1, 1, 1]
    base = 31 if kospi else 26
    lines = []
    for share in shares:
        fields = ["0" * width for width in widths]
        fields[0] = share.get("group", "ST")
        fields[20] = "Y" if share.get("care") else "N"
        fields[base + 3] = "Y" if share.get("halted") else "N"
        fields[base + 4] = "Y" if share.get("liquidation") else "N"
        fields[base + 5] = "Y" if share.get("administration") else "N"
        fields[base + 6] = share.get("warning", "00")
        fields[base + 19] = f"{share.get('shares', 1000):015}"
        fields[-5] = f"{share.get('cap', 10):09}"
        lines.append(f"{share['code']:<9}KR7{share['code']}003{share['name']:<40}" + "".join(fields))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{market.lower()}_code.mst", "\n".join(lines).encode("cp949") + b"\n")
    return packed.getvalue()


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value, ensure_ascii=False), status)
