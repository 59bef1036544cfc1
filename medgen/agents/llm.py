"""Asks the language model on behalf of a role, and says why when it gives no usable answer.

A question is a role's prompt file and data; an answer is a record that the role's own check let
pass. Wrong answers are shown to the model with what is wrong, twice; then the rules speak. Keeps to
the run's budget, remembers answers on disk, and hands every text over as data: JSON between tags
that no text can close. Knows no role's medicine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from medgen.agents.chat_model import ChatModel, LanguageModel, Message, NoAnswer, estimated_tokens
from medgen.agents.state import LanguageUse
from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.records import Record
from medgen.settings import Settings

RULES = "rules"
RETRIES = 2
PAUSE_SECONDS = 0.5
Answer = TypeVar("Answer", bound=Record)


class Unusable(Exception):
    """A role's word on an answer that it cannot use; the message is shown to the model."""


@dataclass(frozen=True)
class Outcome(Generic[Answer]):
    """What came of a question.

    Attributes:
        answer: The model's; None when the rules must speak.
        decided_by: The model's name, or "rules" and why.
    """

    answer: Answer | None
    decided_by: str


def _accept(answer: Record) -> None:
    """The check of a role that can use whatever fits its record."""


@cache
def _prompt_file(name: str) -> str:
    path = resources.files("medgen.agents") / "prompts" / f"{name}.md"
    return path.read_text(encoding="utf-8").strip()


def as_data(name: str, value: object) -> str:
    """A value as JSON between tags of its name; no text inside can hold a tag of its own."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return f"<{name}>\n{text.replace('<', chr(92) + 'u003c')}\n</{name}>"


def conversation(
    role: str, data: Mapping[str, object], record: type[Record], picture: bytes | None = None
) -> list[Message]:
    """The question of a role: the common rules, its prompt file, the schema; then the data.

    Args:
        role: Names the prompt file.
        data: Named values.
        record: What the answer must be.
        picture: A PNG that the question is about.
    """
    schema = json.dumps(record.model_json_schema(), sort_keys=True)
    system = "\n\n".join(
        (_prompt_file("common"), _prompt_file(role), f"JSON schema of the answer:\n{schema}")
    )
    text = "\n".join(as_data(*item) for item in data.items())
    if picture is None:
        return [("system", system), ("human", text)]
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return [
        ("system", system),
        (
            "human",
            [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}],
        ),
    ]


class AnswerCache:
    """Earlier answers on disk, by the hash of what was asked of whom.

    Args:
        folder: Where they lie, a file an answer; None keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.json"

    def read(self, key: str, record: type[Answer]) -> Answer | None:
        """An earlier answer; None when there is none that can be read as `record`."""
        path = self._path(key)
        try:
            return record.model_validate_json(path.read_bytes()) if path else None
        except (OSError, ValidationError):
            return None

    def write(self, key: str, answer: Record) -> None:
        """Keep an answer; a folder that cannot be written to keeps none."""
        path = self._path(key)
        if path is not None:
            try:
                write_atomic(path, answer.model_dump_json())
            except OSError:
                return


