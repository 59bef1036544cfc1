"""An evaluation from the outside: tables in, a report's folder out.

Reads and checks the tables, lets the parser say what each text asks for where the table does not,
runs the suites one after another and writes the report. A suite that was finished in the same
folder on the same inputs is not run again. Knows the order of things, not how they are measured.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medgen.agents import parser
from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.evaluation import alignment, diversity, fidelity, privacy, utility
from medgen.evaluation.asked import RATIO
from medgen.evaluation.clip import load_clip
from medgen.evaluation.context import Context
from medgen.evaluation.extractors import BUNDLED, extractor
from medgen.evaluation.figures import SUITES, Outcome, Suite
from medgen.evaluation.report import Evaluation, TableSummary, write
from medgen.evaluation.tables import ImageTable, Progress, read_table, silent
from medgen.evaluation.utility import default_budget
from medgen.records import Finding, Plan, Request
from medgen.settings import settings

FINISHED = "suites"
REPORT = "report.html"
# The readers take no smaller images.
LEAST_SIDE = 32
LIBRARIES = ("medgen", "torch", "torchmetrics", "torch-fidelity", "prdc", "scikit-learn")
MEASURES: dict[Suite, Callable[..., Outcome]] = {
    "fidelity": fidelity.measure,
    "diversity": diversity.measure,
    "alignment": alignment.measure,
    "privacy": privacy.measure,
    "utility": utility.measure,
}


def evaluate(
    real: str | Path,
    synthetic: str | Path,
    train: str | Path | None = None,
    *,
    suites: Sequence[str] = SUITES,
    out: str | Path | None = None,
    size: int | None = None,
    extractors: Sequence[str] = (BUNDLED,),
    seed: int = 0,
    clip: str | None = None,
    lpips: str | Path | None = None,
    minim: bool = False,
    pictures: bool = True,
    command: str = "",
    progress: Progress = silent,
) -> tuple[Evaluation, Path]:
    """Measure synthetic images against real ones that nobody trained on.

    Args:
        real: Table of real images outside the generator's training data.
        synthetic: Table of the images to judge.
        train: Table of the generator's training images; privacy and utility need it.
        suites: Which of fidelity, diversity, alignment, privacy, utility.
        out: Folder of the report; a new one under `MEDGEN_RUNS` when None.
        size: Bring all images to squares of this side; when None all must have one size.
        extractors: Feature extractors, see `medgen.evaluation.extractors`; the first is the
            headline.
        seed: Same seed and same tables, same figures.
        clip: An open_clip model's folder or hub id as image-text scorer; the bundled when None.
        lpips: Folder with LPIPS' AlexNet weights; torch's hub cache when None.
        minim: Also give MINIM's own MS-SSIM, for comparison with its paper.
        pictures: Put the worst pairs, which show real training images, into the report.
        command: How the evaluation was called, for the record.
        progress: Told (task, done, total).

    Returns:
        The evaluation and its folder.

    Raises:
        BadInput: A table, a suite's name or the folder is wrong.
    """
    unknown = [name for name in suites if name not in SUITES]
    if unknown or not suites:
        raise BadInput(f"no suite {', '.join(unknown)!r}: use {', '.join(SUITES)}")
    if size is not None and not LEAST_SIDE <= size <= 1024:
        raise BadInput(f"--size {size} is no side from {LEAST_SIDE} to 1024 pixels: 256 is usual")
    folder = _folder(out)
    encoders = tuple(extractor(name) for name in dict.fromkeys(extractors))
    scorer = load_clip(clip) if clip else None
    warnings: list[str] = []
    tables = {}
    for name, path in (("real", real), ("synthetic", synthetic), ("train", train)):
        if path is not None:
            table = read_table(path, name, size, progress)
            warnings += table.notes
            if name == "synthetic":
                table = _by_prompt(table)
            # Nobody asks what the training texts say of findings.
            tables[name] = table if name == "train" else _with_findings(table)
    _refuse_overlap(tables["real"], tables["synthetic"])
    warnings += _cautions(tables)
    context = Context(
        real=tables["real"],
        synthetic=tables["synthetic"],
        train=tables.get("train"),
        encoders=encoders,
        out=folder,
        seed=seed,
        progress=progress,
    )
    chosen: list[Suite] = [suite for suite in SUITES if suite in suites]
    paths = {"real": real, "synthetic": synthetic, "train": train}
    evaluation = Evaluation(
        tables=[_summary(table, str(paths[name])) for name, table in tables.items()],
        suites=chosen,
        extractors=[encoder.name for encoder in encoders],
        seed=seed,
        size=context.synthetic.size,
        command=command,
        versions={name: version(name) for name in LIBRARIES},
        seconds={},
        warnings=warnings,
    )
    told: dict[Suite, dict[str, Any]] = {
        "fidelity": {},
        "diversity": {"minim": minim, "lpips_backbone": lpips},
        "alignment": {"clip": scorer},
        "privacy": {"pictures": pictures},
        "utility": {"budget": default_budget()},
    }
    for suite in chosen:
        started = time.monotonic()
        evaluation.outcomes[suite] = _once(suite, context, MEASURES[suite], told[suite])
        evaluation.seconds[suite] = round(time.monotonic() - started, 1)
        progress(suite, 1, 1)
    write(evaluation, folder)
    return evaluation, folder


def _once(
    suite: Suite, context: Context, measure: Callable[..., Outcome], options: dict[str, Any]
) -> Outcome:
    """A suite's outcome, from the folder where the same inputs were measured before."""
    digest = hashlib.sha256()
    for table in (context.real, context.synthetic, context.train):
        digest.update(
            repr(table and (table.size, [_fingerprint(r.path) for r in table.rows])).encode()
        )
        digest.update(repr(table and [replace(row, path=Path()) for row in table.rows]).encode())
    names = [encoder.name for encoder in context.encoders]
    told = {key: getattr(value, "name", value) for key, value in options.items()}
    software = {name: version(name) for name in LIBRARIES}
    digest.update(repr((names, context.seed, context.repetitions, told, software)).encode())
    kept = context.out / FINISHED / f"{suite}-{digest.hexdigest()[:16]}.json"
    try:
        outcome = Outcome.model_validate_json(kept.read_text(encoding="utf-8"))
        if all((context.out / picture.file).is_file() for picture in outcome.pictures):
            return outcome
    except (OSError, ValidationError):
        pass  # not there, or of another version: measured again
    outcome = measure(context, **options)
    write_atomic(kept, outcome.model_dump_json())
    return outcome


