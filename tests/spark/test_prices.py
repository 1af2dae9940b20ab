"""At the door: what enters the lake, what is refused with its reason, what is flagged; and adjusted prices."""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from pyspark.sql import functions as F

from sise.indicators.compute import compute_indicators
from sise.lake import Lake
from sise.prices.adjust import adjusted_prices
from sise.prices.check import check_quality
from sise.prices.collect import collect_prices
from sise.prices.gaps import gaps
from sise.prices.report import quality_report
from sise.prices.symbols import collect_symbols
from sise.reader import LakeReader
from sise.sources.base import Request
from tests.builders import ListSource, action, bar, put, share, walk

LIMITS = {"KR": 0.305, "US": 0.5}
LISTED = [("L1", "KOSPI", "KR"), ("L2", "KOSPI", "KR"), ("U1", "NASDAQ", "US"), ("U2", "NASDAQ", "US")]


def collect(spark, lake, settings, calendars, bars=(), actions=(), symbols=(), name="literal"):
    if symbols:
        collect_symbols(spark, lake, ListSource(symbols=symbols), Request(), days(2025, 1, 2))
    return collect_prices(spark, lake, ListSource(bars, actions=actions, name=name), Request(), settings, calendars)


def days(*day):
    return dict.fromkeys(("KR", "US"), date(*day))


def stored(lake, *columns):
    rows = lake.read("prices").orderBy("country", "symbol", "date").collect()
    return [tuple(row[c] for c in columns) if len(columns) > 1 else row[columns[0]] for row in rows]


REFUSED = {
    "A1": (bar("A1", "2024-03-02"), "not a session of XKRX"),
    "A2": (bar("A2", "2099-03-02"), "from the future"),
    "A3": (bar("A3", close=-5.0), "close -5.0 is not positive"),
    "A4": (bar("A4", open=0.0), "open 0.0 is not positive on a traded bar"),
    "A5": (bar("A5", high=900.0, low=1000.0, close=950.0), "high is below low"),
    "A6": (bar("A6", high=1000.0, low=990.0, open=995.0, close=1001.0), "lies outside"),
    "A7": (bar("A7", volume=-1.0), "volume -1.0 is negative"),
    "A8": (bar("A8", close=float("nan")), "close NaN is not a number"),
    "A9": (bar("A9", volume=None), "volume is missing"),
    "B1": (bar("B1", market=None, country=None), "market is not known"),
    "B2": (bar("B2", market="LSE", country=None), "unknown market 'LSE'"),
    "B3": (bar("B3") | {"date": None}, "date is missing"),
    "B4": (bar("B4", problem="open 'abc' is not a number"), "open 'abc' is not a number"),
    "B5": (bar("B5", basis=date(2024, 3, 1)), "basis is before"),
    "B6": (bar("B6", close=float("inf")), "is not a number"),
    "B7": (bar("B7", high=None), "high is missing on a traded bar"),
    "B8": (bar("B8", basis=date(2099, 3, 4)), "basis 2099-03-04 is in the future"),
    "B9": (bar("B9", close=2e9), "close 2.0E9 is above 1e+09"),
}


def test_each_refused_row_has_its_reason_and_nothing_is_lost(spark, lake, settings, calendars):
    rows = [row for row, _ in REFUSED.values()]
    good = [
        bar("G1"),
        bar("G2", volume=0.0, open=0.0, high=0.0, low=0.0),
        bar("G3", volume=0.0, open=None, high=-1.0, low=float("nan")),
        bar("G4", "1985-01-07"),
    ]
    twice = [bar("T1"), bar("T1"), bar("T2", close=10.0), bar("T2", close=11.0)]
    outcome = collect(spark, lake, settings, calendars, [*rows, *good, *twice])
    reasons = {r["symbol"]: r["reason"] for r in lake.read("prices_rejected").collect() if r["symbol"] in REFUSED}
    for symbol, (_, expected) in REFUSED.items():
        assert expected in reasons[symbol], symbol
    assert stored(lake, "symbol") == ["G1", "G2", "G3", "G4", "T1"]
    rejected = lake.read("prices_rejected").count()
    assert outcome.rows_in == len(rows) + 8 == lake.read("prices").count() + rejected
    assert outcome.rows_rejected == rejected == len(rows) + 3
    both = lake.read("prices_rejected").where("symbol = 'T2'").collect()
    assert len(both) == 2 and all("2 rows of this share and day differ" in r["reason"] for r in both)
    assert '"close":11.0' in " ".join(r["row"] for r in both)


def test_running_twice_changes_nothing(spark, lake, settings, calendars):
    rows = [bar("G1"), bar("G1", "2024-03-05", 1010.0), bar("A3", close=-5.0), bar("T1"), bar("T1")]
    collect(spark, lake, settings, calendars, rows, symbols=[share("G1")])
    before = {
        t: (lake.version(t), sorted(map(str, lake.read(t).collect()))) for t in ("prices", "prices_rejected", "symbols")
    }
    again = collect(spark, lake, settings, calendars, rows, symbols=[share("G1")])
    assert again.rows_out == 0 and again.rows_rejected == 2
    for name, (_, content) in before.items():
        assert sorted(map(str, lake.read(name).collect())) == content, name


