"""Sharpening of the compact autoencoder's decoder; its encoder, and so every latent, stays.

With `detail_channels` a second encoder is trained along, whose latents hold what the first ones do
not. Run as `python -m medgen.generator.train_decoder configs/decoder.yaml`; resumable. Crops up to
step `adversarial_from`, then the discriminator and whole images, so that group statistics are those
of drawing. Latents get Gaussian noise of a random deviation, up to
`noise`: drawn latents are not as clean as encoded ones. The adversarial part is scaled so that its
gradient at the last layer is `adversarial` times that of the rest (Esser et al. 2021, arXiv
2012.09841).
"""

from __future__ import annotations

import copy
import csv
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.splits import is_validation
from medgen.generator.autoencoder import CompactAutoencoder, ResidualBlock
from medgen.generator.checkpoints import read_state, write_state
from medgen.generator.sharpness import (
    PatchDiscriminator,
    ReaderFeatures,
    grid_distance,
    hinge_loss,
    texture_distance,
)
from medgen.generator.train_autoencoder import (
    psnr,
    random_crops,
    reconstruction_loss,
    to_model,
)
from medgen.measure.reader import Reader


class Pictures(NamedTuple):
    """Images (n, H, H, 3) uint8 with the rows to train on, the held-out rows and their classes."""

    images: np.ndarray
    training: np.ndarray
    held_out: np.ndarray
    modals: list[str]
    classes: np.ndarray
    weights: np.ndarray


def read_pictures(table: Path, images: Path) -> Pictures:
    """Training rows, modalities oversampled by the square root of their rarity."""
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    modals = sorted({row["modal"] for row in rows})
    classes = np.array([modals.index(row["modal"]) for row in rows])
    train = np.array([i for i, row in enumerate(rows) if row["split"] == "train"])
    held_out = np.array([is_validation(rows[i]["group"]) for i in train])
    training = train[~held_out]
    weights = np.bincount(classes[training])[classes[training]] ** -0.5
    pixels = np.load(images, mmap_mode="r")
    return Pictures(pixels, training, train[held_out], modals, classes, weights / weights.sum())


def widened(folder: Path, decoder_blocks: list[int], detail_channels: int) -> CompactAutoencoder:
    """An autoencoder with grain, more blocks and more latents, which change nothing at first."""
    trained = CompactAutoencoder.from_pretrained(folder, use_safetensors=True).float()
    more = {
        "decoder_blocks": tuple(decoder_blocks),
        "grain": True,
        "detail_channels": detail_channels,
    }
    model = CompactAutoencoder(**{**trained.config, **more})
    model.encoder.load_state_dict(trained.encoder.state_dict())
    if trained.grainer is not None and model.grainer is not None:
        model.grainer.load_state_dict(trained.grainer.state_dict())
    if trained.detail_encoder is not None and model.detail_encoder is not None:
        model.detail_encoder.load_state_dict(trained.detail_encoder.state_dict())
    layers = list(trained.decoder)
    _widen_input(cast(nn.Conv2d, layers[0]), cast(nn.Conv2d, model.decoder[0]).in_channels)
    for layer in model.decoder:
        added = isinstance(layer, ResidualBlock) and not isinstance(layers[0], ResidualBlock)
        if not added:
            layer.load_state_dict(layers.pop(0).state_dict())
    return model


def _widen_input(layer: nn.Conv2d, channels: int) -> None:
    missing = channels - layer.in_channels
    zeros = layer.weight.new_zeros(layer.out_channels, missing, *layer.kernel_size)
    layer.weight = nn.Parameter(torch.cat([layer.weight.data, zeros], 1))
    layer.in_channels = channels


class Losses(NamedTuple):
    """The parts of one step's loss, for the log."""

    reconstruction: float
    texture: float
    features: float
    adversarial: float
    discriminator: float


