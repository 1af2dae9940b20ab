"""Vendors' histories against each other: splits that are served twice, late, half or not at all."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from sise.prices.overlap import judge_answer

START = date(2025, 3, 3)
DAYS = [START + timedelta(days=n) for n in range(20)]


def bars(closes, basis, days=DAYS):
    return [
        {"date": d, "close": float(c), "volume": 100, "basis": max(d, basis)}
        for d, c in zip(days, closes, strict=False)
    ]


def split(day, factor=0.25, **other):
    return {"ex_date": day, "kind": "split", "factor": factor, "confirmed": True, "evidence": "vendor"} | other


def flat(level, count=20):
    return [level + n % 3 for n in range(count)]


EX = DAYS[15]
STORED = bars(flat(100, 15), DAYS[14])


def test_the_same_history_and_a_corrected_bar():
    verdict = judge_answer(STORED, bars(flat(100), DAYS[19]), [], [])
    assert (verdict.refuse_all, verdict.rewritten, verdict.notes) == ("", None, [])
    corrected = flat(100)
    corrected[12] *= 1.4
    assert judge_answer(STORED, bars(corrected, DAYS[19])[10:], [], []).refuse_all == ""


def test_an_announced_and_applied_split():
    verdict = judge_answer(STORED, bars([c / 4 for c in flat(100)], DAYS[19]), [split(EX)], [])
    assert verdict.actions[0]["confirmed"] and not verdict.notes and not verdict.basis


def test_quoted_bars_do_not_speak_for_the_history_before_them():
    old, quoted = bars(flat(50, 17), DAYS[14]), [bar | {"provisional": True} for bar in bars(flat(50), DAYS[14])[15:18]]
    stored = [*old[:15], *quoted]
    early = judge_answer(stored[14:], bars(flat(50), DAYS[19])[14:19], [split(EX, 0.5)], [])
    assert not early.actions[0]["confirmed"], "the stored history had it applied before the ex-date"
    fallen = [close * 0.97 for close in flat(50, 15)] + flat(50)[15:]
    silent = judge_answer(stored, bars(fallen, DAYS[19])[11:19], [], [], DAYS[11])
    assert silent.whole and silent.rewritten == pytest.approx(0.97)


def test_a_split_served_on_two_days():
    for other in (DAYS[13], DAYS[16]):
        verdict = judge_answer(STORED, bars([c / 4 for c in flat(100)], DAYS[19]), [split(EX), split(other)], [])
        assert sum(a["confirmed"] for a in verdict.actions) == 1 and "twice" in verdict.notes[0]
        assert verdict.refuse_all == "" and verdict.rewritten is None


def test_a_split_that_is_announced_and_not_applied_yet():
    closes = [*flat(100, 15), *[c / 4 for c in flat(100, 5)]]
    verdict = judge_answer(STORED, bars(closes, DAYS[19]), [split(EX)], [])
    assert verdict.actions[0]["confirmed"]
    assert verdict.basis == {d: EX - timedelta(days=1) for d in DAYS[:15]}


@pytest.mark.parametrize("evening", range(15, 20))
@pytest.mark.parametrize("window", [4, 20])
def test_a_split_that_is_applied_only_days_after_it_was_believed(evening, window):
    """On the evenings after the first the lake believes it, and has the older bars as of the eve."""
    eve = EX - timedelta(days=1)
    traded = [*flat(100, 15), *[c / 4 for c in flat(100, 5)]]
    stored = [*bars(traded[:15], eve), *bars(traded[15:evening], DAYS[evening - 1], DAYS[15:evening])]
    stored += bars(traded[15:16], EX, [EX]) if evening == 15 else []  # a run that was killed asks the same again
    answered = bars(traded[: evening + 1], DAYS[evening])[-window:]
    verdict = judge_answer(stored, answered, [split(EX)], [split(EX)])
    assert (verdict.rewritten, verdict.whole, verdict.refuse_all, verdict.actions) == (None, False, "", [])
    assert verdict.basis == {bar["date"]: eve for bar in answered if bar["date"] < EX}
    applied = bars([c / 4 for c in flat(100)][: evening + 1], DAYS[evening])[-window:]
    applied[-len(traded[15 : evening + 1]) :] = answered[-len(traded[15 : evening + 1]) :]
    verdict = judge_answer(stored, applied, [split(EX)], [split(EX)])
    assert (verdict.rewritten, verdict.whole, verdict.refuse_all, verdict.basis) == (None, False, "", {})


def test_a_split_that_the_prices_do_not_know():
    verdict = judge_answer(STORED, bars(flat(100), DAYS[19]), [split(EX)], [])
    assert not verdict.actions[0]["confirmed"] and "do not show it" in verdict.actions[0]["evidence"]
    assert verdict.refuse_all == "" and verdict.basis == {}


def test_a_history_rewritten_without_a_word():
    answered = bars([c / 4 for c in flat(100)], DAYS[19])
    whole = judge_answer(STORED, answered, [], [])
    assert whole.rewritten == pytest.approx(0.25) and not whole.whole and whole.refuse_all == ""
    part = judge_answer(STORED, answered[10:], [], [])
    assert part.whole and "no split explains it" in part.refuse_all


def test_a_rewritten_history_whose_first_sessions_the_vendor_no_longer_has():
    answered = bars([c / 4 for c in flat(100)], DAYS[19])[1:]
    verdict = judge_answer(STORED, answered, [], [], asked_from=DAYS[0])
    assert not verdict.whole and verdict.refuse_all == "" and verdict.rewritten == pytest.approx(0.25)
    assert verdict.seam == DAYS[1] and "before 2025-03-04 are of the old history" in verdict.notes[-1]
    again = judge_answer(STORED, answered, [], [], asked_from=DAYS[1])
    assert again.whole and again.seam is None
    assert judge_answer(STORED, bars([c / 4 for c in flat(100)], DAYS[19]), [], [], asked_from=DAYS[0]).seam is None


def test_a_split_applied_to_half_of_the_history():
    closes = [*[c / 4 for c in flat(100, 7)], *flat(100, 13)]
    assert "contradicts" in judge_answer(STORED, bars(closes, DAYS[19]), [], []).refuse_all


def test_a_split_applied_twice_to_what_is_before_it():
    closes = [*[c / 16 for c in flat(100, 15)], *[c / 4 for c in flat(100, 5)]]
    fresh = judge_answer([], bars(closes, DAYS[19]), [split(EX)], [])
    assert set(fresh.refused) == set(DAYS[:15]) and "applied twice" in fresh.notes[0]
    known = judge_answer(STORED, bars(closes, DAYS[19])[10:], [split(EX)], [])
    assert known.whole and known.refuse_all


def test_a_dividend_changes_nothing_and_what_was_judged_stays():
    paid = {"ex_date": EX, "kind": "dividend", "factor": None, "confirmed": True, "amount": 1.0}
    later = bars(flat(100), DAYS[19])
    doubted = split(DAYS[12], confirmed=False)
    verdict = judge_answer(bars(flat(100), DAYS[19]), later, [paid, split(DAYS[12])], [doubted])
    assert verdict.actions == [paid]  # the lake's unconfirmed split is not confirmed by being served again


def test_two_splits_of_which_one_is_real():
    applied = bars([c / 4 for c in flat(100)], DAYS[19])
    verdict = judge_answer(STORED, applied, [split(EX), split(DAYS[17], 0.5)], [])
    assert {a["ex_date"]: a["confirmed"] for a in verdict.actions} == {EX: True, DAYS[17]: False}


@pytest.mark.parametrize("late", [1, 2, 3, 4])
def test_a_history_that_is_rewritten_some_sessions_after_the_split(late):
    """Nobody announced it: until then the vendor's history jumps, and those bars are stored. They are no correction."""
    closes = [*flat(100, 15), *[c / 4 for c in flat(100, 5)]]
    stored = bars(closes[: 15 + late], DAYS[14 + late])
    answered = bars([c / 4 for c in flat(100)][: 16 + late], DAYS[15 + late])
    answered[15:] = bars(closes[15 : 16 + late], DAYS[15 + late], DAYS[15:])
    part = judge_answer(stored, answered[-6:], [], [], answered[-6]["date"])
    assert part.whole and part.rewritten == pytest.approx(0.25)
    whole = judge_answer(stored, answered, [], [], DAYS[0])
    assert (whole.whole, whole.refuse_all, whole.rewritten) == (False, "", pytest.approx(0.25))


