"""A feedback log made by the product itself: drawn, verified, and rated by simulated raters.

    python tests/bench/feedback_set.py --out ../lab/feedback_set [--rater FOLDER] [--steps 10]
    python tests/bench/feedback_set.py --out ../lab/steered_set --steered

Every prompt (three modalities, own wordings) gets the control and three composed candidates, the
first round of an agent run. With --steered (four modalities, findings that a classifier reads) it
gets four composed candidates and the same four, noise and all, steered towards what was asked. No
person rates: the raters are evaluation's reader and segmenter, with --steered the verifier's
classifier with its audit set aside, and with --rater one more reader (a folder of
medgen.measure.train_reader with its card), all with source "simulated"; the verifier's own score is
logged with source "verifier". Nothing is picked. A stopped run goes on: runs that the log has are
not drawn again, and only rated by raters that have not rated them.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from medgen.agents import composer, selector
from medgen.agents.state import candidate_id, noise_seed
from medgen.agents.verifier import Panel
from medgen.agents.verifier.cards import reader_card
from medgen.data.images import load_square, pixel_sha256, save_synthetic_png
from medgen.evaluation import chest, reader
from medgen.evaluation.asked import CHEST_FILM, asked, asked_side, stated
from medgen.evaluation.tables import Row
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import LoggedCandidate, LoggedRun, Rating
from medgen.generator.backends import load_generator
from medgen.generator.steering import steering_reader
from medgen.graphs.generate import conditioning_of
from medgen.measure.reader import POPULATION, Reader, bundled_reader, finding_probability
from medgen.measure.reader import WEIGHTS as BUNDLED_READER
from medgen.records import Candidate, Plan, Request
from medgen.settings import settings

EVALUATION = "simulated: evaluation's reader and segmenter"
THIRD = "simulated: a reader of its own"
CLASSIFIER = "simulated: the verifier's classifier, audit set aside"
VERIFIER = "verifier: panel score"
CUTS = (0.12, 0.38, 0.62, 0.88)  # log-odds of about -2, -0.5, 0.5, 2: ratings 1 to 5
SOFTNESS = {"ratio": 0.02, "side": 0.05}  # of a measured difference, for a probability
PER_PROMPT = 4

WORDINGS = {
    "Chest X-ray": ("{}, chest X-ray", "chest X-ray: {}", "chest radiograph with {}",
                    "frontal chest film, {}"),
    "Brain MRI": ("{}, brain MRI", "brain MRI: {}", "axial MRI of the brain with {}",
                  "MRI of the head, {}", "magnetic resonance image of the brain: {}"),
    "Fundus": ("{}, fundus photograph", "fundus: {}", "retinal photograph with {}",
               "color fundus image, {}", "fundus photo of an eye with {}"),
    "Chest CT": ("{}, chest CT", "chest CT: {}", "axial CT of the chest with {}",
                 "CT slice of the thorax, {}", "computed tomography of the chest: {}"),
}  # fmt: skip
FINDINGS = {
    "Chest X-ray": (
        "cardiomegaly", "severe cardiomegaly", "mild cardiomegaly", "normal heart size",
        "normal chest in an adult", "COVID-19 pneumonia in an adult",
        "right lung pneumonia in an adult", "left lung pneumonia in an adult",
        "bilateral pneumonia in an adult", "bacterial pneumonia in a child",
        "viral pneumonia in a child", "pneumonia in a child", "normal chest in a child",
        "cardiomegaly in a woman", "cardiomegaly in a man", "no pneumonia in a child",
    ),
    "Brain MRI": (
        "glioma", "meningioma", "pituitary tumor", "no tumor", "brain tumor", "left glioma",
        "right glioma", "left meningioma", "right meningioma", "a large glioma",
        "meningioma in a woman", "pituitary tumor in a man",
    ),
    "Fundus": (
        "cataract", "no cataract", "glaucoma", "normal fundus", "severe cataract",
        "cataract in the left eye", "cataract in the right eye", "glaucoma in the left eye",
        "normal left eye", "cataract in a man",
    ),
}  # fmt: skip
STEERED = {
    "Chest X-ray": ("viral pneumonia in a child", "bacterial pneumonia in a child",
                    "normal chest in a child"),
    "Brain MRI": ("glioma", "meningioma", "pituitary tumor", "no tumor"),
    "Fundus": ("cataract", "no cataract", "glaucoma", "normal fundus"),
    "Chest CT": ("lung adenocarcinoma", "squamous cell lung carcinoma"),
}  # fmt: skip


def prompts(findings: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """(modality, prompt), modalities in turn, so that a stopped run is a smaller set of the mix."""
    own = [
        [(modality, wording.format(finding)) for wording in WORDINGS[modality] for finding in names]
        for modality, names in findings.items()
    ]
    for row in itertools.zip_longest(*own):
        yield from (one for one in row if one is not None)


def rating_of(probability: float) -> int:
    return 1 + sum(probability > cut for cut in CUTS)


def logistic(difference: float, scale: float) -> float:
    return 1 / (1 + math.exp(-max(min(difference / scale, 30), -30)))


class OtherReader:
    """A reader that judges as evaluation's does, by its own card."""

    def __init__(self, network: Reader, card: Path) -> None:
        self.reader = network
        self.card = yaml.safe_load(card.read_text(encoding="utf-8"))["findings"]

    def read(self, images: np.ndarray) -> list[reader.Reading]:
        readings = []
        for one in self.reader.read(images):
            population = "child" if one.heads[POPULATION]["child"] > 0.5 else "adult"
            findings = {
                finding: finding_probability(
                    one.heads[entry["head"]], entry["shows"], entry["intercept"], entry["slope"]
                )
                for finding, entries in self.card.get(one.modality, {}).items()
                for entry in entries
                if entry["measurable"] and entry["population"] in (None, population)
            }
            share = one.modality_probabilities[one.modality]
            readings.append(reader.Reading(one.modality, share, findings))
        return readings