def test_a_vendors_rounding_is_kept_and_flagged_but_not_on_a_raw_bar(spark, lake, settings, calendars):
    shape = {"high": 1000.0, "low": 990.0, "open": 995.0, "close": 1004.0}
    later = date(2025, 6, 17)
    rows = [
        bar("V1", **shape, basis=later),  # 0.4 % above the high
        bar("V2", **(shape | {"close": 1006.0}), basis=later),  # 0.6 %
        bar("V3", **(shape | {"close": 1001.0})),  # one won, but as traded
        bar("V4", high=50.0, low=49.0, open=49.0, close=51.0, basis=later),  # one tick, 2 %
    ]
    collect(spark, lake, settings, calendars, rows)
    assert stored(lake, "symbol", "flags") == [("V1", ["rounded"]), ("V4", ["rounded"])]
    assert {r["symbol"] for r in lake.read("prices_rejected").collect()} == {"V2", "V3"}


def test_jumps_from_traded_bar_to_traded_bar(spark, lake, settings, calendars):
    days = ["2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07"]
    rows = [
        *[bar("J1", d, c) for d, c in zip(days, (1000, 1300, 1300, 1690), strict=True)],  # the limit, twice
        bar("J2", days[0], 1000),
        bar("J2", days[1], 1000, volume=0.0),
        bar("J2", days[2], 2000),  # after a halt
        *[bar("J3", d, c) for d, c in zip(days, (1000, 2000, 1010, 1010), strict=True)],  # and back
        bar("J4", days[0], 1000),
        bar("J4", days[1], 500),
        bar("J4", days[2], 500),  # a split that is known
    ]
    collect(spark, lake, settings, calendars, rows, [action("J4", days[1], 0.5)])
    flags = {(s, str(d)): f for s, d, f in stored(lake, "symbol", "date", "flags") if f}
    assert flags == {
        ("J2", days[1]): ["no_trade"],
        ("J2", days[2]): ["jump"],
        ("J3", days[1]): ["jump", "glitch"],
        ("J3", days[2]): ["jump"],
    }


def test_flags_follow_when_the_neighbour_arrives_later(spark, lake, settings, calendars):
    collect(spark, lake, settings, calendars, [bar("L1", "2024-03-04", 1000), bar("L1", "2024-03-06", 2000)])
    assert stored(lake, "flags") == [[], ["jump"]]
    collect(spark, lake, settings, calendars, [bar("L1", "2024-03-07", 1000)])
    assert stored(lake, "flags") == [[], ["jump", "glitch"], ["jump"]]
    collect(spark, lake, settings, calendars, [bar("L1", "2024-03-05", 1600)])  # the late bar stands between
    assert stored(lake, "flags") == [[], ["jump"], [], ["jump"]]


def test_a_jump_after_a_year_without_trade_is_seen(spark, lake, settings, calendars):
    collect(spark, lake, settings, calendars, [bar("P1", "2023-03-06", 1000)])
    collect(spark, lake, settings, calendars, [bar("P1", "2024-03-06", 5000)])
    assert stored(lake, "flags") == [[], ["jump"]]


def test_corrections_are_merged_and_compared_at_a_common_basis(spark, lake, settings, calendars):
    """A split re-bases the vendor's history: equal bars stay as they are, a corrected one is replaced."""
    raw = [bar("C1", "2024-03-04", 1000.0), bar("C1", "2024-03-05", 1020.0)]
    collect(spark, lake, settings, calendars, raw, [action("C1", "2024-03-06", 0.2)])
    later = date(2024, 3, 8)
    rebased = [
        bar("C1", "2024-03-04", 200.0, basis=later, volume=500.0),
        bar("C1", "2024-03-05", 210.0, basis=later, volume=500.0),
    ]
    outcome = collect(spark, lake, settings, calendars, rebased)
    assert outcome.details["prices"] == {"inserted": 0, "updated": 1}
    assert stored(lake, "close", "basis") == [(1000.0, date(2024, 3, 4)), (210.0, later)]
    adjusted = adjusted_prices(lake.read("prices"), lake.read("actions")).orderBy("date")
    assert [r["close"] for r in adjusted.collect()] == [200.0, 210.0]


def test_adjusted_prices(spark, lake):
    put(
        lake,
        "prices",
        [
            {
                **bar("S1", "2018-04-27", 2_650_000.0),
                "value": 5e9,
                "reference": 2_607_000.0,
                "volume": 600,
                "flags": [],
                "source": "x",
            },
            {**bar("S1", "2018-05-04", 51_900.0), "volume": 39_000_000, "flags": [], "source": "x"},
            {**bar("S2", "2018-04-27", 100.0, basis=date(2020, 1, 1)), "volume": 10, "flags": [], "source": "x"},
            {**bar("S3", "2018-04-27", 100.0, basis=date(2020, 1, 1)), "volume": 10, "flags": [], "source": "x"},
            {**bar("S4", "2018-04-27", 100.0), "volume": 10, "flags": [], "source": "x"},
        ],
    )
    put(
        lake,
        "actions",
        [
            action("S1", "2018-05-04", 0.02),
            action("S1", "2018-12-27", None, "dividend", amount=354.0),
            action("S2", "2019-05-02", 0.5),  # already in: its ex-date is before the basis
            action(
                "S3", "2019-05-02", 10.0, "reduction", applied_by_source=False
            ),  # the source left it out all the same
            action("S4", "2019-05-02", 0.5, confirmed=False),
            action("S4", "2019-06-03", 0.5, applied_by_source=True),
        ],
    )
    rows = {
        (r["symbol"], str(r["date"])): r for r in adjusted_prices(lake.read("prices"), lake.read("actions")).collect()
    }
    samsung = rows["S1", "2018-04-27"]
    assert samsung["close"] == pytest.approx(53_000, rel=1e-12) and samsung["volume"] == pytest.approx(
        30_000, rel=1e-12
    )
    assert samsung["value"] == 5e9 and samsung["reference"] == pytest.approx(52_140)
    assert rows["S1", "2018-05-04"]["close"] == 51_900
    assert [rows[s, "2018-04-27"]["close"] for s in ("S2", "S3", "S4")] == [100.0, 1000.0, 100.0]
    before = (
        adjusted_prices(lake.read("prices"), lake.read("actions"), date(2018, 5, 3)).where("symbol = 'S1'").collect()
    )
    assert {r["close"] for r in before} == {2_650_000, 51_900}


