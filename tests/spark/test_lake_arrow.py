"""The lake as Arrow: what deltalake reads and writes here, and Spark elsewhere, is the same."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sise.indicators import compute
from sise.indicators.compute import compute_indicators
from sise.indicators.progress import Span
from sise.indicators.rolling import BAR_COLUMNS
from sise.indicators.tails import read_bars
from sise.lake_arrow import ArrowDoor
from sise.prices.adjust import adjusted_prices
from tests.builders import action, bar, put
from tests.spark.test_compute import assert_same, full_copy, load, market, table

COLUMNS = ("country", "symbol", "date", "close", "basis")
D = [date(2024, 3, day) for day in (4, 5, 6, 7)]


def merge(lake, *rows, deletes=()):
    """As the collecting job merges bars."""
    schema = lake.schema("prices")

    def frame(rows):
        whole = [{**{f: r.get(f) for f in schema.names}, "volume": 100, "flags": [], "source": "t"} for r in rows]
        return lake.spark.createDataFrame(whole, schema)

    return lake.merge("prices", frame(rows), deletes=frame(deletes) if deletes else None)


def told(lake, since, columns=COLUMNS):
    return sorted(map(str, lake.arrow.changes("prices", since, lake.version("prices"), columns).to_pylist()))


def test_changes_are_what_spark_tells_but_for_rows_that_only_moved(lake):
    merge(lake, bar("A", D[0]), bar("A", D[1]), bar("B", D[1]))
    steps = [
        ([bar("A", D[2])], ()),
        ([bar("A", D[1], 1001.0)], ()),
        ([bar("A", D[2], 1002.0), bar("A", D[3])], ()),
        ([bar("C", D[1]), bar("B", D[1], 7.0)], [bar("A", D[0])]),  # rewrites the files of all three
    ]
    for rows, deletes in steps:
        before = lake.version("prices")
        merge(lake, *rows, deletes=deletes)
        expected = lake.changes("prices", before, lake.version("prices")).select(*COLUMNS).toArrow().to_pylist()
        assert told(lake, before) == sorted(map(str, expected)) and expected
    before = lake.version("prices")
    lake.spark.sql(f"OPTIMIZE delta.`{lake.path('prices')}`")
    assert lake.version("prices") > before and told(lake, before) == []
    # a change of what nobody looks at is none
    merge(lake, bar("C", D[1], value=5.0))
    assert told(lake, before) == [] and len(told(lake, before, (*COLUMNS, "value"))) == 2
    assert told(lake, lake.version("prices")) == []


@pytest.mark.parametrize("here", [True, False])
def test_reading_and_replacing_by_either_way(spark, lake, here):
    lake.arrow = ArrowDoor(lake, here)
    assert lake.arrow.rows("prices", COLUMNS).num_rows == 0, "a table that is not there has no rows"
    merge(lake, bar("A", D[0]), bar("A", D[1], 20.0, reference=19.0), bar("B", D[1]))
    first = lake.version("prices")
    merge(lake, bar("B", D[2]))
    rows = lake.arrow.rows("prices", COLUMNS, [("date", ">=", D[1]), ("symbol", "in", ["A", "B"])])
    found = sorted((r["symbol"], r["date"], r["close"]) for r in rows.to_pylist())
    assert found == [("A", D[1], 20.0), ("B", D[1], 1000.0), ("B", D[2], 1000.0)]
    assert lake.arrow.rows("prices", COLUMNS, version=first).num_rows == lake.arrow.count(
        "prices", [("date", "<", D[2])]
    )
    assert lake.arrow.rows("prices", COLUMNS, [("reference", "known", None)]).to_pylist()[0]["close"] == 20.0
    assert lake.arrow.count("prices") == 4 and lake.arrow.columns("prices") == lake.schema("prices").names

    state = pa.table({"symbol": ["A", "B"], "country": ["KR", "KR"], "bars": [3, 4], "date": [D[0], D[1]]})
    for note in ("one", "two"):
        lake.arrow.replace("indicator_state", state, note=note)
        assert lake.note("indicator_state") == note
    kept = lake.read("indicator_state").orderBy("symbol").collect()
    assert [(r["symbol"], r["bars"], r["date"], r["ema_12"]) for r in kept] == [
        ("A", 3, D[0], None), ("B", 4, D[1], None)
    ]  # fmt: skip
    with pytest.raises(
        Exception, match=r"(?i)bars_positive|failed validation check"
    ):  # a CHECK constraint holds by either way
        lake.arrow.replace("indicator_state", state.set_column(2, "bars", pa.array([0, 1])))
    assert lake.read("indicator_state").count() == 2


def test_a_folder_without_hard_links_is_written_by_spark(lake, monkeypatch):
    def link(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr("sise.lake_arrow.os.link", link)
    lake.arrow.append("runs", pa.table({"run_id": ["a"], "job": ["j"], "status": ["ok"]}))
    assert lake.arrow.count("runs") == 1 and not list(Path(lake.root).glob(".links*"))
    assert lake.commits("runs", 1)[0]["engineInfo"].startswith("Apache-Spark")


def test_what_is_wrong_with_the_feed_and_is_not_its_age_is_told(lake, monkeypatch):
    merge(lake, bar("A", D[0]))

    def broken(*_, **__):
        raise PermissionError("_change_data")

    monkeypatch.setattr("sise.lake_arrow.DeltaTable.load_cdf", broken)
    with pytest.raises(PermissionError):
        lake.arrow.changes("prices", 0, lake.version("prices"), COLUMNS)


def test_merging_arrow_rows_inserts_updates_and_deletes(lake, registry):
    def rows(*closes):
        return pa.table(
            {
                "country": ["KR"] * len(closes), "symbol": [s for s, _ in closes], "date": [D[1]] * len(closes),
                "market": ["KOSPI"] * len(closes), "close": [c for _, c in closes], "volume": [1.0] * len(closes),
            }
        )  # fmt: skip

    assert lake.merge("indicators", rows(("A", 1.0), ("B", 2.0))).inserted == 2
    gone = rows(("A", 1.0)).select(["country", "symbol", "date"])
    written = lake.merge("indicators", rows(("B", 3.0), ("C", 4.0)), deletes=gone)
    assert (written.inserted, written.updated, written.deleted) == (1, 1, 1)
    assert lake.merge("indicators", rows(("B", 3.0), ("C", 4.0))).changed == 0
    assert {(r["symbol"], r["close"]) for r in lake.read("indicators").collect()} == {("B", 3.0), ("C", 4.0)}


def test_bars_are_adjusted_as_spark_adjusts_them(spark, lake, registry, calendars, days):
    """Splits before and after a bar's basis, told by the source, unconfirmed, a dividend, one that is not due yet."""
    rows = market(days, 60)
    for n, row in enumerate(rows):
        row["basis"] = days[min(len(days) - 1, days.index(row["date"]) + (n % 3) * 20)]
    load(lake, rows)
    acts = [
        action("A1", str(days[20]), 0.5), action("A1", str(days[40]), 2.0), action("A2", str(days[30]), 0.1),
        action("P1", str(days[25]), 0.2, applied_by_source=False), action("P1", str(days[26]), 0.3, kind="bonus"),
        action("A2", str(days[31]), 3.0, confirmed=False), action("A2", str(days[32]), 0.9, kind="dividend"),
        action("A1", str(days[70]), 0.7), action("P1", str(days[45]), 0.25, applied_by_source=True),
    ]  # fmt: skip
    put(lake, "actions", acts)
    span = Span({"KR": days[59]}, {"KR": days[59]})
    expected = adjusted_prices(lake.read("prices"), lake.read("actions"), span.adjusted_to).select(*BAR_COLUMNS)
    expected = expected.orderBy("symbol", "date").toPandas()
    shares = pd.DataFrame({"country": "KR", "symbol": ["A1", "A2", "P1"], "tail_from": pd.NaT})
    shares["tail_from"] = pd.to_datetime(pd.Series([None, days[10], None]))
    actions = lake.arrow.rows("actions").to_pandas(date_as_object=False)
    found = read_bars(lake, lake.version("prices"), actions, shares, registry, calendars, span)
    expected = expected[~((expected["symbol"] == "A2") & (expected["date"] < days[10]))]
    assert shares["symbol"].to_numpy()[found.share].tolist() == expected["symbol"].tolist()
    assert found.day.astype("datetime64[D]").tolist() == expected["date"].tolist()
    for name, values in found.prices.items():
        np.testing.assert_array_equal(values, expected[name].to_numpy(float), err_msg=name)


