"""Reads a request: the modality, every finding with its status, side, place and grade, the patient.

Rules only. Whatever it cannot use it names, in one line; it never guesses silently. Knows no image
and no retrieval.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rapidfuzz import fuzz, process

from medgen.agents.consistency import check_contradictions, merged
from medgen.agents.demographics import Demographics, read_demographics
from medgen.agents.language import Token, rules, tokenize
from medgen.agents.modality import naming, resolve_modality
from medgen.agents.modifiers import Mention
from medgen.agents.quantities import Asked, asked_values, meant_by
from medgen.agents.reading import Reading, leftovers, read_findings
from medgen.agents.report_reading import read_report, reconciled, whole_normal_unsaid
from medgen.agents.sections import Sentence, is_report
from medgen.agents.sections import sentences as sentences_of
from medgen.agents.spelling import respell
from medgen.errors import BadInput
from medgen.knowledge.cards import FindingCard, finding_cards, modality_cards
from medgen.records import Finding, MeasurementTarget, Plan, Request

LONGEST_PROMPT = 2000
LONGEST_REPORT = 20_000
_QUOTED = 60
_TOLD = 5


def _clean(prompt: str, report: bool) -> str:
    longest = LONGEST_REPORT if report else LONGEST_PROMPT
    if len(prompt) > longest:
        raise BadInput(
            f"the prompt has {len(prompt)} characters, more than {longest}: "
            "give the findings in a sentence or two"
        )
    for position, character in enumerate(prompt):
        kind = unicodedata.category(character)
        turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
        if (kind in ("Cc", "Cs", "Co", "Cn") and character not in "\t\n\r") or turns:
            raise BadInput(
                f"the prompt has a control character (U+{ord(character):04X}) at position "
                f"{position + 1}: remove it"
            )
    kept = "".join(c for c in prompt if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", kept)
    text = text.strip() if report else " ".join(text.split())
    if not any(character.isalnum() for character in text):
        raise BadInput('the prompt is empty: say what to draw, such as "cardiomegaly, chest X-ray"')
    return text


def _quoted(text: str) -> str:
    return text if len(text) <= _QUOTED else text[: _QUOTED - 3] + "..."


def can_show(modality: str, count: int = 8) -> str:
    """Some findings that can be asked for in a modality, those the generator has learned first."""
    cards = [c for c in finding_cards().get(modality, {}).values() if c.kind == "abnormal"]
    cards.sort(key=lambda card: not card.captioned)
    names = [card.name for card in cards[:count]]
    return ", ".join(names) + (", ..." if len(cards) > count else "")


def explain_undrawable(modality: str, drawable: Sequence[str]) -> str:
    """The one line that says why a planned modality is not drawn and what would draw it.

    Args:
        modality: The plan's modality.
        drawable: Names of the modalities that the loaded generator draws.
    """
    able = ", ".join(drawable) or "nothing"
    return (
        f"{modality} can be planned but not drawn: this generator draws {able}; a modality card "
        "(MEDGEN_MODALITY_CARDS) with a diffusers backend or a trained model adds one"
    )


def _nothing_understood(text: str, modality: str | None, unused: str = "") -> BadInput:
    names = [
        card.name
        for cards in finding_cards().values()
        for card in cards.values()
        if modality is None or card.modality == modality
    ]
    asked = (unused or text)[:200].lower()
    near = process.extract(asked, names, scorer=fuzz.WRatio, limit=3, score_cutoff=65)
    hint = f"near it: {', '.join(name for name, _, _ in near)}; " if near else ""
    if modality:
        return BadInput(
            f'no finding understood in "{_quoted(text)}": {hint}{modality} can show '
            f"{can_show(modality)}"
        )
    return BadInput(
        f'nothing understood in "{_quoted(text)}": {hint}name a modality '
        f'({", ".join(modality_cards())}) and a finding, such as "cardiomegaly, chest X-ray"'
    )


def _from_elsewhere(reading: Reading, warnings: list[str]) -> list[Finding]:
    """Findings of other modalities: an error when asked for, kept when historical."""
    kept = []
    name = reading.modality.name
    for item in reading.elsewhere:
        other, finding = item.values[0]
        if item.status == "historical":
            code = finding_cards()[other][finding].code
            kept.append(Finding(finding=finding, code=code, status="historical"))
        elif item.status == "absent":
            warnings.append(f"{name} does not show {finding} anyway: its absence is ignored")
        else:
            places = list(dict.fromkeys(modality for modality, _ in item.values))
            raise BadInput(
                f"{name} cannot show {finding}: ask for it in {' or '.join(places)}; {name} can "
                f"show {can_show(name)}"
            )
    return kept


def _targets(mention: Mention) -> list[MeasurementTarget]:
    """Sizes and counts that the user gave, as targets."""
    found: list[tuple[str, str, float, float]] = []
    if mention.sizes:
        size, tolerance = max(mention.sizes), rules("drawing")["asked_size_tolerance"]
        low, high = round(size * (1 - tolerance), 2), round(size * (1 + tolerance), 2)
        found.append(("diameter", "mm", low, high))
    if mention.count is not None:
        found.append(("count", "", float(mention.count), float(mention.count)))
    return [
        MeasurementTarget(
            name=name, finding=mention.name, unit=unit, expected=(low, high), source="request"
        )
        for name, unit, low, high in found
    ]


def _finding(mention: Mention, modality: str, warnings: list[str]) -> Finding:
    card = finding_cards().get(modality, {}).get(mention.name)
    side = mention.side
    if card and not card.sided and side and not any(p.sided for p, _ in mention.places):
        if not mention.normal:
            warnings.append(f'{mention.name} has no side here: "{side}" is ignored')
        side = None
    return Finding(
        finding=mention.name,
        code=card.code if card else None,
        status=mention.status,
        side=side,
        location=mention.location,
        severity=mention.severity,
    )


def _add_asked_values(
    values: Sequence[Asked],
    findings: list[Finding],
    modality: str,
    person: Demographics,
    warnings: list[str],
) -> list[MeasurementTarget]:
    """Values as targets; a value without its finding brings the finding that it amounts to."""
    targets = []
    cards = finding_cards().get(modality, {})
    tolerance = rules("drawing")["asked_value_tolerance"]
    for asked in values:
        meant = meant_by(asked, modality, person.view, person.age_group)
        measured = [
            finding
            for finding in findings
            if finding.status in ("present", "uncertain") and finding.finding in cards
        ]
        own = next((f for f in measured if _measured_by(cards[f.finding], asked.name)), None)
        if own is not None and meant is not None and own.finding != meant.name:
            raise BadInput(
                f"a {asked.name} of {asked.value:g} means {meant.name}, but the prompt asks for "
                f"{own.finding}: change one of them"
            )
        if own is None and meant is not None:
            own = Finding(finding=meant.name, code=meant.code)
            findings.append(own)
        if own is None:
            warnings.append(f"{asked.name} {asked.value:g} amounts to no finding here: left out")
            continue
        low, high = round(asked.value - tolerance, 3), round(asked.value + tolerance, 3)
        name = asked.name.replace(" ", "_")
        targets.append(
            MeasurementTarget(
                name=name, finding=own.finding, expected=(low, high), source="request"
            )
        )
    return targets


def _measured_by(card: FindingCard, measure: str) -> bool:
    return card.measure is not None and card.measure.name == measure


def parse(request: Request) -> Plan:
    """Read a request into a plan: modality, findings, patient, projection; nothing is added.

    Args:
        request: The user's prompt, with a modality that overrides the prompt's when given. A
            whole report is read leniently (`request.reading`, else by its look).

    Returns:
        A plan whose findings are as asked: present, absent, uncertain or historical. Sizes and
        counts that the user gave are measurement targets of source "request". For a modality
        without a card the findings have no codes, and a warning says so.

    Raises:
        BadInput: Empty, too long or with control characters; no or several modalities; a finding
            that the modality cannot show; contradictions; nothing understood. Of a report only
            the first two.
    """
    report = request.reading == "report"
    if request.reading is None:
        report = len(request.prompt) <= LONGEST_REPORT and is_report(request.prompt)
    text = _clean(request.prompt, report)
    return _parse_report(request, text) if report else _parse_request(request, text)


def _parse_request(request: Request, text: str) -> Plan:
    tokens, warnings = respell(tokenize(text))
    modality = resolve_modality(tokens, request.modality)
    if modality is None:
        raise _nothing_understood(text, None)
    name = modality.name
    warnings += modality.warnings
    card = modality_cards().get(name)
    person = read_demographics(tokens, card.views if card else ())
    warnings += person.warnings
    values = asked_values(tokens, name)
    apart = person.taken | {index for asked in values for index in asked.taken}
    reading = read_findings(tokens, modality, apart)
    kept = _from_elsewhere(reading, warnings)
    asked = [_finding(mention, name, warnings) for mention in reading.mentions]
    findings = merged([*asked, *kept])
    targets = _add_asked_values(values, findings, name, person, warnings)
    check_contradictions(findings, name, reading.normal_regions)
    targets += [target for mention in reading.mentions for target in _targets(mention)]
    unused = leftovers(reading)
    if not findings and unused:
        raise _nothing_understood(text, name, " ".join(unused))
    if unused:
        warnings.append(f"not understood and left out: {', '.join(map(_quoted, unused))}")
    if not findings:
        warnings.append("no finding is named: name one, or say normal")
    if card is None:
        warnings.append(f"{name} has no modality card here: it can be planned, not drawn")
    unsaid = list(dict.fromkeys(reading.words(*run) for run in sorted(reading.unsaid)))
    if unsaid:
        said = ", ".join(f'"{words}"' for words in unsaid)
        warnings.append(f"no image can show {said}: kept for the report, not drawn")
    return Plan(
        prompt=request.prompt,
        modality=name,
        findings=findings,
        view=person.view,
        age=person.age,
        age_group=person.age_group,
        sex=person.sex,
        measurements=targets,
        not_drawable=unsaid,
        warnings=warnings,
        decided_by={"parser": "rules"},
    )


def _of_the_patient(sentences: Sequence[Sentence]) -> str:
    """What a report says of patient and projection: history, technique, and its title."""
    title = [one for one in sentences[:1] if naming(tokenize(one.text))]
    told = [one for one in sentences if one.section in ("history", "technique")]
    return ". ".join(one.text for one in [*title, *told])


def _parse_report(request: Request, text: str) -> Plan:
    sentences = sentences_of(text)
    warnings: list[str] = []
    everything = tokenize(text)
    modality = resolve_modality(everything, request.modality)
    if modality is None:
        raise _nothing_understood(text[:LONGEST_PROMPT], None)
    name = modality.name
    card = modality_cards().get(name)
    person = read_demographics(
        tokenize(_of_the_patient(sentences)), card.views if card else (), lenient=True
    )

    def corrected(tokens: list[Token]) -> list[Token]:
        better, said = respell(tokens)
        warnings.extend(said)
        return better

    understood = read_report(sentences, name, corrected)
    findings = [_finding(mention, name, []) for mention in understood.mentions]
    kept, given_way = reconciled(findings, name)
    warnings += given_way
    notes = ["read as a report: what it describes wins over what it denies"]
    normal = whole_normal_unsaid(kept, name)
    if normal is not None:
        kept.append(Finding(finding=normal, code=finding_cards()[name][normal].code))
        notes.append(f"nothing abnormal is described: taken as {normal}")
    if understood.unknown:
        some = ", ".join(map(_quoted, understood.unknown[:_TOLD]))
        more = len(understood.unknown) - _TOLD
        warnings.append(f"not understood: {some}{f' and {more} more' if more > 0 else ''}")
    if not kept:
        warnings.append("no finding is named")
    if card is None:
        warnings.append(f"{name} has no modality card here: it can be planned, not drawn")
    return Plan(
        prompt=request.prompt,
        modality=name,
        findings=kept,
        view=person.view,
        age=person.age,
        age_group=person.age_group,
        sex=person.sex,
        measurements=[target for mention in understood.mentions for target in _targets(mention)],
        not_drawable=understood.unsaid,
        warnings=list(dict.fromkeys([*person.warnings, *warnings])),
        notes=notes,
        decided_by={"parser": "rules"},
    )
