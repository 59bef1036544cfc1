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
from medgen.agents.vocabulary import whole_normal
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
    understood.unsaid = list(dict.fromkeys(understood.unsaid))
    understood.unknown = list(dict.fromkeys(understood.unknown))
    return understood


def _excluded_by(shown: set[str], modality: str) -> set[str]:
    cards = finding_cards().get(modality, {})
    return {name for other in shown & cards.keys() for name in cards[other].excludes}


def reconciled(findings: Sequence[Finding], modality: str) -> tuple[list[Finding], list[str]]:
    """Findings that can be true together, and what had to give way, in words.

    What is shown stays. A finding that is denied elsewhere is no longer denied, nor is what a
    shown one entails; normal cards that a shown finding excludes go, and so does "all normal"
    beside any shown finding.
    """
    cards = finding_cards().get(modality, {})
    one_each = merged(findings)
    abnormal = {
        finding.finding
        for finding in one_each
        if finding.status in SHOWN
        and not (finding.finding in cards and cards[finding.finding].kind == "normal")
    }
    entailed = {name for finding in abnormal for name in implied(finding, modality)}
    ruled_out = _excluded_by(abnormal, modality) | {
        name for name in [whole_normal(modality)] if name and abnormal
    }
    kept: list[Finding] = []
    given_way: list[str] = []
    for finding in one_each:
        card = cards.get(finding.finding)
        normal = card is not None and card.kind == "normal"
        if normal and finding.finding in ruled_out:
            continue
        if finding.status == "absent":
            shown = [f for f in one_each if f.finding == finding.finding and f.status in SHOWN]
            if any(_same_place(finding, other) for other in shown):
                given_way.append(f"no {finding.finding}")
                continue
            if finding.finding in entailed:
                continue
        kept.append(finding)
    said = ", ".join(f'"{words}"' for words in dict.fromkeys(given_way))
    return kept, [f"the report both shows and denies: {said} left out"] if said else []


def _same_place(denied: Finding, shown: Finding) -> bool:
    apart = {denied.side, shown.side} == {"left", "right"}
    return not apart
