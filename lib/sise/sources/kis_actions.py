"""Corporate actions as KIS passes them on from the Korea Securities Depository.

A factor is given where the announcement says it: a change of face value, a bonus issue. For rights issues, spin-offs,
stock dividends and reductions the exchange's own reference price on the ex-date says it, and this confirms it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from sise.calendars import Calendar

__all__ = ["KINDS", "SAID_BY", "actions_of", "announces"]

_ROOT = "/uapi/domestic-stock/v1/ksdinfo/"
# kind → path, transaction, further parameters
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "rev-split": (_ROOT + "rev-split", "HHKDB669105C0", {"MARKET_GB": "0"}),
    "bonus-issue": (_ROOT + "bonus-issue", "HHKDB669101C0", {}),
    "paidin-capin": (_ROOT + "paidin-capin", "HHKDB669100C0", {"GB1": "2"}),
    "cap-dcrs": (_ROOT + "cap-dcrs", "HHKDB669106C0", {}),
    "merger-split": (_ROOT + "merger-split", "HHKDB669104C0", {}),
    "dividend": (_ROOT + "dividend", "HHKDB669102C0", {"GB1": "0", "HIGH_GB": ""}),
}


SAID_BY = "KIS: "  # what evidence begins with where an announcement is all there is
_FACE, _NEW, _IN_SHARES = "face value", "new for 100", "stock dividend"


def announces(kind: str, action: Mapping[str, Any]) -> bool:
    """Whether a row of ACTIONS is what announcements of this kind are stored as."""
    said = str(action["evidence"] or "")
    if not said.startswith(SAID_BY):
        return False
    what = action["kind"]
    return {
        "rev-split": what in ("split", "reduction") and _FACE in said,
        "bonus-issue": what == "bonus" and _NEW in said,
        "paidin-capin": what == "rights",
        "cap-dcrs": what == "reduction" and _FACE not in said,
        "merger-split": what == "spin-off",
        "dividend": what == "dividend" or (what == "bonus" and _IN_SHARES in said),
    }[kind]


def actions_of(kind: str, row: Mapping[str, Any], calendar: Calendar) -> list[dict[str, Any]]:
    """Rows of ACTIONS for one of KIS's; none where it has no share, or no ex-date yet."""
    symbol = str(row.get("sht_cd") or "").strip()
    symbol = symbol[1:] if len(symbol) == 7 else symbol
    if not symbol:
        return []

    def action(
        day: date | None, what: str, factor: float | None, amount: float | None, words: str
    ) -> list[dict[str, Any]]:
        if day is None:
            return []
        return [
            {
                "country": "KR",
                "symbol": symbol,
                "ex_date": day,
                "kind": what,
                "factor": factor,
                "amount": amount,
                "applied_by_source": None,
                "confirmed": True,
                "evidence": f"{SAID_BY}{words}",
            }
        ]

    listed, ex_rights = _day(row.get("list_dt")), _day(row.get("right_dt"))
    if kind == "rev-split":
        before, after = _number(row.get("inter_bf_face_amt")), _number(row.get("inter_af_face_amt"))
        if not before or not after or before == after:
            return []
        what = "split" if after < before else "reduction"
        return action(listed, what, after / before, None, f"{_FACE} {before:g} to {after:g}")
    if kind == "bonus-issue":
        rate = _number(row.get("fix_rate"))
        return action(ex_rights, "bonus", 1 / (1 + rate / 100), None, f"{rate:g} {_NEW}") if rate else []
    if kind == "paidin-capin":
        price, rate = _number(row.get("fix_price")), _number(row.get("fix_rate"))
        return action(ex_rights, "rights", None, None, f"{rate or 0:g} {_NEW} at {price or 0:g}")
    if kind == "cap-dcrs":
        words = f"{row.get('reduce_cap_type') or ''} {row.get('reduce_cap_rate') or ''}".strip()
        return action(listed, "reduction", None, None, f"reduction {words}")
    if kind == "merger-split":
        if "분할" not in str(row.get("merge_type") or ""):
            return []
        return action(listed, "spin-off", None, None, f"spin-off {row.get('merge_rate') or ''}".strip())
    recorded = _day(row.get("record_date"))
    ex_date = calendar.back(recorded, 1) if recorded else None  # bought a session later, it is not registered in time
    amount, in_shares = _number(row.get("per_sto_divi_amt")), _number(row.get("stk_divi_rate"))
    found = action(ex_date, "dividend", None, amount, str(row.get("divi_kind") or "dividend").strip()) if amount else []
    return [*found, *(action(ex_date, "bonus", None, None, f"{_IN_SHARES} {in_shares:g} %") if in_shares else [])]


def _number(text: Any) -> float | None:
    try:
        return float(str(text).replace(",", "").strip()) or None
    except ValueError:
        return None


def _day(text: Any) -> date | None:
    digits = "".join(c for c in str(text or "") if c.isdigit())
    try:
        return date.fromisoformat(digits)
    except ValueError:
        return None
