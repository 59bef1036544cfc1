"""Encoders of others, small and random, saved as transformers does: trained and drawn with."""

import json
from string import ascii_lowercase

import huggingface_hub
import numpy as np
import pytest
import torch
from pipelines import clip_tokenizer
from run_samples import Told, same, state
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
)

from medgen.errors import BadInput
from medgen.generator.compact import CompactGenerator
from medgen.generator.pretrained_text import load_pretrained_text
from medgen.generator.training.loop import train
from medgen.records import Conditioning

SMALL = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Folders of a BERT, of a CLIP text encoder and of a whole CLIP."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", *ascii_lowercase]
    pieces += [f"##{letter}" for letter in ascii_lowercase]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    bert = BertConfig(vocab_size=len(pieces), max_position_embeddings=32, **SMALL)
    BertModel(bert).save_pretrained(folder / "bert")
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    tokenizer = clip_tokenizer(32)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=32, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, **SMALL,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    whole = CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=8)
    CLIPModel(whole).save_pretrained(folder / "whole")
    tokenizer.save_pretrained(folder / "whole")
    return folder


@pytest.mark.parametrize("name", ["bert", "clip", "whole"])
def test_states_do_not_depend_on_padding_and_pooled_is_as_documented(encoders, name):
    tokenizer, encoder = load_pretrained_text(encoders / name, frozen=True, length=16)
    short, _ = load_pretrained_text(encoders / name, frozen=True, length=8)
    ids, mask = tokenizer(["ab, c", "a"])
    assert ids.shape == mask.shape == (2, 16)
    assert mask.sum(1).tolist() == [6, 3]
    states, pooled = encoder(ids, mask)
    fewer, pooled_again = encoder(*short(["ab, c", "a"]))
    assert states.shape == (2, 16, 16) and pooled.shape == (2, 16)
    assert torch.allclose(states[0, :6], fewer[0, :6], atol=1e-5)
    assert torch.allclose(pooled, pooled_again, atol=1e-5)
    last = states[[0, 1], mask.sum(1) - 1]
    mean = torch.stack([states[0, :6].mean(0), states[1, :3].mean(0)])
    assert torch.allclose(pooled, mean if name == "bert" else last, atol=1e-5)
    assert not encoder.train().training and not any(p.requires_grad for p in encoder.parameters())


def _configure(configure, source, name="run", frozen=True, **changes):
    text = {"pretrained": str(source), "frozen": frozen, "length": 16}
    return configure(name, text_encoder=text, steps=4, **changes)


@pytest.mark.parametrize("name", ["bert", "clip"])
def test_a_frozen_encoder_trains_resumes_and_draws_from_the_folder_alone(
    encoders, configure, name, tmp_path
):
    source = tmp_path / "encoder"
    (encoders / name).rename(source)
    try:
        config = _configure(configure, source)
        folder = train(config, Told())
        whole = state(config, "checkpoint-0000004.pt")
        assert not any(key.startswith("text_encoder.") for key in whole["model"])
        half = _configure(configure, source, "half")
        train(half.model_copy(update={"steps": 4, "save_every": 2}), Told())
        (half.out / "checkpoint-0000004.pt").unlink()
        train(half, Told())
        same(whole, state(half, "checkpoint-0000004.pt"))
    finally:
        source.rename(encoders / name)
    generator = CompactGenerator(folder, steps=2, guidance_scale=1.5, micro_batch=2)
    asks = [Conditioning(prompt=words, modality="OCT") for words in ("glioma", "fluid")]
    first, second = generator.sample(asks)
    assert first.shape == (64, 64, 3)
    assert not np.array_equal(first, second), "the words are heard"
    kept = load_pretrained_text(folder / "text_encoder", frozen=True)[1].state_dict()
    given = load_pretrained_text(encoders / name, frozen=True, length=16)[1].state_dict()
    assert all(torch.equal(kept[key], given[key].half().float()) for key in given)


def test_an_encoder_that_is_not_frozen_learns_and_starts_the_next_run(encoders, configure):
    config = _configure(configure, encoders / "bert", frozen=False)
    folder = train(config, Told())
    before = load_pretrained_text(encoders / "bert", frozen=True, length=16)[1].state_dict()
    after = load_pretrained_text(folder / "text_encoder", frozen=True)[1].state_dict()
    assert any((before[key] - after[key]).abs().max() > 1e-3 for key in before)
    told = Told()
    more = _configure(configure, encoders / "bert", "more", frozen=False, init_from=folder)
    train(more.model_copy(update={"lr": 1e-12}), told)
    again = load_pretrained_text(more.out / "generator" / "text_encoder", frozen=True)[1]
    assert all(torch.equal(after[key], value) for key, value in again.state_dict().items())


def test_a_checkpoint_with_another_frozen_encoder_is_refused(encoders, configure):
    config = _configure(configure, encoders / "bert")
    train(config, Told())
    with pytest.raises(BadInput, match=r"text_encoder\.(kind|width|weights) = .*another `out`"):
        train(_configure(configure, encoders / "clip"), Told())


def test_what_does_not_load_is_one_line_that_says_what_is_needed(encoders, tmp_path, monkeypatch):
    # The variable HF_HUB_OFFLINE is read when the library is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def reason(source, **changes):
        with pytest.raises(BadInput) as caught:
            load_pretrained_text(source, **{"frozen": True, "length": 16, **changes})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "model.safetensors" in reason(tmp_path / "none")
    assert "model.safetensors" in reason("nobody/no-such-encoder")
    (tmp_path / "pickled").mkdir()
    config = json.loads((encoders / "bert" / "config.json").read_text())
    (tmp_path / "pickled" / "config.json").write_text(json.dumps(config))
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    assert "no file named model.safetensors" in reason(tmp_path / "pickled")
    assert "64 tokens are more than the 32" in reason(encoders / "bert", length=64)
