"""The configuration of a policy training run: YAML in, a checked record out. Knows no tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from medgen.feedback.records import Source
from medgen.generator.training.config import LoopConfig, Section

# The linear layers of every block. Convolutions as well take four times as long on a processor
# (docs/experiments/rlhf.md).
TARGETS = (
    *("to_q", "to_k", "to_v", r"to_out\.0", r"ff\.net\.0\.proj", r"ff\.net\.2"),
    "time_emb_proj",
)


class RealShare(Section):
    """Real images beside the rated ones, so that the generator does not forget them.

    Args:
        table: Image-text table; rows of `split=train` are used, less the validation fold.
        joined: Tables joined to it by `path`.
        images: (n, H, H, 3) uint8 array (.npy) in the order of the table; the files when null.
        share: Of each batch.
        weight: Of an error on them beside one on a rated image.
        held_out: Images of the validation fold that measure fidelity.
    """

    table: Path
    joined: list[Path] = Field(default_factory=list)
    images: Path | None = None
    share: float = Field(default=0.25, ge=0, lt=1)
    weight: float = Field(default=1.0, ge=0)
    held_out: int = Field(default=96, ge=0)


class PolicyConfig(LoopConfig):
    """One training of an adapter over the compact generator on a feedback log.

    Args:
        log: Feedback log; that of MEDGEN_FEEDBACK when null.
        generator: Folder of the base; the bundled one when null.
        sources: Whose labels count.
        raters: Of these, only whose labels count; all when empty.
        modalities: Modality cards' names to train on; all that the base draws when empty.
        selector: Folder of a trained selector whose scores are the rewards; the labels when null.
        method: "reward_weighted", "dpo" (Wallace et al. 2023, arXiv 2311.12908) or "steered" (see
            `medgen.feedback.policy_steering`).
        rank: Rank of the adapter; its effect is scaled by alpha / rank.
        targets: Ends of the names of the layers that get an adapter, or regular expressions.
        temperature: Of the exponential weights, in deviations of a prompt's rewards.
        limit: Largest exponential weight.
        repulsion: Share of the negative weights that pushes away; 0 leaves rejected images alone.
        margin: How much worse than the base a rejected image may be drawn, a share.
        beta: Of DPO: 500 to 5000 at Stable Diffusion's scale.
        anchor: Of DPO: how much a winner that is drawn worse than before counts against its pair.
        least_difference: Of two rewards, for their images to be a pair.
        same_noise: Only images drawn from one noise are pairs: a steered one and its plain one.
        reach: Of "steered": how far foreseen pictures are moved, in steps of
            `policy_steering.GENTLE`.
        real: Real images beside; null trains without, and the adapter says so.
        condition_dropout: Share of rated images trained without their conditions.
        latent_noise: Deviation of the noise on latents that the decoder was trained to bear.
        held_out_percent: Of the prompts.
        held_out_pairs: Pairs of held-out prompts that are measured at each check.
        patience: Checks without a better held-out figure before training stops.
        fidelity_tolerance: Rise of the held-out denoising loss (a share) at which it stops.
    """

    kind: Literal["policy"] = "policy"
    log: str | None = None
    generator: Path | None = None
    sources: list[Source] = Field(default=["human"], min_length=1)
    raters: list[str] = Field(default_factory=list)
    modalities: list[str] = Field(default_factory=list)
    selector: Path | None = None
    method: Literal["reward_weighted", "dpo", "steered"] = "reward_weighted"
    rank: PositiveInt = 8
    alpha: PositiveInt = 8
    targets: list[str] = Field(default=list(TARGETS), min_length=1)
    temperature: float = Field(default=1.0, gt=0)
    limit: float = Field(default=5.0, ge=1)
    repulsion: float = Field(default=0.0, ge=0, le=1)
    margin: float = Field(default=0.1, ge=0)
    beta: float = Field(default=2000.0, gt=0)
    anchor: float = Field(default=0.0, ge=0)
    least_difference: float = Field(default=0.25, ge=0)
    same_noise: bool = False
    reach: float = Field(default=1.0, gt=0)
    real: RealShare | None = None
    condition_dropout: float = Field(default=0.1, ge=0, lt=1)
    latent_noise: float = Field(default=0.05, ge=0)
    held_out_percent: int = Field(default=15, ge=0, le=50)
    held_out_pairs: int = Field(default=64, ge=0)
    patience: PositiveInt = 3
    fidelity_tolerance: float = Field(default=0.02, gt=0)
    steps: PositiveInt = 200
    batch: PositiveInt = 32
    lr: float = Field(default=5e-4, gt=0)
    warmup: PositiveInt = 10
    decay_from: float = Field(default=0.5, ge=0, le=1)
    save_every: PositiveInt = 25
    log_every: PositiveInt = 5

    @model_validator(mode="after")
    def _fits(self) -> PolicyConfig:
        if self.rated < self.images_together or self.rated % self.images_together:
            raise ValueError(
                f"batch {self.batch} leaves {self.rated} rated images a step: a multiple of "
                f"{self.images_together} is needed"
            )
        return self

    @property
    def real_count(self) -> int:
        """Real images a step: a multiple of what splits evenly."""
        if self.real is None:
            return 0
        step = self.accumulate
        return round(self.batch * self.real.share / step) * step

    @property
    def rated(self) -> int:
        """Rated images a step."""
        return self.batch - self.real_count

    @property
    def images_together(self) -> int:
        """Rated images that are never parted: one, or a pair."""
        return self.accumulate * (2 if self.method == "dpo" else 1)

    def needed_files(self) -> dict[str, Path]:
        """Inputs that must be there, by key."""
        needed = {"generator": self.generator, "selector": self.selector}
        if self.real is not None:
            needed |= {"real.table": self.real.table, "real.images": self.real.images}
            needed |= {f"real.joined[{i}]": path for i, path in enumerate(self.real.joined)}
        return {key: path for key, path in needed.items() if path is not None}
