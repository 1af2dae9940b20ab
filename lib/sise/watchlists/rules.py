"""Rules from conf/watchlists.json and people's own lists from conf/lists/*.txt, validated when they are loaded.

A rule is a condition over the columns of one session's shares, written as a Spark SQL expression (``when``), or a
crossing of two of them (``cross``: [a, "above" or "below", b]; the difference was ≤ 0 on the bar before and is > 0
now, both warm). ``prev_x`` is the value of column x on the bar before: an average or extreme that an event is
compared with must not contain the event. ``live`` is the rule at the tick (signals/rules.py). ``direction`` is what
a signal of the rule is taken for: ``long`` (the price is expected to rise; the default) or ``short``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sise.errors import ConfigError

if TYPE_CHECKING:  # the viewer parses rules without a JVM: only what judges or applies them brings Spark in
    from pyspark.sql import Column, DataFrame

__all__ = [
    "DIRECTIONS",
    "NOT_OWN",
    "OwnList",
    "Rule",
    "checked_rule",
    "load_directions",
    "load_lists",
    "load_rules",
    "named_twice",
    "parsed_rules",
    "rule_entries",
    "unknown_entries",
]

_NAME = r"[a-z][a-z0-9_]*"
_SAME = "1e-12"  # two values that differ by less of the larger one are the same
_ENTRIES = {"name", "when", "cross", "rank_by", "top", "about", "live", "direction"}
DIRECTIONS = ("long", "short")
# What would look at more than the share's own columns, or at something else each time.
NOT_OWN = re.compile(
    r"\b(select|rand|randn|random|randstr|uniform|shuffle|uuid|current_\w+|curdate|now|localtimestamp|version"
    r"|unix_timestamp\s*\(\s*\)|to_unix_timestamp\s*\(\s*\)|monotonically_increasing_id|spark_partition_id"
    r"|(?:try_)?reflect|java_method|input_file_\w+|session_user|user)(?!\w)"
    r"|\(\s*table\s|['\"]\s*(?:now|today|tomorrow|yesterday)\b[^'\"]*['\"]",  # a subquery, and Spark's special dates
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """One watchlist. ``rank_by`` is an expression with ``asc`` or ``desc`` behind it; ``top``: that many per market."""

    name: str
    when: str
    rank_by: str = "market_cap_usd desc"
    top: int | None = None
    about: str = ""
    direction: str = "long"

    @property
    def condition(self) -> Column:
        from pyspark.sql import functions as F

        return F.expr(self.when)

    @property
    def order(self) -> Column:
        from pyspark.sql import functions as F

        expression, _, direction = self.rank_by.rpartition(" ")
        column = F.expr(expression)
        return column.desc_nulls_last() if direction == "desc" else column.asc_nulls_last()

    @property
    def version(self) -> str:
        """Changes when the rule's meaning does."""
        meaning = [self.when, self.rank_by, self.top, *([] if self.direction == "long" else [self.direction])]
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:12]

    def columns(self, known: Iterable[str]) -> list[str]:
        """The columns that the rule names: the figures that put a share on its list."""
        words = set(re.findall(r"[a-z_][a-z0-9_]*", f"{self.when} {self.rank_by}".lower()))  # Spark knows no case
        return [name for name in known if name in words]


@dataclass(frozen=True)
class OwnList:
    """Somebody's own list: (country or None, symbol) pairs in the file's order."""

    name: str
    shares: tuple[tuple[str | None, str], ...]


def parsed_rules(content: Any, where: str = "conf/watchlists.json") -> tuple[list[Rule], list[str]]:
    """The rules in the content of conf/watchlists.json and what is wrong with it, their expressions not yet judged."""
    entries, rules, problems = _entries(content, where), [], []
    for entry in entries:
        if isinstance(entry, Mapping) and "live" in entry and not {"when", "cross"} & set(entry):
            problems += unknown_entries(entry)  # a rule of the tick alone (signals/rules.py)
            continue
        try:
            rules.append(_parse(entry))
        except ConfigError as problem:
            problems.append(str(problem))
    return rules, problems + named_twice(entries)


def unknown_entries(entry: Mapping[str, Any]) -> list[str]:
    """What is wrong with a rule that has entries which none has: one that is misspelt would be passed over."""
    unknown, known = ", ".join(sorted(set(entry) - _ENTRIES)), ", ".join(sorted(_ENTRIES))
    return [f"rule {entry.get('name')}: unknown entry {unknown}; there are {known}"] if unknown else []


def named_twice(entries: Iterable[Any]) -> list[str]:
    """What is wrong with the names of all entries together: signals and thresholds are known by them alone."""
    names = [str(entry["name"]) for entry in entries if isinstance(entry, Mapping) and "name" in entry]
    return [f"rule {name}: named twice" for name in sorted({n for n in names if names.count(n) > 1})]


def _entries(content: Any, where: str) -> list[Any]:
    entries = content.get("rules") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f'{where}: an object with a list "rules" is expected')
    return entries


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ConfigError(f"{path} is not JSON: {problem}") from problem


def rule_entries(path: Path) -> list[Any]:
    """The entries of conf/watchlists.json as they stand there."""
    return _entries(_content(path), str(path))


def load_directions(path: Path) -> dict[str, str]:
    """By name of every rule in conf/watchlists.json, those of the tick alone too, what its signals are taken for."""
    return {str(entry.get("name")): _direction(entry) for entry in rule_entries(path) if isinstance(entry, Mapping)}


