"""Whether a vendor's new answer fits the history that is stored: splits served twice, missing, half applied; a history
that was rewritten without a word.

A vendor that adjusts (Yahoo, Naver) rewrites its history at a split. Where old and new answers overlap, the ratio of
their closes must be what the known splits say; a constant other ratio is a rewritten history, a changing one is an
answer that contradicts itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import chain, combinations
from math import log
from typing import Any

__all__ = ["Verdict", "judge_answer"]

# Vendors round adjusted prices; what is nearer than this is the same price.
_TOLERANCE = 0.01
# A price move may hide in a split's: so near (in logarithms) a jump has to be to the factor to be taken for it.
_NEAR = 0.2
# A factor so near to 1 cannot be told from a day's move.
_SMALL = 0.35
_SAME_SPLIT_DAYS = 10
_MOST_SPLITS = 6
# So many bars of before a split decide whether the vendor has applied it; its own prices may have moved that day.
_PROOF = 2

Bar = Mapping[str, Any]


@dataclass
class Verdict:
    """``basis``: by date, the true basis of rows that the vendor has not adjusted yet; ``refused``: by date, why a row
    is not believed (``refuse_all``: none of them); ``actions``: the answer's, with what is not believed unconfirmed;
    ``rewritten``: by what an unannounced change multiplied the history; ``whole``: all of it has to be asked for;
    ``seam``: where stored bars that the new history no longer has end, if it has none of the first ones."""

    actions: list[dict[str, Any]] = field(default_factory=list)
    basis: dict[date, date] = field(default_factory=dict)
    refused: dict[date, str] = field(default_factory=dict)
    refuse_all: str = ""
    rewritten: float | None = None
    whole: bool = False
    seam: date | None = None
    notes: list[str] = field(default_factory=list)


def judge_answer(
    stored: Sequence[Bar],
    answered: Sequence[Bar],
    actions: Iterable[Mapping[str, Any]],
    known: Iterable[Mapping[str, Any]],
    asked_from: date | None = None,
) -> Verdict:
    """One share: ``stored`` and ``answered`` are bars (date, close, volume, basis, provisional; ``foreign``: another
    vendor's), ``actions`` the answer's own, ``known`` the lake's; ``asked_from``: the first day asked for (None: the
    answer's first)."""
    known = [a for a in known if a.get("factor") and a["kind"] != "dividend"]
    dated = {(a["ex_date"], a["kind"]): a for a in known}
    verdict = Verdict()
    splits, settled = [], []  # not judged yet; judged before, and believed
    newest = max((bar["basis"] for bar in stored), default=None)
    for action in map(dict, actions):
        if not action.get("factor") or action["kind"] == "dividend":
            verdict.actions.append(action)
        elif (action["ex_date"], action["kind"]) in dated and newest is not None and action["ex_date"] <= newest:
            if (word := dated[action["ex_date"], action["kind"]])["confirmed"]:
                settled.append(dict(word))  # the lake's word stays, but the vendor may not have applied it yet
        else:
            splits.append(action)
    doubles = _doubles(splits, [a for a in known if a["confirmed"]])
    # A provisional bar may be a quote: taken because it goes on from the close before, it tells nothing of a history.
    told = (bar for bar in stored if not bar.get("provisional"))
    before = {bar["date"]: bar for bar in told if bar["volume"] > 0 and bar["close"] > 0}
    overlap = [(before[b["date"]], b) for b in answered if b["date"] in before and b["volume"] > 0 and b["close"] > 0]
    answers = {_id(split) for split in (*splits, *settled)}
    confirmed = [a for a in known if a["confirmed"] and _id(a) not in answers]
    proved: set[tuple[date, str]] = set()
    if overlap:
        overlap.sort(key=lambda pair: pair[0]["date"])
        proved = _compare(overlap, splits, settled, doubles, confirmed, stored, answered, asked_from, verdict)
    else:
        for split in (s for s in splits if _id(s) in doubles):
            _doubt(split, doubles[_id(split)], verdict)
    if not verdict.refuse_all:
        unseen = [s for s in (*splits, *settled) if s["confirmed"] and _id(s) not in proved]
        _look_inside(answered, unseen, verdict)
    verdict.actions += splits
    return verdict


def _id(action: Mapping[str, Any]) -> tuple[date, str]:
    return action["ex_date"], action["kind"]


def _doubles(splits: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]) -> dict[tuple[date, str], str]:
    """Splits whose factor was served days before: the same split a second time, until the prices say otherwise."""
    accepted, found = list(known), {}
    for split in sorted(splits, key=_id):
        twin = next(
            (other for other in accepted if split["ex_date"] != other["ex_date"] and _twins(split, other)),
            None,
        )
        if twin is None:
            accepted.append(split)
        else:
            found[_id(split)] = f"the same split as that of {twin['ex_date']}, served twice"
    return found


