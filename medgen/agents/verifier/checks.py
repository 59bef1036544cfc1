"""The checks on findings: each measures one thing about one finding, or abstains and says why.

A check gives a probability that the image is as asked; thresholds, errors and figures come from
cards (data files), never from here. Checks see the plan made from the user's words and nothing
of what the generator was told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from scipy.special import expit
from scipy.stats import norm

from medgen.agents.verifier.cards import (
    AuditEntry,
    PopulationOpacity,
    ReaderEntry,
    audit,
    opacity_card,
    reader_card,
    rules,
)
from medgen.agents.verifier.evidence import Evidence
from medgen.knowledge.cards import finding_cards
from medgen.measure.chest import cardiothoracic_limits
from medgen.measure.reader import finding_probability
from medgen.records import AgeGroup, Correction, Finding, Measurement, Plan

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Measured:
    """A check's answer: what it measured, how likely the image is as asked, and what to change.

    `weight` is how much its probability counts beside other members', 0-1. A `necessary` answer is
    about a part of the request (its side), not about the finding's presence: it can contradict
    the whole, and its confirmation alone confirms nothing. An `advisory` answer counts beside other
    members' and decides nothing without them. An `unspecific` answer tells the finding from its
    absence but not from its kin (opacity, the kind of pneumonia): alone it contradicts at most.
    """

    measurements: list[Measurement]
    probability: float
    weight: float
    corrections: list[Correction] = field(default_factory=list)
    necessary: bool = False
    advisory: bool = False
    unspecific: bool = False


@dataclass(frozen=True)
class Abstain:
    """A check's answer when it cannot measure, with the reason."""

    check: str
    reason: str


class Check(Protocol):
    """One member of the panel.

    `holds` says that where it was asked and abstains, nothing may be confirmed without it.
    """

    name: str
    holds: bool

    def covers(self, modality: str, finding: str) -> bool:
        """Whether this member is registered for a finding of a modality."""

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """Whether its word may ever settle the presence of a finding that it covers.

        A member that abstains on every image, or only speaks beside others, decides nothing.

        Args:
            modality: A modality card's name.
            finding: One that it covers.
            population: Whose films; None where that is not known.
        """

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain | None:
        """Measure one image against one asked finding whose status is present or absent.

        None where the request has nothing for this member to measure.
        """


def sign_of(finding: str, modality: str) -> str:
    """How the finding looks, in the knowledge base's first words, or its name."""
    card = finding_cards().get(modality, {}).get(finding)
    return card.signs[0] if card else finding


def _films(group: str) -> str:
    return {"child": "children", "adult": "adults"}[group]


class CardiothoracicCheck:
    """Heart size by the cardiothoracic ratio; adult PA films only."""

    name = "cardiothoracic ratio"
    holds = False

    def covers(self, modality: str, finding: str) -> bool:
        """Chest X-ray findings listed under `cardiothoracic_ratio` in the rules."""
        return modality == "Chest X-ray" and finding in rules().cardiothoracic_ratio.enlarged

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """On films of adults."""
        return population != "child"

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain:
        """Compare the ratio with the limit of the view and the age group."""
        card = rules().cardiothoracic_ratio
        view, age_group = plan.view or "PA", plan.age_group or "adult"
        limits = cardiothoracic_limits(view, age_group)
        if limits is None or limits[0] is None:
            return Abstain(
                self.name,
                f"the ratio does not tell heart size on {view} films of {_films(age_group)}",
            )
        measured = evidence.chest
        if measured.ratio is None:
            return Abstain(self.name, measured.reason or "heart or lungs not found")
        ratio, limit = measured.ratio, limits[0]
        enlarged = card.enlarged[finding.finding] == (finding.status == "present")
        expected: Range = (limit, None) if enlarged else (None, limit)
        aim = card.target_enlarged if enlarged else card.target_normal
        if enlarged and finding.severity is not None:
            grade = card.severity[finding.severity]
            expected = (grade.low, grade.high)
            aim = grade.target
        probability = _inside(ratio, expected, card.error)
        measurement = Measurement(
            name="cardiothoracic_ratio",
            value=round(ratio, 4),
            unit="ratio",
            expected=expected,
            check=self.name,
            accuracy=card.accuracy,
        )
        corrections = []
        if probability < rules().confirm:
            corrections.append(_ratio_correction(finding, ratio, expected, aim))
        return Measured([measurement], probability, card.weight, corrections)


