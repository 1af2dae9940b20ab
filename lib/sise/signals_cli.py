"""``sise levels`` and ``sise explain``: at which price rules fire, and why one did."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sise.errors import InputError
from sise.reader import LakeReader
from sise.settings import Settings
from sise.terminal import console, guarded

__all__ = ["add_signal_commands"]


def add_signal_commands(app: typer.Typer) -> None:
    app.command()(levels)
    app.command(name="explain")(explain_signal)


def _currency(price: float | None, country: str) -> str:
    if price is None:
        return "–"
    if country == "KR":
        return f"{price:,.0f} won"
    return f"${price:,.2f}" if price >= 1 else f"${price:,.4f}"


@guarded("reading the lake …")
def levels(
    symbol: Annotated[str, typer.Argument(help="the exchange's code: 005930, AAPL")],
    country: Annotated[str | None, typer.Option(help="KR or US, where both have the symbol")] = None,
) -> None:
    """At which price each live rule would fire in the next session."""
    from sise.indicators.registry import Registry
    from sise.serving.feeds import eligible_rows
    from sise.signals.levels import levels_of
    from sise.signals.rules import LiveRules

    settings = Settings.from_env()
    reader = LakeReader(settings.lake)
    code = symbol.strip().upper()
    where = reader.country_of(code, "live_state", country)
    rows = reader.rows("live_state", where=[("symbol", "=", code), ("country", "=", where)]).to_pylist()
    if not rows:
        raise InputError(f"live_state has no {where}:{code}: has it a bar, and was compute_indicators run?")
    registry = Registry.load(settings.conf_file("indicators.json"))
    rules = LiveRules.load(settings.conf_file("watchlists.json"), registry)
    state = rows[0]
    table = Table(title=f"{where}:{code} in the session {state['valid_session']}", title_justify="left")
    for name in ("rule", "fires at", "from the last close", ""):
        table.add_column(name, justify="left" if name in {"rule", ""} else "right")
    for level in levels_of(registry, rules, state):
        price = "" if level.side is None else f"{'≤' if level.side == 'below' else '≥'} {_currency(level.price, where)}"
        away = "" if level.away is None else f"{abs(level.away):.1%} {'below' if level.away < 0 else 'above'}"
        table.add_row(level.rule, price if level.price is not None else "–", away, _remark(level))
    if not any(row["symbol"] == code and row["country"] == where for row in eligible_rows(reader)):
        console().print(
            "[bold]no rule fires for it in this session:[/bold] it is no longer listed, did not trade in the last "
            "session, is halted, warned of, below the turnover floor or in doubt (see scan_watchlists), or the factor "
            "of an action is not known yet"
        )
    console().print(f"last close {_currency(state['close'], where)} on {state['as_of']}")
    console().print(table)


def _remark(level: Any) -> str:
    return level.why or ("holds at the last close" if level.now else "")


@guarded("reading the lake …")
def explain_signal(signal_id: Annotated[str, typer.Argument(help="KR:005930:rsi_oversold:2025-03-31:1")]) -> None:
    """Every input, version and step that made a signal fire, computed again."""
    from sise.indicators.registry import Registry
    from sise.signals.curves import load_curves
    from sise.signals.explain import explain

    settings = Settings.from_env()
    reader = LakeReader(settings.lake)
    rows = reader.rows("signals", where=[("signal_id", "=", signal_id)]).to_pylist() if reader.exists("signals") else []
    if not rows:
        raise InputError(f"no signal {signal_id!r} in the archive: run jobs/archive_signals.py after it fired")
    signal = rows[0] | {"indicators": dict(rows[0]["indicators"])}
    table = Table(title=f"Why {escape(signal_id)} fired", title_justify="left")
    for name in ("step", "what", "value"):
        table.add_column(name, overflow="fold")
    last = ""
    registry = Registry.load(settings.conf_file("indicators.json"))
    curves = load_curves(settings.conf_file("volume_curves.json"))
    for step, what, value in explain(reader, registry, curves, signal):
        table.add_row(step if step != last else "", escape(what), escape(value))
        last = step
    console().print(table)
