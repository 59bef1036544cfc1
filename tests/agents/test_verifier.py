"""The verifier panel: what checks conclude from known measurements, and the whole on pixels."""

from types import SimpleNamespace

import numpy as np
import pytest

from medgen.agents.verifier import Abstain, Measured, Panel
from medgen.agents.verifier import checks as checks_module
from medgen.agents.verifier.cards import opacity_card, reader_card, rules
from medgen.agents.verifier.checks import CardiothoracicCheck, OpacityCheck, ReaderCheck
from medgen.agents.verifier.panel import judge, pool
from medgen.errors import BadInput
from medgen.measure.chest import ChestMeasurement
from medgen.measure.reader import bundled_reader
from medgen.records import Finding, Measurement, Plan

CHECKS = [CardiothoracicCheck(), OpacityCheck(), ReaderCheck()]


class Seen:
    """Evidence with its measurements given: the checks' arithmetic without any image."""

    def __init__(self, ratio=0.45, right=0.3, left=0.3, reason=None, heads=None, child=False):
        self.chest = ChestMeasurement(ratio, right, left, reason)
        self.reading = SimpleNamespace(heads=heads or {})
        self.child = child

    def population(self, plan):
        return plan.age_group or ("child" if self.child else "adult")


def chest_plan(name, **options):
    plan = {key: options.pop(key) for key in ("view", "age_group") if key in options}
    finding = Finding(finding=name, **options)
    return finding, Plan(prompt=name, modality="Chest X-ray", findings=[finding], **plan)


def heart(ratio, name="cardiomegaly", **options):
    finding, plan = chest_plan(name, **options)
    return judge(Seen(ratio=ratio), finding, plan, [CardiothoracicCheck()])


def test_enlarged_heart_is_confirmed_with_its_measurement() -> None:
    judged = heart(0.57)
    assert judged.finding.verdict == "confirmed" and judged.finding.confidence > 0.95
    (measurement,) = judged.finding.measurements
    assert measurement.name == "cardiothoracic_ratio" and measurement.value == 0.57
    assert measurement.expected == (0.5, None) and measurement.accuracy
    assert judged.corrections == []


def test_small_heart_contradicts_cardiomegaly_with_a_number_to_act_on() -> None:
    judged = heart(0.44)
    assert judged.finding.verdict == "contradicted"
    (correction,) = judged.corrections
    assert correction.quantity == "cardiothoracic_ratio" and correction.measured == 0.44
    assert 0.5 < correction.target < 0.6
    assert "0.44" in correction.text and "> 0.50" in correction.text
    assert "enlarge the cardiac silhouette by about 25 %" in correction.text


def test_normal_heart_size_and_negated_cardiomegaly_are_the_same_question() -> None:
    for judged in (heart(0.44, "normal heart size"), heart(0.44, status="absent")):
        assert judged.finding.verdict == "confirmed"
    for judged in (heart(0.6, "normal heart size"), heart(0.6, status="absent")):
        assert judged.finding.verdict == "contradicted"
        assert "reduce the cardiac silhouette" in judged.corrections[0].text


def test_ratio_at_the_limit_abstains_but_still_says_which_way() -> None:
    judged = heart(0.5)
    assert judged.finding.verdict == "abstain" and judged.finding.confidence is None
    assert judged.corrections and any("measuring error" in line for line in judged.abstentions)


@pytest.mark.parametrize("options", [{"view": "AP"}, {"view": "AP supine"}, {"age_group": "child"}])
def test_ratio_abstains_where_the_limit_does_not_hold(options) -> None:
    judged = heart(0.6, **options)
    assert judged.finding.verdict == "abstain" and judged.finding.measurements == []
    assert any("does not tell heart size" in line for line in judged.abstentions)


def test_unmeasurable_heart_abstains_with_the_reason() -> None:
    finding, plan = chest_plan("cardiomegaly")
    judged = judge(Seen(ratio=None, reason="right lung not found"), finding, plan, CHECKS)
    assert judged.finding.verdict == "abstain"
    assert any("right lung not found" in line for line in judged.abstentions)


def test_severity_narrows_the_range() -> None:
    assert heart(0.52, severity="severe").finding.verdict == "contradicted"
    assert heart(0.66, severity="severe").finding.verdict == "confirmed"
    assert heart(0.68, severity="mild").finding.verdict == "contradicted"


def test_uncertain_and_unknown_findings_abstain() -> None:
    assert heart(0.6, status="uncertain").finding.verdict == "abstain"
    finding, plan = chest_plan("rib fracture")
    judged = judge(Seen(), finding, plan, CHECKS)
    assert judged.finding.verdict == "abstain"
    assert judged.abstentions == ["rib fracture: no check for it in Chest X-ray"]