def load_rules(path: Path, shares: DataFrame) -> list[Rule]:
    """The rules of conf/watchlists.json. ``shares``: an (empty) frame with the columns that rules may use.

    Raises ConfigError that lists every problem: an unknown column comes with the columns there are.
    """
    rules, problems = parsed_rules(_content(path), str(path))
    for rule in rules:
        try:
            _check(rule, shares)
        except ConfigError as problem:
            problems.append(str(problem))
    if problems:
        raise ConfigError("\n".join([f"{path}:", *problems, f"columns: {', '.join(shares.columns)}"]))
    return rules


def checked_rule(entry: Any, shares: DataFrame) -> Rule:
    """The rule of one entry, valid over the columns of ``shares``; a ConfigError says what is wrong with it."""
    rule = _parse(entry)
    _check(rule, shares)
    return rule


def _parse(entry: Any) -> Rule:
    if not isinstance(entry, Mapping) or not re.fullmatch(_NAME, str(entry.get("name", ""))):
        raise ConfigError(f"rule {entry!r}: an object with a name of small letters, digits and _ is expected")
    name = entry["name"]
    if unknown := unknown_entries(entry):
        raise ConfigError(unknown[0])
    if ("when" in entry) == ("cross" in entry):
        raise ConfigError(f"rule {name}: give it either when or cross")
    when = _crossing(name, entry["cross"]) if "cross" in entry else entry["when"]
    rank_by = entry.get("rank_by", "market_cap_usd desc")
    if not isinstance(when, str) or not isinstance(rank_by, str):
        raise ConfigError(f"rule {name}: when and rank_by are texts")
    if not rank_by.rstrip().lower().endswith((" asc", " desc")):
        raise ConfigError(f"rule {name}: rank_by {rank_by!r} must end in asc or desc")
    top = entry.get("top")
    if top is not None and (not isinstance(top, int) or isinstance(top, bool) or top < 1):
        raise ConfigError(f"rule {name}: top {top!r} is not a number of 1 or more")
    head, _, order = rank_by.rstrip().rpartition(" ")
    return Rule(name, when, f"{head} {order.lower()}", top, str(entry.get("about", "")), _direction(entry))


def _direction(entry: Mapping[str, Any]) -> str:
    direction = entry.get("direction", DIRECTIONS[0])
    if direction not in DIRECTIONS:
        raise ConfigError(f"rule {entry.get('name')}: direction {direction!r} must be {' or '.join(DIRECTIONS)}")
    return str(direction)


def _crossing(name: str, pair: Any) -> str:
    """a crosses above b: a − b ≤ 0 on the bar before, > 0 now. Null while either is not warm, which is no crossing. A
    difference in the last digits is none: the average of five equal prices may be a bit of the last one off them."""
    if not (
        isinstance(pair, Sequence)
        and len(pair) == 3
        and pair[1] in ("above", "below")
        and all(isinstance(side, str) and re.fullmatch(_NAME, side) for side in (pair[0], pair[2]))
    ):
        raise ConfigError(f'rule {name}: cross {pair!r} must be [column, "above" or "below", column]')
    a, b = (pair[0], pair[2]) if pair[1] == "above" else (pair[2], pair[0])
    before, now = (f"{_SAME} * greatest(abs({p}{a}), abs({p}{b}))" for p in ("prev_", ""))
    return f"(prev_{a} - prev_{b} <= {before}) AND ({a} - {b} > {now})"


def _check(rule: Rule, shares: DataFrame) -> None:
    """Lets Spark analyse the expressions over the columns there are: names, types, no aggregates."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    for what, expression in (("when", rule.when), ("rank_by", rule.rank_by.rpartition(" ")[0])):
        if NOT_OWN.search(expression):
            raise ConfigError(f"rule {rule.name}: {what} may only look at the share's own columns: {expression}")
        try:
            if what == "when":
                shares.where(F.expr(expression)).schema  # noqa: B018 - a where refuses aggregates and non-booleans
            else:
                order = Window.partitionBy("market").orderBy(rule.order)
                ranked = shares.select(F.row_number().over(order), F.expr(expression).alias("by"))
                if isinstance(ranked.schema["by"].dataType, T.MapType | T.ArrayType | T.StructType):
                    raise ConfigError(f"rule {rule.name}: rank_by {expression} is not a number or a text")
        except ConfigError:
            raise
        except Exception as problem:
            first = str(problem).strip().splitlines()[0]
            raise ConfigError(f"rule {rule.name}: {what} {expression!r}: {first}") from problem


def list_text(path: Path) -> str:
    """What stands in one of people's own lists: UTF-8, or CP949 as Korean Windows writes it."""
    content = path.read_bytes()
    for encoding in ("utf-8-sig", "cp949"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ConfigError(f"{path} is not text: save it as UTF-8")


def load_lists(folder: Path) -> list[OwnList]:
    """People's own lists, by file name. Raises ConfigError that names file and line of what is no symbol."""
    lists: list[OwnList] = []
    problems: list[str] = []
    for path in sorted(path for path in folder.glob("*") if path.suffix.lower() == ".txt"):
        name = path.stem.lower()
        if name in {own.name for own in lists}:
            problems.append(f"{path}: another list is named {name}, too: give them names of their own")
            continue
        if not re.fullmatch(_NAME, name):
            problems.append(f"{path}: a list is named in small letters, digits and _")
            continue
        shares: list[tuple[str | None, str]] = []
        for number, line in enumerate(list_text(path).splitlines(), 1):
            text = line.partition("#")[0].strip().upper()
            match = re.fullmatch(r"(?:(KR|US):)?([A-Z0-9][A-Z0-9.\-]{0,11})", text)
            if text and match is None:
                problems.append(f"{path}:{number}: {line.strip()!r} is not a symbol like 005930, KR:005930 or BRK-B")
            elif match is not None and (match[1], match[2]) not in shares:
                shares.append((match[1], match[2]))
        lists.append(OwnList(name, tuple(shares)))
    if problems:
        raise ConfigError("\n".join(problems))
    return lists
