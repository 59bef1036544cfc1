"""The selector's order and its decisions, on critiques written by hand."""

from __future__ import annotations

import itertools

import pytest

from medgen.agents.selector import choose, rank
from medgen.records import (
    Candidate,
    Conditioning,
    Correction,
    Critique,
    Finding,
    Measurement,
    Request,
)

TOLD = Conditioning(prompt="chest X-ray", modality="Chest X-ray")


def candidate(
    name: str,
    *,
    accepted: bool | None,
    score: float = 0.5,
    rejections: list[str] | None = None,
    verdict: str | None = None,
    control: bool = False,
    round_number: int = 1,
    corrections: list[Correction] | None = None,
) -> Candidate:
    verdict = verdict or {True: "confirmed", False: "contradicted", None: "abstain"}[accepted]
    return Candidate(
        id=name,
        round=round_number,
        image=f"/{name}.png",
        conditioning=TOLD,
        control=control,
        critique=Critique(
            findings=[Finding(finding="cardiomegaly", verdict=verdict)],  # type: ignore[arg-type]
            rejections=rejections or [],
            corrections=corrections or [],
            accepted=accepted,
            score=score,
        ),
    )


def names(candidates: list[Candidate]) -> list[str]:
    return [one.id for one in candidates]


def test_hard_rejections_come_last_whatever_their_score() -> None:
    memorised = candidate("memorised", accepted=False, score=0.99, rejections=["memorised"])
    poor = candidate("poor", accepted=False, score=0.01)
    assert names(rank([memorised, poor])) == ["poor", "memorised"]


def test_accepted_goes_before_a_higher_score_and_null_is_not_accepted() -> None:
    accepted = candidate("accepted", accepted=True, score=0.3)
    abstained = candidate("abstained", accepted=None, score=0.9)
    contradicted = candidate("contradicted", accepted=False, score=0.8)
    assert names(rank([contradicted, abstained, accepted])) == [
        "accepted",
        "abstained",
        "contradicted",
    ]


def test_order_does_not_depend_on_where_unequal_candidates_stood() -> None:
    three = [
        candidate("a", accepted=True, score=0.7),
        candidate("b", accepted=True, score=0.6),
        candidate("c", accepted=False, score=0.9, rejections=["blurred"]),
    ]
    orders = {tuple(names(rank(list(order)))) for order in itertools.permutations(three)}
    assert orders == {("a", "b", "c")}


def test_control_wins_only_by_being_better() -> None:
    control = candidate("control", accepted=True, score=0.7, control=True)
    equal = candidate("composed", accepted=True, score=0.7)
    worse = candidate("worse", accepted=True, score=0.6)
    assert names(rank([control, equal])) == ["composed", "control"]
    assert names(rank([control, worse])) == ["control", "worse"]


def test_equals_stay_in_the_order_drawn() -> None:
    first, second = candidate("first", accepted=True), candidate("second", accepted=True)
    assert names(rank([first, second])) == ["first", "second"]


def test_unverified_candidate_is_an_error() -> None:
    drawn = Candidate(id="x", round=1, image="/x.png", conditioning=TOLD)
    with pytest.raises(ValueError, match="not been verified"):
        rank([drawn])


REQUEST = Request(prompt="cardiomegaly", rounds=3)


def test_accepts_the_best_and_says_what_was_confirmed() -> None:
    choice = choose(
        [candidate("no", accepted=False), candidate("yes", accepted=True)], 1, REQUEST, 0
    )
    assert (choice.best, choice.decision) == ("yes", "accept")
    assert "cardiomegaly" in choice.why and "control" not in choice.why


def test_an_accepted_control_is_marked_as_the_control() -> None:
    pair = [
        candidate("control", accepted=True, control=True),
        candidate("composed", accepted=False),
    ]
    choice = choose(pair, 1, REQUEST, 0)
    assert (choice.best, choice.decision) == ("control", "accept")
    assert "control" in choice.why


def test_refines_while_the_budget_lasts_then_gives_up() -> None:
    pair = [candidate("a", accepted=False), candidate("b", accepted=False, score=0.6)]
    decisions = [choose(pair, number, REQUEST, 0).decision for number in (1, 2, 3)]
    assert decisions == ["refine", "refine", "give up"]
    last = choose(pair, 3, REQUEST, 0)
    assert last.best == "b"
    assert "3 rounds" in last.why and "contradicted: cardiomegaly" in last.why


def test_seconds_are_a_budget_too() -> None:
    request = REQUEST.model_copy(update={"seconds": 10.0})
    only = [candidate("a", accepted=False)]
    assert choose(only, 1, request, 9.9).decision == "refine"
    assert choose(only, 1, request, 10.0).decision == "give up"


def test_a_rejected_candidate_is_never_accepted() -> None:
    choice = choose([candidate("a", accepted=True, rejections=["memorised"])], 3, REQUEST, 0)
    assert choice.decision == "give up"
    assert "memorised" in choice.why


def test_all_abstaining_twice_stops_before_the_budget() -> None:
    first = [candidate("a", accepted=None, round_number=1)]
    both = [*first, candidate("b", accepted=None, round_number=2)]
    request = REQUEST.model_copy(update={"rounds": 9})
    assert choose(first, 1, request, 0).decision == "refine"
    choice = choose(both, 2, request, 0)
    assert choice.decision == "give up"
    assert "could be measured" in choice.why


def test_a_measurement_that_decided_nothing_is_named() -> None:
    unsure = candidate("a", accepted=None)
    assert unsure.critique is not None
    unsure.critique.findings[0].measurements = [
        Measurement(name="cardiothoracic_ratio", value=0.5, check="segmenter")
    ]
    assert choose([unsure], 1, REQUEST, 0).why == "within measuring error: cardiomegaly"


def test_abstaining_with_something_to_correct_goes_on() -> None:
    wrong = [Correction(finding="cardiomegaly", text="too dark")]
    pair = [
        candidate("a", accepted=None, round_number=1, corrections=wrong),
        candidate("b", accepted=None, round_number=2, corrections=wrong),
    ]
    request = REQUEST.model_copy(update={"rounds": 9})
    assert choose(pair, 2, request, 0).decision == "refine"


def test_a_learned_reward_ranks_within_what_the_verifier_said() -> None:
    rewards = {"rejected": 9.0, "contradicted": 5.0, "accepted": 1.0, "better": 2.0}
    candidates = [
        candidate("rejected", accepted=False, score=0.9, rejections=["blurred"]),
        candidate("contradicted", accepted=False, score=0.9),
        candidate("accepted", accepted=True, score=0.9),
        candidate("better", accepted=True, score=0.6),
    ]
    for one in candidates:
        one.reward = rewards[one.id]
    order = [one.id for one in rank(candidates)]
    assert order == ["better", "accepted", "contradicted", "rejected"]
    candidates[0].reward = None
    assert next(iter(rank(candidates))).id == "accepted", "all have a reward, or none counts"
