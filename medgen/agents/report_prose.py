"""A plan's findings in words: name, grade, place, size, looks; one sentence each.

Knows the plan and the cards; knows no template and no section.
"""

from __future__ import annotations

from medgen.agents.pathology import SHOWN
from medgen.knowledge.cards import FindingCard, finding_cards, modality_cards
from medgen.records import Finding, Plan


def sentence(words: str) -> str:
    """Words with a capital at the start and a full stop at the end."""
    text = words.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _where(finding: Finding, card: FindingCard | None) -> str:
    if finding.location:
        return f"of the {finding.location}"
    if finding.side is None:
        return ""
    eye = card is not None and finding.side and _of_one_eye(card.modality)
    if finding.side == "bilateral":
        return "in both eyes" if eye else "on both sides"
    return f"in the {finding.side} eye" if eye else f"on the {finding.side}"


def _of_one_eye(modality: str) -> bool:
    names = {region.name for region in modality_cards()[modality].regions}
    return "globe" in names


def _extent(finding: Finding, plan: Plan) -> str:
    words = []
    for target in plan.measurements:
        if target.finding != finding.finding or target.source != "request":
            continue
        low, high = target.expected
        if target.name == "cardiothoracic_ratio" and low is not None and high is not None:
            words.append(f"cardiothoracic ratio about {(low + high) / 2:.2f}")
        if target.name == "diameter" and low is not None and high is not None:
            words.append(f"about {(low + high) / 2:g} {target.unit}")
        elif target.name == "count" and low is not None:
            words.append(f"{low:g} in number")
    return ", ".join(words)


def _expected(finding: Finding, plan: Plan) -> str:
    for target in plan.measurements:
        if target.finding == finding.finding and target.source != "request":
            low, high = target.expected
            if low is not None and high is not None:
                span = f"{low:g}-{high:g}"
            else:
                span = f"above {low:g}" if low is not None else f"below {high:g}"
            name = target.name.replace("_", " ")
            if name.startswith("opacity "):
                name = f"density of the {name.removeprefix('opacity ')} lung"
            return f"{name} {span}"
    return ""


def named(finding: Finding, card: FindingCard | None, plan: Plan) -> str:
    """A finding in words: status, grade, name, place, size; without its code."""
    normal = card is not None and card.kind == "normal"
    doubt = "possible" if finding.status == "uncertain" else ""
    denied = "no" if finding.status == "absent" else ""
    where = "" if normal else _where(finding, card)
    parts = [denied, doubt, finding.severity or "", finding.finding, where]
    words = " ".join(part for part in parts if part)
    extent = _extent(finding, plan)
    return f"{words}, {extent}" if extent else words


def _reference(fact: str | None, plan: Plan) -> str:
    """A cited fact as its number in `plan.cited`, counted from 1."""
    return f" [{plan.cited.index(fact) + 1}]" if fact in plan.cited and fact else ""


def described(finding: Finding, card: FindingCard | None, plan: Plan) -> str:
    """A finding as a sentence: with its code, the signs to look for and what is measured."""
    words = named(finding, card, plan)
    code = f" ({finding.code})" if finding.code else ""
    if finding.status == "absent":
        return sentence(f"{words}{code}")
    signs = [sign for sign in plan.signs if sign.finding == finding.finding][:2]
    looks = "; ".join(f"{sign.text}{_reference(sign.fact, plan)}" for sign in signs)
    measured = _expected(finding, plan)
    details = "; ".join(part for part in (looks, measured) if part)
    return sentence(f"{words}{code}: {details}" if details else f"{words}{code}")


def ranked(plan: Plan) -> list[Finding]:
    """What the impression names: abnormal findings, the gravest first, doubts last; then denials.

    Normal findings stand for the abnormal ones where there are none.
    """
    cards = finding_cards().get(plan.modality, {})
    shown = [finding for finding in plan.findings if finding.status in SHOWN]
    abnormal = [f for f in shown if f.finding not in cards or cards[f.finding].kind == "abnormal"]
    order = {"severe": 0, "moderate": 1, None: 2, "mild": 2}
    abnormal.sort(key=lambda f: (f.status == "uncertain", order[f.severity]))
    return [*(abnormal or shown), *(f for f in plan.findings if f.status == "absent")]
