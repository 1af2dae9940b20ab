"""The rules and their thresholds, changed with care; and what else this installation is set to."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from typing import Any

import pandas as pd
import streamlit as st

from sise.dashboard.context import Here
from sise.dashboard.data.lists import entries
from sise.dashboard.data.share import holding
from sise.dashboard.edit import RuleFile, live_rules, problems_of, read_rules, save_rules
from sise.dashboard.formats import escaped
from sise.dashboard.parts import begun, column, grid, records
from sise.dashboard.preview import picked, session_rows
from sise.errors import ConfigError, SiseError
from sise.settings import Settings
from sise.signals.rules import usual_watch
from sise.watchlists.rules import parsed_rules

__all__ = ["setting_rows", "show"]

_LIVE = ("at", "relaxed", "watch", "cooldown_minutes", "not_before_minutes")
_NEW = ""  # no rule has this name, in any language
_EXPRESSIONS = ("when", "cross", "rank_by")
_DEFAULTS = {"cooldown_minutes": 60.0, "not_before_minutes": 0.0}


def show(here: Here) -> None:
    words = here.words
    rules, other = st.tabs([words("set.rules"), words("set.other")])
    with rules:
        _rules(here)
    with other:
        _other(here)


def _rules(here: Here) -> None:
    words = here.words
    file = begun(here, "set-file", "conf/watchlists.json", read_rules(here.settings))
    names = [str(rule.get("name")) for rule in file.rules]
    if wanted := st.session_state.pop("set-goto", None):
        st.session_state["set-rule"] = wanted
    left, right = st.columns([3, 4])
    with left:
        chosen = st.selectbox(
            words("col.rule"),
            [*names, _NEW],
            key="set-rule",
            format_func=lambda rule: words.rule(rule) if rule else words("set.new"),
        )
        before = next((r for r in file.rules if r.get("name") == chosen), None)
        entry, removed = _form(here, before, file.stamp)
    with right:
        _judge(here, file, before, entry, removed)


def _form(here: Here, before: dict[str, Any] | None, stamp: str) -> tuple[dict[str, Any], bool]:
    """The rule as the fields have it now. Keys end in the file's stamp (parts.begun): another file, new fields."""
    words = here.words
    known = before or {"name": "", "when": "rsi_14 < 25", "rank_by": "market_cap_usd desc"}
    entry = copy.deepcopy(known)
    key = f"{known['name']}-{stamp}"
    if before is None:
        entry["name"] = st.text_input(words("set.name"), key=f"n-{key}", max_chars=40).strip()
    if "cross" in known:
        a, b, c = st.columns(3)
        entry["cross"] = [
            a.text_input(words("set.cross"), known["cross"][0], key=f"c0-{key}"),
            b.selectbox(
                words("set.crosses"),
                ["above", "below"],
                ["above", "below"].index(known["cross"][1]),
                format_func=lambda s: words(f"set.{s}"),
                key=f"c1-{key}",
            ),
            c.text_input(words("set.other.column"), known["cross"][2], key=f"c2-{key}"),
        ]
    elif "when" in known:
        entry["when"] = st.text_area(words("set.when"), known["when"], key=f"w-{key}", height=80)
    if "when" in known or "cross" in known:
        a, b = st.columns([3, 1])
        entry["rank_by"] = a.text_input(words("set.rank"), known.get("rank_by", "market_cap_usd desc"), key=f"r-{key}")
        top = b.number_input(
            words("set.top"), 0, 10_000, int(known.get("top") or 0), key=f"t-{key}", help=words("set.top.about")
        )
        entry.pop("top", None)
        if top:
            entry["top"] = int(top)
    side = st.segmented_control(
        words("filter.side"),
        ["long", "short"],
        default=known.get("direction", "long"),
        key=f"d-{key}",
        required=True,
        format_func=lambda s: words(f"side.{s}"),
    )
    if side == "short" or "direction" in known:
        entry["direction"] = side
    if "live" in known:
        entry["live"] = _live_form(here, known["live"], key)
    entry["about"] = st.text_input(words("set.about"), known.get("about", ""), key=f"a-{key}")
    removed = before is not None and st.toggle(words("set.remove"), key=f"x-{key}")
    return {k: v for k, v in entry.items() if k != "about" or v or "about" in known}, bool(removed)


def _live_form(here: Here, live: dict[str, Any], key: str) -> dict[str, Any]:
    words = here.words
    st.markdown(f"**{words('set.live')}**")
    found = dict(live)
    a, b = st.columns([4, 1])
    found["measure"] = a.text_input(words("set.measure"), live["measure"], key=f"m-{key}")
    signs = ["<", "<=", ">", ">="]
    found["fires"] = b.selectbox(words("set.fires"), signs, signs.index(live["fires"]), key=f"f-{key}")
    unsaid = _DEFAULTS | {"watch": usual_watch(live["fires"], float(live.get("relaxed", live["at"])))}
    for place, name in zip(st.columns(len(_LIVE)), _LIVE, strict=True):
        value = live.get(name, unsaid.get(name, live["at"]))
        given = place.number_input(
            words(f"set.{name}"),
            value=float(value),
            key=f"{name}-{key}",
            format="%g",
            step=_step(float(value)),
            help=words(f"set.{name}.about"),
        )
        if name in live or given != float(value):
            found[name] = int(given) if float(given).is_integer() else float(given)
    if "requires" in live:
        found["requires"] = st.text_input(words("set.requires"), live["requires"], key=f"q-{key}").strip()
    return {k: v for k, v in found.items() if k != "requires" or v}


