"""Policy training end to end on a tiny generator; logs that nothing can be learned from."""

import csv
import json
import math
import shutil

import pytest
import torch
from policies import policy, rating_of, squares_log, tiny_generator
from run_samples import Told

from medgen.errors import BadInput, MedgenError
from medgen.feedback.log import FeedbackLog
from medgen.feedback.policy import train_policy
from medgen.feedback.policy_run import read_checks
from medgen.feedback.policy_steering import GENTLE, SteeredTargets, Wish, aims_that_paid
from medgen.feedback.preferences import held_out_prompts, read_preferences
from medgen.feedback.records import Pair
from medgen.generator.adapter import base_hash, read_lineage
from medgen.generator.checkpoints import read_state
from medgen.generator.compact import CompactGenerator
from medgen.generator.sampling import Levels
from medgen.generator.steering import steering_reader
from medgen.generator.training.batches import Batch
from medgen.generator.training.config import ObjectiveConfig
from medgen.generator.training.objective import Objective


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    opened = squares_log(tmp_path_factory.mktemp("log"))
    yield opened
    opened.close()


def read(log, **changes):
    given = {"sources": ["human"], "modalities": ["Brain MRI", "Fundus"], "least_difference": 0.25}
    return read_preferences(log, **{**given, **changes})


@pytest.mark.parametrize("method", ["reward_weighted", "dpo"])
def test_held_out_prompts_are_told_apart_and_the_base_is_untouched(
    generator, log, tmp_path, method
):
    before = base_hash(generator)
    changes = {"repulsion": 0.5} if method == "reward_weighted" else {}
    config = policy(tmp_path, generator, log, method=method, steps=16, save_every=16, **changes)
    told = Told()
    adapter = train_policy(config, told)
    checks = read_checks(config.out)
    assert checks[0].preference_loss == pytest.approx(math.log(2), abs=1e-6)
    assert checks[0].preference_accuracy == 0.5
    assert checks[-1].preference_accuracy > 0.7
    assert base_hash(generator) == before
    lineage = read_lineage(adapter)
    assert (lineage.base, lineage.method, lineage.labels) == (before, method, {"human": 32})
    assert lineage.config["lr"] == 0.01
    assert len(lineage.log) == 64
    assert lineage.stopped == "all 16 steps done"
    assert "preference_loss" in lineage.metrics
    assert any("no real images" in note for note in lineage.notes)
    if method == "dpo":
        assert told.steps[0].loss == pytest.approx(math.log(2), abs=1e-6)
        assert told.steps[-1].loss < 0.8 * math.log(2)


AIMS = {
    "Brain MRI": {"brain_tumor": ["meningioma"]},
    "Fundus": {"fundus_disease": ["cataract"]},
}


def test_what_steering_made_is_foreseen_without_it(generator, tmp_path):
    log = squares_log(tmp_path, aims=AIMS)
    before = base_hash(generator)
    config = policy(
        tmp_path, generator, log, method="steered", steps=24, batch=16, lr=1e-3, rank=8, alpha=8,
        save_every=8, condition_dropout=0.2,
    )  # fmt: skip
    lineage = read_lineage(train_policy(config, Told()))
    checks = read_checks(config.out)
    assert checks[0].steering_left == pytest.approx(1, abs=1e-5)
    left = [one.steering_left for one in checks]
    assert len(left) == 4
    assert max(left[1:]) < 0.985
    assert lineage.metrics["steering_left"] == pytest.approx(min(left), abs=1e-9)
    assert base_hash(generator) == before


