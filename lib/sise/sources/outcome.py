"""What became of a question to a vendor, told apart."""

from __future__ import annotations

from enum import StrEnum

from sise.errors import SiseError

__all__ = ["Again", "Blocked", "ClockWrong", "Failed", "Fate", "NoData", "Refused", "Spent", "VendorError"]


class Fate(StrEnum):
    """``holiday``: the exchange's calendar has no session (nothing is asked); ``closed``: the calendar has one, but
    the exchange says that nothing was traded; ``not_settled``: the session is not over, or its figures are not final
    enough to be asked for; ``blocked``: the vendor refuses this address; ``no_data``: the vendor answers, and has
    nothing; ``skipped``: not asked, because the run ended before its turn; ``failed``: anything else."""

    OK = "ok"
    HOLIDAY = "holiday"
    CLOSED = "closed"
    NOT_SETTLED = "not_settled"
    BLOCKED = "blocked"
    NO_DATA = "no_data"
    SKIPPED = "skipped"
    FAILED = "failed"


class VendorError(SiseError):
    """A question that was not answered; ``fate`` says how."""

    fate = Fate.FAILED


class Failed(VendorError):
    """Not answered, or answered with what cannot be read. The rest of the run goes on."""


class NoData(VendorError):
    """The vendor has nothing under this name or for this span."""

    fate = Fate.NO_DATA


class Blocked(VendorError):
    """The vendor refuses this address: the run ends, and none starts before the block's end."""

    fate = Fate.BLOCKED


class Spent(VendorError):
    """The day's requests (--max-requests) are used up: the run ends in order."""

    fate = Fate.SKIPPED


class Refused(VendorError):
    """The vendor refuses our credentials: the run ends, because trying on locks accounts."""


class ClockWrong(VendorError):
    """This machine's clock and the vendor's differ too much: the run ends."""


class Again(Exception):
    """Worth another try: a timeout, 429, 5xx, a body that broke off. ``wait``: seconds that the vendor asked for."""

    def __init__(self, reason: str, wait: float | None = None, limited: bool = False):
        super().__init__(reason)
        self.wait, self.limited = wait, limited
