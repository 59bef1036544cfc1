"""Diversity: more alike images score so, LPIPS loads from a folder, too few are not measured."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from medgen.errors import BadInput
from medgen.evaluation import diversity, similarity
from medgen.evaluation.context import Context
from medgen.evaluation.tables import ImageTable, Row

SIZE = 176
MODAL = "Brain MRI"


def blob(generator, spread):
    """A bright ellipse whose place, size and tone vary by `spread`, on a grey ground, grained."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    a, b, c, d, tone = 0.5 + spread * (generator.random(5) - 0.5)
    inside = ((x - a) / (0.25 * (c + 0.5))) ** 2 + ((y - b) / (0.25 * (d + 0.5))) ** 2 < 1
    grey = 60 + 120 * inside * (0.5 + tone) + generator.normal(0, 2, (SIZE, SIZE))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def table(folder, name, spread, count=32, texts=("a", "b"), seed=0):
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        path = folder / f"{name}{index}.png"
        Image.fromarray(blob(generator, spread)).save(path)
        text = texts[index % len(texts)]
        rows.append(Row(path, text, MODAL, label=text, group=f"{name}{index}"))
    return ImageTable(name, tuple(rows), SIZE, True)


def context(tmp_path, synthetic, real):
    return Context(real, synthetic, None, (), tmp_path, seed=3, repetitions=40)


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    """Thirty-two pairs are enough here."""
    monkeypatch.setattr(diversity, "MOST_PAIRS", 32)


def by_name(outcome, metric, scope=MODAL, group=""):
    return next(
        f for f in outcome.figures if (f.metric, f.scope, f.group) == (metric, scope, group)
    )


def test_collapsed_prompts_score_higher_than_varied_ones_and_than_real_images(tmp_path) -> None:
    real = table(tmp_path, "real", 1.0, seed=1)
    values = {}
    for name, spread in (("varied", 1.0), ("collapsed", 0.02)):
        outcome = diversity.measure(
            context(tmp_path, table(tmp_path, name, spread), real), lpips_backbone=tmp_path
        )
        figure = by_name(outcome, diversity.MS_SSIM)
        values[name] = figure
        assert not [f for f in outcome.figures if "MINIM" in f.metric]
        assert figure.low < figure.value < figure.high
        assert figure.n == 32 and figure.n_real >= 30 and figure.better == "lower"
        overall = by_name(outcome, diversity.MS_SSIM, "overall")
        assert overall.value == pytest.approx(figure.value)
        gap = next(d for d in outcome.differences if d.scope == MODAL)
        assert gap.underpowered == (name == "varied")
        assert gap.low < gap.value < gap.high
    assert values["collapsed"].low > values["collapsed"].floor_high
    assert values["varied"].low < values["varied"].floor < values["varied"].high
    assert values["collapsed"].value > values["varied"].high


def test_equal_images_have_similarity_one() -> None:
    image = torch.rand(2, 1, SIZE, SIZE)
    assert torch.allclose(similarity.ms_ssim(image, image), torch.ones(2), atol=1e-4)
    assert torch.allclose(similarity.minim_ssim(image, image), torch.ones(2), atol=1e-4)


def test_pairs_share_a_prompt_never_repeat_and_keep_patients_apart(tmp_path) -> None:
    rows = tuple(
        Row(tmp_path / f"{i}.png", "ab"[i % 2], MODAL, group=f"patient {i // 4}") for i in range(24)
    )
    images = ImageTable("real", rows, SIZE, True)

    def draw(seed, apart=False):
        return diversity.draw_pairs(
            images, range(24), lambda row: row.text, np.random.default_rng(seed), 30, apart
        )

    pairs = draw(0, apart=True)
    assert len({frozenset((p.first, p.second)) for p in pairs}) == len(pairs) == 30
    assert all(rows[p.first].text == rows[p.second].text == p.shared for p in pairs)
    assert all(rows[p.first].group != rows[p.second].group for p in pairs)
    assert sum(p.shared == "a" for p in pairs) == 15
    assert draw(0) == draw(0) != draw(1)


def test_single_images_a_prompt_and_small_images_are_not_measured(tmp_path) -> None:
    real = table(tmp_path, "real", 1.0, count=4)
    alone = table(tmp_path, "alone", 1.0, count=4, texts=("a", "b", "c", "d"))
    outcome = diversity.measure(context(tmp_path, alone, real), lpips_backbone=tmp_path)
    figure = by_name(outcome, diversity.MS_SSIM)
    assert figure.value is None and "no prompt has two images" in figure.note
    assert "several images a prompt" in outcome.warnings[0]
    untold = diversity.measure(
        context(tmp_path, table(tmp_path, "untold", 1.0, count=4, texts=("",)), real),
        lpips_backbone=tmp_path,
    )
    assert "several images a prompt" in untold.warnings[0]
    small = ImageTable("real", real.rows, 96, True)
    outcome = diversity.measure(context(tmp_path, small, small), lpips_backbone=tmp_path)
    assert "161 are needed" in by_name(outcome, diversity.MS_SSIM).note


def test_lpips_from_a_folder_is_the_packages_own_and_zero_for_equal_images(tmp_path) -> None:
    import lpips
    from torchvision.models import alexnet

    torch.manual_seed(0)
    network = alexnet()
    save_file(network.state_dict(), tmp_path / "alexnet.safetensors")
    distance = similarity.load_lpips(tmp_path)
    first, second = torch.rand(2, 3, 96, 96), torch.rand(2, 3, 96, 96)
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for name, value in reference.net.named_parameters():
        value.data.copy_(network.state_dict()[similarity._torchvision_name(name)])
    expected = reference(first, second, normalize=True).flatten()
    assert torch.allclose(distance(first, second), expected, atol=1e-6) and (expected > 0).all()
    assert torch.allclose(distance(first, first), torch.zeros(2), atol=1e-6)
    grey = first[:, :1]
    assert torch.allclose(distance(grey, grey), torch.zeros(2), atol=1e-6)


def test_lpips_is_never_fetched_unasked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(BadInput, match=r"cache has no alexnet.*\.pth: fetch it once"):
        similarity.load_lpips()


def test_lpips_without_weights_is_not_measured_and_says_why(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"no AlexNet for LPIPS at .*alexnet\.safetensors"):
        similarity.load_lpips(tmp_path)
    images = table(tmp_path, "images", 1.0, count=4)
    outcome = diversity.measure(context(tmp_path, images, images), lpips_backbone=tmp_path)
    figure = by_name(outcome, diversity.LPIPS)
    assert figure.value is None and "alexnet.safetensors" in figure.note
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "alexnet.safetensors")
    with pytest.raises(BadInput, match="other layers"):
        similarity.load_lpips(tmp_path)


def test_minims_figure_is_an_option_and_named_for_what_it_is(tmp_path) -> None:
    images = table(tmp_path, "images", 1.0)
    other = table(tmp_path, "other", 1.0, seed=5)
    given = context(tmp_path, images, other)
    outcome = diversity.measure(given, minim=True, lpips_backbone=tmp_path)
    figure = by_name(outcome, diversity.MINIM_MS_SSIM)
    assert "unrelated real/fake pairs" in figure.metric and figure.better is None
    assert figure.low < figure.value < figure.high and figure.n == 32
