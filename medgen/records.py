"""The shared vocabulary of medgen: what is asked, planned, drawn, measured and concluded.

Every room speaks in these records; they dump to plain JSON (`model_dump(mode="json")`) and come
back (`model_validate`). A new field is added here first. Knows no model, file or graph.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["present", "absent", "uncertain", "historical"]
Side = Literal["left", "right", "bilateral"]
Severity = Literal["mild", "moderate", "severe"]
Verdict = Literal["confirmed", "contradicted", "abstain"]
View = Literal["PA", "AP", "AP supine"]
AgeGroup = Literal["child", "adult"]
Sex = Literal["female", "male"]
Reading = Literal["request", "report"]


class Record(BaseModel):
    """Base of all records: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Measurement(Record):
    """One number read from an image by one check.

    `expected` is the range that would confirm the request, either end open when null; `accuracy`
    is the check's figure on real held-out images, in words ("AUC 0.91 on 296 films").
    """

    name: str
    value: float
    unit: str = ""
    expected: tuple[float | None, float | None] | None = None
    check: str
    accuracy: str | None = None


class Finding(Record):
    """A finding as asked for and, after verification, as measured; `size_mm` is the asked size."""

    finding: str
    code: str | None = None
    status: Status = "present"
    side: Side | None = None
    location: str | None = None
    severity: Severity | None = None
    size_mm: float | None = Field(default=None, gt=0)
    verdict: Verdict | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    measurements: list[Measurement] = []


class Region(Record):
    """An anatomical region that the request concerns.

    `box` is where it lies in the image frame as (left, top, right, bottom) fractions 0-1, image
    left first (a chest X-ray shows the patient's right side on the image's left).
    """

    name: str
    code: str | None = None
    side: Side | None = None
    box: tuple[float, float, float, float] | None = None
    box_source: str | None = None


class Fact(Record):
    """Something retrieved from the knowledge store or the case index, with its identity."""

    id: str
    kind: Literal["term", "relation", "sign", "case"]
    text: str
    score: float
    source: str


class Sign(Record):
    """How a finding looks in a modality, in words fit for a drawing prompt."""

    finding: str
    text: str
    fact: str | None = None


class MeasurementTarget(Record):
    """A number that the drawing should have: what it is, for which finding, and its range."""

    name: str
    finding: str
    unit: str = ""
    expected: tuple[float | None, float | None]
    source: str


class Entailed(Record):
    """What the knowledge base says of an asked finding and another one.

    `relation` is "implies" (always), "may imply" (as a rule, and may be missing) or "excludes".
    Nothing entailed is drawn for that reason alone.
    """

    finding: str
    relation: Literal["implies", "may imply", "excludes"]
    other: str


class ReportField(Record):
    """One field of a structured report: its section and name, what it says, and a code of it.

    `finding` is the asked finding that the field is about, null where it is about none.
    """

    section: Literal["history", "technique", "comparison", "findings", "impression"]
    name: str
    value: str
    finding: str | None = None
    code: str | None = None


class Report(Record):
    """A templated report of what the image is to show: as prose, and field by field.

    `text` is the whole report in the layout of its template; `template` that template's name.
    """

    history: str
    technique: str
    findings: str
    impression: str
    fields: list[ReportField] = []
    text: str = ""
    template: str = ""


class Request(Record):
    """What the user asked for, before anything is concluded from it.

    `rounds`, `candidates` (a round) and `seconds` (no new round after that many) are the budget.
    `reading` says whether the prompt is a request (contradictions are errors) or a whole report
    (read sentence by sentence, contradictions are warnings); by its look when null. `steps`,
    `guidance` (its scale) and `negative` (what not to draw) are the generator's own and the
    composer's where null.
    """

    prompt: str
    modality: str | None = None
    reading: Reading | None = None
    seed: int = 0
    images: int = 1
    rounds: int = 3
    candidates: int = 2
    seconds: float | None = None
    steps: int | None = Field(default=None, ge=2, le=1000)
    guidance: float | None = Field(default=None, ge=1, le=30)
    negative: str | None = None


