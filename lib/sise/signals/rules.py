"""Live rules: the ``live`` entries of conf/watchlists.json, evaluated at every tick.

A live rule looks at one number, its ``measure``, and fires where that is beyond ``at``. ``relaxed`` and ``watch``
are wider thresholds: while the measure is inside ``relaxed`` a rule that fired stays disarmed (hysteresis), and
ticks inside ``watch`` are told to the relay, so that it sees a share leave. The expressions are arithmetic over the
tick and the share's indicators; one parser serves Spark columns and numpy arrays (indicators/algebra.py).
"""

from __future__ import annotations

import ast
import hashlib
import json
import operator
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sise.errors import ConfigError
from sise.indicators.algebra import Algebra
from sise.indicators.registry import Registry
from sise.watchlists.rules import named_twice, rule_entries, unknown_entries

__all__ = ["Expression", "LiveRule", "LiveRules", "names_at_tick"]

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_ENTRIES = {"measure", "fires", "at", "relaxed", "watch", "requires", "cooldown_minutes", "not_before_minutes"}
_TICK = ("price", "day_volume", "session_share", "elapsed_minutes", "prev_close", "prev_volume")


def names_at_tick(registry: Registry) -> tuple[str, ...]:
    """What an expression may name: the tick, each indicator at the tick's price, and ``prev_`` its last bar's value.

    ``session_share``: the part of a day's volume that the market has usually done by now.
    """
    at_tick = [c for c in registry.core if not c.startswith("atr_")]
    return (*_TICK, *at_tick, *(f"prev_{c}" for c in registry.core))


@dataclass(frozen=True)
class Expression:
    """Arithmetic (+ - * / and parentheses) or, for ``requires``, comparisons joined by ``and``."""

    text: str

    @cached_property
    def _tree(self) -> ast.expr:
        try:
            return ast.parse(self.text, mode="eval").body
        except SyntaxError as problem:
            raise ConfigError(f"{self.text!r} is not an expression: {problem.msg}") from problem

    @property
    def names(self) -> list[str]:
        return sorted({node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)})

    def check(self, known: tuple[str, ...], *, condition: bool) -> None:
        """Raises ConfigError for an unknown name, anything but arithmetic and comparisons, and a comparison where a
        number is expected or, of a ``condition``, the other way round."""
        allowed: tuple[type[ast.AST], ...] = (
            ast.BinOp,
            ast.UnaryOp,
            ast.Name,
            ast.Constant,
            ast.Compare,
            ast.BoolOp,
            ast.Load,
            ast.And,
        )
        allowed += (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
        for node in ast.walk(self._tree):
            if not isinstance(node, allowed) or (
                isinstance(node, ast.Constant)
                and (isinstance(node.value, bool) or not isinstance(node.value, int | float))
            ):
                raise ConfigError(
                    f"{self.text!r}: only numbers, names, + - * / ( ), < <= > >= and 'and' are understood"
                )
        if unknown := [name for name in self.names if name not in known]:
            raise ConfigError(f"{self.text!r} names {', '.join(unknown)}; there are {', '.join(known)}")
        _expect(self._tree, condition)

    def evaluate(self, values: Mapping[str, Any], ops: Algebra) -> Any:
        return _evaluate(self._tree, values, ops)


def _expect(node: ast.expr, condition: bool) -> None:
    """Raises ConfigError where a comparison stands for a number, or a number for a comparison: Spark refuses it."""
    is_condition, of_conditions = isinstance(node, ast.Compare | ast.BoolOp), isinstance(node, ast.BoolOp)
    if is_condition != condition:
        found, wanted = ("a comparison", "a number") if is_condition else ("a number", "a comparison")
        raise ConfigError(f"{ast.unparse(node)!r} is {found}, where {wanted} is expected")
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.expr):
            _expect(part, of_conditions)


