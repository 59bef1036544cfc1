"""Small datasets for tests: fixtures with noise for pictures, written as the product writes them.

The pictures are no drawings of the generator; their rows say so.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from medgen.data.dataset_rows import Row, write_manifest
from medgen.data.images import png_bytes, write_atomic
from medgen.records import Finding, Measurement, Plan

SIDE = 32
RATIO = "MAE 0.016 on 120 films (fixture)"
CHEST, FUNDUS = "Chest X-ray", "Fundus"


def pixels(number: int, color: bool = False) -> np.ndarray:
    """(32, 32, 3) uint8: smooth noise that no two numbers share."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    if not color:
        coarse = np.repeat(coarse[..., :1], 3, axis=2)
    return np.kron(coarse, np.ones((4, 4, 1), dtype=np.uint8))


def cardiomegaly(verdict: str = "confirmed", ratio: float = 0.58) -> Finding:
    """As asked and measured."""
    measured = Measurement(
        name="cardiothoracic_ratio",
        value=ratio,
        unit="ratio",
        expected=(0.5, None),
        check="cardiothoracic ratio",
        accuracy=RATIO,
    )
    return Finding.model_validate(
        {
            "finding": "cardiomegaly",
            "code": "HP:0001640",
            "severity": "mild",
            "verdict": verdict,
            "confidence": 0.93 if verdict == "confirmed" else 0.8,
            "measurements": [measured],
        }
    )


def effusion() -> Finding:
    """Asked on a side and measured by no check."""
    return Finding(
        finding="pleural effusion", code="RADLEX:RID34539", side="left", verdict="abstain"
    )


def row(
    folder: Path,
    name: str,
    number: int,
    *,
    attempt: int = 1,
    kept: bool = True,
    findings: list[Finding] | None = None,
    modality: str = CHEST,
    picture: np.ndarray | None = None,
    **more: object,
) -> Row:
    """Write one picture into a dataset's folder and describe it."""
    shard = hashlib.sha256(name.encode()).hexdigest()[:2]
    path = f"images/{shard}/{name}.png" if kept else f"rejected/{shard}/{name}_{attempt}.png"
    if picture is None:
        picture = pixels(number, modality == FUNDUS)
    data = png_bytes(picture, {"Fixture": "no drawing of the generator"})
    write_atomic(folder / path, data)
    findings = findings or []
    label = "; ".join(one.finding for one in findings) or "normal"
    prompt = f"{label}, {modality}"
    values = {
        "id": name,
        "attempt": attempt,
        "path": path,
        "accepted": kept,
        "reasons": [] if kept else ["blurred (0.31)", "cardiomegaly: contradicted"],
        "modality": modality,
        "prompt": prompt,
        "drawn_prompt": prompt,
        "label": label,
        "findings": findings,
        "codes": [one.code for one in findings if one.code],
        "plan": Plan(prompt=prompt, modality=modality, findings=findings),
        "severity": "mild" if findings else None,
        "view": "PA" if modality == CHEST else None,
        "age": 61.0,
        "sex": "female",
        "nearest_distance": 0.3 + number % 50 / 100,
        "nearest_percentile": 40.0,
        "score": 0.8,
        "control_score": 0.6,
        "seed": number,
        "steps": 20,
        "guidance": 1.6,
        "rounds": 1,
        "generator": "fixture",
        "verifier": "fixture",
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": picture.shape[1],
        "height": picture.shape[0],
        "group": f"group {number // 2}",
    }
    return Row.model_validate({**values, **more})


def write_dataset(folder: Path, films: int = 4, fundi: int = 2, prefix: str = "task") -> Path:
    """A dataset of films with and without cardiomegaly, fundi, and one rejected film.

    Args:
        folder: To be made.
        films: Half of them with cardiomegaly and effusion.
        fundi: All normal.
        prefix: Of the ids, and of the seeds of the noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = int(hashlib.sha256(prefix.encode()).hexdigest()[:6], 16)
    rows = []
    for number in range(films):
        asked = [cardiomegaly(), effusion()] if number % 2 else []
        rows.append(row(folder, f"{prefix}-{number:03d}", first + number, findings=asked))
    for number in range(films, films + fundi):
        rows.append(row(folder, f"{prefix}-{number:03d}", first + number, modality=FUNDUS))
    rows.append(
        row(
            folder,
            f"{prefix}-rejected",
            first + 999,
            kept=False,
            findings=[cardiomegaly("contradicted", 0.41)],
        )
    )
    write_manifest(folder, sorted(rows, key=lambda one: (one.id, one.attempt)))
    origin = {"format": 1, "seed": 7, "medgen": "0.1.0", "created": "2026-01-02T03:04:05+00:00"}
    write_atomic(folder / "dataset.json", json.dumps(origin))
    return folder
