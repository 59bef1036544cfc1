"""Reads a request with a language model beside the rules: the model names, the rules decide.

The model may say which finding a phrase means that the rules left unread ("water on the lungs").
The phrase is then put into the request under the finding's canonical name and the rules read the
whole again, so that status, side and grade come from the words that stand there and nothing enters
a plan that no unread word of the request supports. What the rules read themselves always stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pydantic import Field

from medgen.agents import parser
from medgen.agents.chat_model import LONGEST_LIST
from medgen.agents.language import Token, fold, rules, tokenize
from medgen.agents.llm import RULES, Session
from medgen.agents.scope import cue_lexicon
from medgen.agents.vocabulary import (
    grid_lexicon,
    modality_lexicon,
    modality_words,
    other_findings,
)
from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards, modality_cards
from medgen.records import Finding, Plan, Record, Request, Status

_SHOWN = ("present", "uncertain")
_QUOTED = 60


class ReadFinding(Record):
    """A finding as the model read it."""

    finding: str = Field(description="canonical name from the vocabulary")
    quote: str = Field(description="the request's own words for it")
    status: Status


class RequestReading(Record):
    """What the request asks for."""

    modality: str | None
    findings: list[ReadFinding] = Field(max_length=LONGEST_LIST)
    not_drawable: list[str] = Field(max_length=LONGEST_LIST)


@dataclass(frozen=True)
class _Meaning:
    """What a phrase of the request means: `start:end` of it are the words to be put otherwise."""

    start: int
    end: int
    name: str
    read: ReadFinding


@cache
def _plain_words() -> frozenset[str]:
    """Words that the rules understand wherever they stand."""
    language = rules("language")
    words = {fold(word) for word in (*language["filler"], *language["age_units"])}
    for groups in ("age_groups", "sexes", "views"):
        for phrases in language[groups].values():
            words |= {token.key for phrase in phrases for token in tokenize(phrase)}
    return frozenset(words)


def _unread(prompt: str, modality: str) -> tuple[list[Token], set[int]]:
    """The tokens of a prompt, and the indices of those of which the rules make nothing."""
    tokens = tokenize(prompt)
    read: set[int] = set()
    for lexicon in (
        modality_words(modality),
        other_findings(modality),  # refused by name, and not for a model to put otherwise
        cue_lexicon(),
        modality_lexicon(),
        grid_lexicon(),
    ):
        read |= {index for match in lexicon.scan(tokens) for index in match.taken}
    plain = _plain_words()
    return tokens, {
        index
        for index, token in enumerate(tokens)
        if index not in read and token.is_word and len(token.key) > 1 and token.key not in plain
    }


def canonical(name: str, modality: str) -> str | None:
    """The knowledge base's name for a finding of a modality, None when it has none."""
    cards = finding_cards().get(modality, {})
    if name in cards:
        return name
    try:
        read = parser.parse(Request(prompt=name, modality=modality)).findings
    except BadInput:
        return None
    return read[0].finding if read and read[0].finding in cards else None


def _quoted(text: str) -> str:
    return f'"{text if len(text) <= _QUOTED else text[: _QUOTED - 3] + "..."}"'


def _unread_span(prompt: str, quote: str, modality: str) -> tuple[int, int] | None:
    """The first run of words in a quote that the rules left unread, as a span of the prompt."""
    wanted = [token.key for token in tokenize(quote)]
    tokens, unread = _unread(prompt, modality)
    for first in range(len(tokens) - len(wanted) + 1) if wanted else ():
        indices = range(first, first + len(wanted))
        if [tokens[index].key for index in indices] != wanted:
            continue
        run: list[Token] = []
        for index in indices:
            if index in unread:
                run.append(tokens[index])
            elif run:
                break
        if run:
            return run[0].start, run[-1].end
    return None


def _reworded(prompt: str, meanings: list[_Meaning], left_out: list[tuple[int, int]]) -> str:
    pieces = [(one.start, one.end, one.name) for one in meanings]
    pieces += [(start, end, " ") for start, end in left_out]
    for start, end, text in sorted(pieces, reverse=True):
        prompt = prompt[:start] + text + prompt[end:]
    return prompt


def _where(finding: Finding) -> tuple[str | None, ...]:
    return finding.side, finding.location, finding.severity


def _changed(before: Plan | None, after: Plan, new: set[str]) -> str:
    """What a second reading would change of the first, empty when it only adds `new` findings."""
    kept = {(f.finding, f.status): f for f in after.findings}
    for finding in before.findings if before else ():
        again = kept.get((finding.finding, finding.status))
        if again is None or _where(again) != _where(finding):
            return finding.finding
    names = {finding.finding for finding in before.findings} if before else set()
    added = [f.finding for f in after.findings if f.finding not in names | new]
    return added[0] if added else ""


