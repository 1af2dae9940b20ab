"""The vendors behind the collecting jobs: which one the arguments name, with its ledger and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sise.calendars import Calendar
from sise.errors import UsageError
from sise.ops.arguments import request_of
from sise.ops.outcome import Outcome
from sise.prices.gather import Wanted, gather
from sise.sources.asks import Vendor
from sise.sources.base import Source
from sise.sources.ledger import Ledger
from sise.sources.settings import SourceSettings

if TYPE_CHECKING:
    from sise.ops.job import Context

__all__ = ["gather_prices", "listing_of", "vendor_of"]


def vendor_of(
    name: str, settings: SourceSettings, calendars: Mapping[str, Calendar], spend: Callable[[], None] = lambda: None
) -> Vendor:
    """The vendor's prices; its library is loaded only when it is asked for."""
    if name == "krx":
        from sise.sources.krx import KrxVendor

        return KrxVendor(settings, calendars, spend)
    if name == "naver":
        from sise.sources.naver import NaverVendor

        return NaverVendor(settings, calendars, spend)
    if name == "yahoo":
        from sise.sources.yahoo import YahooVendor

        return YahooVendor(settings, calendars, spend)
    from sise.sources.kis import KisVendor

    return KisVendor(settings, calendars, spend)


def gather_prices(job: Context) -> Outcome:
    """collect_prices.py from a vendor."""
    args, settings = job.args, SourceSettings.from_env()
    if args.years is not None and args.years <= 0:
        raise UsageError(f"--years {args.years} must be above 0")
    if args.years is not None and args.start is not None:
        raise UsageError("--years and --start say the same: give one of them")
    if args.max_requests is not None and args.max_requests < 1:
        raise UsageError(f"--max-requests {args.max_requests} must be 1 or more")
    request = request_of(args)
    if args.source == "krx" and args.codes:
        raise UsageError("--source krx is asked for whole markets: leave --codes out, or take --source naver or kis")
    wanted = Wanted(tuple(args.market), tuple(args.codes), request.start, request.end, args.years)
    ledger = Ledger(settings.state, args.source, settings.lake, job.run_id)
    try:
        vendor = vendor_of(args.source, settings, job.calendars, lambda: ledger.spend(args.max_requests))
        return gather(job.spark, job.lake, vendor, ledger, wanted, settings, job.calendars)
    finally:
        ledger.close()


def listing_of(job: Context) -> Source:
    """The listing behind collect_symbols.py."""
    from sise.sources.listings import KrListing, NasdaqListing

    settings, name = SourceSettings.from_env(), job.args.source
    if name == "yahoo":
        return NasdaqListing(settings)
    if name == "naver":
        raise UsageError("--source naver has no listing: use --source krx, or kis, which needs no login")
    return KrListing(name, settings, job.calendars)