def test_the_reference_price_finds_actions(spark, lake, settings, calendars):
    """A reference unlike the close before is an action; listed shares confirm it, or it stays unconfirmed."""
    symbols = [share("R1", listed_shares=100), share("R1", "2024-03-06", listed_shares=200), share("R2"), share("R3")]
    rows = [
        bar("R1", "2024-03-05", 1000, reference=990.0),
        bar("R1", "2024-03-06", 510, reference=500.0),
        bar("R2", "2024-03-05", 1000, reference=1000.0),
        bar("R2", "2024-03-06", 2550, reference=2500.0),
        bar("R3", "2024-03-05", 1000, reference=1000.0),
        bar("R3", "2024-03-06", 1001, reference=1000.0),
    ]
    collect(spark, lake, settings, calendars, rows, symbols=symbols)
    found = {r["symbol"]: (r["kind"], r["factor"], r["confirmed"]) for r in lake.read("actions").collect()}
    assert found == {"R1": ("split", 0.5, True), "R2": ("unknown", 2.5, False)}
    flags = {(s, str(d)): f for s, d, f in stored(lake, "symbol", "date", "flags") if f}
    assert flags == {("R2", "2024-03-06"): ["jump", "unconfirmed_action"]}
    causes = {r["check"]: r["likely_cause"] for r in report(lake)}
    assert "unknown × 2.5 on 2024-03-06, unconfirmed" in causes["jump"]


def test_what_was_announced_without_a_factor_gets_it_from_the_reference_price(spark, lake, settings, calendars):
    told = [
        action("R1", "2024-03-06", None, kind="rights", confirmed=True),
        action("R2", "2024-03-06", None, kind="reduction", confirmed=False),  # its reference may be an auction
        action("R3", "2024-03-06", 0.5, kind="bonus", confirmed=True),
    ]
    rows = [bar(f"R{n}", "2024-03-05", 1000, reference=1000.0) for n in (1, 2, 3)]
    rows += [bar("R1", "2024-03-06", 810, reference=800.0), bar("R2", "2024-03-06", 2550, reference=2500.0)]
    rows += [bar("R3", "2024-03-06", 510, reference=480.0)]
    for _ in range(2):  # and a second run takes nothing back
        collect(spark, lake, settings, calendars, rows, told)
        found = {r["symbol"]: (r["kind"], r["factor"], r["confirmed"]) for r in lake.read("actions").collect()}
        assert found == {
            "R1": ("rights", 0.8, True), "R2": ("reduction", 2.5, False), "R3": ("bonus", 0.5, True)
        }  # fmt: skip


def test_of_two_actions_on_a_day_the_reference_price_gives_the_other(spark, lake, settings, calendars):
    """A 5:1 split and a spin-off on one ex-date: 309,500 × 0.2 = 61,900, and trade begins at 53,400."""
    told = [
        action("R1", "2024-03-06", 0.2, kind="split", confirmed=True),
        action("R1", "2024-03-06", None, kind="spin-off", confirmed=True),
    ]
    rows = [bar("R1", "2024-03-05", 309_500, reference=309_500.0), bar("R1", "2024-03-06", 54_000, reference=53_400.0)]
    for _ in range(2):
        collect(spark, lake, settings, calendars, rows, told)
        found = {r["kind"]: (r["factor"], r["confirmed"]) for r in lake.read("actions").collect()}
        assert found == {"split": (0.2, True), "spin-off": (pytest.approx(53_400 / 61_900), True)}


def test_an_action_counts_for_the_first_bar_on_or_after_its_ex_date(spark, lake, settings, calendars):
    """Its ex-date is a Saturday, or lies in a halt in which the exchange still quotes the old reference."""
    listed = [
        share(s, at, listed_shares=n) for s in ("S1", "H1") for at, n in (("2024-01-02", 100), ("2024-03-11", 200))
    ]
    told = [
        action("S1", "2024-03-09", 0.5), action("S2", "2024-03-09", None, kind="rights"),
        action("H1", "2024-03-07", 0.5), action("H2", "2024-03-07", None, kind="spin-off"),
    ]  # fmt: skip
    rows = [bar(s, "2024-03-08", 1000, reference=1000.0) for s in ("S1", "S2")]
    rows += [bar(s, "2024-03-06", 1000, reference=1000.0) for s in ("H1", "H2")]
    halted = {"open": 0.0, "high": 0.0, "low": 0.0, "volume": 0.0, "reference": 1000.0}
    rows += [bar(s, f"2024-03-0{day}", 1000) | halted for s in ("H1", "H2") for day in (7, 8)]
    rows += [bar(s, "2024-03-11", 510, reference=500.0) for s in ("S1", "S2", "H1", "H2")]
    for _ in range(2):
        collect(spark, lake, settings, calendars, rows, told, symbols=listed)
        found = {(r["symbol"], r["kind"], str(r["ex_date"]), r["factor"]) for r in lake.read("actions").collect()}
        assert found == {
            ("S1", "split", "2024-03-09", 0.5), ("S2", "rights", "2024-03-09", 0.5),
            ("H1", "split", "2024-03-07", 0.5), ("H2", "spin-off", "2024-03-07", 0.5),
        }  # fmt: skip
    assert {flag for flags in stored(lake, "flags") for flag in flags} == {"no_trade"}


