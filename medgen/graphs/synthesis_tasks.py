"""One task of a dataset: an agent run for one image, its nodes' own functions, without its graph.

The same nodes as in `medgen.graphs.agent` compose, select and refine; what differs is that the
drawing and the verifying of many tasks are done together by a worker, that states live in memory
and that every verified candidate (an "attempt") is told to the journal. A task's course follows
from the prompt, the seed and its candidates alone, so that a state is restored from its attempts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from medgen.agents.state import AgentState, Choice, candidates_of
from medgen.graphs import nodes
from medgen.graphs.agent import after_selection
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.plan import request_of
from medgen.graphs.synthesis_checks import measured_by
from medgen.graphs.synthesis_spec import Spec, Thresholds
from medgen.records import Candidate, Critique, Plan, Record, Request


class Task(Record):
    """One image to be made: what is asked, its seed, and whether the control is drawn too."""

    id: str
    prompt: str
    modality: str | None = None
    seed: int
    control: bool = True


class Reasoned(Record):
    """What the reasoning nodes concluded of a prompt: once, for all tasks that share it."""

    plan: dict[str, Any]
    facts: list[dict[str, Any]]


class Attempt(Record):
    """One candidate of a task, drawn and verified.

    `kept` says that it would do; then `descriptor` (hex of float16) is what it is compared by.
    """

    task: str
    attempt: int
    candidate: Candidate
    sha256: str
    width: int
    height: int
    kept: bool = False
    descriptor: str = ""


class TaskRun:
    """A task on its way: its state, and which candidates wait to be drawn.

    Args:
        task: What is asked.
        reasoned: The reasoning about its prompt.
        spec: Budget, steps, guidance and thresholds.
        minds: Of these, what draws, verifies, ranks and refines.
        folder: The task's own, where the nodes find its candidates' images.
        earlier: Attempts of an interrupted run, in order; their images lie in the folder.

    Raises:
        BadInput: The generator cannot draw this modality.
    """

    def __init__(
        self,
        task: Task,
        reasoned: Reasoned,
        spec: Spec,
        minds: Collaborators,
        folder: Path,
        earlier: list[Attempt],
    ) -> None:
        self.task, self._spec, self._minds = task, spec, minds
        self.choice: Choice | None = None
        request = asked(task, spec)
        self.state = cast(
            "AgentState",
            {
                "run_id": task.id,
                "folder": str(folder),
                "request": request.model_dump(mode="json"),
                "plan": reasoned.plan,
                "facts": reasoned.facts,
            },
        )
        plan, measurable = self.plan, measured_by(minds.panel)
        self._measurable = any(
            measurable(plan.modality, one.finding, plan.age_group) for one in plan.findings
        )
        self._update(nodes.compose(self.state, minds))
        if not task.control:
            drawn = [one for one in self.state["candidates"] if not one["control"]]
            self.state["candidates"] = drawn
        self._critiques = {one.candidate.id: one.candidate.critique for one in earlier}
        self.advance()

    def _update(self, step: nodes.Step) -> None:
        self.state.update(cast("AgentState", step.update))

    @property
    def plan(self) -> Plan:
        """What was concluded from the prompt."""
        return Plan.model_validate(self.state["plan"])

    @property
    def settled(self) -> bool:
        """Whether the selector accepted a candidate or gave up."""
        return self.choice is not None

    @property
    def accepted(self) -> Candidate | None:
        """The candidate of a settled task that is kept, if there is one."""
        if self.choice is None or self.choice.decision != "accept":
            return None
        return next(one for one in self.candidates if one.id == self.choice.best)

    def keeps(self, critique: Critique | None) -> bool:
        """Whether a candidate with this critique would do."""
        if critique is None:
            return False
        return fit(critique, self._spec.thresholds, self._measurable)

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates in the order drawn; attempt n is the n-th."""
        return candidates_of(self.state)

    def number(self, candidate: str) -> int:
        """Which attempt a candidate is, from 1."""
        return 1 + next(i for i, one in enumerate(self.candidates) if one.id == candidate)

    def waiting(self) -> list[Candidate]:
        """This round's candidates that are not verified yet."""
        return [one for one in self.candidates if one.critique is None]

    def judged(self, critique: Critique) -> Critique:
        """A critique with the specification's thresholds applied."""
        return bounded(critique, self._spec.thresholds, self._measurable)

    def verified(self, candidate: str, critique: Critique) -> None:
        """Take a judged critique of a candidate whose image lies in the folder."""
        self._critiques[candidate] = critique
        self._take()

    def _take(self) -> list[Candidate]:
        candidates = self.candidates
        for one in candidates:
            one.critique = one.critique or self._critiques.get(one.id)
        self.state["candidates"] = [one.model_dump(mode="json") for one in candidates]
        return candidates

    def advance(self) -> None:
        """Once the whole round is verified: select, and refine or settle."""
        while not self.settled and not any(one.critique is None for one in self._take()):
            self._update(nodes.select(self.state, self._minds))
            choice = Choice.model_validate(self.state["choices"][0])
            best = next(one for one in self.candidates if one.id == choice.best)
            if choice.decision != "accept" and self.keeps(best.critique):
                why = "kept although nothing that was asked can be measured"
                self.choice = choice.model_copy(update={"decision": "accept", "why": why})
            elif after_selection(self.state) == "refine":
                self._update(nodes.refine(self.state, self._minds))
            else:
                self.choice = choice


