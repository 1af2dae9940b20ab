"""Announced actions that their source no longer announces: called off, or moved to another day.

A split whose listing is put off is announced anew with the later date, and both would count: 1/50 twice. What a whole
answer no longer has is therefore unconfirmed, until it is announced again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from math import isclose
from typing import Any

from sise.prices.unsettled import NO_LONGER
from sise.sources.asks import Ask
from sise.sources.kis_actions import announces

__all__ = ["withdrawn"]

# So far after a question's last session what takes effect is sure to be in the answer (it goes by record dates).
_AHEAD = timedelta(days=20)
_TWINS_APART = timedelta(days=180)


def withdrawn(
    stored: Iterable[Mapping[str, Any]], answered: Sequence[Mapping[str, Any]], asks: Iterable[Ask]
) -> list[dict[str, Any]]:
    """Of ``stored`` (rows of ACTIONS) those that are to be unconfirmed, so written.

    ``answered``: all the actions of the answers to ``asks``, which came whole. Only announcements are looked at, not
    what a reference price told; dividends are not, because they change no price. A change of face value cannot happen
    twice, so that one's earlier day is void even where it lies before what was asked for."""
    kinds = [(ask.kind.removeprefix("actions "), ask) for ask in asks if ask.kind.startswith("actions ")]
    there = {_id(action) for action in answered}
    by_share: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for action in answered:
        by_share.setdefault((action["country"], action["symbol"]), []).append(action)

    def gone(action: Mapping[str, Any]) -> bool:
        day: date = action["ex_date"]
        return any(
            announces(kind, action)
            and (
                ask.first <= day <= ask.last + _AHEAD
                or (kind == "rev-split" and any(_twins(action, other) for other in by_share.get(_id(action)[:2], ())))
            )
            for kind, ask in kinds
        )

    return [
        {**action, "confirmed": False, "evidence": f"{action['evidence']}; {NO_LONGER}"}
        for action in stored
        if action["confirmed"] and action["kind"] != "dividend" and _id(action) not in there and gone(action)
    ]


def _id(action: Mapping[str, Any]) -> tuple[Any, ...]:
    return action["country"], action["symbol"], action["ex_date"], action["kind"]


def _twins(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (
        one["kind"] == other["kind"]
        and bool(one["factor"] and other["factor"])
        and isclose(one["factor"], other["factor"], rel_tol=1e-6)
        and abs(one["ex_date"] - other["ex_date"]) <= _TWINS_APART
    )