class Plan(Record):
    """What the reasoning roles concluded from a request; filled node by node.

    `modality` is a modality card's name. `entailed` is what the findings imply and exclude,
    `implausible` what does not fit the modality or the patient (also in `warnings`).
    `not_drawable` keeps the words that no image can show;
    `warnings` are what the user should know, `notes` what was taken for granted or entailed;
    `cited` the ids of facts used; `decided_by` maps a role to "rules" or a model's name.
    """

    prompt: str
    modality: str
    findings: list[Finding] = []
    view: View | None = None
    age: int | None = None
    age_group: AgeGroup | None = None
    sex: Sex | None = None
    regions: list[Region] = []
    signs: list[Sign] = []
    measurements: list[MeasurementTarget] = []
    entailed: list[Entailed] = []
    implausible: list[str] = []
    report: Report | None = None
    cited: list[str] = []
    not_drawable: list[str] = []
    warnings: list[str] = []
    notes: list[str] = []
    decided_by: dict[str, str] = {}


class PlanLine(Plan):
    """What `medgen plan --json` prints, one line a request.

    `id` is the row's; `error` says in one line why a row of a table could not be planned, and
    then the plan is empty (its `modality` is the one given, or "").
    """

    id: str
    error: str | None = None


class Conditioning(Record):
    """What the generator is told for one image.

    `structured` holds the numeric and categorical conditions by name (see
    `medgen.generator.structured`); a missing name means "not given". `init_image` is re-noised by
    `strength` in (0, 1]; with `mask_image` only where that picture is bright. `aims` steers by
    gradient (see `medgen.generator.steering`): head of the steering reader to wanted classes.
    """

    prompt: str
    negative_prompt: str = ""
    modality: str
    structured: dict[str, float | str] = {}
    guidance_scale: float | None = None
    steps: int | None = None
    seed: int = 0
    init_image: str | None = None
    strength: float | None = None
    mask_image: str | None = None
    aims: dict[str, list[str]] = {}


class Correction(Record):
    """What is wrong with an image and by how much to change what: words and numbers."""

    finding: str
    text: str
    quantity: str | None = None
    measured: float | None = None
    target: float | None = None


class Quality(Record):
    """Technical image quality; `problems` names what fails (empty when fit for use)."""

    score: float = Field(ge=0, le=1)
    problems: list[str] = []
    measurements: list[Measurement] = []


class NearestTraining(Record):
    """Distance to the nearest training image and its percentile among real held-out distances."""

    distance: float
    percentile: float
    image: str | None = None


class Critique(Record):
    """The verifier's answer on one image.

    `accepted`: false on a hard rejection or any contradicted finding, true when at least one
    asked finding is confirmed and none contradicted, null when everything abstains.
    `score` ranks candidates (higher is better), in [0, 1]. `abstentions` says what could not be
    measured and why, `disagreements` where members of the panel contradict each other, one line
    each. `anatomy` is what a reading without any request gives: counts, extents, sides, with the
    range of real images as `expected`.
    """

    modality: str | None = None
    modality_confidence: float | None = None
    findings: list[Finding] = []
    quality: Quality | None = None
    nearest_training: NearestTraining | None = None
    alignment: Measurement | None = None
    rejections: list[str] = []
    corrections: list[Correction] = []
    abstentions: list[str] = []
    disagreements: list[str] = []
    anatomy: list[Measurement] = []
    accepted: bool | None = None
    score: float = 0.0


class Tactic(Record):
    """The recipe of actions that a refined candidate tries, and the chance that it was drawn with.

    `modality`, `finding` and `kind` are what was wrong with the parent. `propensity` is 1 where
    rules chose; a prompt policy draws, and a later one learns from what was drawn.
    """

    recipe: str
    propensity: float = Field(gt=0, le=1)
    modality: str
    finding: str = ""
    kind: str


class Candidate(Record):
    """One drawn image with what it was told and what was found in it.

    `index` is which of the request's images it is for; `parent` the candidate that it refines.
    `reward` is a learned selector's, null where none is set: differences between candidates of one
    image are log-odds of being preferred.
    """

    id: str
    index: int = 0
    round: int
    parent: str | None = None
    image: str
    conditioning: Conditioning
    control: bool = False
    actions: list[str] = []
    critique: Critique | None = None
    tactic: Tactic | None = None
    reward: float | None = None


