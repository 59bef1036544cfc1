"""Readers: architectures, files, labels, calibration, and the two bundled ones."""

import json

import numpy as np
import pytest
import torch
import yaml

from medgen.errors import BadInput
from medgen.evaluation import reader as evaluation_reader
from medgen.measure import reader as measure_reader
from medgen.measure.reader import Head, Reader, to_pixels
from medgen.measure.reader_card import finding_heads, fit_temperature
from medgen.measure.statistics import auc, auc_interval, calibration_error, share_interval
from medgen.measure.train_reader import IGNORED, augment, fold, spoil, targets

CONFIG = {
    "size": 64,
    "seed": 0,
    "model": {"trunk": "residual", "trunk_arguments": {"widths": [8, 8, 16]}, "dropout": 0.0},
    "heads": [
        {
            "name": "modality",
            "by": "modal",
            "classes": ["A", "B", "none"],
            "labels": {"A": "A", "B": "B"},
        },
        {
            "name": "kind",
            "modality": "A",
            "sources": ["s"],
            "classes": ["x", "y"],
            "labels": {"1": "x", "2": "y"},
        },
        {"name": "film_population", "classes": ["child", "adult"], "labels": {}},
    ],
}
SEPARABLE = {
    "trunk": "separable",
    "trunk_arguments": {"widths": [8, 8, 16], "blocks": [1, 2]},
    "dropout": 0.0,
}


def pictures(n=3, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("model", [CONFIG["model"], SEPARABLE])
def test_reader_comes_back_from_its_files(tmp_path, model) -> None:
    torch.manual_seed(0)
    reader = Reader.build({**CONFIG, "model": model})
    reader.temperatures["kind"] = 2.0
    reader.save(tmp_path)
    again = Reader.load(tmp_path)
    first, second = reader.read(pictures())[0], again.read(pictures())[0]
    assert second.heads["kind"]["x"] == pytest.approx(first.heads["kind"]["x"], abs=0.01)
    assert again.temperatures == {"kind": 2.0}
    assert np.linalg.norm(second.embedding) == pytest.approx(1, abs=1e-5)
    assert sum(second.modality_probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_reading_one_image_does_not_depend_on_its_neighbours() -> None:
    reader = Reader.build(CONFIG)
    together, alone = reader.read(pictures(5)), reader.read(pictures(5)[3:4])
    assert together[3].modality_probabilities == pytest.approx(alone[0].modality_probabilities)


def test_missing_and_damaged_weights_are_one_clear_line(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"no reader in .*: train one"):
        Reader.load(tmp_path)
    Reader.build(CONFIG).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["heads"] = config["heads"][:1]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="no reader in"):
        Reader.load(tmp_path)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 64, 64), np.uint8), np.zeros((1, 64, 48, 3), np.uint8), np.zeros((1, 64, 64, 3))],
)
def test_other_shapes_and_types_are_bad_input(images) -> None:
    with pytest.raises(BadInput, match=r"medgen\.data\.images"):
        to_pixels(images, 64)


def test_no_image_is_bad_input() -> None:
    with pytest.raises(BadInput, match="at least one"):
        Reader.build(CONFIG).read(np.zeros((0, 64, 64, 3), np.uint8))


def test_a_head_sees_only_its_own_source_and_labels() -> None:
    head = Head(**CONFIG["heads"][1])
    rows = [
        {"modal": "A", "source": "s", "label": "2"},
        {"modal": "A", "source": "other", "label": "2"},
        {"modal": "B", "source": "s", "label": "2"},
        {"modal": "A", "source": "s", "label": "unlabelled"},
    ]
    assert targets(head, rows).tolist() == [1, IGNORED, IGNORED, IGNORED]


def test_folds_keep_groups_together_and_a_salt_carves_another() -> None:
    rows = [{"split": "train", "group": str(g)} for g in range(2000)]
    plain = [fold(row) for row in rows]
    salted = [fold(row, "evaluation ") for row in rows]
    assert 0.05 < plain.count("val") / 2000 < 0.11 and plain != salted
    assert fold({"split": "test", "group": "1"}) == "test"


