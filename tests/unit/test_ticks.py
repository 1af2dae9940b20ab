from __future__ import annotations

import pytest

from sise.ticks import krx_tick, limit_prices, round_to_tick, tick_size


@pytest.mark.parametrize(
    ("price", "tick"),
    [
        (1_999, 1),
        (2_000, 5),
        (4_995, 5),
        (5_000, 10),
        (19_990, 10),
        (20_000, 50),
        (50_000, 100),
        (200_000, 500),
        (500_000, 1000),
    ],
)
def test_krx_steps(price, tick):
    assert krx_tick(price) == tick


def test_limits_are_quotable_and_inside_thirty_percent():
    for reference in (1_000, 1_999, 3_850, 4_900, 15_390, 19_950, 49_950, 70_100, 199_500, 450_000, 900_000):
        low, high = limit_prices(reference)
        for price in (low, high):
            assert price % krx_tick(price) == 0
            assert abs(price / reference - 1) <= 0.30 + 1e-9
            assert abs(price / reference - 1) > 0.29 or reference < 2_000


def test_rounding_never_reaches_zero():
    assert round_to_tick(0.2, "KR") == 1 and round_to_tick(0.00001, "US") == 0.0001
    assert round_to_tick(12_344, "KR") == 12_340 and round_to_tick(12.346, "US") == 12.35
    assert round_to_tick(0.28714, "US") == 0.2871 and tick_size(0.99, "US") == 0.0001 and tick_size(1.0, "US") == 0.01
