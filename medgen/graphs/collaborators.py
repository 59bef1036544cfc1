"""What the graph works with: a generator, a panel, a store, a case index, a language model.

Each is loaded when first needed and kept, so that a process pays once; a caller may give its own.
Threads may share them by taking `turn` around each use: models and indices answer one caller at a
time. Knows how to load them and nothing of what they do.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from threading import RLock
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from medgen.agents.llm import AnswerCache, Session, cache_folder, load_model
from medgen.agents.state import LanguageUse
from medgen.generator.base import Generator
from medgen.records import Critique, Plan
from medgen.settings import Settings, settings

if TYPE_CHECKING:
    from medgen.agents.chat_model import LanguageModel
    from medgen.feedback.prompt_policy import PromptPolicy
    from medgen.feedback.selector import Reward
    from medgen.knowledge.cases import CaseIndex
    from medgen.knowledge.store import KnowledgeStore


class Verifier(Protocol):
    """What measures a picture against a plan; see `medgen.agents.verifier.Panel`."""

    @property
    def fingerprint(self) -> str:
        """Hash of its weights and rules (hex), so that a record says what verified."""
        ...

    def verify(self, image: np.ndarray, plan: Plan, generated: bool = True) -> Critique:
        """Critique one (height, width, 3) uint8 picture."""
        ...


class Collaborators:
    """The graph's collaborators, those not given loaded on first use with the settings.

    Args:
        generator: What draws.
        panel: What verifies.
        store: Where facts are retrieved from.
        cases: The index of real cases.
        language_model: What the reasoning roles may ask beside the rules.
        options: Settings to load the generator and the language model with; this process's when
            None.

    Attributes:
        turn: Held by the one thread that loads or uses them.
    """

    def __init__(
        self,
        generator: Generator | None = None,
        panel: Verifier | None = None,
        store: KnowledgeStore | None = None,
        cases: CaseIndex | None = None,
        language_model: LanguageModel | None = None,
        options: Settings | None = None,
    ) -> None:
        self._generator, self._panel = generator, panel
        self._store, self._cases = store, cases
        self._language_model = language_model
        self._options = options
        self.turn = RLock()

    @property
    def settings(self) -> Settings:
        """What all is loaded with."""
        return self._options or settings()

    def with_settings(self, options: Settings) -> Self:
        """The same, with a generator, panel and language model of `options` where not given."""
        if options == self.settings:
            return self
        named = ("thresholds", "vision_llm", "torchxrayvision", "alignment")
        same = all(getattr(options, name) == getattr(self.settings, name) for name in named)
        other = type(self)(
            self._generator,
            self.__dict__.get("panel", self._panel) if same else self._panel,
            self.__dict__.get("store", self._store),
            self.__dict__.get("cases", self._cases),
            self._language_model,
            options,
        )
        other.turn = self.turn  # they share models
        return other

    @cached_property
    def generator(self) -> Generator:
        """What draws."""
        if self._generator is not None:
            return self._generator
        from medgen.generator.backends import load_generator

        return load_generator(self.settings)

    @cached_property
    def panel(self) -> Verifier:
        """What verifies."""
        if self._panel is not None:
            return self._panel
        from medgen.agents.verifier import Panel

        return Panel.load(self.settings)

    @cached_property
    def reward(self) -> Reward | None:
        """The learned selector that the settings name, usable or not; None for none."""
        if self.settings.selector is None:
            return None
        from medgen.feedback.selector import load_reward

        return load_reward(self.settings.selector)

    @cached_property
    def prompt_policy(self) -> PromptPolicy | None:
        """The policy that draws the refiner's recipes; None for the rules."""
        if self.settings.prompt_policy is None:
            return None
        from medgen.feedback.prompt_policy import load_prompt_policy

        return load_prompt_policy(self.settings.prompt_policy)

    def load_learned(self) -> None:
        """Load the selector and the prompt policy that the settings name, to say early what fails.

        Raises:
            BadInput: One of them is not there, or of another release.
        """
        _ = self.reward, self.prompt_policy

    @cached_property
    def store(self) -> KnowledgeStore:
        """Where facts are retrieved from; built now if there is none yet."""
        if self._store is not None:
            return self._store
        from medgen.knowledge.store import KnowledgeStore

        return KnowledgeStore.open()

    @cached_property
    def cases(self) -> CaseIndex:
        """The index of real cases."""
        if self._cases is not None:
            return self._cases
        from medgen.knowledge.cases import CaseIndex

        return CaseIndex.load()

    @cached_property
    def language_model(self) -> LanguageModel | None:
        """What the reasoning roles may ask; None and the rules speak alone."""
        return self._language_model or load_model(self.settings)

    def session(self, use: LanguageUse) -> Session:
        """A run's conversation with the language model, after what it has used so far."""
        options = self.settings
        return Session(self.language_model, options, use, AnswerCache(cache_folder(options)))


@lru_cache
def shared_collaborators() -> Collaborators:
    """This process's own, all loaded by the settings."""
    return Collaborators()
