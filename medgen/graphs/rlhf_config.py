"""The configuration of a round of learning from feedback: YAML in, a checked record out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from medgen.errors import BadInput
from medgen.feedback.policy_config import PolicyConfig
from medgen.generator.training.config import Section, checked, read_config


class PromptConfig(Section):
    """One request of the before/after set; `images` over the stage's number."""

    prompt: str = Field(min_length=1)
    modality: str | None = None
    images: PositiveInt | None = None


class SelectorStage(Section):
    """The selector of the round.

    `use`: "auto" takes its scores as rewards where it beats its baselines on held-out labels, and
    the labels themselves otherwise; "never" trains none. `folder` is one that is trained already;
    `settings` changes entries of selector.yaml.
    """

    use: Literal["auto", "never"] = "auto"
    folder: Path | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class SynthesisStage(Section):
    """What is drawn before and after: the same prompts, seeds and steps.

    `prompts` is a list or a CSV with the columns prompt and, where wanted, modality and images.
    """

    prompts: list[PromptConfig] | Path
    images: int = Field(default=4, ge=1)
    steps: PositiveInt = 20
    seed: int = 1
    micro_batch: int = Field(default=8, ge=1, le=64)

    def listed(self) -> list[PromptConfig]:
        """The prompts.

        Raises:
            BadInput: A table that cannot be read, or is empty.
        """
        if not isinstance(self.prompts, Path):
            return self.prompts
        try:
            with self.prompts.open(newline="", encoding="utf-8") as stream:
                found = [
                    PromptConfig.model_validate({k: v for k, v in row.items() if v})
                    for row in csv.DictReader(stream)
                ]
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(
                f"synthesis.prompts: {self.prompts} cannot be read ({reason}): give a CSV with the "
                "columns prompt, modality and images"
            ) from error
        if not found:
            raise BadInput(f"synthesis.prompts: {self.prompts} has no row")
        return found


class EvaluationStage(Section):
    """What the drawings are judged against.

    `real` is a table of real images for fidelity, of which the rows of `fold` count: "test", or
    "validation" (carved by group out of train) while choices are still made. Null measures no
    fidelity to real images, and the report says so.
    """

    real: Path | None = None
    fold: Literal["test", "validation"] = "test"
    images: Path | None = None
    samples: PositiveInt = 1000


class WatchStage(Section):
    """In-loop reward against held-out scorers over training steps: `images` drawings a prompt."""

    images: int = Field(default=1, ge=0)


class RoundConfig(Section):
    """One round: snapshot, selector, policy, synthesis, evaluation, report.

    Args:
        out: Folder of the round; a killed round goes on in it.
        log: The feedback log; that of MEDGEN_FEEDBACK when null.
        generator: Folder of the base; the bundled one when null.
        seeds: One adapter is trained for each.
        policy: Entries of `PolicyConfig`, less its `log`, `generator`, `out` and `seed`.
    """

    kind: Literal["round"] = "round"
    out: Path
    log: str | None = None
    generator: Path | None = None
    seeds: list[int] = Field(default=[0], min_length=1)
    selector: SelectorStage = SelectorStage()
    policy: dict[str, Any] = Field(default_factory=dict)
    synthesis: SynthesisStage
    evaluation: EvaluationStage = EvaluationStage()
    watch: WatchStage = WatchStage()

    @model_validator(mode="after")
    def _own_entries(self) -> RoundConfig:
        taken = {"log", "generator", "out", "seed", "selector"} & set(self.policy)
        if taken:
            raise ValueError(f"policy: {', '.join(sorted(taken))} is the round's own to set")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each seed once")
        return self

    def policy_of(self, seed: int, log: str, selector: Path | None) -> PolicyConfig:
        """The policy training of one seed."""
        given = {
            "log": log,
            "generator": self.generator,
            "selector": selector,
            "seed": seed,
            "cache": self.out / "cache",
            **self.policy,
            "out": self.out / "policy" / f"seed-{seed}",
        }
        return checked(PolicyConfig, given, "policy")

    def check_files(self) -> None:
        """Refuse a round whose inputs are missing, before anything is computed.

        Raises:
            BadInput: The first that is not there or does not fit, by its key.
        """
        needed = {
            "generator": self.generator,
            "evaluation.real": self.evaluation.real,
            "evaluation.images": self.evaluation.images,
            "selector.folder": self.selector.folder,
        }
        for key, path in needed.items():
            if path is not None and not path.exists():
                raise BadInput(f"{key}: {path} does not exist (paths are relative to {Path.cwd()})")
        self.synthesis.listed()
        self.policy_of(self.seeds[0], "", None).check_files()


def load_round(path: str | Path, changes: dict[str, Any] | None = None) -> RoundConfig:
    """Read and check a round's configuration.

    Raises:
        BadInput: No such file, an unknown key or a wrong value, with the key's name.
    """
    return checked(RoundConfig, read_config(path, changes), path)
