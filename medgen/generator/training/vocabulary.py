"""The words of a run: a tokenizer trained on its captions and the knowledge base, or another's."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.generator import captions
from medgen.generator.pretrained_text import (
    PretrainedTextEncoder,
    PretrainedTokenizer,
    load_pretrained_text,
)
from medgen.generator.text import CompactTextEncoder, TextTokenizer, train_tokenizer
from medgen.generator.training.config import TrainingConfig
from medgen.generator.training.row_index import Row
from medgen.knowledge.cards import finding_cards, modality_cards

# A vocabulary of two thousand pieces is settled long before so many captions.
LEARNT_FROM = 200_000


def training_tokenizer(path: Path, config: TrainingConfig, rows: Sequence[Row]) -> TextTokenizer:
    """Load the tokenizer of `path`; train it and write it there when it is missing.

    Raises:
        BadInput: The file is no tokenizer.
    """
    if not path.exists():
        random_ = random.Random(config.seed)
        spread = range(0, len(rows), 1 + len(rows) // LEARNT_FROM)
        texts = [captions.caption(rows[i], random_) for i in spread for _ in range(2)]
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


def text_parts(
    path: Path, config: TrainingConfig, rows: Sequence[Row]
) -> tuple[TextTokenizer | PretrainedTokenizer, CompactTextEncoder | PretrainedTextEncoder]:
    """The tokenizer and text encoder of a run.

    Args:
        path: Where the compact encoder's tokenizer lies, or shall be written.
        config: Says which encoder.
        rows: Training rows, whose captions the compact encoder's tokenizer is trained on.

    Raises:
        BadInput: The file is no tokenizer, or the pretrained encoder does not load.
    """
    text = config.text_encoder
    if text.pretrained is not None:
        return load_pretrained_text(text.pretrained, frozen=text.frozen, length=text.length)
    tokenizer = training_tokenizer(path, config, rows)
    arguments = text.model_dump(exclude={"pretrained", "frozen"})
    arguments["vocabulary_size"] = tokenizer.tokenizer.get_vocab_size()
    return tokenizer, CompactTextEncoder(**arguments)
