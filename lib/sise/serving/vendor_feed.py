"""Vendors' live feeds for produce_ticks.py: which shares, over which channels, how they fare."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import redis

from sise.calendars import Calendar
from sise.console import tell
from sise.errors import InputError
from sise.reader import LakeReader
from sise.settings import Settings
from sise.sources.kis_rest import KisRest
from sise.sources.kis_stream import KisPoll, KisStream
from sise.sources.live import Channel, LiveFeed, Share
from sise.sources.settings import SourceSettings
from sise.sources.ticks import TickFeed
from sise.topics import Tick

__all__ = ["VENDORS", "ranked_shares", "vendor_feed", "with_reports"]

VENDORS = ("kis", "yahoo")
_REPORT_EVERY = 10.0
_TELL_EVERY = 60.0


def ranked_shares(reader: LakeReader) -> list[dict[str, Any]]:
    """country, symbol, market of all shares that have a live state (else of all active ones), best rank on the last
    watchlists first, then the largest."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in reader.rows("symbols").to_pylist():
        key = (row["country"], row["symbol"])
        if key not in newest or newest[key]["valid_from"] < row["valid_from"]:
            newest[key] = row
    if reader.exists("live_state"):
        live = reader.rows("live_state", ["country", "symbol", "market"]).to_pylist()
    else:
        live = [row for row in newest.values() if row["active"]]
    ranks: dict[tuple[str, str], int] = {}
    if reader.exists("watchlist"):
        listed = reader.rows("watchlist", ["country", "symbol", "date", "rank"]).to_pylist()
        last = {c: max(r["date"] for r in listed if r["country"] == c) for c in {r["country"] for r in listed}}
        for row in (r for r in listed if r["date"] == last[r["country"]]):
            key = (row["country"], row["symbol"])
            ranks[key] = min(row["rank"], ranks.get(key, row["rank"]))

    def order(row: Mapping[str, Any]) -> tuple[float, float, str]:
        key = (row["country"], row["symbol"])
        return ranks.get(key, float("inf")), -float(newest.get(key, {}).get("market_cap") or 0), row["symbol"]

    return [{name: row[name] for name in ("country", "symbol", "market")} for row in sorted(live, key=order)]


def vendor_feed(
    sources: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    calendars: Mapping[str, Calendar],
    stop: Callable[[], bool],
    always: bool = False,
    settings: SourceSettings | None = None,
) -> LiveFeed:
    """One feed over the sources, in the order of preference. Logs in where that is needed."""
    settings = settings or SourceSettings.from_env()
    shares = [Share(row["country"], row["symbol"], row["market"]) for row in rows]
    if not shares:
        raise InputError("no share to listen to: --symbols names none that is known")
    channels: list[Channel] = []
    feed: list[LiveFeed] = []
    for source in sources:
        channels += _kis(shares, settings) if source == "kis" else _yahoo(shares, settings, calendars, feed)
    feed.append(LiveFeed(channels, shares, calendars, settings, stop, always))
    return feed[0]


def _kis(shares: Sequence[Share], settings: SourceSettings) -> list[Channel]:
    rest = KisRest(settings)
    rest.open()
    stream = KisStream(rest, shares, settings)
    return [stream, KisPoll(rest, shares, stream.served)]


def _yahoo(
    shares: Sequence[Share], settings: SourceSettings, calendars: Mapping[str, Calendar], feed: Sequence[LiveFeed]
) -> list[Channel]:
    from sise.sources.yahoo import YahooVendor
    from sise.sources.yahoo_stream import YahooPoll, YahooStream

    vendor = YahooVendor(settings, calendars)
    vendor.open()
    stream = YahooStream(shares, settings)
    return [stream, YahooPoll(vendor, shares, lambda: not feed or feed[0].channel_delivers(stream.label))]


def with_reports(feed: TickFeed, settings: Settings) -> Iterator[Tick]:
    """The feed's ticks; a live feed's state goes to Redis every ten seconds (key ``feed``; ``feed:prices`` has each
    share's time and source), and to stderr every minute."""
    if not isinstance(feed, LiveFeed):
        yield from feed.ticks()
        return
    client = redis.Redis.from_url(settings.redis, socket_timeout=1, socket_connect_timeout=1)
    reporter = _Reporter(feed, settings, client)
    feed.on_pause = reporter.when_due
    for tick in feed.ticks():
        reporter.when_due()
        yield tick
    reporter.report()
    client.close()


class _Reporter:
    def __init__(self, feed: LiveFeed, settings: Settings, client: redis.Redis):
        self.feed, self.prefix, self.client = feed, settings.redis_prefix, client
        self._reported = self._told = time.monotonic()

    def when_due(self) -> None:
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY:
            self._reported = now
            self.report()
        if now - self._told >= _TELL_EVERY:
            self._told = now
            tell(_line(self.feed.status()))

    def report(self) -> None:
        """A Redis that is away costs the report, not the feed."""
        told = {**self.feed.status(), "at": datetime.now(UTC).isoformat()}
        ages = self.feed.ages().items()
        prices: dict[Any, Any] = {key: json.dumps({"timestamp": at, "source": source}) for key, (at, source) in ages}
        try:
            line = self.client.pipeline(transaction=False)
            line.set(f"{self.prefix}feed", json.dumps(told), ex=120)
            if prices:
                line.hset(f"{self.prefix}feed:prices", mapping=prices)
                line.expire(f"{self.prefix}feed:prices", 86_400)
            line.execute()
        except redis.RedisError:
            self.feed.counts["unreported"] += 1


def _line(status: Mapping[str, Any]) -> str:
    parts = []
    for country, about in status["countries"].items():
        there = f"{about['with_price']} of {about['shares']} shares have a price"
        if about["with_price"]:
            there += f", its age {about['age_median']:.0f} s (median), {about['age_max']:.0f} s at most"
        parts.append(f"{country} from {about['source'] or 'nobody yet'}: {there}")
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(status["counts"].items()))
    trouble = "; ".join(f"{label}: {x['trouble']}" for label, x in status["channels"].items() if x["trouble"])
    return "; ".join(filter(None, [*parts, counts, trouble]))