def test_a_day_without_deltalake_and_a_day_that_spark_computes(
    spark,
    lake,
    registry,
    calendars,
    days,
    tmp_path,
    monkeypatch,
):
    """As on an object store; and with more new bars, or more shares that start over, than are computed here."""
    acts = [action("A1", str(days[100]), 0.5)]
    load(lake, [r for r in market(days, 100) if r["symbol"] in ("A1", "A2")], acts)
    compute_indicators(spark, lake, registry, calendars)

    def day(n, few_bars, few_shares, here):
        load(lake, [r for r in market(days, n) if r["symbol"] in ("A1", "A2") and r["date"] == days[n - 1]])
        monkeypatch.setattr(compute, "_FEW_BARS", few_bars)
        monkeypatch.setattr(compute, "_FEW_SHARES", few_shares)
        lake._on_this_machine, lake.arrow = here, ArrowDoor(lake, here)
        outcome = compute_indicators(spark, lake, registry, calendars)
        assert outcome.details["mode"] == "day"
        return outcome.details["continued"], outcome.details["from_first_bar"]

    assert day(101, 10, 5, False) == (1, 1)  # A1's split falls due
    assert day(102, 1, 5, True) == (2, 0)  # two new bars: all by Spark
    late = [r | {"close": r["close"] * 1.01} for r in market(days, 41) if r["date"] == days[40] and r["symbol"] == "A2"]
    load(lake, late)
    assert day(103, 10, 0, True) == (1, 1)  # A2 starts over by Spark, A1 goes on here
    assert day(104, 10, 5, True) == (2, 0)
    lake._on_this_machine, lake.arrow = True, ArrowDoor(lake, True)
    load(lake, [r for r in market(days, 105) if r["symbol"] in ("A1", "A2") and r["date"] == days[104]])
    monkeypatch.setattr(compute, "_MOST_CHANGES", 1)
    outcome = compute_indicators(spark, lake, registry, calendars)
    assert outcome.details["mode"] == "full" and "more than 1 bars changed" in outcome.lines[0]
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))
