"""Rules and people's own lists, changed from the viewer: checked as the jobs check them, written in one piece, with a
dated copy of what was there before."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sise.errors import ConfigError, InputError
from sise.indicators.registry import Registry
from sise.locks import alone
from sise.settings import Settings
from sise.signals.rules import LiveRules
from sise.watchlists.rules import list_text, load_lists, parsed_rules

__all__ = [
    "ListFile",
    "RuleFile",
    "delete_list",
    "live_rules",
    "problems_of",
    "read_lists",
    "read_rules",
    "save_list",
    "save_rules",
]

_WIDTH = 118


@dataclass(frozen=True)
class RuleFile:
    """conf/watchlists.json as it was read: ``stamp`` tells whether somebody changed it since."""

    path: Path
    content: dict[str, Any]
    stamp: str

    @property
    def rules(self) -> list[dict[str, Any]]:
        return list(self.content["rules"])


@dataclass(frozen=True)
class ListFile:
    """A file of conf/lists as it was read."""

    text: str
    stamp: str


def read_rules(settings: Settings) -> RuleFile:
    path = settings.conf_file("watchlists.json")
    stamp = _stamp(path)  # before the text: a change in between is then seen as one, never missed
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except ValueError as problem:
        raise ConfigError(f"{path} is not JSON: {problem}") from problem
    if not isinstance(content, dict) or not isinstance(content.get("rules"), list):
        raise ConfigError(f'{path}: an object with a list "rules" is expected')
    return RuleFile(path, content, stamp)


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_mtime_ns}:{found.st_size}:{found.st_ino}"


def problems_of(rules: list[Any], settings: Settings, registry: Registry) -> list[str]:
    """What the jobs would refuse in these rules, but for what only Spark's analyser sees in ``when`` and ``rank_by``
    (preview.py evaluates those)."""
    found: list[str] = []
    try:
        parsed, found = parsed_rules({"rules": rules})
        own = set(_list_paths(settings))
        found += [f"rule {r.name}: a list of conf/lists has this name" for r in parsed if r.name in own]
    except ConfigError as problem:
        found.append(str(problem))
    try:
        live_rules(rules, registry)
    except ConfigError as problem:
        found += str(problem).splitlines()
    return list(dict.fromkeys(found))  # what is wrong with a name both say


def live_rules(rules: list[Any], registry: Registry) -> LiveRules:
    """These rules at the tick, as if the file had them. Raises ConfigError, a line for each problem."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "watchlists.json"
        path.write_text(json.dumps({"rules": rules}), encoding="utf-8")
        try:
            return LiveRules.load(path, registry)
        except ConfigError as problem:
            said = [line.replace(f"{path}: ", "") for line in str(problem).splitlines() if line != f"{path}:"]
            raise ConfigError("\n".join(said)) from problem


def save_rules(before: RuleFile, rules: list[Any], settings: Settings, registry: Registry) -> Path:
    """Writes the rules in place of ``before``; returns the copy of the old file. What reads the file sees the old or
    the new one, whole; running jobs take it up by themselves (serving/relay.py).

    Raises ConfigError with every problem, InputError where somebody else changed the file since it was read."""
    if problems := problems_of(rules, settings, registry):
        raise ConfigError("\n".join(problems))
    with _alone(settings):
        if not before.path.exists() or _stamp(before.path) != before.stamp:
            raise InputError(
                f"{before.path} was changed by somebody else meanwhile: load it again, nothing was written"
            )
        kept = _keep(before.path)
        _replace(before.path, _text({**before.content, "rules": rules}))
    return kept


def _alone(settings: Settings) -> AbstractContextManager[None]:
    return alone(settings.local / "dashboard" / "edit.lock")


def _keep(path: Path) -> Path:
    folder = path.parent / "old"
    folder.mkdir(exist_ok=True)
    moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z"
    kept = folder / f"{path.stem}-{moment}{path.suffix}"
    shutil.copy2(path, kept)
    return kept


def _replace(path: Path, text: str) -> None:
    """One rename, after the bytes are on the disk: a reader or a power cut finds the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(content: Mapping[str, Any]) -> str:
    """JSON as a person keeps it: a rule is a few lines, so that a change is seen in a diff."""
    rules = ",\n".join("    " + _rule_text(rule) for rule in content["rules"])
    other = "".join(
        f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)},\n" for k, v in content.items() if k != "rules"
    )
    return f'{{\n{other}  "rules": [\n{rules}\n  ]\n}}\n'


def _rule_text(rule: Mapping[str, Any]) -> str:
    lines, line = [], "{"
    for n, (key, value) in enumerate(rule.items()):
        part = f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}{',' if n < len(rule) - 1 else '}'}"
        alone = key in ("live", "about")
        if len(line) > 1 and (alone or len(line) + len(part) + 5 > _WIDTH):
            lines.append(line.rstrip())
            line = "     "
        line += part + " "
    return "\n".join([*lines, line.rstrip()])


def read_lists(settings: Settings) -> dict[str, ListFile]:
    """People's own lists: each file of conf/lists, by name."""
    return {name: _list_file(path) for name, path in _list_paths(settings).items()}


def _list_file(path: Path) -> ListFile:
    stamp = _stamp(path)
    return ListFile(list_text(path), stamp)


def save_list(settings: Settings, name: str, text: str, stamp: str = "") -> list[str]:
    """Writes conf/lists/NAME.txt in place of the file that had ``stamp`` ("": there was none); returns its symbols
    (KR:005930, or 005930 where no country was given).

    Raises InputError for a bad name, the name of a rule, or where somebody else changed, made or deleted the list
    meanwhile, and ConfigError that names each line that is no symbol."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise InputError(f"a list is named in small letters, digits and _, not {name!r}")
    if name in {rule.get("name") for rule in read_rules(settings).rules if isinstance(rule, dict)}:
        raise InputError(f"{name} is already the name of a rule")
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"{name}.txt"
        trial.write_text(text, encoding="utf-8")
        try:
            shares = load_lists(Path(folder))[0].shares
        except ConfigError as problem:
            raise ConfigError(str(problem).replace(f"{folder}/", "")) from problem
    with _alone(settings):
        known = _list_paths(settings).get(name)
        path = known or settings.conf / "lists" / f"{name}.txt"
        if known is not None and not stamp:
            raise InputError(f"there is already a list {name}: open that one, or choose another name")
        if (_stamp(known) if known else "") != stamp:
            raise InputError(
                f"the list {name} was {'changed' if known else 'deleted'} by somebody else meanwhile: load it again, "
                "nothing was written"
            )
        path.parent.mkdir(exist_ok=True)
        if known is not None:
            _keep(path)
        _replace(path, text if text.endswith("\n") or not text else text + "\n")
    return [f"{country}:{symbol}" if country else symbol for country, symbol in shares]


def delete_list(settings: Settings, name: str) -> Path:
    """Removes a list; returns the copy that is kept. Raises InputError where there is no such list."""
    with _alone(settings):
        path = _list_paths(settings).get(name)
        if path is None:
            raise InputError(f"there is no list {name}: somebody else may have deleted it meanwhile")
        kept = _keep(path)
        path.unlink()
    return kept


def _list_paths(settings: Settings) -> dict[str, Path]:
    """The lists' files by name: one that is there may be spelled in capitals."""
    return {path.stem.lower(): path for path in sorted((settings.conf / "lists").glob("*.txt"))}