def _fingerprint(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return str(path), state.st_size, state.st_mtime_ns


def _with_findings(table: ImageTable) -> ImageTable:
    """The table with the findings of each text that has none of its own, read by the parser."""
    read: dict[tuple[str, str], tuple[tuple[Finding, ...], str]] = {}
    rows = []
    for row in table.rows:
        key = row.text, row.modal
        if not row.findings and row.text and key not in read:
            try:
                plan = parser.parse(Request(prompt=row.text, modality=row.modal))
                read[key] = tuple(plan.findings), _ratio_asked(plan)
            except BadInput:
                read[key] = (), ""
        findings, ratio = read.get(key, ((), ""))
        more = {RATIO: ratio, **row.more} if ratio else row.more
        rows.append(replace(row, findings=row.findings or findings, more=more))
    return replace(table, rows=tuple(rows))


def _by_prompt(table: ImageTable) -> ImageTable:
    """The table with its prompts as groups, where it has none: drawings of one are no strangers."""
    if table.grouped:
        return table
    rows = tuple(replace(row, group=row.text or row.group) for row in table.rows)
    return replace(table, rows=rows)


def _ratio_asked(plan: Plan) -> str:
    """The cardiothoracic ratio that a request gives as a number, or nothing."""
    for target in plan.measurements:
        low, high = target.expected
        if target.name == RATIO and low is not None and high is not None:
            return f"{(low + high) / 2:.4f}"
    return ""


def _refuse_overlap(real: ImageTable, synthetic: ImageTable) -> None:
    shared = {row.path for row in real.rows} & {row.path for row in synthetic.rows}
    if shared:
        raise BadInput(
            f"{min(shared)} is in the real and in the synthetic table: an image is one or the other"
        )


def _cautions(tables: dict[str, ImageTable]) -> list[str]:
    lines = []
    modals = set(tables["real"].modals)
    for modal in tables["synthetic"].modals:
        if modal not in modals:
            lines.append(
                f"no real images of {modal}: fidelity cannot be measured there, and most other "
                "figures have no floor"
            )
    if not tables["real"].grouped:
        lines.append(
            "the real table has no group column: images of one patient count as independent"
        )
    if "train" in tables:
        known = set(tables["train"].groups)
        trained = sum(row.group in known for row in tables["real"].rows)
        if trained:
            lines.append(
                f"{trained} of {len(tables['real'])} real images are of groups that the train "
                "table has too: fidelity, diversity and alignment use them all the same; take "
                "them out of the real table"
            )
    sizes = {table.size for table in tables.values()}
    if len(sizes) > 1:
        raise BadInput(
            f"the tables' images have different sizes ({', '.join(map(str, sorted(sizes)))} "
            "pixels): bring all to one size with --size 256"
        )
    if min(sizes) < LEAST_SIDE:
        raise BadInput(
            f"the images have {min(sizes)} pixels a side, {LEAST_SIDE} are needed: use --size 256"
        )
    return lines


def _summary(table: ImageTable, path: str) -> TableSummary:
    return TableSummary(
        name=table.name,
        path=path,
        images=dict(sorted(Counter(row.modal for row in table.rows).items())),
        groups=len(set(table.groups)),
    )


def _folder(out: str | Path | None) -> Path:
    if out is None:
        out = settings().runs / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-evaluate"
    folder = Path(out).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / ".writable", "")
        (folder / ".writable").unlink()
    except OSError as error:
        raise BadInput(f"cannot write to {out} ({error}): choose a folder with --out") from error
    return folder
