"""What an autoencoder costs in fidelity: held-out images and their reconstructions.

    python tests/bench/autoencoder_fidelity.py TABLE IMAGES.npy AUTOENCODER [AUTOENCODER ...]

Up to 90 images of the validation fold a modality, as they are and through each autoencoder, against
140 training images (seed 0), by evaluation's encoder. OCT is left out: it has too few.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from medgen.evaluation.distances import kernel_distance, neighbourhood_scores
from medgen.evaluation.encoder import bundled_encoder
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.train_autoencoder import to_model
from medgen.generator.train_decoder import read_pictures

TRAINING, HELD_OUT, BATCH = 140, 90, 15


@torch.inference_mode()
def reconstructed(model, images, grey):
    """(n, H, H, 3) uint8 through an autoencoder, its grain seeded by the batch."""
    parts = []
    for start in range(0, len(images), BATCH):
        batch = to_model(images[start : start + BATCH])
        grain = torch.Generator().manual_seed(start)
        noise = torch.randn(len(batch), 1, *batch.shape[2:], generator=grain)
        output = model.decode(model.encode(batch), noise)
        parts.append(output.add(1).mul(127.5).clamp(0, 255).round().permute(0, 2, 3, 1).numpy())
    pixels = np.concatenate(parts)
    if grey:
        pixels = np.repeat(pixels.mean(3, keepdims=True).round(), 3, axis=3)
    return pixels.astype(np.uint8)


def main(table, images, *folders):
    pictures = read_pictures(Path(table), Path(images))
    encoder, chance = bundled_encoder(), np.random.default_rng(0)
    models = {
        folder: CompactAutoencoder.from_pretrained(folder, use_safetensors=True).float().eval()
        for folder in folders
    }
    for number, modal in enumerate(pictures.modals):
        if modal == "OCT":
            continue
        rows = pictures.training[pictures.classes[pictures.training] == number]
        chosen = np.sort(chance.choice(rows, TRAINING, replace=False))
        held_out = [i for i in pictures.held_out if pictures.classes[i] == number][:HELD_OUT]
        real, images = encoder(pictures.images[chosen]), pictures.images[held_out]
        others = {"as they are": images}
        others |= {
            name: reconstructed(model, images, grey=modal != "Fundus")
            for name, model in models.items()
        }
        for name, pixels in others.items():
            seen = encoder(pixels)
            kid, near = kernel_distance(real, seen), neighbourhood_scores(real, seen)
            print(f"{modal}, {len(images)}, {name}: KID {kid:.3f}, coverage {near['coverage']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
