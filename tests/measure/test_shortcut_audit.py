"""The shortcut audit: what is hidden, and what is concluded from accuracies that survive it."""

import numpy as np
import pytest

from medgen.measure.shortcut_audit import (
    CENTRES,
    HIDDEN,
    altered,
    conclude,
    hide_centre,
    prepared,
    silhouette,
)


def image(seed=0, size=96):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("modality", sorted(CENTRES))
def test_hidden_centre_is_the_same_whatever_was_there_and_the_rim_stays(modality) -> None:
    one, other = (hide_centre(image(seed), modality) for seed in (0, 1))
    same = (one == other).all(axis=2) & (one == 127).all(axis=2)
    assert 0.3 < same.mean() < 0.9
    assert same[48, 48] and not same[0].all()
    assert np.array_equal(one[~same], image(0)[~same])


def test_silhouette_keeps_the_outline_alone() -> None:
    rows, columns = np.mgrid[0:96, 0:96]
    body = ((columns - 48) / 40) ** 2 + ((rows - 48) / 30) ** 2 <= 1
    plain = np.repeat((body * np.uint8(100))[..., None], 3, axis=2)
    lesion = plain.copy()
    lesion[40:50, 40:50] = 255
    hole = plain.copy()
    hole[40:50, 40:50] = 0
    seen = silhouette(plain, "Brain MRI")
    assert set(np.unique(seen)) == {0, 255}
    assert np.array_equal(seen, silhouette(lesion, "Brain MRI"))
    assert np.array_equal(seen, silhouette(hole, "Brain MRI"))


def test_all_images_are_altered_alike_one_by_one_or_in_a_file(tmp_path) -> None:
    packed = np.stack([image(seed, 128) for seed in range(3)])
    modalities = ["Fundus", "OCT", "Brain MRI"]
    for kind in HIDDEN:
        kept = prepared(packed, modalities, 64, kind, tmp_path / "kept.npy")
        assert kept.shape == (3, 64, 64, 3)
        for place, modality in enumerate(modalities):
            alone = altered(packed[place : place + 1], [modality], 64, kind)[0]
            assert np.array_equal(kept[place], alone)


def figures(area, low):
    return {
        "Fundus": {"glaucoma": [{"auc": area, "interval": [low, 1.0], "with": 9, "without": 9}]}
    }


def test_accuracy_that_survives_without_the_lesion_reads_the_source() -> None:
    whole = figures(0.95, 0.9)
    for blind, reads in ((figures(0.9, 0.8), True), (figures(0.7, 0.6), False)):
        for kind in ("centre hidden", "silhouette"):
            others = {"centre hidden": figures(0.5, 0.4), "silhouette": figures(0.5, 0.4)}
            table = conclude({"whole": whole, **others, kind: blind}, 0.75)
            (entry,) = table["Fundus"]["glaucoma"]
            assert entry["reads_source"] is reads
            assert entry["whole"]["auc"] == 0.95 and "whole 0.95 (0.90-1.00)" in entry["note"]
    # Two classes of one head are one question: what is said of one holds for the other.
    twins = {
        kind: {
            "Fundus": {
                name: [{"head": "h", "auc": 0.8, "interval": [low, 0.9], "with": 9, "without": 9}]
                for name, low in (("glaucoma", 0.749), ("normal fundus", 0.751))
            }
        }
        for kind in ("whole", "silhouette")
    }
    told = conclude(twins, 0.75)["Fundus"]
    assert told["glaucoma"][0]["reads_source"] and told["normal fundus"][0]["reads_source"]
    high_whole_alone = conclude({"whole": whole, "centre hidden": figures(0.6, 0.5)}, 0.75)
    assert high_whole_alone["Fundus"]["glaucoma"][0]["reads_source"] is False
