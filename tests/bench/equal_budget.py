"""The loop against drawing more at equal cost, judged by scorers that nothing here optimised.

    python tests/bench/equal_budget.py --set development --seeds 2 --out FILE.json

For each prompt and seed, from the same noise: the prompt as typed, drawn once; composed, drawn
once; the best of as many composed draws as cost what the loop cost; the loop (refine what failed,
`--candidates` a round). The best of n draws the loop's noises, each once, and then others: what
the loop draws without a change it draws too. The same selector ranks, and both searches stop at
the first accepted candidate. Cost is counted in evaluations of the U-Net on one picture: steps x
branches; a step that is steered counts two more for its pass back. Agreement: what was asked is
seen (or, for what was denied, not seen) by evaluation's reader from 0.5, or its segmenter's
cardiothoracic ratio is on the asked side of 0.50; a picture read as another modality or that cannot
be measured disagrees. The report tells apart the requests that the verifier may settle from those
on which it abstains. Intervals: 95 %, bootstrap over requests (what is told when composed: wordings
of one finding are one request), 2,000 draws.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import yaml

from medgen.agents import composer, refiner, retriever, selector
from medgen.agents.state import noise_seed
from medgen.data.images import load_image, save_synthetic_png
from medgen.evaluation.chest import cardiothoracic_ratios
from medgen.evaluation.reader import read
from medgen.generator.steering import DRAWING
from medgen.graphs.agent import Agent
from medgen.graphs.collaborators import shared_collaborators
from medgen.records import Candidate, Conditioning, Plan, Request

ARMS = ("typed", "composed", "best of n", "loop")
ROUNDS, CANDIDATES = 3, 2  # as the agent's own
LARGE = {"cardiomegaly": True, "normal heart size": False}


class Draws:
    """Draws, measures, and counts what it cost."""

    def __init__(self, folder: Path) -> None:
        self.minds, self.folder = shared_collaborators(), folder
        self.seconds: dict[str, float] = defaultdict(float)

    def composed(self, plan: Plan) -> Conditioning:
        """What the agent would tell the generator first."""
        minds = self.minds
        facts = retriever.retrieve(plan, minds.store, minds.cases, minds.settings.retrieval)
        return composer.compose(plan, facts)

    def cost(self, told: Conditioning) -> float:
        way = self.minds.generator.batch_key(told)
        strength = 1.0 if way.strength is None else way.strength
        steered = 2 * (1 - DRAWING.last_time) if way.steered else 0
        return way.steps * strength * (len(way.branches) + steered)

    def draw(self, planned: list[tuple[Plan, Candidate]]) -> None:
        """Draw and verify candidates, in place, in one batch."""
        began = time.perf_counter()
        pictures = self.minds.generator.sample([one.conditioning for _, one in planned])
        self.seconds["drawing"] += time.perf_counter() - began
        began = time.perf_counter()
        for (plan, candidate), pixels in zip(planned, pictures, strict=True):
            save_synthetic_png(candidate.image, pixels)
            candidate.critique = self.minds.panel.verify(pixels, plan, generated=True)
        self.seconds["verifying"] += time.perf_counter() - began


class Case:
    """One prompt and seed: its draws by arm and what each arm has spent."""

    def __init__(
        self, seed: int, plan: Plan, typed: Conditioning, composed: Conditioning, at: Path
    ) -> None:
        self.prompt, self.seed, self.at = plan.prompt, seed, at
        self.plan, self.composed = plan, composed
        self.told = dict.fromkeys(ARMS, composed) | {"typed": typed}
        self.arms: dict[str, list[Candidate]] = {arm: [] for arm in ARMS}

    def noises(self) -> Iterator[int]:
        """Seeds of noise: those of the loop, in its order and each once, then others."""
        seeds = (one.conditioning.seed for one in self.arms["loop"])
        others = (noise_seed(self.seed, 0, 1, number) for number in count())
        given: set[int] = set()
        for seed in chain(seeds, others):
            if seed not in given:
                given.add(seed)
                yield seed

    def candidate(self, arm: str, number: int) -> Candidate:
        seed = next(islice(self.noises(), number, None))
        told = self.told[arm].model_copy(update={"seed": seed})
        name = f"{arm.replace(' ', '_')}-{number}"
        one = Candidate(id=name, round=1, image=str(self.at / f"{name}.png"), conditioning=told)
        self.arms[arm].append(one)
        return one

    def settled(self, arm: str) -> bool:
        best = selector.rank(self.arms[arm])[0].critique
        return best is not None and best.accepted is True


def own_seed(prompt: str, seed: int) -> int:
    """Other noise for each prompt: wordings of one finding are told alike, and drew one image."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt}".encode()).digest()[:4], "big")


