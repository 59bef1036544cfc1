"""Which adapter draws when nothing else is said: a small registry in the user's data folder.

A promoted adapter is copied there, so that it outlives the run that made it; nothing is ever
overwritten, and taking one back leaves its files. There is one line of promotions for each base,
since an adapter fits its own base alone.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import Field, ValidationError

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.generator.adapter import base_hash, read_lineage
from medgen.generator.checkpoints import writing, writing_folder
from medgen.records import Record
from medgen.settings import settings

REGISTRY = "promoted.json"


class Promotion(Record):
    """An adapter in use: its id, the weights it sits on, where it is kept, since when (UTC)."""

    adapter: str
    base: str
    folder: str
    promoted: str


class Registry(Record):
    """Promotions by base, the newest last; the last one of a base is the one in use."""

    promotions: dict[str, list[Promotion]] = Field(default_factory=dict)


def adapters_folder() -> Path:
    """`MEDGEN_ADAPTERS`, else `medgen/adapters` in the user's data folder."""
    chosen = settings().adapters
    if chosen is not None:
        return chosen.expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "medgen" / "adapters"


def registry() -> Registry:
    """All promotions; none where nobody promoted anything.

    Raises:
        BadInput: The file is damaged.
    """
    path = adapters_folder() / REGISTRY
    try:
        return Registry.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Registry()
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"{path} cannot be read ({reason}): remove it, or set MEDGEN_ADAPTER=none"
        ) from error


def promoted(base: str) -> Promotion | None:
    """The adapter in use for a base (its `base_hash`)."""
    line = registry().promotions.get(base)
    return line[-1] if line else None


def promote(folder: Path) -> Promotion:
    """Make an adapter the one in use for its base.

    Raises:
        BadInput: No adapter in the folder, or it is in use already.
        MedgenError: It cannot be copied.
    """
    lineage = read_lineage(folder)
    root = adapters_folder()
    kept = root / lineage.id
    with writing(kept):
        root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{REGISTRY}.lock"):
        known = registry()
        line = known.promotions.get(lineage.base, [])
        if line and line[-1].adapter == lineage.id:
            raise BadInput(f"adapter {lineage.id} is promoted already: medgen rlhf status")
        if not kept.exists():
            with writing_folder(kept) as new:
                shutil.copytree(folder, new, dirs_exist_ok=True)
        one = Promotion(
            adapter=lineage.id,
            base=lineage.base,
            folder=str(kept),
            promoted=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        _write(root, known, lineage.base, [*line, one])
    return one


def rollback(base: str) -> Promotion | None:
    """Go back to what was in use for a base before; returns that, None for the bare base.

    Raises:
        BadInput: Nothing is promoted for it.
    """
    root = adapters_folder()
    if not promoted(base):
        raise BadInput(f"no adapter is promoted for the weights {base}: nothing to take back")
    with FileLock(root / f".{REGISTRY}.lock"):
        known = registry()
        line = known.promotions.get(base, [])[:-1]
        _write(root, known, base, line)
    return line[-1] if line else None


class PromotionStatus(Record):
    """Which adapter draws now (`using`: an id, "" for none) and why, and all promotions."""

    base: str
    using: str
    why: str
    registry: str
    promotions: list[Promotion] = Field(default_factory=list)


def current_base() -> str:
    """The `base_hash` of the generator that the settings name."""
    from medgen.generator.backends import BUNDLED

    return base_hash(settings().weights or BUNDLED)


def status() -> PromotionStatus:
    """Which adapter draws by the settings, and the promotions of the base that they name.

    Raises:
        BadInput: The adapter of the settings cannot be read, or the registry is damaged.
    """
    from medgen.generator.backends import chosen_adapter

    options, base = settings(), current_base()
    chosen = chosen_adapter(options)
    using = "" if chosen is None else read_lineage(chosen).id
    if options.backend != "compact":
        why = f"the backend is {options.backend}, which takes no adapter"
    elif options.adapter is not None:
        why = "MEDGEN_ADAPTER says so"
    else:
        why = "promoted" if using else "none is promoted"
    return PromotionStatus(
        base=base,
        using=using,
        why=why,
        registry=str(adapters_folder() / REGISTRY),
        promotions=registry().promotions.get(base, []),
    )


def _write(root: Path, known: Registry, base: str, line: list[Promotion]) -> None:
    changed = Registry(promotions={**known.promotions, base: line})
    with writing(root / REGISTRY):
        write_atomic(root / REGISTRY, changed.model_dump_json(indent=1) + "\n")
