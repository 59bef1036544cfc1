"""What all tests share: no run of theirs lands in the log of the person who runs them."""

from __future__ import annotations

import os

# Threads that spin long for each other stand still on a machine that is busy otherwise.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ["MEDGEN_FEEDBACK"] = "off"
# Nor does what that person promoted draw in them.
os.environ["MEDGEN_ADAPTER"] = "none"
