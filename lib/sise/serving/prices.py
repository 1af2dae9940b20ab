"""Latest prices and the running profit or loss of open signals, in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib import resources
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import redis

from sise.console import tell
from sise.serving.signals import patiently
from sise.settings import Settings
from sise.signals.rules import LiveRules

__all__ = ["LatestPrices"]

_KEEP = 3 * 86_400  # seconds a price stays without a new one
_CHUNK = 100  # shares a script call: one holds Redis for some milliseconds, and readers come in between


class LatestPrices:
    """``price:{share}`` hashes (price, timestamp, day_volume, written), and in each ``signal:{id}`` last_price, pnl,
    best and worst: fractions of the trigger price in the rule's direction, over the ticks after it fired.

    No price goes back in time, unless to one so old that the newer was a replay's: a tick that comes late counts for
    best and worst only. In real-time mode a tick that is here before the relay has written the signal (it may have to
    catch up) counts for neither. On an ex-date the trigger price is taken to the new basis; a signal whose factor
    nobody knows is not followed any more. For that a signal also has ``followed`` (time of its newest tick), ``basis``
    (the product of the factors), ``basis_as_of`` and ``direction`` (the rule's; where the rule is gone, the last one it
    had).
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        rules: Callable[[], LiveRules],
        stop: Callable[[], bool] = lambda: False,
    ):
        self.client, self.prefix, self.rules, self.stop = client, settings.redis_prefix, rules, stop
        self.behind = int(settings.tick_behind_seconds * 1000)
        self._script = client.register_script(resources.files(__package__).joinpath("prices.lua").read_text())

    def write(self, ticks: pa.Table) -> None:
        """``ticks``: rows of signals/judge.py's tick_prices, all since the last call. Waits while Redis is away, until
        ``stop()``."""
        if ticks.num_rows:
            share = pc.binary_join_element_wise(ticks["country"], ticks["symbol"], ":")
            by_time = [(name, "ascending") for name in ("share", "timestamp", "offset")]
            ticks = ticks.append_column("share", share).sort_by(by_time)
            patiently(lambda: self._write(ticks), tell, self.stop)

    def _write(self, ticks: pa.Table) -> None:
        now, directions = int(time.time() * 1000), {rule.name: rule.direction for rule in self.rules().rules}
        rows = _rows(ticks, self._open_signals())
        for start in range(0, len(rows), _CHUNK):
            # One argument, not thousands: the client spends more time on arguments than Redis on all of the script.
            chunk = json.dumps(rows[start : start + _CHUNK])
            self._script(keys=[self.prefix], args=[_KEEP, now, json.dumps(directions), chunk, self.behind])

    def _open_signals(self) -> dict[str, list[str]]:
        """Ids of the open signals, by share."""
        found: dict[str, list[str]] = {}
        names: Any = self.client.zrange(f"{self.prefix}signals:active", 0, -1)
        for name in names:
            country, symbol, _ = name.decode().split(":", 2)
            found.setdefault(f"{country}:{symbol}", []).append(name.decode())
        return found


def _rows(ticks: pa.Table, signals: dict[str, list[str]]) -> list[list[Any]]:
    """What prices.lua takes, of ticks in the order of share and time. Texts, since Lua's numbers are doubles."""
    names = ("share", "price", "timestamp", "day_volume", "as_of", "rebased_by")
    shares, prices, times, volumes, as_of, rebased_by = (ticks[name].to_pylist() for name in names)
    rows: list[list[Any]] = []
    start = 0
    for end, share in enumerate(shares, 1):
        if end < len(shares) and shares[end] == share:
            continue
        newest = end - 1
        row = [share, repr(prices[newest]), str(times[newest]), str(volumes[newest])]
        if ids := signals.get(share):
            since = list(zip(times[start:end], prices[start:end], strict=True))
            row += [ids, since, as_of[newest], rebased_by[newest]]
        rows.append(row)
        start = end
    return rows
