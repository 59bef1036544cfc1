import pytest

from medgen.agents.anatomy import concerned_regions
from medgen.agents.language import rules
from medgen.knowledge.cards import finding_cards, modality_cards


def region(plan):
    assert len(plan.regions) == 1
    return plan.regions[0]


@pytest.mark.parametrize(
    ("prompt", "name", "code", "side"),
    [
        ("cardiomegaly, chest X-ray", "heart", "RADLEX:RID1385", None),
        ("RLL pneumonia, CXR", "lower lobe", "RADLEX:RID1315", "right"),
        ("left pneumothorax, CXR", "pleural space", "RADLEX:RID1363_RID5824", "left"),
        ("MRI brain, glioma left frontal lobe", "frontal lobe", "RADLEX:RID13863", "left"),
        ("brain MRI, right temporal glioma", "temporal lobe", "RADLEX:RID13864", "right"),
        ("chest CT, nodule in the left upper lobe", "upper lobe", "RADLEX:RID1327", "left"),
        ("OCT, subretinal fluid", "subretinal space", None, None),
    ],
)
def test_regions_have_the_card_s_ids(planned, prompt, name, code, side):
    found = region(planned(prompt))
    assert (found.name, found.code, found.side) == (name, code, side)


def test_the_patient_s_right_is_on_the_image_s_left(planned):
    right = region(planned("right pneumothorax, CXR")).box
    left = region(planned("left pneumothorax, CXR")).box
    assert right[2] < 0.5 < left[0]
    right = region(planned("brain MRI, glioma in the right frontal lobe")).box
    assert right[2] <= 0.5


@pytest.mark.parametrize("modality", ["Chest X-ray", "Chest CT", "Brain MRI"])
def test_no_sided_box_lies_on_the_wrong_half(modality):
    for card in modality_cards()[modality].regions:
        if card.left and card.right:
            centres = [(box[0] + box[2]) / 2 for box in (card.right, card.left)]
            assert centres[0] < 0.5 < centres[1], card.name


def test_a_box_says_whether_it_was_measured(planned):
    assert region(planned("cardiomegaly, chest X-ray")).box_source.startswith("measured")
    assert region(planned("glioma, brain MRI")).box_source.startswith("display geometry")
    boxes = rules("anatomy")["boxes"]
    assert set(boxes) == set(modality_cards())
    for modality, entry in boxes.items():
        names = {region.name for region in modality_cards()[modality].regions}
        assert set(entry.get("measured", [])) <= names


def test_two_places_give_two_regions(planned):
    plan = planned("consolidation in the right lower lobe and left upper lobe, CXR")
    assert [(r.name, r.side) for r in plan.regions] == [
        ("lower lobe", "right"),
        ("upper lobe", "left"),
    ]


def test_every_finding_of_every_card_is_localized_inside_the_frame(planned):
    for modality, cards in finding_cards().items():
        for card in cards.values():
            if card.kind == "normal":
                continue
            for found in planned(card.name, modality=modality).regions:
                assert found.box is None or (0 <= found.box[0] < found.box[2] <= 1)
                assert found.name in {r.name for r in modality_cards()[modality].regions}


def test_past_findings_have_no_region_and_entailed_ones_are_concerned(planned):
    plan = planned("history of pneumonia, heart failure, chest X-ray")
    assert [found.name for found in plan.regions] == ["heart"]
    assert concerned_regions(plan) >= {"heart", "lung"}


def test_a_modality_without_a_card_has_no_regions(planned):
    assert planned("breast with tumor, MRI").regions == []
