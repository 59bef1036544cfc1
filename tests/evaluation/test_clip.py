"""Evaluation's image-text scorers: files, locked towers, training, and any open_clip model."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medgen.errors import BadInput
from medgen.evaluation import clip as module
from medgen.evaluation.clip import (
    LockedCLIP,
    Projections,
    bundled_clip,
    clip_card,
    load_clip,
)
from medgen.evaluation.train_clip import Wordings, judge, read_config, train
from medgen.measure.open_clip_model import OpenCLIP

MODEL = {"image": 6, "text": 384, "hidden": 16, "shared": 8, "dropout": 0.0}
CONFIG = {
    "model": MODEL,
    "seed": 1,
    "steps": 150,
    "batch": 24,
    "lr": 5e-3,
    "weight_decay": 0.01,
    "captions_a_class": 12,
    "table_caption_share": 0.2,
    "modality_phrases": {"A": ["scan", "picture"]},
    "populations": {},
    "templates": ["{finding}, {modality}", "{modality}, {finding}"],
    "populated_templates": [],
    "concepts": {
        "mass": {
            "modality": "A",
            "words": ["mass", "tumor"],
            "rows": {"s": ["1"]},
            "contrasts": ["healthy"],
        },
        "healthy": {
            "modality": "A",
            "words": ["healthy", "no mass"],
            "rows": {"s": ["2"]},
            "contrasts": ["mass"],
        },
    },
}
ROWS = [
    {"modal": "A", "source": "s", "label": label, "text": text, "group": str(i)}
    for i, (label, text) in enumerate([("1", "Scan with a mass."), ("2", "Healthy scan.")] * 40)
]


def pictures(n=2, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def features(seed=0):
    """Vectors whose first two numbers tell the label, in noise."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(0, 0.3, (len(ROWS), 6)).astype(np.float32)
    vectors[np.arange(len(ROWS)), [int(row["label"]) - 1 for row in ROWS]] += 1
    return vectors


def test_wordings_are_true_of_their_own_class_only() -> None:
    wordings = Wordings(CONFIG, ROWS)
    assert len(set(wordings.texts)) == len(wordings.texts) > 6
    for text, truth in zip(wordings.texts, wordings.truth, strict=True):
        healthy = any(word in text.lower() for word in ("healthy", "no mass"))
        # Kinds are sorted: label 1 first.
        assert truth.tolist() == [not healthy, healthy], text


def test_training_brings_image_and_words_together_also_on_unseen_images() -> None:
    from medgen.knowledge.embedder import Embedder

    trained = train(CONFIG, ROWS, features(0), Embedder())
    entries = judge(CONFIG, trained, ROWS, features(1))
    assert entries["mass"]["accuracy"] > 0.95 and entries["mass"]["with"] == 40
    assert entries["mass"]["right_caption_first"] == entries["healthy"]["not_first_on_contrasts"]
    untrained = LockedCLIP(Projections(**MODEL), {"model": MODEL})
    wrong = judge(CONFIG, untrained, ROWS, np.roll(features(1), 1, axis=0))
    swapped = judge(CONFIG, trained, ROWS, np.roll(features(1), 1, axis=0))
    assert swapped["mass"]["accuracy"] < 0.05 < wrong["mass"]["accuracy"]


def test_a_saved_clip_comes_back_and_notices_another_tower(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    model = {**MODEL, "image": 224}
    first = LockedCLIP(Projections(**model), {"model": model, "seed": 0})
    first.save(tmp_path)
    again = LockedCLIP.load(tmp_path)
    images = pictures()
    before, after = (one.image_embeddings(images) for one in (first, again))
    assert np.allclose(before, after, atol=0.01)
    assert np.allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)
    assert again.text_embeddings(["a mass", "healthy"]).shape == (2, 8)
    config = json.loads((tmp_path / "config.json").read_text())
    config["towers"]["reader"] = "another"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="another reader than is installed"):
        LockedCLIP.load(tmp_path)
    with pytest.raises(BadInput, match="no CLIP of evaluation in"):
        LockedCLIP.load(tmp_path / "nowhere")


def test_bundled_clip_knows_its_words_and_its_card_is_complete() -> None:
    scorer = load_clip()
    assert scorer is bundled_clip()
    texts = ["brain MRI, glioma", "brain MRI, no brain tumor", "MRI of a glial tumor"]
    glioma, none, paraphrase = scorer.text_embeddings(texts)
    assert glioma @ paraphrase > glioma @ none + 0.3
    vectors = scorer.image_embeddings(pictures())
    assert vectors.shape == (2, 128) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    concepts = clip_card()["concepts"]
    assert concepts["glioma"]["measurable"] and not concepts["subretinal fluid"]["measurable"]
    for entry in concepts.values():
        assert entry["auc_interval"][0] <= entry["auc"] <= entry["auc_interval"][1]
        if entry["measurable"]:
            assert min(entry["with"], entry["without"]) >= 30


def test_weights_are_small_and_not_the_verifiers() -> None:
    from medgen.measure import clip as verifier

    weights = module.WEIGHTS / "projections.safetensors"
    assert weights.stat().st_size < 1_300_000
    assert weights.read_bytes() != (verifier.WEIGHTS / "clip.safetensors").read_bytes()


def test_configuration_has_the_cards_words(tmp_path) -> None:
    text = """
concepts_of: {0}
templates: ["{{finding}}"]
"""
    shared = tmp_path / "shared.yaml"
    shared.write_text(
        "modality_phrases: {Brain MRI: [brain MRI]}\npopulations: {}\n"
        "concepts: {glioma: {modality: Brain MRI, words: [glioma], rows: {}, contrasts: []}}\n"
    )
    (tmp_path / "own.yaml").write_text(text.format(shared))
    config = read_config(tmp_path / "own.yaml")
    words = config["concepts"]["glioma"]["words"]
    assert words[0] == "glioma" and "glial tumor" in words and len(set(words)) == len(words)


@pytest.fixture
def tiny_open_clip(tmp_path):
    """A random open_clip model in a folder, as its own tools lay it out."""
    import open_clip

    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "head_width": 8,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    folder = tmp_path / "tiny"
    folder.mkdir()
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder, model


def test_any_open_clip_folder_can_be_the_scorer(tiny_open_clip) -> None:
    import open_clip
    from torch.nn import functional

    folder, model = tiny_open_clip
    scorer = load_clip(str(folder))
    assert scorer.name == "open_clip tiny"
    images = pictures(3, 32)
    vectors = scorer.image_embeddings(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = functional.normalize(model.eval().encode_image(pixels), dim=1)
        words = model.encode_text(open_clip.SimpleTokenizer(context_length=16)(["a scan"]))
    assert np.allclose(vectors, expected.numpy(), atol=1e-4)
    embedded = scorer.text_embeddings(["a scan"])
    assert np.allclose(embedded, functional.normalize(words, dim=1).numpy(), atol=1e-4)
    long = scorer.text_embeddings(["chest " * 200, "a scan"])
    assert np.allclose(np.linalg.norm(long, axis=1), 1, atol=1e-5)


def test_open_clip_that_cannot_be_had_is_one_clear_line(tiny_open_clip, tmp_path) -> None:
    folder, model = tiny_open_clip
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="cannot load the open_clip model"):
        OpenCLIP(str(folder))
    weights.unlink()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    with pytest.raises(BadInput, match="no safetensors weights"):
        OpenCLIP(str(folder))
