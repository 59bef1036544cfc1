"""The reasoning roles one after another, as the graph calls them."""

import pytest

from medgen.agents import anatomy, composer, features, parser, pathology, report
from medgen.records import Request


def _planned(prompt, facts=(), modality=None):
    plan = parser.parse(Request(prompt=prompt, modality=modality))
    plan = pathology.assess(anatomy.localize(plan))
    return report.write_report(features.map_features(plan, facts))


@pytest.fixture
def planned():
    """A finished plan of a prompt, with the facts given as retrieved."""
    return _planned


@pytest.fixture
def composed():
    """What the generator would be told for a prompt."""
    return lambda prompt, **options: composer.compose(_planned(prompt), (), **options)
