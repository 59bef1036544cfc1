"""Modality fusion and the structured condition, switched on and off."""

import torch

from medgen.generator import structured
from medgen.generator.conditioning import ConditionEncoder, join_contexts

MODALITIES = ("Fundus", "OCT")


def _encoder(**switches):
    torch.manual_seed(0)
    return ConditionEncoder(MODALITIES, text_width=8, pooled_width=6, **switches).eval()


@torch.no_grad()
def _context(encoder, modality="OCT", **conditions):
    torch.manual_seed(1)
    return encoder(
        torch.randn(1, 4, 8), torch.ones(1, 4), torch.randn(1, 8),
        encoder.modality_ids([modality]), structured.encode([conditions]),
    )  # fmt: skip


def test_hadamard_hears_the_modality_and_leaves_the_words_alone():
    encoder = _encoder()
    assert encoder.words(["drusen"], ["Fundus"]) == ["drusen"]
    first, second = _context(encoder, "OCT"), _context(encoder, "Fundus")
    assert not torch.equal(first.pooled, second.pooled)
    assert first.states.shape == (1, 4 + 2 + 2, 8)
    assert first.mask.shape == (1, 8)


def test_concatenation_puts_the_name_before_the_words_and_has_no_embedding():
    encoder = _encoder(fusion="concatenation")
    texts = encoder.words(["drusen", "", "drusen", ""], ["Fundus", "OCT", None, None])
    assert texts == ["Fundus, drusen", "OCT", "drusen", ""]
    assert not hasattr(encoder, "modality")
    first, second = _context(encoder, "OCT"), _context(encoder, "Fundus")
    assert torch.equal(first.states, second.states)
    assert torch.equal(first.pooled, second.pooled)


def test_the_structured_condition_can_be_off():
    on, off = _encoder(), _encoder(structured_tokens=0)
    assert not torch.equal(_context(on).states, _context(on, sex="male").states)
    assert torch.equal(_context(off).states, _context(off, sex="male").states)
    assert torch.equal(_context(off).pooled, _context(off, sex="male").pooled)


def test_the_pooled_condition_can_be_off_and_contexts_join():
    encoder = ConditionEncoder(MODALITIES, text_width=8, pooled_width=0).eval()
    context = _context(encoder)
    assert context.pooled is None
    assert join_contexts([context, context]).pooled is None
    joined = join_contexts([_context(_encoder())] * 2)
    assert joined.pooled.shape == (2, 6)
    assert joined.states.shape[0] == joined.mask.shape[0] == 2