def test_what_another_source_doubts_explains_nothing(spark, lake, settings, calendars):
    """Nor does it stand beside what the reference price says: that would count twice once it is confirmed."""
    listed = [share("D1", listed_shares=100), share("D1", "2024-03-06", listed_shares=200)]
    doubted = [
        action(s, "2024-03-06", factor, kind=kind, confirmed=False, evidence="yahoo: its prices do not say so")
        for s, factor, kind in (("D1", 0.9, "split"), ("D2", 0.49, "bonus"), ("D3", 0.9, "bonus"))
    ]
    rows = [bar(f"D{n}", "2024-03-05", 1000, reference=1000.0) for n in (1, 2, 3)]
    rows += [bar(f"D{n}", "2024-03-06", 510, reference=500.0) for n in (1, 2, 3)]
    for _ in range(2):
        collect(spark, lake, settings, calendars, rows, doubted, symbols=listed)
        found = {(r["symbol"], r["kind"], r["factor"], r["confirmed"]) for r in lake.read("actions").collect()}
        assert found == {("D1", "split", 0.5, True), ("D2", "bonus", 0.5, True), ("D3", "bonus", 0.5, False)}


def test_an_announcement_months_late_gets_the_factor_that_the_reference_told_then(spark, lake, settings, calendars):
    days = calendars["KR"].between(date(2023, 6, 2), date(2023, 6, 7))
    rows = [bar("L1", str(day), 1000, reference=1000.0) for day in days[:-1]]
    rows.append(bar("L1", str(days[-1]), 810, reference=800.0))
    collect(spark, lake, settings, calendars, rows)
    assert [(r["kind"], r["confirmed"]) for r in lake.read("actions").collect()] == [("unknown", False)]
    told = action("L1", str(days[-1]), None, kind="rights", confirmed=True)
    for _ in range(2):
        collect(spark, lake, settings, calendars, [bar("L1", "2024-03-06", 815)], [told])
        [found] = lake.read("actions").collect()
        assert (found["kind"], found["factor"], found["confirmed"]) == ("rights", 0.8, True)
    assert not [flags for flags in stored(lake, "flags") if flags]


def test_a_split_in_a_long_halt_that_is_told_months_late_explains_the_jump(spark, lake, settings, calendars):
    halted = {"open": 0.0, "high": 0.0, "low": 0.0, "volume": 0.0}
    days = calendars["KR"].between(date(2023, 1, 2), date(2023, 7, 4))
    rows = [bar("P1", str(days[0]), 1000), *(bar("P1", str(day), 1000) | halted for day in days[1:-1])]
    collect(spark, lake, settings, calendars, [*rows, bar("P1", str(days[-1]), 10_000)])
    assert stored(lake, "flags")[-1] == ["jump"]
    told = action("P1", str(days[-1]), 10.0, kind="reduction")
    collect(spark, lake, settings, calendars, [bar("P1", "2024-03-06", 10_100)], [told])
    assert stored(lake, "flags")[-2:] == [[], []]


def test_rows_of_which_one_has_more_columns_are_one(spark, lake, settings, calendars):
    """Overlapping files, one of which has no traded value, another no reference price."""
    plain = bar("V1", "2024-03-05", 1000)
    rows = [plain | {"value": 5e6, "reference": None}, plain | {"value": None, "reference": 990.0}, plain]
    outcome = collect(
        spark, lake, settings, calendars, [*rows, *(bar("V2", "2024-03-05", 7) | {"value": v} for v in (1.0, 2.0))]
    )
    assert stored(lake, "symbol", "value", "reference") == [("V1", 5e6, 990.0)]
    assert outcome.rows_rejected == 4, "the same twice again, and two of which nothing tells which is true"


def test_a_basis_that_was_forgotten_or_wrong_is_put_right(spark, lake, settings, calendars):
    as_traded = [bar("A", f"2024-03-{day:02}", 1000.0 + day) for day in (4, 5, 6)]
    adjusted = [row | {"basis": date(2024, 3, 8)} for row in as_traded]

    def load(rows) -> list:
        source = ListSource(rows, name="files")
        source.states_basis = True
        outcome = collect_prices(spark, lake, source, Request(), settings, calendars)
        return [outcome.rows_out, *sorted({str(basis) for basis in stored(lake, "basis")})]

    assert load(as_traded) == [3, "2024-03-04", "2024-03-05", "2024-03-06"]
    assert load(adjusted) == [3, "2024-03-08"]
    assert load([row | {"basis": date(2024, 3, 11)} for row in adjusted]) == [0, "2024-03-08"], (
        "nothing happened between"
    )
    assert load(as_traded)[0] == 3 and len(stored(lake, "basis")) == 3


