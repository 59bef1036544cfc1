"""The train-side validation fold, carved by group: no patient is on both sides."""

from __future__ import annotations

import hashlib

VALIDATION_PERCENT = 8


def is_validation(group: str) -> bool:
    """Whether a group of `split=train` rows is in the validation fold (about 8 %)."""
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < VALIDATION_PERCENT
