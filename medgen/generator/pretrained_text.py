"""Text encoders of others, by folder or hub id: PubMedBERT, BioBERT, ClinicalBERT, CLIP.

Any encoder that transformers' AutoModel loads from safetensors, with its own tokenizer, behind the
interface of `CompactTextEncoder`: token states and a pooled vector. Knows nothing of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from medgen.errors import BadInput

TEXT_ENCODER = "text_encoder"


class PretrainedTokenizer:
    """The tokenizer that belongs to a pretrained encoder: texts to (ids, mask)."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer = tokenizer
        self.length = tokenizer.model_max_length = length

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, each (batch, length) int64, of texts (too long ones are cut)."""
        encoded = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        return encoded["input_ids"], encoded["attention_mask"]

    def save(self, folder: Path) -> None:
        """Write its files into a generator's folder, beside the encoder's weights."""
        self.tokenizer.save_pretrained(folder / TEXT_ENCODER)


class PretrainedTextEncoder(nn.Module):
    """A transformers encoder; when frozen it has no gradients and no dropout.

    Args:
        model: What AutoModel loaded.
        frozen: Whether its weights stay as they are.

    Attributes:
        config: Facts that a checkpoint must share: kind, width, and the weights' hash if frozen.
        width: Width of the token states.
    """

    def __init__(self, model: Any, frozen: bool) -> None:
        super().__init__()
        self.by_mean = not model.config.model_type.startswith("clip")
        if self.by_mean:
            # BERT's pooler was trained to tell whether two sentences follow one another.
            model.pooler = None
        self.model = model.float()
        self.frozen = frozen
        self.width: int = model.config.hidden_size
        self.config = {"kind": model.config.model_type, "width": self.width, "frozen": frozen}
        if frozen:
            self.config["weights"] = _hash(model)
        self.requires_grad_(not frozen)
        self.train(False)

    def train(self, mode: bool = True) -> PretrainedTextEncoder:
        """Training mode, which a frozen encoder does not take."""
        return super().train(mode and not self.frozen)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token states (batch, length, width) and the pooled vector (batch, width).

        Pooled is what CLIP trained for it, the state of the last token; of other encoders the
        mean of the states that are tokens.

        Args:
            ids: (batch, length) int64.
            mask: (batch, length), 1 where there is a token.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            output = self.model(input_ids=ids, attention_mask=mask)
        states = output.last_hidden_state
        if not self.by_mean:
            return states, output.pooler_output
        weights = mask.unsqueeze(-1).to(states.dtype)
        return states, (states * weights).sum(1) / weights.sum(1).clamp_min(1)

    def save_pretrained(self, folder: Path) -> None:
        """Write its weights into a folder, as safetensors."""
        self.model.save_pretrained(folder)


def load_pretrained_text(
    source: str | Path, *, frozen: bool, length: int | None = None
) -> tuple[PretrainedTokenizer, PretrainedTextEncoder]:
    """Load an encoder with its tokenizer.

    Args:
        source: Folder (config.json, tokenizer, model.safetensors) or hub id.
        frozen: Whether its weights stay as they are.
        length: Tokens that a text is cut or padded to; what the tokenizer says when null.

    Raises:
        BadInput: It does not load, has no safetensors, or takes fewer tokens than `length`.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel

    try:
        config = AutoConfig.from_pretrained(source)
        # A whole CLIP holds a text part and an image part.
        kind = CLIPTextModel if config.model_type == "clip" else AutoModel
        model = kind.from_pretrained(source, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"text_encoder.pretrained: {source} does not load ({reason.rstrip('.')}): give a "
            "folder with config.json, tokenizer and model.safetensors, or a reachable hub id"
        ) from error
    if tokenizer.pad_token_id is None or not len(tokenizer):
        raise BadInput(f"text_encoder.pretrained: {source} has no tokenizer that pads")
    length = length or tokenizer.model_max_length
    longest = getattr(model.config, "max_position_embeddings", length)
    if length > longest:
        raise BadInput(
            f"text_encoder.length: {length} tokens are more than the {longest} of {source}"
        )
    return PretrainedTokenizer(tokenizer, length), PretrainedTextEncoder(model, frozen)


def _hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
