"""The knowledge store from the outside: build it, ask it, show a term, import what a user holds.

Wires what the knowledge room may not know: the language model that reads literature and the CLIP
that embeds the images of cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medgen.agents.modality import resolve_modality
from medgen.errors import BadInput, MedgenError
from medgen.graphs.collaborators import shared_collaborators
from medgen.knowledge.case_store import CasesTaken, CaseStore
from medgen.knowledge.cases import cases_folder
from medgen.knowledge.embedder import default_embedder
from medgen.knowledge.literature import Literature, LiteratureTaken
from medgen.knowledge.shelf import Imported, Shelf
from medgen.knowledge.store import IMPORTED, LITERATURE, KnowledgeStore, default_folder
from medgen.knowledge.workspace import ready_vectors
from medgen.records import Fact, Record
from medgen.settings import settings

SHORTEST_QUERY = 3
NAMED_SHOWN = 5
Progress = Callable[[str, int, int], None]


class StoreState(Record):
    """What `medgen knowledge build --json` prints; `folder` is absolute, `built` is false when
    the store was there already."""

    folder: str
    built: bool


class StoreStats(Record):
    """What `medgen knowledge stats --json` prints: where the store lies and what is in it."""

    folder: str
    counts: dict[str, int]
    findings: dict[str, int]
    cases: dict[str, int]
    embedder: str


class Answer(Record):
    """What `medgen knowledge query --json` prints: the facts found, best first."""

    text: str
    modality: str | None
    facts: list[Fact]


class Shown(Record):
    """What `medgen knowledge show --json` prints: a fact and its relations."""

    fact: Fact
    relations: list[Fact]


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


def stats() -> StoreStats:
    """What is in the store and beside it."""
    from medgen.knowledge.cards import finding_cards

    minds = shared_collaborators()
    cases = {"bundled images": sum(len(group.ids) for group in minds.cases.groups)}
    if minds.cases.own is not None:
        cases["imported"] = len(minds.cases.own)
    return StoreStats(
        folder=str(minds.store.folder),
        counts=minds.store.counts(),
        findings={name: len(cards) for name, cards in finding_cards().items()},
        cases=cases,
        embedder=minds.store.embedder.fingerprint,
    )


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


def similar(
    text: str | None = None,
    image: Path | None = None,
    modality: str | None = None,
    finding: str | None = None,
    top_k: int = 5,
) -> Answer:
    """Cases like a text or an image: real captions, the user's own tables included.

    Args:
        text: Free words, or None to ask by an image.
        image: An image file; only imported tables have image vectors.
        modality: Keep only its cases.
        finding: Keep only cases with this canonical finding.
        top_k: How many at most.

    Raises:
        BadInput: Neither or both of text and image, an unreadable image, or no table of images.
    """
    if (text is None) == (image is None):
        raise BadInput("ask by words or by --image, one of them")
    name = None if modality is None else modality_name(modality)
    cases = shared_collaborators().cases
    if text is not None:
        return Answer(text=text, modality=name, facts=cases.search(text, name, top_k, finding))
    assert image is not None
    if cases.own is None:
        raise BadInput("no cases with images: medgen knowledge import cases TABLE.csv first")
    vectors, read = embed_images([image])
    if not read[0]:
        raise BadInput(f"{image} cannot be read as an image")
    facts = cases.search_image(vectors[0], name, top_k, finding)
    return Answer(text=str(image), modality=name, facts=facts)


def show(what: str, modality: str | None = None) -> Shown:
    """A fact by its id, or the best fact that goes by a name, with its relations.

    Raises:
        BadInput: Nothing goes by this id or name, or the modality is unknown.
    """
    name = None if modality is None else modality_name(modality)
    store = shared_collaborators().store
    ids = [what, *store.named(what)[:NAMED_SHOWN]]
    fact = next((one for fact_id in ids if (one := store.fact(fact_id, name))), None)
    if fact is None:
        raise BadInput(f"nothing is known by {what!r}: medgen knowledge query finds by words")
    return Shown(fact=fact, relations=store.relations_of(fact.id, name))


def import_terms(kind: str, path: Path, progress: Progress | None = None) -> Imported:
    """Import a terminology: kind "radlex" (OWL), "snomed" (RF2 folder) or "obo".

    Raises:
        BadInput: The file cannot be read as what it should be.
        MedgenError: The store's folder cannot be written.
    """
    folder = default_folder() / IMPORTED
    shelf = Shelf(folder, ready_vectors(default_embedder()), write=True)
    try:
        return shelf.take(kind, path, progress)
    finally:
        shelf.close()


def import_literature(paths: Sequence[Path], progress: Progress | None = None) -> LiteratureTaken:
    """Read text and PDF files with the language model of `MEDGEN_LLM`.

    Raises:
        BadInput: No language model is set, or none of the files could be read.
    """
    if settings().llm is None:
        raise BadInput(
            "reading literature needs a language model: set MEDGEN_LLM, such as openai:NAME with "
            "OPENAI_BASE_URL for a local server"
        )
    from medgen.agents.chat_model import ChatModel

    chat = ChatModel(settings())
    _ = chat.model  # what cannot be made is said before any file is read

    async def answer(prompt: str, system_prompt: str | None) -> str:
        messages = [("human", prompt)]
        if system_prompt:
            messages.insert(0, ("system", system_prompt))
        try:
            reply = await chat.model.ainvoke(messages)
        except Exception as error:
            # Kept with the file and shown: it must not quote the provider, who may quote a key.
            raise MedgenError(str(chat.why(error))) from None
        return str(reply.content)

    vectors = ready_vectors(default_embedder())
    literature = Literature(default_folder() / LITERATURE, vectors, answer)
    try:
        return literature.take(paths, progress)
    finally:
        literature.close()


def import_cases(
    table: Path, with_images: bool = True, progress: Progress | None = None
) -> CasesTaken:
    """Import an image-text table (path, text, modal) as cases.

    Args:
        table: A CSV file; `label`-free: findings are read off the text, or from a column
            `findings`.
        with_images: Embed the images too, so that cases can be found by image.
        progress: Told the step, what is done and how much there is.

    Raises:
        BadInput: The table cannot be read.
    """
    store = CaseStore(cases_folder(), ready_vectors(default_embedder()), write=True)
    try:
        if not with_images:
            return store.take(table, progress=progress)
        return store.take(table, embed_images, _image_model(), progress)
    finally:
        store.close()


def _image_model() -> str:
    import hashlib

    from medgen.measure.clip import WEIGHTS

    return hashlib.sha256((WEIGHTS / "clip.safetensors").read_bytes()).hexdigest()[:16]


def embed_images(paths: list[Path]) -> tuple[np.ndarray, list[bool]]:
    """Unit vectors of images by the bundled CLIP (zeros where unreadable), and which were read."""
    from medgen.data.images import load_image, square
    from medgen.measure.clip import bundled_clip

    clip = bundled_clip()
    pictures = np.zeros((len(paths), clip.size, clip.size, 3), dtype=np.uint8)
    read = []
    for row, path in enumerate(paths):
        try:
            pictures[row] = np.asarray(square(load_image(path), clip.size))
            read.append(True)
        except BadInput:
            read.append(False)
    vectors = clip.image_embeddings(pictures)
    vectors[[row for row, ok in enumerate(read) if not ok]] = 0
    return vectors, read
