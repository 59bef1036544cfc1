"""The compact text encoder: a WordPiece vocabulary of the field and a small transformer.

Gives token states for cross-attention and one pooled vector. Trained together with the U-Net.
Knows nothing of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn

from medgen.data.images import write_atomic

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """A lower-casing WordPiece tokenizer; each digit is a token, so that numbers compose."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[PAD, UNKNOWN, START, END], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, tokenizer.token_to_id(START)), (END, tokenizer.token_to_id(END))],
    )
    return tokenizer


class TextTokenizer:
    """A saved tokenizer with this encoder's length: texts to (ids, mask)."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self.tokenizer = tokenizer
        self.length = length
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD, length=length)

    @classmethod
    def load(cls, path: str | Path, length: int) -> TextTokenizer:
        """Read a `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(path)), length)

    def save(self, folder: Path) -> None:
        """Write `tokenizer/tokenizer.json` into a generator's folder."""
        write_atomic(folder / "tokenizer" / "tokenizer.json", self.tokenizer.to_str(pretty=True))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, each (batch, length) int64, of texts (too long ones are cut)."""
        encodings = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings])
        mask = torch.tensor([encoding.attention_mask for encoding in encodings])
        return ids, mask


class CompactTextEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A pre-norm transformer over WordPiece tokens."""

    @register_to_config
    def __init__(
        self,
        vocabulary_size: int = 2048,
        length: int = 48,
        width: int = 192,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width = width
        self.tokens = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Parameter(torch.randn(1, length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            dim_feedforward=4 * width,
            dropout=dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.05)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode token ids.

        Args:
            ids: (batch, length) int64.
            mask: (batch, length), 1 where there is a token.

        Returns:
            Token states (batch, length, width) and the pooled vector (batch, width), the mean
            of the states that are tokens.
        """
        x = self.tokens(ids) + self.positions[:, : ids.shape[1]]
        x = self.norm(self.transformer(x, src_key_padding_mask=mask == 0))
        weights = mask.unsqueeze(-1).to(x.dtype)
        return x, (x * weights).sum(1) / weights.sum(1).clamp_min(1)