def _evaluate(node: ast.AST, values: Mapping[str, Any], ops: Algebra) -> Any:
    match node:
        case ast.Constant(value=value):
            return ops.lit(float(value))  # type: ignore[arg-type]
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(operand=operand):
            return -_evaluate(operand, values, ops)
        case ast.BinOp(left=left, op=sign, right=right):
            a, b = _evaluate(left, values, ops), _evaluate(right, values, ops)
            match sign:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
            return ops.divide(a, b)
        case ast.Compare(left=left, ops=signs, comparators=others):
            sides = [_evaluate(side, values, ops) for side in (left, *others)]
            symbols = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
            found = [_COMPARE[symbols[type(s)]](sides[i], sides[i + 1]) for i, s in enumerate(signs)]  # type: ignore[index]
            return ops.all(found)
        case ast.BoolOp(values=parts):
            return ops.all([_evaluate(part, values, ops) for part in parts])
    raise ConfigError(f"{ast.dump(node)} is not understood")


@dataclass(frozen=True)
class LiveRule:
    """One rule at the tick. Thresholds in the measure's own unit; ``cooldown_minutes`` in event time."""

    name: str
    measure: str
    fires: str
    at: float
    relaxed: float
    watch: float
    requires: str = ""
    cooldown_minutes: float = 60.0
    not_before_minutes: float = 0.0
    direction: str = "long"

    @property
    def thresholds(self) -> list[float]:
        """What a running query reads anew: at, relaxed, watch, not_before_minutes."""
        return [self.at, self.relaxed, self.watch, self.not_before_minutes]

    @property
    def names(self) -> list[str]:
        """The columns that the rule looks at."""
        return sorted({*Expression(self.measure).names, *(Expression(self.requires).names if self.requires else ())})

    def holds(
        self, values: Mapping[str, Any], ops: Algebra, thresholds: list[Any] | None = None
    ) -> tuple[Any, Any, Any]:
        """(strict, relaxed, watch): where the measure is beyond each threshold. A null measure is beyond none.

        What ``requires`` says of the tick itself is no part of ``watch``: that it has become untrue is to be seen.

        ``values``: by name (names_at_tick). ``thresholds``: in place of the rule's own, in their order.
        """
        at, relaxed, watch, not_before = thresholds or [ops.lit(value) for value in self.thresholds]
        measure = Expression(self.measure).evaluate(values, ops)
        conditions, required = [ops.known(measure)], []
        if "elapsed_minutes" in values:
            conditions.append(values["elapsed_minutes"] >= not_before)
        if self.requires:
            required = [Expression(self.requires).evaluate(values, ops)]
            if all(name.startswith("prev_") for name in Expression(self.requires).names):
                conditions += required  # it holds all session long, or never: most shares are far from the rule
        beyond = _COMPARE[self.fires]
        strict, loose, near = (beyond(measure, limit) for limit in (at, relaxed, watch))
        return (
            ops.all([*conditions, *required, strict]),
            ops.all([*conditions, *required, loose]),
            ops.all([*conditions, near]),
        )


@dataclass(frozen=True)
class LiveRules:
    """The live rules of one conf/watchlists.json, in its order."""

    rules: tuple[LiveRule, ...]

    @classmethod
    def load(cls, path: Path, registry: Registry) -> LiveRules:
        """Raises ConfigError that lists every problem in the ``live`` entries, and names that two rules have."""
        entries = rule_entries(path)
        found, problems = [], named_twice(entries)
        for entry in entries:
            if not isinstance(entry, Mapping) or "live" not in entry:
                continue
            if unknown := unknown_entries(entry):
                problems += unknown
                continue
            try:
                direction = entry.get("direction", "long")
                found.append(_parse(str(entry.get("name")), entry["live"], direction, names_at_tick(registry)))
            except ConfigError as problem:
                problems.append(f"rule {entry.get('name')}: live: {problem}")
        if problems:
            raise ConfigError("\n".join([f"{path}:", *problems]))
        if not found:
            raise ConfigError(f'{path}: no rule has a "live" entry, so nothing can be detected')
        return cls(tuple(found))

    @property
    def by_name(self) -> dict[str, LiveRule]:
        return {rule.name: rule for rule in self.rules}

    @cached_property
    def names(self) -> set[str]:
        """The columns that any of the rules looks at."""
        return {name for rule in self.rules for name in rule.names}

    @cached_property
    def shape(self) -> str:
        """Changes when a running query must be built anew: rules come or go, or look at something else."""
        return _hash([[r.name, r.measure, r.fires, r.requires] for r in self.rules])

    @cached_property
    def version(self) -> str:
        """Changes when any rule or threshold does: a signal carries it."""
        return _hash(self.as_json())

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(rule) for rule in self.rules]

    @classmethod
    def from_json(cls, content: list[dict[str, Any]]) -> LiveRules:
        return cls(tuple(LiveRule(**entry) for entry in content))


