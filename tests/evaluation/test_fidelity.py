"""Fidelity: metrics against independent ones, halvings, intervals, and which way each one moves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from medgen.evaluation import fidelity
from medgen.evaluation.context import Context
from medgen.evaluation.distances import (
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbourhood_scores,
)
from medgen.evaluation.encoder import bundled_encoder, to_pixels
from medgen.evaluation.fidelity import (
    FID,
    FID_ALL,
    IS,
    KID,
    Halvings,
    all_metrics,
    compare,
    halve,
    measure,
    scatter,
)
from medgen.evaluation.tables import read_table

COUNT = 120


def features(n, shift=0.0, width=24, seed=0):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    return (generator.normal(size=(n, width)) @ mixing + shift).astype(np.float32)


def phantoms(n, seed=0, size=64):
    """Drawn films: a body, two dark fields, a bright core, of differing sizes, tones and grain."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    images = []
    for _ in range(n):
        wide, core, tone = (
            generator.uniform(0.1, 0.2),
            generator.uniform(0.05, 0.2),
            generator.normal(),
        )
        image = np.full((size, size), 150.0 + 15 * tone)
        for centre in (0.3, 0.7):
            field = ((columns - centre) / wide) ** 2 + ((rows - 0.5) / 0.35) ** 2 < 1
            image[field] -= generator.uniform(60, 110)
        image[((columns - 0.55) / core) ** 2 + ((rows - 0.6) / 0.2) ** 2 < 1] += 60
        image += 12 * gaussian_filter(generator.normal(size=(size, size)), 1) * 3
        images.append(image.clip(0, 255))
    return np.repeat(np.array(images)[..., None], 3, 3).astype(np.uint8)


# ---- each metric against an independent implementation


@pytest.mark.parametrize("width", [24, 300])
def test_fid_agrees_with_torch_fidelity(width) -> None:
    real, other = features(90, width=width), features(110, 0.3, width, seed=1)
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(x).double()) for x in (real, other)), False
    )["frechet_inception_distance"]
    assert frechet_distance(real, other) == pytest.approx(theirs, rel=1e-3)


def test_kid_agrees_with_torch_fidelity_over_whole_sets() -> None:
    real, other = features(100), features(100, 0.3, seed=1)
    theirs = kid_features_to_metric(
        torch.from_numpy(real).double(),
        torch.from_numpy(other).double(),
        kid_subsets=1,
        kid_subset_size=100,
        verbose=False,
    )["kernel_inception_distance_mean"]
    assert kernel_distance(real, other) == pytest.approx(theirs, rel=1e-3)


def test_kid_has_no_bias_between_samples_of_one_distribution() -> None:
    found = [kernel_distance(features(40, seed=s), features(40, seed=s + 500)) for s in range(60)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0 < max(found)


def test_kid_of_unequal_sets_is_the_same_every_time() -> None:
    real, other = features(70), features(100, 0.3, seed=1)
    assert kernel_distance(real, other) == kernel_distance(real, other)


def test_inception_score_is_the_exponential_of_the_mean_divergence() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (80, 7))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    direct = np.exp(np.mean(np.sum(p * np.log(p / p.mean(0)), 1)))
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=1)["inception_score_mean"]
    assert inception_score(logits) == pytest.approx(direct, rel=1e-6)
    assert inception_score(logits) == pytest.approx(theirs, rel=1e-6)


def test_precision_recall_density_coverage_agree_with_their_definitions() -> None:
    real, other, k = features(40), features(50, 0.4, seed=1), 5

    def distance(a, b):
        return float(np.sqrt(((a.astype(np.float64) - b) ** 2).sum()))

    def radii(points):
        return [sorted(distance(p, q) for q in points)[k] for p in points]  # [0] is itself

    around_real, around_other = radii(real), radii(other)
    inside = np.array(
        [[distance(o, r) < R for r, R in zip(real, around_real, strict=True)] for o in other]
    )
    covers = np.array(
        [[distance(o, r) < R for o, R in zip(other, around_other, strict=True)] for r in real]
    )
    found = neighbourhood_scores(real, other)
    assert found["precision"] == pytest.approx(inside.any(1).mean(), rel=1e-6)
    assert found["recall"] == pytest.approx(covers.any(1).mean(), rel=1e-6)
    assert found["density"] == pytest.approx(inside.sum() / k / len(other), rel=1e-6)
    assert found["coverage"] == pytest.approx(inside.any(0).mean(), rel=1e-6)


class _Wrapped(FeatureExtractorBase):
    """The bundled encoder as torch-fidelity wants it."""

    def __init__(self, name, features_list, **_more):
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
        return "features", "classes"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "classes" if metric == "isc" else "features"

    def forward(self, images):
        found = bundled_encoder()(images.permute(0, 2, 3, 1).numpy())
        both = {"features": found, "classes": bundled_encoder().logits(found)}
        return tuple(torch.from_numpy(both[name]) for name in self.features_list)