def loops(cases: list[Case], draws: Draws, rounds: int, each: int) -> list[dict]:
    """Run the loop of all cases side by side; what each action did."""
    first = [(c.plan, c.candidate("loop", n)) for c in cases for n in range(each)]
    draws.draw(first)
    trials: dict[int, list] = defaultdict(list)
    for number in range(2, rounds + 1):
        open_cases = [(i, c) for i, c in enumerate(cases) if not c.settled("loop")]
        planned = []
        for index, case in open_cases:
            new = refiner.refine(
                case.plan, case.composed, case.arms["loop"], trials[index],
                seed=case.seed, round_number=number, count=each, folder=case.at,
            )  # fmt: skip
            case.arms["loop"] += new
            planned += [(case.plan, one) for one in new]
        if planned:
            draws.draw(planned)
        for index, case in open_cases:
            trials[index] += refiner.trials_of_round(case.arms["loop"], number)
    return [one.model_dump(mode="json") for own in trials.values() for one in own]


def best_of_n(cases: list[Case], draws: Draws) -> None:
    """As many composed draws as cost what each case's loop cost."""
    for number in range(64):
        planned = []
        for case in cases:
            spent = sum(draws.cost(one.conditioning) for one in case.arms["best of n"])
            budget = sum(draws.cost(one.conditioning) for one in case.arms["loop"])
            done = case.arms["best of n"] and case.settled("best of n")
            if not done and spent + 0.5 * draws.cost(case.composed) <= budget:
                planned.append((case.plan, case.candidate("best of n", number)))
        if not planned:
            return
        draws.draw(planned)


def agreement(plan: Plan, pixels: np.ndarray) -> float | None:
    """Share of what was asked that evaluation's scorers see; None where they judge nothing."""
    reading, seen = read(pixels[None])[0], []
    for finding in plan.findings:
        if finding.status not in ("present", "absent"):
            continue
        wanted = finding.status == "present"
        if finding.finding in LARGE:
            (ratio,) = cardiothoracic_ratios(pixels[None])
            large = LARGE[finding.finding] == wanted
            seen.append(ratio is not None and (ratio > 0.5) == large)
        elif reading.modality != plan.modality:
            seen.append(False)
        elif finding.finding in reading.findings:
            seen.append((reading.findings[finding.finding] >= 0.5) == wanted)
    return float(np.mean(seen)) if seen else None