def densities(population):
    card = opacity_card().populations[population]
    return card.opaque_from + 0.15, max(0.0, card.clear_to - 0.1)


def test_opacity_of_adults_speaks_of_sides_and_not_of_presence() -> None:
    dense, clear = densities("adult")
    for finding, plan in (
        chest_plan("consolidation", age_group="adult"),
        chest_plan("consolidation", side="bilateral", age_group="adult"),
        chest_plan("clear lungs", age_group="adult"),
    ):
        judged = judge(Seen(right=dense, left=dense), finding, plan, CHECKS)
        assert judged.finding.verdict == "abstain"
        assert any("nih_64" in reason for reason in judged.abstentions)
    finding, plan = chest_plan("consolidation", side="right", age_group="adult")
    assert judge(Seen(right=dense, left=clear), finding, plan, CHECKS).finding.verdict == "abstain"
    wrong = judge(Seen(right=clear, left=dense), finding, plan, CHECKS)
    assert wrong.finding.verdict == "contradicted"
    assert [c.quantity for c in wrong.corrections] == ["opacity_left"]


def test_opacity_on_the_asked_side_is_confirmed_and_on_the_other_contradicted() -> None:
    dense, clear = densities("child")
    finding, plan = chest_plan("consolidation", side="right", age_group="child")
    right = judge(Seen(right=dense, left=clear), finding, plan, CHECKS)
    assert right.finding.verdict == "confirmed"
    assert {m.name for m in right.finding.measurements} == {"opacity_right", "opacity_left"}
    wrong = judge(Seen(right=clear, left=dense), finding, plan, CHECKS)
    assert wrong.finding.verdict == "contradicted"
    assert {c.quantity for c in wrong.corrections} == {"opacity_right", "opacity_left"}
    by_side = {c.quantity: c for c in wrong.corrections}
    assert by_side["opacity_right"].target > by_side["opacity_right"].measured
    assert by_side["opacity_left"].target < by_side["opacity_left"].measured


def test_bilateral_needs_both_and_absence_needs_neither() -> None:
    dense, clear = densities("child")
    finding, plan = chest_plan("consolidation", side="bilateral", age_group="child")
    assert judge(Seen(right=dense, left=clear), finding, plan, CHECKS).finding.verdict == (
        "contradicted"
    )
    finding, plan = chest_plan("consolidation", status="absent", age_group="child")
    assert judge(Seen(right=clear, left=clear), finding, plan, CHECKS).finding.verdict == (
        "confirmed"
    )
    assert judge(Seen(right=clear, left=dense), finding, plan, CHECKS).finding.verdict == (
        "contradicted"
    )


def test_classifier_is_asked_only_for_films_it_was_trained_on() -> None:
    heads = {"adult_film": {"normal chest": 0.1, "COVID-19 pneumonia": 0.9}}
    finding, plan = chest_plan("COVID-19 pneumonia", age_group="child")
    answer = ReaderCheck().judge(Seen(heads=heads), finding, plan)
    assert isinstance(answer, Abstain)
    assert answer.reason == "not trained for COVID-19 pneumonia on films of children"


@pytest.fixture
def unaudited(monkeypatch):
    """The classifiers' arithmetic, whatever the shortcut audit says of them."""
    monkeypatch.setattr(checks_module, "audit", dict)


def brain(name, heads, **options):
    finding = Finding(finding=name, **options)
    plan = Plan(prompt=name, modality="Brain MRI", findings=[finding])
    return judge(Seen(heads={"brain_tumor": heads}), finding, plan, CHECKS)


def test_classifier_says_what_it_saw_instead(unaudited) -> None:
    heads = {"glioma": 0.05, "meningioma": 0.9, "pituitary tumor": 0.03, "no brain tumor": 0.02}
    judged = brain("glioma", heads)
    assert judged.finding.verdict == "contradicted"
    assert "read as meningioma (0.90), glioma asked (0.05)" in judged.corrections[0].text
    assert brain("meningioma", heads).finding.verdict == "confirmed"
    assert brain("glioma", heads, status="absent").finding.verdict == "confirmed"


def test_parts_of_a_finding_that_nothing_measures_are_named(unaudited) -> None:
    heads = {"glioma": 0.9, "meningioma": 0.05, "pituitary tumor": 0.03, "no brain tumor": 0.02}
    judged = brain("glioma", heads, side="left", severity="severe", location="frontal lobe")
    assert judged.finding.verdict == "confirmed"
    assert judged.abstentions == [
        "glioma: side left not measured",
        "glioma: severity severe not measured",
        "glioma: location frontal lobe not measured",
    ]