class _Reconciliation:
    """One answer of the model held against the request and the rules' own reading."""

    def __init__(self, request: Request, ruled: Plan | None, modality: str, who: str) -> None:
        self.request = request.model_copy(update={"modality": modality})
        self.prompt = request.prompt
        self.ruled = ruled
        self.modality = modality
        self.who = who
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def _reread(self, meanings: list[_Meaning], left_out: list[tuple[int, int]]) -> Plan | None:
        text = _reworded(self.prompt, meanings, left_out)
        try:
            return parser.parse(self.request.model_copy(update={"prompt": text}))
        except BadInput:
            return None

    def meaning(self, read: ReadFinding) -> _Meaning | None:
        """What the model adds by one finding, None when it may add nothing; says why."""
        name = canonical(read.finding, self.modality)
        if name is None:
            self._drop(read, f"which is no finding of {self.modality} in the knowledge base")
            return None
        if self.ruled and any(name == finding.finding for finding in self.ruled.findings):
            return None
        span = _unread_span(self.prompt, read.quote, self.modality)
        if span is None:
            self._drop(read, "which no unread words of the request say")
            return None
        meaning = _Meaning(*span, name, read)
        plan = self._reread([meaning], [])
        if plan is None or _changed(self.ruled, plan, {name}):
            self._drop(read, "which does not go with the rest of the request")
            return None
        status = next((f.status for f in plan.findings if f.finding == name), None)
        if status is None or (status in _SHOWN and read.status not in _SHOWN):
            self._drop(read, f"as {read.status}, where the request's words say otherwise")
            return None
        return meaning

    def _drop(self, read: ReadFinding, why: str) -> None:
        self.warnings.append(f"{self.who} named {_quoted(read.finding)}, {why}: left out")

    def plan(self, answer: RequestReading) -> Plan | None:
        """The plan of request and answer; None when no reading of it holds."""
        meanings: list[_Meaning] = []
        for read in answer.findings:
            meaning = self.meaning(read)
            taken = meaning and any(
                meaning.start < other.end and other.start < meaning.end for other in meanings
            )
            if meaning is not None and not taken:
                meanings.append(meaning)
                words = _quoted(self.prompt[meaning.start : meaning.end])
                self.warnings.append(f"{self.who} read {words} as {meaning.name}")
        spans = [_unread_span(self.prompt, words, self.modality) for words in answer.not_drawable]
        left_out = [
            span
            for span in dict.fromkeys(span for span in spans if span)
            if not any(span[0] < one.end and one.start < span[1] for one in meanings)
        ]
        plan = self._reread(meanings, left_out)
        if plan is None or _changed(self.ruled, plan, {one.name for one in meanings}):
            return None
        if self.ruled is None and not plan.findings:
            return None
        return self._finish(plan, left_out)

    def _finish(self, plan: Plan, left_out: list[tuple[int, int]]) -> Plan:
        unsaid = [self.prompt[start:end] for start, end in left_out]
        if unsaid:
            said = ", ".join(f'"{words}"' for words in unsaid)
            self.notes.append(f"{self.who} read {said} as what no image can show")
        return plan.model_copy(
            update={
                "prompt": self.prompt,
                "not_drawable": list(dict.fromkeys([*plan.not_drawable, *unsaid])),
                "warnings": [*plan.warnings, *self.warnings],
                "notes": [*plan.notes, *self.notes],
            }
        )


def _card_of(said: str | None) -> str | None:
    """The modality card that a name or alias means."""
    matches = modality_lexicon().scan(tokenize(said or ""))
    names = {match.value for match in matches} & set(modality_cards())
    return names.pop() if len(names) == 1 else None


def _said_modality(request: Request) -> str | None:
    """The modality card that the request itself names, in its field or else in its words."""
    return _card_of(request.modality) if request.modality else _card_of(request.prompt)


def _question(request: Request, ruled: Plan | None) -> dict[str, object]:
    modality = ruled.modality if ruled else _said_modality(request)
    known = finding_cards()
    shown = [modality] if modality in known else list(known)
    vocabulary = {name: list(known[name]) for name in shown if name}
    return {"request": request.prompt, "modality": modality, "vocabulary": vocabulary}


def _settled(
    request: Request, ruled: Plan | None, answer: RequestReading, who: str
) -> tuple[Plan | None, str]:
    """The plan after the model spoke, and who decided on it."""
    said = _said_modality(request)
    modality = ruled.modality if ruled else said or _card_of(answer.modality)
    if modality is None:
        return ruled, f"{RULES}; {who}: it read no modality that has a card"
    held = _Reconciliation(request, ruled, modality, who)
    plan = held.plan(answer)
    if plan is None:
        if ruled is not None:
            warnings = [*ruled.warnings, *held.warnings]
            ruled = ruled.model_copy(update={"warnings": warnings})
        return ruled, f"{RULES}; {who}: its reading does not go with the request's words"
    if ruled is None and said is None:
        note = f"{who} read the modality as {modality}"
        plan = plan.model_copy(update={"notes": [note, *plan.notes]})
    return plan, who


def parse(request: Request, session: Session) -> Plan:
    """Read a request by rules and, when there is one, with a language model.

    Args:
        request: As for `medgen.agents.parser.parse`.
        session: Whom to ask.

    Returns:
        The plan; `warnings` say which words the model read as what, and what it named and was
        not let in.

    Raises:
        BadInput: Neither the rules nor the model make a plan of the request; the rules' reason.
    """
    try:
        plan: Plan | None = parser.parse(request)
        refusal = None
    except BadInput as error:
        plan, refusal = None, error
    readable = len(request.prompt) <= parser.LONGEST_REPORT and any(
        map(str.isalnum, request.prompt)
    )
    decided_by = RULES
    if session.asks and plan is not None and plan.modality not in modality_cards():
        decided_by = f"{RULES}; {session.name}: not asked, {plan.modality} has no modality card"
    elif session.asks and readable:
        outcome = session.ask("parser", _question(request, plan), RequestReading)
        decided_by = outcome.decided_by
        if outcome.answer is not None:
            plan, who = _settled(request, plan, outcome.answer, session.name)
            decided_by = decided_by if who == session.name else who
    if plan is None:
        assert refusal is not None
        if not session.asks:
            raise refusal
        raise BadInput(f"{refusal} ({decided_by.removeprefix(f'{RULES}; ')})") from refusal
    return plan.model_copy(update={"decided_by": plan.decided_by | {"parser": decided_by}})
