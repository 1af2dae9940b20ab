"""The arguments that jobs share, and the source that they name."""

from __future__ import annotations

import argparse
from datetime import date
from typing import TYPE_CHECKING

from sise.calendars import MARKETS, country_of, normal_market
from sise.errors import ConfigError, UsageError
from sise.settings import parse_date
from sise.sources.base import Request, Source

if TYPE_CHECKING:
    from sise.ops.job import Context

__all__ = ["VENDORS", "add_source", "check_span", "iso_date", "market_names", "request_of", "source_of"]


VENDORS = ("krx", "naver", "yahoo", "kis")


def _codes(text: str) -> list[str]:
    return [code.strip().upper() for code in text.split(",") if code.strip()]


def iso_date(text: str) -> date:
    try:
        return parse_date(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from problem


def market_names(text: str) -> list[str]:
    names = [normal_market(name) for name in text.split(",") if name.strip()]
    if names == ["ALL"]:
        return []
    try:
        for name in names:
            country_of(name)
    except ConfigError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from problem
    return names


def add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments of a job that reads a source."""
    parser.add_argument(
        "--source", required=True, choices=["sample", "files", *VENDORS], help="where the data comes from"
    )
    parser.add_argument(
        "--market",
        type=market_names,
        default=[],
        metavar="M[,M]",
        help=f"{', '.join(MARKETS)} or ALL (default); with --source files the market of every symbol",
    )
    parser.add_argument("--start", type=iso_date, metavar="DATE", help="first session (default: all there is)")
    parser.add_argument("--end", type=iso_date, metavar="DATE", help="last session (default: all there is)")
    vendor = parser.add_argument_group(f"--source {', '.join(VENDORS)}")
    vendor.add_argument("--codes", type=_codes, default=[], metavar="C[,C]", help="only these shares: 005930,AAPL")
    vendor.add_argument("--years", type=float, metavar="N", help="the last N years instead of --start")
    vendor.add_argument("--max-requests", type=int, metavar="N", help="at most N requests a day; the next run goes on")
    sample = parser.add_argument_group("--source sample")
    sample.add_argument("--symbols", type=int, default=300, metavar="N", help="how many shares (default 300)")
    sample.add_argument("--seed", type=int, default=20211, help="another seed, another market")
    files = parser.add_argument_group("--source files")
    files.add_argument(
        "--path", metavar="FILE-OR-FOLDER", help="parquet or csv: symbol date open high low close volume"
    )
    files.add_argument("--market-map", metavar="FILE", help="each symbol's market: columns symbol, market")
    files.add_argument(
        "--basis",
        type=iso_date,
        metavar="DATE",
        help="the prices are split-adjusted as of this date (default: as traded, not adjusted)",
    )


def check_span(args: argparse.Namespace) -> None:
    """Raises UsageError where --start is after --end."""
    if args.start and args.end and args.start > args.end:
        raise UsageError(f"--start {args.start} is after --end {args.end}")


def request_of(args: argparse.Namespace) -> Request:
    check_span(args)
    return Request(tuple(args.market) if args.source != "files" else (), args.start, args.end)


def source_of(job: Context) -> Source:
    """The source that the arguments name; raises UsageError where one of its own is missing."""
    args = job.args
    if args.source == "files":
        from sise.sources.files import FilesSource

        if not args.path:
            raise UsageError("--source files needs --path FILE-OR-FOLDER")
        if len(args.market) > 1:
            raise UsageError("--source files takes one --market: for several, give --market-map FILE")
        today = max(calendar.today() for calendar in job.calendars.values())
        if args.basis and args.basis > today:
            raise UsageError(f"--basis {args.basis} is in the future: today is {today}")
        return FilesSource(args.path, args.market[0] if args.market else None, args.market_map, args.basis)
    from sise.sources.sample import SampleSource

    return SampleSource(dict(job.calendars), args.symbols, args.seed)