def test_adjusted_volumes_and_prices_beyond_what_is_traded(spark, lake, settings, calendars):
    far = date(2024, 3, 8)
    rows = [bar("A", "2024-03-04", 2e9, volume=0.3, basis=far), bar("A", "2024-03-05", 2e9, volume=0.0, basis=far)]
    collect(spark, lake, settings, calendars, rows)
    assert stored(lake, "volume") == [1, 0] and "no_trade" not in stored(lake, "flags")[0]


def test_flags_of_long_ago_follow_an_action_that_comes_late(spark, lake, settings, calendars):
    days = calendars["KR"].between(date(2023, 3, 2), date(2024, 3, 4))
    rows = walk("A", days, [1000.0 if day < date(2023, 6, 1) else 2000.0 for day in days])
    collect(spark, lake, settings, calendars, [r for r in rows if r["date"] < date(2024, 3, 4)])
    assert [str(d) for d, f in stored(lake, "date", "flags") if f] == ["2023-06-01"]
    late = [action("A", "2023-06-01", 2.0, kind="reduction", confirmed=True)]
    collect(spark, lake, settings, calendars, rows[-1:], late)
    assert len(stored(lake, "date")) == len(days) and not any(stored(lake, "flags"))


def test_flags_wait_for_no_bar_of_their_share_and_survive_a_kill(spark, lake, settings, calendars, monkeypatch):
    """What a run that was killed had announced already, or one that had no bar of the share, is judged by the next."""
    days = calendars["KR"].between(date(2023, 3, 2), date(2024, 3, 4))
    rows = [r for s in ("A", "B") for r in walk(s, days, [1000.0 if d < date(2023, 6, 1) else 2000.0 for d in days])]
    collect(spark, lake, settings, calendars, [r for r in rows if r["date"] < date(2024, 3, 1)])
    of_a, of_b = ([action(s, "2023-06-01", 2.0, kind="reduction", confirmed=True)] for s in ("A", "B"))

    def killed(self, name, *args, **kwargs):
        if name == "prices":
            raise KeyboardInterrupt
        return merge(self, name, *args, **kwargs)

    merge, first = Lake.merge, [r for r in rows if r["date"] == date(2024, 3, 4) and r["symbol"] == "A"]
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "merge", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(spark, lake, settings, calendars, first, of_a)
    assert lake.read("actions").count() == 1 and sum(map(bool, stored(lake, "flags"))) == 2
    other = [bar("C", "2024-03-04", 500.0)]
    collect(spark, lake, settings, calendars, other, of_a)  # announced as before: nothing about it is new
    assert [r for r in stored(lake, "symbol", "flags") if r[1]] == [("B", ["jump"])]
    collect(spark, lake, settings, calendars, first, of_b)
    assert not any(stored(lake, "flags"))
    judged_by = lake.version("prices")
    collect(spark, lake, settings, calendars, first, of_b)
    assert lake.version("prices") == judged_by, "where nothing changed there is no commit, and no mark either"


def test_a_bar_that_fills_a_gap_lets_the_stored_reference_price_speak(spark, lake, settings, calendars):
    """The bar before it comes later and from a source without reference prices."""
    collect(spark, lake, settings, calendars, [bar("R1", "2024-03-06", 510, reference=500.0)])
    assert lake.read("actions").count() == 0
    collect(spark, lake, settings, calendars, [bar("R1", "2024-03-05", 1000)], name="other")
    assert [(r["symbol"], r["factor"]) for r in lake.read("actions").collect()] == [("R1", 0.5)]


def test_a_reference_price_says_nothing_across_a_hole(spark, lake, settings, calendars):
    """Compared with an older close it would make each share's move an action."""
    rows = [bar(s, "2024-03-05", 1000) for s in ("H1", "H2")]
    rows += [bar("H1", "2024-03-07", 900, reference=905.0), bar("H2", "2024-03-07", 450, reference=452.5)]
    listed = [share("H1"), share("H1", "2024-03-06", listed_shares=1_100_000)]
    collect(spark, lake, settings, calendars, rows, symbols=listed)
    assert lake.read("actions").count() == 0
    collect(spark, lake, settings, calendars, [bar("H1", "2024-03-06", 905.0), bar("H2", "2024-03-06", 905.0)])
    assert [(r["symbol"], r["factor"]) for r in lake.read("actions").collect()] == [("H2", 0.5)]


def test_a_reference_price_is_not_compared_with_a_close_that_has_the_split_already(spark, lake, settings, calendars):
    rows = [bar("B1", "2024-03-05", 500, basis=date(2024, 3, 8)), bar("B1", "2024-03-06", 510, reference=1000.0)]
    collect(spark, lake, settings, calendars, rows)
    assert lake.read("actions").count() == 0