class _Listed(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_whole_path_from_pixels_agrees_with_torch_fidelity() -> None:
    torch_fidelity.register_feature_extractor("medgen-under-test", _Wrapped)
    real, other = phantoms(40), phantoms(40, seed=1)
    other[:, 20:40, 20:40] = 255
    theirs = torch_fidelity.calculate_metrics(
        input1=_Listed(other),
        input2=_Listed(real),
        feature_extractor="medgen-under-test",
        cuda=False,
        fid=True,
        kid=True,
        isc=True,
        kid_subset_size=40,
        kid_subsets=1,
        isc_splits=1,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    encoder = bundled_encoder()
    ours = all_metrics(encoder)(encoder(real), encoder(other))
    assert ours[FID] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours[KID] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert ours[IS] == pytest.approx(theirs["inception_score_mean"], rel=1e-3)


# ---- halvings and intervals


def test_no_group_is_on_both_sides_and_the_sides_are_even() -> None:
    groups = np.repeat([f"p{i}" for i in range(40)], np.arange(40) % 5 + 1)
    first, second = halve(groups, np.random.default_rng(0))
    assert not set(groups[first]) & set(groups[second])
    assert sorted([*first, *second]) == list(range(len(groups)))
    assert abs(len(first) - len(second)) <= 5
    assert set(first) != set(halve(groups, np.random.default_rng(1))[0])


def test_too_few_images_are_not_scored() -> None:
    generator = np.random.default_rng(0)
    few = features(59)
    assert compare(few, np.arange(59), features(500, seed=1), _kid, generator, 5) == 29
    one_patient = np.zeros(400)
    assert compare(features(400), one_patient, features(500, seed=1), _kid, generator, 5) == 0
    assert compare(features(400), np.arange(400), features(50, seed=1), _kid, generator, 5) == 25


def _kid(real, other):
    return {KID: kernel_distance(real, other)}


def test_intervals_are_as_wide_as_repeated_experiments_scatter() -> None:
    values, widths = [], []
    for seed in range(25):
        found = compare(
            features(80, seed=seed),
            np.arange(80),
            features(80, 0.3, seed=seed + 1000),
            _kid,
            np.random.default_rng(seed),
            10,
        )
        assert isinstance(found, Halvings)
        values.append(found.values[KID].mean())
        widths.append(scatter(found.values[KID], found.share))
    truth = np.mean(values)
    covered = np.mean([abs(v - truth) <= w for v, w in zip(values, widths, strict=True)])
    assert covered >= 0.85
    assert np.mean(widths) < 4 * np.std(values)


# ---- which way the metrics move


@pytest.fixture(scope="module")
def real_features():
    return bundled_encoder()(phantoms(COUNT))


def compared(real_features, synthetic):
    encoder = bundled_encoder()
    found = compare(
        real_features,
        np.arange(len(real_features)),
        encoder(synthetic),
        all_metrics(encoder),
        np.random.default_rng(0),
        8,
    )
    assert isinstance(found, Halvings)
    return (
        {name: values.mean() for name, values in found.values.items()},
        {name: values.mean() for name, values in found.floors.items()},
        {name: (values.min(), values.max()) for name, values in found.floors.items()},
    )


def test_real_images_are_at_the_floor(real_features) -> None:
    values, floors, spread = compared(real_features, phantoms(COUNT, seed=1))
    assert spread[KID][0] - 0.05 <= values[KID] <= spread[KID][1] + 0.05
    assert values[FID] == pytest.approx(floors[FID], rel=0.3)
    for name in ("precision", "recall", "coverage"):
        assert values[name] == pytest.approx(floors[name], abs=0.15), name


@pytest.mark.parametrize("harm", ["blurred", "noised"])
def test_harmed_images_are_far_and_outside(real_features, harm) -> None:
    images = phantoms(COUNT, seed=1).astype(np.float32)
    if harm == "blurred":
        images = gaussian_filter(images, (0, 2, 2, 0))
    else:
        images += np.random.default_rng(0).normal(0, 25, (*images.shape[:3], 1))
    values, floors, spread = compared(real_features, images.clip(0, 255).astype(np.uint8))
    assert values[KID] > spread[KID][1] + 3 * (spread[KID][1] - spread[KID][0])
    assert values[FID] > 1.5 * spread[FID][1]
    assert values["precision"] < floors["precision"] - 0.3
    assert values["coverage"] < floors["coverage"] - 0.3


def test_collapsed_images_lose_recall_and_coverage_but_not_precision(real_features) -> None:
    few = phantoms(COUNT)[:4]
    grain = np.random.default_rng(0).normal(0, 1, (COUNT, 64, 64, 1))
    images = (np.repeat(few, COUNT // 4, 0) + grain).clip(0, 255).astype(np.uint8)
    values, floors, spread = compared(real_features, images)
    assert values["recall"] < floors["recall"] - 0.3
    assert values["coverage"] < floors["coverage"] - 0.3
    assert values["precision"] > floors["precision"] - 0.3
    assert values[KID] > spread[KID][1]


def test_copies_are_nearer_than_real_images_can_be(real_features) -> None:
    values, floors, _ = compared(real_features, phantoms(COUNT))
    assert values[FID] < floors[FID]
    assert values["precision"] > floors["precision"]
    assert values["density"] > floors["density"]


# ---- the suite


class _Thumbnails:
    """Coarse means and contrast as features: cheap, and no classes."""

    name = "thumbnails"
    width = 17

    def __call__(self, images):
        pixels = to_pixels(images, 32)[:, 0]
        means = pixels.reshape(-1, 4, 8, 4, 8).mean((2, 4)).flatten(1)
        return torch.cat([means, pixels.std((1, 2))[:, None]], 1).numpy()


class _Classes(_Thumbnails):
    name = "thumbnails with classes"

    def logits(self, features):
        return features[:, :3] * 4


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fidelity")
    written = {}
    counts = {"Chest X-ray": (70, 64), "Brain MRI": (80, 100), "OCT": (16, 60)}
    for side, table in enumerate(("real", "synthetic")):
        lines = ["path,text,modal,group"]
        for modal, count in counts.items():
            seed = side * 10 + len(modal)
            for index, image in enumerate(phantoms(count[side], seed, size=32)):
                path = folder / table / f"{modal} {index}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(image).save(path)
                lines.append(f"{path},a film,{modal},{modal} {index // 2}")
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n")
        written[table] = read_table(folder / f"{table}.csv", table)
    return written


def context(tables, *encoders, **more):
    told = []
    made = Context(
        real=tables["real"],
        synthetic=tables["synthetic"],
        train=None,
        encoders=encoders or (_Thumbnails(),),
        out=Path("unused"),
        repetitions=3,
        progress=lambda *event: told.append(event),
        **more,
    )
    return made, told


@pytest.fixture(scope="module")
def measured(tables):
    given, told = context(tables, _Thumbnails(), _Classes())
    return measure(given), told


def test_suite_measures_each_modality_and_all_together(measured) -> None:
    outcome, told = measured
    assert outcome.warnings == []
    found = {(f.scorer, f.scope, f.metric): f for f in outcome.figures}
    assert len(found) == len(outcome.figures)
    assert {f.scope for f in outcome.figures} == {"Chest X-ray", "Brain MRI", "OCT", "overall"}
    chest = found["thumbnails", "Chest X-ray", KID]
    assert (chest.n, chest.n_real, chest.better) == (64, 70, "lower")
    assert chest.low < chest.value < chest.high
    assert chest.floor_low <= chest.floor <= chest.floor_high and chest.floor_of
    assert "headline" in chest.note and "32 images a side" in chest.note
    brain = found["thumbnails", "Brain MRI", KID]
    overall = found["thumbnails", "overall", KID]
    assert overall.value == pytest.approx((chest.value + brain.value) / 2)
    assert (overall.n, overall.n_real) == (164, 150) and "not in it: OCT" in overall.note
    whole = found["thumbnails", "overall", FID_ALL]
    assert whole.floor is None and whole.low < whole.value < whole.high
    assert ("fidelity of Brain MRI, thumbnails", 3, 3) in told
    beyond = {(d.metric, d.scope): d for d in outcome.differences}
    assert len(beyond) == 2 * 2 * 2
    assert beyond["KID, thumbnails", "Brain MRI"].value == pytest.approx(brain.value - brain.floor)


def test_suite_does_not_print_what_too_few_images_are_behind(measured) -> None:
    few = [figure for figure in measured[0].figures if figure.scope == "OCT"]
    assert few and all(figure.value is None for figure in few)
    assert few[0].note.startswith("not measurable: 8 images") and few[0].n_real == 16


def test_inception_score_only_from_an_extractor_with_classes(measured) -> None:
    figures = measured[0].figures
    scorers = {figure.scorer for figure in figures if figure.metric == IS}
    assert any(figure.value is None for figure in figures if figure.metric == IS)
    assert scorers == {"thumbnails with classes, its 3 classes"}


def test_suite_follows_its_seed_and_warns_of_a_table_without_groups(tables) -> None:
    ungrouped = {**tables, "real": replace(tables["real"], grouped=False)}
    chest = {k: t.where(lambda row: row.modal == "Chest X-ray") for k, t in ungrouped.items()}
    first, again, other = (measure(context(chest, seed=seed)[0]) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert "no group column" in first.warnings[0]


def test_none_of_few_images_is_no_certainty() -> None:
    bounds = fidelity._interval(0.0, 0.0, "precision", 30)
    assert bounds["low"] == 0 and bounds["high"] == pytest.approx(0.1135, abs=1e-3)
    assert fidelity._interval(0.5, 0.1, "precision", 30) == {"low": 0.4, "high": 0.6}
