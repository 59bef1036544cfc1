"""Datasets from a phantom: quotas, the same bytes whatever the crew, resuming, poison."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from inline_crew import OWN, SPEC, BatchingPhantom, Make, files, minds
from phantom import phantom_collaborators

from medgen.data.dataset_rows import read_rows
from medgen.errors import BadInput, MedgenError
from medgen.graphs import synthesis_engine
from medgen.graphs.synthesis_journal import JOURNAL, Journal
from medgen.graphs.synthesis_worker import Worker
from medgen.records import Conditioning


def test_quotas_are_filled_and_every_image_has_a_row(tmp_path: Path, make: Make) -> None:
    outcome = make("set")
    assert (outcome.kept, outcome.wanted, outcome.complete) == (6, 6, True)
    rows = list(read_rows(tmp_path / "set"))
    kept = [row for row in rows if row.kept]
    assert len(kept) == 6 and len(rows) > 6
    assert {row.severity for row in kept} == {"mild", "severe"}
    assert {row.sex for row in kept} == {"male"} and {row.label for row in kept} == {"cardiomegaly"}
    on_disk = {name for name in files(tmp_path / "set") if name.endswith(".png")}
    assert on_disk == {row.path for row in rows}
    for row in rows:
        content = (tmp_path / "set" / row.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.sha256
        assert b"Synthetic" in content
        assert row.path.startswith("images/") == row.kept == (row.accepted is True)
        assert row.kept or row.reasons
    assert all(row.control_score is not None for row in rows)


def test_each_image_is_what_the_agent_itself_would_have_drawn(tmp_path: Path, make: Make) -> None:
    from medgen.graphs.agent import Agent
    from medgen.graphs.synthesis_cells import task_seed

    make("set")
    kept = [row for row in read_rows(tmp_path / "set") if row.kept]
    for row in kept[:3]:
        run = Agent(minds()).run(
            row.prompt,
            row.modality,
            seed=task_seed(3, row.id),
            rounds=3,
            candidates=2,
            out=tmp_path / row.id,
        )
        drawn = np.asarray(run.image)
        from medgen.data.images import load_image

        assert (np.asarray(load_image(tmp_path / "set" / row.path)) == drawn).all()
        assert run.accepted and run.rounds == row.rounds


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_no_byte(tmp_path: Path, make: Make, workers: int) -> None:
    make("one")
    make("many", workers=workers)
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_the_generator_is_given_full_batches(make: Make) -> None:
    make("set", SPEC.replace("each: 3", "each: 16"))
    batches = [len(batch) for one in make.crew.generators for batch in one.batches]  # type: ignore[attr-defined]
    assert max(batches) == 4
    assert sum(batches) / len(batches) > 3.4


def test_another_seed_gives_other_images_under_the_same_ids(tmp_path: Path, make: Make) -> None:
    make("one")
    make("two", seed=4)
    one, two = (files(tmp_path / name) for name in ("one", "two"))
    shared = {name for name in one.keys() & two.keys() if name.startswith("images")}
    assert shared and all(one[name] != two[name] for name in shared)


class Stop(Exception):
    pass


def test_a_run_that_stops_anywhere_is_gone_on_with(tmp_path: Path, make: Make) -> None:
    whole = make("whole")
    expected = files(tmp_path / "whole")
    drawn = 0

    def stop_at(limit: int) -> Callable[[Any], None]:
        def on_progress(progress: Any) -> None:
            if progress.drawn >= limit:
                raise Stop

        return on_progress

    limit = 1
    while True:
        try:
            outcome = make("parts", resume=True, on_progress=stop_at(limit))
        except Stop:
            with_journal = Journal(tmp_path / "parts" / JOURNAL)
            now = with_journal.counts()["drawn"]
            with_journal.close()
            assert now > drawn  # it went on: nothing that was done is drawn again
            drawn, limit = now, now + 1
            continue
        break
    assert (outcome.kept, outcome.drawn) == (whole.kept, whole.drawn)
    assert files(tmp_path / "parts") == expected
    again = make("parts", resume=True)
    assert make.crew.steps == 0 and again.kept == whole.kept  # type: ignore[attr-defined]


def test_lost_workers_lose_nothing(tmp_path: Path, make: Make) -> None:
    make("whole")
    make("hurt", workers=2, deaths=(2, 3, 7, 11))
    assert files(tmp_path / "hurt") == files(tmp_path / "whole")


class Poisoned(BatchingPhantom):
    """Cannot draw severe cases: raises, or is too slow."""

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        if any("severe" in told.prompt and told.seed % 3 == 0 for told in conditionings):
            raise ValueError("poison")
        return super().sample(conditionings)


def test_poison_is_set_aside_and_harms_no_other_task(tmp_path: Path, make: Make) -> None:
    table = "id,prompt\n" + "".join(
        f'{word}{n},"{word} cardiomegaly, chest X-ray"\n'
        for n in range(6)
        for word in ("mild", "severe")
    )
    make("well", table, name="prompts.csv")
    outcome = make(
        "ill",
        table,
        name="prompts.csv",
        collaborators=lambda: phantom_collaborators(Poisoned()),
    )
    assert outcome.quarantined and all("poison" in why for why in outcome.quarantined.values())
    assert all(name.startswith("severe") for name in outcome.quarantined)
    well, ill = (
        files(tmp_path / "well", "manifest.csv", "manifest.parquet"),
        files(tmp_path / "ill", "manifest.csv", "manifest.parquet"),
    )
    assert {
        k: v
        for k, v in well.items()
        if Path(k).name.split(".")[0].split("_")[0] not in outcome.quarantined
    } == ill
    assert {row.id for row in read_rows(tmp_path / "ill")} == {
        row.id for row in read_rows(tmp_path / "well")
    } - outcome.quarantined.keys()


def test_a_full_disk_stops_the_run_and_is_gone_on_with(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("whole")
    write, written = Worker._write, [0]

    def full(self: Worker, *arguments: Any) -> Any:
        written[0] += 1
        if written[0] > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *arguments)

    monkeypatch.setattr(Worker, "_write", full)
    with pytest.raises(MedgenError, match="is full: make room, then go on with --resume"):
        make("full")
    monkeypatch.setattr(Worker, "_write", write)
    make("full", resume=True)
    assert files(tmp_path / "full") == files(tmp_path / "whole")


def test_a_folder_in_use_or_of_another_specification_is_refused(tmp_path: Path, make: Make) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="is not empty"):
        make("taken")
    with pytest.raises(BadInput, match="holds no run to go on with"):
        make("taken", resume=True)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["thesis.txt"]
    make("set")
    before = files(tmp_path / "set")
    with pytest.raises(BadInput, match="is not empty: go on with that run with --resume"):
        make("set")
    with pytest.raises(BadInput, match="begun with another specification or seed"):
        make("set", resume=True, seed=99)
    assert files(tmp_path / "set") == before
    make("set", SPEC.replace("rounds: 3", "rounds: 3, hours: 5, timeout: 60"), resume=True)
    assert files(tmp_path / "set", "spec.yaml").items() <= before.items()


def test_when_the_hours_are_over_what_is_done_is_a_dataset_to_go_on_with(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("whole")
    ticks = count()  # a clock that goes on by a second whenever it is looked at
    with monkeypatch.context() as patch:
        patch.setattr(synthesis_engine, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        outcome = make("set", SPEC.replace("rounds: 3", "rounds: 3, hours: 0.006"))
    assert not outcome.complete and 0 < outcome.kept < outcome.wanted
    on_disk = {n for n in files(tmp_path / "set") if n.startswith(("images/", "rejected/"))}
    assert {row.path for row in read_rows(tmp_path / "set")} == on_disk
    make("set", resume=True)
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_what_cannot_be_drawn_leaves_nothing(tmp_path: Path, make: Make) -> None:
    text = SPEC.replace("Chest X-ray", "Brain MRI").replace("cardiomegaly", "glioma")
    with pytest.raises(BadInput, match="phantom cannot draw Brain MRI"):
        make("nowhere/set", text.replace(", severity: [mild, severe], sex: [male]", ""))
    assert not (tmp_path / "nowhere").exists()


def test_the_dataset_says_what_made_it(tmp_path: Path, make: Make) -> None:
    make("set")
    told = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert told["generator"]["fingerprint"] == BatchingPhantom.fingerprint
    assert (told["format"], told["seed"], told["accepted"], told["complete"]) == (1, 3, 6, True)
    with (tmp_path / "set" / "manifest.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    keys = [(line["id"], int(line["attempt"])) for line in lines]
    assert keys == sorted(keys)


def test_a_place_that_fsspec_writes_gets_the_same_dataset(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setenv(name, value)
        s3 = fsspec.filesystem("s3", skip_instance_cache=True)
        s3.mkdir("bucket")
        make("local")

        def stop(progress: Any) -> None:
            if progress.drawn >= 8:
                raise Stop

        with pytest.raises(Stop):
            make("s3://bucket/set", on_progress=stop)
        with pytest.raises(BadInput, match="is not empty"):
            make("s3://bucket/set")
        make("s3://bucket/set", resume=True)
        names = [name.removeprefix("bucket/set/") for name in s3.find("bucket/set")]
        found = {
            name: hashlib.sha256(s3.cat_file(f"bucket/set/{name}")).hexdigest()
            for name in names
            if name not in OWN
        }
        assert found == files(tmp_path / "local")
        assert JOURNAL in names  # for another machine to go on with
    finally:
        server.stop()


def test_an_estimate_reckons_with_what_was_measured_and_writes_nothing(tmp_path: Path) -> None:
    from medgen.graphs.synthesis_estimate import estimate, yields

    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace("rounds: 3", "rounds: 3, core_hour: 0.5"), encoding="utf-8")
    told = estimate(spec, tmp_path / "set", workers=4, minds=minds())
    each = yields().candidates_an_image.get("Chest X-ray", yields().otherwise)
    assert [part.candidates for part in told.parts] == [round(6 * each)]
    assert (told.images, told.combinations, told.workers) == (6, 2, 4)
    hours = told.parts[0].candidates * told.seconds_a_candidate / 3600
    rounded = told.parts[0].candidates * 0.0005 / 3600  # seconds are told to the millisecond
    assert told.core_hours == pytest.approx(hours, rel=0.05, abs=rounded)
    assert told.seconds == pytest.approx(told.core_hours * 3600 / 4)
    assert told.cost == pytest.approx(told.core_hours * 0.5)
    assert not (tmp_path / "set").exists()


def test_the_command_says_bad_input_in_one_line_and_shows_progress(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from medgen.cli import app
    from medgen.console import synthesis as console

    shell = CliRunner()
    assert json.loads(shell.invoke(app, ["synthesize", "--schema"]).stdout)["title"]
    spec = tmp_path / "bad.yaml"
    spec.write_text("images:\n  - {modality: Chest X-ray, count: 3, finding: [x]}\n")
    for arguments, message in (
        ([str(spec), "--out", str(tmp_path / "set")], "bad.yaml:2: images.0.finding: unknown key"),
        ([str(spec)], "give a specification and --out FOLDER"),
        (["nothing.yaml", "--out", "set"], "no specification at nothing.yaml"),
    ):
        answer = shell.invoke(app, ["synthesize", *arguments])
        assert answer.exit_code == 2
        assert message in answer.stderr and answer.stderr.startswith("error: ")
    assert not (tmp_path / "set").exists()

    lines: list[str] = []
    outcome = make("made", on_progress=lambda counted: lines.append(console.told(counted)))
    assert "kept" in lines[-1] and "images/h" in lines[-1] and "contradicted" in lines[-1]
    console.show_outcome(outcome)
    shown = capsys.readouterr().out
    assert "6 of 6 images" in shown and "contradicted: cardiomegaly" in shown