def interval(values: np.ndarray, groups: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the mean over whole groups."""
    chance, names = np.random.default_rng(0), np.unique(groups)
    by = {name: values[groups == name] for name in names}
    means = [
        np.concatenate([by[n] for n in chance.choice(names, len(names))]).mean()
        for _ in range(2000)
    ]
    return [round(float(v), 3) for v in np.percentile(means, [2.5, 97.5])]


def told_of(case: Case, draws: Draws) -> dict:
    """A case as a row: what was asked, and each arm's agreement, acceptance and cost."""
    row: dict = {
        "prompt": case.prompt,
        "asked": case.composed.prompt,
        "modality": case.plan.modality,
        "seed": case.seed,
    }
    for arm in ARMS:
        best = selector.rank(case.arms[arm])[0]
        row[arm] = {
            "agreement": agreement(case.plan, np.array(load_image(best.image))),
            "accepted": case.settled(arm),
            "cost": sum(draws.cost(one.conditioning) for one in case.arms[arm]),
        }
    return row


def settled_by_verifier(prompt: str) -> bool:
    """Whether a member of the panel may settle what a prompt asks for."""
    plan, panel = Agent().plan(prompt), shared_collaborators().panel
    asked = [one.finding for one in plan.findings if one.status in ("present", "absent")]
    return any(panel.decides(plan.modality, one, plan.age_group) for one in asked)


def report(rows: list[dict], trials: list[dict], seconds: dict[str, float]) -> dict:
    """Means of each arm with intervals, and the loop against the best of n."""
    judged = [row for row in rows if all(row[arm]["agreement"] is not None for arm in ARMS)]
    groups = np.array([f"{row['modality']}: {row['asked']}" for row in judged])
    told: dict = {
        "cases": len(rows), "judged": len(judged), "requests": len(set(groups)), "arms": {}
    }  # fmt: skip
    by = {arm: np.array([row[arm]["agreement"] for row in judged]) for arm in ARMS}
    for arm in ARMS:
        told["arms"][arm] = {
            "agreement": round(float(by[arm].mean()), 3),
            "interval": interval(by[arm], groups),
            "accepted": round(float(np.mean([row[arm]["accepted"] for row in rows])), 3),
            "cost": round(float(np.mean([row[arm]["cost"] for row in rows])), 1),
        }
    for arm in ("composed", "best of n"):
        gains = by["loop"] - by[arm]
        told[f"loop - {arm}"] = [round(float(gains.mean()), 3), *interval(gains, groups)]
    modalities = np.array([row["modality"] for row in judged])
    told["by modality"] = {
        str(modality): {
            "judged": int((modalities == modality).sum()),
            **{arm: round(float(by[arm][modalities == modality].mean()), 3) for arm in ARMS},
        }
        for modality in np.unique(modalities)
    }
    may = {prompt: settled_by_verifier(prompt) for prompt in {row["prompt"] for row in judged}}
    settles = np.array([may[row["prompt"]] for row in judged])
    for name, own in (("verifier may settle", settles), ("verifier abstains", ~settles)):
        gains = by["loop"][own] - by["best of n"][own]
        told[name] = {
            "judged": int(own.sum()),
            "requests": len(set(groups[own])),
            **{arm: round(float(by[arm][own].mean()), 3) for arm in ARMS},
            "loop - best of n": [round(float(gains.mean()), 3), *interval(gains, groups[own])],
        }
    kinds = sorted({(one["action"].split(" ")[0], one["measure"].split(" ")[0]) for one in trials})
    told["actions"] = {}
    for action, measure in kinds:
        own = [
            one
            for one in trials
            if one["action"].startswith(action) and one["measure"].startswith(measure)
        ]
        told["actions"][f"{action}, {measure}"] = {
            "tried": len(own),
            **{
                name: round(float(np.mean([one[name] for one in own])), 3)
                for name in ("improved", "before", "after")
            },
        }
    gains = by["loop"] - by["best of n"]
    means = np.array([gains[groups == name].mean() for name in sorted(set(groups))])
    told["loop - best of n, each request alike"] = [
        round(float(means.mean()), 3), *interval(means, np.arange(len(means)))
    ]  # fmt: skip
    told["seconds"] = {key: round(value) for key, value in seconds.items()}
    return told


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--prompts", type=Path, default=Path(__file__).with_name("budget_prompts.yaml")
    )
    options.add_argument("--set", default="development")
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--candidates", type=int, default=CANDIDATES, help="a round, of the loop")
    options.add_argument("--without", nargs="*", default=[], help="actions of the refiner left out")
    options.add_argument("--out", type=Path)
    options.add_argument("--join", type=Path, nargs="+", help="report on what runs wrote to --out")
    options.add_argument("--never-stopping", type=Path, nargs="+", help="of such runs, once more")
    given = options.parse_args()
    if given.join:
        return join(given.join)
    if given.never_stopping:
        return never_stopping(given.never_stopping)
    if given.out is None:
        options.error("give --out FILE.json, --join FILES or --never-stopping FILES")
    prompts = yaml.safe_load(given.prompts.read_text(encoding="utf-8"))[given.set]
    for name in given.without:
        refiner.ACTIONS[name] = lambda situation, told: (told, [])
    with tempfile.TemporaryDirectory() as folder:
        draws, agent, cases = Draws(Path(folder)), Agent(), []
        for place, prompt in enumerate(prompts):
            plan = agent.plan(prompt)
            composed = draws.composed(plan)
            typed = composer.control(Request(prompt=prompt), plan)
            for seed in range(given.first_seed, given.first_seed + given.seeds):
                at = Path(folder) / f"{place}-{seed}" / "candidates"
                case = Case(own_seed(prompt, seed), plan, typed, composed, at)
                case.candidate("typed", 0)
                case.candidate("composed", 0)
                cases.append(case)
        draws.draw([(c.plan, c.arms[arm][0]) for c in cases for arm in ("typed", "composed")])
        trials = loops(cases, draws, given.rounds, given.candidates)
        best_of_n(cases, draws)
        rows = [told_of(case, draws) for case in cases]
    kept = {"rows": rows, "trials": trials, "seconds": dict(draws.seconds)}
    given.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report(**kept), indent=1))


def never_stopping(files: list[Path]) -> None:
    """Against a best of n that spends what the loop spent to the end, accepted or not."""
    rows = [one for file in files for one in json.loads(file.read_text("utf-8"))["rows"]]
    gains, groups, seen = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        draws, agent = Draws(Path(folder)), Agent()
        for place, row in enumerate(one for one in rows if one["loop"]["agreement"] is not None):
            plan, at = agent.plan(row["prompt"]), Path(folder) / str(place)
            composed = draws.composed(plan)
            case = Case(row["seed"], plan, composed, composed, at)
            number = max(1, round(row["loop"]["cost"] / draws.cost(composed)))
            draws.draw([(plan, case.candidate("best of n", n)) for n in range(number)])
            best = selector.rank(case.arms["best of n"])[0]
            agreed = agreement(plan, np.array(load_image(best.image)))
            if agreed is not None:
                gains.append(row["loop"]["agreement"] - agreed)
                groups.append(f"{row['modality']}: {row['asked']}")
                seen.append(agreed)
    told = {
        "judged": len(gains),
        "best of n that never stops": round(float(np.mean(seen)), 3),
        "loop - it": [
            round(float(np.mean(gains)), 3), *interval(np.array(gains), np.array(groups))
        ],
    }  # fmt: skip
    print(json.dumps(told, indent=1))


def join(files: list[Path]) -> None:
    """Report on several runs together."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    seconds: dict[str, float] = defaultdict(float)
    for run in runs:
        for key, value in run["seconds"].items():
            seconds[key] += value
    rows, trials = ([one for run in runs for one in run[key]] for key in ("rows", "trials"))
    print(json.dumps(report(rows, trials, seconds), indent=1))


if __name__ == "__main__":
    main()
