"""What a run is made with beside the request: settings, versions, fingerprints of what it uses.

Written into each run, so that another process can make it again, or say why it cannot.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from medgen.errors import BadInput
from medgen.feedback.prompt_policy import EXPLORE
from medgen.records import Setup
from medgen.settings import RUN_SETTINGS, Settings

if TYPE_CHECKING:
    from medgen.graphs.collaborators import Collaborators

PACKAGES = ("medgen", "torch", "diffusers", "numpy", "pillow")
DIGITS = 16


def current_setup(options: Settings) -> Setup:
    """The setup of a run that starts now with these settings."""
    from medgen.generator.backends import available_cores, chosen_adapter

    chosen = options.model_dump(mode="json", include=set(RUN_SETTINGS))
    chosen["threads"] = options.threads or available_cores()
    for name in ("weights", "tuned", "selector", "prompt_policy"):
        if chosen[name] not in (None, EXPLORE):
            chosen[name] = str(Path(chosen[name]).expanduser().resolve())
    adapter = chosen_adapter(options)  # which one is promoted may change before a replay
    chosen["adapter"] = "none" if adapter is None else str(adapter.resolve())
    versions = {name: metadata.version(name) for name in PACKAGES}
    return Setup(settings=chosen, versions={**versions, "python": platform.python_version()})


def settings_of(recorded: Mapping[str, object], options: Settings) -> Settings:
    """Settings with a run's recorded ones over those of this process.

    Raises:
        BadInput: They are not of this release.
    """
    if recorded == current_setup(options).settings:
        return options
    try:
        # Runs from before there were adapters, selectors and policies recorded none.
        none = {"adapter": "none", "selector": None, "prompt_policy": None}
        return Settings.model_validate({**options.model_dump(), **none, **recorded})
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise BadInput(
            f"the run's setting {name} cannot be used ({fault['msg']}): it was made by another "
            "release of medgen"
        ) from error


def knowledge_fingerprint(minds: Collaborators) -> str:
    """Hash (hex) of what is known: the store's own mark, and counts of what was imported."""
    store, cases = minds.store, minds.cases
    known = {
        "store": store.folder.name,
        "counts": store.counts(),
        "cases": [group.caption for group in cases.groups],
        "own cases": 0 if cases.own is None else len(cases.own),
    }
    content = json.dumps(known, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
