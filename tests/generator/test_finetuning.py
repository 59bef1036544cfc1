"""Fine-tuning of small random pipelines: it learns, resumes, writes what the backend loads."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from pipelines import stable_diffusion, stable_diffusion_xl
from run_samples import Told, same, state
from safetensors.torch import load_file

from medgen.errors import BadInput, MedgenError
from medgen.generator.backends import load_generator
from medgen.generator.training import adapters
from medgen.generator.training.config import FinetuningConfig
from medgen.generator.training.loop import train
from medgen.records import Conditioning
from medgen.settings import Settings

ASK = Conditioning(prompt="brain mri, glioma", modality="Brain MRI", seed=1)
ADAPTER = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    stable_diffusion(folder / "sd1")
    stable_diffusion(folder / "sd2", "v_prediction")
    stable_diffusion_xl(folder / "sdxl")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve PNG files, one wide, in a table with unquoted commas; two are held out."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = ["path,Text,modality"]
    for i in range(12):
        pixels = np.zeros((32, 64 if i == 3 else 32), np.uint8)
        pixels[8:24, 8 : 12 + i] = 200
        Image.fromarray(pixels).save(folder / f"a{i}.png")
        words, modal = ("glioma, large", "Brain MRI") if i % 2 else ("drusen", "OCT")
        lines.append(f"a{i}.png,{words},{modal}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def configure(bases, pictures, tmp_path):
    def make(name="run", base="sd1", **changes):
        entries = {
            "kind": "diffusers", "base": str(bases / base), "table": pictures / "table.csv",
            "out": tmp_path / name, "cache": pictures, "steps": 3, "batch": 2, "lr": 1e-3,
            "warmup": 1, "decay_from": 1.0, "save_every": 1, "log_every": 1, "rank": 2, "alpha": 4,
        }  # fmt: skip
        return FinetuningConfig(**{**entries, **changes})

    return make


def _drawn(folder, **settings):
    generator = load_generator(Settings(backend=f"diffusers:{folder}", steps=2, **settings))
    return generator.sample([ASK])[0]


@pytest.mark.parametrize("base", ["sd1", "sd2", "sdxl"])
def test_an_adapter_is_trained_resumed_exactly_and_drawn_with(base, bases, configure):
    told, config = Told(), configure(base=base)
    folder = train(config, told)
    whole = state(config, "checkpoint-0000003.pt")
    for path in config.out.glob("*3.pt"):
        path.unlink()
    train(config, Told())
    same(whole, state(config, "checkpoint-0000003.pt"))
    names = {key.rsplit(".lora_", 1)[0] for key in whole["model"]}
    assert "conv_out" in names
    assert any("mid_block" in name and "attn1.to_q" in name for name in names)
    assert not any("down_blocks" in name and "attn1" in name for name in names)
    assert any(value.abs().max() > 0 for key, value in whole["model"].items() if "lora_B" in key)
    assert load_file(folder / ADAPTER).keys() == {f"unet.{key}" for key in whole["model"]}
    lineage = json.loads((folder / "finetuning.json").read_text())
    assert lineage["base"] == str(bases / base) and lineage["config"]["rank"] == 2
    drawn = _drawn(folder)
    assert not np.array_equal(drawn, _drawn(bases / base)), "the adapter acts"
    assert np.array_equal(drawn, _drawn(bases / base, tuned=folder))


def test_what_the_backend_draws_is_what_was_trained(bases, configure):
    config = configure(lr=0.05)
    folder = train(config, Told())
    pipeline = DiffusionPipeline.from_pretrained(bases / "sd1")
    adapters.add_adapter(pipeline.unet, config, torch.device("cpu"), torch.float32)
    weights = state(config, "checkpoint-0000003.pt")["model"]
    adapters.load_adapter_weights(pipeline.unet, weights)
    loaded = load_generator(Settings(backend=f"diffusers:{folder}")).pipeline.unet
    inputs = {
        "sample": torch.randn(1, 4, 16, 16), "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 77, 16),
    }  # fmt: skip
    with torch.inference_mode():
        first, second = (unet.eval()(**inputs).sample for unet in (pipeline.unet, loaded))
    assert torch.allclose(first, second, atol=1e-5), "scale and layers are those of training"


def test_qlora_keeps_the_attention_layers_in_four_bits(configure):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    seen = {}

    def look(unet, config, device, dtype):
        add(unet, config, device, dtype)
        seen.update({name: type(module) for name, module in unet.named_modules()})
        seen["weight"] = unet.mid_block.attentions[0].transformer_blocks[0].ff.net[2].weight

    add, monkeypatch = adapters.add_adapter, pytest.MonkeyPatch()
    monkeypatch.setattr("medgen.generator.training.finetuning.add_adapter", look)
    with monkeypatch.context():
        config = configure(method="qlora")
        folder = train(config, Told())
    monkeypatch.undo()
    assert seen["weight"].dtype == torch.uint8, "packed, two weights a byte"
    block = "mid_block.attentions.0.transformer_blocks.0."
    assert seen[f"{block}attn1.to_q.base_layer"] is bitsandbytes.nn.Linear4bit
    assert seen["conv_out.base_layer"] is torch.nn.Conv2d
    whole = state(config, "checkpoint-0000003.pt")
    for path in config.out.glob("*3.pt"):
        path.unlink()
    train(config, Told())
    same(whole, state(config, "checkpoint-0000003.pt"))
    assert _drawn(folder).shape == (32, 32, 3)


def test_full_fine_tuning_learns_and_writes_minims_layout(bases, configure, tmp_path):
    told = Told()
    samples = {"every": 30, "steps": 2, "prompts": [{"prompt": "drusen", "modality": "OCT"}]}
    config = configure(
        method="full", steps=30, batch=8, save_every=30, ema=0.9, lr=3e-3, weighting="none",
        samples=samples,
    )  # fmt: skip
    folder = train(config, told)
    losses = [progress.loss for progress in told.steps]
    assert np.mean(losses[-8:]) < 0.95 * np.mean(losses[:8])
    assert (config.out / "samples" / "step-0000030.png").is_file()
    assert not (folder / "model_index.json").exists(), "the base is not copied"
    tuned = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    average = state(config, "checkpoint-0000030.pt")["average"]
    assert torch.equal(tuned.conv_out.weight, average["conv_out.weight"].half().float())
    minim = tmp_path / "minim"
    minim.mkdir()
    (folder / "unet").rename(minim / "unet")
    with_base = _drawn(bases / "sd1", tuned=minim)
    assert not np.array_equal(with_base, _drawn(bases / "sd1"))


def test_mistakes_are_one_line(bases, configure, tmp_path, monkeypatch):
    def refused(match, run):
        with pytest.raises(BadInput, match=match) as caught:
            run()
        assert "\n" not in str(caught.value)

    refused("no layer of the U-Net", lambda: train(configure(targets=["nothing"]), Told()))
    refused("cannot be halved", lambda: train(configure(size=30), Told()))
    refused("is no folder and cannot be had", lambda: train(configure(base="gone"), Told()))
    refused("MEDGEN_TUNED=.* does not fit", lambda: _drawn(bases / "sd1", tuned=tmp_path))
    folder = train(configure(steps=1), Told())
    refused("trained on another base", lambda: _drawn(bases / "sdxl", tuned=folder))
    refused("rank = 2, the configuration asks 4", lambda: train(configure(rank=4), Told()))
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    refused(r"medgen\[finetune\]", lambda: train(configure("other"), Told()))


def test_a_loss_that_is_no_number_and_a_truncated_picture_are_told(configure, pictures, tmp_path):
    with pytest.raises(MedgenError, match=r"loss is (nan|inf) at step 1.*0000001\.pt is kept"):
        train(configure(lr=1e30), Told())
    (tmp_path / "cut.png").write_bytes((pictures / "a1.png").read_bytes()[:60])
    (tmp_path / "table.csv").write_text(
        f"path,text,modal,group\ncut.png,x,OCT,a\n{pictures}/a1.png,y,OCT,a\n"
    )  # a group for both: without one the path, a new folder each run, decides on the fold
    with pytest.raises(BadInput, match=r"cut\.png.*1 of 2 pictures here cannot be read"):
        train(configure("cut", table=tmp_path / "table.csv", cache=tmp_path), Told())
