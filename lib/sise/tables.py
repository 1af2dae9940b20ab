"""Every Delta table of the lake, declared once: columns, key, layout and CHECK constraints.

Units: prices in the share's own currency (KR: KRW, US: USD), volumes in shares, ``value`` and ``market_cap`` in
currency. A day is the exchange's session date; a moment is UTC. Column mapping, deletion vectors and type
widening stay off: the viewer reads with deltalake, which these break.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["TABLES", "Table", "table"]

_SHARE = "country IN ('KR', 'US') AND length(symbol) > 0"
_MARKET = "market IN ('KOSPI', 'KOSDAQ', 'NASDAQ', 'NYSE')"
# What signals/performance.py says about an entry, and signals/summary.py about many.
_EVALUATION = {
    "entry_date": "date",
    "entry_price": "double",
    "no_entry": "string",
    **{f"{what}_{n}": "double" for n in (1, 5, 20) for what in ("return", "market_return", "excess")},
    **{f"exit_{n}": "string" for n in (1, 5, 20)},
    "mfe": "double",
    "mae": "double",
    "suspect": "boolean",
    "until": "date",
    "complete": "boolean",
}
_FIGURES = {
    **dict.fromkeys(("signals", "cases", "open", "no_entry", "suspect", "market_cases"), "bigint"),
    **dict.fromkeys(("hit_rate", "mean", "median", "spread", "best", "worst"), "double"),
    **dict.fromkeys(("mean_market", "mean_excess", "mean_mfe", "mean_mae"), "double"),
}


@dataclass(frozen=True)
class Table:
    """One table. ``key`` is unique; ``cluster`` is what its files are laid out by; ``stamps``
    never count as a change."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    cluster: tuple[str, ...] = ()
    checks: Mapping[str, str] = field(default_factory=dict)
    stamps: tuple[str, ...] = ()
    made_by: str = ""

    @property
    def ddl(self) -> str:
        """The schema as a DDL string, as ``spark.createDataFrame`` and ``StructType.fromDDL`` take it."""
        return ", ".join(f"`{name}` {kind}" for name, kind in self.columns.items())


