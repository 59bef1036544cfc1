"""Alignment: do images show what was asked, to scorers that no loop has optimised?

A CLIP score and its margin to contrary captions (`image_text`), each finding's presence by
evaluation's reader (`presence`), modality, and what evaluation's segmenter measures on chest films
(`chest_response`), each beside the same figure on real images with their own texts.
"""

from __future__ import annotations

import numpy as np

from medgen.evaluation import reader
from medgen.evaluation.asked import CHEST_FILM
from medgen.evaluation.chest_response import heart_response, measurable, side_response
from medgen.evaluation.clip import Scorer, load_clip
from medgen.evaluation.context import Context
from medgen.evaluation.estimates import Ruler, scopes
from medgen.evaluation.figures import Figure, Outcome
from medgen.evaluation.image_text import image_text
from medgen.evaluation.presence import READER, presence
from medgen.evaluation.seen import REAL, Seen, look
from medgen.measure.reader import MODALITY


def measure(context: Context, clip: Scorer | None = None) -> Outcome:
    """Measure alignment.

    Args:
        context: The evaluation; only its `real` and `synthetic` tables are used.
        clip: The image-text scorer (`clip.load_clip`); the bundled one when None.

    Returns:
        Figures by modality, by finding and overall, differences from real images, and a picture
        of the heart's response where ratios were asked for.
    """
    scorer = load_clip() if clip is None else clip
    ours, theirs = (look(context, t, scorer) for t in (context.synthetic, context.real))
    outcome = Outcome()
    for table in (context.real, context.synthetic):
        silent = sum(not row.findings for row in table.rows)
        if silent:
            outcome.warnings.append(
                f"{silent} of {len(table)} texts of the {table.name} table name no known finding: "
                "these images count by their modality and CLIP score only"
            )
    image_text(context, scorer, ours, theirs, outcome)
    presence(context, ours, theirs, outcome)
    outcome.figures += _modality(context, ours, theirs)
    if CHEST_FILM in context.synthetic.modals:
        for response in (measurable, side_response, heart_response):
            response(
                context,
                (context.synthetic, ours.films),
                (context.real, theirs.films),
                outcome,
            )
    return outcome


def _modality(context: Context, ours: Seen, theirs: Seen) -> list[Figure]:
    """How often an image is read as the modality that was asked."""
    ruler = Ruler("alignment", READER, context.chance, context.repetitions)
    known = set(reader.reader_heads()[MODALITY])
    agreements = []
    for seen in (ours, theirs):
        pairs = zip(seen.readings, seen.table.rows, strict=True)
        agreements.append(
            np.array(
                [
                    float(reading.modality == row.modal) if row.modal in known else np.nan
                    for reading, row in pairs
                ]
            )
        )
    return [
        ruler.figure(
            "modality agreement",
            scope,
            ours.sample(agreements[0], ours.within(scope)),
            theirs.sample(agreements[1], theirs.within(scope)),
            better="higher",
            share=True,
            floor_of=REAL,
        )
        for scope in scopes(context.synthetic.modals)
    ]
