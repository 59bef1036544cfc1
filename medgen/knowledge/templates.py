"""Report templates: which fields a modality's report has, in which layout; bundled and the user's.

A template is a YAML file. The sentences for regions where nothing was asked stand in the modality
card and may be said otherwise by a template's field. A template of the user's
(`MEDGEN_TEMPLATES`, see docs/templates.md) takes the place of the bundled one of its modality.
Knows no plan.
"""

# ruff: noqa: RUF012 - pydantic copies a record's default lists.

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from medgen.errors import BadInput
from medgen.knowledge.cards import ModalityCard, modality_cards
from medgen.records import Record
from medgen.settings import settings

PLACEHOLDER = re.compile(r"\{([^{}\n]*)\}")
SECTIONS = ("history", "technique", "comparison", "findings", "impression")
FIELDS = "fields"
FIELD = "field:"
OTHER = "Other"
PLAIN_LAYOUT = """HISTORY: {history}

TECHNIQUE: {technique}

COMPARISON: {comparison}

FINDINGS: {findings}

IMPRESSION: {impression}
"""


class FieldTemplate(Record):
    """A field of the findings section: its name and the regions of the modality that it is about.

    `normal` is what it says where nothing was asked; the modality card's sentences when null.
    """

    name: str = Field(min_length=1)
    regions: list[str] = Field(min_length=1)
    normal: str | None = None


class Template(Record):
    """A report's shape for one modality.

    `layout` holds the placeholders `{history}`, `{technique}`, `{comparison}`, `{findings}` (in
    prose), `{fields}` (every field on a line), `{field:NAME}` (one field) and `{impression}`.
    `history` may hold `{indication}`, `technique` `{view}`; the modality card's words when null.
    `source` says what the shape follows.
    """

    name: str
    modality: str
    source: str
    history: str | None = None
    technique: str | None = None
    comparison: str = "None."
    fields: list[FieldTemplate] = []
    impression_normal: str | None = None
    layout: str = PLAIN_LAYOUT


def _faults(template: Template, card: ModalityCard) -> Iterator[str]:
    fields = {field.name for field in template.fields}
    known = {*SECTIONS, FIELDS, *(FIELD + name for name in (*fields, OTHER))}
    for name in PLACEHOLDER.findall(template.layout):
        if name not in known:
            there = ", ".join(f"{{{one}}}" for one in sorted(known))
            yield f"layout has {{{name}}}, known are {there}"
    regions = {region.name for region in card.regions}
    seen: set[str] = set()
    for field in template.fields:
        for region in field.regions:
            if region not in regions:
                yield f"field {field.name} names {region!r}, which is no region of {card.name}"
            if region in seen:
                yield f"region {region!r} stands in two fields"
            seen.add(region)


def read_template(text: str, where: str) -> Template:
    """A template from YAML text.

    Raises:
        BadInput: Not YAML, a field that is missing or unknown, a modality without a card, a region
            that its card lacks, or a placeholder that nothing fills.
    """
    try:
        template = Template.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        else:
            reason = str(error).splitlines()[0]
        raise BadInput(
            f"report template {where} is not valid ({reason}): see the bundled ones in "
            "medgen/knowledge/base/templates"
        ) from error
    card = modality_cards().get(template.modality)
    if card is None:
        raise BadInput(
            f"report template {where} is for {template.modality!r}, which has no modality card: "
            f"there are {', '.join(modality_cards())}"
        )
    for fault in _faults(template, card):
        raise BadInput(f"report template {where}: {fault}")
    return template


@lru_cache
def report_templates() -> dict[str, Template]:
    """Templates by modality: the bundled ones, and over them those in `MEDGEN_TEMPLATES`.

    Raises:
        BadInput: The folder or a template in it cannot be used.
    """
    root = resources.files("medgen.knowledge") / "base" / "templates"
    texts = [
        (entry.name, entry.read_text(encoding="utf-8"))
        for entry in sorted(root.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    ]
    folder = settings().templates
    if folder is not None:
        texts += list(_texts_of(folder))
    templates = (read_template(text, name) for name, text in texts)
    return {template.modality: template for template in templates}


def _texts_of(folder: Path) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        raise BadInput(f"MEDGEN_TEMPLATES={folder} is no folder: create it or unset it")
    for path in sorted(folder.glob("*.yaml")):
        try:
            yield str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(
                f"report template {path} cannot be read ({error}): correct it"
            ) from error
