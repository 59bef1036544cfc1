"""TorchXRayVision's classifiers as a member of the panel, from a folder that the settings name.

A pathology judges only where the folder's card has its figures on labelled films
(`medgen.measure.torchxrayvision_card`); without them its output is told and decides nothing.
"""

from __future__ import annotations

from pathlib import Path
from weakref import WeakKeyDictionary

from scipy.special import expit, logit

from medgen.agents.verifier.cards import rules
from medgen.agents.verifier.checks import Abstain, Measured, reading_correction
from medgen.agents.verifier.evidence import Evidence
from medgen.measure.anatomy_by_modality import CHEST
from medgen.measure.torchxrayvision import ChestClassifiers
from medgen.records import AgeGroup, Finding, Measurement, Plan


class XRayClassifiersCheck:
    """Findings that the weights know, on adult chest films."""

    name = "TorchXRayVision"
    holds = False

    def __init__(self, folder: str | Path) -> None:
        """Load the weights.

        Raises:
            BadInput: The folder holds none.
        """
        self._classifiers = ChestClassifiers.load(folder)
        self._read: WeakKeyDictionary[Evidence, dict[str, float]] = WeakKeyDictionary()

    def covers(self, modality: str, finding: str) -> bool:
        """Findings of `torchxrayvision` in the rules that these weights have an output for."""
        name = rules().torchxrayvision.get(finding)
        return modality == CHEST and name in self._classifiers.pathologies

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """On films of adults."""
        return population != "child"

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain:
        """The output for the finding's pathology, judged by the card's figures."""
        if evidence.population(plan) == "child":
            return Abstain(self.name, "these weights were taught on films of adults")
        pathology = rules().torchxrayvision[finding.finding]
        if evidence not in self._read:
            self._read[evidence] = self._classifiers.read(evidence.image)
        value = self._read[evidence].get(pathology)
        card = self._classifiers.card.get(pathology)
        if value is None or card is None:
            told = "" if value is None else f"read {value:.2f}, but "
            return Abstain(self.name, f"{told}the accuracy of these weights is not measured here")
        if not card["measurable"]:
            return Abstain(self.name, f"read {value:.2f}, but {card['reason']}")
        odds = float(logit(min(max(value, 1e-4), 1 - 1e-4)))
        shown = float(expit(card["intercept"] + card["slope"] * odds))
        present = finding.status == "present"
        probability = shown if present else 1 - shown
        sure = rules().confirm
        measurement = Measurement(
            name=f"probability of {finding.finding} (TorchXRayVision)",
            value=round(shown, 4),
            unit="probability",
            expected=(sure, None) if present else (None, round(1 - sure, 4)),
            check=f"{self.name} ({self._classifiers.name}, {pathology})",
            accuracy=card["accuracy"],
        )
        corrections = []
        if probability < sure:
            classes = {finding.finding: shown, f"no {finding.finding}": 1 - shown}
            corrections.append(
                reading_correction(finding, plan.modality, classes, [finding.finding])
            )
        return Measured([measurement], probability, float(card["weight"]), corrections)
