"""Which modality a request means: by name, by technique and body part, or by its findings.

Knows the grid of `rules/modalities.yaml` and the cards; knows no statuses and no sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rapidfuzz import fuzz, process

from medgen.agents.language import Token, tokenize
from medgen.agents.vocabulary import (
    grid_lexicon,
    modality_lexicon,
    modality_table,
    modality_words,
    place_in_grid,
)
from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards, modality_cards


@dataclass
class Resolved:
    """A modality, the tokens that named it, and what to tell the user."""

    name: str
    taken: set[int] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


def _listed(names: Sequence[str], joint: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {joint} {names[-1]}"


def _by_override(given: str) -> str:
    wanted = " ".join(given.split())
    by_name = {name.casefold(): name for name in modality_table()}
    if wanted.casefold() in by_name:
        return by_name[wanted.casefold()]
    tokens = tokenize(wanted)
    for match in modality_lexicon().scan(tokens):
        if len(match.taken) == len(tokens):
            return str(match.value)
    technique, body = place_in_grid(wanted)
    fitting = _in_grid({technique} if technique else set(), {body} if body else set())
    if len(fitting) == 1:
        return fitting[0]
    near = process.extractOne(wanted.casefold(), list(by_name), scorer=fuzz.WRatio, score_cutoff=75)
    hint = f'did you mean "{by_name[near[0]]}"? ' if near else ""
    cards = ", ".join(modality_cards())
    raise BadInput(f'unknown modality "{_short(wanted)}": {hint}known with cards are {cards}')


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _in_grid(techniques: set[str], bodies: set[str]) -> list[str]:
    fitting = [
        known
        for known in modality_table().values()
        if known.technique in techniques and known.body in bodies
    ]
    return [known.name for known in fitting if known.drawable] or [known.name for known in fitting]


def _coverage(tokens: Sequence[Token]) -> dict[str, set[int]]:
    covered = {}
    for name in finding_cards():
        matches = modality_words(name).scan(tokens)
        covered[name] = {i for match in matches if match.category == "finding" for i in match.taken}
    return covered


def _by_findings(tokens: Sequence[Token], bodies: set[str], allowed: set[str]) -> list[str]:
    covered = {name: taken for name, taken in _coverage(tokens).items() if name in allowed}
    most = max((len(taken) for taken in covered.values()), default=0)
    best = [name for name, taken in covered.items() if most and len(taken) == most]
    together = set().union(*covered.values()) if covered else set()
    if best and len(together) > most and not any(covered[name] == together for name in best):
        groups = [
            f"{' '.join(tokens[i].text for i in sorted(covered[name]))} in {name}"
            for name in covered
            if covered[name]
        ]
        raise BadInput(
            f"no one modality shows all that is asked ({'; '.join(groups)}): split the prompt"
        )
    # "tumor in the breast" is no brain tumor: a body part that is said must be the modality's.
    return [name for name in best if not bodies or modality_table()[name].body in bodies]


def _from_words(tokens: Sequence[Token]) -> tuple[set[str], set[str], set[int], set[int]]:
    techniques: set[str] = set()
    bodies: set[str] = set()
    technique_at: set[int] = set()
    body_at: set[int] = set()
    for match in grid_lexicon().scan(tokens):
        if match.category == "technique":
            techniques.add(match.value)
            technique_at.update(match.taken)
        else:
            bodies.add(match.value)
            body_at.update(match.taken)
    return techniques, bodies, technique_at, body_at


def _by_technique(
    tokens: Sequence[Token], techniques: set[str], bodies: set[str], taken: set[int]
) -> Resolved:
    fitting = _in_grid(techniques, bodies)
    if len(fitting) == 1:
        return Resolved(fitting[0], taken)
    if not fitting and bodies:
        name = f"{sorted(bodies)[0].capitalize()} {sorted(techniques)[0]}"
        return Resolved(name, taken)
    same = [k.name for k in modality_table().values() if k.technique in techniques and k.drawable]
    shown = _by_findings(tokens, set(), set(same))
    choices = shown or same
    if len(choices) == 1:
        said = _listed(sorted(techniques))
        warning = f"the prompt says {said} and no body part: read as {choices[0]}"
        return Resolved(choices[0], taken, [warning])
    if not choices:
        raise BadInput(
            f"the prompt says {_listed(sorted(techniques))} but not of what: name the body part, "
            f'such as "{next(iter(modality_cards()))}"'
        )
    raise BadInput(f"the modality is not clear: say {_listed(choices, 'or')}")


def naming(tokens: Sequence[Token]) -> set[int]:
    """The tokens that name a modality or a technique."""
    _, _, technique_at, _ = _from_words(tokens)
    named = modality_lexicon().scan(tokens)
    return technique_at | {index for match in named for index in match.taken}


def resolve_modality(tokens: Sequence[Token], given: str | None) -> Resolved | None:
    """The modality that a request means, or None when nothing in it says any.

    Args:
        tokens: The prompt's tokens.
        given: The user's explicit modality, which overrides the prompt.

    Raises:
        BadInput: Unknown `given`, two modalities, or several that fit; the choices are listed.
    """
    resolved, body_at = _resolve(tokens, given)
    # Where no card names regions, the body part is the modality's name and nothing more.
    if resolved is not None and resolved.name not in modality_cards():
        resolved.taken |= body_at
    return resolved


def _resolve(tokens: Sequence[Token], given: str | None) -> tuple[Resolved | None, set[int]]:
    techniques, bodies, technique_at, body_at = _from_words(tokens)
    named = modality_lexicon().scan(tokens)
    taken = technique_at | {index for match in named for index in match.taken}
    names = list(dict.fromkeys(str(match.value) for match in named))
    if given is not None and given.strip():
        name = _by_override(given)
        warnings = []
        others = [other for other in names if other != name]
        if others:
            warnings.append(f"the prompt says {_listed(others)}; the modality given, {name}, wins")
        return Resolved(name, taken, warnings), body_at
    if len(names) == 1 and modality_table()[names[0]].body is None:
        # "ultrasound of the thyroid": the technique was named, the body part stands apart.
        fitting = _in_grid(techniques, bodies)
        names = fitting if len(fitting) == 1 else names
    if len(names) > 1:
        specific = [name for name in names if modality_table()[name].body]
        names = specific if len(specific) == 1 else names
    if len(names) > 1:
        raise BadInput(f"the prompt names {_listed(names)}: ask for one modality at a time")
    if names:
        return Resolved(names[0], taken), body_at
    if techniques:
        return _by_technique(tokens, techniques, bodies, technique_at), body_at
    shown = _by_findings(tokens, bodies, set(finding_cards()))
    if len(shown) == 1:
        warning = f"no modality was named: {shown[0]} is the only one here that shows this"
        return Resolved(shown[0], set(), [warning]), body_at
    if shown:
        raise BadInput(f"no modality was named and several show this: say {_listed(shown, 'or')}")
    elsewhere = [k.name for k in modality_table().values() if k.body in bodies]
    if bodies and elsewhere:
        raise BadInput(
            f"no modality was named for the {_listed(sorted(bodies))}: say "
            f"{_listed(elsewhere[:4], 'or')}"
        )
    return None, body_at
