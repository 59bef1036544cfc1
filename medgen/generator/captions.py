"""Training captions: a table row and its measurements become varied sentences and conditions.

What the labels do not say and a segmenter can measure (cardiothoracic ratio, which lung is dense)
is added to the caption and to the structured vector, so that both can be asked for. Word order,
synonyms and details vary from draw to draw; no caption may invent what neither label nor
measurement holds. Sided words are the patient's side.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from medgen.generator.structured import CATEGORIES
from medgen.knowledge.cards import finding_cards, modality_cards


@lru_cache
def _rules() -> dict[str, Any]:
    text = (resources.files("medgen.generator") / "captions.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def structured_conditions(row: Mapping[str, str]) -> dict[str, float | str]:
    """Structured conditions of a table row joined with its measurements and case data.

    Args:
        row: `source` (left out where the model has no entry for it) and, where known,
            `cardiothoracic_ratio`, `opacity_right`, `opacity_left`, `view` and `sex` ("M"/"F")
            as text; empty text means unknown.
    """
    conditions: dict[str, float | str] = {}
    if row["source"] in CATEGORIES["source"]:
        conditions["source"] = row["source"]
    for name in ("cardiothoracic_ratio", "opacity_right", "opacity_left"):
        if row.get(name):
            conditions[name] = float(row[name])
    if row.get("view") in ("PA", "AP", "AP supine"):
        conditions["view"] = row["view"]
    if row.get("sex") in ("M", "F"):
        conditions["sex"] = {"M": "male", "F": "female"}[row["sex"]]
    age_group = _rules()["sources"].get(row["source"], {}).get("age_group")
    if row.get("age"):
        age_group = "child" if float(row["age"]) < 16 else "adult"
    if age_group:
        conditions["age_group"] = age_group
    return conditions


def findings(row: Mapping[str, str]) -> list[str]:
    """Canonical findings of a row's label (empty when the label says nothing)."""
    return list(_rules()["labels"].get(row["modal"], {}).get(row["label"], []))


def _name(finding: str, modal: str, random_: random.Random) -> str:
    chance = _rules()["probabilities"]
    broader = _rules()["broader"].get(finding)
    if broader and random_.random() < chance["broader_name"]:
        return random_.choice(broader)
    card = finding_cards().get(modal, {}).get(finding)
    names = [*card.synonyms, *card.abbreviations] if card else []
    if names and random_.random() < chance["synonym"]:
        return random_.choice(names)
    return finding


def sentences(row: Mapping[str, str], random_: random.Random) -> list[str]:
    """A row's own text in varied words: sentences shuffled, some left out, synonyms for findings.

    Only whole sentences move or go: a comma may stand inside a negation. One always stays. Names
    of findings are those of the modality's cards; sides are never touched.
    """
    chance = _rules()["probabilities"]
    text = row["text"] or row["label"]
    parts = [part.strip(" .;") for part in re.split(r"(?<=[.;])\s+|\n+", text)]
    parts = [part for part in parts if part]
    kept = [part for part in parts if random_.random() >= chance["sentence_dropped"]]
    kept = kept or parts[:1]
    random_.shuffle(kept)
    return [_reworded(part, row["modal"], random_) for part in kept]


def _reworded(text: str, modal: str, random_: random.Random) -> str:
    for card in finding_cards().get(modal, {}).values():
        if card.name.lower() not in text.lower() or not card.synonyms:
            continue
        if random_.random() < _rules()["probabilities"]["synonym"]:
            name = re.compile(rf"\b{re.escape(card.name)}\b", re.IGNORECASE)
            return name.sub(random_.choice(card.synonyms), text)
    return text


def _heart_clauses(conditions: Mapping[str, float | str], random_: random.Random) -> list[str]:
    chance, rules = _rules()["probabilities"], _rules()["heart_size"]
    ratio = conditions.get("cardiothoracic_ratio")
    if not isinstance(ratio, float):
        return []
    clauses = []
    judged = conditions.get("age_group") == "adult" and conditions.get("view", "PA") == "PA"
    if judged and random_.random() < chance["heart_size_words"]:
        if ratio > rules["enlarged_above"]:
            clauses.append(random_.choice(rules["enlarged"]))
        elif ratio < rules["normal_below"]:
            clauses.append(random_.choice(rules["normal"]))
    if random_.random() < chance["ratio_number"]:
        clauses.append(f"cardiothoracic ratio {ratio:.2f}")
    return clauses


def _opacity_clauses(
    row: Mapping[str, str], conditions: Mapping[str, float | str], random_: random.Random
) -> list[str]:
    right, left = conditions.get("opacity_right"), conditions.get("opacity_left")
    diseased = any("normal" not in name for name in findings(row))
    if not (isinstance(right, float) and isinstance(left, float) and diseased):
        return []
    if random_.random() >= _rules()["probabilities"]["opacity_side"]:
        return []
    difference = right - left
    if abs(difference) < _rules()["opacity_asymmetry"]:
        return []
    side = "right" if difference > 0 else "left"
    return [random_.choice([f"{side} lung opacity", f"opacity in the {side} lung"])]


def caption(row: Mapping[str, str], random_: random.Random) -> str:
    """One caption of a table row, drawn at random: modality and clauses in varying order.

    Labels that `captions.yaml` knows are worded from there; a row without a label, or of a
    modality that it does not list, speaks by its own text.
    """
    chance = _rules()["probabilities"]
    modal = row["modal"]
    card = modality_cards()[modal]
    conditions = structured_conditions(row)
    if row["label"] and modal in _rules()["labels"]:
        clauses = [_name(finding, modal, random_) for finding in findings(row)]
    else:
        clauses = sentences(row, random_)
    if modal == "Chest X-ray":
        if clauses == ["normal chest"] and random_.random() < chance["no_finding_words"]:
            clauses = [random_.choice(["clear lungs", "no lung disease", "no pneumonia"])]
        clauses += _heart_clauses(conditions, random_)
        clauses += _opacity_clauses(row, conditions, random_)
        if "view" in conditions and random_.random() < chance["view"]:
            clauses.append(f"{conditions['view']} view")
        if row.get("age") and random_.random() < chance["exact_age"]:
            clauses.append(f"{float(row['age']):.0f} years old")
    for name in ("age_group", "sex"):
        if name in conditions and random_.random() < chance[name]:
            clauses.append(str(conditions[name]))
    random_.shuffle(clauses)
    phrase = card.drawing_phrase
    if random_.random() < 0.25:
        phrase = random_.choice([card.name, *card.aliases])
    if not clauses:
        return phrase
    if random_.random() < 0.2:
        return f"{', '.join(clauses)}, {phrase}"
    if random_.random() < 0.15:
        return f"{phrase} showing {', '.join(clauses)}"
    return f"{phrase}, {', '.join(clauses)}"
