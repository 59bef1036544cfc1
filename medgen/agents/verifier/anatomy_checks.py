"""Checks on what the anatomy modules read: a value against a finding, the eye, impossible counts.

Probabilities come from logistics fitted on real images and their figures from the card
(`medgen/measure/weights/anatomy/figures.yaml`); a value that tells too little abstains with that
figure, and is still reported in the critique's `anatomy`.
"""

from __future__ import annotations

from scipy.special import expit, logit

from medgen.agents.verifier.cards import AnatomyEntry, anatomy_figures, rules
from medgen.agents.verifier.checks import Abstain, Measured, sign_of
from medgen.agents.verifier.evidence import Evidence
from medgen.measure.anatomy import Anatomy
from medgen.measure.anatomy_card import anatomy_cards
from medgen.records import AgeGroup, Correction, Finding, Measurement, Plan


class AnatomyCheck:
    """One value of the anatomy against one finding."""

    name = "anatomy"
    holds = False

    def covers(self, modality: str, finding: str) -> bool:
        """Findings that the anatomy's figures list."""
        return finding in anatomy_figures().findings.get(modality, {})

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """Where a value tells enough."""
        return any(one.measurable for one in anatomy_figures().findings[modality][finding])

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain:
        """Turn the value into the probability that the image is as asked."""
        entry = _entry(anatomy_figures().findings[plan.modality][finding.finding], plan)
        if entry is None:
            return Abstain(self.name, f"no figures for {plan.view} films")
        name = f"{self.name} ({entry.value.replace('_', ' ')})"
        if not entry.measurable:
            return Abstain(name, entry.reason or "not measurable")
        anatomy = evidence.anatomy(plan.modality)
        value = anatomy.values.get(entry.value)
        if value is None:
            return Abstain(name, "; ".join(anatomy.missing) or "not found in this image")
        assert entry.intercept is not None and entry.slope is not None
        shown = float(expit(entry.intercept + entry.slope * value))
        present = finding.status == "present"
        probability = shown if present else 1 - shown
        wanted = float(logit(rules().confirm if present else 1 - rules().confirm))
        limit = round((wanted - entry.intercept) / entry.slope, 4)
        above = entry.more == present
        measurement = Measurement(
            name=entry.value,
            value=round(value, 4),
            unit=anatomy_cards()[plan.modality]["values"][entry.value]["unit"],
            expected=(limit, None) if above else (None, limit),
            check=name,
            accuracy=entry.accuracy,
        )
        corrections = []
        if probability < rules().confirm:
            asked = finding.finding if present else f"no {finding.finding}"
            what = anatomy_cards()[plan.modality]["values"][entry.value]["what"]
            text = (
                f"{entry.value.replace('_', ' ')} {value:.2f} ({what}), {asked} needs "
                f"{'>=' if above else '<='} {limit:.2f}: {'show' if present else 'remove'} "
                f"{sign_of(finding.finding, plan.modality)}"
            )
            corrections.append(Correction(finding=finding.finding, text=text))
        return Measured([measurement], probability, entry.weight, corrections)


def _entry(entries: list[AnatomyEntry], plan: Plan) -> AnatomyEntry | None:
    """The figures of the asked view, where they differ by view."""
    view = "PA" if plan.view is None else plan.view
    return next((one for one in entries if one.view is None or one.view == view), None)


class EyeSideCheck:
    """Whether a fundus photograph is of the asked eye, by the side on which the disc lies."""

    name = "eye side"
    holds = True

    def covers(self, modality: str, finding: str) -> bool:
        """Every finding of a modality whose side is the eye's."""
        return modality in anatomy_figures().sides

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """Never: a side is not the finding's presence."""
        return False

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain | None:
        """The eye's side, where one was asked; None where none was."""
        if finding.side not in ("left", "right") or finding.status != "present":
            return None
        card = anatomy_figures().sides[plan.modality]
        anatomy = evidence.anatomy(plan.modality)
        value = anatomy.values.get(card.value)
        if value is None:
            lines = [line for line in anatomy.missing if line.startswith(("eye", "fundus"))]
            return Abstain(self.name, "; ".join(lines) or "not found in this image")
        side = "right" if value == card.right else "left"
        right = side == finding.side
        expected = card.right if finding.side == "right" else -card.right
        measurement = Measurement(
            name=card.value,
            value=value,
            unit=anatomy_cards()[plan.modality]["values"][card.value]["unit"],
            expected=(expected, expected),
            check=self.name,
            accuracy=card.accuracy,
        )
        corrections = []
        if not right:
            text = (
                f"the optic disc lies as in a {side} eye, a {finding.side} eye was asked: put the "
                f"disc on the image's {finding.side}"
            )
            corrections.append(Correction(finding=finding.finding, text=text))
        share = min(card.share, 0.99)
        return Measured(
            [measurement], share if right else 1 - share, 1.0, corrections, necessary=True
        )


def leaves_lungs_clear(plan: Plan) -> bool:
    """Whether something was asked, and nothing that is seen in the lungs."""
    shown = [one.finding for one in plan.findings if one.status != "absent"]
    return bool(plan.findings) and all(name in rules().clear_lungs for name in shown)


def anatomy_rejections(anatomy: Anatomy, modality: str, clear_lungs: bool = False) -> list[str]:
    """What no image of the modality has, by values that hardly ever reject a real image.

    Args:
        anatomy: What was read.
        modality: The one asked.
        clear_lungs: Whether the request leaves the lungs clear.
    """
    lines = []
    for name, entry in anatomy_figures().rejections.get(modality, {}).items():
        value = anatomy.values.get(name)
        low, high = entry.expected
        if not entry.rejects or (entry.clear_lungs and not clear_lungs):
            continue
        if value is not None and not low <= value <= high:
            unit = anatomy_cards()[modality]["values"][name]["unit"]
            named = name.replace("_", " ")
            wanted = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            lines.append(f"{named}: {value:.4g} {unit}, {wanted} expected ({entry.accuracy})")
    return lines


def anatomy_measurements(anatomy: Anatomy, modality: str) -> list[Measurement]:
    """All that the anatomy read, with the range of real images where that makes an image likely.

    What rejects where lungs are to be clear alone has the range of all films here, sick ones too.
    """
    cards = anatomy_cards().get(modality, {}).get("values", {})
    seen = anatomy_figures().values.get(modality, {})
    measurements = []
    for name, value in anatomy.values.items():
        known, card = seen.get(name), cards[name]
        judged = known is not None and card.get("plausible", False)
        own = card.get("expected") if "clear_lungs" not in card else None
        measurements.append(
            Measurement(
                name=name,
                value=round(value, 4),
                unit=card["unit"],
                expected=(own or known.range) if known and judged else None,
                check="anatomy",
                accuracy=f"1st-99th percentile of {known.images} real images: "
                f"{known.range[0]:g} to {known.range[1]:g}"
                if known is not None
                else None,
            )
        )
    return measurements