def _ratio_correction(finding: Finding, ratio: float, expected: Range, aim: float) -> Correction:
    low, high = expected
    bounds = " and ".join(
        ([] if low is None else [f"> {low:.2f}"]) + ([] if high is None else [f"<= {high:.2f}"])
    )
    asked = f"{finding.severity} {finding.finding}" if finding.severity else finding.finding
    if finding.status == "absent":
        asked = f"no {finding.finding}"
    change = aim / ratio - 1
    verb = "enlarge" if change > 0 else "reduce"
    return Correction(
        finding=finding.finding,
        text=f"cardiothoracic ratio {ratio:.2f}, {asked} needs {bounds}: {verb} the cardiac "
        f"silhouette by about {max(1, round(abs(change) * 100))} %",
        quantity="cardiothoracic_ratio",
        measured=round(ratio, 4),
        target=aim,
    )


def _inside(value: float, expected: Range, error: float) -> float:
    """Probability that the true value lies in a range, given a normal measuring error."""
    low = 0.0 if expected[0] is None else float(norm.cdf((expected[0] - value) / error))
    high = 1.0 if expected[1] is None else float(norm.cdf((expected[1] - value) / error))
    return max(0.0, high - low)


class OpacityCheck:
    """Lung opacity by side, for findings that make a lung denser."""

    name = "lung opacity"
    holds = False

    def covers(self, modality: str, finding: str) -> bool:
        """Chest X-ray findings listed under `opacity` in the rules."""
        return modality == "Chest X-ray" and finding in rules().opacity.opaque

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """Where density tells presence; never a kind of pneumonia, which looks like the others."""
        cards = opacity_card().populations
        known = [card for name, card in cards.items() if population in (None, name)]
        return finding not in rules().opacity.unspecific and any(one.measurable for one in known)

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain:
        """Compare each lung's density with films of the same population, with and without.

        Where density does not tell presence, only the asked side is compared with the other.
        """
        population = evidence.population(plan)
        card = opacity_card().populations[population]
        opaque = rules().opacity.opaque[finding.finding] == (finding.status == "present")
        if not card.measurable and not (opaque and finding.side in ("right", "left")):
            return Abstain(self.name, card.reason or "not measurable")
        measured = evidence.chest
        right, left = measured.opacity_right, measured.opacity_left
        if right is None or left is None:
            return Abstain(self.name, measured.reason or "lungs not found")
        values = {"right": right, "left": left}
        sides: list[str] = [s for s in values if finding.side in (s, "bilateral", None)]
        chance = {side: float(expit(card.intercept + card.slope * v)) for side, v in values.items()}
        if not opaque:
            probability = min(1 - chance[side] for side in sides)
        elif finding.side == "bilateral":
            probability = min(chance.values())
        else:
            probability = max(chance[side] for side in sides)
        expected: Range = (card.opaque_from, None) if opaque else (None, card.clear_to)
        measurements = [
            Measurement(
                name=f"opacity_{side}",
                value=round(value, 4),
                unit="0 air - 1 soft tissue",
                expected=expected if side in sides and card.measurable else None,
                check=self.name,
                accuracy=card.accuracy,
            )
            for side, value in values.items()
        ]
        corrections: list[Correction] = []
        asked = f"{finding.side or ''} {finding.finding}".strip()
        denser = self._denser_side(finding, values) if opaque else None
        if not card.measurable:
            probability = 1 - card.side_accuracy if denser else card.side_accuracy
        elif denser and chance[denser] > probability:
            probability = min(probability, 1 - chance[denser])
        else:
            denser = None
        if denser:
            corrections.append(
                Correction(
                    finding=finding.finding,
                    text=f"the {denser} lung is denser ({values[denser]:.2f}) than the "
                    f"{finding.side} ({values[str(finding.side)]:.2f}), {asked} asked: clear the "
                    f"{denser} lung",
                    quantity=f"opacity_{denser}",
                    measured=round(values[denser], 4),
                    target=card.clear_target,
                )
            )
        if not card.measurable:
            return Measured(measurements, probability, card.weight, corrections, necessary=True)
        if probability < rules().confirm:
            corrections += self._corrections(finding, values, sides, opaque, card, asked)
        unspecific = finding.status == "present" and finding.finding in rules().opacity.unspecific
        return Measured(measurements, probability, card.weight, corrections, unspecific=unspecific)

    @staticmethod
    def _denser_side(finding: Finding, values: dict[str, float]) -> str | None:
        """The side that was not asked, where its lung is clearly the denser one."""
        if finding.side not in ("right", "left"):
            return None
        other = "left" if finding.side == "right" else "right"
        excess = values[other] - values[finding.side]
        return other if excess > rules().opacity.wrong_side else None

    @staticmethod
    def _corrections(
        finding: Finding,
        values: dict[str, float],
        sides: list[str],
        opaque: bool,
        card: PopulationOpacity,
        asked: str,
    ) -> list[Correction]:
        if finding.status == "absent":
            asked = f"no {asked}"
        if opaque and finding.side is None:
            sides = [max(values, key=values.__getitem__)]
        limit = card.opaque_from if opaque else card.clear_to
        target = card.opaque_target if opaque else card.clear_target
        wrong = [side for side in sides if (values[side] < limit) == opaque]
        verb = "make the {} lung denser, {}" if opaque else "clear the {} lung, {}"
        return [
            Correction(
                finding=finding.finding,
                text=f"{side} lung opacity {values[side]:.2f}, {asked} needs "
                f"{'>=' if opaque else '<='} {limit:.2f}: "
                + verb.format(side, f"to about {target:.2f}"),
                quantity=f"opacity_{side}",
                measured=round(values[side], 4),
                target=target,
            )
            for side in wrong
        ]


