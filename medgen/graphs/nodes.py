"""The nodes of the agent's graph: each hands the state to one role and takes back an update.

A node may run twice (a killed run starts again at the node it was in), so it writes files only
under names that depend on the run alone, and takes no decision from the clock except the budget
in working seconds. What the roles think is in `medgen.agents`; how nodes follow each other is in
`medgen.graphs.agent`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medgen.agents import (
    anatomy,
    composer,
    features,
    interpreter,
    parser,
    pathology,
    refiner,
    report,
    report_markdown,
    retriever,
    selector,
)
from medgen.agents.llm import Session
from medgen.agents.state import (
    AgentState,
    Choice,
    Dumped,
    LanguageUse,
    Trial,
    candidate_id,
    candidates_of,
    noise_seed,
    seconds_spent,
)
from medgen.data.images import load_image, save_synthetic_png, square, write_atomic
from medgen.errors import BadInput, MedgenError
from medgen.generator.base import adapter_of, steers
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.outcome import run_report
from medgen.graphs.rewarding import rewarded
from medgen.graphs.run_folder import (
    CANDIDATES,
    REPORT,
    RunFolder,
    image_path,
    request_digest,
)
from medgen.graphs.setup import knowledge_fingerprint
from medgen.records import Candidate, Conditioning, Fact, Plan, Record, Request


@dataclass(frozen=True)
class Step:
    """What a node did: its update of the state, and what the trace says of it."""

    update: Dumped
    inputs: list[str]
    outputs: Dumped
    decided_by: str = "rules"
    round: int | None = field(default=None, kw_only=True)
    tokens: int | None = field(default=None, kw_only=True)
    cost: float | None = field(default=None, kw_only=True)


def _dump(record: Record) -> Dumped:
    return record.model_dump(mode="json")


def _dump_all(records: list[Any]) -> list[Dumped]:
    return [_dump(record) for record in records]


def _request(state: AgentState) -> Request:
    return Request.model_validate(state["request"])


def _plan(state: AgentState) -> Plan:
    return Plan.model_validate(state["plan"])


def _facts(state: AgentState) -> list[Fact]:
    return [Fact.model_validate(dumped) for dumped in state["facts"]]


def _asked(plan: Plan) -> list[str]:
    return [finding.finding for finding in plan.findings]


def _session(state: AgentState, minds: Collaborators) -> Session:
    return minds.session(LanguageUse.model_validate(state.get("language", {})))


def _thought(
    plan: Plan, role: str, inputs: list[str], *shown: str, state: AgentState, session: Session
) -> Step:
    dumped = _dump(plan)
    outputs = {name: dumped[name] for name in shown}
    decided_by = plan.decided_by.get(role, "rules")
    if not session.asks:
        return Step({"plan": dumped}, inputs, outputs, decided_by)
    before = LanguageUse.model_validate(state.get("language", {}))
    return Step(
        {"plan": dumped, "language": _dump(session.use)},
        inputs,
        outputs,
        decided_by,
        tokens=session.use.tokens - before.tokens,
        cost=round(session.use.cost - before.cost, 6) if session.priced else None,
    )


def parse(state: AgentState, minds: Collaborators) -> Step:
    """Read the request: modality, findings, what no image can show."""
    session = _session(state, minds)
    plan = interpreter.parse(_request(state), session)
    shown = ("modality", "findings", "view", "age", "sex", "not_drawable", "warnings", "notes")
    step = _thought(plan, "parser", ["request"], *shown, state=state, session=session)
    if "folder" not in state:  # started by LangGraph's own tools, which make no folder
        folder = RunFolder.create(_request(state))
        step.update.update(folder=str(folder.path), run_id=folder.run_id)
    return step


def localize_anatomy(state: AgentState, minds: Collaborators) -> Step:
    """Find the regions that the findings concern."""
    session = _session(state, minds)
    plan = anatomy.localize(_plan(state), session)
    shown = ("regions", "notes")
    return _thought(plan, "anatomy", _asked(plan), *shown, state=state, session=session)


def assess_pathology(state: AgentState, minds: Collaborators) -> Step:
    """Say what the findings imply and how they are measured."""
    session = _session(state, minds)
    plan = pathology.assess(_plan(state), session)
    shown = ("findings", "entailed", "implausible", "measurements", "warnings", "notes")
    return _thought(plan, "pathology", _asked(plan), *shown, state=state, session=session)


def retrieve(state: AgentState, minds: Collaborators) -> Step:
    """Fetch facts and cases from the knowledge store."""
    plan = _plan(state)
    facts = retriever.retrieve(plan, minds.store, minds.cases, minds.settings.retrieval)
    update = {"facts": _dump_all(facts), "knowledge": knowledge_fingerprint(minds)}
    return Step(update, _asked(plan), update, "knowledge store")


def map_features(state: AgentState, minds: Collaborators) -> Step:
    """Say how each finding looks in this modality."""
    facts, session = _facts(state), _session(state, minds)
    plan = features.map_features(_plan(state), facts, session)
    ids = [fact.id for fact in facts]
    return _thought(plan, "features", ids, "signs", "cited", state=state, session=session)


def write_report(state: AgentState, minds: Collaborators) -> Step:
    """Write the report of what the image is to show."""
    session = _session(state, minds)
    plan = report.write_report(_plan(state), session)
    return _thought(plan, "report", plan.cited, "report", state=state, session=session)


def compose(state: AgentState, minds: Collaborators) -> Step:
    """Word what the generator is told, and plan the first round, control first.

    Raises:
        BadInput: The generator cannot draw this modality.
    """
    request, plan = _request(state), _plan(state)
    generator = minds.generator
    if plan.modality not in generator.modalities:
        raise BadInput(parser.explain_undrawable(plan.modality, list(generator.modalities)))
    panel = minds.panel  # loaded before anything is drawn, so that missing weights are said first
    minds.load_learned()
    composed = composer.compose(plan, _facts(state), describe=generator.reads_free_text)
    composed = composer.as_asked(composed, request)
    control = composer.as_asked(composer.control(request, plan), request)
    candidates = []
    for index in range(request.images):
        for number in range(max(request.candidates, 2)):
            told = composed if number else control
            # The first composed candidate shares the control's noise: the difference between the
            # two is what the reasoning gained.
            shared = number if number > 1 or composed == control else 0
            told = told.model_copy(update={"seed": noise_seed(request.seed, index, 1, shared)})
            name = candidate_id(index, 1, number)
            path = Path(state["folder"]) / CANDIDATES / f"{name}.png"
            candidates.append(
                Candidate(
                    id=name,
                    index=index,
                    round=1,
                    image=str(path),
                    conditioning=told,
                    control=number == 0,
                )
            )
    update = {
        "composed": _dump(composed),
        "generator": {
            "name": generator.name,
            "fingerprint": generator.fingerprint,
            "adapter": adapter_of(generator),
        },
        "panel": panel.fingerprint,
        "candidates": _dump_all(candidates),
        "round": 1,
    }
    outputs = {
        "composed": update["composed"],
        "control": _dump(control),
        "generator": update["generator"],
        "panel": update["panel"],
        "candidates": [candidate.id for candidate in candidates],
    }
    decided_by = plan.decided_by.get("composer", "rules")
    return Step(update, [*_asked(plan), *plan.cited], outputs, decided_by, round=1)


def generate(state: AgentState, minds: Collaborators) -> Step:
    """Draw this round's candidates.

    Raises:
        BadInput: A resumed run was begun with other weights than are loaded now.
    """
    generator, begun = minds.generator, state["generator"]
    if generator.fingerprint != begun["fingerprint"]:
        raise BadInput(
            f"run {state['run_id']} was begun with generator {begun['name']} "
            f"({begun['fingerprint'][:12]}), not {generator.name} ({generator.fingerprint[:12]}): "
            "load that one or start a new run"
        )
    pending = [one for one in candidates_of(state) if one.round == state["round"]]
    pictures = generator.sample([candidate.conditioning for candidate in pending])
    for candidate, pixels in zip(pending, pictures, strict=True):
        save_synthetic_png(candidate.image, pixels, _tags(state, candidate))
    outputs = {"images": [candidate.image for candidate in pending]}
    ids = [candidate.id for candidate in pending]
    return Step({}, ids, outputs, generator.name, round=state["round"])


def _tags(state: AgentState, candidate: Candidate) -> dict[str, str]:
    request = _request(state)
    return {
        "Prompt": request.prompt,
        "Drawn prompt": candidate.conditioning.prompt,
        "Seed": str(candidate.conditioning.seed),
        "Run seed": str(request.seed),
        # The part of the run id that is the same whenever the same is asked, so that bytes repeat.
        "Run": request_digest(request),
        "Generator": f"{state['generator']['name']} {state['generator']['fingerprint']}",
    }


def verify(state: AgentState, minds: Collaborators) -> Step:
    """Measure this round's candidates against the user's own prompt."""
    plan = _plan(state)
    candidates = candidates_of(state)
    verdicts: Dumped = {}
    for candidate in candidates:
        if candidate.round != state["round"]:
            continue
        image = load_image(candidate.image)
        pixels = np.array(square(image, max(image.size)))
        critique = minds.panel.verify(pixels, plan, generated=True)
        candidate.critique = critique
        verdicts[candidate.id] = {
            "accepted": critique.accepted,
            "score": critique.score,
            "findings": {one.finding: one.verdict for one in critique.findings},
            "rejections": critique.rejections,
            "corrections": [correction.text for correction in critique.corrections],
            "abstentions": critique.abstentions,
        }
    update = {"candidates": _dump_all(candidates)}
    return Step(update, list(verdicts), verdicts, "verifier panel", round=state["round"])


def select(state: AgentState, minds: Collaborators) -> Step:
    """Rank each image's candidates, decide, and note what the refiner's actions did."""
    request, seconds = _request(state), seconds_spent(state)
    state, decided_by = rewarded(state, minds)
    choices, trials = [], [Trial.model_validate(one) for one in state.get("trials", [])]
    settled = {one["index"]: Choice.model_validate(one) for one in state.get("choices", [])}
    for index in range(request.images):
        earlier = settled.get(index)
        if earlier is not None and earlier.decision != "refine":
            choices.append(earlier)
            continue
        candidates = candidates_of(state, index)
        choices.append(selector.choose(candidates, state["round"], request, seconds))
        trials += refiner.trials_of_round(candidates, state["round"])
    update = {"choices": _dump_all(choices), "trials": _dump_all(trials)}
    drawn = [one for one in candidates_of(state) if one.round == state["round"]]
    new = {candidate.id for candidate in drawn}
    outputs: Dumped = {
        "choices": update["choices"],
        "trials": [trial for trial in update["trials"] if trial["candidate"] in new],
    }
    if minds.reward is not None:
        update["candidates"] = state["candidates"]
        outputs["rewards"] = {one.id: one.reward for one in drawn}
    return Step(update, sorted(new), outputs, decided_by, round=state["round"])


def refine(state: AgentState, minds: Collaborators) -> Step:
    """Plan the next round for the images that are not settled."""
    request, round_number = _request(state), state["round"] + 1
    candidates = candidates_of(state)
    planned: list[Candidate] = []
    for choice in state["choices"]:
        if choice["decision"] != "refine":
            continue
        own = [one for one in candidates if one.index == choice["index"]]
        ids = {candidate.id for candidate in own}
        trials = [Trial.model_validate(one) for one in state["trials"]]
        planned += refiner.refine(
            _plan(state),
            Conditioning.model_validate(state["composed"]),
            own,
            [trial for trial in trials if trial.candidate in ids],
            seed=request.seed,
            round_number=round_number,
            count=request.candidates,
            folder=Path(state["folder"]) / CANDIDATES,
            guidance_scale=minds.settings.guidance_scale,
            steers=steers(minds.generator),
            policy=minds.prompt_policy,
        )
    update = {"candidates": _dump_all([*candidates, *planned]), "round": round_number}
    outputs: Dumped = {candidate.id: candidate.actions for candidate in planned}
    parents = sorted({candidate.parent or "" for candidate in planned})
    if minds.prompt_policy is None:
        return Step(update, parents, outputs, round=round_number)
    outputs["recipes"] = {one.id: _dump(one.tactic) for one in planned if one.tactic is not None}
    return Step(update, parents, outputs, minds.prompt_policy.name, round=round_number)


def record(state: AgentState, minds: Collaborators) -> Step:
    """Write the chosen images, marked if they were not accepted, and the report."""
    request, plan = _request(state), _plan(state)
    by_id = {candidate.id: candidate for candidate in candidates_of(state)}
    folder = Path(state["folder"])
    written = []
    for choice in [Choice.model_validate(dumped) for dumped in state["choices"]]:
        best = by_id[choice.best]
        tags = _tags(state, best)
        accepted = choice.decision == "accept"
        tags["Verdict"] = "accepted" if accepted else "rejected: best candidate"
        path = image_path(folder, choice.index, request.images)
        try:
            pixels = np.asarray(load_image(best.image))
        except BadInput as error:
            raise MedgenError(f"run {state['run_id']} lost its candidate: {error}") from error
        written.append(str(save_synthetic_png(path, pixels, tags)))
    text = run_report(state, report_markdown.render_markdown(plan, _facts(state)))
    text = text.replace("<", "&lt;")  # a prompt may hold HTML, and Markdown viewers render it
    written.append(str(write_atomic(folder / REPORT, text)))
    return Step({}, [choice["best"] for choice in state["choices"]], {"files": written})
