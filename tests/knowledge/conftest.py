from __future__ import annotations

import pytest

from medgen.knowledge.cases import CaseIndex
from medgen.knowledge.store import KnowledgeStore


@pytest.fixture(scope="session")
def store_root(tmp_path_factory):
    return tmp_path_factory.mktemp("knowledge")


@pytest.fixture(scope="session")
def store(store_root):
    return KnowledgeStore.open(store_root)


@pytest.fixture(scope="session")
def cases():
    return CaseIndex.load()