def test_a_step_towards_what_was_asked(generator):
    """The target is a foreseen picture that the reader likes better, only where it was asked."""
    base = CompactGenerator(generator, steps=2, guidance_scale=1.0, micro_batch=1)
    objective = Objective(ObjectiveConfig())
    targets = SteeredTargets(base, objective, reach=1.0)
    draw = torch.Generator().manual_seed(0)
    noisy, predicted = torch.randn(2, 3, 16, 4, 4, generator=draw)
    times = torch.tensor([300, 500, 700])
    nothing = torch.zeros(3)
    batch = Batch(noisy, times, nothing, nothing, nothing, nothing, predicted, torch.ones(3))
    wishes = [Wish(AIMS["Brain MRI"], 1), Wish({}, 2), Wish(AIMS["Fundus"], 3)]
    target = targets.of(batch, predicted, wishes).target
    assert torch.equal(target[1], predicted[1])
    alpha = objective.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
    levels = Levels(alpha, "v_prediction")
    foreseen, moved = levels.clean(predicted, noisy), levels.clean(target, noisy)
    distance = (moved - foreseen).flatten(1).norm(dim=1)
    lengths = [GENTLE.step * 16] * 2  # 256 numbers
    assert distance[[0, 2]].tolist() == pytest.approx(lengths, rel=1e-3)

    def shown(latents, index, head, name):
        pixels = (base.autoencoder.decode(latents * base.std + base.mean, None) + 1) * 127.5
        picture = pixels[index].clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return steering_reader().read(picture[None])[0].heads[head][name]

    with torch.no_grad():
        for index, head, name in (
            (0, "brain_tumor", "meningioma"),
            (2, "fundus_disease", "cataract"),
        ):
            assert shown(moved, index, head, name) > shown(foreseen, index, head, name)


def test_what_did_not_pay_is_not_learned(tmp_path):
    """Steered images that raters liked less: the request is left as it is drawn."""
    (tmp_path / "worse").mkdir()
    liked = read(squares_log(tmp_path, aims=AIMS)).examples
    assert sorted(aims_that_paid(liked).values(), key=repr) == sorted(AIMS.values(), key=repr)
    worse = read(squares_log(tmp_path / "worse", aims=AIMS, bright_is_better=False)).examples
    assert aims_that_paid(worse) == {}


def test_steering_is_not_learned_from_a_log_without_it(generator, log, tmp_path):
    with pytest.raises(BadInput, match="no request of the log has a steered image"):
        train_policy(policy(tmp_path, generator, log, method="steered"), Told())


def test_pairs_of_one_noise(log):
    """Of two noises each with a better and a worse image, only those of one noise are compared."""
    everything, matched = read(log), read(log, same_noise=True)
    noise = [one.conditioning.seed for one in matched.examples]
    assert matched.pairs
    assert set(matched.pairs) < set(everything.pairs)
    assert all(noise[better] == noise[worse] for better, worse in matched.pairs)


def test_a_reversed_log_teaches_the_reverse(generator, tmp_path):
    """The sign of the advantage counts: MINIM's took its size alone."""
    opened = squares_log(tmp_path, bright_is_better=False)
    config = policy(
        tmp_path, generator, opened, repulsion=0.5, held_out_percent=50, steps=12, save_every=12
    )
    train_policy(config, Told())
    assert read_checks(config.out)[-1].preference_accuracy > 0.7


def test_a_killed_training_goes_on_as_if_unbroken(generator, log, tmp_path):
    whole = policy(tmp_path / "whole", generator, log, repulsion=0.5)
    train_policy(whole, Told())
    broken = policy(tmp_path / "broken", generator, log, repulsion=0.5)

    def kill(progress):
        if progress.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_policy(broken, Told(kill))
    told = Told()
    train_policy(broken, told)
    assert any("goes on from" in line for line in told.lines)
    assert told.steps[0].step == 5
    ends = [read_state(one.out / "checkpoint-0000012.pt")["model"] for one in (whole, broken)]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert read_checks(whole.out) == read_checks(broken.out)
    again = Told()
    train_policy(broken, again)
    assert not again.steps
    assert "finished already" in again.lines[0]


