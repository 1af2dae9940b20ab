"""The viewer's copy by share says what the table says, whatever happens to the table."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sise.dashboard.data.byshare import ByShare
from sise.dashboard.data.view import LakeView
from sise.settings import Settings

SYMBOLS = [f"{n:06d}" for n in range(40)]


def rows(first: int, days: int, close: float = 1.0, symbols: list[str] = SYMBOLS) -> pa.Table:
    found = [(s, date(2025, 1, 1) + timedelta(days=first + d), close + d) for d in range(days) for s in symbols]
    return pa.table(
        {
            "country": pa.array(["KR"] * len(found)),
            "symbol": pa.array([f[0] for f in found]),
            "date": pa.array([f[1] for f in found], pa.date32()),
            "close": pa.array([f[2] for f in found]),
            "big": pa.array(["x" * 100] * len(found)),
        }
    )


@pytest.fixture
def made(tmp_path) -> tuple[str, LakeView, ByShare]:
    path = str(tmp_path / "lake" / "prices")
    write_deltalake(path, rows(0, 20))
    view = LakeView(Settings(lake=str(tmp_path / "lake"), local=tmp_path / "local"), fresh=0.0)
    return path, view, ByShare(view, "prices", tmp_path / "copy", skip=("big",), floor=100)


def of(table: pa.Table) -> list[tuple]:
    assert set(table.column_names) == {"country", "symbol", "date", "close"}
    return sorted((r["symbol"], r["date"], r["close"]) for r in table.to_pylist())


def truth(path: str, symbol: str) -> list[tuple]:
    table = DeltaTable(path).to_pyarrow_table(filters=[("symbol", "=", symbol)])
    return sorted((r["symbol"], r["date"], r["close"]) for r in table.to_pylist())


def copies(by: ByShare) -> list[Path]:
    return sorted(by.folder.glob("*.parquet"))


def test_before_and_after_the_copy_is_made(made):
    path, _, by = made
    assert of(by.rows("KR", "000007")) == truth(path, "000007") and len(truth(path, "000007")) == 20
    by.wait()
    assert len(copies(by)) == 1
    assert of(by.rows("KR", "000007")) == truth(path, "000007")
    assert by.rows("US", "000007").num_rows == by.rows("KR", "999999").num_rows == 0


def test_few_new_rows_are_read_beside_it_and_many_make_another(made):
    path, _, by = made
    by.build()
    first = copies(by)
    write_deltalake(path, rows(20, 1), mode="append")
    assert of(by.rows("KR", "000003")) == truth(path, "000003") and len(truth(path, "000003")) == 21
    by.wait()
    assert copies(by) == first, "forty new rows are not worth a copy"
    write_deltalake(path, rows(21, 9), mode="append")
    assert of(by.rows("KR", "000003")) == truth(path, "000003")
    by.wait()
    assert len(copies(by)) == 1 and copies(by) != first
    assert of(by.rows("KR", "000003")) == truth(path, "000003")


def test_rows_of_files_that_are_gone_are_gone(made):
    path, _, by = made
    by.build()
    mended = rows(0, 20, close=99.0, symbols=["000006"])
    write_deltalake(path, mended, mode="overwrite", predicate="symbol = '000006'")
    assert of(by.rows("KR", "000006")) == truth(path, "000006")
    assert min(close for _, _, close in of(by.rows("KR", "000006"))) == 99.0
    assert of(by.rows("KR", "000005")) == truth(path, "000005") and len(truth(path, "000005")) == 20
    by.wait()
    assert of(by.rows("KR", "000006")) == truth(path, "000006")


def test_another_process_finds_the_copy_and_a_broken_one_costs_only_time(made):
    path, view, by = made
    by.build()
    other = ByShare(view, "prices", by.folder, skip=("big",), floor=100)
    assert of(other.rows("KR", "000001")) == truth(path, "000001") and other._builder is None
    for broken in ("{", '{"table": "elsewhere", "columns": [], "path": "x", "files": []}'):
        (by.folder / "prices.json").write_text(broken)
        fresh = ByShare(view, "prices", by.folder, skip=("big",), floor=10**9)
        assert of(fresh.rows("KR", "000001")) == truth(path, "000001")
    by.build()
    copies(by)[0].unlink()
    fresh = ByShare(view, "prices", by.folder, skip=("big",), floor=10**9)
    assert of(fresh.rows("KR", "000001")) == truth(path, "000001")


def test_a_table_made_anew_is_not_mixed_with_the_old_one(made):
    path, _, by = made
    by.build()
    write_deltalake(path, rows(0, 3, close=500.0), mode="overwrite")
    assert of(by.rows("KR", "000002")) == truth(path, "000002") and len(truth(path, "000002")) == 3
