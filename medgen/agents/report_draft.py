"""Findings and impression in a language model's words, read back before they are believed.

What the model wrote goes through the parser like any report: it must say of each asked finding what
the plan says, and of no other finding that it is there. Numbers must be the plan's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from medgen.agents import parser
from medgen.agents.consistency import implied
from medgen.agents.language import tokenize
from medgen.agents.llm import Outcome, Session, Unusable
from medgen.agents.pathology import SHOWN
from medgen.agents.vocabulary import generic_findings, other_findings
from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards
from medgen.knowledge.templates import report_templates
from medgen.records import Finding, Plan, Record, Request

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ITEM = re.compile(r"(?:^|\n|(?<=[.;]) )\s*\d+[.)] ")
_LONGEST = 4000


class ReportDraft(Record):
    """The two sections that are the model's to word."""

    findings: str
    impression: str


def question_of(plan: Plan, unremarkable: Sequence[str]) -> dict[str, object]:
    """What the model is told: findings with their signs, sentences it may use, field names."""
    template = report_templates().get(plan.modality)
    signs: dict[str, list[str]] = {}
    for sign in plan.signs:
        signs.setdefault(sign.finding, []).append(sign.text)
    findings = [
        finding.model_dump(
            include={"finding", "status", "side", "location", "severity", "size_mm"},
            exclude_none=True,
        )
        | {"signs": signs.get(finding.finding, [])}
        for finding in plan.findings
        if finding.status != "historical"
    ]
    return {
        "modality": plan.modality,
        "view": plan.view,
        "findings": findings,
        "unremarkable": list(unremarkable),
        "sections": [field.name for field in template.fields] if template else [],
    }


def _read(text: str, modality: str) -> list[Finding]:
    request = Request(prompt=text, modality=modality, reading="report")
    try:
        return parser.parse(request).findings
    except BadInput as error:
        raise Unusable(f"it cannot be read back ({error})") from error


def _allowed(plan: Plan) -> set[str]:
    """Findings that a report of the plan may call present: asked, entailed, or fitting normals."""
    cards = finding_cards().get(plan.modality, {})
    shown = [finding.finding for finding in plan.findings if finding.status in SHOWN]
    denied = {finding.finding for finding in plan.findings if finding.status == "absent"}
    names = {*shown, *(name for one in shown for name in implied(one, plan.modality))} - denied
    against = {name for one in shown if one in cards for name in cards[one].excludes}
    return names | {n for n, c in cards.items() if c.kind == "normal" and n not in against}


def _foreign(text: str, plan: Plan, data: str) -> str | None:
    """A finding's word that neither the modality's cards nor the data know."""
    tokens = tokenize(text)
    for lexicon in (other_findings(plan.modality), generic_findings()):
        for match in lexicon.scan(tokens):
            words = " ".join(tokens[index].text for index in match.taken)
            name = match.value if isinstance(match.value, str) else match.value[1]
            known = {word.lower() for word in (words, str(name))}
            if not any(word in data for word in known) and name not in _allowed(plan):
                return words
    return None


def check(draft: ReportDraft, plan: Plan, question: dict[str, object]) -> None:
    """Refuse a draft that says more, less or something else than the plan.

    Raises:
        Unusable: What is wrong, for the model to read.
    """
    text = f"{draft.findings}\n{draft.impression}"
    if not draft.findings.strip() or not draft.impression.strip():
        raise Unusable("findings and impression must both be written")
    if len(text) > _LONGEST:
        raise Unusable(f"it is longer than {_LONGEST} characters")
    data = json.dumps(question, ensure_ascii=False).lower()
    unknown = set(_NUMBER.findall(_ITEM.sub(" ", text))) - set(_NUMBER.findall(data))
    if unknown:
        raise Unusable(f"the number {min(unknown)} is not in the data")
    read = _read(text, plan.modality)
    allowed = _allowed(plan)
    for finding in read:
        if finding.status in SHOWN and finding.finding not in allowed:
            raise Unusable(f'it says that there is "{finding.finding}", which nobody asked for')
    foreign = _foreign(text, plan, data)
    if foreign:
        raise Unusable(f'it names "{foreign}", which is not in the data')
    for asked in plan.findings:
        if asked.status != "historical":
            _compare(asked, [one for one in read if one.finding == asked.finding], plan)


def _compare(asked: Finding, said: Sequence[Finding], plan: Plan) -> None:
    card = finding_cards().get(plan.modality, {}).get(asked.finding)
    if card is None or card.kind == "normal":
        return
    if not said:
        raise Unusable(f'it does not name "{asked.finding}"')
    statuses = {finding.status for finding in said}
    if asked.status not in statuses or (asked.status not in SHOWN and statuses & set(SHOWN)):
        raise Unusable(f'it does not say that "{asked.finding}" is {asked.status}')
    for name in ("side", "severity"):
        wanted = getattr(asked, name)
        given = {getattr(finding, name) for finding in said if finding.status == asked.status}
        wrong = given - {None, wanted}
        if wrong:
            raise Unusable(f'it calls "{asked.finding}" {wrong.pop()}, the data say {wanted}')


def drafted(plan: Plan, unremarkable: Sequence[str], session: Session) -> Outcome[ReportDraft]:
    """Findings and impression as the model words them, or why the rules must.

    Args:
        plan: With signs.
        unremarkable: Sentences on regions that nothing touches.
        session: Whom to ask.
    """
    question = question_of(plan, unremarkable)
    return session.ask("report", question, ReportDraft, lambda draft: check(draft, plan, question))
