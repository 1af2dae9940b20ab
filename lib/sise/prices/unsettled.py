"""Actions that fall due before the next session and whose factor nobody knows yet.

Rights issues, spin-offs, reductions and stock dividends are announced without a factor, which the exchange's reference
price tells on the ex-date. Until then the last close is in another basis than that session's ticks.
"""

from __future__ import annotations

__all__ = ["NO_LONGER", "UNSETTLED", "WITHDRAWN"]

# How the evidence of an announcement ends that its source has taken back (withdrawn.py).
NO_LONGER = "no longer announced"

# SQL over an action: its announcement was taken back, so it counts for nothing.
WITHDRAWN = f"coalesce(evidence, '') LIKE '%{NO_LONGER}'"
# SQL over a row of live_state joined with an action of its share. Text, because Spark evaluates it in the stream and
# DataFusion where there is no JVM.
UNSETTLED = (
    "ex_date > as_of AND ex_date <= valid_session AND kind <> 'dividend' AND NOT (confirmed AND factor IS NOT NULL)"
    f" AND NOT {WITHDRAWN}"
)
