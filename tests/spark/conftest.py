"""What several Spark tests stand on."""

from __future__ import annotations

from datetime import date

import pytest


@pytest.fixture
def days(calendars) -> list[date]:
    """KRX's sessions of 2023 and the months after: enough for the longest indicator to be warm."""
    return calendars["KR"].between(date(2023, 1, 2), date(2024, 12, 30))[:340]
