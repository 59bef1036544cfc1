"""Training on a handful of drawn images: it learns, it resumes, and what fails says why."""

import csv
import os
import resource
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from run_samples import Told, same, state

from medgen.errors import BadInput, MedgenError
from medgen.generator import train_autoencoder
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.compact import CompactGenerator
from medgen.generator.conditioning import ConditionEncoder
from medgen.generator.training import session
from medgen.generator.training.config import TrainingConfig
from medgen.generator.training.loop import train
from medgen.generator.training.rows import sampling_weights
from medgen.records import Conditioning


def _curve(config):
    with (config.out / "log.csv").open(newline="") as stream:
        return [(r["step"], r["loss"], r["held_out"], r["rate"]) for r in csv.DictReader(stream)]


def _autoencoder_config(table, out):
    return {
        "table": table / "table.csv", "images": table / "images.npy", "out": out, "seed": 0,
        "steps": 150, "batch": 4, "crop": 32, "lr": 2e-3, "noise": 0.1,
        "model": {"channels": [16, 16, 16]},
    }  # fmt: skip


def test_the_autoencoder_learns(table, tmp_path):
    torch.manual_seed(0)
    start = CompactAutoencoder(channels=(16, 16, 16))
    train_autoencoder.train(_autoencoder_config(table, tmp_path))
    trained = CompactAutoencoder.from_pretrained(tmp_path / "autoencoder")
    target = train_autoencoder.to_model(np.load(table / "images.npy"))
    with torch.inference_mode():
        before = train_autoencoder.psnr(start(target), target).mean()
        after = train_autoencoder.psnr(trained(target), target).mean()
    assert after > before + 3


@pytest.fixture(scope="module")
def unbroken(settings_of_training, tmp_path_factory):
    config = TrainingConfig(**settings_of_training, out=tmp_path_factory.mktemp("unbroken"))
    train(config, Told())
    return config


def test_the_loss_falls(unbroken, configure):
    told = Told()
    train(configure(steps=40, save_every=40, lr=3e-3), told)
    assert told.steps[-1].held_out < 0.85 * float(_curve(unbroken)[1][2])
    assert told.steps[-1].images_per_second > 0
    assert told.steps[-1].seconds_left == 0
    assert any("unet" in line and "GFLOPs" in line for line in told.lines)


def test_a_killed_run_goes_on_exactly(unbroken, configure, monkeypatch):
    config, calls = configure(log_every=3), 0
    step = torch.optim.AdamW.step

    def dying(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(config, Told())
    assert [row[0] for row in _curve(config)] == ["2", "3"], "step 3 is lost and done again"
    train(config.model_copy(update={"log_every": 1}), Told())
    same(state(unbroken), state(config))
    whole = {row[0]: row for row in _curve(unbroken)}
    first, *others = _curve(config)
    assert float(first[1]) == pytest.approx((float(whole["1"][1]) + float(whole["2"][1])) / 2)
    assert others == [whole[step] for step in ("3", "4", "5", "6")]


def test_a_terminated_run_writes_its_step_and_goes_on_exactly(unbroken, configure):
    config = configure()

    def terminate(progress):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(MedgenError, match=r"stopped at step 3 of 6.*run the same command"):
        train(config, Told(terminate))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(config, Told())
    same(state(unbroken), state(config))
    assert _curve(config) == _curve(unbroken)


def test_a_finished_run_says_so_and_changes_nothing(unbroken):
    before = state(unbroken)
    told = Told()
    folder = train(unbroken, told)
    assert any("raise `steps`" in line for line in told.lines)
    same(before, state(unbroken))
    assert (folder / "generator.json").is_file()


def test_the_last_checkpoints_and_the_best_are_kept(unbroken):
    names = sorted(path.name for path in unbroken.out.glob("*.pt"))
    assert names == ["best.pt", "checkpoint-0000004.pt", "checkpoint-0000006.pt"]
    held_out = {int(row[0]): float(row[2]) for row in _curve(unbroken) if row[2]}
    best = min(held_out, key=held_out.get)
    assert state(unbroken, "best.pt")["step"] == best
    assert (unbroken.out / "generator_best" / "generator.json").is_file()


def test_a_truncated_checkpoint_falls_back_to_the_one_before(unbroken, configure):
    config = configure()
    train(config, Told())
    newest = config.out / "checkpoint-0000006.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="trying the one before"):
        train(config, Told())
    same(state(unbroken), state(config))
    for path in config.out.glob("checkpoint-*.pt"):
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning),
        pytest.raises(BadInput, match="no other is left"),
    ):
        train(config, Told())


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(configure):
    config = configure(steps=2)
    train(config, Told())
    broken = config.model_copy(update={"steps": 6, "latent_noise": float("inf")})
    with pytest.raises(MedgenError, match=r"loss is nan at step 2.*0000002\.pt is kept") as caught:
        train(broken, Told())
    assert "\n" not in str(caught.value)
    train(config.model_copy(update={"steps": 3}), Told())


