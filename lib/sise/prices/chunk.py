"""Answers that wait in the ledger, as a source for collect_prices, judged against what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sise.lake import Lake
from sise.prices.overlap import Verdict, judge_answer
from sise.prices.withdrawn import withdrawn
from sise.sources.asks import BAR_SCHEMA, Vendor
from sise.sources.base import ACTIONS, BARS, INDICES, Request, shape_of
from sise.sources.kis_actions import SAID_BY
from sise.sources.ledger import Kept

__all__ = ["Chunk", "chunk_of"]


@dataclass
class Chunk:
    """``again``: shares whose whole history has to be asked for; ``doubted``: by share, why its answer was not taken;
    ``noted``: by share, what a person should know."""

    name: str
    table: pa.Table
    action_rows: list[dict[str, Any]]
    index_rows: list[dict[str, Any]]
    again: list[str] = field(default_factory=list)
    doubted: dict[str, str] = field(default_factory=dict)
    noted: dict[str, str] = field(default_factory=dict)
    whole_listing: bool = False
    todays_market: bool = False

    def bars(self, spark: SparkSession, request: Request) -> DataFrame:
        # by way of pandas an integer column with nulls would become floats: from Arrow it stays what it is
        return spark.createDataFrame(self.table, BARS)  # type: ignore[arg-type]

    def symbols(self, spark: SparkSession, request: Request) -> DataFrame:
        raise NotImplementedError("listings do not come by way of the ledger")

    def actions(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame(self.action_rows, ACTIONS)

    def indices(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame(self.index_rows, INDICES)


def chunk_of(lake: Lake, vendor: Vendor, kept: Sequence[Kept]) -> Chunk:
    """The answers as one source. Those of a vendor that rewrites its history (``rebased``) are compared with the stored
    one, whoever it is from; a bar of one that is asked share by share came with today's market, and gets the one of its
    own day."""
    table, todays_market = _latest(kept), vendor.by != "market-day"
    if todays_market:
        table = _dated_markets(lake, table)
    actions = _last({(a["country"], a["symbol"], a["ex_date"], a["kind"]): a for k in kept for a in k.actions})
    indices = _last({(i["index"], i["date"]): i for k in kept for i in k.indices})
    chunk = Chunk(vendor.name, table, actions, indices, todays_market=todays_market)
    gone = _withdrawn(lake, chunk, kept)
    _keep_factors(lake, chunk)
    chunk.action_rows += gone
    if vendor.rebased and table.num_rows:
        _judge(lake, chunk, kept)
    return chunk


def _withdrawn(lake: Lake, chunk: Chunk, kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """What the source had announced and no longer does, unconfirmed."""
    asks = [k.ask for k in kept if k.ask.kind.startswith("actions ")]
    if not asks:
        return []
    known = lake.read("actions").where((F.col("source") == chunk.name) & F.col("confirmed"))
    rows = known.where(F.col("evidence").startswith(SAID_BY)).select(*shape_of(ACTIONS).names).collect()
    found = withdrawn([row.asDict() for row in rows], chunk.action_rows, asks)
    for action in found:
        key = f"{action['country']}:{action['symbol']}"
        chunk.noted[key] = f"{action['kind']} of {action['ex_date']} no longer announced: not believed"
    return found


def _keep_factors(lake: Lake, chunk: Chunk) -> None:
    """An announcement without a factor takes back none that the reference price has given since."""
    open_ones = [a for a in chunk.action_rows if a["factor"] is None and a["kind"] != "dividend"]
    if not open_ones:
        return
    known = lake.read("actions").where("factor IS NOT NULL").select("country", "symbol", "ex_date", "kind").collect()
    settled = {tuple(row) for row in known}
    chunk.action_rows = [
        a
        for a in chunk.action_rows
        if a["factor"] is not None or (a["country"], a["symbol"], a["ex_date"], a["kind"]) not in settled
    ]


def _last(rows: Mapping[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    return list(rows.values())


def _latest(kept: Sequence[Kept]) -> pa.Table:
    """All bars; of a share's session that several answers have, those of the last one (its own doubles stay: the
    door refuses what differs)."""
    parts = [
        k.bars.append_column("_answer", pa.array([n] * k.bars.num_rows, pa.int32()))
        for n, k in enumerate(kept)
        if k.bars.num_rows
    ]
    if not parts:
        return BAR_SCHEMA.empty_table()
    table = pa.concat_tables(parts)
    key = ["country", "symbol", "date"]
    newest = table.group_by(key).aggregate([("_answer", "max")])
    if newest.num_rows != table.num_rows:
        frame = table.select([*key, "_answer"]).to_pandas()
        table = table.filter(
            pa.array((frame["_answer"] == frame.groupby(key, dropna=False)["_answer"].transform("max")).to_numpy())
        )
    return table.drop_columns(["_answer"])


def _dated_markets(lake: Lake, table: pa.Table) -> pa.Table:
    """The market of each bar as its share's listing was on the day; before the first listing, that one's."""
    rows = (
        lake.read("symbols")
        .groupBy("country", "symbol")
        .agg(
            F.count_distinct("market").alias("n"),
            F.sort_array(F.collect_list(F.struct("valid_from", "market"))).alias("at"),
        )
    )
    if not (moved := {(r["country"], r["symbol"]): r["at"] for r in rows.where("n > 1").collect()}):
        return table
    markets = table["market"].to_pylist()
    for n, share in enumerate(zip(table["country"].to_pylist(), table["symbol"].to_pylist(), strict=True)):
        if listings := moved.get(share):
            day = table["date"][n].as_py()
            then = [row["market"] for row in listings if day is None or row["valid_from"] <= day]
            markets[n] = then[-1] if then else listings[0]["market"]
    at = table.schema.get_field_index("market")
    return table.set_column(at, BAR_SCHEMA.field("market"), pa.array(markets, BAR_SCHEMA.field("market").type))


def _judge(lake: Lake, chunk: Chunk, kept: Sequence[Kept]) -> None:
    low, high = pc.min(chunk.table["date"]).as_py(), pc.max(chunk.table["date"]).as_py()
    shares = chunk.table.select(["country", "symbol"]).group_by(["country", "symbol"]).aggregate([])
    wanted = F.broadcast(lake.spark.createDataFrame(shares, "country string, symbol string"))
    on = ["country", "symbol"]
    columns = [*on, "date", "close", "volume", "basis", "provisional"]
    prices = lake.read("prices").join(wanted, on=on, how="left_semi")
    prices = prices.withColumn("foreign", F.col("source") != chunk.name)
    first = {
        (r["country"], r["symbol"]): r["first"] for r in prices.groupBy(*on).agg(F.min("date").alias("first")).collect()
    }
    stored = _by_share(prices.where(F.col("date").between(low, high)).select(*columns, "foreign").toArrow())
    known = _by_share(lake.read("actions").join(wanted, on=on, how="left_semi").toArrow())
    given = _grouped(chunk.action_rows)
    asked_from: dict[tuple[str, str | None], date] = {}
    for ask in (k.ask for k in kept if k.ask.kind == "bars"):
        asked_from[ask.country, ask.symbol] = min(ask.first, asked_from.get((ask.country, ask.symbol), ask.first))
    verdicts: dict[tuple[str, str], Verdict] = {}
    for share, bars in _by_share(chunk.table.select(columns)).items():
        old = stored.get(share, [])
        if old and first[share] < min(
            bar["date"] for bar in old
        ):  # what else is stored, for whether the answer is whole
            old = [{**old[0], "date": first[share], "volume": 0}, *old]
        verdicts[share] = judge_answer(old, bars, given.get(share, []), known.get(share, []), asked_from.get(share))
    others = [a for a in chunk.action_rows if (a["country"], a["symbol"]) not in verdicts]
    chunk.action_rows = [*others, *[a for v in verdicts.values() if not v.whole for a in v.actions]]
    for (country, symbol), verdict in verdicts.items():
        _note(chunk, country, symbol, verdict, high)
    _correct(chunk, verdicts)


def _note(chunk: Chunk, country: str, symbol: str, verdict: Verdict, day: date) -> None:
    key = f"{country}:{symbol}"
    if verdict.notes:
        chunk.noted[key] = "; ".join(verdict.notes)
    if verdict.refuse_all:
        chunk.doubted[key] = verdict.refuse_all
    if verdict.whole:
        chunk.again.append(key)
    if verdict.rewritten is not None and not verdict.whole:
        action = {
            "country": country,
            "symbol": symbol,
            "ex_date": day,
            "kind": "unknown",
            "factor": verdict.rewritten,
            "amount": None,
            "applied_by_source": True,
            "confirmed": False,
            "evidence": f"{chunk.name}: {chunk.noted[key]}; its whole history is stored anew",
        }
        # between the bars of the old history and those of the new one nothing may be compared
        chunk.action_rows += [action | {"ex_date": at} for at in sorted({day, verdict.seam or day})]


def _correct(chunk: Chunk, verdicts: Mapping[tuple[str, str], Verdict]) -> None:
    """Basis and refusals as the verdicts say."""
    touched = {s: v for s, v in verdicts.items() if v.basis or v.refused or v.refuse_all}
    if not touched:
        return
    columns = {name: chunk.table[name].to_pylist() for name in ("country", "symbol", "date", "basis", "problem")}
    asked_anew = [False] * chunk.table.num_rows  # their whole history comes with the next answer
    for n, share in enumerate(zip(columns["country"], columns["symbol"], strict=True)):
        if (verdict := touched.get(share)) is None:
            continue
        day = columns["date"][n]
        columns["basis"][n] = max(day, verdict.basis[day]) if day in verdict.basis else columns["basis"][n]
        columns["problem"][n] = columns["problem"][n] or verdict.refuse_all or verdict.refused.get(day)
        asked_anew[n] = verdict.whole
    table = chunk.table
    for name in ("basis", "problem"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, BAR_SCHEMA.field(name), pa.array(columns[name], BAR_SCHEMA.field(name).type))
    chunk.table = table.filter(pc.invert(pa.array(asked_anew, pa.bool_())))


def _by_share(table: pa.Table) -> dict[tuple[str, str], list[dict[str, Any]]]:
    return _grouped(table.to_pylist())


def _grouped(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["country"], row["symbol"]), []).append(row)
    return found