def test_a_checkpoint_of_other_rewards_is_not_gone_on_from(generator, log, tmp_path):
    begun = policy(tmp_path, generator, log, steps=4, save_every=4)
    train_policy(begun, Told())
    other = policy(tmp_path, generator, log, steps=8, save_every=4, temperature=0.5)
    with pytest.raises(BadInput, match=r"temperature = 1\.0, the configuration asks 0\.5"):
        train_policy(other, Told())
    longer = policy(tmp_path, generator, log, steps=8, save_every=4, lr=0.02)
    told = Told()
    train_policy(longer, told)
    assert told.steps[0].step == 5


def test_what_fails_in_a_step_stops_the_training(generator, log, tmp_path):
    """MINIM's training swallowed errors, an epoch at a time."""
    config = policy(tmp_path, generator, log, lr=1e30, clip=1e30, steps=12)
    with pytest.raises(MedgenError, match="the loss is"):
        train_policy(config, Told())


def test_it_stops_when_fidelity_is_lost_and_keeps_what_was_before(generator, log, tmp_path):
    config = policy(
        tmp_path, generator, log, fidelity_tolerance=0.001, lr=0.05, repulsion=1.0, margin=9.0,
        steps=80, save_every=2,
    )  # fmt: skip
    adapter = train_policy(config, Told())
    checks, lineage = read_checks(config.out), read_lineage(adapter)
    limit = checks[0].fidelity_loss * 1.001
    assert checks[-1].fidelity_loss > limit
    assert checks[-1].step < 80
    assert lineage.stopped == "stopped: the fidelity loss rose by more than 0%"


def test_it_stops_when_held_out_prompts_gain_no_more(generator, log, tmp_path):
    config = policy(tmp_path, generator, log, patience=1, lr=1e-12, steps=40, save_every=2)
    lineage = read_lineage(train_policy(config, Told()))
    assert "no better held-out figure" in lineage.stopped


def test_a_training_of_another_log_is_not_gone_on_with(generator, log, tmp_path):
    config = policy(tmp_path, generator, log, steps=4)
    train_policy(config, Told())
    other_log = squares_log(tmp_path, prompts=6)
    with pytest.raises(BadInput, match="choose another `out`"):
        train_policy(policy(tmp_path, generator, other_log, steps=8), Told())


def test_real_images_beside(generator, log, tmp_path):
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "text", "modal", "label", "split", "group", "source"])
        for number in range(16):
            source = log.candidates()[number].image_path
            shutil.copy(source, tmp_path / f"real{number}.png")
            writer.writerow(
                [f"real{number}.png", "", "Brain MRI", "glioma", "train", f"g{number}",
                 "nickparvar_tumor"]
            )  # fmt: skip
    real = {"table": tmp_path / "table.csv", "share": 0.25, "held_out": 4}
    config = policy(tmp_path, generator, log, steps=4, real=real)
    lineage = read_lineage(train_policy(config, Told()))
    assert not any("no real images" in note for note in lineage.notes)
    assert lineage.metrics["fidelity_loss"] > 0


def test_held_out_prompts_are_never_trained_on(log):
    found = read(log)
    aside = held_out_prompts(found, 25)
    assert {modality for modality, _ in aside} == {"Brain MRI", "Fundus"}
    training = found.where(found.prompts - aside)
    assert len(training.prompts) == 6
    assert not training.prompts & found.where(aside).prompts
    for better, worse in found.pairs:
        assert found.examples[better].reward > found.examples[worse].reward
        assert found.examples[better].group == found.examples[worse].group


def test_images_are_compared_where_the_generator_was_told_the_same(tmp_path):
    """Two wordings of one request are one group; two requests under one wording are not."""
    log = squares_log(tmp_path, prompts=4)
    fresh = FeedbackLog(tmp_path / "told.sqlite")
    for number, one in enumerate(log.candidates()):
        control = number % 4 == 0
        told = {"prompt": "control" if control else "composed", "seed": number}
        drawn = one.drawn.model_copy(
            update={"conditioning": one.drawn.conditioning.model_copy(update=told)}
        )
        fresh.append_candidate(one.model_copy(update={"drawn": drawn}))
    fresh.append_labels(log.ratings())
    found = read(fresh)
    groups = {one.group: one.conditioning.prompt for one in found.examples}
    assert sorted(groups.values()) == ["composed", "composed", "control", "control"]
    for pair in found.pairs:
        one, other = (found.examples[i] for i in pair)
        assert one.conditioning.prompt == other.conditioning.prompt == "composed"
    assert any(len({found.examples[i].prompt for i in pair}) == 2 for pair in found.pairs)