class TraceEvent(Record):
    """What one node did: who decided, from what, to what, in how many seconds.

    `decided_by` is "rules", a model's name, or "rules; MODEL: why it did not decide". `tokens`
    (prompts and answers) and `cost` (US dollars, where prices are set) are null when no language
    model was asked.
    """

    node: str
    round: int | None = None
    started: str
    seconds: float
    inputs: list[str] = []
    outputs: dict[str, object] = {}
    decided_by: str = "rules"
    tokens: int | None = None
    cost: float | None = None


class Drawing(Record):
    """What `medgen generate --json` prints: images drawn once each, unverified.

    `conditioning` carries the user's seed; image i was drawn from the noise `noise_seeds[i]` that
    follows from it. Paths are absolute; `fingerprint` is the hash of the generator's weights,
    `adapter` the id of the adapter over them, empty for none.
    """

    images: list[str]
    prompt: str
    conditioning: Conditioning
    noise_seeds: list[int]
    warnings: list[str] = []
    seconds: float
    generator: str
    fingerprint: str
    adapter: str = ""


class ReadModality(Record):
    """What an image was read as, and with which probability."""

    predicted: str
    confidence: float


class Verification(Record):
    """What `medgen verify --json` prints for one image, a line each; `path` is absolute.

    `prompt` is what the image was checked against; null when it was measured without a request,
    and then `findings` are all that could be measured, `status` being what was found. `error` says
    why an image could not be read, and then nothing else is given. `overlay` is the picture of
    what was measured, where one was asked for. `critique` is the same as a whole, for programs in
    this process; it is not printed.
    """

    path: str
    prompt: str | None = None
    modality: ReadModality | None = None
    findings: list[Finding] = []
    quality: Quality | None = None
    nearest_training: NearestTraining | None = None
    accepted: bool | None = None
    corrections: list[Correction] = []
    rejections: list[str] = []
    abstentions: list[str] = []
    disagreements: list[str] = []
    anatomy: list[Measurement] = []
    alignment: Measurement | None = None
    score: float | None = None
    overlay: str | None = None
    error: str | None = None
    critique: Critique | None = Field(default=None, exclude=True)


class ControlResult(Record):
    """The control candidate's outcome: the user's prompt unrefined, same seed."""

    accepted: bool | None
    image: str
    findings: list[Finding]


class ImageResult(Record):
    """The outcome for one of the images asked for; `candidate` is the one that was chosen."""

    image: str
    accepted: bool | None
    candidate: str
    findings: list[Finding]
    control: ControlResult


class Run(Record):
    """What `medgen agent --json` prints. All paths are absolute.

    `accepted` is over all images; `findings` and `control` are the first image's, `results` has
    each image's own; `candidates` counts all that were drawn, `rounds` the most for any image.
    """

    run_id: str
    accepted: bool | None
    images: list[str]
    findings: list[Finding]
    control: ControlResult
    rounds: int
    candidates: int
    seconds: float
    trace: str
    results: list[ImageResult] = []


class Lineage(Record):
    """Where a forked run comes from: the parent, the node it went on at, and what was changed.

    `changes` has the value of each field that was set, by its full name; `round` is null for the
    reasoning nodes, which run once. `events` is how many steps of the trace are the parent's.
    """

    parent: str
    node: str
    round: int | None = None
    changes: dict[str, object] = {}
    events: int = 0


class Setup(Record):
    """What a run is made with, beside the request, as far as its images depend on it.

    `settings` are those of `medgen.settings.RUN_SETTINGS`; `generator`, `knowledge` and `panel`
    are fingerprints (hex), empty until the run has come so far; `versions` are of packages.
    """

    settings: dict[str, object] = {}
    versions: dict[str, str] = {}
    generator: str = ""
    knowledge: str = ""
    panel: str = ""


class RunSummary(Record):
    """One line of a list of runs. Paths are absolute.

    `started` is UTC, ISO 8601. `accepted`, `rounds`, `candidates` and `seconds` are null, and
    `images` empty, until a run is finished; a damaged run has only its id and folder.
    """

    run_id: str
    folder: str
    status: Literal["finished", "unfinished", "damaged"]
    prompt: str = ""
    modality: str | None = None
    seed: int | None = None
    started: str = ""
    accepted: bool | None = None
    images: list[str] = []
    rounds: int | None = None
    candidates: int | None = None
    seconds: float | None = None
    lineage: Lineage | None = None
