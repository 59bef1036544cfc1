"""Shows runs and what happened in them: lists, trees, differences, replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from medgen.console.text import fold, note, one_line, print_paths

if TYPE_CHECKING:
    from medgen.graphs.replaying import Replay
    from medgen.graphs.runs import Trace
    from medgen.graphs.trace_diff import TraceDiff
    from medgen.records import Candidate, Critique, Finding, RunSummary, TraceEvent

MARKS = {True: ("accepted", "green"), False: ("rejected", "red"), None: ("not measured", "yellow")}
VERDICTS = {"confirmed": "green", "contradicted": "red", "abstain": "yellow"}
PIECES = {"same": "", "in": "green", "out": "red strike"}
LONGEST_VALUE = 300


def show_runs(runs: Sequence[RunSummary]) -> None:
    """Print a list of runs, one a line."""
    console = Console()
    if not runs:
        console.print(Text("no runs", style="yellow"))
        return
    table = Table()
    for column in ("run", "prompt", "modality", "outcome", "rounds", "seconds"):
        table.add_column(column, overflow="fold")
    for run in runs:
        table.add_row(
            fold(run.run_id),
            fold(run.prompt),
            fold(run.modality or ""),
            _outcome(run),
            "" if run.rounds is None else str(run.rounds),
            "" if run.seconds is None else f"{run.seconds:.1f}",
        )
    console.print(table)


def _outcome(run: RunSummary) -> Text:
    if run.status != "finished":
        return Text(run.status, style="yellow" if run.status == "unfinished" else "red")
    return Text(*MARKS[run.accepted])


def show_trace(trace: Trace) -> None:
    """Print a run as a tree: plan, facts, rounds with what was told, measured and decided."""
    run = trace.summary
    root = Tree(Text.assemble((one_line(run.prompt), "bold"), "  ", _outcome(run)))
    root.add(fold(f"run {run.run_id}, seed {run.seed}, drawn by {trace.generator or 'nobody yet'}"))
    if run.lineage is not None:
        changes = ", ".join(f"{name}={value}" for name, value in run.lineage.changes.items())
        where = f"forked from {run.lineage.parent} at {run.lineage.node}"
        root.add(fold(f"{where}: {changes or 'unchanged'}"))
    _plan(root, trace)
    facts = root.add(Text(f"retrieved facts ({len(trace.facts)})", style="bold"))
    cited = trace.plan.cited if trace.plan else []
    for fact in trace.facts:
        mark = f" [{cited.index(fact.id) + 1}]" if fact.id in cited else ""
        facts.add(
            Text.assemble(
                (f"{fact.score:.2f} ", "dim"), (one_line(fact.id), "cyan"), mark, "  "
            ).append_text(fold(fact.text))
        )
    _rounds(root, trace)
    _steps(root, trace.events)
    console = Console()
    console.print(root, highlight=False)
    print_paths(console, "image ", run.images)
    print_paths(console, "folder", [run.folder])


def _plan(root: Tree, trace: Trace) -> None:
    from medgen.graphs.outcome import phrase

    plan = trace.plan
    branch = root.add(Text("plan", style="bold"))
    if plan is None:
        branch.add("none yet")
        return
    branch.add(fold(f"modality: {plan.modality}"))
    for finding in plan.findings:
        signs = [sign.text for sign in plan.signs if sign.finding == finding.finding]
        about = "; ".join(filter(None, (finding.code, *signs)))
        branch.add(Text.assemble(fold(phrase(finding)), (f"  {one_line(about)}", "dim")))
    for warning in plan.warnings:
        branch.add(note(warning))
    for role, who in plan.decided_by.items():
        if who != "rules":
            branch.add(fold(f"{role} by {who}", "dim"))


def _rounds(root: Tree, trace: Trace) -> None:
    earlier = {one.id: one for one in trace.candidates}
    controls = {one.index: one for one in trace.candidates if one.control}
    decided = {event.round: event for event in trace.events if event.node == "select"}
    for number in sorted({one.round for one in trace.candidates}):
        branch = root.add(Text(f"round {number}", style="bold"))
        for candidate in trace.candidates:
            if candidate.round == number:
                before = earlier.get(candidate.parent or "") or controls.get(candidate.index)
                _candidate(branch, candidate, before)
        choices = decided[number].outputs.get("choices") if number in decided else None
        for choice in choices if isinstance(choices, list) else []:
            branch.add(
                Text.assemble(
                    (one_line(choice["decision"]), "bold"),
                    f" {one_line(choice['best'])}: ",
                    fold(choice["why"]),
                )
            )


def _candidate(branch: Tree, candidate: Candidate, before: Candidate | None) -> None:
    critique = candidate.critique
    name = f"{candidate.id}{' (the prompt as typed)' if candidate.control else ''}"
    head = Text(one_line(name), style="bold")
    if critique is not None:
        accepted = False if critique.rejections else critique.accepted
        head.append(f"  {MARKS[accepted][0]}, score {critique.score:.2f}", MARKS[accepted][1])
    node = branch.add(head)
    told = candidate.conditioning
    node.add(Text.assemble(("told  ", "dim"), _prompt(candidate, before)))
    numbers = ", ".join(f"{key}={value}" for key, value in told.structured.items())
    more = {"negative": told.negative_prompt, "numbers": numbers, "guidance": told.guidance_scale}
    for label, value in more.items():
        if value:
            node.add(Text.assemble((f"{label}  ", "dim"), fold(value)))
    for action in candidate.actions:
        node.add(Text.assemble(("changed  ", "dim"), fold(action)))
    if critique is not None:
        _critique(node, critique)


def _prompt(candidate: Candidate, before: Candidate | None) -> Text:
    """The prompt, marked where it differs from the candidate's that it came from."""
    from medgen.graphs.trace_html import prompt_difference

    prompt = candidate.conditioning.prompt
    if before is None or candidate.control:
        return fold(prompt)
    text = Text(overflow="fold")
    for kind, piece in prompt_difference(before.conditioning.prompt, prompt):
        mark = {"in": "+", "out": "-"}.get(kind, "")
        text.append(f"{mark}{one_line(piece)}{mark} ", PIECES[kind])
    return text


