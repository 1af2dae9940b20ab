"""KIS's published master files: every KOSPI and KOSDAQ share with its flags, for anybody, without a login.

kospi_code.mst and kosdaq_code.mst are CP949 text: 9 characters of short code, 12 of ISIN, the name, and a tail of
fixed width (KIS's own samples name its fields). A file of another form is refused whole.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate

import requests

from sise.sources.http import Edge, RequestsSession
from sise.sources.outcome import Again, Failed
from sise.sources.settings import SourceSettings

__all__ = ["Listed", "read_master", "read_masters"]

# Widths of the tail's fields; which of them (0-based) are read is below.
_KOSPI_WIDTHS = (
    [2, 1, 4, 4, 4] + [1] * 26
    + [9, 5, 5, 1, 1, 1, 2, 1, 1, 1, 2, 2, 2, 3, 1, 3, 12, 12, 8, 15, 21, 2, 7, 1, 1, 1, 1, 1]
    + [9, 9, 9, 5, 9, 8, 9, 3, 1, 1, 1]
)  # fmt: skip
_KOSDAQ_WIDTHS = (
    [2, 1, 4, 4, 4] + [1] * 21 + [9, 5, 5, 1, 1, 1, 2, 1, 1, 1, 2, 2, 2, 3, 1, 3, 12, 12, 8, 15, 21, 2, 7, 1, 1, 1, 1]
    + [9, 9, 9, 5, 9, 8, 9, 3, 1, 1, 1]
)  # fmt: skip
_FILES = {"KOSPI": ("kospi_code", _KOSPI_WIDTHS, 31), "KOSDAQ": ("kosdaq_code", _KOSDAQ_WIDTHS, 26)}
_SHARES = {"ST", "RT", "IF", "DR", "FS", "SC", "MF"}  # shares, REITs, infrastructure, receipts, foreign, ships, funds
_CODE = re.compile(r"[0-9][0-9A-Z]{5}")
_WARNING = {"02", "03"}  # investment warning, investment risk (01, caution, is a day's notice)
_CARE = 20  # KOSDAQ: investment-attention issue


@dataclass(frozen=True)
class Listed:
    """A share as a master file has it; ``market_cap`` in won, of the day before."""

    symbol: str
    name: str
    market: str
    is_etf: bool
    is_warning: bool
    is_administration: bool
    is_halted: bool
    listed_shares: int | None
    market_cap: float | None


def read_masters(settings: SourceSettings) -> dict[str, Listed]:
    """Both files, by symbol. Raises Failed or Blocked where one does not come whole."""
    edge = Edge("kis-master", settings, 2.0, timedelta(hours=1))
    found: dict[str, Listed] = {}
    for market, (name, _, _) in _FILES.items():
        session = RequestsSession(edge, {}, _is_zip)
        body = session.get(f"{settings.kis_master_url}/{name}.mst.zip").content
        with zipfile.ZipFile(io.BytesIO(body)) as packed:
            text = packed.read(packed.namelist()[0]).decode("cp949", errors="replace")
        found |= {share.symbol: share for share in read_master(market, text)}
    return found


def _is_zip(response: requests.Response) -> None:
    if response.status_code >= 400:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(response.content)) as packed:
            broken = packed.testzip() or (None if packed.namelist() else "no file in it")
    except zipfile.BadZipFile as problem:
        raise Again(f"{response.url} is no zip file ({len(response.content)} bytes)") from problem
    if broken:
        raise Again(f"{response.url} is broken: {broken}")


def read_master(market: str, text: str) -> list[Listed]:
    """The shares and ETFs of one file's text; raises Failed for a line of another form."""
    _, widths, first_flag = _FILES[market]
    ends = list(accumulate(widths))
    total = ends[-1]
    shares = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        head, tail = line[: len(line) - total], line[len(line) - total :]
        symbol, group = head[:9].strip(), tail[:2]
        if len(head) < 21 or not group.isalpha():
            raise Failed(f"{market}'s master file, line {number}: its tail is not {total} characters in the known form")
        if group not in _SHARES | {"EF"} or not _CODE.fullmatch(symbol):
            continue
        fields = [tail[end - width : end].strip() for width, end in zip(widths, ends, strict=True)]
        shares.append(_listed(market, symbol, head[21:].strip(), group, fields, first_flag))
    return shares


def _listed(market: str, symbol: str, name: str, group: str, fields: Sequence[str], base: int) -> Listed:
    """``base``: where the reference price is; the flags follow it in the same order in both files."""
    halted, liquidation, administration, warning = fields[base + 3 : base + 7]
    care = market == "KOSDAQ" and fields[_CARE] == "Y"
    return Listed(
        symbol,
        name,
        market,
        group == "EF",
        warning in _WARNING or care,
        administration == "Y" or liquidation == "Y",
        halted == "Y",
        _times(fields[base + 19], 1_000),
        None if (cap := _times(fields[-5], 100_000_000)) is None else float(cap),
    )


def _times(text: str, unit: int) -> int | None:
    return int(text) * unit if text.isdigit() and int(text) > 0 else None