_WATCH, _EVERYWHERE = 0.05, 1e300


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def usual_watch(fires: str, relaxed: float) -> float:
    """Where a rule that names no ``watch`` looks: beyond ``relaxed``, else its leaving would never be seen. 5 % of it;
    of 0, whose scale nobody knows, everywhere."""
    beyond = _WATCH * abs(relaxed) if relaxed else _EVERYWHERE
    return relaxed + beyond if fires in ("<", "<=") else relaxed - beyond


def _parse(name: str, entry: Any, direction: Any, known: tuple[str, ...]) -> LiveRule:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError("the rule has no name of small letters, digits and _")
    if not isinstance(entry, Mapping):
        raise ConfigError("an object is expected")
    if direction not in ("long", "short"):
        raise ConfigError(f"direction {direction!r} is neither long nor short")
    if unknown := set(entry) - _ENTRIES:
        raise ConfigError(f"unknown entry {', '.join(sorted(unknown))}; there are {', '.join(sorted(_ENTRIES))}")
    if missing := {"measure", "fires", "at"} - set(entry):
        raise ConfigError(f"{', '.join(sorted(missing))} is missing")
    if entry["fires"] not in _COMPARE:
        raise ConfigError(f"fires {entry['fires']!r} is not one of {', '.join(_COMPARE)}")
    numbers = {"relaxed": entry["at"], **entry}
    for key in ("at", "relaxed", "watch", "cooldown_minutes", "not_before_minutes"):
        value = numbers.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise ConfigError(f"{key} {value!r} is not a number")
    if numbers.get("cooldown_minutes", 1) <= 0:
        raise ConfigError(
            f"cooldown_minutes {numbers['cooldown_minutes']!r} is not above 0: the rule would fire at every tick. For "
            "one that time alone never arms again, give more minutes than a session has"
        )
    numbers.setdefault("watch", usual_watch(entry["fires"], float(numbers["relaxed"])))
    for key in ("measure", "requires"):
        if not isinstance(entry.get(key, ""), str):
            raise ConfigError(f"{key} {entry[key]!r} is not a text")
    if not entry["measure"].strip():
        raise ConfigError("measure is empty")
    for key in ("measure", "requires"):
        if entry.get(key, "").strip():
            Expression(entry[key]).check(known, condition=key == "requires")
    rule = LiveRule(
        name,
        entry["measure"],
        entry["fires"],
        float(numbers["at"]),
        float(numbers["relaxed"]),
        float(numbers["watch"]),
        entry.get("requires", "").strip(),
        float(entry.get("cooldown_minutes", LiveRule.cooldown_minutes)),
        float(entry.get("not_before_minutes", LiveRule.not_before_minutes)),
        direction,
    )
    wider = _COMPARE[{"<": "<=", ">": ">="}.get(rule.fires, rule.fires)]
    if not (wider(rule.at, rule.relaxed) and wider(rule.relaxed, rule.watch)):
        raise ConfigError(
            f"at {rule.at}, relaxed {rule.relaxed}, watch {rule.watch}: each must be as wide as the one before"
        )
    return rule
