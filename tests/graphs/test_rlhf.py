"""A whole round on a tiny generator: stages in order, gone on with after a kill, judged apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from drawn_fundi import eye
from policies import squares_log, tiny_generator

from medgen.data.images import save_synthetic_png
from medgen.errors import BadInput
from medgen.evaluation.paired import (
    AGREEMENT,
    DOUBT,
    Drawn,
    Resampling,
    agreement_changes,
    disagreement,
    diversity_changes,
    fidelity_change,
)
from medgen.evaluation.tables import ImageTable, Row
from medgen.generator.adapter import base_hash
from medgen.generator.training.progress import LineReporter
from medgen.graphs import rlhf
from medgen.graphs.rlhf_anatomy import anatomy_change, implausible
from medgen.graphs.rlhf_config import RoundConfig, load_round
from medgen.graphs.rlhf_drawing import tasks_of
from medgen.graphs.rlhf_report import RoundReport
from medgen.records import Finding


def silent(_what, _done, _total):
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    opened = squares_log(tmp_path_factory.mktemp("log"))
    yield opened
    opened.close()


@pytest.fixture
def config(generator, log, tmp_path):
    return RoundConfig.model_validate(
        {
            "out": tmp_path / "round", "log": log.name, "generator": generator, "seeds": [0, 1],
            "selector": {"use": "never"},
            "policy": {"steps": 4, "batch": 8, "lr": 0.01, "warmup": 1, "save_every": 2,
                       "held_out_percent": 25, "fidelity_tolerance": 99.0, "patience": 99,
                       "targets": ["to_q", "conv1"]},
            "synthesis": {"prompts": [{"prompt": "glioma, brain MRI"},
                                      {"prompt": "no tumor, brain MRI"},
                                      {"prompt": "cataract", "modality": "Fundus", "images": 3}],
                          "images": 2, "steps": 2, "micro_batch": 4},
            "watch": {"images": 1},
        }
    )  # fmt: skip


def test_a_round_is_killed_and_gone_on_with(config, generator, monkeypatch):
    before = base_hash(generator)
    drawn = rlhf.synthesize
    monkeypatch.setattr(rlhf, "synthesize", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rlhf.run_round(config, LineReporter(), silent)
    monkeypatch.setattr(rlhf, "synthesize", drawn)
    kept = {
        path: path.stat().st_mtime_ns
        for place in ("snapshot", "policy")
        for path in (config.out / place).rglob("adapter_model.safetensors")
    }
    assert len(kept) == 2 * (2 + 1 + 1)  # each seed: two steps, the last, the best
    report = rlhf.run_round(config, LineReporter(), silent)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert base_hash(generator) == before
    assert set(report.changes) == {"seed 0", "seed 1", "all seeds"}
    assert report.images == 7
    assert {one.step for one in report.watch} == {0, 2, 4}
    assert report.watched_reward == "verifier's score"
    text = (config.out / "report" / "report.md").read_text()
    assert "hacking.png" in text
    assert (config.out / "report" / "hacking.png").read_bytes()[:4] == b"\x89PNG"
    assert any("fidelity was not measured" in note for note in report.notes)
    for lineage in report.adapters.values():
        assert lineage.labels == {"human": 32}
    # Done is done.
    monkeypatch.setattr(rlhf, "synthesize", lambda *_: pytest.fail("drawn again"))
    assert rlhf.run_round(config, LineReporter(), silent) == report


def test_the_log_may_grow_while_a_round_goes_on(config, log):
    config.out.mkdir()
    taken = rlhf.take_snapshot(config)
    assert (taken.candidates, taken.labels) == (32, 32)
    exported = (config.out / "snapshot" / "log.jsonl").read_text()
    log.append_rating(log.ratings()[0].model_copy(update={"id": "another", "rater": "zoe"}))
    assert rlhf.take_snapshot(config) == taken
    assert (config.out / "snapshot" / "log.jsonl").read_text() == exported


def test_another_configuration_does_not_go_on_in_the_same_folder(config, tmp_path):
    config.out.mkdir()
    (config.out / "round.json").write_text(
        json.dumps({**config.model_dump(mode="json"), "seeds": [5]})
    )
    with pytest.raises(BadInput, match="another seeds: choose another `out`"):
        rlhf.run_round(config, LineReporter(), silent)


def test_the_same_prompts_and_seeds_are_drawn_before_and_after(config):
    tasks = tasks_of(config.synthesis)
    assert [task.name for task in tasks] == [
        "000-000.png", "000-001.png", "001-000.png", "001-001.png", "002-000.png", "002-001.png",
        "002-002.png",
    ]  # fmt: skip
    assert len({task.told.seed for task in tasks}) == len(tasks)
    assert tasks == tasks_of(config.synthesis)
    assert tasks[4].plan.modality == "Fundus"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"policy": {"beta": -1}}, "beta"),
        ({"policy": {"out": "x"}}, "the round's own to set"),
        ({"log": "nowhere.sqlite"}, "no feedback log at"),
        ({"synthesis": {"prompts": "nothing.csv"}}, "cannot be read"),
        ({"evaluation": {"real": "nothing.csv"}}, "evaluation.real: nothing.csv does not exist"),
        ({"typo": 1}, "typo: unknown key"),
    ],
)
def test_a_wrong_configuration_is_one_line(config, tmp_path, change, line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {**config.model_dump(mode="json", exclude_unset=True), **change}
    (tmp_path / "round.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(BadInput, match=line) as caught:
        rlhf.run_round(load_round("round.yaml"), LineReporter(), silent)
    assert caught.value.exit_code == 2
    assert not (config.out / "policy").exists()


def test_a_log_without_labels_trains_nothing(config, tmp_path):
    from medgen.feedback.log import FeedbackLog

    empty = FeedbackLog(tmp_path / "empty.sqlite")
    empty.runs()
    bad = config.model_copy(update={"log": empty.name})
    with pytest.raises(BadInput, match="holds no labels"):
        rlhf.run_round(bad, LineReporter(), silent)
    assert not (config.out / "policy").exists()


def row(path, present, group="p"):
    findings = (Finding(finding="glioma", status="present" if present else "absent"),)
    return Row(Path(path), "a prompt", "Brain MRI", group=group, findings=findings)


class Seen(Drawn):
    """Drawings whose readings are given: 12 prompts of 4 images, half of them with glioma."""

    def __init__(self, right):
        rows = tuple(row(f"{i}.png", (i // 4) % 2, f"prompt {i // 4}") for i in range(48))
        self.table = ImageTable("drawn", rows, 256, True)
        asked = np.array([(i // 4) % 2 for i in range(48)])
        self.seen = np.where(right, asked, 1 - asked)

    def codes(self, modality):
        asked = np.array([(i // 4) % 2 for i in range(48)])
        return (2.0 * asked + (self.seen == asked))[:, None]

    def doubts(self):
        asked = np.array([(i // 4) % 2 for i in range(48)])
        return (self.seen != asked) * 0.8 + 0.1


def test_a_paired_change_has_the_size_and_the_sign_that_it_should():
    every = np.arange(48)
    before, after = Seen(every % 2 == 0), Seen(every % 4 < 3)
    found = {
        one.metric: one
        for one in agreement_changes(before, [after], "Brain MRI", Resampling(0, 300))
    }
    one = found[AGREEMENT]
    assert (one.before, one.after) == pytest.approx((0.5, 0.25))
    assert one.relative == pytest.approx(-0.5)
    assert one.low <= one.change <= one.high < 0
    assert (one.images, one.prompts) == (48, 12)
    assert found[DOUBT].change == pytest.approx(-0.2)
    same = agreement_changes(before, [before], "Brain MRI", Resampling(0, 300))[0]
    assert (same.change, same.low, same.high) == (0, 0, 0)
    both = agreement_changes(before, [before, after], "Brain MRI", Resampling(0, 300))[0]
    assert both.after == pytest.approx((0.5 + 0.25) / 2)


def test_disagreement_weighs_presence_and_absence_alike():
    always_present = np.array([3.0] * 9 + [0.0])[:, None]
    assert disagreement(always_present) == 0.5


class Stretched:
    """An encoder of mean brightness and spread."""

    name, width = "stretched", 2

    def __call__(self, images):
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        return np.stack([flat.mean(1) * 3, flat.std(1) * 3], 1)


def pictures(folder, name, shift, count=64):
    random_ = np.random.default_rng(1)
    rows = []
    for i in range(count):
        level = int(random_.integers(40, 120)) + shift
        pixels = np.clip(random_.normal(level, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        save_synthetic_png(folder / f"{name}-{i}.png", pixels)
        rows.append(row(folder / f"{name}-{i}.png", True, f"{name} {i // 4}"))
    return ImageTable(name, tuple(rows), 32, True)


def test_paired_fidelity_tells_worse_from_alike(tmp_path):
    real = pictures(tmp_path, "real", 0)
    before, worse = pictures(tmp_path, "before", 10), pictures(tmp_path, "worse", 60)
    encoder = Stretched()
    found = fidelity_change(real, before, [worse], "Brain MRI", encoder, 0, 20)
    assert found.low > 0
    alike = fidelity_change(real, before, [before], "Brain MRI", encoder, 0, 20)
    assert (alike.change, alike.low, alike.high) == (0, 0, 0)
    assert fidelity_change(real, before.take(range(8)), [worse], "Brain MRI", encoder, 0) is None


def test_drawings_that_grow_alike_are_told(tmp_path):
    before = pictures(tmp_path, "before", 0, 24)
    rows = tuple(
        Row(before.rows[i - i % 4].path, r.text, r.modal, group=r.group)
        for i, r in enumerate(before.rows)
    )
    after = ImageTable("after", rows, 32, True)
    (found,) = diversity_changes(before, [after], "Brain MRI", Stretched(), Resampling(0, 200))
    assert found.after == 0 < found.before
    assert found.high < 0


def test_a_second_disc_that_pleases_readers_is_told(tmp_path):
    def drawn(name, second):
        rows = []
        for i in range(8):
            save_synthetic_png(tmp_path / f"{name}-{i}.png", eye(second=second if i % 2 else None))
            rows.append(Row(tmp_path / f"{name}-{i}.png", "", "Fundus", group=f"prompt {i // 2}"))
        return ImageTable(name, tuple(rows), 256, True)

    before, after = drawn("before", None), drawn("after", (70, 90))
    flags = [implausible(one) for one in (before, after)]
    found = anatomy_change(flags[0], flags[1:], before, "Fundus", Resampling(0, 200))
    assert (found.before, found.after, found.better) == (0, 0.5, "lower")
    assert found.low > 0
    assert anatomy_change(flags[0], flags[1:], before, "Breast MRI", Resampling(0, 200)) is None


def test_the_report_is_a_record():
    assert RoundReport.model_json_schema()["title"] == "RoundReport"


def test_the_recipe_filters_retrains_and_ends_in_a_round(generator, log, tmp_path):
    from medgen.graphs.rlhf_multistage import run_configured

    lines = ["path,text,modal,label,split,group,source,extra"]
    for number, one in enumerate(log.candidates()[:12]):
        lines.append(f"{one.image_path},glioma,Brain MRI,glioma,train,g{number},nickparvar_tumor,")
    (tmp_path / "real.csv").write_text("\n".join(lines) + "\n")
    retrain = {
        "table": str(tmp_path / "real.csv"), "autoencoder": str(generator / "autoencoder"),
        "out": "unused", "size": 64, "steps": 2, "batch": 4, "lr": 1e-3, "warmup": 1,
        "decay_from": 0.5, "save_every": 2, "augmented_copies": 0,
        "dropout": dict.fromkeys(("all", "text", "modality", "structured", "structured_each"), 0),
        "text_encoder": {"vocabulary_size": 300, "length": 16, "width": 32, "layers": 1,
                         "heads": 2, "dropout": 0.0},
        "conditions": {"structured_tokens": 1, "pooled_width": 32},
        "unet": {"channels": [16, 16, 32], "groups": 8, "heads": 2},
    }  # fmt: skip
    (tmp_path / "retrain.yaml").write_text(yaml.safe_dump(retrain))
    prompts = [{"prompt": "glioma, brain MRI"}]
    recipe = {
        "kind": "multistage", "out": str(tmp_path / "recipe"), "log": log.name,
        "generator": str(generator), "retrain": {"config": str(tmp_path / "retrain.yaml")},
        "filter": {"prompts": prompts, "images": 4, "steps": 2, "keep": 0.5, "micro_batch": 4},
        "round": {
            "selector": {"use": "never"}, "watch": {"images": 0},
            "policy": {"steps": 2, "batch": 4, "save_every": 2, "held_out_percent": 0,
                       "targets": ["to_q"]},
            "synthesis": {"prompts": prompts, "images": 2, "steps": 2, "micro_batch": 2},
        },
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    report = run_configured(tmp_path / "recipe.yaml", {}, LineReporter(), silent)
    table = (tmp_path / "recipe" / "filtered" / "table.csv").read_text().splitlines()
    drawn = [line for line in table if "synthetic: glioma" in line]
    assert len(table) == 1 + 12 + 2
    assert len(drawn) == 2
    retrained = tmp_path / "recipe" / "retrain" / "generator"
    assert base_hash(retrained) != base_hash(generator)
    assert report.adapters["0"].base == base_hash(retrained)


def test_the_configurations_of_the_repository_are_right(monkeypatch):
    from medgen.feedback.policy_config import PolicyConfig
    from medgen.generator.training.config import checked, read_config
    from medgen.graphs.rlhf_multistage import MultistageConfig

    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    config = load_round("configs/rlhf.yaml")
    config.check_files()
    assert len(tasks_of(config.synthesis)) == 88
    path = "configs/rlhf_policy.yaml"
    assert checked(PolicyConfig, read_config(path), path).method == "reward_weighted"
    path = "configs/rlhf_multistage.yaml"
    recipe = checked(MultistageConfig, read_config(path), path)
    recipe.of_round(None).check_files()
    assert tasks_of(recipe.filter)
