"""Actions on the picture: steering, the region at fault, img2img; where each is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from refined import (
    BRAIN,
    COMPOSED,
    RATIO,
    drawn,
    plan_next,
    ratio_critique,
    read_critique,
    unseen_critique,
)

from medgen.agents.refiner import refine
from medgen.agents.refiner_rules import refiner_rules
from medgen.data.images import load_image, save_synthetic_png


def test_img2img_starts_from_a_mostly_right_best_candidate_only() -> None:
    rules = refiner_rules()
    least = rules.img2img.least_score
    good = [drawn("a", ratio_critique(0.47, score=least))]
    starts = [one.conditioning.init_image for one in plan_next(good, count=len(rules.recipes))]
    assert starts.count("/candidates/a.png") == 1
    poor = [drawn("a", ratio_critique(0.47, score=least - 0.01))]
    starts = [one.conditioning.init_image for one in plan_next(poor, count=len(rules.recipes))]
    assert set(starts) == {None}


def test_what_a_classifier_did_not_see_is_steered_to() -> None:
    first, *_ = plan_next([drawn("a", read_critique("glioma", 0.1))], plan=BRAIN)
    assert first.conditioning.aims == {"brain_tumor": ["glioma"]}
    assert "steer glioma: towards glioma (read at 0.10)" in first.actions


def test_what_was_seen_though_absent_is_steered_away_from() -> None:
    first, *_ = plan_next([drawn("a", read_critique("glioma", 0.9, "absent"))], plan=BRAIN)
    assert set(first.conditioning.aims["brain_tumor"]) == {
        "meningioma",
        "pituitary tumor",
        "no brain tumor",
    }


def test_what_no_classifier_measured_is_not_steered() -> None:
    planned = plan_next([drawn("a", unseen_critique("glioma"))], plan=BRAIN, count=5)
    assert all(not one.conditioning.aims for one in planned)


def test_the_region_at_fault_alone_is_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = np.zeros((256, 256), bool)
    heart[100:200, 80:180] = True
    asked = []

    def region(image: np.ndarray, quantity: str) -> np.ndarray:
        asked.append((image.shape, quantity))
        return heart

    monkeypatch.setattr("medgen.agents.refiner_pictures.region_at_fault", region)
    parent = drawn("a", ratio_critique(0.47))
    picture = tmp_path / "candidates" / "a.png"
    save_synthetic_png(picture, np.zeros((256, 256, 3), np.uint8))
    parent = parent.model_copy(update={"image": str(picture)})
    recipes = refiner_rules().recipes
    place = next(n for n, recipe in enumerate(recipes) if "region" in recipe.actions)
    told = plan_next([parent], count=len(recipes))[place].conditioning
    assert asked == [((256, 256, 3), RATIO)]
    assert told.init_image == str(picture)
    assert told.strength == refiner_rules().region.strength
    mask = np.asarray(load_image(told.mask_image or ""))[..., 0] > 0
    assert np.array_equal(mask, heart)
    assert told.structured[RATIO] > COMPOSED.structured[RATIO]  # type: ignore[operator]


def test_a_generator_that_cannot_be_steered_is_not_told_to() -> None:
    (first,) = refine(
        BRAIN,
        COMPOSED,
        [drawn("a", read_critique("glioma", 0.1))],
        [],
        seed=7,
        round_number=2,
        count=1,
        folder=Path("/candidates"),
        steers=False,
    )
    assert first.conditioning.aims == {}
