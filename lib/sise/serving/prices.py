"""Latest prices and the running profit or loss of open signals, in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import redis

from sise.console import tell
from sise.serving.signals import lateness, patiently
from sise.settings import Settings
from sise.signals.rules import LiveRules

__all__ = ["LatestPrices"]

_KEEP = 3 * 86_400  # seconds a price stays without a new one
# One script call holds Redis for some milliseconds: readers and the relay come in between.
_SHARES, _SIGNALS = 200, 100


class LatestPrices:
    """``price:{share}`` hashes (price, timestamp, day_volume, written; place and offset in Kafka), and in each
    ``signal:{id}`` last_price, pnl, best and worst: fractions of the trigger price in the rule's direction, over the
    ticks after it fired.

    No price goes back in time, unless to one so old that the newer was a replay's (``lateness``): a tick that comes
    late, or is read again, counts for best and worst only. In real-time mode a tick that is here before the relay has
    written the signal (it may have to catch up) counts for neither. On an ex-date the trigger price is taken to the new
    basis; a signal is not followed while nobody knows the factor. For that a signal also has ``followed`` (time of that
    last price), ``basis`` (the product of the factors since its session) and ``direction`` (the rule's; where the rule
    is gone, the last one it had). ``epoch`` names the life of the tick topic.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        rules: Callable[[], LiveRules],
        epoch: str,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.client, self.prefix, self.rules, self.stop = client, settings.redis_prefix, rules, stop
        self.epoch, self.lateness = epoch, lateness(settings)
        scripts = resources.files(__package__)
        self._prices, self._follow = (
            client.register_script(scripts.joinpath(name).read_text()) for name in ("prices.lua", "follow.lua")
        )

    def write(self, ticks: pa.Table) -> None:
        """``ticks``: rows of signals/judge.py's tick_prices, all since the last call. Waits while Redis is away, until
        ``stop()``."""
        if ticks.num_rows:
            share = pc.binary_join_element_wise(ticks["country"], ticks["symbol"], ":")
            by_time = [(name, "ascending") for name in ("share", "timestamp", "offset")]
            ticks = ticks.append_column("share", share).sort_by(by_time)
            patiently(lambda: self._write(ticks), tell, self.stop)

    def _write(self, ticks: pa.Table) -> None:
        """All latest prices, and then what they mean for the signals: a price waits for no other share's signals."""
        now, directions = int(time.time() * 1000), {rule.name: rule.direction for rule in self.rules().rules}
        prices, open_ = _rows(ticks, self._open_signals(), self.epoch)
        latest: list[Any] = []
        for start in range(0, len(prices), _SHARES):
            # One argument, not thousands: the client spends more time on arguments than Redis on all of the script.
            rows = json.dumps(prices[start : start + _SHARES])
            found: Any = self._prices(keys=[self.prefix], args=[_KEEP, now, *self.lateness, rows])
            latest.extend(found)
        followed = ([*row, bool(flag)] for row, flag in zip(open_, latest, strict=True) if row)
        for portion in _portions(followed):
            self._follow(keys=[self.prefix], args=[json.dumps(directions), json.dumps(portion)])

    def _open_signals(self) -> dict[str, list[str]]:
        """Ids of the open signals, by share."""
        found: dict[str, list[str]] = {}
        names: Any = self.client.zrange(f"{self.prefix}signals:active", 0, -1)
        for name in names:
            country, symbol, _ = name.decode().split(":", 2)
            found.setdefault(f"{country}:{symbol}", []).append(name.decode())
        return found


def _rows(
    ticks: pa.Table, signals: Mapping[str, list[str]], epoch: str
) -> tuple[list[list[str]], list[list[Any] | None]]:
    """What prices.lua takes of each share, and, beside it, what follow.lua does but for its last (None of a share
    without open signals); of ticks in the order of share and time. Prices and times as texts, since Lua's numbers are
    doubles."""
    columns = ("share", "price", "timestamp", "day_volume", "partition", "offset", "session", "moves")
    shares, prices, times, volumes, partitions, offsets, sessions, moves = (ticks[c].to_pylist() for c in columns)
    latest: list[list[str]] = []
    open_: list[list[Any] | None] = []
    start = 0
    for end, share in enumerate(shares, 1):
        if end < len(shares) and shares[end] == share:
            continue
        newest = end - 1
        price, timestamp = repr(prices[newest]), str(times[newest])
        place = f"{epoch}:{partitions[newest]}"
        latest.append([share, price, timestamp, str(volumes[newest]), place, str(offsets[newest])])
        row = None
        if ids := signals.get(share):
            first = newest if len(set(prices[start:end])) == 1 else start
            since = list(zip(times[first:end], prices[first:end], strict=True))
            moved = [[move["ex_date"], move["factor"]] for move in moves[newest] or ()]
            row = [price, timestamp, ids, since, sessions[newest], moved]
        open_.append(row)
        start = end
    return latest, open_


def _portions(rows: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    """follow.lua's rows, cut where a portion has enough signals for one call."""
    portion: list[list[Any]] = []
    count = 0
    for row in rows:
        portion.append(row)
        count += len(row[2])
        if count >= _SIGNALS:
            yield portion
            portion, count = [], 0
    if portion:
        yield portion
