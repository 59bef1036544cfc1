"""The selector: ranks candidates by what was measured and decides what happens to each image.

Where every candidate has a learned reward (`medgen.feedback.selector`), that ranks those that are
not rejected; what is accepted is the verifier's word all the same.

Accepted means `Critique.accepted is True`; that everything abstained (null) is not accepted. The
order is fixed, ties included, so that the same critiques always choose the same image. Knows
nothing of how candidates are drawn or corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import yaml

from medgen.agents.state import Choice
from medgen.records import Candidate, Critique, Record, Request


class SelectorRules(Record):
    """`rules/selector.yaml`: after how many all-abstaining rounds more are no use."""

    abstaining_rounds: int


@lru_cache
def selector_rules() -> SelectorRules:
    """The bundled rules, read once."""
    source = resources.files("medgen.agents") / "rules" / "selector.yaml"
    return SelectorRules.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))


def critique_of(candidate: Candidate) -> Critique:
    """A verified candidate's critique.

    Raises:
        ValueError: The candidate has not been verified.
    """
    if candidate.critique is None:
        raise ValueError(f"candidate {candidate.id} has not been verified")
    return candidate.critique


def rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates, best first: hard rejections last, then accepted first, then by reward or score.

    Equals stay in the order drawn, except that the control comes after a composed candidate: it
    wins only by being better.
    """

    learned = all(one.reward is not None for one in candidates)

    def standing(candidate: Candidate) -> tuple[bool, bool, float, bool]:
        critique = critique_of(candidate)
        worth = candidate.reward if learned else critique.score
        return (
            bool(critique.rejections),
            critique.accepted is not True,
            -(worth or 0.0),
            candidate.control,
        )

    return sorted(candidates, key=standing)


def _tells_nothing(critique: Critique) -> bool:
    return (
        critique.accepted is None
        and not critique.rejections
        and not critique.corrections
        and all(finding.verdict != "confirmed" for finding in critique.findings)
    )


def _nothing_to_act_on(candidates: Sequence[Candidate], rounds: int) -> bool:
    needed = selector_rules().abstaining_rounds
    recent = [one for one in candidates if one.round > rounds - needed]
    return rounds >= needed and all(_tells_nothing(critique_of(one)) for one in recent)


def _shortfall(critique: Critique) -> str:
    if critique.rejections:
        return "rejected: " + "; ".join(critique.rejections)
    contradicted = [one.finding for one in critique.findings if one.verdict == "contradicted"]
    if contradicted:
        return "contradicted: " + ", ".join(contradicted)
    unsure = [one.finding for one in critique.findings if one.measurements]
    if unsure:
        return "within measuring error: " + ", ".join(unsure)
    return "nothing that was asked could be measured"


def choose(
    candidates: Sequence[Candidate], round_number: int, request: Request, seconds: float
) -> Choice:
    """Decide on one image after a round.

    Args:
        candidates: All verified candidates of this image so far, control included.
        round_number: The round just verified, from 1.
        request: Its `rounds` and `seconds` are the budget.
        seconds: Working seconds spent by the run.

    Returns:
        The best candidate so far, and accept, refine or give up with the reason.
    """
    best = rank(candidates)[0]
    critique = critique_of(best)
    index = best.index
    if critique.accepted is True and not critique.rejections:
        confirmed = [one.finding for one in critique.findings if one.verdict == "confirmed"]
        why = f"confirmed: {', '.join(confirmed)}" if confirmed else "accepted by the verifier"
        if best.control:
            why += "; the control, unrefined, ranked best"
        return Choice(index=index, best=best.id, decision="accept", why=why)
    shortfall = _shortfall(critique)
    if round_number >= request.rounds:
        why = f"{shortfall}; all {request.rounds} rounds used"
    elif request.seconds is not None and seconds >= request.seconds:
        why = f"{shortfall}; {seconds:.0f} of {request.seconds:.0f} seconds used"
    elif _nothing_to_act_on(candidates, round_number):
        why = f"{shortfall}; more rounds could not change that"
    else:
        return Choice(index=index, best=best.id, decision="refine", why=shortfall)
    return Choice(index=index, best=best.id, decision="give up", why=why)
