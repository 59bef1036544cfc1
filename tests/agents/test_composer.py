import pytest

from medgen.agents.composer import as_asked, compose, control
from medgen.generator.structured import encode
from medgen.knowledge.cards import finding_cards, modality_cards
from medgen.records import Request


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        (
            "cardiomegaly, chest X-ray",
            "chest X-ray, PA view, adult, cardiomegaly, cardiothoracic ratio 0.55",
        ),
        ("bacterial pneumonia on the right, CXR of a child",
         "chest X-ray, child, bacterial pneumonia, right lung opacity"),
        ("MRI of the brain: glioma", "brain MRI, glioma"),
        ("brain MRI without tumour", "brain MRI, no brain tumor"),
        ("glaucoma, fundus", "color fundus photograph, glaucoma"),
        ("fundus without exudates or microaneurysms", None),
        ("SRF, OCT", "retinal OCT B-scan, subretinal fluid"),
        ("OCT, no SRF", "retinal OCT B-scan, no subretinal fluid"),
        ("severe DME, OCT", "retinal OCT B-scan, diabetic macular edema"),
        ("CT chest, adenocarcinoma of the lung, 70M", "axial chest CT slice, lung adenocarcinoma"),
        ("breast with tumor, MRI", "Breast MRI, tumor"),
    ],
)  # fmt: skip
def test_the_caption_language(composed, prompt, caption):
    told = composed(prompt)
    if caption is None:
        caption = told.prompt
        assert "no exudates" in caption or "no hard exudates" in caption
    assert told.prompt == caption


@pytest.mark.parametrize(
    ("words", "ratio"),
    [("mild cardiomegaly", 0.53), ("cardiomegaly", 0.55), ("massive cardiomegaly", 0.60),
     ("normal heart size", 0.43), ("no cardiomegaly", 0.43), ("cardiothoracic ratio 0.61", 0.61)],
)  # fmt: skip
def test_grades_move_the_ratio(composed, words, ratio):
    told = composed(f"{words}, chest X-ray")
    assert told.structured["cardiothoracic_ratio"] == pytest.approx(ratio)
    assert f"cardiothoracic ratio {ratio:.2f}" in told.prompt


def test_sides_move_the_densities(composed):
    right = composed("right pneumonia, chest X-ray").structured
    left = composed("left pneumonia, chest X-ray").structured
    both = composed("severe bilateral pneumonia, chest X-ray").structured
    assert right["opacity_right"] > right["opacity_left"]
    assert left["opacity_left"] > left["opacity_right"]
    assert both["opacity_left"] == both["opacity_right"] > right["opacity_right"]
    assert "opacity_left" not in composed("pneumonia, chest X-ray").structured


def test_what_no_image_can_show_is_not_in_the_prompt(composed):
    told = composed("cough, worse than before, possible pneumonia, h/o tuberculosis, chest X-ray")
    assert told.prompt == "chest X-ray, pneumonia"
    assert "tubercul" not in told.negative_prompt


def test_absent_findings_go_to_the_negative_prompt(composed):
    told = composed("cardiomegaly but no pleural effusion, chest X-ray")
    assert told.negative_prompt.startswith("pleural effusion")
    assert "normal heart size" in told.negative_prompt
    assert told.negative_prompt.endswith(modality_cards()["Chest X-ray"].negative_prompt)
    assert "pleural effusion" not in told.prompt


def test_absence_is_not_worded_by_a_normal_card_that_a_shown_finding_excludes(composed):
    assert "no pneumonia" in composed("no pneumonia, chest X-ray").prompt
    assert "no pneumonia" not in composed("no pneumonia, pulmonary edema, chest X-ray").prompt


def test_an_unlearned_finding_is_joined_by_the_learned_one_it_entails(composed):
    assert composed("glioblastoma, brain MRI").prompt == "brain MRI, glioblastoma, glioma"
    assert "cardiomegaly" in composed("heart failure, chest X-ray").prompt
    denied = composed("heart failure without cardiomegaly, chest X-ray")
    assert "cardiomegaly" not in denied.prompt and "cardiomegaly" in denied.negative_prompt


def test_describing_backends_get_place_grade_and_signs(composed):
    prompt = composed("severe glioma of the left frontal lobe, brain MRI", describe=True).prompt
    assert "severe glioma in the left frontal lobe" in prompt
    assert finding_cards()["Brain MRI"]["glioma"].signs[0] in prompt


def test_every_card_composes_to_something_the_generator_can_encode(composed):
    for modality, cards in finding_cards().items():
        for card in cards.values():
            for words in (card.name, f"severe right {card.name}"):
                told = composed(f"{modality}: {words}")
                assert encode([told.structured]).isfinite().all()
                assert told.modality == modality


def test_the_control_is_the_prompt_as_typed(planned):
    request = Request(prompt="  Cardiomegaly,   chest X-ray", seed=7)
    told = control(request, planned(request.prompt))
    assert (told.prompt, told.negative_prompt, told.structured) == (request.prompt, "", {})
    assert (told.modality, told.seed) == ("Chest X-ray", 7)


def test_steps_guidance_and_negative_are_the_users_where_given(planned):
    plan = planned("cardiomegaly, chest X-ray")
    told = compose(plan, [])
    assert as_asked(told, Request(prompt=plan.prompt)) == told
    given = as_asked(told, Request(prompt=plan.prompt, steps=8, guidance=3, negative="ribs"))
    assert (given.steps, given.guidance_scale, given.negative_prompt) == (8, 3, "ribs")
    assert given.prompt == told.prompt and given.structured == told.structured


def test_a_heart_size_alone_leaves_the_lungs_clear_and_an_asked_density_stands(composed):
    alone = composed("cardiomegaly, chest X-ray").structured
    assert alone["opacity_right"] == alone["opacity_left"] == 0.31
    both = composed("cardiomegaly with right lung opacity, chest X-ray").structured
    assert both["opacity_right"] > both["opacity_left"] > 0.31
    unsided = composed("cardiomegaly and pneumonia, chest X-ray").structured
    assert "opacity_right" not in unsided
