"""docs/modalities.md, step by step: a card and a table of drawn pictures add breast MRI."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from run_samples import Told

from medgen.errors import BadInput
from medgen.generator.backends import BUNDLED, load_generator
from medgen.generator.compact import CompactGenerator
from medgen.generator.training.config import load_config
from medgen.generator.training.loop import train
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.generate import generate
from medgen.graphs.verify import verify
from medgen.knowledge import cards
from medgen.records import Conditioning
from medgen.settings import Settings, settings

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "modalities.md").read_text(encoding="utf-8")
CARD, CONFIG = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def breast(tmp_path_factory):
    """The guide's card, in use, and twelve drawn pictures with their table."""
    folder = tmp_path_factory.mktemp("breast")
    (folder / "cards").mkdir()
    (folder / "cards" / "breast_mri.yaml").write_text(CARD)
    patch = pytest.MonkeyPatch()
    patch.setenv("MEDGEN_MODALITY_CARDS", str(folder / "cards"))
    patch.setenv("MEDGEN_RUNS", str(folder / "runs"))
    settings.cache_clear()
    cards.modality_cards.cache_clear()
    rows = []
    rises, columns = np.mgrid[:200, :300]
    for i in range(12):
        pixels = np.zeros((200, 300), np.uint8)
        for centre in (90, 210):
            pixels[((rises - 90) / 70) ** 2 + ((columns - centre) / 50) ** 2 < 1] = 90
        text = "No suspicious enhancement."
        if i % 2:
            pixels[80 + i : 95 + i, 80:95] = 250
            text = "Irregular mass with rim enhancement. Dense breasts."
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append([f"{i}.png", text, "Breast MRI", f"p{i}"])
    with (folder / "breast.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "text", "modal", "group"], *rows])
    yield folder
    patch.undo()
    settings.cache_clear()
    cards.modality_cards.cache_clear()


@pytest.fixture(scope="module")
def trained(breast):
    config = breast / "breast.yaml"
    text = CONFIG.replace("WEIGHTS", str(BUNDLED))
    text = text.replace("extends: configs", f"extends: {ROOT / 'configs'}")
    config.write_text(text)
    small = {
        "table": str(breast / "breast.csv"), "out": str(breast / "out"), "steps": 2, "batch": 2,
        "augmented_copies": 0, "samples": None,
    }  # fmt: skip
    told = Told()
    folder = train(load_config(config, small), told)
    assert any("starts from" in line for line in told.lines)
    return folder


def test_the_guide_is_a_card_and_a_configuration(breast):
    assert "Breast MRI" in cards.modality_cards()
    assert {"table", "init_from", "images"} <= yaml.safe_load(CONFIG).keys()


def test_it_is_drawn_beside_those_that_the_weights_knew(trained, breast):
    minds = Collaborators(generator=load_generator(Settings(weights=trained, steps=2)))
    bundled = CompactGenerator(BUNDLED, steps=2, guidance_scale=1.0, micro_batch=1)
    assert set(minds.generator.modalities) == {*bundled.modalities, "Breast MRI"}
    drawing = generate("breast MRI, mass", raw=True, out=breast / "drawn", collaborators=minds)
    with Image.open(drawing.images[0]) as image:
        assert image.size == (256, 256)
        assert image.text["Synthetic"] == "YES"
    ask = Conditioning(prompt="fundus photograph", modality="Fundus", guidance_scale=1.0)
    before, after = bundled.sample([ask]), minds.generator.sample([ask])
    assert np.abs(before.astype(float) - after).mean() < 12, "two steps do not unlearn the eye"
    with pytest.raises(BadInput, match="Breast MRI"):
        generate("breast MRI, mass", collaborators=Collaborators(generator=bundled))


def test_it_is_verified_as_far_as_anything_can_be_measured(breast):
    image = breast / "1.png"
    (result,) = verify(image, "breast MRI, mass", collaborators=Collaborators())
    assert result.critique.accepted is None
    assert "modality: no check knows Breast MRI" in result.critique.abstentions
    assert result.critique.quality.problems == []
