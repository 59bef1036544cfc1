"""Members that a setting adds: TorchXRayVision's classifiers, and an open_clip model's margin."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from medgen.agents.verifier import Abstain, Measured, Panel
from medgen.agents.verifier import open_clip_margin as margin_module
from medgen.agents.verifier.cards import rules
from medgen.agents.verifier.evidence import Evidence
from medgen.agents.verifier.open_clip_margin import open_clip_margin
from medgen.agents.verifier.xray_classifiers import XRayClassifiersCheck
from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards
from medgen.measure.torchxrayvision import build, write_folder
from medgen.records import Finding, Plan
from medgen.settings import Settings

SMALL = {"growth_rate": 4, "block_config": [1, 1, 1, 1], "num_init_features": 8}
IMAGE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
CARD = {
    "measurable": True,
    "intercept": 0.0,
    "slope": 1.0,
    "weight": 0.8,
    "accuracy": "AUC 0.90 (0.85-0.95) on 66 films",
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    net = build(SMALL, 2)
    torch.nn.init.zeros_(net.classifier.weight)
    net.classifier.bias.data = torch.tensor([3.0, -3.0])
    write_folder(net, "small", ["Cardiomegaly", "Effusion"], [None, None], SMALL, tmp_path, 64)
    return tmp_path


def asked(name, check, **options):
    age_group = options.pop("age_group", "adult")
    finding = Finding(finding=name, **options)
    plan = Plan(prompt=name, modality="Chest X-ray", findings=[finding], age_group=age_group)
    return check.judge(Evidence(IMAGE, None), finding, plan)


def test_every_finding_of_the_rules_is_one_that_the_knowledge_base_knows() -> None:
    assert set(rules().torchxrayvision) <= set(finding_cards()["Chest X-ray"])


def test_weights_without_figures_are_told_and_judge_nothing(folder) -> None:
    answer = asked("cardiomegaly", XRayClassifiersCheck(folder))
    assert isinstance(answer, Abstain)
    assert "read 0.95" in answer.reason and "not measured here" in answer.reason


def test_weights_with_figures_judge_presence_and_absence(folder) -> None:
    (folder / "card.yaml").write_text(yaml.safe_dump({"Cardiomegaly": CARD, "Effusion": CARD}))
    check = XRayClassifiersCheck(folder)
    assert check.covers("Chest X-ray", "cardiomegaly")
    assert not check.covers("Chest X-ray", "pneumothorax")  # these weights have no such output
    assert not check.covers("Chest CT", "cardiomegaly")
    large = asked("cardiomegaly", check)
    assert isinstance(large, Measured) and large.probability == pytest.approx(0.953, abs=1e-3)
    assert large.measurements[0].accuracy == CARD["accuracy"] and large.corrections == []
    fluid = asked("pleural effusion", check)
    assert fluid.probability < 0.1 and "read as no pleural effusion" in fluid.corrections[0].text
    assert asked("pleural effusion", check, status="absent").probability > 0.9
    child = asked("cardiomegaly", check, age_group="child")
    assert isinstance(child, Abstain) and "adults" in child.reason


def test_pathology_that_tells_too_little_abstains_with_its_figure(folder) -> None:
    poor = {"measurable": False, "reason": "AUC 0.55 (0.45-0.65) is too low"}
    (folder / "card.yaml").write_text(yaml.safe_dump({"Cardiomegaly": poor}))
    answer = asked("cardiomegaly", XRayClassifiersCheck(folder))
    assert isinstance(answer, Abstain) and "too low" in answer.reason


def test_panel_takes_them_in_where_the_settings_name_them(folder, tmp_path) -> None:
    reading = Panel.load(Settings(torchxrayvision=folder))
    assert reading.decides("Chest X-ray", "pleural effusion") == ["TorchXRayVision"]
    assert reading.decides("Chest X-ray", "pleural effusion", "child") == []
    seeing = Panel.load(Settings(vision_llm="openai:eyes"))
    assert "vision model" in [check.name for check in seeing._checks]
    assert seeing.decides("OCT", "drusen") == []  # never alone
    with pytest.raises(BadInput, match="no TorchXRayVision weights"):
        Panel.load(Settings(torchxrayvision=tmp_path / "nothing"))


def test_margin_of_an_open_clip_model_is_over_the_nearest_other_caption(monkeypatch) -> None:
    seen = {}

    def texts(captions):
        seen["captions"] = captions
        vectors = np.zeros((len(captions), 3), dtype=np.float32)
        vectors[0, 0], vectors[1:, 1] = 1.0, 1.0
        return vectors

    model = SimpleNamespace(
        name="open_clip small",
        text_embeddings=texts,
        image_embeddings=lambda _: np.array([[0.8, 0.5, 0.0]], dtype=np.float32),
    )
    monkeypatch.setattr(margin_module, "load_open_clip", lambda where: model)
    plan = Plan(
        prompt="x",
        modality="Fundus",
        findings=[Finding(finding="drusen", status="absent"), Finding(finding="cataract")],
    )
    margin = open_clip_margin(IMAGE, plan, "folder")
    assert margin is not None and margin.value == pytest.approx(0.3)
    assert "cataract" in seen["captions"][0].lower() and margin.check.endswith("(open_clip small)")
    nothing = plan.model_copy(update={"findings": plan.findings[:1]})
    assert open_clip_margin(IMAGE, nothing, "folder") is None


def test_folder_without_an_open_clip_model_is_bad_input(tmp_path) -> None:
    panel = Panel.load(Settings(alignment=str(tmp_path)))
    plan = Plan(prompt="x", modality="Fundus", findings=[Finding(finding="cataract")])
    with pytest.raises(BadInput, match="safetensors"):
        panel.verify(IMAGE, plan)
