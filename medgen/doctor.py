"""What is installed, what loads, what is missing, and what to do about it.

Each part is tried for real (weights are read, the generator and the verifier are loaded, the store
is opened), so that "ok" means it works here. Knows the parts, not how they do their work.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Literal

from medgen.errors import MedgenError
from medgen.records import Record

State = Literal["ok", "missing", "broken"]
ASK_THE_MODEL = "start its server, or check MEDGEN_LLM, OPENAI_BASE_URL and the provider's key"
REINSTALL = "reinstall medgen from a complete checkout: pip install ."


class Part(Record):
    """One thing looked at.

    `required` parts decide whether the default path works; `remedy` says what to do, empty when
    nothing needs doing.
    """

    name: str
    state: State
    required: bool = True
    detail: str = ""
    remedy: str = ""


class WeightsFolder(Record):
    """A folder of bundled weights: where, how large in bytes, and what identifies it.

    `fingerprint` is the SHA-256 (hex) over the folder's weights files in the order of their names.
    """

    path: str
    bytes: int
    files: list[str]
    fingerprint: str
    loads: bool
    card: bool


class Diagnosis(Record):
    """What `medgen doctor --json` prints; `ok` is true when the default path works."""

    ok: bool
    version: str
    parts: list[Part]
    weights: list[WeightsFolder]


def weights_folders(root: Path | None = None) -> list[Path]:
    """Every folder named `weights`, and each of its subfolders that holds weights files.

    Args:
        root: Where to look; the installed package when not given.
    """
    root = root or Path(str(resources.files("medgen")))
    found = {
        path.parent
        for folder in root.rglob("weights")
        if folder.is_dir()
        for pattern in ("*.safetensors", "*.faiss")
        for path in folder.rglob(pattern)
    }
    return sorted(found)


def _loads(path: Path) -> bool:
    import numpy as np

    try:
        if path.suffix == ".faiss":
            import faiss

            return bool(faiss.read_index(str(path)).ntotal > 0)
        from safetensors.numpy import load_file

        tensors = load_file(path)
    except Exception:
        # Whatever a reader raises on a damaged file, the answer is the same.
        return False
    return bool(tensors) and all(
        np.isfinite(array).all() for array in tensors.values() if array.dtype.kind == "f"
    )


def inspect_weights(folder: Path, root: Path | None = None) -> WeightsFolder:
    """Read every weights file of a folder: size, fingerprint, whether all of it loads.

    The model card may lie in the folder itself or in a parent up to the `weights` folder.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".faiss"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    carded = [folder]
    while carded[-1].name != "weights" and carded[-1] != carded[-1].parent:
        carded.append(carded[-1].parent)
    return WeightsFolder(
        path=str(folder.resolve()),
        bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        files=[path.name for path in files],
        fingerprint=digest.hexdigest(),
        loads=all(_loads(path) for path in files),
        card=any((parent / "MODEL_CARD.md").is_file() for parent in carded),
    )


def _python() -> Part:
    required = metadata.metadata("medgen")["Requires-Python"]
    return Part(
        name="python",
        state="ok",
        detail=f"{platform.python_version()} (needs {required}) at {sys.executable}, "
        f"{platform.system()} {platform.machine()}",
    )


def _packages() -> Part:
    names = [
        re.split(r"[\s;<>=!~\[]", requirement, maxsplit=1)[0]
        for requirement in metadata.requires("medgen") or []
        if "extra ==" not in requirement
    ]
    versions, absent = [], []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        return Part(
            name="packages",
            state="missing",
            detail="not installed: " + ", ".join(absent),
            remedy="pip install " + " ".join(absent),
        )
    return Part(name="packages", state="ok", detail=", ".join(versions))


def _device() -> Part:
    import torch

    from medgen.settings import settings

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = settings().threads or cores
    if torch.cuda.is_available():
        device = f"cuda ({torch.cuda.get_device_name(0)})"
    elif torch.backends.mps.is_available():
        device = "mps"
    else:
        device = "cpu"
    return Part(
        name="device",
        state="ok",
        detail=f"{device}; {cores} processor cores, {threads} threads for torch",
    )


def _runs() -> Part:
    from medgen.settings import settings

    folder = settings().runs.absolute()
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        return Part(name="runs folder", state="ok", detail=str(folder))
    return Part(
        name="runs folder",
        state="broken",
        detail=f"{folder} cannot be written",
        remedy="set MEDGEN_RUNS to a folder that you may write to, or pass --out",
    )


def _generator() -> Part:
    from medgen.generator.backends import load_generator
    from medgen.settings import settings

    generator = load_generator(settings())
    return Part(
        name="generator",
        state="ok",
        detail=f"{generator.name} ({generator.fingerprint[:12]}), draws "
        + ", ".join(generator.modalities),
    )