def test_a_large_group_is_not_paired_with_itself_whole():
    from medgen.feedback.preferences import PARTNERS, _met

    assert len(list(_met(range(20)))) == 190
    met = list(_met(range(1000)))
    assert len(met) <= 1000 * PARTNERS
    assert len(set(met)) == len(met)
    assert all(a != b for a, b in met)


def test_an_empty_log_is_refused(tmp_path):
    empty = FeedbackLog(tmp_path / "empty.sqlite")
    with pytest.raises(BadInput, match="holds no labels by human"):
        read(empty)


def test_labels_of_other_sources_do_not_count(log):
    with pytest.raises(BadInput, match="holds no labels by verifier"):
        read(log, sources=["verifier"])
    with pytest.raises(BadInput, match="human raters named bob"):
        read(log, raters=["bob"])


def test_equal_ratings_are_refused(tmp_path):
    log = squares_log(tmp_path)
    for one in log.candidates():
        log.append_rating(rating_of(one, 3))
    with pytest.raises(BadInput, match="nothing can be learned from"):
        read(log)


def test_raters_who_contradict_each_other_are_refused(tmp_path):
    log = squares_log(tmp_path)
    before = {one.image_sha256: one.rating for one in log.ratings()}
    for one in log.candidates():
        log.append_rating(rating_of(one, 6 - before[one.image_sha256], "bob"))
    with pytest.raises(BadInput, match="contradict each other"):
        read(log)


def test_one_rater_is_said(log):
    assert any("one human rater (ann)" in note for note in read(log).notes)


def test_missing_images(tmp_path):
    log = squares_log(tmp_path)
    (tmp_path / "0-0.png").unlink()
    found = read(log)
    assert len(found.examples) == 31
    assert "1 of 32 images are no longer there and were left out" in found.notes
    for path in tmp_path.glob("[1-5]-*.png"):
        path.unlink()
    with pytest.raises(BadInput, match="21 of 32 labelled images"):
        read(log)


def test_choices_between_two_images_teach_too(tmp_path):
    log = squares_log(tmp_path)
    chosen = {one.drawn.image: one for one in log.candidates()}
    fresh = FeedbackLog(tmp_path / "pairs.sqlite")
    for number in range(4):
        bright, dark = (chosen[str(tmp_path / f"{number}-{i}.png")] for i in (1, 0))
        fresh.append_records([bright, dark])
        fresh.append_pair(
            Pair(rater="ann", source="human", prompt=bright.prompt, modality=bright.modality,
                 winner=dark.image_sha256, loser=bright.image_sha256,
                 winner_path=dark.image_path, loser_path=bright.image_path)
        )  # fmt: skip
    found = read(fresh)
    assert len(found.pairs) == 4
    for better, worse in found.pairs:
        assert found.examples[better].path.endswith("-0.png")
        assert found.examples[worse].path.endswith("-1.png")


def test_a_configuration_that_does_not_split_is_refused(generator, log, tmp_path):
    with pytest.raises(ValueError, match="a multiple of 2 is needed"):
        policy(tmp_path, generator, log, method="dpo", batch=7)
    with pytest.raises(BadInput, match="cannot be drawn by"):
        train_policy(policy(tmp_path, generator, log, modalities=["OCT"]), Told())


def test_the_lineage_is_plain_json(generator, log, tmp_path):
    adapter = train_policy(policy(tmp_path, generator, log, steps=4), Told())
    content = json.loads((adapter / "adapter.json").read_text())
    assert content["config"]["log"] == log.name
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 4
