"""The macula of a fundus photograph: the spot that is darker than what lies around it on all sides.

Shading and shadows at the rim are darker on one side only; so the least rise in eight directions
counts. Looked for where the macula may lie, 0.2 to 0.52 of the field from the disc and no more than
half as far above or below as beside it, on either side: which side it is on is found, not assumed.
In a field of 45 degrees a fovea lies about 0.34 away, 15.5 degrees from the disc's middle
(Rohrschneider 2004, Invest Ophthalmol Vis Sci 45:3257).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.measure.round_field import (
    DISC_RADIUS,
    SIZE,
    Place,
    distance,
    highest,
    light,
    offsets,
    smoothed,
    within,
)

NEAREST, FARTHEST, _SLOPE = 0.2, 0.52, 0.5
LEAST_DEPTH = 0.03
"""Share by which the spot must be darker than its surroundings, on the least side."""
_SPOT, _AWAY = 4.0, 20
_VESSELS = 0.05
"""Depth that a vessel-filled place loses."""
_NOWHERE = -9.0


def macula_scores(
    closed: np.ndarray, vessels: np.ndarray, inside: np.ndarray, disc: Place
) -> tuple[np.ndarray, np.ndarray]:
    """((SIZE, SIZE) depth less what vessels cost, (SIZE, SIZE) depth), -9 where not to be told.

    Args:
        closed: `without_vessels` of the field.
        vessels: (SIZE, SIZE) float32 probability of vessel.
        inside: (SIZE, SIZE) bool, the field.
        disc: The optic disc's middle.
    """
    used = inside & (distance(disc) > 1.3 * DISC_RADIUS)
    weight = ndimage.gaussian_filter(used.astype(np.float32), _SPOT)
    grey = ndimage.gaussian_filter(light(closed) * used, _SPOT) / np.maximum(weight, 1e-3)
    known = np.pad(np.where(weight > 0.5, grey, np.nan), _AWAY, constant_values=np.nan)
    rises = []
    for angle in np.arange(8) * np.pi / 4:
        row, column = (_AWAY + round(_AWAY * f(angle)) for f in (np.sin, np.cos))
        rises.append(known[row : row + SIZE, column : column + SIZE] - grey)
    rise = np.stack(rises)
    enough = np.isfinite(rise).sum(axis=0) >= 6
    least = np.where(np.isfinite(rise), rise, np.inf).min(axis=0)
    depth = np.where(enough, least / np.maximum(grey, 10), _NOWHERE)
    crowd = smoothed(vessels, inside, 0.5 * DISC_RADIUS)
    crowd = crowd / max(float(np.percentile(crowd[inside], 98)), 0.02)
    open_to = within(0.90) & (distance(disc) > 2.2 * DISC_RADIUS)
    return np.where(open_to, depth - _VESSELS * crowd, _NOWHERE), depth


def where_it_may_lie(disc: Place) -> np.ndarray:
    """(SIZE, SIZE) bool: beside the disc, on either side."""
    across, down = offsets(disc)
    away = np.hypot(across, down) / SIZE
    return np.asarray(
        (away > NEAREST) & (away < FARTHEST) & (np.abs(down) < _SLOPE * np.abs(across) + 2)
    )


def find_macula(
    closed: np.ndarray, vessels: np.ndarray, inside: np.ndarray, disc: Place
) -> Place | None:
    """The macula's middle; None where no place is deep enough. Arguments as `macula_scores`."""
    score, depth = macula_scores(closed, vessels, inside, disc)
    _, place = highest(np.where(where_it_may_lie(disc), score, _NOWHERE))
    row, column = int(place[1] * SIZE), int(place[0] * SIZE)
    return place if depth[row, column] >= LEAST_DEPTH else None