def test_disagreement_is_pooled_and_stays_visible() -> None:
    measurement = Measurement(name="a", value=1.0, check="a")
    strong = Measured([measurement], 0.9, 0.9)
    weak = Measured([measurement], 0.2, 0.3)
    assert 0.5 < pool([strong, weak]) < 0.9
    assert pool([weak, strong]) == pytest.approx(pool([strong, weak]))
    assert pool([strong]) == pytest.approx(0.9)


def test_findings_that_too_few_images_show_abstain() -> None:
    for modality, findings in reader_card().findings.items():
        for finding, entries in findings.items():
            for entry in entries:
                if min(entry.positives, entry.negatives) < 30:
                    assert not entry.measurable and entry.reason, (modality, finding)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return Panel.load()


def plan_of(*names, modality="Chest X-ray"):
    return Plan(
        prompt=", ".join(names), modality=modality, findings=[Finding(finding=n) for n in names]
    )


def test_blank_and_noise_images_are_rejected_not_crashed(panel) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for image in (np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 255, np.uint8), noise):
        critique = panel.verify(image, plan_of("cardiomegaly", "pneumonia"))
        assert critique.accepted is False and critique.rejections
        assert critique.score <= rules().score.rejected
        assert [finding.finding for finding in critique.findings] == ["cardiomegaly", "pneumonia"]
    blank = panel.verify(np.zeros((256, 256, 3), np.uint8), plan_of("cardiomegaly"))
    assert "blank image" in blank.rejections


def test_modality_without_any_check_abstains_on_everything(panel) -> None:
    texture = np.random.default_rng(1).integers(40, 200, (8, 8), dtype=np.uint8)
    image = np.repeat(np.kron(texture, np.ones((32, 32), np.uint8))[:, :, None], 3, axis=2)
    critique = panel.verify(image, plan_of("breast tumor", modality="Breast MRI"))
    assert critique.accepted is None and critique.rejections == []
    assert critique.findings[0].verdict == "abstain"
    assert any("no check knows Breast MRI" in line for line in critique.abstentions)


def test_verification_repeats_to_the_last_digit(panel) -> None:
    image = np.random.default_rng(2).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    plan = plan_of("glioma", modality="Brain MRI")
    assert panel.verify(image, plan) == panel.verify(image, plan)


@pytest.mark.parametrize("shape", [(256, 256), (256, 200, 3), (64, 64, 3), (256, 256, 4)])
def test_wrong_shapes_are_bad_input(panel, shape) -> None:
    with pytest.raises(BadInput, match="verifier needs"):
        panel.verify(np.zeros(shape, np.uint8), plan_of("cardiomegaly"))


def test_floating_point_images_are_bad_input(panel) -> None:
    with pytest.raises(BadInput, match="uint8"):
        panel.verify(np.zeros((256, 256, 3), np.float32), plan_of("cardiomegaly"))


def test_a_panel_with_other_limits_or_members_is_another_panel() -> None:
    reader = bundled_reader()
    panels = [
        Panel(reader, []),
        Panel(reader, [], "strict"),
        Panel(reader, [CardiothoracicCheck()]),
    ]
    assert len({panel.fingerprint for panel in panels}) == len(panels)
    assert Panel(reader, []).fingerprint == panels[0].fingerprint


@pytest.mark.parametrize(
    ("modality", "finding", "population", "members"),
    [
        # Covered, and every member abstains: a dataset would wait for a verdict in vain.
        ("Brain MRI", "glioma", None, []),
        ("Brain MRI", "no brain tumor", None, []),
        ("OCT", "subretinal fluid", None, []),
        ("Fundus", "normal fundus", None, []),
        ("Brain MRI", "meningioma", None, ["finding classifier"]),
        ("Chest X-ray", "cardiomegaly", "adult", ["cardiothoracic ratio"]),
        ("Chest X-ray", "cardiomegaly", "child", []),
        ("Chest X-ray", "pneumonia", None, ["lung opacity"]),
        ("Chest X-ray", "normal chest", "child", ["lung opacity"]),
        ("Chest X-ray", "normal chest", "adult", []),
        ("Chest X-ray", "viral pneumonia", "child", ["finding classifier"]),
        ("OCT", "cardiomegaly", None, []),
    ],
)
def test_panel_says_who_may_settle_a_finding(panel, modality, finding, population, members) -> None:
    assert panel.decides(modality, finding, population) == members
