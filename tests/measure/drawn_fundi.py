"""Fundi drawn for tests: what is in them is known."""

import numpy as np

ROWS, COLUMNS = np.mgrid[0:256, 0:256]
SIDE = 240
"""Width of the drawn field, which starts at pixel 8."""


def ellipse(x, y, half_width, half_height=None):
    height = half_height or half_width
    return ((COLUMNS - x) / half_width) ** 2 + ((ROWS - y) / height) ** 2 <= 1


def eye(disc=(190, 124), cup=6, macula=(108, 134), second=None, spots=(), shade=None, tall=1.0):
    """A fundus: orange field, disc with a pale cup, vessels from it, and a soft dark macula."""
    field = ellipse(128, 128, 120)
    red, green = np.where(field, 150.0, 0), np.where(field, 80.0, 0)
    for rise in (-0.9, -0.55, 0.55, 0.9):
        if disc:
            line = np.abs((ROWS - disc[1]) - rise * (disc[0] - COLUMNS)) < 1.6
            green[line & field] = 40
    if disc:
        near = ellipse(*disc, 15, 15 * tall)
        red[near], green[near] = 235, 130
        pale = ellipse(*disc, cup, cup * tall)
        red[pale], green[pale] = 245, 235
    if macula:
        away = (COLUMNS - macula[0]) ** 2 + (ROWS - macula[1]) ** 2
        dark = 1 - 0.45 * np.exp(-away / (2 * 9**2))
        red, green = red * dark, green * dark
    if second:
        near = ellipse(*second, 15)
        red[near], green[near] = 235, 190
    for spot in spots:
        green[ellipse(*spot, 3)] = 30
    if shade is not None:
        green, red = green * shade, red * shade
    return np.stack([red, green, green * 0.5], axis=2).clip(0, 255).astype(np.uint8)
