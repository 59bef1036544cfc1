"""The tokenizer of a run: trained on its captions and on the words of the knowledge base."""

from __future__ import annotations

import random
from pathlib import Path

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.generator import captions
from medgen.generator.text import TextTokenizer, train_tokenizer
from medgen.generator.training.config import TrainingConfig
from medgen.generator.training.rows import Row
from medgen.knowledge.cards import finding_cards, modality_cards


def training_tokenizer(path: Path, config: TrainingConfig, rows: list[Row]) -> TextTokenizer:
    """Load the tokenizer of `path`; train it and write it there when it is missing.

    Raises:
        BadInput: The file is no tokenizer.
    """
    if not path.exists():
        random_ = random.Random(config.seed)
        texts = [captions.caption(row, random_) for row in rows for _ in range(2)]
        for cards in finding_cards().values():
            for card in cards.values():
                names = [card.name, *card.synonyms, *card.abbreviations]
                texts += (names + card.signs) * 20
        for modality in modality_cards().values():
            texts += [modality.name, *modality.aliases, modality.negative_prompt] * 20
            texts += [region.name for region in modality.regions] * 20
        tokenizer = train_tokenizer(texts, config.text_encoder.vocabulary_size)
        write_atomic(path, tokenizer.to_str(pretty=True))
    try:
        return TextTokenizer.load(path, config.text_encoder.length)
    except Exception as error:  # the tokenizers library raises the base class
        raise BadInput(f"tokenizer: cannot read {path}: {error}") from error
