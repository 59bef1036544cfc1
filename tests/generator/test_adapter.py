"""Adapters: merged as peft applies them, kept with their lineage, promoted and taken back."""

import copy
import json

import numpy as np
import pytest
import torch

from medgen.errors import BadInput
from medgen.generator import promotion
from medgen.generator.adapter import (
    AdapterLineage,
    base_hash,
    merge_adapter,
    read_lineage,
    write_adapter,
)
from medgen.generator.backends import BUNDLED, chosen_adapter, load_generator
from medgen.generator.compact import CompactGenerator
from medgen.generator.training.adapters import adapter_weights, add_adapter
from medgen.generator.unet import MedicalUNet, build_unet
from medgen.graphs.setup import current_setup, settings_of
from medgen.records import Conditioning
from medgen.settings import Settings, settings

TARGETS = ["to_q", "to_v", r"to_out\.0", "conv1", "conv_out"]


class Lora:
    method, rank, alpha, targets = "lora", 2, 4, TARGETS


def adapted(unet, seed=0):
    """The U-Net with an adapter that changes something."""
    torch.manual_seed(seed)
    add_adapter(unet, Lora, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.05)
    return unet


def written(unet, folder, base, log="1" * 64):
    config = {"r": 2, "lora_alpha": 4}
    lineage = AdapterLineage(base=base, log=log, method="reward_weighted", step=3)
    return write_adapter(folder, adapter_weights(unet), config, lineage)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter of the bundled generator."""
    folder = tmp_path_factory.mktemp("adapter") / "one"
    unet = MedicalUNet.from_pretrained(BUNDLED / "unet", use_safetensors=True).float()
    written(adapted(unet), folder, base_hash(BUNDLED))
    return folder


@pytest.fixture
def own_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_ADAPTERS", str(tmp_path / "adapters"))
    monkeypatch.delenv("MEDGEN_ADAPTER")
    settings.cache_clear()
    yield tmp_path / "adapters"
    settings.cache_clear()


def answer(unet, count=2):
    random_ = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=random_)  # noqa: E731
    with torch.inference_mode():
        return unet.eval()(
            draw(4, 4, 8, 8)[:count],
            torch.tensor([3, 500, 7, 900])[:count],
            encoder_hidden_states=draw(4, 5, 16)[:count],
            class_labels=draw(4, 24)[:count],
        ).sample


def small_unet():
    torch.manual_seed(5)
    return build_unet(
        channels=(16, 16, 16), attention=("cross", "full", "full"), latent_channels=4,
        sample_size=8, heads=2, groups=8, context_width=16, pooled_width=24, gated_skips=True,
    )  # fmt: skip


def test_merged_weights_answer_as_peft_does(tmp_path):
    plain = small_unet()
    bare = copy.deepcopy(plain)
    unet = adapted(small_unet())
    lineage = written(unet, tmp_path / "a", "0" * 16)
    assert read_lineage(tmp_path / "a") == lineage
    before = answer(bare)
    merge_adapter(plain, tmp_path / "a", "0" * 16)
    assert torch.allclose(answer(plain), answer(unet), atol=1e-5)
    assert not torch.allclose(answer(plain), before, atol=1e-2)


def test_images_of_a_batch_do_not_see_each_other():
    """MINIM's attention had no batch_first: images of a batch were mixed."""
    unet = adapted(small_unet())
    assert torch.allclose(answer(unet, 4)[:2], answer(unet, 2), atol=1e-5)


def test_an_adapter_of_another_base_is_refused(tmp_path):
    written(adapted(small_unet()), tmp_path / "a", "0" * 16)
    with pytest.raises(BadInput, match="trained on the weights 0000000000000000, not on ffff"):
        merge_adapter(small_unet(), tmp_path / "a", "f" * 16)
    weights = tmp_path / "a" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(BadInput, match="is damaged"):
        read_lineage(tmp_path / "a")
    with pytest.raises(BadInput, match="no adapter in"):
        read_lineage(tmp_path)


def test_the_base_is_not_written(adapter):
    before = base_hash(BUNDLED)
    asked = [Conditioning(prompt="brain MRI, glioma", modality="Brain MRI", seed=1)]
    drawn = {}
    for folder in (None, adapter):
        generator = CompactGenerator(
            BUNDLED, steps=3, guidance_scale=1.0, micro_batch=1, adapter=folder
        )
        drawn[generator.adapter] = generator.sample(asked)
        assert generator.name.endswith(generator.adapter)
    assert len(drawn) == 2
    first, second = drawn.values()
    assert not np.array_equal(first, second)
    assert base_hash(BUNDLED) == before


def test_promote_and_roll_back(adapter, own_registry, tmp_path):
    options = Settings()
    assert chosen_adapter(options) is None
    one = promotion.promote(adapter)
    chosen = chosen_adapter(options)
    assert chosen == own_registry / one.adapter
    assert read_lineage(chosen) == read_lineage(adapter)
    with pytest.raises(BadInput, match="promoted already"):
        promotion.promote(adapter)
    unet = MedicalUNet.from_pretrained(BUNDLED / "unet", use_safetensors=True).float()
    written(adapted(unet, seed=1), tmp_path / "two", one.base)
    two = promotion.promote(tmp_path / "two")
    assert chosen_adapter(options) == own_registry / two.adapter
    assert chosen_adapter(Settings(adapter="none")) is None
    assert promotion.rollback(one.base) == one
    assert promotion.rollback(one.base) is None
    assert chosen_adapter(options) is None
    with pytest.raises(BadInput, match="nothing to take back"):
        promotion.rollback(one.base)
    assert (own_registry / two.adapter).is_dir()


def test_a_promotion_for_other_weights_does_not_draw(adapter, own_registry, tmp_path):
    written(adapted(small_unet()), tmp_path / "other", "0" * 16)
    promotion.promote(tmp_path / "other")
    assert chosen_adapter(Settings()) is None


def test_a_promoted_adapter_that_is_gone_is_said(adapter, own_registry):
    kept = own_registry / promotion.promote(adapter).adapter
    kept.rename(own_registry / "elsewhere")
    with pytest.raises(BadInput, match=r"is gone from .*: medgen rlhf rollback"):
        chosen_adapter(Settings())
    (own_registry / "promoted.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        chosen_adapter(Settings())


def test_a_run_records_the_adapter_it_draws_with(adapter, own_registry):
    """What is promoted may change before a replay."""
    promotion.promote(adapter)
    recorded = current_setup(Settings()).settings
    assert recorded["adapter"].endswith(read_lineage(adapter).id)
    promotion.rollback(read_lineage(adapter).base)
    assert chosen_adapter(settings_of(recorded, Settings())).name == read_lineage(adapter).id
    before_adapters = {key: value for key, value in recorded.items() if key != "adapter"}
    promotion.promote(adapter)
    assert chosen_adapter(settings_of(before_adapters, Settings())) is None


def test_settings_name_an_adapter(adapter, monkeypatch):
    monkeypatch.setenv("MEDGEN_ADAPTER", str(adapter))
    generator = load_generator(Settings(threads=1))
    assert generator.adapter == json.loads((adapter / "adapter.json").read_text())["id"]
    with pytest.raises(BadInput, match="for the compact backend"):
        chosen_adapter(Settings(backend="diffusers:x"))
    monkeypatch.setenv("MEDGEN_ADAPTER", "None")
    assert Settings().adapter == "none"
