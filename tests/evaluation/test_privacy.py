"""Copies must show, strangers must not: privacy on drawn pictures whose origin is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from medgen.evaluation import neighbours, privacy
from medgen.evaluation.context import Context
from medgen.evaluation.figures import OVERALL, Figure, Outcome
from medgen.evaluation.leaks import caption_matches, strangers
from medgen.evaluation.nearness import AUTHENTIC, COPIES, MEDIAN, RATIO, SPOILT
from medgen.evaluation.pairs import Pair, draw_pairs
from medgen.evaluation.tables import ImageTable, read_table

SIZE = 64
MODAL = "Brain MRI"


def drawn(count: int, seed: int) -> np.ndarray:
    """(count, 64, 64, 3) pictures: a common round body and each one's own smooth structure."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    body = 90 * (rows**2 + columns**2 < 0.2)
    own = ndimage.gaussian_filter(chance.normal(size=(count, SIZE, SIZE)), (0, 5, 5))
    own *= 60 / own.std(axis=(1, 2), keepdims=True)
    grey = np.clip(60 + body + own, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def spoilt(images: np.ndarray) -> np.ndarray:
    """Copies that are moved by a pixel, re-lit and blurred."""
    moved = np.roll(images.astype(float), 1, axis=2) * 0.8 + 20
    return np.clip(ndimage.gaussian_filter(moved, (0, 1, 1, 0)), 0, 255).astype(np.uint8)


def table(
    folder: Path, name: str, images: np.ndarray, modal: str = MODAL, **columns: list[str]
) -> ImageTable:
    places = []
    (folder / name).mkdir(parents=True)
    for place, image in enumerate(images):
        places.append(f"{name}/{place}.png")
        Image.fromarray(image).save(folder / places[-1])
    frame = {
        "path": places,
        "text": [f"{name} picture number {place}" for place in range(len(images))],
        "modal": modal,
        "group": [f"{name}-{place}" for place in range(len(images))],
        **columns,
    }
    pd.DataFrame(frame).to_csv(folder / f"{name}.csv", index=False)
    return read_table(folder / f"{name}.csv", name)


class Blocks:
    """A test's own encoder: colour means of a 8x8 grid."""

    name = "blocks"
    width = 192

    def __call__(self, images: np.ndarray) -> np.ndarray:
        n = len(images)
        return images.reshape(n, 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(n, -1).astype(np.float32)


def context(folder: Path, synthetic: ImageTable, real: ImageTable, train: ImageTable | None):
    return Context(real, synthetic, train, (Blocks(),), folder / "out", seed=3, repetitions=60)


def figure(outcome: Outcome, metric: str, scorer: str, scope: str = OVERALL) -> Figure:
    (found,) = [
        one
        for one in outcome.figures
        if one.metric == metric and scorer in one.scorer and one.scope == scope
    ]
    return found


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The same train and real tables against fresh pictures and against partly copied ones."""
    folder = tmp_path_factory.mktemp("privacy")
    train = table(folder, "train", drawn(80, 1))
    real = table(folder, "real", drawn(40, 2))
    fresh = drawn(40, 3)
    copied = np.concatenate(
        [train.images(range(5)), spoilt(train.images(range(5, 20))), fresh[20:]]
    )
    outcomes = {}
    for name, images in (("fresh", fresh), ("copied", copied)):
        synthetic = table(folder, name, images)
        outcomes[name] = privacy.measure(context(folder / name, synthetic, real, train))
    return outcomes


@pytest.mark.parametrize("scorer", ["pixel", "blocks"])
def test_copies_show_and_strangers_do_not(judged: dict[str, Outcome], scorer: str) -> None:
    fresh, copied = judged["fresh"], judged["copied"]
    assert figure(fresh, COPIES, scorer).value < 0.2
    assert figure(copied, COPIES, scorer).value >= 0.5
    assert figure(copied, COPIES, scorer).floor == pytest.approx(0.05)
    assert figure(fresh, RATIO, scorer).value == pytest.approx(1, abs=0.1)
    assert figure(copied, RATIO, scorer).value < 0.9
    assert figure(copied, AUTHENTIC, scorer).value < figure(fresh, AUTHENTIC, scorer).value - 0.1
    assert figure(copied, MEDIAN, scorer, MODAL).value < figure(copied, MEDIAN, scorer, MODAL).floor
    # Six of the seven distortions would be 0.86.
    assert figure(copied, SPOILT, scorer).value > (0.9 if scorer == "pixel" else 0.8)


def test_the_difference_is_told_where_there_is_one(judged: dict[str, Outcome]) -> None:
    for name, underpowered in (("fresh", True), ("copied", False)):
        (difference,) = [
            one
            for one in judged[name].differences
            if one.metric.startswith(f"{COPIES}, pixel") and one.scope == OVERALL
        ]
        assert difference.underpowered is underpowered
        assert difference.low <= difference.value <= difference.high


def test_intervals_hold_their_values(judged: dict[str, Outcome]) -> None:
    for outcome in judged.values():
        for one in outcome.figures:
            assert one.low <= one.value <= one.high, one
            assert one.high - one.low > 0 or one.metric == MEDIAN, one


def test_copied_pixels_are_counted(judged: dict[str, Outcome]) -> None:
    assert figure(judged["copied"], privacy.EXACT, "SHA").value == pytest.approx(5 / 40)
    assert any("pixel for pixel" in warning for warning in judged["copied"].warnings)
    assert figure(judged["fresh"], privacy.EXACT, "SHA").value == 0
    assert not judged["fresh"].warnings


def test_the_pages_with_training_images_say_so(judged: dict[str, Outcome], tmp_path: Path) -> None:
    captions = [picture.caption for picture in judged["copied"].pictures]
    assert sum("do not share" in caption for caption in captions) == 2
    train, real = table(tmp_path, "train", drawn(40, 1)), table(tmp_path, "real", drawn(30, 2))
    synthetic = table(tmp_path, "synthetic", drawn(30, 3))
    outcome = privacy.measure(context(tmp_path, synthetic, real, train), pictures=False)
    assert outcome.pictures
    assert not any("do not share" in picture.caption for picture in outcome.pictures)
    files = sorted(str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*.png"))
    assert files == sorted(picture.file for picture in outcome.pictures)


def test_modalities_of_any_script_have_pictures_of_their_own(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pair = [Pair(pixels, pixels, 0.5, 0.1)]
    files = {draw_pairs(tmp_path, modal, "pixels", pair).file for modal in ("超音波", "眼底")}
    assert len(files) == 2 and all((tmp_path / file).is_file() for file in files)


def test_training_captions_as_prompts_are_warned_of(tmp_path: Path) -> None:
    captions = [f"Brain MRI showing a glioma of the lobe {n}." for n in range(30)]
    train = table(tmp_path, "train", drawn(30, 1), text=captions)
    real = table(tmp_path, "real", drawn(30, 2))
    prompts = [c.upper() for c in captions[:10]] + [
        c.replace("glioma", "gliomaa") for c in captions[10:15]
    ]
    prompts += [f"a fresh request, {n}" for n in range(15)]
    synthetic = table(tmp_path, "synthetic", drawn(30, 3), text=prompts)
    matches = caption_matches(synthetic, train)
    assert (matches.exact.sum(), matches.alike.sum()) == (10, 15)
    outcome = privacy.measure(context(tmp_path, synthetic, real, train), pictures=False)
    assert any(
        "15 of 30 synthetic prompts are training captions (10 word" in w for w in outcome.warnings
    )
    assert figure(outcome, privacy.PROMPTS, "rapidfuzz").value == 0.5
    assert figure(outcome, privacy.PROMPTS, "rapidfuzz").floor == 0


def test_patients_on_both_sides_are_left_out(tmp_path: Path) -> None:
    train = table(tmp_path, "train", drawn(12, 1))
    real = table(
        tmp_path, "real", drawn(10, 2), group=[f"train-{n}" for n in range(4)] + list("abcdef")
    )
    kept, warnings = strangers(real, train)
    assert len(kept) == 6
    assert "4 of 10 real images" in warnings[0]


def test_without_train_it_says_what_it_needs(tmp_path: Path) -> None:
    real, synthetic = (
        table(tmp_path, "real", drawn(3, 2)),
        table(tmp_path, "synthetic", drawn(3, 3)),
    )
    outcome = privacy.measure(context(tmp_path, synthetic, real, None))
    assert "--train" in outcome.warnings[0]
    assert all(one.value is None and "--train" in one.note for one in outcome.figures)


def test_few_real_images_are_joined_by_the_training_images(tmp_path: Path) -> None:
    images = drawn(60, 1)
    # Two pictures a patient: the second must not be taken for a stranger.
    train = table(
        tmp_path,
        "train",
        np.concatenate([images, spoilt(images)]),
        group=[f"p{n % 60}" for n in range(120)],
    )
    real, synthetic = (
        table(tmp_path, "real", drawn(5, 2)),
        table(tmp_path, "synthetic", drawn(40, 3)),
    )
    outcome = privacy.measure(context(tmp_path, synthetic, real, train), pictures=False)
    found = figure(outcome, RATIO, "pixel", MODAL)
    assert found.n_real == 125
    assert found.value == pytest.approx(1, abs=0.1)
    assert "each against" in figure(outcome, COPIES, "pixel", MODAL).floor_of


def test_too_few_synthetic_images_are_not_measured(tmp_path: Path) -> None:
    train, real = table(tmp_path, "train", drawn(40, 1)), table(tmp_path, "real", drawn(40, 2))
    synthetic = table(tmp_path, "synthetic", drawn(20, 3))
    outcome = privacy.measure(context(tmp_path, synthetic, real, train))
    assert all(one.value is None for one in outcome.figures)
    assert (
        "20 synthetic, 40 real test and 40 training images"
        in figure(outcome, COPIES, "pixel", MODAL).note
    )


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    train, real = table(tmp_path, "train", drawn(40, 1)), table(tmp_path, "real", drawn(30, 2))
    synthetic = table(tmp_path, "synthetic", drawn(30, 3))
    first, second = (
        privacy.measure(context(tmp_path, synthetic, real, train), pictures=False) for _ in range(2)
    )
    assert first == second


def test_the_search_agrees_with_brute_force() -> None:
    train, queries = neighbours.coarse_grey(drawn(20, 1)), neighbours.coarse_grey(drawn(7, 2))
    groups = np.array([f"g{n // 2}" for n in range(20)])
    index = neighbours.Neighbours(train, groups, neighbours.moved_structure)
    known = neighbours.structure(train).astype(float)
    views = np.stack(neighbours.moved_structure(queries)).astype(float)
    every = np.linalg.norm(views[:, :, None] - known[None, None], axis=3).min(axis=0)
    distances, rows = index.nearest(queries)
    np.testing.assert_allclose(distances, every.min(axis=1), atol=1e-3)
    np.testing.assert_array_equal(rows, every.argmin(axis=1))
    own = np.array(["g0", "g0", "g3", "g9", "x", "g1", "g2"])
    apart = np.where(groups[None] == own[:, None], np.inf, every)
    np.testing.assert_allclose(index.nearest(queries, own)[0], apart.min(axis=1), atol=1e-3)
