"""Each part of the U-Net: without effect when added, trainable, saved, and gone when off."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from medgen.generator.unet import PARTS, MedicalUNet, build_unet, cost, load_trained
from medgen.generator.unet_parts import PyramidAttention, place_codes

SMALL = {"channels": (8, 16, 16), "sample_size": 8, "heads": 2, "groups": 4, "context_width": 12}
SWITCHES = {
    "gates": {"gated_skips": True},
    "encoder_pyramid": {"pyramid_attention": {"width": 16, "heads": 2}},
    "decoder_pyramid": {"feature_pyramid": 8},
    "context_attention": {"attention": ("cross", "full", "full")},
}
ALL = {key: value for switch in SWITCHES.values() for key, value in switch.items()}


def _small(seed=0, **switches):
    torch.manual_seed(seed)
    return build_unet(**SMALL, pooled_width=6, **switches).eval()


def _inputs(side=8, width=12, pooled=6, channels=16):
    torch.manual_seed(7)
    mask = torch.ones(2, 5)
    mask[0, 3:] = 0
    return {
        "sample": torch.randn(2, channels, side, side), "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(2, 5, width), "encoder_attention_mask": mask,
        "class_labels": torch.randn(2, pooled),
    }  # fmt: skip


@torch.no_grad()
def _predict(unet, **changes):
    return unet(**{**_inputs(), **changes}).sample


def test_switched_off_it_is_diffusers_unet():
    unet = _small()
    assert unet.plain
    plain = UNet2DConditionModel.from_config(unet.config)
    plain.load_state_dict(unet.state_dict())
    assert torch.equal(_predict(unet), _predict(plain.eval()))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_added_to_trained_weights_changes_nothing_and_then_learns(part):
    plain, unet = _small(0), _small(1, **SWITCHES[part])
    assert load_trained(unet, plain.state_dict()) == [part]
    assert torch.allclose(_predict(unet), _predict(plain), atol=1e-5)
    optimizer = torch.optim.SGD(unet.parameters(), lr=0.1)
    for _ in range(2):  # the zeroed projection moves first, what feeds it then
        optimizer.zero_grad()
        unet(**_inputs()).sample.square().mean().backward()
        optimizer.step()
    without = [
        name
        for name, value in getattr(unet, part).named_parameters()
        if value.grad is None or not value.grad.abs().sum() > 0
    ]
    assert without == []
    assert not torch.allclose(_predict(unet), _predict(plain), atol=1e-3)


def test_with_every_part_it_is_saved_and_loaded(tmp_path):
    unet = _small(**ALL)
    for value in unet.parameters():
        torch.nn.init.normal_(value, std=0.1)
    unet.save_pretrained(tmp_path)
    again = MedicalUNet.from_pretrained(tmp_path).eval()
    assert torch.equal(_predict(unet), _predict(again))
    assert {part for part in PARTS if getattr(again, part) is not None} == set(PARTS)


def test_padding_is_not_heard_at_any_level():
    unet = _small(**ALL)
    for value in unet.parameters():
        torch.nn.init.normal_(value, std=0.1)
    other = _inputs()["encoder_hidden_states"].clone()
    other[0, 3:] += 10
    first, second = _predict(unet), _predict(unet, encoder_hidden_states=other)
    assert torch.allclose(first, second, atol=1e-5)
    other[0, 0] += 1
    assert not torch.allclose(first, _predict(unet, encoder_hidden_states=other), atol=1e-3)


def test_the_finest_level_hears_the_context_only_with_cross_attention_there():
    unet = _small(**SWITCHES["context_attention"])
    assert not getattr(unet.down_blocks[0], "has_cross_attention", False), "no self-attention"
    assert [len(members) for members in unet.context_attention.values()] == [1, 2]


def test_pyramid_attention_joins_resolutions():
    torch.manual_seed(0)
    part = PyramidAttention((8, 8, 8), 6, groups=4, width=16, heads=2).eval()
    for write in part.writes:
        torch.nn.init.normal_(write.weight)
    maps = [torch.randn(1, 8, side, side) for side in (16, 8, 4)]
    time = torch.randn(1, 6)
    with torch.no_grad():
        before = part(maps, time)
        maps[2][0, :, 0, 0] += 3  # one place of the coarsest map
        after = part(maps, time)
    for first, second in zip(before, after, strict=True):
        assert first.shape == second.shape
        assert (first - second).abs().max() > 1e-3


def test_pyramid_attention_pools_what_is_too_large_and_takes_no_two_levels():
    part = PyramidAttention((8, 8, 8), 6, groups=4, width=16, heads=2, largest_side=8)
    maps = [torch.randn(1, 8, side, side) for side in (32, 16, 8)]
    assert [tuple(x.shape[2:]) for x in part(maps, torch.randn(1, 6))] == [
        (32, 32), (16, 16), (8, 8),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="three resolutions"):
        PyramidAttention((8, 8), 6, groups=4, width=16, heads=2)


def test_the_same_place_has_the_same_code_at_every_resolution():
    device = torch.device("cpu")
    fine, coarse = (place_codes(side, side, 16, device) for side in (9, 3))
    assert torch.allclose(fine.view(9, 9, 16)[1, 4], coarse.view(3, 3, 16)[0, 1], atol=1e-5)


def test_sides_that_do_not_halve_evenly_come_back_whole():
    unet = _small(**ALL)
    sample = torch.randn(2, 16, 6, 10)
    assert _predict(unet, sample=sample).shape == sample.shape


def test_weights_of_another_width_are_refused_by_name():
    wider = build_unet(**{**SMALL, "channels": (8, 16, 32)}, pooled_width=6)
    with pytest.raises(ValueError, match=r"more weights do not fit"):
        load_trained(wider, _small().state_dict())
    with pytest.raises(ValueError, match="does not take cross_attention_kwargs"):
        _predict(_small(gated_skips=True), cross_attention_kwargs={"scale": 0.5})


def test_costs_are_counted_part_by_part():
    plain, full = cost(_small()), cost(_small(**ALL))
    for kind in ("parameters", "flops"):
        assert set(full[kind]) == {"total", *PARTS}
        parts = sum(full[kind][part] for part in PARTS)
        assert all(full[kind][part] > 0 for part in PARTS)
        assert full[kind]["total"] == plain[kind]["total"] + parts
    assert plain["parameters"]["total"] == sum(p.numel() for p in _small().parameters())
