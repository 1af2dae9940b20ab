"""A share of the sample market, simulated from a seed: pure Python and numpy, no Spark.

The same seed and share number give the same history, whatever span is asked for: a share is always walked from
the market's first session. Prices are raw (as traded that day); splits show as jumps with an action beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from sise.ticks import limit_prices, round_to_tick

__all__ = ["FIRST_SESSION", "Share", "index_returns", "simulate"]

FIRST_SESSION = date(2021, 1, 4)
# (weight, factor of the price, kind): what happens to listed shares is the inverse.
_KR_EVENTS = ((0.05, 0.2, "split"), (0.02, 0.5, "bonus"), (0.03, 10.0, "reduction"), (0.02, 5.0, "reduction"))
_US_EVENTS = ((0.05, 0.5, "split"), (0.03, 0.25, "split"), (0.03, 10.0, "reduction"))
_LETTERS = "ABCDEFGHJKLMNPRSTUVW"


@dataclass
class Share:
    """One simulated share: rows for symbols, bars and actions, in order of date."""

    country: str
    symbol: str
    symbols: list[dict[str, Any]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)


def market_of(number: int) -> str:
    return ("KOSPI", "KOSDAQ", "NASDAQ")[number % 3]


def symbol_of(number: int) -> str:
    """The code of share ``number``: digits, a preferred share's K, a new-style code with letters, or a ticker."""
    market, serial = market_of(number), number // 3
    if market == "NASDAQ":
        if serial == 0:
            return "NA"
        letters, rest = "", serial + 400
        while rest:
            letters, rest = _LETTERS[rest % 20] + letters, rest // 20
        return letters
    base = 20 + serial * 20 + (10 if market == "KOSDAQ" else 0)
    if serial == 1:
        return "0126Z0" if market == "KOSDAQ" else "00499K"
    if serial % 17 == 3:
        return f"{base // 10:05d}K"
    return f"{base:06d}"