class Session:
    """One run's conversation with its language model, or the lack of one.

    Args:
        model: Who is asked; None and the rules speak.
        settings: Budget and prices.
        use: What the run has used so far; grows with every question.
        cache: Where answers are kept.
    """

    def __init__(
        self,
        model: LanguageModel | None,
        settings: Settings,
        use: LanguageUse | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.use = use or LanguageUse()
        self.cache = cache or AnswerCache(None)

    @property
    def asks(self) -> bool:
        """Whether there is a model to ask."""
        return self.model is not None

    @property
    def name(self) -> str:
        """Who is asked."""
        return self.model.name if self.model else RULES

    @property
    def priced(self) -> bool:
        """Whether the settings say what a token costs."""
        prices = (self.settings.llm_prompt_price, self.settings.llm_answer_price)
        return None not in prices

    def _instead(self, why: str, *, lasting: bool = False) -> Outcome[Any]:
        if lasting:
            self.use = self.use.model_copy(update={"down": why})
        return Outcome(None, f"{RULES}; {self.name}: {why}")

    def ask(
        self,
        role: str,
        data: Mapping[str, object],
        record: type[Answer],
        check: Callable[[Answer], None] = _accept,
        picture: bytes | None = None,
    ) -> Outcome[Answer]:
        """A role's question.

        Args:
            role: Names the prompt file.
            data: What it is about: named values, handed over as data.
            record: What the answer must be.
            check: Raises `Unusable` with what is wrong with an answer.
            picture: A PNG that the question is about.

        Returns:
            The answer, or "rules; MODEL: why" when there is none.

        Raises:
            BadInput: `MEDGEN_LLM` names a model that cannot be made here.
        """
        if self.model is None:
            return Outcome(None, RULES)
        if self.use.down is not None:
            return self._instead(f"not asked again in this run ({self.use.down})")
        messages = conversation(role, data, record, picture)
        content = json.dumps([self.model.identity, messages])
        key = hashlib.sha256(content.encode()).hexdigest()
        earlier = self.cache.read(key, record)
        if earlier is not None and _complaint(check, earlier) is None:
            return Outcome(earlier, f"{self.name} (remembered answer)")
        complaint = ""
        for attempt in range(1 + RETRIES):
            short = self._short_of_budget(messages)
            if short:
                return self._instead(short, lasting=True)
            try:
                reply = self.model.ask(messages, record)
            except NoAnswer as error:
                self._charge(estimated_tokens(messages), 0)
                if not error.passing or attempt == RETRIES:
                    return self._instead(str(error), lasting=error.lasting or error.passing)
                time.sleep(PAUSE_SECONDS * 2**attempt)
                continue
            self._charge(reply.prompt_tokens, reply.answer_tokens)
            answer = reply.record
            complaint = reply.complaint
            if isinstance(answer, record):
                complaint = _complaint(check, answer) or ""
                if not complaint:
                    self.cache.write(key, answer)
                    return Outcome(answer, self.name)
            again = f"That answer cannot be used: {complaint}. Give the whole answer again."
            messages = [*messages, ("ai", reply.text), ("human", again)]
        return self._instead(f"{1 + RETRIES} unusable answers, the last because: {complaint}")

    def _price(self, prompt_tokens: int, answer_tokens: int) -> float:
        dollars = (self.settings.llm_prompt_price or 0) * prompt_tokens
        dollars += (self.settings.llm_answer_price or 0) * answer_tokens
        return dollars / 1e6

    def _charge(self, prompt_tokens: int, answer_tokens: int) -> None:
        self.use = self.use.model_copy(
            update={
                "tokens": self.use.tokens + prompt_tokens + answer_tokens,
                "cost": self.use.cost + self._price(prompt_tokens, answer_tokens),
                "calls": self.use.calls + 1,
            }
        )

    def _short_of_budget(self, messages: list[Message]) -> str:
        """Why the next answer cannot be afforded, were it as long as allowed; else empty."""
        asked, answered = estimated_tokens(messages), self.settings.llm_answer_tokens
        if self.use.tokens + asked + answered > self.settings.llm_tokens:
            return f"the budget of {self.settings.llm_tokens} tokens a run does not reach"
        cost = self.use.cost + self._price(asked, answered)
        if self.settings.llm_cost is not None and cost > self.settings.llm_cost:
            return f"the budget of {self.settings.llm_cost:g} US dollars a run does not reach"
        return ""


def _complaint(check: Callable[[Answer], None], answer: Answer) -> str | None:
    try:
        check(answer)
    except Unusable as error:
        return str(error)
    return None


def cache_folder(settings: Settings) -> Path | None:
    """Where answers are kept: `MEDGEN_LLM_CACHE`, else `medgen/llm` in the user's cache folder."""
    if settings.llm_cache == "off":
        return None
    if settings.llm_cache is not None:
        return settings.llm_cache.expanduser().resolve()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "medgen" / "llm"


def load_model(settings: Settings) -> LanguageModel | None:
    """The model that `MEDGEN_LLM` names, None when it names none; nothing is imported yet.

    Raises:
        BadInput: A cost budget without prices.
    """
    if settings.llm is None:
        return None
    prices = (settings.llm_prompt_price, settings.llm_answer_price)
    if settings.llm_cost is not None and None in prices:
        raise BadInput(
            "MEDGEN_LLM_COST needs MEDGEN_LLM_PROMPT_PRICE and MEDGEN_LLM_ANSWER_PRICE: "
            "set them to the provider's prices for a million tokens"
        )
    return ChatModel(settings)
