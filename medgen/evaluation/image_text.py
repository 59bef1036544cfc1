"""CLIP score and its margin: does an image fit its words better than contrary words?

The margin's captions are made of the asked findings' names, right and contrary ones alike, so that
wording does not decide; contrary ones come from the same source. Knows scorers only as `Scorer`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

import numpy as np

from medgen.evaluation.asked import asked, numbers, stated
from medgen.evaluation.clip import LockedCLIP, Scorer, clip_card
from medgen.evaluation.context import Context
from medgen.evaluation.estimates import Ruler, joined, scopes
from medgen.evaluation.figures import OVERALL, Outcome, unmeasured
from medgen.evaluation.seen import REAL, Seen
from medgen.evaluation.tables import ImageTable, Row
from medgen.knowledge.cards import modality_cards

# CLIPScore as torchmetrics has it: 100 times the cosine, not below 0 (Hessel et al. 2021).
SCALE = 100.0
BEST = "right caption fits best"
# What is given, and whether the scorer must be known to tell captions of the modality apart.
METRICS = {
    "CLIP score": False,
    "CLIP margin to contrary captions": True,
    BEST: True,
}
Key = tuple[str, frozenset[str], frozenset[str]]


def key_of(row: Row) -> Key:
    """What a row asks: modality, findings present and findings absent."""
    return row.modal, frozenset(stated(row, "present")), frozenset(stated(row, "absent"))


def caption(key: Key) -> str:
    """A key in words of the cards: "brain MRI, glioma"; the same wording for right and contrary."""
    modal, present, absent = key
    card = modality_cards().get(modal)
    names = [*sorted(present), *(f"no {name}" for name in sorted(absent))]
    return ", ".join([card.drawing_phrase if card else modal, *names])


def contrary(first: Row, second: Row) -> bool:
    """Whether two rows of a modality cannot both be true, or each shows what the other does not."""
    for one, other in ((first, second), (second, first)):
        if any(asked(other, name) == "absent" for name in stated(one, "present")):
            return True
    return all(
        any(asked(other, name) is None for name in stated(one, "present"))
        for one, other in ((first, second), (second, first))
    )


def contrasts(real: ImageTable, rows: Sequence[Row]) -> dict[Key, list[str]]:
    """The captions that each key is set against: the commonest contrary ones of its sources.

    Within the sources in which the real table has the key, so that a scorer cannot win by telling
    sources apart; within the modality where it has none.
    """
    examples: dict[Key, Row] = {}
    counts: dict[tuple[str, str], Counter[Key]] = defaultdict(Counter)
    for row in real.rows:
        if row.findings:
            examples.setdefault(key_of(row), row)
            counts[row.modal, row.more.get("source", "")][key_of(row)] += 1
    found: dict[Key, list[str]] = {}
    for row in rows:
        key = key_of(row)
        if key in found or not (key[1] or key[2]):
            continue
        within = [c for (modal, _), c in counts.items() if modal == row.modal]
        near: Counter[Key] = sum([c for c in within if key in c] or within, Counter())
        others = (other for other, _ in near.most_common() if contrary(row, examples[other]))
        found[key] = [caption(other) for other in islice(others, numbers()["most_contrasts"])]
    return found


def _values(seen: Seen, scorer: Scorer, against: dict[Key, list[str]]) -> dict[str, np.ndarray]:
    """(n,) of each of `METRICS`; NaN where a row has no text or nothing contrary."""
    rows = seen.table.rows
    needed = {row.text for row in rows}
    for key, others in against.items():
        needed |= {caption(key), *others}
    texts = sorted(needed - {""})
    vectors = dict(zip(texts, scorer.text_embeddings(texts), strict=True)) if texts else {}
    scores, margins = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        image = seen.embeddings[index]
        if row.text:
            scores[index] = SCALE * max(float(image @ vectors[row.text]), 0.0)
        contraries = against.get(key_of(row))
        if contraries:
            wrong = max(float(image @ vectors[other]) for other in contraries)
            margins[index] = SCALE * (float(image @ vectors[caption(key_of(row))]) - wrong)
    best = np.where(np.isnan(margins), np.nan, margins > 0)
    return dict(zip(METRICS, (scores, margins, best), strict=True))


def _unfit(scorer: Scorer, scope: str) -> str:
    """Why a scorer's margin says nothing of a modality, "" where it does."""
    if scope == OVERALL or not isinstance(scorer, LockedCLIP):
        return ""
    concepts = clip_card()["concepts"].values()
    if any(entry["modality"] == scope and entry["measurable"] for entry in concepts):
        return ""
    return f"the bundled CLIP is not known to tell any two captions of {scope} apart"


def image_text(
    context: Context, scorer: Scorer, ours: Seen, theirs: Seen, outcome: Outcome
) -> None:
    """Add CLIP score, margin and how often the right caption fits best, and their differences."""
    ruler = Ruler("alignment", scorer.name, context.chance, context.repetitions)
    against = contrasts(context.real, [*context.synthetic.rows, *context.real.rows])
    values = [_values(seen, scorer, against) for seen in (ours, theirs)]
    fit = {modal for modal in context.synthetic.modals if not _unfit(scorer, modal)}
    for scope in scopes(context.synthetic.modals):
        for metric, needs_fit in METRICS.items():
            why = _unfit(scorer, scope) if needs_fit else ""
            if why:
                n = int(ours.within(scope).sum())
                outcome.figures.append(
                    unmeasured("alignment", metric, scope, scorer.name, n, why, better="higher")
                )
                continue
            mine, real = (
                seen.sample(
                    known[metric],
                    seen.within(scope)
                    & np.array([not needs_fit or row.modal in fit for row in seen.table.rows]),
                )
                for seen, known in zip((ours, theirs), values, strict=True)
            )
            figure = ruler.figure(
                metric,
                scope,
                mine,
                real,
                better="higher",
                floor_of=REAL,
                share=metric == BEST,
            )
            low, above = figure.low, figure.floor_high
            if low is not None and above is not None and low > above:
                note = joined("above real images: exaggerated, not better than real", figure.note)
                figure = figure.model_copy(update={"note": note})
            outcome.figures.append(figure)
            gap = ruler.difference(metric, scope, ("synthetic", mine), ("real", real))
            outcome.differences += [gap] if gap is not None else []
