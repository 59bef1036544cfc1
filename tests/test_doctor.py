"""The doctor: what it finds is what is there, damage included, and it never raises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from medgen import cli, doctor
from medgen.errors import BadInput


def weights(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / "model.safetensors")
    return folder


def test_weights_are_found_sized_and_fingerprinted(tmp_path: Path) -> None:
    folder = weights(tmp_path / "room" / "weights" / "compact" / "unet", a=np.ones(3, np.float16))
    weights(tmp_path / "elsewhere", a=np.ones(3, np.float32))
    assert doctor.weights_folders(tmp_path) == [folder]
    seen = doctor.inspect_weights(folder)
    assert seen.loads and not seen.card
    assert seen.bytes == (folder / "model.safetensors").stat().st_size
    weights(folder, a=np.zeros(3, np.float16))
    assert doctor.inspect_weights(folder).fingerprint != seen.fingerprint


def test_model_card_counts_from_the_folder_up_to_weights(tmp_path: Path) -> None:
    folder = weights(tmp_path / "weights" / "compact", a=np.ones(1, np.float32))
    (tmp_path / "MODEL_CARD.md").write_text("too far up")
    assert not doctor.inspect_weights(folder).card
    (tmp_path / "weights" / "MODEL_CARD.md").write_text("card")
    assert doctor.inspect_weights(folder).card


@pytest.mark.parametrize("damage", ["truncated", "not finite", "empty"])
def test_damaged_weights_do_not_load(damage: str, tmp_path: Path) -> None:
    folder = weights(tmp_path / "weights", a=np.ones(1000, np.float32))
    file = folder / "model.safetensors"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "not finite":
        weights(folder, a=np.array([1.0, np.nan], np.float32))
    else:
        file.write_bytes(b"")
    assert not doctor.inspect_weights(folder).loads


def test_a_failing_part_is_reported_with_a_remedy_not_raised() -> None:
    def missing() -> doctor.Part:
        raise BadInput("no weights in /nowhere")

    def crashing() -> doctor.Part:
        raise RuntimeError("segments")

    part = doctor.tried("generator", missing, "reinstall")
    assert (part.state, part.detail, part.remedy) == (
        "missing",
        "no weights in /nowhere",
        "reinstall",
    )
    part = doctor.tried("generator", crashing, "reinstall")
    assert part.state == "broken" and "RuntimeError: segments" in part.detail


def test_only_required_parts_decide() -> None:
    fine = doctor.Part(name="a", state="ok")
    optional = doctor.Part(name="b", state="missing", required=False)
    broken = doctor.Part(name="c", state="broken")
    assert doctor.works([fine, optional])
    assert not doctor.works([fine, broken])


def test_doctor_command_says_that_the_default_path_works() -> None:
    """Needs all bundled weights."""
    result = CliRunner().invoke(cli.app, ["doctor", "--json"])
    diagnosis = json.loads(result.stdout)
    assert result.exit_code == (0 if diagnosis["ok"] else 1)
    states = {part["name"]: part["state"] for part in diagnosis["parts"]}
    assert {"python", "packages", "device", "generator", "verifier", "knowledge"} <= states.keys()
    bad = [part for part in diagnosis["parts"] if part["required"] and part["state"] != "ok"]
    assert bad == []
    assert diagnosis["ok"] and diagnosis["weights"]


def test_doctor_fails_with_a_remedy_when_the_weights_are_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medgen.settings import settings

    monkeypatch.setenv("MEDGEN_WEIGHTS", str(tmp_path))
    settings.cache_clear()
    try:
        part = doctor.look("generator")
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert part.state == "missing"
    assert str(tmp_path) in part.detail and "MEDGEN_WEIGHTS" in part.remedy