def test_what_a_reference_price_says_is_judged_again(spark, lake, settings, calendars):
    """The listing with the new number of shares comes a day later; a close before it is corrected."""
    rows = [bar(s, "2024-03-05", 1000) for s in ("J1", "J2", "J3")]
    rows += [bar(s, "2024-03-06", 510, reference=500.0) for s in ("J1", "J2")]
    rows += [bar("J3", "2024-03-06", 975, reference=970.0)]
    collect(spark, lake, settings, calendars, rows, symbols=[share(s, listed_shares=1000) for s in ("J1", "J2", "J3")])
    found = lake.read("actions").collect()
    assert {(r["symbol"], r["kind"], r["confirmed"]) for r in found} == {
        (s, "unknown", False) for s in ("J1", "J2", "J3")
    }
    listed = [share("J1", "2024-03-07", listed_shares=2000), share("J3", "2024-03-07", listed_shares=1003)]
    rows = [bar(s, "2024-03-07", 500, reference=510.0) for s in ("J1", "J3")] + [bar("J2", "2024-03-05", 500)]
    for _ in range(2):
        collect(spark, lake, settings, calendars, rows, symbols=listed)
        found = lake.read("actions").where("ex_date = '2024-03-06'").collect()
        # J3's share count moved by less than would explain it
        assert {(r["symbol"], r["kind"], r["confirmed"]) for r in found} == {
            ("J1", "split", True), ("J3", "unknown", False)
        }  # fmt: skip
    flags = {(s, str(d)): f for s, d, f in stored(lake, "symbol", "date", "flags") if f}
    assert ("J1", "2024-03-06") not in flags and flags["J3", "2024-03-06"] == ["unconfirmed_action"]


def test_an_announcement_that_was_called_off_counts_for_nothing(spark, lake, settings, calendars):
    off = {"confirmed": False, "evidence": "KIS: face value 5000 to 2500; no longer announced"}
    rows = [bar("C1", "2024-03-05", 1000), bar("C1", "2024-03-06", 1001, reference=1000.0)]
    rows += [bar("C2", "2024-03-05", 1000), bar("C2", "2024-03-06", 505, reference=500.0)]
    listed = [share("C2", listed_shares=1000), share("C2", "2024-03-06", listed_shares=2000)]
    told = [action(s, "2024-03-06", 0.4, **off) for s in ("C1", "C2")]
    collect(spark, lake, settings, calendars, rows, told, symbols=listed)
    assert not any(stored(lake, "flags")), "C2's split happened all the same"
    found = lake.read("actions").where("confirmed").collect()
    assert [(r["symbol"], r["kind"], r["factor"]) for r in found] == [("C2", "split", 0.5)]


def test_a_flag_stays_when_the_bar_before_is_out_of_sight(spark, lake, settings, calendars):
    """A run looks at the bars of some weeks: the first of them cannot be judged by it."""
    days = calendars["KR"].between(date(2024, 2, 28), date(2024, 5, 3))
    closes = [1000.0 if day < date(2024, 3, 4) else 2000.0 for day in days]
    collect(spark, lake, settings, calendars, walk("F1", days[:-1], closes[:-1]))
    before = {d: f for d, f in stored(lake, "date", "flags") if f}
    assert before == {date(2024, 3, 4): ["jump"]}
    assert (days[-1] - date(2024, 3, 4)).days == 60
    collect(spark, lake, settings, calendars, walk("F1", days[-1:], closes[-1:]))
    assert {d: f for d, f in stored(lake, "date", "flags") if f} == before


def test_a_correction_takes_nothing_back_that_it_does_not_have(spark, lake, settings, calendars):
    first = bar("V1", "2024-03-05", 1000, value=5e6, reference=990.0, market="KOSDAQ", provisional=True)
    collect(spark, lake, settings, calendars, [first])
    source = ListSource([bar("V1", "2024-03-05", 1010)], name="other")
    source.todays_market = True  # the share has moved since
    collect_prices(spark, lake, source, Request(), settings, calendars)
    assert stored(lake, "close", "value", "reference", "market", "provisional") == [
        (1010.0, 5e6, 990.0, "KOSDAQ", False)
    ]
    assert collect_prices(spark, lake, source, Request(), settings, calendars).rows_out == 0


def report(lake):
    return quality_report(lake.read("prices"), lake.read("actions"), lake.read("symbols"), LIMITS).collect()


def test_the_report_gives_a_cause_only_on_evidence(spark, lake, settings, calendars):
    symbols = [share("Q1", listed_shares=1000), share("Q1", "2024-03-06", listed_shares=100), share("Q2"), share("Q3")]
    for symbol, now in (("Q4", 1100), ("Q5", 5000)):
        symbols += [share(symbol, listed_shares=1000), share(symbol, "2024-03-06", listed_shares=now)]
    rows = [
        bar("Q1", "2024-03-05", 100),
        bar("Q1", "2024-03-06", 1050),
        bar("Q2", "2024-03-05", 100),
        bar("Q2", "2024-03-06", 1000),
        bar("Q3", "2024-03-05", 100),
        bar("Q3", "2024-03-06", 400),
        bar("Q4", "2024-03-05", 100),
        bar("Q4", "2024-03-06", 65),
        bar("Q5", "2024-03-05", 100),
        bar("Q5", "2024-03-06", 24),
    ]
    collect(
        spark,
        lake,
        settings,
        calendars,
        rows,
        [action("Q3", "2024-03-06", 4.0, "reduction", applied_by_source=True)],
        symbols,
    )
    causes = {r["symbol"]: r["likely_cause"] for r in report(lake) if r["check"] == "jump"}
    assert causes["Q2"] == "unknown"
    assert causes["Q4"] == "unknown", "ten in a hundred new shares make no -35 %"
    assert causes["Q5"].startswith("listed shares × 5.0"), "with a day's move on top"
    assert causes["Q1"].startswith("listed shares × 0.1") and "reduction" in causes["Q1"]
    assert causes["Q3"].startswith("corporate action: reduction × 4.0") and "applied by the source" in causes["Q3"]


