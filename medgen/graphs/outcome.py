"""What came out of a run: the `Run` record and the measured half of the report, from the state.

Reads the state and nothing else, so that an outcome can be told again at any time.
"""

from __future__ import annotations

from pathlib import Path

from medgen.agents.selector import critique_of
from medgen.agents.state import AgentState, Choice, candidates_of, seconds_spent
from medgen.data.images import SYNTHETIC_NOTICE
from medgen.graphs.results import RunResult
from medgen.graphs.run_folder import TRACE_LINES, image_path
from medgen.records import (
    Candidate,
    ControlResult,
    Finding,
    ImageResult,
    Measurement,
    Request,
)


def _results(state: AgentState) -> list[ImageResult]:
    request = Request.model_validate(state["request"])
    results = []
    for choice in [Choice.model_validate(dumped) for dumped in state["choices"]]:
        candidates = candidates_of(state, choice.index)
        best = next(one for one in candidates if one.id == choice.best)
        control = next(one for one in candidates if one.control)
        path = image_path(Path(state["folder"]), choice.index, request.images)
        results.append(
            ImageResult(
                image=str(path),
                accepted=_accepted(best),
                candidate=best.id,
                findings=critique_of(best).findings,
                control=ControlResult(
                    accepted=_accepted(control),
                    image=control.image,
                    findings=critique_of(control).findings,
                ),
            )
        )
    return results


def _accepted(candidate: Candidate) -> bool | None:
    critique = critique_of(candidate)
    return False if critique.rejections else critique.accepted


def _accepted_all(results: list[ImageResult]) -> bool | None:
    verdicts = {result.accepted for result in results}
    if verdicts == {True}:
        return True
    return False if False in verdicts else None


def conclude(state: AgentState) -> RunResult:
    """The record of a run whose every image is settled."""
    results = _results(state)
    return RunResult(
        run_id=state["run_id"],
        accepted=_accepted_all(results),
        images=[result.image for result in results],
        findings=results[0].findings,
        control=results[0].control,
        rounds=state["round"],
        candidates=len(state["candidates"]),
        seconds=round(seconds_spent(state), 3),
        trace=str(Path(state["folder"]) / TRACE_LINES),
        results=results,
    )


def expected_range(measurement: Measurement) -> str:
    """The range that would confirm the request, in words; empty where there is none."""
    if measurement.expected is None:
        return ""
    low, high = measurement.expected
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low:.3g}"
    if low is None:
        return f"at most {high:.3g}"
    return f"{low:.3g} to {high:.3g}"


def phrase(finding: Finding) -> str:
    """A finding as a person would name it, side and severity first."""
    words = (finding.severity, finding.side, finding.finding)
    name = " ".join(word for word in words if word)
    return name if finding.status == "present" else f"{name} ({finding.status})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _findings_table(findings: list[Finding]) -> list[str]:
    lines = [
        "| finding | verdict | measured | expected | check and its accuracy |",
        "| --- | --- | --- | --- | --- |",
    ]
    for finding in findings:
        verdict = finding.verdict or "abstain"
        if not finding.measurements:
            lines.append(f"| {_cell(phrase(finding))} | {verdict} | not measured | | |")
        for measurement in finding.measurements:
            unit = f" {measurement.unit}" if measurement.unit else ""
            check = measurement.check
            if measurement.accuracy:
                check += f" ({measurement.accuracy})"
            cells = (
                phrase(finding),
                verdict,
                f"{measurement.name} {measurement.value:.3g}{unit}",
                expected_range(measurement),
                check,
            )
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return lines


def _decided(choices: list[Choice]) -> str:
    rejected = [choice for choice in choices if choice.decision != "accept"]
    if not rejected:
        return "**Accepted**: the image shows what was asked, as far as it was measured."
    if len(choices) == 1:
        return f"**Rejected: best candidate.** {_cell(rejected[0].why)}."
    return f"**Rejected: {len(rejected)} of {len(choices)} images are best candidates only.**"


def run_report(state: AgentState, planned: str) -> str:
    """The whole report: what was decided, the plan's report, and what was measured.

    Args:
        state: With every image settled.
        planned: The plan as Markdown, its first line a title.
    """
    choices = [Choice.model_validate(dumped) for dumped in state["choices"]]
    title, _, rest = planned.partition("\n")
    head = [title, "", SYNTHETIC_NOTICE, "", _decided(choices), ""]
    return "\n".join(head) + rest.rstrip() + "\n" + _measured(state)


def _measured(state: AgentState) -> str:
    results = _results(state)
    lines = ["", "## What was measured", ""]
    choices = [Choice.model_validate(dumped) for dumped in state["choices"]]
    for choice, result in zip(choices, results, strict=True):
        if len(results) > 1:
            lines += [f"### {Path(result.image).name}", ""]
        word = "Accepted" if choice.decision == "accept" else "Rejected: best candidate"
        lines += [f"**{word}** ({_cell(choice.why)}).", ""]
        if result.findings:
            lines += [*_findings_table(result.findings), ""]
        best = next(one for one in candidates_of(state, choice.index) if one.id == choice.best)
        lines += [f"- not measured: {_cell(line)}" for line in critique_of(best).abstentions]
        lines += [""] if critique_of(best).abstentions else []
        control = {True: "accepted", False: "not accepted", None: "not accepted, not measurable"}
        lines += [
            f"The control (the prompt as typed, unrefined, same noise) was "
            f"{control[result.control.accepted]}.",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"
