"""Actions on the picture: noise put back to all or a part of it, and steering by gradient."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from medgen.agents.refiner_situation import Change, Situation
from medgen.agents.verifier.cards import reader_card
from medgen.agents.verifier.regions import region_at_fault
from medgen.data.images import load_square, save_synthetic_png
from medgen.generator.steering import steering_reader
from medgen.records import Conditioning, Finding

MASKS = "masks"
"""Folder beside the candidates' for the masks of regions drawn anew."""
MASK_SIDE = 256


def img2img(situation: Situation, told: Conditioning) -> Change:
    """Put a part of the noise back to a parent that is mostly right."""
    rules, critique = situation.rules.img2img, situation.critique
    right = not critique.rejections and critique.score >= rules.least_score
    if not right or situation.dropped("img2img"):
        return told, []
    change = {"init_image": situation.parent.image, "strength": rules.strength}
    return told.model_copy(update=change), [
        f"img2img: from {situation.parent.id} at strength {rules.strength:.2f}"
    ]


def region(situation: Situation, told: Conditioning) -> Change:
    """Draw anew only where the picture is at fault; a mask beside the parent's image says where.

    Needs a correction of something that has a place (heart, a lung) and a parent that is usable
    otherwise.
    """
    if situation.critique.rejections or not Path(situation.parent.image).is_file():
        return told, []
    for correction in situation.numeric():
        quantity = correction.quantity or ""
        if situation.dropped(f"region {quantity}"):
            continue
        image = load_square(situation.parent.image, MASK_SIDE)
        mask = region_at_fault(np.array(image), quantity)
        if mask is None:
            continue
        masks = Path(situation.parent.image).parent.with_name(MASKS)
        path = masks / f"{situation.parent.id}_{quantity}.png"
        pixels = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2)
        save_synthetic_png(path, pixels, {"Mask": f"region of {quantity}"})
        strength = situation.rules.region.strength
        change = {
            "init_image": situation.parent.image,
            "strength": strength,
            "mask_image": str(path),
        }
        share = f"{mask.mean():.0%} of the picture"
        return told.model_copy(update=change), [
            f"region {quantity}: of {situation.parent.id} at strength {strength:.2f}, {share}"
        ]
    return told, []


def steer(situation: Situation, told: Conditioning) -> Change:
    """Aim at what the verifier's classifier did not see as asked, by another reader's gradient."""
    aims, actions = dict(told.aims), []
    if not situation.steers:
        return told, []
    for finding in situation.critique.findings:
        action = f"steer {finding.finding}"
        aim = _aim(situation.plan.modality, finding)
        if finding.verdict == "confirmed" or aim is None or situation.dropped(action):
            continue
        head, wanted, shown = aim
        if head in aims:
            wanted = [name for name in aims[head] if name in wanted]
        if not wanted or aims.get(head) == wanted:
            continue
        aims[head] = wanted
        actions.append(f"{action}: towards {' or '.join(wanted)} (read at {shown:.2f})")
    return told.model_copy(update={"aims": aims}), actions


def _aim(modality: str, finding: Finding) -> tuple[str, list[str], float] | None:
    """The reader's head that judged a finding, the classes to aim at, and the probability read."""
    for measurement in finding.measurements:
        found = re.fullmatch(r"finding classifier \((\w+)\)", measurement.check)
        if found is None:
            continue
        head = found[1]
        for entry in reader_card().findings.get(modality, {}).get(finding.finding, []):
            if entry.head == head:
                wanted = entry.shows
                if finding.status == "absent":
                    heads = {one.name: one.classes for one in steering_reader().heads}
                    wanted = [name for name in heads[head] if name not in wanted]
                return (head, list(wanted), measurement.value) if wanted else None
    return None