def _step(value: float) -> float:
    return 1.0 if abs(value) >= 10 else 0.1 if abs(value) >= 1 else 0.005 if abs(value) >= 0.5 else 0.0001


def _judge(here: Here, file: RuleFile, before: dict[str, Any] | None, entry: dict[str, Any], removed: bool) -> None:
    """What is wrong with the change, what it would pick today, and the button that writes it."""
    words = here.words
    rules = [entry if r is before else r for r in file.rules if not (removed and r is before)]
    rules += [entry] if before is None and entry["name"] else []
    changed = rules != file.rules
    problems = problems_of(rules, here.settings, here.shared.registry) if changed else []
    for problem in problems:
        st.error(escaped(problem), icon=":material/error:")
    if saved := st.session_state.pop("set-saved", None):
        st.success(words("set.saved", kept=escaped(saved)), icon=":material/check:")
    place = st.container()
    wrong = None if removed else _preview(here, before, entry)
    st.markdown(f"**{words('set.text')}**")
    st.code(json.dumps(entry, ensure_ascii=False, indent=1), language="json", wrap_lines=True)
    with place:
        ready = changed and not problems and wrong is None
        label = words("set.removeit") if removed else words("set.save")
        st.caption(words("set.effect") if changed else words("set.same"))
        if st.button(label, type="primary", disabled=not ready, icon=":material/save:", key="set-save"):
            new = not removed and (before is None or any(entry.get(k) != before.get(k) for k in _EXPRESSIONS))
            _save(here, file, rules, rules[0]["name"] if removed else entry["name"], new)


def _save(here: Here, file: RuleFile, rules: list[Any], goto: str, judge: bool) -> None:
    """Writes the rules. ``judge``: an expression is new, and only Spark knows what Spark accepts: a rule that it
    refuses would stop every watchlist of the next scan."""
    words = here.words
    try:
        if judge:
            with st.spinner(words("set.judging")):
                here.shared.asks.judge(rules)
        kept = save_rules(file, rules, here.settings, here.shared.registry)
    except SiseError as problem:
        st.error(escaped(str(problem)), icon=":material/error:")
        return
    st.session_state.pop("set-file", None)
    st.session_state["set-saved"] = str(kept.relative_to(here.settings.conf))
    st.session_state["set-goto"] = goto
    st.rerun()


def _preview(here: Here, before: dict[str, Any] | None, entry: dict[str, Any]) -> str | None:
    """How many shares the rule picks on the last session and who would come and go; what is wrong with it, if so."""
    words = here.words
    try:
        parsed, _ = parsed_rules({"rules": [entry]})
        if not parsed:
            if {"when", "cross"} & set(entry):
                return "name"
            st.caption(words("set.tickonly"))
            _live_preview(here, entry)
            return None
        found = picked(session_rows(here.view, here.shared.calendars), parsed[0])
    except SiseError as problem:
        st.error(escaped(str(problem)), icon=":material/error:")
        return str(problem)
    listed = entries(here.view, entry["name"]) if before else pd.DataFrame({"country": [], "symbol": []})
    now, then = set(found["country"] + ":" + found["symbol"]), set(listed["country"] + ":" + listed["symbol"])
    st.markdown(
        f"### {words('set.matches', count=f'{len(now):,}')}\n"
        + (words("set.difference", came=len(now - then), went=len(then - now), before=len(then)) if before else "")
    )
    _live_preview(here, entry)
    named = [c for c in found.columns if c not in ("country", "symbol", "market", "name", "rank", "close")]
    columns = [
        column("rank", "#", "int"),
        column("symbol", words("col.share"), "name"),
        column("market", words("col.market")),
        column("close", words("col.close"), "price"),
        *[column(c, c, "compact" if "cap" in c else "number", phone=False) for c in named],
    ]
    rows = found.assign(id_=found["market"] + found["symbol"])
    grid(here, columns, records(rows.head(300), columns, "id_"), "set-preview", empty=words("lists.nobody"), height=300)
    return None


def _live_preview(here: Here, entry: dict[str, Any]) -> None:
    """What the rule at the tick would say before anything has moved: its thresholds are not in the list above."""
    if "live" not in entry:
        return
    words, registry = here.words, here.shared.registry
    try:
        rule = live_rules([entry], registry).by_name[entry["name"]]
    except ConfigError:
        return  # named above (problems_of)
    found = holding(here.view, registry, rule)
    st.caption(words("set.now.open") if found is None else words("set.now", count=f"{found[0]:,}", of=f"{found[1]:,}"))


def _other(here: Here) -> None:
    words = here.words
    st.caption(words("set.other.about"))
    columns = [
        column("variable", words("set.variable")),
        column("value", words("set.value"), wide=True),
        column("what", words("set.what"), wide=True, phone=False),
    ]
    rows = pd.DataFrame(setting_rows(here.settings, words("set.secret")))
    grid(here, columns, records(rows, columns, "variable"), "set-other")
    st.markdown(f"**{words('set.indicators')}**")
    st.code(" ".join(here.shared.registry.core), language=None, wrap_lines=True)


def setting_rows(settings: Settings, hidden: str) -> list[dict[str, str]]:
    """Every setting with its value; of a secret only whether it is set, in the word ``hidden``."""
    rows = []
    for item in fields(settings):
        value = getattr(settings, item.name)
        shown = "" if value in (None, "", ()) else hidden if item.metadata["secret"] else str(value)
        if item.name == "krw_per_usd":
            shown = ", ".join(f"{day}={rate:g}" if day.year > 1 else f"{rate:g}" for day, rate in value.steps)
        rows.append({"variable": item.metadata["variable"], "value": shown, "what": item.metadata["what"]})
    return rows
