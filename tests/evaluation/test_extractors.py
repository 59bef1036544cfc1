"""Feature extractors by name: real loading code on small or random weights, and clear refusals."""

import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity import feature_extractor_inceptionv3 as inception
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTImageProcessor, ViTModel

from medgen.errors import BadInput
from medgen.evaluation.distances import frechet_distance
from medgen.evaluation.encoder import WEIGHTS, CompactEncoder
from medgen.evaluation.extractors import Classifier, extractor

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}


def images(n=3, size=48):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """A file of Inception-v3 tensors drawn at random, and the network that holds them."""

    class Untrained(inception.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_args, **_more):
            return None

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_args, **_more: {})
        network = Untrained("untrained", ["2048", "logits_unbiased"])
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path, network


def test_bundled_encoder_is_the_default() -> None:
    assert extractor() is extractor("medgen")
    assert isinstance(extractor(), CompactEncoder) and isinstance(extractor(), Classifier)


def test_folder_of_an_encoder_is_loaded() -> None:
    assert extractor(WEIGHTS).name == extractor().name


def test_inception_from_a_file_gives_torch_fidelitys_features(random_inception) -> None:
    path, network = random_inception
    encoder = extractor(f"inception:{path}")
    assert encoder.name.startswith("inception-v3 2048 (") and encoder.width == 2048
    pixels = torch.from_numpy(images()).permute(0, 3, 1, 2)
    pooled, logits = network(pixels)
    features = encoder(images(), batch=2)
    assert features == pytest.approx(pooled.numpy(), rel=1e-4, abs=1e-5)
    assert isinstance(encoder, Classifier)
    assert encoder.logits(features) == pytest.approx(logits.numpy(), rel=1e-3, abs=1e-4)
    assert np.isfinite(frechet_distance(features, features[::-1] + 0.1))


def test_pickles_of_unknown_origin_are_not_opened(tmp_path) -> None:
    path = tmp_path / "inception.pth"
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(BadInput, match=r"SHA-256 begins .*\.safetensors"):
        extractor(f"inception:{path}")


def test_file_that_is_not_inceptions_is_one_line(tmp_path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(BadInput, match="no Inception-v3 weights from") as caught:
        extractor(f"inception:{path}")
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="check the path"):
        extractor(f"inception:{tmp_path}/none.pth")


@pytest.mark.parametrize(("model", "config"), [(ViTModel, ViTConfig), (Dinov2Model, Dinov2Config)])
def test_vision_model_of_a_folder(tmp_path, model, config) -> None:
    torch.manual_seed(0)
    network = model(config(**SHAPE, intermediate_size=32, patch_size=8)).eval()
    network.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = extractor(tmp_path)
    assert encoder.width == 16 and encoder.name.startswith(f"{tmp_path.name} (")
    features = encoder(images(10))
    assert features.shape == (10, 16) and features.dtype == np.float32
    assert encoder(images(0)).shape == (0, 16)
    processor = ViTImageProcessor.from_pretrained(tmp_path)
    pixels = processor(images=list(images(10)), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        direct = network(pixel_values=pixels).pooler_output.numpy()
    assert features == pytest.approx(direct, abs=1e-5)
    assert not isinstance(encoder, Classifier)


def test_other_weights_have_another_name(tmp_path) -> None:
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        ViTModel(ViTConfig(**SHAPE, intermediate_size=32, patch_size=8)).save_pretrained(tmp_path)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        names.append(extractor(tmp_path).name)
    assert names[0] != names[1]


def test_folder_without_a_model_says_what_it_lacks(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"no config\.json and no preprocessor_config\.json"):
        extractor(tmp_path)


def test_hub_out_of_reach_is_one_line(monkeypatch) -> None:
    def offline(*_args, **_more):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(inception, "load_state_dict_from_url", offline)
    with pytest.raises(BadInput, match="no-such-model is not in the Hugging Face cache") as caught:
        extractor("medgen-tests/no-such-model")
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match=r"inception:FILE"):
        extractor("inception")


@pytest.mark.parametrize("name", ["", "resnet", "./nowhere/model", "a/b/c"])
def test_unknown_names_are_refused(name) -> None:
    with pytest.raises(BadInput, match="no feature extractor"):
        extractor(name)
