"""The command line: ``sise status``, ``sise show …``, ``sise services …``. No Spark: deltalake reads the lake."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import date
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.markup import escape
from rich.table import Table as RichTable

from sise.begun import died
from sise.errors import ConfigError, InputError, SiseError
from sise.reader import LakeReader
from sise.services_cli import services
from sise.settings import Settings
from sise.signals_cli import add_signal_commands
from sise.terminal import console, guarded

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look into the lake of sise, and run its services.")
show = typer.Typer(no_args_is_help=True, help="Print rows of a table.")
app.add_typer(show, name="show")
app.add_typer(services, name="services")
add_signal_commands(app)
_guarded = guarded("reading the lake …")
_DEFAULT_COLUMNS = ["date", "close", "volume", "sma_20", "sma_60", "rsi_14", "macd_hist", "bb_lower", "bb_upper"]


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _print(title: str, rows: pa.Table) -> None:
    table = RichTable(title=title, title_justify="left")
    for field in rows.schema:
        numeric = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        table.add_column(field.name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows.to_pylist():
        table.add_row(*[_number(value) for value in row.values()])
    console().print(table)


@app.command()
@_guarded
def status(runs: Annotated[int, typer.Option(help="how many of the last runs to list")] = 10) -> None:
    """Tables with rows and newest date, and the last runs."""
    settings = Settings.from_env()
    reader = LakeReader(settings.lake)
    tables = reader.overview()
    if not tables:
        raise SiseError(f"no tables in {settings.lake}: run the jobs first (make demo shows them), or set SISE_LAKE")
    out = RichTable(title=f"Lake {settings.lake}", title_justify="left")
    for name, justify in (("table", "left"), ("rows", "right"), ("version", "right"), ("latest", "left")):
        out.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, rows, version, newest in tables:
        out.add_row(name, f"{rows:,}", str(version), str(newest or ""))
    console().print(out)
    if reader.exists("runs"):
        columns = ["started_at", "job", "status", "seconds", "rows_in", "rows_out", "rows_rejected", "error"]
        last = reader.rows("runs", columns).sort_by([("started_at", "descending")]).slice(0, runs)
        started = [value.strftime("%Y-%m-%d %H:%M:%S") for value in last["started_at"].to_pylist()]
        _print("Last runs (UTC)", last.set_column(0, "started", pa.array(started)))
    for run in died(settings):
        console().print(f"{run['job']}, begun {run['started_at']:%Y-%m-%d %H:%M:%S}: {run['error']}")


@app.command()
def dashboard(
    host: Annotated[str, typer.Option(help="where to listen; beyond 127.0.0.1 only with authentication")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    headless: Annotated[bool, typer.Option(help="do not open a browser")] = False,
) -> None:
    """The viewer in a browser: signals, charts, watchlists, performance, the system."""
    from sise.dashboard.launch import prepare

    argv: list[str] = []
    guarded("starting the dashboard …")(lambda: argv.extend(prepare(host, port, headless)))()
    os.execv(argv[0], argv)  # this process becomes Streamlit: Ctrl-C and signals are its own


@show.command()
@_guarded
def indicators(
    symbol: Annotated[str, typer.Argument(help="the exchange's code: 005930, AAPL")],
    last: Annotated[int, typer.Option(min=1, help="how many bars")] = 20,
    column: Annotated[list[str] | None, typer.Option(help="a column; may be given more than once")] = None,
    country: Annotated[str | None, typer.Option(help="KR or US, where both have the symbol")] = None,
) -> None:
    """A share's last bars with their indicators."""
    reader = LakeReader(Settings.from_env().lake)
    code = symbol.strip().upper()
    where = reader.country_of(code, "indicators", country)
    names = [f.name for f in reader.open("indicators").schema().fields if f.name != "filter_state"]
    chosen = ["date", "close", *column] if column else [c for c in _DEFAULT_COLUMNS if c in names]
    if unknown := [c for c in chosen if c not in names]:
        raise InputError(f"no column {', '.join(unknown)}: there are {', '.join(names)}")
    rows = reader.rows("indicators", list(dict.fromkeys(chosen)), [("symbol", "=", code), ("country", "=", where)])
    if not rows.num_rows:
        raise InputError(f"indicators has no row of {where}:{code}: is it spelled as the exchange does (005930, AAPL)?")
    rows = rows.sort_by("date")
    _print(f"{where}:{code}", rows.slice(max(0, rows.num_rows - last)))


@show.command()
@_guarded
def watchlist(
    name: Annotated[str, typer.Argument(help="a rule of conf/watchlists.json, or a list of conf/lists")],
    day: Annotated[
        str | None, typer.Option("--date", help="the session (default: the last one of each country)")
    ] = None,
) -> None:
    """The shares on a watchlist, ranked."""
    settings = Settings.from_env()
    reader = LakeReader(settings.lake)
    known = reader.rows("watchlist", ["country", "date", "list"]).group_by(["country", "list"])
    newest = known.aggregate([("date", "max")]).to_pylist()
    file = settings.conf_file("watchlists.json")
    try:
        names = {str(rule["name"]) for rule in json.loads(file.read_text(encoding="utf-8"))["rules"]}
    except (ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{file} is no file of rules ({problem}): mend it, or put it back as it was") from problem
    names |= {row["list"] for row in newest}
    names |= {path.stem.lower() for path in (settings.conf / "lists").glob("*.txt")}
    if name not in names:
        raise InputError(f"no watchlist {name!r}: there are {', '.join(sorted(names))}")
    sessions = {c: max(r["date_max"] for r in newest if r["country"] == c) for c in {r["country"] for r in newest}}
    if day is not None:
        of_day = reader.rows("watchlist", ["country"], [("date", "=", _day(day))])["country"].unique().to_pylist()
        if not of_day:
            raise InputError(f"no watchlists were made for {day}: run jobs/scan_watchlists.py --date {day}")
        sessions = dict.fromkeys(of_day, _day(day))
    picked = []
    for country, session in sessions.items():
        where = [("country", "=", country), ("date", "=", session), ("list", "=", name)]
        picked += reader.rows("watchlist", where=where).to_pylist()
    if not picked:
        console().print(f"{name}: no share on {', '.join(f'{c} {d}' for c, d in sorted(sessions.items()))}")
        return
    picked.sort(key=lambda r: (r["market"], r["rank"]))
    figures = list(dict.fromkeys(k for r in picked for k, _ in _pairs(r["figures"])))
    table = pa.table(
        {
            **{c: [r[c] for r in picked] for c in ("date", "market", "rank", "symbol", "name")},
            **{f: pa.array([dict(_pairs(r["figures"])).get(f) for r in picked], pa.float64()) for f in figures},
        }
    )
    _print(name, table)


def _pairs(figures: Any) -> list[tuple[str, float]]:
    return list(figures.items()) if isinstance(figures, dict) else list(figures or [])


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"--date {text!r} is not a date like 2025-03-31") from None


def main() -> None:
    """The command, which ends its process itself: on a busy machine pyarrow's threads are now and then still there when
    the interpreter takes the libraries down, and abort it after all was said and done."""
    code: str | int | None = None
    try:
        app()
    except SystemExit as end:
        code = end.code
    with suppress(OSError):  # nobody reads any more: `sise status | head`
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