def _twins(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    near = abs((one["ex_date"] - other["ex_date"]).days) <= _SAME_SPLIT_DAYS
    return near and abs(log(one["factor"] / other["factor"])) < 1e-6


def _doubt(split: dict[str, Any], why: str, verdict: Verdict) -> None:
    split["confirmed"] = False
    split["evidence"] = f"{split.get('evidence') or ''}; {why}".lstrip("; ")
    verdict.notes.append(f"split of {split['ex_date']} not believed: {why}")


def _expected(old: Bar, new: Bar, events: Iterable[Mapping[str, Any]]) -> float:
    product = 1.0
    for event in events:
        if event["ex_date"] > old["date"] and old["basis"] < event["ex_date"] <= new["basis"]:
            product *= event["factor"]
    return product


def _compare(
    overlap: Sequence[tuple[Bar, Bar]],
    splits: list[dict[str, Any]],
    settled: list[dict[str, Any]],
    doubles: Mapping[tuple[date, str], str],
    known: Sequence[Mapping[str, Any]],
    stored: Sequence[Bar],
    answered: Sequence[Bar],
    asked_from: date | None,
    verdict: Verdict,
) -> set[tuple[date, str]]:
    """The splits that the overlap has decided about. ``overlap``: in the order of the days."""
    first, oldest = min(bar["date"] for bar in answered), min(bar["date"] for bar in stored)
    everything = (asked_from or first) <= oldest
    # Of a part, its first bar alone may be the last one of a history that was rewritten up to there.
    least = 2 if everything else 1

    def off(events: Sequence[Mapping[str, Any]]) -> list[float]:
        return [new["close"] / old["close"] / _expected(old, new, events) for old, new in overlap]

    believed = [*settled, *(s for s in splits if _id(s) not in doubles)]
    all_ = [*settled, *splits]
    smaller = range(len(all_) - 1, -1, -1) if len(all_) <= _MOST_SPLITS else ()
    for some in chain([tuple(believed)], *(combinations(all_, size) for size in smaller)):
        if _mostly_one(ratios := off([*known, *some])) and _step(ratios, least) is None:
            late = [s for s in settled if s not in some]
            if not all(_shows(split, answered) for split in late):
                continue  # it is believed, and these prices do not show it at all
            for split in late:
                _leave_unapplied(split, answered, verdict)
            for split in (s for s in splits if s not in some):
                if any(_twins(split, other) for other in some):
                    _doubt(split, doubles.get(_id(split), "the same split as another, served twice"), verdict)
                elif not _leave_unapplied(split, answered, verdict):
                    _doubt(split, "the prices before it do not show it", verdict)
            return {_id(s) for s in all_ if sum(_expected(*pair, [s]) != 1 for pair in overlap) >= _PROOF}
    ratios = off([*known, *believed])
    step = _step(ratios, least)
    middle = step or sorted(ratios)[len(ratios) // 2]
    shown = (
        f"the vendor's history is the stored one × {middle:.4g} over {len(ratios)} sessions, and no split explains it"
    )
    if step is None and not _mostly_one([ratio / middle for ratio in ratios]):
        shown = (
            f"contradicts the stored history: × {min(ratios):.4g} to × {max(ratios):.4g} over {len(ratios)} sessions"
        )
        if not any(old.get("foreign") for old, _ in overlap):
            verdict.refuse_all = shown
            return set()
        # Vendors differ in what they adjust to: all of one of them fits together.
        shown += ", some of which are another vendor's"
    elif len(ratios) == 1 and abs(log(middle)) < _SMALL:
        return set()  # one bar that differs a little is a correction
    verdict.rewritten = middle
    verdict.notes.append(shown)
    if not everything:
        verdict.whole, verdict.refuse_all = True, f"{shown}: the whole history is asked for"
    elif first > oldest:  # all was asked for: the vendor has no more, and asking again would bring no more
        verdict.seam = first
        verdict.notes.append(f"the bars before {first} are of the old history, which the vendor no longer has")
    return set()


def _step(ratios: Sequence[float], least: int) -> float | None:
    """By what all bars up to some session differ, ``least`` or more, if those after it do not: a split that came into
    the history later than its own bars."""
    off = [abs(ratio - 1) > _TOLERANCE for ratio in ratios]
    count = off.index(False) if False in off else 0
    if count < least or any(off[count:]):
        return None
    middle = sorted(ratios[:count])[count // 2]
    return middle if all(abs(ratio / middle - 1) <= _TOLERANCE for ratio in ratios[:count]) else None


def _mostly_one(ratios: Sequence[float]) -> bool:
    """All but a few are 1: a bar that was corrected is no other history."""
    good = sum(abs(ratio - 1) <= _TOLERANCE for ratio in ratios)
    return good == len(ratios) or good >= max(3, 0.6 * len(ratios))


def _jump(answered: Sequence[Bar], day: date) -> float | None:
    """The close on ``day`` (or the next bar) over the last one before it, as the answer has them."""
    bars = sorted((b for b in answered if b["volume"] > 0 and b["close"] > 0), key=lambda b: b["date"])
    earlier = [b for b in bars if b["date"] < day]
    later = [b for b in bars if b["date"] >= day]
    return later[0]["close"] / earlier[-1]["close"] if earlier and later else None


def _shows(split: Mapping[str, Any], answered: Sequence[Bar]) -> bool:
    """Whether the answer's prices jump at the split, by its factor."""
    jump = _jump(answered, split["ex_date"])
    return jump is not None and abs(log(split["factor"])) >= _SMALL and abs(log(jump / split["factor"])) <= _NEAR


def _leave_unapplied(split: Mapping[str, Any], answered: Sequence[Bar], verdict: Verdict) -> bool:
    """A split that shows as a jump is real, and the vendor's older prices are from before it. Their basis says so."""
    if not _shows(split, answered):
        return False
    eve = split["ex_date"] - timedelta(days=1)
    for bar in answered:
        if bar["date"] < split["ex_date"]:
            verdict.basis[bar["date"]] = min(verdict.basis.get(bar["date"], eve), eve)
    verdict.notes.append(f"split of {split['ex_date']} is not yet in the vendor's older prices")
    return True


def _look_inside(answered: Sequence[Bar], splits: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    """Splits against the answer's own prices: one that shows as a jump is not applied, one that shows upside down is
    applied twice."""
    for split in splits:
        jump = _jump(answered, split["ex_date"])
        if jump is None or abs(log(split["factor"])) < _SMALL:
            continue
        if abs(log(jump * split["factor"])) <= _NEAR:
            reason = (
                f"the split of {split['ex_date']} (× {split['factor']:.4g}) is applied twice to the prices before it"
            )
            verdict.refused |= {bar["date"]: reason for bar in answered if bar["date"] < split["ex_date"]}
            verdict.notes.append(reason)
        elif not verdict.basis:
            _leave_unapplied(split, answered, verdict)
