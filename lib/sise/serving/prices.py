"""Latest prices and the running profit or loss of open signals, in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from math import isnan, nan
from typing import Any

import redis

from sise.console import tell
from sise.serving.signals import patiently
from sise.settings import Settings
from sise.signals.rules import LiveRules

__all__ = ["LatestPrices"]

_KEEP = 3 * 86_400  # seconds a price stays without a new one
_CHUNK = 500  # shares a script call: one holds Redis for some milliseconds, and readers come in between
_FIELDS = ("trigger_price", "timestamp", "signal_type", "best", "worst", "as_of", "followed", "basis", "basis_as_of")


class LatestPrices:
    """``price:{share}`` hashes (price, timestamp, day_volume, written), and in each ``signal:{id}`` last_price, pnl,
    best and worst: fractions of the trigger price in the rule's direction, over the ticks after it fired.

    No price goes back in time: a tick that comes late counts for best and worst only. On an ex-date the trigger price
    is taken to the new basis; a signal whose factor nobody knows is not followed any more. For that a signal also
    has ``followed`` (time of its newest tick), ``basis`` (the product of the factors) and ``basis_as_of``.
    """

    def __init__(self, client: redis.Redis, settings: Settings, rules: Callable[[], LiveRules]):
        self.client, self.prefix, self.rules = client, settings.redis_prefix, rules
        self._script = client.register_script(resources.files(__package__).joinpath("prices.lua").read_text())

    def write(self, ticks: Sequence[Mapping[str, Any]]) -> None:
        """``ticks``: rows of signals/judge.py's tick_prices, all since the last call."""
        shares: dict[str, list[Mapping[str, Any]]] = {}
        for tick in ticks:
            shares.setdefault(f"{tick['country']}:{tick['symbol']}", []).append(tick)
        if shares:
            patiently(lambda: self._write(shares), tell)

    def _write(self, shares: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        now = int(time.time() * 1000)
        newest = {share: max(ticks, key=lambda t: (t["timestamp"], t["offset"])) for share, ticks in shares.items()}
        # One argument, not thousands: the client spends more time on arguments than Redis on all of the script. Texts,
        # since Lua's numbers are doubles.
        values = [[s, repr(t["price"]), str(t["timestamp"]), str(t["day_volume"])] for s, t in newest.items()]
        for start in range(0, len(values), _CHUNK):
            self._script(keys=[self.prefix], args=[_KEEP, now, json.dumps(values[start : start + _CHUNK])])
        self._follow(shares, newest)

    def _follow(self, shares: Mapping[str, Sequence[Mapping[str, Any]]], newest: Mapping[str, Any]) -> None:
        ids: Any = self.client.zrange(f"{self.prefix}signals:active", 0, -1)
        mine = [name.decode() for name in ids if ":".join(name.decode().split(":")[:2]) in shares]
        if not mine:
            return
        pipe = self.client.pipeline(transaction=False)
        for name in mine:
            pipe.hmget(f"{self.prefix}signal:{name}", *_FIELDS)
        known = pipe.execute()
        short = {rule.name for rule in self.rules().rules if rule.direction == "short"}
        pipe = self.client.pipeline(transaction=False)
        for name, values in zip(mine, known, strict=True):
            if values[0] is None:
                continue  # its time is over
            signal = {field: None if v is None else v.decode() for field, v in zip(_FIELDS, values, strict=True)}
            share = ":".join(name.split(":")[:2])
            sign = -1.0 if signal["signal_type"] in short else 1.0
            if found := _followed(signal, shares[share], newest[share], sign):
                pipe.hset(f"{self.prefix}signal:{name}", mapping=found)
        pipe.execute()


def _followed(
    signal: Mapping[str, Any], ticks: Sequence[Mapping[str, Any]], newest: Mapping[str, Any], sign: float
) -> dict[Any, Any]:
    """What the ticks of its share change in a signal's hash. ``sign``: -1 for a rule that is short."""
    since = int(signal["timestamp"])
    after = [tick["price"] for tick in ticks if tick["timestamp"] >= since]
    if not after:
        return {}
    found: dict[Any, Any] = {}
    basis = float(signal["basis"] or 1.0)
    if newest["as_of"] != (signal["basis_as_of"] or signal["as_of"]):  # a later session: another basis, maybe
        basis *= nan if newest["rebased_by"] is None else newest["rebased_by"]
        found |= {"basis": repr(basis), "basis_as_of": newest["as_of"]}
    if isnan(basis):
        return found
    trigger = float(signal["trigger_price"]) * basis

    def move(price: float) -> float:
        return sign * (price / trigger - 1) + 0.0

    moves = [move(price) for price in after]
    found["best"] = repr(max(float(signal["best"] or 0.0), *moves))
    found["worst"] = repr(min(float(signal["worst"] or 0.0), *moves))
    if newest["timestamp"] >= int(signal["followed"] or since):
        last = newest["price"]
        found |= {"last_price": repr(last), "pnl": repr(move(last)), "followed": newest["timestamp"]}
    return found
