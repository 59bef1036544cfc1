"""Reads a whole report, sentence by sentence, into findings that can stand together.

What a reader does with a report: the history is no finding, advice is none either, what is
described wins over what is denied elsewhere, and "normal" means the rest. Contradictions and
findings that no card knows are told, never refused. Knows sentences and cards; knows no request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from medgen.agents.consistency import implied, merged
from medgen.agents.language import Lexicon, Token, rules, tokenize
from medgen.agents.modality import Resolved, naming
from medgen.agents.modifiers import Mention
from medgen.agents.reading import Reading, leftovers, read_findings
from medgen.agents.sections import Sentence
from medgen.agents.vocabulary import (
    denied_finding,
    modality_table,
    modality_words,
    whole_normal,
)
from medgen.knowledge.cards import finding_cards
from medgen.records import Finding

SHOWN = ("present", "uncertain")
Respell = Callable[[list[Token]], list[Token]]


@dataclass
class Understood:
    """What a report says.

    `readings` are the sentences that were read for findings; `unsaid` the words that no image can
    show; `unknown` those that nothing understood.
    """

    readings: list[Reading] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def mentions(self) -> list[Mention]:
        """All findings of all sentences, in order."""
        return [mention for reading in self.readings for mention in reading.mentions]


@cache
def _advice() -> Lexicon:
    lexicon = Lexicon()
    for phrase in rules("report_reading")["advice"]:
        lexicon.add(phrase, "advice", None)
    return lexicon


def _described(tokens: list[Token]) -> list[Token]:
    """A sentence up to the advice in it: what is recommended is not seen."""
    advice = _advice().scan(tokens)
    return tokens[: advice[0].start] if advice else tokens


def read_report(sentences: Sequence[Sentence], modality: str, respell: Respell) -> Understood:
    """Read every sentence of the sections that describe the image.

    Args:
        sentences: The report.
        modality: What is imaged.
        respell: Corrects a sentence's tokens.
    """
    understood = Understood()
    read = rules("report_reading")["read"]
    for sentence in sentences:
        if sentence.section == "history":
            understood.unsaid.append(sentence.text)
        if sentence.section not in read:
            continue
        tokens = respell(_described(tokenize(sentence.text)))
        resolved = Resolved(modality, naming(tokens))
        reading = read_findings(tokens, resolved, set(), report=True)
        understood.readings.append(reading)
        understood.unsaid += [reading.words(*run) for run in sorted(reading.unsaid)]
        understood.unknown += leftovers(reading)
    _share_eye(sentences, understood, modality)
    understood.unsaid = list(dict.fromkeys(understood.unsaid))
    understood.unknown = list(dict.fromkeys(understood.unknown))
    return understood


def _share_eye(sentences: Sequence[Sentence], understood: Understood, modality: str) -> None:
    """A report on one eye may name it once, in its title or at its end."""
    known = modality_table().get(modality)
    if known is None or known.body != "retina":
        return
    sides = {
        match.value
        for sentence in sentences
        if sentence.section != "history"
        for match in modality_words(modality).scan(tokenize(sentence.text))
        if match.category == "side"
    }
    if len(sides) == 1:
        for mention in understood.mentions:
            mention.sides |= set() if mention.normal else sides


def _normal(finding: str, modality: str) -> bool:
    card = finding_cards().get(modality, {}).get(finding)
    return card is not None and card.kind == "normal"


def _rest_is_normal(findings: Sequence[Finding], modality: str, ruled_out: set[str]) -> list[str]:
    """The normal cards that "all normal" leaves beside what is shown."""
    everything = whole_normal(modality)
    said = {finding.finding for finding in findings}
    if everything is None or everything not in said:
        return []
    entailed = finding_cards()[modality][everything].implies
    return [name for name in entailed if name not in said and name not in ruled_out]


def reconciled(findings: Sequence[Finding], modality: str) -> tuple[list[Finding], list[str]]:
    """Findings that can be true together, and what had to give way, in words.

    What is shown stays. A finding that is denied elsewhere is no longer denied, nor is what a
    shown one entails; normal cards that a shown finding excludes go, and "all normal" beside a
    shown finding means the rest.
    """
    cards = finding_cards().get(modality, {})
    everything = whole_normal(modality)
    one_each = merged(findings)
    shown = [finding for finding in one_each if finding.status in SHOWN]
    abnormal = {one.finding for one in shown if not _normal(one.finding, modality)}
    ruled_out = {name for one in abnormal & cards.keys() for name in cards[one].excludes}
    ruled_out |= {everything} if everything and abnormal else set()
    entailed = {name for one in abnormal for name in implied(one, modality)}
    wanted = _rest_is_normal(one_each, modality, ruled_out) if abnormal else []
    kept: list[Finding] = []
    denied: list[str] = []
    for finding in one_each:
        name = finding.finding
        if finding.status in SHOWN and name in ruled_out:
            continue
        if finding.status == "absent":
            if any(one.finding == name and not _apart(finding, one) for one in shown):
                denied.append(f'"no {name}"')
                continue
            if name in entailed:
                continue
        kept.append(finding)
    kept += [Finding(finding=name, code=cards[name].code) for name in wanted]
    gone = ", ".join(dict.fromkeys(denied))
    return kept, [f"the report both shows and denies: {gone} left out"] if gone else []


def whole_normal_unsaid(findings: Sequence[Finding], modality: str) -> str | None:
    """The card for "all normal" where nothing abnormal is described, unless it is said already.

    Where a modality's normal card only denies one finding ("no brain tumor"), silence is no proof.
    """
    everything = whole_normal(modality)
    if everything is None or denied_finding(finding_cards()[modality][everything]) is not None:
        return None
    shown = {finding.finding for finding in findings if finding.status in SHOWN}
    abnormal = any(not _normal(name, modality) for name in shown)
    return everything if findings and not abnormal and everything not in shown else None


def _apart(denied: Finding, shown: Finding) -> bool:
    return {denied.side, shown.side} == {"left", "right"}
