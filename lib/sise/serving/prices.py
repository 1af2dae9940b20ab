"""Latest prices and the running profit or loss of open signals, in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from sise.console import tell
from sise.serving.signals import patiently
from sise.settings import Settings
from sise.signals.rules import LiveRules

__all__ = ["LatestPrices"]

_KEEP = 3 * 86_400  # seconds a price stays without a new one


class LatestPrices:
    """``price:{share}`` hashes (price, timestamp, day_volume, written), and in each ``signal:{id}`` last_price, pnl,
    best and worst: fractions of the trigger price in the rule's direction, over the ticks after it fired."""

    def __init__(self, client: redis.Redis, settings: Settings, rules: Callable[[], LiveRules]):
        self.client, self.prefix, self.rules = client, settings.redis_prefix, rules

    def write(self, ticks: Sequence[Mapping[str, Any]]) -> None:
        """``ticks``: country, symbol, price, timestamp, day_volume and offset (signals/detect.py's tick_prices), all
        since the last call."""
        shares: dict[str, list[Mapping[str, Any]]] = {}
        for tick in ticks:
            shares.setdefault(f"{tick['country']}:{tick['symbol']}", []).append(tick)
        if shares:
            patiently(lambda: self._write(shares), tell)

    def _write(self, shares: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        now = int(time.time() * 1000)
        pipe = self.client.pipeline(transaction=False)
        newest = {share: max(ticks, key=lambda t: (t["timestamp"], t["offset"])) for share, ticks in shares.items()}
        for share, row in newest.items():
            key = f"{self.prefix}price:{share}"
            values = {"price": repr(row["price"]), "timestamp": row["timestamp"], "written": now}
            pipe.hset(key, mapping=values | {"day_volume": row["day_volume"] or 0})
            pipe.expire(key, _KEEP)
        pipe.execute()
        self._follow(shares, newest)

    def _follow(self, shares: Mapping[str, Sequence[Mapping[str, Any]]], newest: Mapping[str, Any]) -> None:
        ids: Any = self.client.zrange(f"{self.prefix}signals:active", 0, -1)
        mine = [name.decode() for name in ids if ":".join(name.decode().split(":")[:2]) in shares]
        if not mine:
            return
        pipe = self.client.pipeline(transaction=False)
        for name in mine:
            pipe.hmget(f"{self.prefix}signal:{name}", "trigger_price", "timestamp", "signal_type", "best", "worst")
        known = pipe.execute()
        short = {rule.name for rule in self.rules().rules if rule.direction == "short"}
        pipe = self.client.pipeline(transaction=False)
        for name, (trigger, since, rule, best, worst) in zip(mine, known, strict=True):
            if trigger is None:
                continue  # its time is over
            share = ":".join(name.split(":")[:2])
            last = newest[share]["price"]
            sign = -1.0 if rule.decode() in short else 1.0
            after = [tick["price"] for tick in shares[share] if tick["timestamp"] >= int(since)]
            moves = [sign * (price / float(trigger) - 1) + 0.0 for price in after]
            if not moves:
                continue
            best, worst = float(best or 0.0), float(worst or 0.0)
            values: Any = {
                "last_price": repr(last),
                "pnl": repr(sign * (last / float(trigger) - 1) + 0.0),
                "best": repr(max(best, *moves)),
                "worst": repr(min(worst, *moves)),
            }
            pipe.hset(f"{self.prefix}signal:{name}", mapping=values)
        pipe.execute()