class ReaderCheck:
    """Finding classifiers: the reader's probabilities, where its card lets them count."""

    name = "finding classifier"
    holds = False

    def covers(self, modality: str, finding: str) -> bool:
        """Findings that the reader's card lists."""
        return finding in reader_card().findings.get(modality, {})

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """Where a head is accurate enough and the shortcut audit lets it speak."""
        for entry in reader_card().findings[modality][finding]:
            audited = _audited(modality, finding, entry)
            asked = population is None or entry.population in (None, population)
            if asked and entry.measurable and not (audited is not None and audited.reads_source):
                return True
        return False

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain:
        """Ask the head that was trained on films of this population."""
        entries = reader_card().findings[plan.modality][finding.finding]
        if any(entry.population for entry in entries):
            population = evidence.population(plan)
            entries = [entry for entry in entries if entry.population == population]
            if not entries:
                return Abstain(
                    self.name, f"not trained for {finding.finding} on films of {_films(population)}"
                )
        entry = entries[0]
        if not entry.measurable:
            return Abstain(self.name, entry.reason or "not measurable")
        audited = _audited(plan.modality, finding.finding, entry)
        if audited is not None and audited.reads_source:
            return Abstain(
                self.name,
                f"its accuracy survives without the lesion ({audited.note}): it reads the source",
            )
        classes = evidence.reading.heads[entry.head]
        shown = finding_probability(classes, entry.shows, entry.intercept, entry.slope)
        present = finding.status == "present"
        probability = shown if present else 1 - shown
        measurement = Measurement(
            name=f"probability of {finding.finding}",
            value=round(shown, 4),
            unit="probability",
            expected=(rules().confirm, None) if present else (None, round(1 - rules().confirm, 4)),
            check=f"{self.name} ({entry.head})",
            accuracy=entry.accuracy,
        )
        corrections = []
        if probability < rules().confirm:
            corrections.append(reading_correction(finding, plan.modality, classes, entry.shows))
        return Measured([measurement], probability, entry.weight, corrections)


def _audited(modality: str, finding: str, entry: ReaderEntry) -> AuditEntry | None:
    """The shortcut audit's word on one entry of the reader's card."""
    entries = reader_card().findings[modality][finding]
    audited = audit().get(modality, {}).get(finding, [])
    place = entries.index(entry)
    return audited[place] if place < len(audited) else None


def reading_correction(
    finding: Finding, modality: str, classes: dict[str, float], shows: list[str]
) -> Correction:
    """What a classifier read instead of what was asked, and the sign to show or to remove.

    Args:
        finding: As asked.
        modality: Where its sign is looked up.
        classes: Probability by class.
        shows: The classes that show the finding.
    """
    shown = sum(classes[name] for name in shows)
    if finding.status == "absent":
        text = (
            f"read as {finding.finding} ({shown:.2f}), none asked: remove "
            f"{sign_of(finding.finding, modality)}"
        )
    else:
        others = {name: p for name, p in classes.items() if name not in shows}
        seen = max(others, key=others.__getitem__)
        text = (
            f"read as {seen} ({others[seen]:.2f}), {finding.finding} asked ({shown:.2f}): show "
            f"{sign_of(finding.finding, modality)}"
        )
    return Correction(finding=finding.finding, text=text)