def test_augmentation_never_mirrors_and_stays_in_range() -> None:
    half = torch.full((16, 3, 64, 64), -1.0)
    half[:, :, :, :32] = 1.0
    changed = augment(half, torch.Generator().manual_seed(0))
    assert changed.min() >= -1 and changed.max() <= 1
    assert (
        changed[:, :, 16:48, 4:16].mean((1, 2, 3)) > changed[:, :, 16:48, 48:60].mean((1, 2, 3))
    ).all()
    spoiled = spoil(half.clone(), torch.Generator().manual_seed(0))
    assert spoiled.shape == half.shape and not torch.equal(spoiled, half)


def test_temperature_undoes_overconfidence() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.randint(0, 2, (4000,), generator=generator)
    honest = torch.zeros(4000, 2)
    right = torch.rand(4000, generator=generator) < 0.8
    honest[torch.arange(4000), torch.where(right, answers, 1 - answers)] = float(np.log(4))
    assert fit_temperature(honest * 3, answers) == pytest.approx(3, rel=0.1)


def test_auc_counts_pairs_and_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(0)
    with_it, without = generator.normal(1, 1, 80), generator.normal(0, 1, 60)
    pairs = (with_it[:, None] > without).mean()
    assert auc(with_it, without) == pytest.approx(pairs)
    low, high = auc_interval(with_it, without)
    assert low < pairs < high and 0.7 < low < high < 0.9
    low, high = auc_interval(np.ones(30), np.zeros(30))
    assert 0.9 < low < 1 and high == 1
    assert share_interval(30, 30)[0] == pytest.approx(0.886, abs=0.001)
    for trials in range(1, 200):
        assert share_interval(trials, trials)[1] == 1 and share_interval(0, trials)[0] == 0
    assert calibration_error(np.full(10, 0.9), np.ones(10)) == pytest.approx(0.1)


@pytest.mark.parametrize("weights", [measure_reader.WEIGHTS, evaluation_reader.WEIGHTS])
def test_bundled_readers_tell_nonsense_from_images_and_repeat(weights) -> None:
    reader = Reader.load(weights)
    blocks = np.kron(pictures(4, 8)[..., :1], np.ones((1, 32, 32, 3), np.uint8))
    nonsense = np.concatenate([blocks, np.full((2, 256, 256, 3), 90, np.uint8)])
    readings = reader.read(nonsense)
    assert [reading.modality for reading in readings] == ["none"] * 6
    again = reader.read(nonsense)
    assert [r.heads for r in readings] == [r.heads for r in again]
    assert (weights / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("weights", [measure_reader.WEIGHTS, evaluation_reader.WEIGHTS])
def test_cards_hold_a_figure_for_every_listed_finding(weights) -> None:
    card = yaml.safe_load((weights / "card.yaml").read_text())
    for modality, findings in finding_heads().items():
        for finding, members in findings.items():
            entries = card["findings"][modality][finding]
            assert [entry["head"] for entry in entries] == [member["head"] for member in members]
            assert all("AUC" in entry["accuracy"] for entry in entries)
    assert card["heads"]["modality"]["accuracy"] > 0.97


def test_evaluation_reads_with_its_own_weights() -> None:
    blocks = np.kron(pictures(2, 8)[..., :1], np.ones((1, 32, 32, 3), np.uint8))
    readings = evaluation_reader.read(blocks)
    assert [(r.modality, r.findings) for r in readings] == [("none", {}), ("none", {})]
    ours, theirs = (
        json.loads((folder / "config.json").read_text())
        for folder in (measure_reader.WEIGHTS, evaluation_reader.WEIGHTS)
    )
    assert ours["seed"] != theirs["seed"] and ours["model"]["trunk"] != theirs["model"]["trunk"]
