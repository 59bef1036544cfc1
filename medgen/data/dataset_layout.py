"""Where a dataset's images lie in its folder; all names are POSIX and relative to it."""

from __future__ import annotations

import hashlib

IMAGES, REJECTED = "images", "rejected"


def shard(task: str) -> str:
    """The two first hex digits of the SHA-256 of a task's id: its images' folder."""
    return hashlib.sha256(task.encode()).hexdigest()[:2]


def image_name(task: str) -> str:
    """Where a task's accepted image lies."""
    return f"{IMAGES}/{shard(task)}/{task}.png"


def rejected_name(task: str, attempt: int) -> str:
    """Where a rejected candidate lies."""
    return f"{REJECTED}/{shard(task)}/{task}_{attempt}.png"


def settled_name(task: str, attempt: int, kept: bool) -> str:
    """Where a candidate of a settled task lies."""
    return image_name(task) if kept else rejected_name(task, attempt)