def test_the_first_bar_of_an_overlap_may_have_been_corrected():
    corrected = flat(100)
    corrected[10] *= 1.1
    assert judge_answer(STORED, bars(corrected, DAYS[19])[10:], [], [], DAYS[10]).whole, "which it is the whole tells"
    whole = judge_answer(STORED, bars(corrected, DAYS[19]), [], [], DAYS[0])
    assert (whole.whole, whole.refuse_all, whole.rewritten) == (False, "", None)
    corrected = [120.0, *flat(100)[1:]]
    whole = judge_answer(STORED, bars(corrected, DAYS[19]), [], [], DAYS[0])
    assert (whole.whole, whole.rewritten) == (False, None), "the first one of all is no history before a split"


@pytest.mark.parametrize(("factor", "move"), [(2 / 3, 0.78), (0.5, 0.6), (2 / 3, 1.4), (2.0, 0.55)])
def test_a_split_that_the_overlap_shows_as_applied_is_applied_whatever_the_price_did_that_day(factor, move):
    closes = [c * factor for c in flat(100, 15)] + [c * factor * move for c in flat(100, 5)]
    verdict = judge_answer(STORED, bars(closes, DAYS[15])[11:16], [split(EX, factor)], [], DAYS[11])
    assert verdict.actions[0]["confirmed"] and not (verdict.basis or verdict.refused or verdict.refuse_all)


def test_another_vendor_s_bars_are_compared_as_they_were_traded():
    traded = [bar | {"basis": bar["date"], "foreign": True} for bar in bars(flat(100, 15), START)]
    adjusted = bars([c / 1.2 for c in flat(100)], DAYS[19])
    part = judge_answer(traded, adjusted[11:], [], [], DAYS[11])
    assert part.whole and part.rewritten == pytest.approx(1 / 1.2)
    known = judge_answer(traded, adjusted[11:], [], [split(EX, 1 / 1.2)], DAYS[11])
    assert (known.whole, known.refuse_all, known.rewritten) == (False, "", None)
    mixed = [bar | {"close": bar["close"] * (1.5 if n % 2 else 1)} for n, bar in enumerate(adjusted)]
    assert judge_answer(traded, mixed[11:], [], [], DAYS[11]).whole
    whole = judge_answer(traded, mixed, [], [], DAYS[0])
    assert not whole.refuse_all and whole.rewritten and not whole.whole, "all of one vendor fits together"
    own = [{**bar, "foreign": False} for bar in traded]
    assert "contradicts" in judge_answer(own, mixed, [], [], DAYS[0]).refuse_all
