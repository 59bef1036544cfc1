"""What the refiner's actions may look at: a candidate, its critique, its forebears, the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medgen.agents.refiner_rules import RefinerRules
from medgen.agents.selector import critique_of
from medgen.agents.state import Trial
from medgen.records import Candidate, Conditioning, Correction, Critique, Finding, Plan


def action_name(action: str) -> str:
    """What the memory knows an action by: the words before its figures."""
    return action.split(": ", 1)[0]


def measured(critique: Critique, quantity: str) -> float | None:
    """The value of a quantity in a critique, or None where nothing measured it."""
    for finding in critique.findings:
        for measurement in finding.measurements:
            if measurement.name == quantity:
                return measurement.value
    for correction in critique.corrections:
        if correction.quantity == quantity and correction.measured is not None:
            return correction.measured
    return None


def correction_of(critique: Critique, quantity: str) -> Correction | None:
    """The correction of a quantity that has a target, or None."""
    for correction in critique.corrections:
        if correction.quantity == quantity and correction.target is not None:
            return correction
    return None


@dataclass(frozen=True)
class Situation:
    """What an action may look at: the plan, the candidate refined, its forebears, the memory.

    `guidance_scale` is the generator's own, for candidates that were told none; `steers` says
    whether it follows aims.
    """

    plan: Plan
    parent: Candidate
    candidates: Sequence[Candidate]
    trials: Sequence[Trial]
    rules: RefinerRules
    guidance_scale: float | None = None
    steers: bool = True

    @property
    def critique(self) -> Critique:
        """The parent's critique."""
        return critique_of(self.parent)

    def dropped(self, action: str) -> bool:
        """Whether this image's trials of an action were enough, and none an improvement."""
        past = [trial.improved for trial in self.trials if trial.action == action]
        return len(past) >= self.rules.memory.trials and not any(past)

    def lineage(self) -> list[Candidate]:
        """The parent, its parent, and so on."""
        by_id = {candidate.id: candidate for candidate in self.candidates}
        line = [self.parent]
        while line[-1].parent is not None:
            line.append(by_id[line[-1].parent])
        return line

    def first_asked(self, quantity: str) -> float | None:
        """What the parent's line was asked for first of a quantity, or None where it never was."""
        told = [one.conditioning.structured.get(quantity) for one in reversed(self.lineage())]
        return next((float(value) for value in told if value is not None), None)

    def numeric(self) -> list[Correction]:
        """Corrections that the structured condition can act on and still may."""
        return [
            correction
            for correction in self.critique.corrections
            if correction.quantity in self.rules.structured
            and correction.measured is not None
            and correction.target is not None
            and not self.dropped(f"structured {correction.quantity}")
        ]

    def unseen(self) -> list[Finding]:
        """Findings asked for and not seen, or not surely, that no number can be moved for."""
        moved = {correction.finding for correction in self.numeric()}
        wrong = {correction.finding for correction in self.critique.corrections}
        return [
            finding
            for finding in self.critique.findings
            if finding.status == "present"
            and (finding.verdict == "contradicted" or finding.finding in wrong)
            and finding.finding not in moved
        ]


Change = tuple[Conditioning, list[str]]
