"""TorchXRayVision's layout read from a folder, with small random weights made here."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from medgen.errors import BadInput
from medgen.measure.torchxrayvision import (
    ChestClassifiers,
    at_operating_points,
    build,
    convert,
    write_folder,
)
from medgen.measure.torchxrayvision_card import pathology_figures

SMALL = {"growth_rate": 4, "block_config": [1, 1, 1, 1], "num_init_features": 8}
NAMES = ["Cardiomegaly", "", "Effusion"]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(3)
    net = build(SMALL, len(NAMES))
    nn.init.normal_(net.classifier.weight, std=0.002)
    write_folder(net, "small", NAMES, [0.4, None, None], SMALL, tmp_path, size=64)
    return tmp_path


def film(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def test_folder_reads_back_to_the_same_outputs(folder) -> None:
    classifiers = ChestClassifiers.load(folder)
    read = classifiers.read(film())
    assert set(read) == {"Cardiomegaly", "Effusion"}
    assert all(0 <= value <= 1 for value in read.values())
    assert read == ChestClassifiers.load(folder).read(film())
    assert read != classifiers.read(film(1) // 4)


def test_layout_is_theirs(folder) -> None:
    """The names that TorchXRayVision's own state dictionaries have."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert weights.get_tensor("features.conv0.weight").shape[1] == 1
    assert {
        "features.conv0.weight",
        "features.denseblock1.denselayer1.norm1.weight",
        "features.transition1.conv.weight",
        "features.norm5.running_mean",
        "classifier.weight",
    } <= names


def test_operating_points_become_one_half() -> None:
    points = torch.tensor([0.2, 0.2, 0.2, float("nan")])
    moved = at_operating_points(torch.tensor([0.2, 0.0, 1.0, 0.3]), points)
    assert moved.tolist() == pytest.approx([0.5, 0.0, 1.0, 0.3])


def test_what_is_no_such_folder_is_bad_input(folder, tmp_path_factory) -> None:
    with pytest.raises(BadInput, match="no TorchXRayVision weights"):
        ChestClassifiers.load(tmp_path_factory.mktemp("empty"))
    config = json.loads((folder / "config.json").read_text())
    config["pathologies"].append("Mass")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="no TorchXRayVision weights"):
        ChestClassifiers.load(folder)


def test_pickles_are_not_read(folder) -> None:
    torch.save({"a": 1}, folder / "model.pt")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput):
        ChestClassifiers.load(folder)


def test_converting_needs_their_package(monkeypatch, tmp_path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(BadInput, match="torchxrayvision"):
        convert("densenet121-res224-all", tmp_path)


def test_figures_need_thirty_films_and_a_telling_output() -> None:
    draws = np.random.default_rng(0)
    present = np.arange(200) < 60
    telling = np.clip(draws.normal(0.4 + 0.3 * present, 0.1), 0.01, 0.99)
    good = pathology_figures(telling, present, ~present)
    assert good["measurable"] and good["slope"] > 0 and "AUC" in good["accuracy"]
    blind = pathology_figures(draws.random(200), present, ~present)
    assert not blind["measurable"] and "too low" in blind["reason"]
    few = pathology_figures(telling, np.arange(200) < 10, ~present)
    assert not few["measurable"] and "only 10" in few["reason"]