class Sharpening:
    """The decoder, its discriminator, their optimizers and the running average."""

    _parts = ("model", "average", "critic", "optimizer", "critic_optimizer")

    def __init__(self, config: dict[str, Any], classes: int) -> None:
        torch.manual_seed(config["seed"])
        self.config = config
        self.model = widened(
            Path(config["init_from"]), config["decoder_blocks"], config["detail_channels"]
        )
        self.model.encoder.requires_grad_(False)
        self.trained = [one for one in self.model.parameters() if one.requires_grad]
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.critic = PatchDiscriminator(classes)
        self.features = ReaderFeatures(Reader.load())
        betas = (0.5, 0.95)
        self.optimizer = torch.optim.AdamW(self.trained, 1e-4, betas)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), 1e-4, betas)
        self.balance = 0.0

    def state(self, step: int) -> dict[str, Any]:
        """All that a killed run needs to go on."""
        parts = {name: getattr(self, name).state_dict() for name in self._parts}
        return {**parts, "balance": self.balance, "step": step}

    def load(self, state: dict[str, Any]) -> int:
        """Restore a state; the steps done."""
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])
        self.balance = state["balance"]
        return int(state["step"])

    def step(
        self, target: Tensor, classes: Tensor, rate: float, generator: Any, adversarial: bool = True
    ) -> Losses:
        """One step of the decoder, and one of the discriminator, on images in [-1, 1]."""
        config = self.config
        for optimizer, factor in (
            (self.optimizer, 1.0),
            (self.critic_optimizer, config["critic_rate"]),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        latents = self.model.encode(target)
        deviation = config["noise"] * torch.rand(len(target), 1, 1, 1, generator=generator)
        latents = latents + deviation * torch.randn(latents.shape, generator=generator)
        grain = torch.randn(len(target), 1, *target.shape[2:], generator=generator)
        output = self.model.decode(latents, grain)
        distance = self.features(output, target)
        texture = texture_distance(output, target)
        reconstruction = reconstruction_loss(output, target)
        loss = (
            reconstruction
            + config["texture"] * texture
            + config["grid"] * grid_distance(output, target)
            + config["features"] * distance
        )
        fooling = critic_loss = torch.zeros(())
        if adversarial:
            fooling, matching = self._fooling(output, target, classes)
            loss = loss + config["matching"] * matching
            self._measure_balance(loss, fooling)
            loss = loss + config["adversarial"] * self.balance * fooling
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        if adversarial:
            critic_loss = self._train_critic(target, output.detach(), classes)
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
            for kept, value in pairs:
                kept.lerp_(value, 1 - config["ema"])
        return Losses(
            reconstruction.item(),
            texture.item(),
            distance.item(),
            fooling.item(),
            critic_loss.item(),
        )

    def _fooling(self, output: Tensor, target: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        self.critic.requires_grad_(False)
        judged, ours = self.critic(output, classes)
        with torch.no_grad():
            _, theirs = self.critic(target, classes)
        matching = torch.stack(
            [F.l1_loss(a, b) / b.abs().mean() for a, b in zip(ours, theirs, strict=True)]
        ).mean()
        return -judged.mean(), matching

    def _train_critic(self, target: Tensor, output: Tensor, classes: Tensor) -> Tensor:
        self.critic.requires_grad_(True)
        real, _ = self.critic(target, classes)
        drawn, _ = self.critic(output, classes)
        loss = hinge_loss(real, drawn)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        return loss

    def _measure_balance(self, rest: Tensor, fooling: Tensor) -> None:
        last = cast(nn.Conv2d, self.model.decoder[-2]).weight
        wanted, found = (
            torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (rest, fooling)
        )
        ratio = (wanted / (found + 1e-6)).clamp(max=1e3).item()
        self.balance = ratio if not self.balance else 0.95 * self.balance + 0.05 * ratio


def train(config: dict[str, Any]) -> None:
    """Train to `config["steps"]`, writing checkpoints and the autoencoder to `config["out"]`."""
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    pictures = read_pictures(Path(config["table"]), Path(config["images"]))
    run = Sharpening(config, len(pictures.modals))
    checkpoint, step = out / "last.pt", 0
    if checkpoint.exists():
        step = run.load(read_state(checkpoint))
        print(f"resumed at step {step}", flush=True)
    else:
        report(run.average, pictures)
    started, first = time.time(), step
    while step < config["steps"]:
        draws = np.random.default_rng([config["seed"], step])
        generator = torch.Generator().manual_seed(int(draws.integers(2**62)))
        adversarial = step >= config["adversarial_from"]
        batch = config["batch"] if adversarial else config["crop_batch"]
        rows = draws.choice(pictures.training, batch, p=pictures.weights)
        left = (config["steps"] - step) / config["steps"]
        rate = config["lr"] * min(1.0, (step + 1) / 50, left / 0.4)
        pixels = (
            pictures.images[rows]
            if adversarial
            else random_crops(pictures.images, rows, config["crop"], draws)
        )
        classes = torch.from_numpy(pictures.classes[rows])
        losses = run.step(to_model(pixels), classes, rate, generator, adversarial)
        step += 1
        if step % 25 == 0:
            speed = (step - first) / (time.time() - started)
            shown = " ".join(f"{key} {value:.4f}" for key, value in losses._asdict().items())
            print(f"step {step} {shown} balance {run.balance:.3f} {speed:.2f} steps/s", flush=True)
        if step % config["save_every"] == 0 or step == config["steps"]:
            write_state(checkpoint, run.state(step))
            run.average.save_pretrained(out / "autoencoder")
            report(run.average, pictures)


@torch.inference_mode()
def report(model: CompactAutoencoder, pictures: Pictures) -> None:
    """Print, by modality, PSNR and sharpness of the held-out reconstructions.

    Sharpness is the mean absolute difference of neighbouring pixels against the real image's.
    """
    for number, modal in enumerate(pictures.modals):
        rows = [i for i in pictures.held_out if pictures.classes[i] == number][:24]
        if not rows:
            continue
        target = to_model(pictures.images[rows])
        noise = torch.randn(
            len(target), 1, *target.shape[2:], generator=torch.Generator().manual_seed(0)
        )
        output = model.decode(model.encode(target), noise).clamp(-1, 1)
        sharp = (output.diff(dim=3).abs().mean() / target.diff(dim=3).abs().mean()).item()
        value = psnr(output, target).mean()
        print(f"  {modal}: PSNR {value:.2f} dB, sharpness {sharp:.3f} over {len(rows)}", flush=True)


if __name__ == "__main__":
    train(yaml.safe_load(Path(sys.argv[1]).read_text()))
