"""The small CLIP: tokens, files, loss, which captions agree, and the bundled one."""

import numpy as np
import pytest
import torch

from medgen.errors import BadInput
from medgen.measure.clip import CompactCLIP, alignment, build, bundled_clip, concepts
from medgen.measure.train_clip import Caption, Captions, contrastive_loss, train_tokenizer

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 80, "width": 16, "heads": 2, "layers": 1},
}
CONFIG = {
    "vocabulary": 80,
    "table_caption_share": 0.0,
    "modality_phrases": {"A": ["scan"]},
    "populations": {"s": ["of a child"], "t": ["of an adult"]},
    "templates": ["{finding}, {modality}"],
    "populated_templates": ["{finding}, {modality} {population}"],
    "concepts": {
        "x": {
            "modality": "A",
            "words": ["ex"],
            "rows": {"s": ["1"], "t": ["1"]},
            "contrasts": ["y"],
        },
        "y": {"modality": "A", "words": ["why"], "rows": {"s": ["2"]}, "contrasts": ["x"]},
    },
}
ROWS = [
    {"modal": "A", "source": "s", "label": "1", "text": "A scan with ex."},
    {"modal": "A", "source": "s", "label": "2", "text": "A scan with why."},
    {"modal": "A", "source": "t", "label": "1", "text": "An adult scan with ex."},
]


def picture(seed=0, size=256):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_clip_comes_back_from_its_files_and_tells_words_apart(tmp_path) -> None:
    torch.manual_seed(0)
    clip = CompactCLIP(build(MODEL), train_tokenizer(CONFIG, ROWS), MODEL)
    clip.save(tmp_path)
    again = CompactCLIP.load(tmp_path)
    first, second = (
        clip.text_embeddings(["ex, scan", "why, scan"]),
        again.text_embeddings(["ex, scan"]),
    )
    assert np.allclose(first[0], second[0], atol=0.02) and not np.allclose(first[0], first[1])
    assert np.allclose(np.linalg.norm(clip.image_embeddings(picture()[None]), axis=1), 1, atol=1e-5)


def test_long_text_is_cut_before_its_end_token() -> None:
    clip = CompactCLIP(build(MODEL), train_tokenizer(CONFIG, ROWS), MODEL)
    tokens = clip.tokens(["ex " * 50, ""])
    assert tokens.shape == (2, 12) and tokens[0, -1] == 79
    assert tokens[1, 0] == 79 and tokens[1, 1:].sum() == 0


def test_missing_weights_are_one_clear_line(tmp_path) -> None:
    with pytest.raises(BadInput, match="no CLIP in"):
        CompactCLIP.load(tmp_path)


def test_loss_is_least_when_agreeing_pairs_are_most_similar() -> None:
    positive = torch.eye(3, dtype=torch.bool)
    positive[0, 1] = positive[1, 0] = True
    good = contrastive_loss(20 * positive.float(), positive)
    bad = contrastive_loss(20 * (~positive).float(), positive)
    assert good < 1.0 < bad


def test_captions_agree_by_what_they_say_not_by_their_row() -> None:
    captions = Captions(CONFIG, ROWS)
    plain, child = Caption("ex, scan", "x", None), Caption("ex, scan of a child", "x", "of a child")
    assert [captions.agree(i, plain, 0) for i in range(3)] == [True, False, True]
    assert [captions.agree(i, child, 0) for i in range(3)] == [True, False, False]
    own = Caption(ROWS[0]["text"], None, "s")
    assert [captions.agree(i, own, 0) for i in range(3)] == [True, False, False]
    drawn = captions.draw(1, np.random.default_rng(0))
    assert drawn.concept == "y" and "why" in drawn.text


def test_bundled_margin_is_a_measurement_that_repeats_and_turns_with_the_words() -> None:
    known = [concept for concept in concepts().values() if concept.contrasts]
    assert known
    concept = next(c for c in known if len(c.contrasts) == 1)
    image = picture()
    measured = alignment(image, concept.text, concept.contrasts, concept.accuracy)
    turned = alignment(image, concept.contrasts[0], [concept.text])
    assert measured.name == "image_text_margin" and measured.expected == (0.0, None)
    assert measured.value == pytest.approx(-turned.value, abs=1e-3)
    assert measured == alignment(image, concept.text, concept.contrasts, concept.accuracy)


def test_margin_needs_a_contrast_and_an_image() -> None:
    with pytest.raises(BadInput, match="contrasting caption"):
        bundled_clip().margin(picture(), "glioma, brain MRI", [])
    with pytest.raises(BadInput, match=r"medgen\.data\.images"):
        bundled_clip().margin(np.zeros((64, 64), np.uint8), "glioma", ["meningioma"])


def test_bundled_vocabulary_knows_the_words_of_its_concepts() -> None:
    clip = bundled_clip()
    unknown = clip.tokenizer.token_to_id("[UNK]")
    for concept in concepts().values():
        assert unknown not in clip.tokenizer.encode(concept.text).ids, concept.text
