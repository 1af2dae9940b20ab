"""From a tick feed to Kafka: which feed the arguments name, its pace, and the sending."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

from sise.calendars import Calendar
from sise.console import tell
from sise.errors import InputError, UsageError
from sise.indicators.registry import Registry
from sise.ops.outcome import Outcome
from sise.prices.unsettled import UNSETTLED
from sise.reader import LakeReader
from sise.serving.kafka import ensure_topics
from sise.serving.sender import Sender
from sise.serving.vendor_feed import VENDORS, ranked_shares, vendor_feed, with_reports
from sise.settings import Settings, parse_date
from sise.signals.curves import load_curves
from sise.signals.labelled import TestFeed
from sise.signals.rules import LiveRules
from sise.sources.live import LiveFeed
from sise.sources.ticks import ReplayFeed, TickFeed
from sise.ticks import limit_prices, round_to_tick
from sise.topics import TICKS, Tick, key_of, topic_of

__all__ = ["add_feed", "feed_of", "live_rows", "paced", "produce"]


def add_feed(parser: argparse.ArgumentParser) -> None:
    """The arguments of a job that sends ticks."""
    parser.add_argument(
        "--source",
        required=True,
        type=_source,
        metavar="SOURCE",
        help="replay, test, kis, yahoo, or kis,yahoo: of a country's sources the first that delivers is taken",
    )
    parser.add_argument(
        "--symbols", default="watchlist", metavar="WHICH", help="watchlist (default), all, or codes: 005930,US:AAPL"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after so many ticks (default: the feed's end)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other ticks")
    replay = parser.add_argument_group("--source replay")
    replay.add_argument(
        "--session",
        type=_date,
        metavar="DATE",
        help="walk that session's bars (default: the newest session's moves, as the session that live_state is for)",
    )
    replay.add_argument("--per-bar", type=int, default=32, metavar="N", help="ticks a share (default 32)")
    pace = replay.add_mutually_exclusive_group()
    pace.add_argument("--speed", type=float, metavar="X", help="so many times real time (default 60)")
    pace.add_argument("--rate", type=float, metavar="N", help="so many ticks a second instead")
    vendor = parser.add_argument_group("--source kis, yahoo")
    vendor.add_argument("--any-time", action="store_true", help="connect outside the sessions, too")
    again = "each share once; run again before the next session, those that have fired may not fire again"
    test = parser.add_argument_group("--source test", again)
    test.add_argument("--interval", type=float, default=5.0, metavar="SECONDS", help="between two ticks (default 5)")
    test.add_argument("--signal-prob", type=float, default=0.3, metavar="P", help="how often one must fire (0.3)")


def _source(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if names in (["replay"], ["test"]) or (set(names) <= set(VENDORS) and len(names) == len(set(names))):
        return ",".join(names)
    raise argparse.ArgumentTypeError(f"{text!r} is not replay, test, or one or more of {', '.join(VENDORS)}")


def _date(text: str) -> date:
    try:
        return parse_date(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from problem


def feed_of(
    args: argparse.Namespace,
    settings: Settings,
    registry: Registry,
    calendars: Mapping[str, Calendar],
    stop: Callable[[], bool] = lambda: False,
) -> TickFeed:
    """The feed that the arguments name; raises UsageError for what makes no sense. ``stop`` ends a vendor's."""
    for name in ("rate", "speed", "interval"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} {value} must be a number above 0")
    for name, least in (("count", 1), ("seed", 0), ("per_bar", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value} must be {least} or more")
    if not 0 <= args.signal_prob <= 1:
        raise UsageError(f"--signal-prob {args.signal_prob} must be from 0 to 1")
    reader = LakeReader(settings.lake)
    if args.source not in ("replay", "test"):
        return vendor_feed(
            args.source.split(","), _chosen(args.symbols, ranked_shares(reader), reader), calendars, stop, args.any_time
        )
    if args.source == "test":
        states = _chosen(args.symbols, eligible_rows(reader), reader)
        rules = LiveRules.load(settings.conf_file("watchlists.json"), registry)
        curves = load_curves(settings.conf_file("volume_curves.json"))
        _warn_of({state["country"]: (state["valid_session"], state["session_close"]) for state in states}, settings)
        most = {"KR": settings.jump_limit_kr, "US": settings.jump_limit_us}
        return TestFeed(registry, rules, curves, states, args.interval, args.signal_prob, args.count, args.seed, most)
    if args.session is not None:
        bars = reader.rows("prices", _BAR, [("date", "=", args.session)]).to_pylist()
        if not bars:
            raise InputError(f"prices has no bar of {args.session}: is it a session, and was it collected?")
        days = {bar["country"]: args.session for bar in bars}
        hours = {country: calendars[country].hours(day) for country, day in days.items()}
    else:
        bars, days, hours = _as_next_session(reader)
        _warn_of({country: (days[country], closes) for country, (_, closes) in hours.items()}, settings)
    session = {country: str(day) for country, day in days.items()}
    return ReplayFeed(_chosen(args.symbols, bars, reader), session, hours, args.per_bar, args.seed)


_BAR = ["country", "symbol", "date", "market", "open", "high", "low", "close", "volume"]


def live_rows(reader: LakeReader) -> list[dict[str, Any]]:
    return list(reader.rows("live_state").to_pylist())


def eligible_rows(reader: LakeReader) -> list[dict[str, Any]]:
    """live_state's rows of the shares that may have signals: as detect.py's live_side has them."""
    rows = live_rows(reader)
    if reader.exists("actions"):
        text = f"SELECT country, symbol FROM live_state JOIN actions USING (country, symbol) WHERE {UNSETTLED}"
        barred = {(r["country"], r["symbol"]) for r in reader.query(text, ["live_state", "actions"])}
        rows = [row for row in rows if (row["country"], row["symbol"]) not in barred]
    if not reader.exists("universe"):
        return rows
    may = {(r["country"], r["symbol"]) for r in reader.rows("universe").to_pylist() if r["eligible"]}
    return [row for row in rows if (row["country"], row["symbol"]) in may]


def _as_next_session(
    reader: LakeReader,
) -> tuple[list[dict[str, Any]], dict[str, date], dict[str, tuple[datetime, datetime]]]:
    """Each share's newest bar, moved to the session that live_state is for: its moves from the last close on."""
    states = {(r["country"], r["symbol"]): r for r in live_rows(reader)}
    if "return_1" not in [field.name for field in reader.open("indicators").schema().fields]:
        raise InputError(
            "the next session is walked by return_1, which conf/indicators.json lacks: add it, or --session"
        )
    newest = {c: max(r["as_of"] for k, r in states.items() if k[0] == c) for c in {k[0] for k in states}}
    bars = []
    for country, day in newest.items():
        where = [("date", "=", day), ("country", "=", country)]
        moved = reader.rows("indicators", ["symbol", "return_1"], where).to_pylist()
        moves = {row["symbol"]: row["return_1"] for row in moved}
        for bar in reader.rows("prices", _BAR, where).to_pylist():
            state = states.get((country, bar["symbol"]))
            if state is None or not bar["close"] or not bar["open"]:
                continue
            by = state["close"] * (1 + (moves.get(bar["symbol"]) or 0.0)) / bar["close"]
            lowest, highest = limit_prices(state["close"]) if country == "KR" else (0.0, float("inf"))
            moved_to = {c: min(max(bar[c] * by, lowest), highest) for c in ("open", "high", "low", "close")}
            bars.append(bar | {c: round_to_tick(price, country) for c, price in moved_to.items()})
    days, hours = {}, {}
    for (country, _), row in states.items():
        days[country], hours[country] = row["valid_session"], (row["session_open"], row["session_close"])
    return bars, days, hours


def _warn_of(sessions: Mapping[str, tuple[date, datetime]], settings: Settings) -> None:
    """Of invented prices for a session that is still to come or running: what they make fire stands there as real."""
    for country, (day, closes) in sorted(sessions.items()):
        if closes > datetime.now(UTC) and not settings.topic_prefix:
            tell(
                f"{country}: the session {day} is not over, and these prices are invented for it: their signals are "
                "archived beside the real ones. Set SISE_TOPIC_PREFIX and SISE_REDIS_PREFIX for all three jobs"
            )


def _chosen(which: str, rows: list[dict[str, Any]], reader: LakeReader) -> list[dict[str, Any]]:
    if which == "all":
        return rows
    if which == "watchlist":
        listed = reader.rows("watchlist", ["country", "symbol", "date"]).to_pylist()
        last = {c: max(r["date"] for r in listed if r["country"] == c) for c in {r["country"] for r in listed}}
        wanted = {(r["country"], r["symbol"]) for r in listed if r["date"] == last[r["country"]]}
        found = [row for row in rows if (row["country"], row["symbol"]) in wanted]
        if not found:
            raise InputError("no share of the watchlists is there: run jobs/scan_watchlists.py, or give --symbols all")
        return found
    codes = {code.strip().upper() for code in which.split(",") if code.strip()}
    if not codes:
        raise UsageError(f"--symbols {which!r} names no share: give all, watchlist, or codes like 005930")
    found = [r for r in rows if {r["symbol"], f"{r['country']}:{r['symbol']}"} & codes]
    missing = codes - {r["symbol"] for r in found} - {f"{r['country']}:{r['symbol']}" for r in found}
    if missing:
        raise UsageError(f"--symbols: no {', '.join(sorted(missing))} there; spell them as the exchange does")
    return found


def paced(ticks: Iterator[Tick], rate: float | None, speed: float | None, stop: Callable[[], bool]) -> Iterator[Tick]:
    """The ticks when they are due: ``rate`` a second, or ``speed`` times as fast as their clock; neither: at once."""
    started = time.monotonic()
    first: int | None = None
    for n, tick in enumerate(ticks):
        if stop():
            return
        if rate:
            due = n / rate
        elif speed:
            first = tick["clock"] if first is None else first
            due = (tick["clock"] - first) / 1000 / speed
        else:
            due = 0.0
        while (left := started + due - time.monotonic()) > 0:
            if stop():
                return
            time.sleep(min(left, 0.25))
        yield tick


def produce(
    feed: TickFeed,
    settings: Settings,
    stop: Callable[[], bool],
    rate: float | None = None,
    speed: float | None = None,
    count: int | None = None,
) -> Outcome:
    """Sends the feed's ticks to Kafka until it ends or ``stop()``; every one is acknowledged before this returns."""
    ensure_topics(settings)
    topic = topic_of(TICKS, settings.topic_prefix)
    sender = Sender(settings, stop)
    outcome = Outcome()
    replay = feed.name == "replay"
    rate = 1 / feed.interval if isinstance(feed, TestFeed) else rate
    labelled = 0
    ticks = with_reports(feed, settings)
    ticks = ticks if count is None else islice(ticks, count)
    for tick in paced(ticks, rate, speed or (60.0 if replay and not rate else None), stop):
        sender.put(topic, key_of(tick), json.dumps(tick, separators=(",", ":"), ensure_ascii=False).encode())
        outcome.rows_out += 1
        labelled += bool(tick.get("label"))
    sender.flush()
    sender.close()
    outcome.details = {"source": feed.name, "ticks": outcome.rows_out, "labelled": labelled}
    if isinstance(feed, LiveFeed):
        outcome.details |= feed.status()
    outcome.say(f"{outcome.rows_out} ticks sent" + (f", {labelled} that must fire" if labelled else ""))
    return outcome