def test_a_full_disk_is_said_and_nothing_is_lost(configure):
    config = configure(steps=2)
    train(config, Told())
    before = state(config, "checkpoint-0000002.pt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(MedgenError, match=r"cannot write .*0000004\.pt: the disk is full"):
            train(config.model_copy(update={"steps": 6}), Told())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(config.out.glob(".*")), "no half-written file stays"
    same(before, state(config, "checkpoint-0000002.pt"))
    train(config.model_copy(update={"steps": 6}), Told())


def test_a_checkpoint_of_another_architecture_is_refused_by_name(unbroken, settings_of_training):
    wider = {**settings_of_training, "unet": {**settings_of_training["unet"], "gated_skips": True}}
    config = TrainingConfig(**wider, out=unbroken.out)
    with pytest.raises(BadInput, match=r"unet\.gated_skips = False.*asks True.*another `out`"):
        train(config, Told())


@pytest.mark.parametrize("source", ["checkpoint-0000006.pt", "generator"])
def test_a_run_starts_from_trained_weights_and_new_parts_change_nothing(
    unbroken, configure, settings_of_training, source
):
    def held_out(name, unet):
        # So small a rate that the weights stay, seen through the held-out loss.
        start = {"init_from": unbroken.out / source, "lr": 1e-12, "steps": 1, "save_every": 1}
        told = Told()
        train(configure(name, unet={**settings_of_training["unet"], **unet}, **start), told)
        return told.steps[-1].held_out, told.lines

    expected = float(_curve(unbroken)[-1][2])
    plain, _ = held_out("plain", {})
    assert plain == pytest.approx(expected, rel=2e-3), "the folder holds halves"
    parts = {
        "attention": ["cross", "full", "full"], "gated_skips": True, "feature_pyramid": 16,
        "pyramid_attention": {"width": 16, "heads": 2},
    }  # fmt: skip
    with_parts, lines = held_out("parts", parts)
    assert with_parts == pytest.approx(plain, rel=1e-4)
    assert any("new parts: " in line and "gates" in line for line in lines)


def test_a_modality_that_the_weights_lack_gets_an_embedding_of_its_own(
    unbroken, configure, settings_of_training, tmp_path
):
    with settings_of_training["table"].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[::3]:
        row["modal"] = "Fundus"  # sorts between the other two
    with (tmp_path / "more.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    start = {"init_from": unbroken.out / "generator", "lr": 1e-12, "steps": 1, "save_every": 1}
    folder = train(configure(table=tmp_path / "more.csv", **start), Told())
    before, after = (
        ConditionEncoder.from_pretrained(path / "conditions")
        for path in (unbroken.out / "generator", folder)
    )
    assert list(after.config.modalities) == ["Brain MRI", "OCT", "Fundus"]
    assert torch.equal(before.modality.weight, after.modality.weight[:3])
    assert len(after.modality.weight) == 4


def test_a_state_of_the_earlier_layout_is_taken_up(unbroken, configure):
    config = configure(steps=7)
    kept = ("model", "average", "optimizer", "step")
    config.out.mkdir()
    torch.save({key: state(unbroken)[key] for key in kept}, config.out / "last.pt")
    told = Told()
    train(config, told)
    assert any("last.pt, step 6" in line for line in told.lines)
    assert [progress.step for progress in told.steps] == [7]


def test_starting_from_another_architecture_is_refused(
    unbroken, configure, settings_of_training, tmp_path
):
    narrow = {**settings_of_training["unet"], "channels": [16, 16, 16]}
    with pytest.raises(BadInput, match=r"init_from: .*another architecture.*unet"):
        train(configure(unet=narrow, init_from=unbroken.out / "generator"), Told())
    with pytest.raises(BadInput, match=r"generator\.json is missing"):
        train(configure(init_from=tmp_path), Told())


def test_accumulation_does_not_change_the_course(configure, settings_of_training):
    still = {**settings_of_training["text_encoder"], "dropout": 0.0}
    whole, split = (
        configure(f"parts{parts}", accumulate=parts, text_encoder=still) for parts in (1, 2)
    )
    for config in (whole, split):
        train(config, Told())
    for (_, loss, _, _), (_, again, _, _) in zip(_curve(whole), _curve(split), strict=True):
        assert float(loss) == pytest.approx(float(again), rel=1e-3)


def test_a_batch_that_does_not_split_is_refused(configure):
    with pytest.raises(BadInput, match="batch: 4 is no multiple of 3"):
        train(configure(accumulate=3), Told())


@pytest.fixture
def fresh_accelerate():
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_computes_in_halves_and_keeps_whole_masters(unbroken, configure, fresh_accelerate):
    config = configure(precision="bf16")
    train(config, Told())
    saved = state(config)
    assert {value.dtype for value in saved["model"].values()} == {torch.float32}
    whole, halves = float(_curve(unbroken)[-1][1]), float(_curve(config)[-1][1])
    assert halves == pytest.approx(whole, rel=0.05)
    assert halves != whole


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_fp16_without_a_gpu_is_one_line(configure, fresh_accelerate):
    with pytest.raises(BadInput, match=r"precision: fp16") as caught:
        train(configure(precision="fp16"), Told())
    assert "\n" not in str(caught.value)


def test_a_tracker_that_is_not_installed_is_named(configure, monkeypatch):
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install wandb"):
        train(configure(tracker="wandb"), Told())


def test_tensorboard_gets_the_curve(configure):
    pytest.importorskip("tensorboard")
    config = configure(tracker="tensorboard", steps=2)
    train(config, Told())
    assert list(config.out.rglob("events.out.tfevents.*"))


def test_the_minim_recipe_trains_and_draws_with_a_grid_on_the_way(configure):
    config = configure(
        objective={
            "prediction": "epsilon", "schedule": "scaled_linear", "weighting": "none",
        },
        conditions={"fusion": "concatenation", "structured_tokens": 0, "pooled_width": 0},
        samples={
            "every": 3, "steps": 2,
            "prompts": [
                {"prompt": "glioma", "modality": "Brain MRI"}, {"prompt": "", "modality": "OCT"},
                {"prompt": "subretinal fluid", "modality": "OCT"},
            ],
        },
    )  # fmt: skip
    folder = train(config, Told())
    grids = sorted(path.name for path in (config.out / "samples").iterdir())
    assert grids == ["step-0000003.png", "step-0000006.png"]
    with Image.open(config.out / "samples" / grids[-1]) as grid:
        assert grid.size == (128, 128)
        assert grid.text["Synthetic"] == "YES"
    generator = CompactGenerator(folder, steps=2, guidance_scale=1.5, micro_batch=2)
    asks = [Conditioning(prompt="glioma", modality=name) for name in ("Brain MRI", "OCT")]
    first, second = generator.sample(asks)
    assert first.shape == (64, 64, 3)
    assert not np.array_equal(first, second), "the modality is heard in the text alone"


def test_rare_modalities_and_classes_are_drawn_more_often_than_their_share():
    rows = [{"modal": "A", "source": "s", "label": "x"}] * 90
    rows += [{"modal": "A", "source": "s", "label": "y"}] * 6
    rows += [{"modal": "B", "source": "s", "label": "z"}] * 4
    weights = sampling_weights(rows)
    assert weights.sum() == pytest.approx(1)
    shares = weights[:90].sum(), weights[90:96].sum(), weights[96:].sum()
    assert shares[2] == pytest.approx(2 / (2 + 96**0.5))
    assert shares[1] / shares[0] == pytest.approx((6 / 90) ** 0.5)