def judge(plan: Plan, reading: reader.Reading, film: chest.Film | None) -> float | None:
    """Mean probability (0-1) that an image is as asked, over what can be judged; None for nothing.

    0 for an image that is not read as its modality.
    """
    row = Row("", plan.prompt, plan.modality, findings=tuple(plan.findings))
    if reading.modality != plan.modality:
        return 0.0
    shown = []
    for finding, probability in reading.findings.items():
        want = asked(row, finding)
        if want is not None:
            shown.append(probability if want == "present" else 1 - probability)
    if film is not None and film.ratio is not None:
        enlarged = logistic(film.ratio - 0.5, SOFTNESS["ratio"])
        if "cardiomegaly" in stated(row, "present"):
            shown.append(enlarged)
        elif "normal heart size" in stated(row, "present"):
            shown.append(1 - enlarged)
    side = asked_side(row)
    if film is not None and film.opacities is not None and side is not None:
        right, left = film.opacities
        difference = right - left if side == "right" else left - right
        shown.append(logistic(difference, SOFTNESS["side"]))
    return float(np.mean(shown)) if shown else None


def rating(one: LoggedCandidate, rater: str, probability: float) -> Rating:
    return Rating(
        rater=rater,
        source="verifier" if rater == VERIFIER else "simulated",
        image_sha256=one.image_sha256,
        image_path=one.image_path,
        run=one.run,
        candidate=one.drawn.id,
        prompt=one.prompt,
        modality=one.modality,
        rating=rating_of(probability),
        scale=5,
        blinded=True,
        comment=f"probability {probability:.4f}",
    )


def first_round(number: int, request: Request, folder: Path, steps: int) -> tuple[Plan, list]:
    """Plan and undrawn candidates, as the agent's compose node makes them."""
    plan, composed = conditioning_of(request, raw=False)
    control = composer.control(request, plan)
    candidates = []
    for k in range(PER_PROMPT):
        told = composed if k else control
        shared = k if k > 1 or composed == control else 0
        seed = noise_seed(request.seed, 0, 1, shared)
        name = candidate_id(0, 1, k)
        candidates.append(
            Candidate(
                id=name,
                round=1,
                image=str(folder / f"set-{number:04d}" / f"{name}.png"),
                conditioning=told.model_copy(update={"seed": seed, "steps": steps}),
                control=k == 0,
            )
        )
    return plan, candidates


def aims_of(plan: Plan) -> dict[str, list[str]]:
    """Heads of the steering reader and the classes that show what was asked."""
    heads = {head.name: head.classes for head in steering_reader().heads}
    aims = {}
    for finding in plan.findings:
        for entry in reader_card().findings.get(plan.modality, {}).get(finding.finding, []):
            if entry.population in (None, plan.age_group or "adult"):
                wanted = list(entry.shows)
                if finding.status == "absent":
                    wanted = [name for name in heads[entry.head] if name not in wanted]
                aims[entry.head] = wanted
    return aims