def _critique(node: Tree, critique: Critique) -> None:
    from medgen.graphs.outcome import phrase

    for finding in critique.findings:
        verdict = finding.verdict or "not measured"
        line = Text.assemble(fold(phrase(finding)), ": ", (verdict, VERDICTS.get(verdict, "dim")))
        node.add(line.append_text(_measurements(finding)))
    for reason in critique.rejections:
        node.add(Text.assemble(("rejected: ", "red"), fold(reason)))
    for correction in critique.corrections:
        node.add(Text.assemble(("to correct: ", "yellow"), fold(correction.text)))


def _measurements(finding: Finding) -> Text:
    from medgen.graphs.outcome import expected_range

    lines = []
    for one in finding.measurements:
        asked = expected_range(one)
        line = f"{one.name} {one.value:.3g} {one.unit}".rstrip()
        lines.append(f"{line} ({asked})" if asked else line)
    return Text.assemble("  ", fold("; ".join(lines), "dim"))


def _steps(root: Tree, events: Sequence[TraceEvent]) -> None:
    seconds, tokens = sum(one.seconds for one in events), sum(one.tokens or 0 for one in events)
    table = Table(box=None, pad_edge=False)
    for column in ("step", "seconds", "tokens", "decided by"):
        table.add_column(column, justify="right" if column in ("seconds", "tokens") else "left")
    for event in events:
        turn = "" if event.round is None else f" (round {event.round})"
        table.add_row(
            fold(f"{event.node}{turn}"),
            f"{event.seconds:.2f}",
            "" if event.tokens is None else str(event.tokens),
            fold(event.decided_by),
        )
    head = f"steps ({seconds:.1f} s, {tokens} tokens)"
    root.add(Text(head, style="bold")).add(table)


def show_diff(diff: TraceDiff) -> None:
    """Print what differs between two runs, part by part, and how long their nodes took."""
    console = Console()
    console.print(fold(f"a  {diff.a}"))
    console.print(fold(f"b  {diff.b}"))
    if diff.same:
        console.print(Text("nothing differs but the time", style="green"))
    table = Table()
    for column in ("part", "what", "a", "b"):
        table.add_column(column, overflow="fold")
    part = ""
    for one in diff.differences:
        shown = "" if one.part == part else one.part
        table.add_row(shown, fold(one.name), fold(_value(one.a)), fold(_value(one.b)))
        part = one.part
    if diff.differences:
        console.print(table)
    times = Table(title="seconds", title_justify="left", box=None, pad_edge=False)
    for column in ("node", "a", "b"):
        times.add_column(column, justify="left" if column == "node" else "right")
    for row in diff.seconds:
        times.add_row(fold(row.node), f"{row.a:.2f}", f"{row.b:.2f}")
    console.print(times)


def _value(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."


def show_replay(replay: Replay) -> None:
    """Print whether a replay drew the same, and where it did not."""
    console = Console()
    same = sum(image.identical for image in replay.images)
    for image in replay.images:
        if not image.identical:
            share, most = image.differing_pixels, image.largest_difference
            how = "missing" if share is None else f"{share:.2%} of pixels, by {most} at most"
            console.print(Text.assemble((f"differs  {one_line(image.name)}  ", "red"), how))
    if replay.first_difference is not None:
        console.print(fold(f"the first step that went another way: {replay.first_difference}"))
    for line in replay.notes:
        console.print(note(line))
    verdict = ("identical", "bold green") if replay.identical else ("different", "bold red")
    console.print(
        Text.assemble(verdict, f": {same} of {len(replay.images)} images byte for byte the same")
    )
    if replay.folder is not None:
        print_paths(console, "folder", [replay.folder])
