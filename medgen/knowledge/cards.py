"""The curated base: modality cards and finding cards, YAML files read into records.

This is the project's own layer of knowledge: per modality, which findings can be asked for, how
each looks, how it is measured and with which range, what it implies and excludes. Knows nothing
of retrieval; `medgen.knowledge.store` puts these facts into LightRAG.
"""

# ruff: noqa: RUF012 - pydantic copies a record's default lists.

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from medgen.errors import BadInput
from medgen.records import AgeGroup, Record, Severity, View
from medgen.settings import settings

Box = tuple[float, float, float, float]
Range = tuple[float | None, float | None]
# The C parser where PyYAML has it: the cards are read at every start.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RegionCard(Record):
    """An anatomical region of a modality: name, RadLex code, and where it lies in the frame.

    `box` is (left, top, right, bottom) as fractions 0-1 of the image; `left`/`right` are the
    boxes of the patient's left and right part where the region has sides.
    """

    name: str
    code: str | None = None
    left_code: str | None = None
    right_code: str | None = None
    synonyms: list[str] = []
    box: Box | None = None
    left: Box | None = None
    right: Box | None = None


class ReportTemplate(Record):
    """Sentences of a report in our own words; `{...}` fields are filled by the report role."""

    history: str
    technique: str
    normal_findings: dict[str, str] = Field(
        description="What is said of each region when nothing was asked there."
    )
    impression_normal: str


class ModalityCard(Record):
    """One imaging modality: its names, its frame, its regions and its report.

    `name` is the value of the tables' `modal` column. `sided` is true where the image's left and
    right are the patient's (no flip may ever be used there).
    """

    name: str
    code: str | None = None
    aliases: list[str]
    color: bool = False
    sided: bool = True
    views: list[View] = []
    drawing_phrase: str = Field(description='How captions start, such as "chest X-ray".')
    negative_prompt: str = ""
    regions: list[RegionCard]
    report: ReportTemplate


class MeasureCard(Record):
    """A measure that requests may state, drawings aim at and checks judge.

    `normal` and `abnormal` are [low, high] with null for an open end. `population` and `views`
    say for whom the ranges hold; outside them the check abstains. `target` is what a drawing with
    the finding aims at, `normal_target` one without it.
    """

    name: str
    unit: str = ""
    normal: Range
    abnormal: Range
    population: AgeGroup | Literal["any"] = "any"
    views: list[View] = []
    target: float | None = None
    normal_target: float | None = None
    source: str


class RangeCard(Record):
    """How radiology measures a finding: a number, its unit, its ranges and whose figures they are.

    `normal` is the range without the finding, null where the measure exists only with it;
    `abnormal` the range with it, `grades` its parts by severity; `holds` says for whom or on which
    device. Knowledge for plans and reports: no check of medgen reads these numbers off an image.
    """

    name: str
    unit: str
    normal: Range | None
    abnormal: Range
    grades: dict[Severity, Range] = {}
    holds: str | None = None
    source: str


class LookCard(Record):
    """How a finding looks beyond its signs: where, on which side, how far, how bright."""

    location: str
    side: str
    extent: str
    intensity: str


class FindingCard(Record):
    """One finding in one modality.

    `name` is canonical; `code` a verified id ("RADLEX:RID1385", "SNOMEDCT:...", "HP:...") or null;
    `code_source` the table or package it was verified in. `kind` "normal" marks cards such as
    "normal heart size" or "no brain tumor". `excludes` is symmetric (the loader mirrors it);
    `hidden_in` lists views in which the finding may not be visible. `captioned` is true when the
    bundled generator's training captions carry the finding, so that it can be expected to draw it.
    `source` and the measures' sources are citations; the YAML names keys of `references.yaml`.
    """

    name: str
    modality: str
    kind: Literal["abnormal", "normal"] = "abnormal"
    code: str | None = None
    code_source: str | None = None
    synonyms: list[str] = []
    abbreviations: list[str] = []
    region: str | None = None
    sided: bool = False
    signs: list[str] = Field(min_length=1)
    look: LookCard
    measure: MeasureCard | None = None
    measures: list[RangeCard] = []
    implies: list[str] = []
    excludes: list[str] = []
    differential: list[str] = []
    hidden_in: list[str] = []
    captioned: bool = False
    source: str

    def ranges(self) -> list[RangeCard]:
        """Every way in which the finding is measured, the judged measure first."""
        if self.measure is None:
            return self.measures
        judged = self.measure
        holds = [f"{judged.population}s"] if judged.population != "any" else []
        holds += [f"{' or '.join(judged.views)} films"] if judged.views else []
        first = RangeCard(
            name=judged.name,
            unit=judged.unit,
            normal=judged.normal,
            abnormal=judged.abnormal,
            holds=", ".join(holds) or None,
            source=judged.source,
        )
        return [first, *self.measures]


