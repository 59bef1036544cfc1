"""The selector: what it learns, what it refuses, and that it is compared honestly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from samples import image

from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import Label, LoggedCandidate, Pair, Rating
from medgen.feedback.selector import load_reward
from medgen.feedback.selector_asked import Asked, Vocabulary, critique_features
from medgen.feedback.selector_build import train_selector
from medgen.feedback.selector_card import SelectorCard
from medgen.feedback.selector_contest import CHANCE, CLIP, OURS, VERIFIER, contests, verdict, won
from medgen.feedback.selector_data import Vote, agreement_of, folds_of
from medgen.feedback.selector_head import bradley_terry, rating_regression
from medgen.feedback.selector_settings import SelectorSettings, selector_settings
from medgen.records import Candidate, Conditioning, Critique, Finding

MODALITY = "Chest X-ray"
QUICK = {"steps": 40, "members": 2, "resamples": 200, "patience": 20, "folds": 3}


def logged(prompt: str, number: int, folder: Path, score: float, grey: int) -> LoggedCandidate:
    """A candidate whose picture is a grey noise."""
    path = folder / f"{image(f'{prompt}/{number}')[:12]}.png"
    pixels = np.random.default_rng([number, len(prompt)]).integers(0, 40, (64, 64, 3)) + grey
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return LoggedCandidate(
        run=prompt,
        prompt=prompt,
        modality=MODALITY,
        image_sha256=image(f"{prompt}/{number}"),
        chosen=False,
        drawn=Candidate(
            id=f"image0-round1-{number}",
            round=1,
            image=str(path),
            conditioning=Conditioning(prompt=prompt, modality=MODALITY, seed=number),
            critique=Critique(
                modality=MODALITY,
                findings=[Finding(finding="cardiomegaly", verdict="abstain")],
                score=score,
            ),
        ),
    )


def rated(one: LoggedCandidate, value: int, rater: str = "ann", source: str = "human") -> Rating:
    return Rating(
        rater=rater,
        source=source,  # type: ignore[arg-type]
        image_sha256=one.image_sha256,
        image_path=one.image_path,
        prompt=one.prompt,
        modality=one.modality,
        rating=value,
    )


def fill(
    log: FeedbackLog,
    folder: Path,
    value: Callable[[int, int], int],
    prompts: int = 20,
    each: int = 3,
    rater: str = "ann",
    source: str = "human",
) -> list[LoggedCandidate]:
    """Candidates, the brighter the higher their number, rated by `value(prompt, number)`."""
    made: list[LoggedCandidate] = []
    labels: list[Label] = []
    for place in range(prompts):
        for number in range(each):
            # The verifier's score says nothing of what is rated.
            score = (0.2, 0.8, 0.5)[(place + number) % 3]
            one = logged(f"cardiomegaly {place}", number, folder, score, 20 + 60 * number)
            made.append(one)
            labels.append(rated(one, value(place, number), rater, source))
    log.append_records([*made, *labels])
    return made


class Trained(NamedTuple):
    """A selector of a log in which the brighter picture is always the better one."""

    log: FeedbackLog
    folder: Path
    card: SelectorCard
    made: list[LoggedCandidate]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("selector")
    log = FeedbackLog(place / "log.sqlite")
    made = fill(log, place, lambda _, number: (1, 3, 5)[number], source="simulated")
    return Trained(log, place / "selector", train_selector(log, place / "selector", quick()), made)


@pytest.fixture
def file_log(tmp_path: Path) -> FeedbackLog:
    return FeedbackLog(tmp_path / "log.sqlite")


def quick(**changes: object) -> SelectorSettings:
    return selector_settings(changes={**QUICK, **changes})


def test_bradley_terry_raises_the_better_and_lowers_the_worse() -> None:
    rewards = torch.tensor([0.3, -0.2, 0.1], requires_grad=True)
    loss = bradley_terry(rewards[:1], rewards[1:2], torch.ones(1))
    loss.backward()
    assert rewards.grad is not None
    step = -rewards.grad
    assert step[0] > 0 > step[1] and step[2] == 0
    assert step[0] == pytest.approx(float(1 / (1 + np.exp(0.5))))  # 1 - sigmoid(0.3 + 0.2)


def test_bradley_terry_weighs_votes() -> None:
    better, worse = torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0])
    lost, right = (float(bradley_terry(better[i : i + 1], worse[i : i + 1], torch.ones(1)))
                   for i in (0, 1))  # fmt: skip
    both = float(bradley_terry(better, worse, torch.tensor([3.0, 1.0])))
    assert both == pytest.approx((3 * lost + right) / 4)


def test_the_worst_rating_is_never_driven_up() -> None:
    for start in np.linspace(-8, 8, 9):
        reward = torch.tensor([start], dtype=torch.float32, requires_grad=True)
        rating_regression(reward, torch.zeros(1), torch.ones(1)).backward()
        assert reward.grad is not None
        assert float(reward.grad[0]) > 0, "a descent step lowers it, wherever it stands"


def test_the_worst_rating_ends_lowest(trained: Trained) -> None:
    assert trained.card.usable, trained.card.why
    reward = load_reward(trained.folder)
    images = np.stack([np.asarray(Image.open(one.image_path)) for one in trained.made])
    asked = [Asked.of_row(one.model_dump(mode="json")) for one in trained.made]
    scores = reward.score(images, asked).reshape(20, 3)
    assert (scores[:, 0] < scores[:, 1]).mean() > 0.9
    assert (scores[:, 1] < scores[:, 2]).mean() > 0.9
    levels = reward.level(images, asked)
    assert ((levels >= 0) & (levels <= 1)).all()
    assert levels.reshape(20, 3)[:, 0].mean() < 0.3 < 0.7 < levels.reshape(20, 3)[:, 2].mean()


def test_it_is_never_overwritten_and_carries_its_lineage(trained: Trained, tmp_path: Path) -> None:
    before = (trained.folder / "selector.safetensors").read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        train_selector(trained.log, trained.folder, quick())
    assert (trained.folder / "selector.safetensors").read_bytes() == before
    card = json.loads((trained.folder / "selector.json").read_text())
    assert len(card["log_digest"]) == 64
    assert card["trained_on"] == {"simulated": 60}
    assert any("no label is a person's" in line for line in card["notes"])
    assert any(line.startswith("one rater (ann)") for line in card["notes"])
    assert "simulated" in load_reward(trained.folder).name
    again = train_selector(trained.log, tmp_path / "again", quick())
    assert (tmp_path / "again/selector.safetensors").read_bytes() == before, "the same seed"
    assert again.log_digest == card["log_digest"]


def test_the_verifiers_opinion_beats_nobody_on_noise(file_log: FeedbackLog, tmp_path: Path) -> None:
    noise = np.random.default_rng(5)
    fill(file_log, tmp_path, lambda *_: int(noise.integers(1, 6)))
    out = tmp_path / "selector"
    card = train_selector(file_log, out, quick())
    assert not card.usable
    assert "does not beat" in card.why
    assert not load_reward(out).card.usable, "written all the same, and marked"


def test_verifier_labels_never_judge(file_log: FeedbackLog, tmp_path: Path) -> None:
    fill(file_log, tmp_path, lambda _, number: (1, 3, 5)[number], source="verifier", rater="panel")
    card = train_selector(file_log, tmp_path / "selector", quick())
    assert not card.usable and not card.contests
    assert "not the verifier's" in card.why


def test_judges_may_be_others_than_teachers(file_log: FeedbackLog, tmp_path: Path) -> None:
    made = fill(file_log, tmp_path, lambda _, number: (1, 3, 5)[number])
    file_log.append_labels([rated(one, 5 - int(one.drawn.id[-1]), "bob") for one in made])
    settings = quick(train_raters=["ann"], judge_raters=["bob"])
    card = train_selector(file_log, tmp_path / "selector", settings)
    (overall,) = [one for one in card.contests if one.scope == "all"]
    assert overall.accuracy[OURS].value < 0.2, "bob likes what ann does not"
    assert not card.usable


def test_parts_can_be_left_out(file_log: FeedbackLog, tmp_path: Path) -> None:
    fill(file_log, tmp_path, lambda _, number: (1, 3, 5)[number])
    parts = {"image": False, "text": True, "plan": True, "critique": True}
    card = train_selector(file_log, tmp_path / "blind", quick(parts=parts))
    assert not card.usable, "brightness is in the picture alone"
    with pytest.raises(BadInput, match="at least one"):
        quick(parts=dict.fromkeys(parts, False))


@pytest.mark.parametrize(
    ("value", "match"),
    [(lambda *_: 3, "all 60 ratings are equal"), (lambda place, _: 1 + place % 5, "no prompt has")],
)
def test_ratings_that_tell_nothing(
    file_log: FeedbackLog, tmp_path: Path, value: Callable[[int, int], int], match: str
) -> None:
    fill(file_log, tmp_path, value)
    with pytest.raises(BadInput, match=match):
        train_selector(file_log, tmp_path / "selector", quick())
    assert not (tmp_path / "selector").exists()


def test_an_empty_log(file_log: FeedbackLog, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no ratings"):
        train_selector(file_log, tmp_path / "selector", quick())


def test_too_few(file_log: FeedbackLog, tmp_path: Path) -> None:
    fill(file_log, tmp_path, lambda _, number: (1, 3, 5)[number], prompts=4)
    with pytest.raises(BadInput, match="12 preferences in 4 prompts: 30 in 10 are needed"):
        train_selector(file_log, tmp_path / "selector", quick())


def test_raters_who_contradict_each_other(file_log: FeedbackLog, tmp_path: Path) -> None:
    made = fill(file_log, tmp_path, lambda _, number: (1, 3, 5)[number])
    file_log.append_labels([rated(one, (5, 3, 1)[int(one.drawn.id[-1])], "bob") for one in made])
    with pytest.raises(BadInput, match="agree on 0 of 60 repeated"):
        train_selector(file_log, tmp_path / "selector", quick())


def test_missing_images(file_log: FeedbackLog, tmp_path: Path) -> None:
    made = fill(file_log, tmp_path, lambda _, number: (1, 3, 5)[number])
    Path(made[0].image_path).unlink()
    Path(made[1].image_path).write_bytes(b"no picture")
    card = train_selector(file_log, tmp_path / "selector", quick())
    assert card.candidates == 58
    assert any("1 labelled images are gone" in line for line in card.notes)
    assert any("no readable image" in line for line in card.notes)
    for one in made[1:]:
        Path(one.image_path).unlink()
    with pytest.raises(BadInput, match="no rated image is there any more"):
        train_selector(file_log, tmp_path / "none", quick())


def test_a_rating_outside_its_scale_is_named(file_log: FeedbackLog, tmp_path: Path) -> None:
    (one, *_) = fill(file_log, tmp_path, lambda _, number: (1, 3, 5)[number])
    record = rated(one, 3, "eve").model_dump(mode="json") | {"rating": 9}
    values = ("x", "rating", one.image_sha256, one.prompt, one.modality, "eve", "human", 0)
    file_log._database.append(
        [("labels", (*values, "2026-01-01T00:00:00.000000Z", json.dumps(record)))], True
    )
    with pytest.raises(BadInput, match=r"no Rating .*rating 9 is outside 1 to 5"):
        train_selector(file_log, tmp_path / "selector", quick())


def test_imported_ratings_without_runs_are_learned_from(
    file_log: FeedbackLog, tmp_path: Path
) -> None:
    labels = []
    for place in range(20):
        one, other = (
            logged(f"cardiomegaly {place}", n, tmp_path, 0.5, 20 + 120 * n) for n in (0, 1)
        )
        labels += [rated(one, 1), rated(other, 5)]
        labels.append(
            Pair(
                rater="bob", source="human", prompt=one.prompt, modality=MODALITY,
                winner=other.image_sha256, loser=one.image_sha256,
                winner_path=other.image_path, loser_path=one.image_path,
            )
        )  # fmt: skip
    file_log.append_labels(labels)
    card = train_selector(file_log, tmp_path / "selector", quick())
    assert card.contests[0].accuracy[OURS].value > 0.9
    assert card.trained_on == {"human": 40}


def test_another_encoder_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained.folder, tmp_path / "selector"))
    card = json.loads((folder / "selector.json").read_text())
    card["encoders"] |= {"clip": "0" * 16, "reader": "0" * 16}
    (folder / "selector.json").write_text(json.dumps(card))
    with pytest.raises(BadInput, match="another clip, reader encoder"):
        load_reward(folder)


@pytest.mark.parametrize("broken", ["selector.json", "selector.safetensors"])
def test_a_broken_selector_is_one_line(trained: Trained, tmp_path: Path, broken: str) -> None:
    folder = Path(shutil.copytree(trained.folder, tmp_path / "selector"))
    (folder / broken).write_text("{}")
    with pytest.raises(BadInput, match="selector"):
        load_reward(folder)


def test_prompts_are_never_split() -> None:
    prompts = np.array([f"p{n % 17}" for n in range(100)])
    folds = folds_of(prompts, 5, 0)
    assert set(folds) == set(range(5))
    assert all(len(set(folds[prompts == name])) == 1 for name in set(prompts))


def test_ties_and_missing_scores_count_half() -> None:
    votes = [Vote(0, 1, "a", "human", 1.0), Vote(1, 2, "a", "human", 1.0)]
    assert won(np.array([1.0, 1.0, np.nan]), votes).tolist() == [0.5, 0.5]
    assert won(np.array([2.0, 1.0, 3.0]), votes).tolist() == [1.0, 0.0]


def test_an_interval_that_holds_zero_is_no_win() -> None:
    prompts = np.array([f"p{n // 2}" for n in range(24)])
    votes = [Vote(2 * n, 2 * n + 1, "a", "human", 1.0) for n in range(12)]
    perfect = np.tile([1.0, 0.0], 12)
    usual = perfect.copy()
    usual[:2] = 0.0, 1.0  # wrong once
    rankings = {OURS: perfect, CLIP: -perfect, VERIFIER: usual}
    found = contests(rankings, votes, [], prompts, [MODALITY] * 24, 500, 0)
    usable, why = verdict(found)
    assert not usable and why.endswith(f"does not beat {VERIFIER} beyond chance")
    rankings[VERIFIER] = -perfect
    found = contests(rankings, votes, [], prompts, [MODALITY] * 24, 500, 0)
    assert verdict(found)[0]
    assert found[0].accuracy[OURS].value == 1.0
    assert found[0].accuracy[CHANCE].value == 0.5


def test_agreement_counts_couples_of_votes() -> None:
    def vote(better: int, worse: int) -> Vote:
        return Vote(better, worse, "a", "human", 1.0)

    assert agreement_of([vote(0, 1), vote(0, 1), vote(1, 0), vote(2, 3)]) == (1, 3)


def test_expert_level_and_source_weigh() -> None:
    settings = selector_settings()
    one = Rating(rater="a", source="human", prompt="p", modality=MODALITY, rating=3,
                 image_sha256=image(0), image_path="/x.png")  # fmt: skip
    weights = [settings.weight(one.model_copy(update={"expert_level": n})) for n in (3, 2, 1)]
    assert weights == sorted(weights, reverse=True) and weights[0] > weights[-1]
    simulated = one.model_copy(update={"source": "simulated"})
    assert settings.weight(simulated) < settings.weight(one)


def test_a_critique_in_numbers_has_one_width() -> None:
    vocabulary = Vocabulary(modalities=[MODALITY], findings=["cardiomegaly"], measurements=["x"])
    full = Critique(
        modality=MODALITY,
        findings=[
            Finding.model_validate(
                {
                    "finding": "cardiomegaly",
                    "verdict": "contradicted",
                    "confidence": 0.8,
                    "measurements": [
                        {"name": "x", "value": 0.4, "expected": [0.5, None], "check": "c"}
                    ],
                }
            )
        ],
        accepted=False,
        score=0.3,
    ).model_dump(mode="json")
    with_it = critique_features(Asked("p", MODALITY, critique=full), vocabulary)
    without = critique_features(Asked("p", MODALITY), vocabulary)
    assert with_it.shape == without.shape and not without.any()
    assert with_it[-3:].tolist() == pytest.approx([1.0, 0.4, -0.1])
    assert with_it[1] == pytest.approx(0.3)
