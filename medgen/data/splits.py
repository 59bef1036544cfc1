"""The train-side validation fold: carved by group, so that no patient or near-copy is on both sides."""

from __future__ import annotations

import hashlib

VALIDATION_PERCENT = 8


def is_validation(group: str) -> bool:
    """Whether a group of `split=train` rows belongs to the validation fold (about 8 % of groups)."""
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < VALIDATION_PERCENT