def test_a_first_traded_bar_whose_reference_nobody_explains_is_reported(spark, lake, settings, calendars, tmp_path):
    still = {"open": 0.0, "high": 0.0, "low": 0.0, "volume": 0.0}
    rows = [
        bar("A1", "2024-03-05", 1000, **still),
        bar("A1", "2024-03-06", 4050, open=4000, high=4100, low=3900, reference=4000),
    ]
    collect(spark, lake, settings, calendars, rows, [], [])
    outcome = check_quality(spark, lake, settings, tmp_path / "quality.csv", None, None)
    assert any("A1 2024-03-06: 4050, cause" in line for line in outcome.lines), outcome.lines


@pytest.mark.parametrize("bad", [0.0, -5.0, float("nan"), float("inf")])
def test_a_reference_that_is_no_price_makes_no_action(spark, lake, settings, calendars, bad):
    rows = [bar("A1", "2024-03-05", 1000), bar("A1", "2024-03-06", 1010, reference=bad, value=-1.0)]
    collect(spark, lake, settings, calendars, rows, [], [])
    stored = lake.read("prices").where("date = DATE'2024-03-06'").collect()[0]
    assert stored["reference"] is stored["value"] is None and lake.read("actions").isEmpty()


def test_two_jobs_that_bring_the_same_session_store_it_once(spark, lake):
    """Each sees that the session is not there; without a lock both would append it."""
    put(lake, "indices", [{"index": "KOSPI", "date": date(2024, 3, 5), "close": 2600.0, "source": "t"}])
    new = lake.read("indices").withColumn("date", F.date_add("date", 1)).localCheckpoint()
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(lambda _: Lake(spark, lake.root).merge("indices", new).inserted, range(3)))
    assert sorted(written) == [0, 0, 1] and lake.read("indices").count() == 2


def test_a_mark_is_set_while_others_merge(spark, lake):
    """It changes the table's metadata, which fails a merge that began before; so each waits for the other."""
    put(lake, "indices", [{"index": "KOSPI", "date": date(2024, 3, 5), "close": 2600.0, "source": "t"}])
    rows = [lake.read("indices").withColumn("close", F.lit(2700.0 + n)).localCheckpoint() for n in range(3)]
    with ThreadPoolExecutor(1) as pool:
        merging = pool.submit(lambda: [Lake(spark, lake.root).merge("indices", row).updated for row in rows])
        for n in itertools.count():
            lake.set_mark("indices", str(n))
            if merging.done():
                break
    assert merging.result() == [1, 1, 1] and lake.mark("indices") == str(n)


def test_coverage_counts_against_the_shares_known_that_day(spark, lake, settings, calendars):
    symbols = [
        share("K1"),
        share("K2"),
        share("K3"),
        share("K4", "2024-03-06"),
        share("K1", "2024-03-06", active=False),
    ]
    rows = [bar("K1", "2024-03-05"), bar("K2", "2024-03-05"), bar("K3", "2024-03-05"), bar("K2", "2024-03-06")]
    outcome = collect(spark, lake, settings, calendars, rows, symbols=symbols)
    assert outcome.details["coverage"] == {"KOSPI": pytest.approx(1 / 3, abs=1e-4)}
    assert outcome.details["sessions_below_coverage"] == {"KOSPI": 1}
    # Bars of shares that nobody knows, or that have left, make up for none that is missing.
    strangers = [bar(symbol, "2024-03-06") for symbol in ("X1", "X2", "K1")]
    outcome = collect(spark, lake, settings, calendars, strangers, symbols=symbols)
    assert outcome.details["coverage"] == {"KOSPI": pytest.approx(1 / 3, abs=1e-4)}


def test_a_session_without_any_bar_is_below_coverage(spark, lake, settings, calendars):
    rows = [bar("A1", "2024-03-04", 1000), bar("A1", "2024-03-06", 1000)]
    outcome = collect(spark, lake, settings, calendars, rows, [], [share("A1")])
    assert outcome.details["coverage"] == {"KOSPI": 1.0}
    assert outcome.details["sessions_below_coverage"] == {"KOSPI": 1}
    assert any("on 1 sessions from 2024-03-05 to 2024-03-05" in line for line in outcome.lines)


def test_a_session_that_no_run_collected_is_told_and_computed_over_only_with_a_word(
    spark, lake, settings, calendars, registry
):
    """A night without a run: no later one asks for it by itself where files are collected."""
    before = [bar("A1", day, 1000) for day in ("2024-03-04", "2024-03-05")]
    outcome = collect(spark, lake, settings, calendars, before, [], [share("A1")])
    assert outcome.details["sessions_without_bars"] == {}
    outcome = collect(spark, lake, settings, calendars, [bar("A1", "2024-03-07", 1000)])
    assert outcome.details["sessions_without_bars"] == {"KR": [date(2024, 3, 6)]}
    computed = compute_indicators(spark, lake, registry, calendars)
    told = [line for line in computed.lines if "2024-03-06" in line]
    assert computed.details["sessions_without_bars"] == {"KR": [date(2024, 3, 6)]} and "reaches over the gap" in told[0]
    collect(spark, lake, settings, calendars, [bar("A1", "2024-06-28", 1000)])
    newest = {"KR": date(2024, 6, 28)}
    assert len(gaps(lake.arrow, calendars, newest)["KR"]) == 19, "the last bar before lies further back than is looked"
    assert gaps(LakeReader(lake.root), calendars, {"KR": date(2024, 3, 5)}) == {}


