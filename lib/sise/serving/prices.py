"""Latest prices and the running profit or loss of open signals, in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
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
    ticks after it fired. They are of the share's ``timestamp`` there.

    No price goes back in time, unless to one so old that the newer was a replay's (``lateness``): a tick that comes
    late, or is read again, counts for best and worst only. A signal that is written after ticks that came after its own
    (the relay may have to catch up) is in the set ``missed`` (missed.py). On an ex-date the trigger price is taken to
    the new basis; a signal is not followed while nobody knows the factor. For that a signal also has ``basis`` (the
    product of the factors since its session) and ``direction`` (the rule's; where the rule is gone, the last one it
    had), and a price ``followed``: all that its signals' figures came from. Where a batch changes nothing of it, they
    stay as they are. ``epoch`` names the life of the tick topic.
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
        """All latest prices, and then what they mean for the signals: a price waits for no other share's signals. Those
        that are open are asked for after it: one that is fired meanwhile sees the price, and is ``missed``."""
        now, of_shares = int(time.time() * 1000), _by_share(ticks)
        known: list[bytes | None] = []
        for start in range(0, len(of_shares), _SHARES):
            # One argument, not thousands: the client spends more time on arguments than Redis on all of the script.
            rows = json.dumps([share.price(self.epoch) for share in of_shares[start : start + _SHARES]])
            found: Any = self._prices(keys=[self.prefix], args=[_KEEP, now, *self.lateness, rows])
            known.extend(found)
        signals, directions = self._open_signals(), self._directions()
        self._follow_all(
            directions,
            (
                row
                for share, before in zip(of_shares, known, strict=True)
                if (ids := signals.get(share.name)) and (row := share.followed(ids, directions, before))
            ),
        )

    def follow_between(self, rows: Iterable[tuple[str, str, int, float, float]]) -> None:
        """Best and worst of signals: (id, its session, when it fired, highest and lowest price since), at the basis of
        that session. Prices that were taken before change nothing."""
        self._follow_all(
            self._directions(),
            (
                [repr(high), str(since), [name], [[since, high], [since, low]], session, [], False]
                for name, session, since, high, low in rows
            ),
        )

    def _directions(self) -> str:
        return json.dumps({rule.name: rule.direction for rule in self.rules().rules})

    def _follow_all(self, directions: str, rows: Iterable[list[Any]]) -> None:
        for portion in _portions(rows):
            self._follow(keys=[self.prefix], args=[directions, json.dumps(portion)])

    def _open_signals(self) -> dict[str, list[str]]:
        """Ids of the open signals, by share."""
        found: dict[str, list[str]] = {}
        names: Any = self.client.zrange(f"{self.prefix}signals:active", 0, -1)
        for name in names:
            country, symbol, _ = name.decode().split(":", 2)
            found.setdefault(f"{country}:{symbol}", []).append(name.decode())
        return found


@dataclass(frozen=True)
class _Share:
    """A share's ticks of a batch: from ``start`` to ``end`` of the columns, in the order of time."""

    name: str
    columns: Mapping[str, list[Any]]
    start: int
    end: int

    def _newest(self, column: str) -> Any:
        return self.columns[column][self.end - 1]

    def price(self, epoch: str) -> list[str]:
        """What prices.lua takes. Prices and times as texts, since Lua's numbers are doubles."""
        newest = self._newest
        place = f"{epoch}:{newest('partition')}"
        told = [repr(newest("price")), str(newest("timestamp")), str(newest("day_volume"))]
        return [self.name, *told, place, str(newest("offset"))]

    def followed(self, ids: list[str], directions: str, known: bytes | None) -> list[Any] | None:
        """What follow.lua takes; None where all ticks are of the price at which these signals stand already.

        ``known``: what prices.lua gave."""
        prices, times = self.columns["price"], self.columns["timestamp"]
        one = len(set(prices[self.start : self.end])) == 1
        price, session = repr(self._newest("price")), self._newest("session")
        moved = [[move["ex_date"], move["factor"]] for move in self._newest("moves") or ()]
        note = f"{price} {_digest([ids, directions, session, moved])}"
        if one and known == note.encode():
            return None
        first = self.end - 1 if one else self.start
        since = list(zip(times[first : self.end], prices[first : self.end], strict=True))
        latest = [self.name, note] if known is not None else [False]
        return [price, str(self._newest("timestamp")), ids, since, session, moved, *latest]


def _digest(told: Any) -> str:
    return blake2b(json.dumps(told).encode(), digest_size=12).hexdigest()


def _by_share(ticks: pa.Table) -> list[_Share]:
    """Of ticks in the order of share and time."""
    named = ("price", "timestamp", "day_volume", "partition", "offset", "session", "moves")
    columns, shares = {name: ticks[name].to_pylist() for name in named}, ticks["share"].to_pylist()
    found, start = [], 0
    for end, share in enumerate(shares, 1):
        if end == len(shares) or shares[end] != share:
            found.append(_Share(share, columns, start, end))
            start = end
    return found


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
