"""A dataset split into parts: no group in two of them, every label in its share, by a seed.

The parts are written to `splits.csv` (id, split) beside the manifest, which stays as it is; exports
and the datasheet follow it. Knows ids, groups and labels.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import groupby

from pydantic import Field

from medgen.data.dataset_folder import SPLITS, Dataset
from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.records import Record

DEFAULT = "train=0.8,val=0.1,test=0.1"
# A label whose part is further from its share than this many of its images is told of.
TOLERANCE = 1.5
Stratum = tuple[str, str]


class SplitReport(Record):
    """What `medgen dataset split --json` prints.

    `counts` are accepted images by split; `labels` by modality and label, then split; `notes`
    says which labels could not be given their shares, and why.
    """

    dataset: str
    file: str
    seed: int
    shares: dict[str, float]
    groups: int
    counts: dict[str, int] = Field(default_factory=dict)
    labels: dict[str, dict[str, int]] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


def parse_shares(text: str) -> dict[str, float]:
    """Shares such as "train=0.8,test=0.2".

    Raises:
        BadInput: A part is no NAME=SHARE, a name is twice, or they do not sum to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name.isidentifier() or not 0 < value <= 1 or name in shares:
            raise BadInput(f"--parts {part.strip()!r} is not NAME=SHARE, such as {DEFAULT}")
        shares[name] = value
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise BadInput(f"--parts sum to {sum(shares.values()):g}, not 1: such as {DEFAULT}")
    return shares


def split(
    dataset: Dataset, shares: Mapping[str, float], seed: int = 0, replace: bool = False
) -> SplitReport:
    """Assign every id to a split, groups whole and labels stratified, and write `splits.csv`.

    Args:
        dataset: Opened.
        shares: Split to share; they sum to 1.
        seed: Same seed and manifest, same splits.
        replace: Write over an earlier split.

    Raises:
        BadInput: The dataset is split already, or the file cannot be written.
    """
    target = dataset.folder / SPLITS
    if target.exists() and not replace:
        raise BadInput(f"{target} is there already: say --replace to split again")
    ids, strata = _read(dataset)
    assigned = assign(strata, shares, seed)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("id", "split"))
    lines.writerows((name, assigned[group]) for name, group in ids.items())
    try:
        write_atomic(target, text.getvalue())
    except OSError as error:
        raise BadInput(f"cannot write {target} ({error.strerror})") from error
    return _report(dataset, strata, assigned, shares, seed)


def assign(
    strata: Mapping[str, Counter[Stratum]], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """The split of each group.

    Groups are taken largest first, in an order of the seed's among equals; each goes where its
    labels lack most images, counted over its labels and, with less weight, over all.

    Args:
        strata: Of each group, how many images of which modality and label.
        shares: Split to share.
        seed: Of the order.
    """
    total: Counter[Stratum] = Counter()
    for counts in strata.values():
        total.update(counts)
    need = {
        name: {key: share * count for key, count in total.items()} for name, share in shares.items()
    }
    need_all = {name: share * total.total() for name, share in shares.items()}
    weight = 1 / max(1, len(total))
    order = sorted(strata, key=lambda group: (-strata[group].total(), _rank(group, seed)))
    assigned = {}
    for group in order:
        counts = strata[group]
        size = counts.total()
        chosen = max(
            shares,
            key=lambda name: (
                sum(count * need[name][key] for key, count in counts.items())
                + weight * size * need_all[name],
                shares[name],
            ),
        )
        assigned[group] = chosen
        need_all[chosen] -= size
        for key, count in counts.items():
            need[chosen][key] -= count
    return assigned


def _rank(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()


def _read(dataset: Dataset) -> tuple[dict[str, str], dict[str, Counter[Stratum]]]:
    """The group of each id, and the accepted images of each group by modality and label."""
    ids: dict[str, str] = {}
    strata: dict[str, Counter[Stratum]] = defaultdict(Counter)
    for name, rows in groupby(dataset.rows(), key=lambda row: row.id):
        for row in rows:
            ids[name] = row.group
            strata[row.group][row.modality, row.label] += row.kept
    return ids, strata


def _report(
    dataset: Dataset,
    strata: Mapping[str, Counter[Stratum]],
    assigned: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
) -> SplitReport:
    counts: Counter[str] = Counter(dict.fromkeys(shares, 0))
    labels: dict[Stratum, Counter[str]] = defaultdict(lambda: Counter(dict.fromkeys(shares, 0)))
    groups_of: Counter[Stratum] = Counter()
    for group, held in strata.items():
        for key, count in held.items():
            counts[assigned[group]] += count
            labels[key][assigned[group]] += count
            groups_of[key] += count > 0
    notes = []
    for (modality, label), by in sorted(labels.items()):
        off = max(abs(by[name] - shares[name] * by.total()) for name in shares)
        if off > TOLERANCE:
            told = ", ".join(f"{name} {by[name]}" for name in shares)
            notes.append(
                f"{modality}: {label}: {told}, off its shares, for its {by.total()} images are in "
                f"{groups_of[modality, label]} groups"
            )
    return SplitReport(
        dataset=str(dataset.folder),
        file=str(dataset.folder / SPLITS),
        seed=seed,
        shares=dict(shares),
        groups=len(strata),
        counts=dict(counts),
        labels={
            f"{modality}: {label}": dict(by) for (modality, label), by in sorted(labels.items())
        },
        notes=notes,
    )