def test_symbols_keep_a_row_for_each_change(spark, lake, settings, calendars):
    def run(rows, whole=False, today=None):
        today = today or days(2025, 1, 2)
        return collect_symbols(spark, lake, ListSource(symbols=rows, whole_listing=whole), Request(), today)

    run([share("M1"), share("M2")])
    assert run([share("M1"), share("M2")]).rows_out == 0
    assert run([share("M1", "2024-05-02", market="KOSDAQ"), share("M2", "2024-05-02")]).rows_out == 1
    assert run([share("M1", "2024-06-03", market="KOSDAQ")], whole=True, today=days(2024, 6, 3)).rows_out == 0
    assert run([share("M2", "2024-06-03")], whole=True, today=days(2024, 6, 4)).rows_out == 0  # KOSDAQ was not asked
    run([share("M3", "2024-06-03")], whole=True, today=days(2024, 6, 4))
    rows = lake.read("symbols").orderBy("symbol", "valid_from").collect()
    assert [(r["symbol"], str(r["valid_from"]), r["market"], r["active"]) for r in rows] == [
        ("M1", "2020-01-02", "KOSPI", True),
        ("M1", "2024-05-02", "KOSDAQ", True),
        ("M2", "2020-01-02", "KOSPI", True),
        ("M2", "2024-06-04", "KOSPI", False),
        ("M3", "2024-06-03", "KOSPI", True),
    ]


def test_a_listing_holds_from_the_day_it_is_where_the_share_trades(spark, lake):
    """In the evening of New York it is the next day in Seoul already."""
    today = {"KR": date(2026, 11, 6), "US": date(2026, 11, 5)}
    rows = [share(s, market=m, country=c) | {"valid_from": None} for s, m, c in LISTED]
    for listed in (rows, [rows[0], rows[2]]):
        collect_symbols(spark, lake, ListSource(symbols=listed, whole_listing=True), Request(), today)
        today = {c: day.replace(day=day.day + 1) for c, day in today.items()}
    found = {(r["symbol"], str(r["valid_from"]), r["active"]) for r in lake.read("symbols").collect()}
    assert found == {
        ("L1", "2026-11-06", True), ("L2", "2026-11-06", True), ("L2", "2026-11-07", False),
        ("U1", "2026-11-05", True), ("U2", "2026-11-05", True), ("U2", "2026-11-06", False),
    }  # fmt: skip


def test_a_share_that_falls_below_the_floor_stays_until_it_leaves_the_exchange(spark, lake):
    def run(day, **caps):
        source = ListSource(symbols=[share(s, f"2024-03-{day:02}", market_cap=c) for s, c in caps.items()])
        source.whole_listing = source.partial = True
        source.floor = 1e8
        collect_symbols(spark, lake, source, Request(), days(2024, 3, day))
        rows = lake.read("symbols").orderBy("valid_from").collect()
        return {r["symbol"]: (r["market_cap"], r["active"]) for r in rows}

    assert run(4, N1=2e8, N2=2e8, N3=5e7, N4=None) == {"N1": (2e8, True), "N2": (2e8, True)}
    fell = run(5, N1=9e7, N2=None, N3=5e7, N4=None)
    assert fell == {"N1": (9e7, True), "N2": (2e8, True)}
    assert run(6, N2=2e8, N3=3e8) == {"N1": (9e7, False), "N2": (2e8, True), "N3": (3e8, True)}
    assert run(7, N1=9e7, N2=2e8, N3=3e8)["N1"] == (9e7, False)  # it would come back as any other share


def test_a_batch_of_many_sessions_is_laid_out_by_date(spark, lake, settings, calendars):
    days = calendars["KR"].between(date(2023, 1, 2), date(2024, 12, 30))
    collect(spark, lake, settings, calendars, [r for s in ("W1", "W2") for r in walk(s, days, [1000.0] * len(days))])
    assert lake.read("prices").where(F.col("date") == date(2024, 3, 4)).count() == 2


def test_a_table_that_an_earlier_version_made_gets_the_columns_that_it_lacks(spark, lake):
    put(lake, "indices", [{"index": "KOSPI", "date": date(2024, 3, 5), "close": 2600.0, "source": "t"}])
    old = lake.read("indices").drop("volume")
    path = f"{lake.path('indices')}-old"
    old.write.format("delta").option("delta.enableChangeDataFeed", "true").save(path)
    shutil.rmtree(lake.path("indices"))
    shutil.move(path, lake.path("indices"))
    again = Lake(spark, lake.root)
    new = {"index": "KOSPI", "date": date(2024, 3, 6), "close": 2610.0, "volume": 5.0, "source": "t"}
    put(again, "indices", [new])
    assert again.merge("indices", again.read("indices").where("volume = 5")).changed == 0
    rows = again.read("indices").orderBy("date").collect()
    assert [(row["close"], row["volume"]) for row in rows] == [(2600.0, None), (2610.0, 5.0)]
