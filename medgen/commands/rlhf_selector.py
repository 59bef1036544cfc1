"""Commands that learn what a generator is left alone for: the selector and the prompt policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.feedback import Log
from medgen.commands.shared import Json, examples, print_json, working
from medgen.console.progress import Bars, spinner
from medgen.console.rlhf_selector import show_prompt_policy, show_selector

commands = typer.Typer()

NewFolder = Annotated[
    Path, typer.Option("--out", help="A new folder; what is there is never overwritten.")
]


@commands.command(
    epilog=examples(
        "medgen rlhf selector --out selectors/first",
        "medgen rlhf selector --log feedback.sqlite --out selectors/ann --train-rater ann",
        "medgen rlhf selector --out selectors/full --config selector.yaml --ablate",
        "MEDGEN_SELECTOR=selectors/first medgen agent 'cardiomegaly, chest X-ray'",
    )
)
def selector(
    out: NewFolder,
    log: Log = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML over the bundled selector.yaml.")
    ] = None,
    train_rater: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Learn from this rater alone; may be repeated."),
    ] = None,
    judge_rater: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare on this rater's labels; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of folds, heads and intervals.")] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also try parts alone and left out (6 times as long).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a reward model on the log's labels, and compare it on labels it has not seen.

    It is compared with always-CLIP, the verifier's score and chance, by prompt, on labels that are
    not the verifier's. One that does not beat them is written but marked, and the agent does not
    use it. Labels of simulated raters are never taken for people's: every figure names its source.
    """
    with working(as_json):
        from medgen.feedback.log import FeedbackLog
        from medgen.feedback.selector_build import train_selector
        from medgen.feedback.selector_settings import selector_settings

        given = {"train_raters": train_rater, "judge_raters": judge_rater, "seed": seed}
        changes = {name: value for name, value in given.items() if value not in (None, [])}
        settings = selector_settings(config, changes)
        with Bars(visible=not as_json) as bars:
            card = train_selector(FeedbackLog.existing(log), out, settings, ablate, bars)
    if as_json:
        print_json(card)
    else:
        show_selector(card, out)


@commands.command(
    "prompt-policy",
    epilog=examples(
        "MEDGEN_PROMPT_POLICY=explore medgen agent 'glioma, brain MRI'",
        "medgen rlhf prompt-policy --out policy.json",
        "MEDGEN_PROMPT_POLICY=policy.json medgen agent 'glioma, brain MRI'",
    ),
)
def prompt_policy(
    out: Annotated[
        Path, typer.Option("--out", help="A new file (JSON); what is there is never overwritten.")
    ],
    log: Log = None,
    exploration: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of draws in which any recipe is tried.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of folds and intervals.")] = 0,
    as_json: Json = False,
) -> None:
    """Learn which of the refiner's recipes to try for which fault, from runs that explored.

    Says what the policy is worth before it is used: estimates from the log's recorded chances,
    with intervals by prompt. Runs explore with MEDGEN_PROMPT_POLICY=explore, or with a policy.
    """
    with working(as_json), spinner("learning", visible=not as_json):
        from medgen.feedback.log import FeedbackLog
        from medgen.feedback.prompt_policy_training import train_prompt_policy

        card = train_prompt_policy(FeedbackLog.existing(log), out, exploration, seed)
    if as_json:
        print_json(card)
    else:
        show_prompt_policy(card, out)
