"""Who is imaged and how: age, sex and projection, read from the words of a request.

Knows the lists of `rules/language.yaml`; knows no findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

from medgen.agents.language import Lexicon, Token, rules
from medgen.errors import BadInput
from medgen.records import AgeGroup, Sex, View

_DAYS_OR_MONTHS = ("month", "mo", "week", "wk", "day")
_PERSON = ("man", "woman", "boy", "girl", "patient", "person", "child", "adult", "gentleman",
           "lady", "male", "female")  # fmt: skip


@dataclass
class Demographics:
    """What was read, the tokens it took, and what to tell the user."""

    age: int | None = None
    age_group: AgeGroup | None = None
    sex: Sex | None = None
    view: View | None = None
    taken: set[int] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


@cache
def _person_lexicon() -> Lexicon:
    data = rules("language")
    lexicon = Lexicon()
    for category, key in (("age_group", "age_groups"), ("sex", "sexes")):
        for value, phrases in data[key].items():
            for phrase in phrases:
                lexicon.add(phrase, category, value)
    return lexicon


@cache
def _view_lexicon() -> Lexicon:
    data = rules("language")
    lexicon = Lexicon()
    for value, phrases in data["views"].items():
        for phrase in phrases:
            lexicon.add(phrase, "view", value)
    for phrase in data["frontal"]:
        lexicon.add(phrase, "frontal", phrase)
    for phrase in data["views_not_drawn"]:
        lexicon.add(phrase, "not drawn", phrase)
    return lexicon


def _age_at(tokens: Sequence[Token], index: int) -> tuple[int, int, Sex | None] | None:
    """Age in years, the index after its last token, and a sex if "65M"; None when it is no age."""
    keys = [token.key for token in tokens[index : index + 5]] + [""] * 5
    number = float(keys[0])
    before = tokens[index - 1].key if index else ""
    if keys[1] in rules("language")["age_units"]:
        years = keys[1] not in _DAYS_OR_MONTHS
        old = keys[2] in ("old", "of")
        age = int(number) if years else int(number / {"m": 12, "w": 52, "d": 365}[keys[1][0]])
        end = index + (3 if old else 2)
        if keys[2] == "of" and keys[3] == "age":
            return age, index + 4, None
        if keys[2] in ("ago", "of") or before in ("for", "since"):
            return None
        if old or keys[1] in ("yo", "y", "y/o") or before in ("age", "aged"):
            return age, end, None
        if years and keys[2] in _PERSON:
            return age, end, None
        return None
    touching = index + 1 < len(tokens) and tokens[index].end == tokens[index + 1].start
    if keys[1] in ("m", "f") and tokens[index + 1].text.isupper() and (touching or number > 12):
        return int(number), index + 2, "male" if keys[1] == "m" else "female"
    if before in ("age", "aged") or (before in (":", "=") and tokens[index - 2].key == "age"):
        return int(number), index + 1, None
    return None


def _contradiction(kind: str, values: list[str]) -> BadInput:
    return BadInput(f"the prompt asks for two {kind} ({' and '.join(values)}): name one")


def _read_age(tokens: Sequence[Token], result: Demographics) -> None:
    ages: list[int] = []
    for index, token in enumerate(tokens):
        if not token.is_number:
            continue
        found = _age_at(tokens, index)
        if found is None:
            continue
        age, end, sex = found
        oldest = rules("language")["oldest"]
        if age > oldest:
            raise BadInput(f"the age {age} is not a human age: give 0 to {oldest} years")
        ages.append(age)
        result.taken.update(range(index, end))
        result.sex = sex or result.sex
    if len(set(ages)) > 1:
        raise _contradiction("ages", [str(age) for age in sorted(set(ages))])
    result.age = ages[0] if ages else None


def _read_person(tokens: Sequence[Token], result: Demographics) -> None:
    groups: list[str] = []
    sexes: list[str] = [result.sex] if result.sex else []
    shouted = all(token.text.isupper() for token in tokens if token.is_word)
    # "HE" amid small letters is an abbreviation (hard exudates), not a man.
    apart = {
        index
        for index, token in enumerate(tokens)
        if index in result.taken or (not shouted and len(token.key) == 2 and token.in_capitals)
    }
    free = [replace(t, key="\0") if i in apart else t for i, t in enumerate(tokens)]
    for match in _person_lexicon().scan(free):
        result.taken.update(match.taken)
        (groups if match.category == "age_group" else sexes).append(match.value)
    if len(set(sexes)) > 1:
        raise _contradiction("sexes", sorted(set(sexes)))
    if len(set(groups)) > 1:
        raise _contradiction("age groups", sorted(set(groups)))
    result.sex = sexes[0] if sexes else None  # type: ignore[assignment]
    result.age_group = groups[0] if groups else None  # type: ignore[assignment]
    if result.age is None:
        return
    by_age: AgeGroup = "adult" if result.age >= rules("language")["adult_from"] else "child"
    if result.age_group not in (None, by_age):
        result.warnings.append(
            f"age {result.age} and the word for {_article(result.age_group)} disagree: "
            f"the number is kept"
        )
    result.age_group = by_age


def _article(group: str | None) -> str:
    return f"an {group}" if group == "adult" else f"a {group}"


def _read_view(tokens: Sequence[Token], views: Sequence[View], result: Demographics) -> None:
    said: list[View] = []
    for match in _view_lexicon().scan(tokens):
        words = " ".join(tokens[index].text for index in match.taken)
        if match.category == "not drawn":
            raise BadInput(
                f'the projection "{words}" cannot be drawn: ask for one of {", ".join(views)}'
            )
        result.taken.update(match.taken)
        if match.category == "view" and match.value not in said:
            said.append(match.value)
    if "AP" in said and "AP supine" in said:
        said.remove("AP")
    if len(said) > 1:
        raise _contradiction("projections", list(said))
    result.view = said[0] if said else None


def read_demographics(
    tokens: Sequence[Token], views: Sequence[View], lenient: bool = False
) -> Demographics:
    """Age in years, age group, sex and projection of a request.

    Args:
        tokens: The prompt's tokens.
        views: The projections that the modality has; without any, none is looked for.
        lenient: What cannot be used becomes a warning, for reports.

    Raises:
        BadInput: An impossible age, two ages, sexes or projections, or one that is not drawn.
    """
    result = Demographics()
    steps = [partial(_read_age, tokens, result), partial(_read_person, tokens, result)]
    if views:
        steps.append(partial(_read_view, tokens, views, result))
    for step in steps:
        try:
            step()
        except BadInput as error:
            if not lenient:
                raise
            result.warnings.append(f"{error}: left out")
    return result
