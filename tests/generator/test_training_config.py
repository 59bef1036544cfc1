"""A configuration's mistakes, each in one line that names the key."""

from pathlib import Path

import pytest
import yaml

from medgen.errors import BadInput
from medgen.generator.training.config import FinetuningConfig, load_config, parse_changes

CONFIGS = Path(__file__).parents[2] / "configs"
GOOD = CONFIGS / "diffusion.yaml"


def _write(path, content):
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stepz": 3}, "stepz: unknown key"),
        ({"unet": {"gates": True}}, r"unet\.gates: unknown key"),
        ({"steps": "many"}, r"steps: .*valid integer.*given: 'many'"),
        ({"lr": -1}, r"lr: .*greater than 0.*given: -1"),
        ({"objective": {"prediction": "eps"}}, r"objective\.prediction: .*'epsilon'.*given: 'eps'"),
        (
            {"objective": {"prediction": "epsilon", "weighting": "capped"}},
            "objective: capped weighting is unbounded for epsilon",
        ),
        ({"unet": {"channels": [80, 144]}}, "the same number of levels"),
        ({"unet": {"channels": [80, 144, 225]}}, "225 channels must be a multiple"),
        ({"unet": {"pyramid_attention": {"width": 100}}}, "multiple of 4 x heads"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_in_one_line(changes, reason):
    with pytest.raises(BadInput, match=reason) as caught:
        load_config(GOOD, changes)
    assert "\n" not in str(caught.value)
    assert str(GOOD) in str(caught.value)


def test_a_missing_key_file_and_folder_are_named(tmp_path):
    content = yaml.safe_load(GOOD.read_text())
    del content["steps"]
    with pytest.raises(BadInput, match="steps: this key is needed"):
        load_config(_write(tmp_path / "a.yaml", content))
    with pytest.raises(BadInput, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match=r"table: /nowhere\.csv does not exist"):
        load_config(GOOD, {"table": "/nowhere.csv"}).check_files()


@pytest.mark.parametrize("content", ["steps: [", "- 1", ""])
def test_what_is_no_mapping_is_refused(tmp_path, content):
    with pytest.raises(BadInput, match=r"is not YAML|must be a mapping"):
        load_config(_write(tmp_path / "a.yaml", content))


def test_extending_changes_what_is_given_and_keeps_the_rest(tmp_path):
    _write(tmp_path / "base.yaml", GOOD.read_text())
    _write(tmp_path / "row.yaml", {"extends": "base.yaml", "unet": {"gated_skips": True}})
    base, row = load_config(GOOD), load_config(tmp_path / "row.yaml")
    assert row.unet.gated_skips
    assert row.unet.channels == base.unet.channels
    assert row.model_copy(update={"unet": base.unet}) == base
    _write(tmp_path / "base.yaml", {"extends": "row.yaml"})
    with pytest.raises(BadInput, match="extends itself"):
        load_config(tmp_path / "row.yaml")


def test_changes_from_the_command_line():
    changes = parse_changes(["steps=40", "unet.gated_skips=true", "unet.heads=2"])
    assert changes == {"steps": 40, "unet": {"gated_skips": True, "heads": 2}}
    assert load_config(GOOD, changes).unet.heads == 2
    assert load_config(GOOD, parse_changes(["precision=no"])).precision == "no"
    with pytest.raises(BadInput, match="is not KEY=VALUE"):
        parse_changes(["steps"])


def test_kind_says_what_is_trained():
    finetuning = load_config(CONFIGS / "finetune.yaml")
    assert isinstance(finetuning, FinetuningConfig) and finetuning.method == "lora"
    with pytest.raises(BadInput, match="unet: unknown key"):
        load_config(CONFIGS / "finetune.yaml", {"unet": {"heads": 2}})
    with pytest.raises(BadInput, match=r"method: .*'qlora'.*given: 'dora'"):
        load_config(CONFIGS / "finetune.yaml", {"method": "dora"})
    with pytest.raises(BadInput, match=r"kind: .*given: 'pixel'"):
        load_config(GOOD, {"kind": "pixel"})


def test_every_configuration_of_the_ablation_loads_with_the_same_budget():
    rows = sorted((CONFIGS / "ablation").glob("row*.yaml"))
    configs = [load_config(path) for path in rows]
    assert len(configs) == 10
    varied = {"objective", "conditions", "unet"}
    shared = [config.model_dump(exclude=varied) for config in configs]
    assert all(entry == shared[0] for entry in shared)
    assert len({config.model_dump_json() for config in configs}) == 10
    first = configs[0]
    assert (first.objective.prediction, first.conditions.fusion) == ("epsilon", "concatenation")
    assert configs[-1].unet.gated_skips and configs[-1].unet.pyramid_attention is not None