def steered_pairs(
    number: int, request: Request, folder: Path, steps: int
) -> tuple[Plan, list[Candidate]]:
    """Plan and undrawn candidates: composed, and each again on its noise, steered."""
    plan, composed = conditioning_of(request, raw=False)
    aims = aims_of(plan)
    if not aims:
        raise SystemExit(f"no classifier reads what {request.prompt!r} asks for")
    candidates = []
    for k in range(PER_PROMPT):
        told = composed.model_copy(
            update={"seed": noise_seed(request.seed, 0, 1, k), "steps": steps}
        )
        first, second = candidate_id(0, 1, k), candidate_id(0, 2, k)
        at = folder / f"set-{number:04d}"
        candidates.append(
            Candidate(id=first, round=1, image=str(at / f"{first}.png"), conditioning=told)
        )
        candidates.append(
            Candidate(
                id=second, round=2, parent=first, image=str(at / f"{second}.png"),
                conditioning=told.model_copy(update={"aims": aims}),
                actions=["steer", "same noise"],
            )
        )  # fmt: skip
    return plan, candidates


def label(
    candidates: list[LoggedCandidate], plan: Plan, raters: dict[str, object], images: np.ndarray
) -> list[Rating]:
    films = chest.read_films(images) if plan.modality == CHEST_FILM else [None] * len(images)
    given = []
    for name, one in raters.items():
        for candidate, reading, film in zip(candidates, one.read(images), films, strict=True):
            probability = judge(plan, reading, film if name == EVALUATION else None)
            if probability is not None:
                given.append(rating(candidate, name, probability))
    return given


def label_later(log: FeedbackLog, name: str, one: object) -> None:
    """Ratings of a rater who came later, of every run of the log that they have not rated."""
    done = {rated.run for rated in log.ratings(rater=name)}
    for run in log.runs():
        if run.run in done:
            continue
        candidates = log.candidates(run=run.run)
        images = np.stack([load_square(c.image_path, 256) for c in candidates])
        log.append_labels(label(candidates, run.plan, {name: one}, images))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--rater", type=Path)
    arguments.add_argument("--steps", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=700)
    arguments.add_argument("--most", type=int, help="at most so many prompts")
    arguments.add_argument("--steered", action="store_true", help="each again, steered")
    given = arguments.parse_args()
    out = given.out.resolve()
    log = FeedbackLog(out / "feedback.sqlite")
    known = {run.run for run in log.runs()}
    generator, panel = load_generator(settings()), Panel.load()
    raters: dict[str, object] = {EVALUATION: reader}
    if given.rater is not None:
        raters[THIRD] = OtherReader(Reader.load(given.rater), given.rater / "card.yaml")
    if given.steered:
        raters[CLASSIFIER] = OtherReader(bundled_reader(), BUNDLED_READER / "card.yaml")
    for name, one in raters.items():
        label_later(log, name, one)
    findings, planned = (STEERED, steered_pairs) if given.steered else (FINDINGS, first_round)
    listed = list(itertools.islice(prompts(findings), given.most))
    for number, (modality, prompt) in enumerate(listed):
        run = f"set-{number:04d}"
        if run in known:
            continue
        request = Request(prompt=prompt, modality=modality, seed=given.seed + number, candidates=4)
        plan, candidates = planned(number, request, out / "images", given.steps)
        pictures = generator.sample([one.conditioning for one in candidates])
        for one, pixels in zip(candidates, pictures, strict=True):
            save_synthetic_png(one.image, pixels, {"Prompt": prompt})
            one.critique = panel.verify(load_square(one.image, 256), plan, generated=True)
        choice = selector.choose(candidates, 1, request.model_copy(update={"rounds": 1}), 0.0)
        logged = [
            LoggedCandidate(
                run=run,
                prompt=prompt,
                modality=plan.modality,
                image_sha256=pixel_sha256(one.image),
                chosen=one.id == choice.best,
                decision=choice.decision if one.id == choice.best else None,
                why=choice.why if one.id == choice.best else "",
                drawn=one,
            )
            for one in candidates
        ]
        log.append_records([
            LoggedRun(run=run, request=request, plan=plan, generator=generator.name,
                      fingerprint=generator.fingerprint),
            *logged,
            *label(logged, plan, raters, np.stack([load_square(c.image, 256) for c in candidates])),
            *(rating(c, VERIFIER, c.drawn.critique.score) for c in logged),
        ])  # fmt: skip
        print(f"{number + 1} of {len(listed)} {prompt}", flush=True)


if __name__ == "__main__":
    main()
