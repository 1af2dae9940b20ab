"""Numbers for people, where Python writes them (the grid and the chart write theirs in the browser)."""

from __future__ import annotations

import math
import re
from datetime import timedelta

__all__ = ["ago", "compact", "escaped", "percent", "price", "signed"]

# Where GitHub's markdown finds a link without any sign around it: https://x, www.x and a@x.
_LINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)


def price(value: float | None, country: str, language: str = "en") -> str:
    """70,100원 or ₩70,100; $182.34."""
    if value is None or math.isnan(value):
        return "–"
    if country == "KR":
        text = f"{value:,.0f}" if value >= 100 else f"{value:,.6g}"
        return f"{text}원" if language == "ko" else f"₩{text}"
    return f"${value:,.2f}" if abs(value) >= 1 else f"${value:,.4f}"


def compact(value: float | None, country: str, language: str = "en") -> str:
    """Sums of money: 119.0조원, 4,521억원; ₩119.0T, $3.2B."""
    if value is None or math.isnan(value):
        return "–"
    if language == "ko":
        unit = "원" if country == "KR" else "달러"
        for size, word in ((1e12, "조"), (1e8, "억"), (1e4, "만")):
            if abs(value) >= size:
                digits = 1 if abs(value) < 100 * size else 0
                return f"{value / size:,.{digits}f}{word}{unit}"
        return f"{value:,.0f}{unit}"
    sign = "₩" if country == "KR" else "$"
    for size, word in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{sign}{value / size:,.1f}{word}"
    return f"{sign}{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}%}"


def signed(value: float | None, digits: int = 2) -> str:
    """▲ 1.23 % and ▼ 1.23 %: the direction is never told by colour alone."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) < 0.5 / 10 ** (digits + 2):
        return f"{0:.{digits}%}"
    return f"{'▲' if value > 0 else '▼'} {abs(value):.{digits}%}"


def ago(span: timedelta, language: str = "en") -> str:
    seconds = max(0, int(span.total_seconds()))
    for size, ko, en in ((86_400, "일", "d"), (3_600, "시간", "h"), (60, "분", "min")):
        if seconds >= size:
            return f"{seconds // size}{ko} 전" if language == "ko" else f"{seconds // size} {en} ago"
    return f"{seconds}초 전" if language == "ko" else f"{seconds} s ago"


def escaped(text: str) -> str:
    """Text from outside, where Streamlit would read markdown: every sign that means something is escaped, and an
    address stays text: what would make it a link by itself is broken by a word joiner, which nobody sees."""
    text = _LINK.sub("\u2060", text)
    safe = "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|~<>$:&=^" else c for c in text)
    return " ".join(safe.split())
