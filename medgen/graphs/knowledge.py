"""The knowledge store from the outside: build it, and ask it in free words."""

from __future__ import annotations

from collections.abc import Callable

from medgen.agents.modality import resolve_modality
from medgen.errors import BadInput
from medgen.graphs.collaborators import shared_collaborators
from medgen.knowledge.store import KnowledgeStore
from medgen.records import Fact, Record

SHORTEST_QUERY = 3


class StoreState(Record):
    """What `medgen knowledge build --json` prints; `folder` is absolute, `built` is false when
    the store was there already."""

    folder: str
    built: bool


class Answer(Record):
    """What `medgen knowledge query --json` prints: the facts found, best first."""

    text: str
    modality: str | None
    facts: list[Fact]


def modality_name(given: str) -> str:
    """The name of the modality that a user means.

    Raises:
        BadInput: Empty or unknown.
    """
    resolved = resolve_modality([], given)
    if resolved is None:
        raise BadInput("--modality is empty: leave it out, or name one")
    return resolved.name


def build(progress: Callable[[str], None] | None = None) -> StoreState:
    """Build the knowledge store where it is missing or out of date.

    Args:
        progress: Told one line before a build starts.

    Raises:
        MedgenError: The folder cannot be written.
    """
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        if progress is not None:
            progress(line)

    store = KnowledgeStore.open(progress=tell)
    return StoreState(folder=str(store.folder), built=bool(said))


def query(text: str, modality: str | None = None, top_k: int = 8) -> Answer:
    """Facts that answer a text, those below the relevance floor left out.

    Args:
        text: Free words, at least three characters.
        modality: Keep only what holds there.
        top_k: How many facts at most.

    Raises:
        BadInput: The text is too short, or the modality is unknown.
    """
    if len(text.strip()) < SHORTEST_QUERY:
        raise BadInput(f"the question has under {SHORTEST_QUERY} characters: ask in words")
    name = None if modality is None else modality_name(modality)
    facts = shared_collaborators().store.query(text, modality=name, top_k=top_k)
    return Answer(text=text, modality=name, facts=facts)