def index_returns(seed: int, market: str, sessions: int) -> np.ndarray:
    """The market's own daily returns; every share of the market follows them with its beta."""
    rng = np.random.default_rng([seed, 7, ("KOSPI", "KOSDAQ", "NASDAQ").index(market)])
    regime = np.repeat(rng.normal(0.0003, 0.0009, sessions // 60 + 1), 60)[:sessions]
    return regime + rng.normal(0, 0.009, sessions)


def simulate(seed: int, number: int, sessions: list[date]) -> Share:
    """Walks share ``number`` over ``sessions`` (its exchange's, from FIRST_SESSION on)."""
    market = market_of(number)
    country = "US" if market == "NASDAQ" else "KR"
    rng = np.random.default_rng([seed, 1, number])
    share = Share(country, symbol_of(number))
    plan = _Plan.draw(rng, number, market, len(sessions))
    returns = plan.beta * index_returns(seed, market, len(sessions)) + rng.standard_t(4, len(sessions)) * plan.sigma
    if country == "US":  # no limit there, but a sample market's larger moves would all be somebody's mistake
        returns = np.clip(returns, -0.35, 0.35)
    noise = np.abs(rng.normal(0, plan.sigma * 0.6, (len(sessions), 3)))
    pauses = rng.normal(0, 0.5, len(sessions))
    close = round_to_tick(plan.price, country)
    shares = plan.shares
    day_market, status = market, (False, False, False)
    for at in range(plan.first, min(plan.last, len(sessions) - 1) + 1):
        day = sessions[at]
        reference = close
        if at in plan.events and at > plan.first:
            factor, kind = plan.events[at]
            reference = round_to_tick(close * factor, country)
            shares = max(1, round(shares / factor))
            share.actions.append(_action(share, day, kind, factor=factor))
        if at in plan.dividends:
            share.actions.append(_action(share, day, "dividend", amount=round(close * 0.006, 2)))
        if at == plan.moves_at:
            day_market = "KOSPI"
        halted = at in plan.halted
        now = (at in plan.warning, at in plan.administration, halted)
        if at == plan.first or now != status or at == plan.moves_at or at in plan.events or _new_month(sessions, at):
            status = now
            share.symbols.append(_symbol(share, plan, day, day_market, reference, shares, status, active=True))
        if halted:
            if country == "KR":  # KRX quotes a halted share with its close and zeros; Yahoo leaves the day out
                share.bars.append(_bar(share, day, day_market, (0.0, 0.0, 0.0, reference), 0, reference))
            close = reference
            continue
        target = reference * (1 + returns[at])
        low_limit, high_limit = limit_prices(reference) if country == "KR" else (0.01, float("inf"))
        close = min(max(round_to_tick(target, country), low_limit), high_limit)
        opened = min(max(round_to_tick(reference + (close - reference) * pauses[at], country), low_limit), high_limit)
        high = min(max(round_to_tick(max(opened, close) * (1 + noise[at, 0]), country), opened, close), high_limit)
        low = max(min(round_to_tick(min(opened, close) * (1 - noise[at, 1]), country), opened, close), low_limit)
        traded = int(plan.turnover / close * float(np.exp(pauses[at])) * (1 + 40 * abs(returns[at])))
        share.bars.append(_bar(share, day, day_market, (opened, high, low, close), max(traded, 1), reference))
    if plan.last < len(sessions) - 1:
        gone = sessions[plan.last + 1]
        share.symbols.append(_symbol(share, plan, gone, day_market, close, shares, status, active=False))
    return share


@dataclass
class _Plan:
    """What will happen to a share: positions are places in its sessions."""

    price: float
    shares: int
    sigma: float
    beta: float
    turnover: float
    first: int
    last: int
    events: dict[int, tuple[float, str]]
    dividends: set[int]
    halted: set[int]
    warning: set[int]
    administration: set[int]
    moves_at: int
    is_etf: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, number: int, market: str, sessions: int) -> _Plan:
        korean = market != "NASDAQ"
        serial = number // 3
        first = int(rng.integers(60, max(61, sessions - 30))) if rng.random() < 0.08 and serial > 3 else 0
        last = int(rng.integers(sessions // 2, sessions - 5)) if rng.random() < 0.04 and serial > 3 else sessions
        price = float(np.exp(rng.normal(9.6 if korean else 3.4, 1.0)))
        cap = float(np.exp(rng.normal(26.5 if korean else 21.5, 1.6)))
        halted, events = _interruptions(rng, korean, first, sessions)
        if number == 1:  # one share always has a 50:1 split, as Samsung had in 2018
            events = {min(300, sessions // 2): (0.02, "split")}
        return cls(
            price=price,
            shares=int(cap / price) + 1,
            sigma=float(rng.uniform(0.008, 0.028)),
            beta=float(rng.uniform(0.4, 1.5)),
            turnover=cap * float(rng.uniform(0.0005, 0.01)),
            first=first,
            last=last,
            events=events,
            dividends=_dividends(korean, serial, sessions),
            halted=halted,
            warning=_window(rng, sessions, 0.05),
            administration=_window(rng, sessions, 0.03),
            moves_at=sessions // 2 if market == "KOSDAQ" and serial in (2, 40) else -1,
            is_etf=serial % 29 == 11,
        )


def _interruptions(
    rng: np.random.Generator, korean: bool, first: int, sessions: int
) -> tuple[set[int], dict[int, tuple[float, str]]]:
    """Halts, and splits or reductions: a reduction comes at the end of a halt, as on KRX."""
    halted: set[int] = set()
    events: dict[int, tuple[float, str]] = {}
    if rng.random() < 0.12:
        at = int(rng.integers(first + 2, max(first + 3, sessions - 10)))
        halted |= set(range(at, min(sessions - 1, at + int(rng.integers(1, 60)))))
    draw, edge = float(rng.random()), 0.0
    for weight, factor, kind in _KR_EVENTS if korean else _US_EVENTS:
        edge += weight
        if draw < edge:
            at = int(rng.integers(first + 30, max(first + 31, sessions - 5)))
            halted = set(range(at - (15 if kind == "reduction" else 2), at)) if korean else set()
            events[at] = (factor, kind)
            break
    return halted, events


def _dividends(korean: bool, serial: int, sessions: int) -> set[int]:
    if serial % 4 == 1:
        return set()
    return set(range(245, sessions, 247)) if korean else set(range(40 + serial % 20, sessions, 63))


def _window(rng: np.random.Generator, sessions: int, chance: float) -> set[int]:
    if rng.random() >= chance:
        return set()
    at = int(rng.integers(0, max(1, sessions - 20)))
    return set(range(at, at + int(rng.integers(20, 200))))


def _new_month(sessions: list[date], at: int) -> bool:
    return at > 0 and sessions[at].month != sessions[at - 1].month


def _action(
    share: Share, day: date, kind: str, factor: float | None = None, amount: float | None = None
) -> dict[str, Any]:
    return {
        "country": share.country,
        "symbol": share.symbol,
        "ex_date": day,
        "kind": kind,
        "factor": factor,
        "amount": amount,
        "applied_by_source": None,
        "confirmed": True,
        "evidence": "announced by the source",
    }


def _symbol(
    share: Share,
    plan: _Plan,
    day: date,
    market: str,
    close: float,
    shares: int,
    status: tuple[bool, bool, bool],
    active: bool,
) -> dict[str, Any]:
    warning, administration, halted = status
    return {
        "country": share.country,
        "symbol": share.symbol,
        "valid_from": day,
        "name": f"Sample {share.symbol}",
        "market": market,
        "market_cap": round(close * shares, 2),
        "listed_shares": shares,
        "is_etf": plan.is_etf,
        "is_warning": warning,
        "is_administration": administration,
        "is_halted": halted,
        "active": active,
    }


def _bar(
    share: Share, day: date, market: str, prices: tuple[float, float, float, float], volume: int, reference: float
) -> dict[str, Any]:
    opened, high, low, close = prices
    return {
        "country": share.country,
        "symbol": share.symbol,
        "date": day,
        "market": market,
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": float(volume),
        "value": round(volume * (high + low + close) / 3, 2),
        "reference": reference if share.country == "KR" else None,
        "basis": day,
        "provisional": False,
    }


def simulate_many(seed: int, numbers: Iterator[int], sessions: dict[str, list[date]]) -> Iterator[Share]:
    for number in numbers:
        yield simulate(seed, number, sessions["US" if market_of(number) == "NASDAQ" else "KR"])
