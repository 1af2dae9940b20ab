"""What is believed of a share on a day; for those who ask with Spark (universe) and those who ask without (preview)."""

from __future__ import annotations

__all__ = ["FIRST_LISTING_DAYS", "LASTING", "PAUSE", "SUSPECT"]

# A share's first listing row tells how it stood so many days before, too: on the first day of a lake the listings are
# newer than the last session. Further back it tells only what does not change.
FIRST_LISTING_DAYS = 10
LASTING = ("name", "is_etf")

# A jump that nothing explains, or a price that came back the next day: what indicators say around it is not true.
SUSPECT = ("jump", "glitch", "unconfirmed_action")
# A share that does not trade keeps what was said of its last bars for so many sessions: a year.
PAUSE = 250
