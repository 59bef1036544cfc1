"""medgen as tools for other agents, by the Model Context Protocol.

Verdicts come as text for the model that reads them and as the project's records for programs,
images as image content. The tools are the same agent as the command line's; errors of the input
come back as the one line that the command would print.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from anyio import from_thread
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ContentBlock, TextContent
from pydantic import Field

from medgen.agents.parser import LONGEST_REPORT
from medgen.data.images import SYNTHETIC_NOTICE
from medgen.errors import BadInput, MedgenError
from medgen.graphs.agent import Agent
from medgen.graphs.outcome import expected_range, phrase
from medgen.graphs.results import RunResult, load
from medgen.graphs.runs import find_run, list_runs
from medgen.graphs.verify import verify
from medgen.records import Finding, Plan, Record, Run, RunSummary, Verification
from medgen.serve.schemas import MAX_SEED
from medgen.serve.views import addressed

INSTRUCTIONS = f"""medgen draws synthetic medical images from a request such as "cardiomegaly, chest
X-ray", measures in each whether it shows what was asked, and refines what falls short. A verdict is
confirmed, contradicted, or abstain where nothing can be measured. {SYNTHETIC_NOTICE}"""
MOST_SHOWN = 4
IMAGE_CHARACTERS = 3_000_000
ACCEPTED = {
    True: "accepted",
    False: "not accepted",
    None: "not accepted, for nothing that was asked can be measured",
}

Prompt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_REPORT,
        description='What to draw or look for, such as "cardiomegaly, chest X-ray".',
    ),
]
Modality = Annotated[
    str | None,
    Field(max_length=100, description="Modality, over the one that the prompt names."),
]


class RunsFound(Record):
    """Runs, newest first."""

    runs: list[RunSummary]


class Tools:
    """The tools, each a method that a model may call.

    Args:
        agent: What draws.
        local: Whether the client is on this machine, and may name files.
    """

    def __init__(self, agent: Agent, local: bool) -> None:
        self._agent, self._local = agent, local

    def generate_verified_image(
        self,
        prompt: Prompt,
        context: Context[Any, Any],
        modality: Modality = None,
        seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="Same seed, same image.")] = 0,
        images: Annotated[int, Field(ge=1, le=MOST_SHOWN)] = 1,
        rounds: Annotated[int | None, Field(ge=1, le=8, description="Of drawing.")] = None,
        candidates: Annotated[int | None, Field(ge=1, le=8, description="A round.")] = None,
    ) -> Annotated[CallToolResult, Run]:
        """Draw synthetic images of a request, each measured against it and refined.

        Takes seconds to minutes. Answers with the verdict of each image, what was measured, and
        the images; one that was not accepted is the best there was, and marked so.
        """
        done = 0

        def started(node: str) -> None:
            nonlocal done
            from_thread.check_cancelled()
            done += 1
            from_thread.run(context.report_progress, done, None, node.replace("_", " "))

        run = self._agent.run(
            prompt,
            modality,
            seed=seed,
            images=images,
            rounds=rounds,
            candidates=candidates,
            on_start=started,
        )
        return self._answer(run)

    def plan(self, prompt: Prompt, modality: Modality = None) -> Plan:
        """What would be drawn and why: findings, anatomy, signs, measurements, report.

        Draws nothing.
        """
        return self._agent.plan(prompt, modality)

    def verify_image(
        self,
        image_base64: Annotated[
            str | None, Field(max_length=IMAGE_CHARACTERS, description="A PNG or JPEG file.")
        ] = None,
        path: Annotated[
            str | None, Field(max_length=4096, description="A file on the server's machine.")
        ] = None,
        prompt: Annotated[
            str | None, Field(max_length=LONGEST_REPORT, description="What it should show.")
        ] = None,
        modality: Modality = None,
    ) -> Verification:
        """Measure an image: modality, quality, and whether it shows what a prompt asks.

        Give either `image_base64` or, where the server runs on your own machine, `path`.
        """
        if (image_base64 is None) == (path is None):
            raise BadInput("give either image_base64 or path")
        minds = self._agent.collaborators
        if path is not None:
            if not self._local:
                raise BadInput("this server reads no files: send image_base64")
            if not Path(path).is_file():
                raise BadInput(f"no image at {path}: check the path")
            return next(verify(path, prompt, modality, collaborators=minds))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image"
            file.write_bytes(_decoded(image_base64 or ""))
            try:
                found = next(verify(file, prompt, modality, collaborators=minds))
            except BadInput as error:
                raise BadInput(str(error).replace(str(file), "the image")) from error
        return found.model_copy(update={"path": "image_base64"})

    def list_runs(
        self,
        search: Annotated[str, Field(max_length=200, description="Words of the prompt.")] = "",
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
    ) -> RunsFound:
        """Earlier runs, newest first, with their prompts and verdicts."""
        found = list_runs(search=search)[:limit]
        if not self._local:
            found = [
                RunSummary.model_validate(
                    addressed(run.model_dump(mode="json"), run.folder, run.run_id)
                )
                for run in found
            ]
        return RunsFound(runs=found)

    def get_run(
        self, run_id: Annotated[str, Field(max_length=100, description="Or its beginning.")]
    ) -> Annotated[CallToolResult, Run]:
        """A finished run: its verdicts, what was measured, and its images."""
        return self._answer(load(find_run(run_id).path))

    def _answer(self, run: RunResult) -> CallToolResult:
        """A run as text and images for a model, and as a record for a program.

        Paths are for clients on this machine; others get names.
        """
        content: list[ContentBlock] = [TextContent(type="text", text=run_text(run))]
        for path in run.images[:MOST_SHOWN]:
            content.append(Image(path=path, format="png").to_image_content())
        record: dict[str, Any] = run.model_dump(mode="json")
        if not self._local:
            record = addressed(record, str(run.folder), run.run_id)
        return CallToolResult(content=content, structured_content=record)


def tool_server(agent: Agent | None = None, local: bool = True) -> MCPServer[Any]:
    """The server with its tools.

    Args:
        agent: What draws; one with this process's own models when None.
        local: Whether its client is on this machine, and may name files.
    """
    server: MCPServer[Any] = MCPServer(
        "medgen", version=version("medgen"), instructions=INSTRUCTIONS, log_level="WARNING"
    )
    tools = Tools(agent or Agent(), local)
    for tool in (
        tools.generate_verified_image,
        tools.plan,
        tools.verify_image,
        tools.list_runs,
        tools.get_run,
    ):
        server.tool()(_told_in_a_line(tool))
    return server


def _told_in_a_line(tool: Callable[..., Any]) -> Callable[..., Any]:
    """A tool whose deliberate errors reach the model as they are."""

    @wraps(tool)
    def told(*arguments: Any, **named: Any) -> Any:
        try:
            return tool(*arguments, **named)
        except MedgenError as error:
            raise ToolError(str(error)) from error

    return told


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"image_base64 is not base64 ({error}): encode the file's bytes") from error


def run_text(run: RunResult) -> str:
    """What came of a run, for a model to read."""
    lines = [f"Run {run.run_id}: {run.request.prompt}", SYNTHETIC_NOTICE]
    for number, result in enumerate(run.results, 1):
        lines.append(f"Image {number}: {ACCEPTED[result.accepted]}.")
        lines += _findings(result.findings)
        lines.append(
            f"Its control (the prompt as typed, same noise): {ACCEPTED[result.control.accepted]}."
        )
    if len(run.images) > MOST_SHOWN:
        lines.append(f"The first {MOST_SHOWN} of {len(run.images)} images are shown.")
    return "\n".join(lines)


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        measured = "; ".join(
            f"{one.name.replace('_', ' ')} {one.value:.3g}"
            f"{'' if one.name.endswith(one.unit) else ' ' + one.unit}"
            f"{', expected ' + expected_range(one) if expected_range(one) else ''}"
            f"{' (' + one.accuracy + ')' if one.accuracy else ''}"
            for one in finding.measurements
        )
        verdict = finding.verdict or "abstain"
        lines.append(f"- {phrase(finding)}: {verdict}; {measured or 'not measured'}")
    return lines