class Reference(Record):
    """A citation; `checked` says how it was looked up, null when it was not."""

    cite: str
    checked: Literal["abstract", "record"] | None


def _documents(folder: str) -> list[tuple[str, object]]:
    root = resources.files("medgen.knowledge") / "base" / folder
    entries = sorted(root.iterdir(), key=lambda entry: entry.name)
    return [
        (entry.name, yaml.load(entry.read_text(encoding="utf-8"), Loader=_Loader))
        for entry in entries
        if entry.name.endswith(".yaml")
    ]


def _user_card(path: Path) -> ModalityCard:
    try:
        return ModalityCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"modality card {path} is not valid ({reason}): see the bundled cards"
        ) from error


@lru_cache
def modality_cards() -> dict[str, ModalityCard]:
    """All modality cards by name: the bundled five and those in `MEDGEN_MODALITY_CARDS`."""
    cards = [ModalityCard.model_validate(data) for _, data in _documents("modalities")]
    extra = settings().modality_cards
    if extra is not None:
        if not extra.is_dir():
            raise BadInput(f"MEDGEN_MODALITY_CARDS={extra} is no folder: create it or unset it")
        cards += [_user_card(path) for path in sorted(extra.glob("*.yaml"))]
    return {card.name: card for card in cards}


@lru_cache
def references() -> dict[str, Reference]:
    """The literature behind the cards, by key."""
    path = resources.files("medgen.knowledge") / "base" / "references.yaml"
    entries = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    return {key: Reference.model_validate(entry) for key, entry in entries.items()}


def _with_citations(entry: dict[str, Any]) -> dict[str, Any]:
    """The card as written, reference keys replaced by what they stand for."""
    known = references()
    for part in (entry, entry.get("measure"), *entry.get("measures", [])):
        if part and part["source"] in known:
            part["source"] = known[part["source"]].cite
    return entry


@lru_cache
def finding_cards() -> dict[str, dict[str, FindingCard]]:
    """Finding cards by modality name, then by canonical finding name."""
    table: dict[str, dict[str, FindingCard]] = {}
    for _, data in _documents("findings"):
        assert isinstance(data, list)
        for entry in data:
            card = FindingCard.model_validate(_with_citations(entry))
            table.setdefault(card.modality, {})[card.name] = card
    for cards in table.values():
        _mirror_exclusions(cards)
    return table


def _mirror_exclusions(cards: dict[str, FindingCard]) -> None:
    """What is excluded excludes back: the YAML states each pair once."""
    for card in cards.values():
        for name in card.excludes:
            if name in cards and card.name not in cards[name].excludes:
                cards[name].excludes.append(card.name)


class KnownModality(Record):
    """An imaging modality that users name but no bundled card draws: planned, never drawn."""

    name: str
    code: str | None = None
    body_part: str | None = None
    technique: str
    aliases: list[str]


@lru_cache
def known_modalities() -> dict[str, KnownModality]:
    """Modalities without a bundled card ("Breast MRI", "Mammography" ...), by name.

    A name that a card covers by now (for instance one in `MEDGEN_MODALITY_CARDS`) is left out.
    """
    path = resources.files("medgen.knowledge") / "base" / "known_modalities.yaml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = [KnownModality.model_validate(entry) for entry in entries]
    return {entry.name: entry for entry in known if entry.name not in modality_cards()}
