"""When a share's prices are not to be believed; for those who ask with Spark and those who ask without."""

from __future__ import annotations

__all__ = ["PAUSE", "SUSPECT"]

# A jump that nothing explains, or a price that came back the next day: what indicators say around it is not true.
SUSPECT = ("jump", "glitch", "unconfirmed_action")
# A share that does not trade keeps what was said of its last bars for so many sessions: a year.
PAUSE = 250