def asked(task: Task, spec: Spec) -> Request:
    """The request of a task, as the agent would be asked."""
    return request_of(
        task.prompt,
        task.modality,
        seed=task.seed,
        rounds=spec.budget.rounds,
        candidates=spec.budget.candidates,
        steps=spec.steps,
        guidance=spec.guidance,
    )


def fit(critique: Critique, thresholds: Thresholds, measurable: bool) -> bool:
    """Whether an image is kept: accepted, or not measurable by any check where that is enough.

    An image on which a check failed that measures others is not kept: it may be a bad one.
    """
    if critique.accepted is True:
        return True
    unknown = critique.accepted is None and not critique.rejections and not measurable
    return unknown and thresholds.unmeasured == "keep"


def bounded(critique: Critique, thresholds: Thresholds, measurable: bool) -> Critique:
    """A critique that rejects what the verifier would accept and the thresholds do not."""
    if not fit(critique, thresholds, measurable):
        return critique
    reasons = []
    quality = critique.quality.score if critique.quality else None
    sure = [one.confidence for one in critique.findings if one.verdict == "confirmed"]
    for name, value, least in (
        ("score", critique.score, thresholds.score),
        ("quality", quality, thresholds.quality),
        (
            "confidence",
            min((one for one in sure if one is not None), default=None),
            thresholds.confidence,
        ),
    ):
        if value is not None and value < least:
            reasons.append(f"{name} {value:.2f} under the specification's {least:.2f}")
    near, least_near = critique.nearest_training, thresholds.nearest_percentile
    if near is not None and least_near is not None and near.percentile < least_near:
        reasons.append(
            f"nearest training image at percentile {near.percentile:.1f}, under the "
            f"specification's {least_near:.1f}"
        )
    if not reasons:
        return critique
    rejections = [*critique.rejections, *reasons]
    return critique.model_copy(update={"accepted": False, "rejections": rejections})


def reason_about(prompt: str, modality: str | None, minds: Collaborators) -> Reasoned:
    """Run the reasoning nodes on a prompt.

    Raises:
        BadInput: It cannot be understood.
    """
    from medgen.graphs.plan import REASONING

    state: dict[str, Any] = {
        "request": request_of(prompt, modality).model_dump(mode="json"),
        "folder": "",
        "facts": [],
    }
    for node in REASONING:
        with minds.turn:
            state.update(node(cast("AgentState", state), minds).update)
    return Reasoned(plan=state["plan"], facts=state["facts"])