def _adapter() -> Part:
    from medgen.generator.promotion import status

    found = status()
    now = f"{found.using} draws ({found.why})" if found.using else f"none draws ({found.why})"
    kept = f"; {len(found.promotions)} promoted for these weights, {found.registry}"
    return Part(
        name="adapter",
        state="ok",
        required=False,
        detail=now + (kept if found.promotions else ""),
    )


def _verifier() -> Part:
    from medgen.graphs.collaborators import Collaborators

    return Part(name="verifier", state="ok", detail=f"{type(Collaborators().panel).__name__} loads")


def _knowledge() -> Part:
    from medgen.graphs.collaborators import Collaborators

    store = Collaborators().store
    return Part(name="knowledge", state="ok", detail=f"store open in {store.folder}")


def _cases() -> Part:
    from medgen.graphs.collaborators import Collaborators

    return Part(name="cases", state="ok", detail=f"{type(Collaborators().cases).__name__} loads")


def _reasoning() -> Part:
    from medgen.agents.chat_model import GREETING, Greeting, NoAnswer
    from medgen.agents.llm import load_model
    from medgen.settings import settings

    model = load_model(settings())
    if model is None:
        detail = "rules and the knowledge base; MEDGEN_LLM=PROVIDER:MODEL adds a language model"
        return Part(name="reasoning", state="ok", required=False, detail=detail)
    started = time.monotonic()
    try:
        reply = model.ask(GREETING, Greeting)
    except NoAnswer as error:
        return Part(
            name="reasoning",
            state="broken",
            required=False,
            detail=f"rules alone: {model.name}: {error}",
            remedy=ASK_THE_MODEL,
        )
    seconds = time.monotonic() - started
    kept = "" if reply.record else ", but not in the form it was asked for (see MEDGEN_LLM_METHOD)"
    detail = f"rules, and {model.name} answers in {seconds:.1f} s{kept}"
    return Part(name="reasoning", state="ok", required=False, detail=detail)


def _big_generator() -> Part:
    from medgen.settings import settings

    chosen = settings().backend.startswith("diffusers:")
    return Part(
        name="diffusers backend",
        state="ok",
        required=False,
        detail=f"diffusers {metadata.version('diffusers')}, "
        + ("chosen" if chosen else "not chosen: MEDGEN_BACKEND=diffusers:FOLDER chooses it"),
    )


LOOKS: dict[str, tuple[Callable[[], Part], str]] = {
    "python": (_python, REINSTALL),
    "packages": (_packages, REINSTALL),
    "device": (_device, "pip install torch"),
    "runs folder": (_runs, "check the MEDGEN_* variables and medgen.toml"),
    "generator": (_generator, f"check MEDGEN_BACKEND and MEDGEN_WEIGHTS, or {REINSTALL}"),
    "adapter": (_adapter, "medgen rlhf status, or set MEDGEN_ADAPTER=none"),
    "verifier": (_verifier, REINSTALL),
    "knowledge": (_knowledge, "medgen knowledge build, or check MEDGEN_KNOWLEDGE"),
    "cases": (_cases, REINSTALL),
    "reasoning": (_reasoning, ASK_THE_MODEL),
    "diffusers backend": (_big_generator, "pip install diffusers"),
}
"""What is looked at, in order, and what to do when looking fails."""


def look(name: str) -> Part:
    """Look at one part of `LOOKS`; never raises for what it finds."""
    return tried(name, *LOOKS[name])


def tried(name: str, look_at: Callable[[], Part], remedy: str) -> Part:
    """What `look_at` found, or a part that says why it failed."""
    try:
        return look_at()
    except MedgenError as error:
        return Part(name=name, state="missing", detail=str(error), remedy=remedy)
    except Exception as error:
        # The doctor's work is to report whatever goes wrong, so nothing may stop it.
        detail = f"{type(error).__name__}: {error}"
        return Part(name=name, state="broken", detail=detail, remedy=remedy)


def works(parts: Iterable[Part]) -> bool:
    """Whether the default path works: every required part is ok."""
    return all(part.state == "ok" for part in parts if part.required)


def _weights_parts(folders: list[WeightsFolder]) -> Iterator[Part]:
    package = Path(str(resources.files("medgen"))).resolve()
    for folder in folders:
        place = Path(folder.path)
        name = str(place.relative_to(package)) if place.is_relative_to(package) else folder.path
        yield Part(
            name=f"weights {name}",
            state="ok" if folder.loads else "broken",
            detail=f"{folder.bytes / 1e6:.1f} MB, {len(folder.files)} file(s), "
            f"sha256 {folder.fingerprint[:12]}"
            + ("" if folder.loads else "; a file does not load")
            + ("" if folder.card else "; no MODEL_CARD.md"),
            remedy="" if folder.loads else REINSTALL,
        )


def diagnose() -> Diagnosis:
    """Look at everything; never raises for what it finds."""
    folders = [inspect_weights(folder) for folder in weights_folders()]
    parts = [*(look(name) for name in LOOKS), *_weights_parts(folders)]
    return Diagnosis(
        ok=works(parts), version=metadata.version("medgen"), parts=parts, weights=folders
    )
