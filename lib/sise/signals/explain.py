"""Why a signal fired: its tick, the state it was compared with, the rule, and the arithmetic done again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deltalake.exceptions import DeltaError

from sise.errors import InputError
from sise.indicators.algebra import Arrays
from sise.indicators.registry import Registry
from sise.reader import LakeReader
from sise.signals.curves import Curve, so_far
from sise.signals.levels import values_at
from sise.signals.rules import Expression, LiveRule, LiveRules

__all__ = ["explain"]


def explain(
    reader: LakeReader, registry: Registry, curves: Mapping[str, Curve], signal: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """(step, what, value) of everything that made ``signal`` fire; every number is computed again from live_state.

    ``signal``: a row of the table signals; ``curves``: load_curves(). Raises InputError where the state or the rules of
    its day are gone.
    """
    share = f"{signal['country']}:{signal['symbol']}"
    yield "tick", "share", f"{share} ({signal['market']})"
    yield "tick", "price", f"{signal['trigger_price']:,}"
    yield "tick", "time (UTC)", f"{signal['timestamp']:%Y-%m-%d %H:%M:%S.%f}"
    yield "tick", "day volume", f"{signal['day_volume']:,}"
    yield "tick", "Kafka", f"realtime-stock partition {signal['tick_partition']} offset {signal['tick_offset']}"
    version, state = _state(reader, signal)
    yield (
        "state",
        "live_state",
        f"version {version}: bars up to {state['as_of']}, for the session {state['valid_session']}",
    )
    yield "state", "registry", str(state["registry_hash"])
    yield "state", "last close", f"{state['close']:,}"
    if state["rebased_by"] != 1.0:
        yield "state", "re-based by", f"{state['rebased_by']} (an action has fallen due since its last bar)"
    rule = _rule(reader, signal)
    yield "rule", "version", str(signal["rule_version"])
    yield "rule", rule.name, f"{rule.measure} {rule.fires} {rule.at:.12g}"
    recorded = dict(signal["indicators"])
    try:  # a registry may have grown since: only what the rule looks at has to be there
        values = values_at(registry, rule.names, state, signal["trigger_price"], signal["day_volume"])
    except KeyError as problem:
        raise InputError(f"live_state of that session has no {problem.args[0]}, which {rule.name} needs now") from None
    values |= so_far(curves, state, round(signal["timestamp"].timestamp() * 1000))
    for name in rule.names:
        again, then = float(values[name]), recorded.get(name)
        same = "" if then is None else f" (the stream found {then:.10g})"
        yield "inputs", name, f"{again:.10g}{same}"
    if rule.requires:
        met = bool(Expression(rule.requires).evaluate(values, Arrays()))
        yield "decision", f"requires {rule.requires}", "met" if met else "NOT met"
    if rule.not_before_minutes:
        elapsed = values["elapsed_minutes"]
        late = "met" if elapsed >= rule.not_before_minutes else "NOT met"
        yield (
            "decision",
            f"not before minute {rule.not_before_minutes:g}",
            f"{late} ({elapsed:.10g} minutes after the open)",
        )
    measure = float(Expression(rule.measure).evaluate(values, Arrays()))
    strict = bool(rule.holds(values, Arrays())[0])
    yield "decision", "measure", f"{measure:.10g} {rule.fires} {rule.at:.12g}: {'holds' if strict else 'does NOT hold'}"
    number = signal["signal_id"].rsplit(":", 1)[1]
    yield "decision", "armed", f"fired for time {number} of {rule.name} for {share} in the session {signal['session']}"


def _state(reader: LakeReader, signal: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The share's row of live_state as it was when the tick was judged, and the table's version that had it."""
    where = [("country", "=", signal["country"]), ("symbol", "=", signal["symbol"])]
    try:
        for version in _versions(reader, signal):
            rows = reader.rows("live_state", where=where, version=version).to_pylist()
            if rows and rows[0]["as_of"] == signal["as_of"] and rows[0]["valid_session"] == signal["session"]:
                return version, rows[0]
    except (OSError, DeltaError):  # its files were vacuumed, or its commit is older than the log
        pass
    raise InputError(
        f"live_state as of {signal['as_of']} is not kept any more: the table's history no longer reaches that far back"
    )


def _versions(reader: LakeReader, signal: Mapping[str, Any]) -> list[int]:
    """The version that the signal tells of. One from before sise told it: those of its day, the newest from before the
    tick first, then those after it (real-time mode goes back for ticks whose state was late), the oldest first."""
    if (told := signal.get("state_version")) is not None:
        return [told]
    at = signal["timestamp"].timestamp() * 1000
    before: list[int] = []
    after: list[int] = []
    for commit in reader.open("live_state").history():
        note = json.loads(commit.get("userMetadata") or "{}")
        if note.get("as_of", {}).get(signal["country"], "") >= str(signal["as_of"]):
            (before if commit["timestamp"] <= at else after).append(int(commit["version"]))
    return before + after[::-1]


def _rule(reader: LakeReader, signal: Mapping[str, Any]) -> LiveRule:
    rows = reader.rows("live_rules", where=[("version", "=", signal["rule_version"])]).to_pylist()
    if not rows:
        raise InputError(f"live_rules has no version {signal['rule_version']}: was the table made anew?")
    return LiveRules.from_json(json.loads(rows[0]["rules"])).by_name[signal["signal_type"]]