_TABLES = [
    Table(
        "symbols",
        {
            "country": "string",
            "symbol": "string",
            "valid_from": "date",
            "name": "string",
            "market": "string",
            "market_cap": "double",
            "listed_shares": "bigint",
            "is_etf": "boolean",
            "is_warning": "boolean",
            "is_administration": "boolean",
            "is_halted": "boolean",
            "active": "boolean",
            "source": "string",
            "collected_at": "timestamp",
        },
        key=("country", "symbol", "valid_from"),
        cluster=("country", "symbol"),
        checks={
            "share": _SHARE,
            "market": _MARKET,
            "valid_from_known": "valid_from IS NOT NULL",
            "active_known": "active IS NOT NULL",
            "cap": "market_cap IS NULL OR market_cap >= 0",
            "listed": "listed_shares IS NULL OR listed_shares >= 0",
        },
        stamps=("collected_at",),
        made_by="jobs/collect_symbols.py",
    ),
    Table(
        "prices",
        {
            "country": "string",
            "symbol": "string",
            "date": "date",
            "market": "string",
            "open": "double",
            "high": "double",
            "low": "double",
            "close": "double",
            "volume": "bigint",
            "value": "double",
            "reference": "double",
            "source": "string",
            "basis": "date",
            "provisional": "boolean",
            "flags": "array<string>",
            "collected_at": "timestamp",
        },
        key=("country", "symbol", "date"),
        cluster=("date", "symbol"),
        checks={
            "share": _SHARE,
            "market": _MARKET,
            "date_known": "date IS NOT NULL",
            "close_positive": "close > 0",
            "volume_not_negative": "volume >= 0",
            "traded_bar_has_prices": "volume = 0 OR (open > 0 AND high > 0 AND low > 0)",
            "low_not_above_high": "volume = 0 OR low <= high",
            "basis_not_before_date": "basis >= date",
        },
        stamps=("collected_at",),
        made_by="jobs/collect_prices.py",
    ),
    Table(
        "prices_rejected",
        {
            "reject_id": "string",
            "country": "string",
            "symbol": "string",
            "date": "string",
            "reason": "string",
            "row": "string",
            "source": "string",
            "collected_at": "timestamp",
        },
        key=("reject_id",),
        checks={"reason_given": "length(reason) > 0", "id_given": "length(reject_id) = 64"},
        stamps=("collected_at",),
        made_by="jobs/collect_prices.py",
    ),
    Table(
        "indices",
        {
            "index": "string",
            "date": "date",
            "open": "double",
            "high": "double",
            "low": "double",
            "close": "double",
            "volume": "double",
            "source": "string",
            "collected_at": "timestamp",
        },
        key=("index", "date"),
        cluster=("index", "date"),
        checks={
            "index_known": "index IN ('KOSPI', 'KOSDAQ', 'NASDAQ')",
            "date_known": "date IS NOT NULL",
            "close_positive": "close > 0",
        },
        stamps=("collected_at",),
        made_by="jobs/collect_prices.py",
    ),
    Table(
        "actions",
        {
            "country": "string",
            "symbol": "string",
            "ex_date": "date",
            "kind": "string",
            "factor": "double",
            "amount": "double",
            "applied_by_source": "boolean",
            "confirmed": "boolean",
            "evidence": "string",
            "source": "string",
            "collected_at": "timestamp",
        },
        key=("country", "symbol", "ex_date", "kind"),
        cluster=("country", "symbol"),
        checks={
            "share": _SHARE,
            "ex_date_known": "ex_date IS NOT NULL",
            "kind_known": "kind IN ('split', 'bonus', 'rights', 'reduction', 'spin-off', 'dividend', 'unknown')",
            "factor_positive": "factor IS NULL OR factor > 0",
            "confirmed_known": "confirmed IS NOT NULL",
        },
        stamps=("collected_at",),
        made_by="jobs/collect_prices.py",
    ),
    # The registry adds a column for each indicator it names.
    Table(
        "indicators",
        {
            "country": "string",
            "symbol": "string",
            "date": "date",
            "market": "string",
            "close": "double",
            "volume": "double",
        },
        key=("country", "symbol", "date"),
        cluster=("date", "symbol"),
        checks={"share": _SHARE, "date_known": "date IS NOT NULL", "close_positive": "close > 0"},
        made_by="jobs/compute_indicators.py",
    ),
    # The filters' states of each share's last 10 bars; the registry adds a column for each.
    Table(
        "indicator_state",
        {"country": "string", "symbol": "string", "date": "date", "bars": "bigint"},
        key=("country", "symbol", "date"),
        checks={"share": _SHARE, "bars_positive": "bars > 0"},
        made_by="jobs/compute_indicators.py",
    ),
    # The registry adds what the live indicators need (indicators/live.py).
    Table(
        "live_state",
        {
            "country": "string",
            "symbol": "string",
            "market": "string",
            "as_of": "date",
            "valid_session": "date",
            "session_open": "timestamp",
            "session_close": "timestamp",
            "rebased_by": "double",
            "registry_hash": "string",
            "bars": "bigint",
            "tail_from": "date",
            "close": "double",
            "volume": "double",
        },
        key=("country", "symbol"),
        checks={"share": _SHARE, "valid_after_as_of": "valid_session > as_of"},
        made_by="jobs/compute_indicators.py",
    ),
    # The shares that traded on the last session of their country, and which of them may have live signals.
    Table(
        "universe",
        {
            "country": "string",
            "symbol": "string",
            "date": "date",
            "market": "string",
            "name": "string",
            "eligible": "boolean",
        },
        key=("country", "symbol"),
        checks={"share": _SHARE, "date_known": "date IS NOT NULL"},
        made_by="jobs/scan_watchlists.py",
    ),
    # The live rules in force, a row for each version of conf/watchlists.json that a live job has run with.
    Table(
        "live_rules",
        {
            "version": "string",
            "since": "timestamp",
            "current": "boolean",
            "thresholds": "map<string,array<double>>",
            "rules": "string",
            "topics": "string",  # SISE_TOPIC_PREFIX of the detection whose rules they are
        },
        key=("version", "topics"),
        checks={"version_given": "length(version) > 0"},
        made_by="jobs/detect_signals.py",
    ),
    Table(
        "watchlist",
        {
            "date": "date",
            "country": "string",
            "market": "string",
            "list": "string",
            "symbol": "string",
            "name": "string",
            "rank": "int",
            "figures": "map<string,double>",
            "rule_version": "string",
        },
        key=("date", "market", "list", "symbol"),
        cluster=("date", "list"),
        checks={"rank_positive": "rank > 0", "list_named": "length(list) > 0", "date_known": "date IS NOT NULL"},
        made_by="jobs/scan_watchlists.py",
    ),
    Table(
        "signals",
        {
            "signal_id": "string",
            "country": "string",
            "market": "string",
            "symbol": "string",
            "signal_type": "string",
            "session": "date",
            "timestamp": "timestamp",
            "trigger_price": "double",
            "indicators": "map<string,double>",
            "rule_version": "string",
            "as_of": "date",
            "day_volume": "bigint",
            "tick_partition": "int",
            "tick_offset": "bigint",
            "state_version": "bigint",  # of live_state; null of signals from before sise told it
            "label": "string",
        },
        key=("signal_id",),
        checks={"id_given": "length(signal_id) > 0", "price_positive": "trigger_price > 0"},
        made_by="jobs/archive_signals.py",
    ),
    # A row for each signal: what a trade on it would have made. Returns are fractions in the rule's direction.
    Table(
        "signal_performance",
        {
            "signal_id": "string",
            "rule": "string",
            "country": "string",
            "market": "string",
            "symbol": "string",
            "session": "date",
            "direction": "string",
            "rule_version": "string",
            **_EVALUATION,
            "evaluated_on": "date",
        },
        key=("signal_id",),
        checks={
            "id_given": "length(signal_id) > 0",
            "direction_known": "direction IN ('long', 'short')",
            "entry_after_signal": "entry_date IS NULL OR entry_date > session",
            "entry_or_reason": "entry_date IS NULL OR no_entry IS NULL",
        },
        stamps=("evaluated_on",),
        made_by="jobs/track_signals.py",
    ),
    # 'ALL' stands for every market and every month; horizon in sessions.
    Table(
        "signal_summary",
        {"rule": "string", "market": "string", "month": "string", "horizon": "int", **_FIGURES},
        key=("rule", "market", "month", "horizon"),
        checks={"cases_counted": "cases >= 0 AND cases <= signals"},
        made_by="jobs/track_signals.py",
    ),
    Table(
        "backtests",
        {
            "backtest_id": "string",
            "rule": "string",
            "when": "string",
            "direction": "string",
            "every_bar": "boolean",
            "rule_version": "string",
            "first_session": "date",
            "last_session": "date",
            "markets": "string",
            "versions": "map<string,bigint>",
            "market": "string",
            "month": "string",
            "horizon": "int",
            **_FIGURES,
        },
        key=("backtest_id", "market", "month", "horizon"),
        checks={"id_given": "length(backtest_id) = 16", "cases_counted": "cases >= 0 AND cases <= signals"},
        made_by="jobs/backtest_rule.py",
    ),
    # What became of each question to a vendor; symbol is null where a whole market was asked.
    Table(
        "fetches",
        {
            **dict.fromkeys(("run_id", "source", "kind", "country", "market", "symbol"), "string"),
            "first": "date",
            "last": "date",
            "fate": "string",
            "reason": "string",
            "rows": "bigint",
            "requests": "bigint",
            "seconds": "double",
            "at": "timestamp",
        },
        key=("run_id", "kind", "country", "market", "symbol", "first"),
        checks={"fate_given": "length(fate) > 0"},
        made_by="jobs/collect_prices.py --source krx|naver|yahoo|kis",
    ),
    Table(
        "runs",
        {
            "run_id": "string",
            "job": "string",
            "arguments": "map<string,string>",
            "status": "string",
            "started_at": "timestamp",
            "finished_at": "timestamp",
            "seconds": "double",
            "rows_in": "bigint",
            "rows_out": "bigint",
            "rows_rejected": "bigint",
            "versions": "map<string,bigint>",
            "details": "string",
            "error": "string",
        },
        key=("run_id",),
        checks={"status_known": "status IN ('ok', 'failed')", "id_given": "length(run_id) > 0"},
        made_by="every job",
    ),
]

TABLES: Mapping[str, Table] = {item.name: item for item in _TABLES}


def table(name: str) -> Table:
    """The declaration of a table; a KeyError names the tables there are."""
    try:
        return TABLES[name]
    except KeyError:
        raise KeyError(f"no table {name!r}: there are {', '.join(TABLES)}") from None
