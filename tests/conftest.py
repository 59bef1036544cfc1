"""What all tests share: no run of theirs lands in the feedback log of the person who runs them."""

from __future__ import annotations

import os

os.environ["MEDGEN_FEEDBACK"] = "off"
