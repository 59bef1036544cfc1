"""The language model behind `MEDGEN_LLM`: one question, one record back, or one reason why not.

Reached through LangChain, so that every provider it knows works; LangChain is imported when a
model is first asked and not before. A reason never quotes what the provider said, for that may hold
a key. Knows no role, no prompt and no budget.
"""

from __future__ import annotations

import contextvars
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import ValidationError

from medgen.errors import BadInput
from medgen.records import Record
from medgen.settings import Settings

Content = str | list[dict[str, Any]]
Message = tuple[Literal["system", "human", "ai"], Content]
BYTES_A_TOKEN = 4  # of UTF-8: outside Latin script a character is nearly a token
PICTURE_TOKENS = 800  # about what providers count for a small picture
LONGEST_LIST = 12  # in an answer; without a limit a weak model fills lists until it is cut off
REST_SECONDS = 60  # after a failure that asking again at once does not mend
_LONGEST_COMPLAINT = 600
_LONGEST_TEXT = 4000
_COMPLAINTS = 5
_TOO_LONG = "it was cut off for its length: answer more briefly"
_GRACE = 0.5  # so that the client's own timeout, which is more exact, comes first
_STATUS = {
    400: "the server refuses the request",
    401: "the server refuses the key",
    403: "the server refuses the key",
    404: "no such model or path",
    413: "the request is too long",
    422: "the server refuses the request",
    429: "too many requests, or the quota is spent",
}
_LASTING_STATUS = frozenset({401, 403, 404})
_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class NoAnswer(Exception):
    """The model did not answer; the message says why, fit for a trace.

    Args:
        why: The reason, in words of this module.
        lasting: Asking again in this run is of no use.
        passing: Asking once more at once may well help.
    """

    def __init__(self, why: str, *, lasting: bool = False, passing: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting
        self.passing = passing


@dataclass(frozen=True)
class Reply:
    """An answer: the record, or what is wrong with the text that came instead.

    Attributes:
        record: The answer; None when it could not be read as the record asked for.
        text: What the model wrote.
        complaint: What is wrong with it, for the model to read; empty when nothing is.
        prompt_tokens: As the server counted, or estimated from the text's length.
        answer_tokens: Likewise.
    """

    record: Record | None
    text: str
    complaint: str
    prompt_tokens: int
    answer_tokens: int


class Greeting(Record):
    """What a model answers to show that it can."""

    ready: bool


GREETING: tuple[Message, ...] = (
    ("system", 'Answer with the JSON object {"ready": true} and nothing else.'),
    ("human", "Are you ready?"),
)


class LanguageModel(Protocol):
    """Whatever answers a conversation with a record."""

    name: str
    identity: str

    def ask(self, messages: Sequence[Message], record: type[Record]) -> Reply:
        """One answer.

        Raises:
            NoAnswer: None came.
        """
        ...


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Tokens of a conversation by its length, for servers that do not count."""
    parts = [
        part
        for _, content in messages
        for part in ([{"text": content}] if isinstance(content, str) else content)
    ]
    size = sum(len(str(part.get("text", "")).encode(errors="replace")) for part in parts)
    pictures = sum("text" not in part for part in parts)
    return size // BYTES_A_TOKEN + 4 * len(messages) + PICTURE_TOKENS * pictures


def complaint_of(error: ValidationError) -> str:
    """What a record lacks, field by field, for the model to read (it holds no input value)."""
    lines = []
    for fault in error.errors(include_url=False, include_input=False)[:_COMPLAINTS]:
        where = ".".join(str(part) for part in fault["loc"]) or "the answer"
        lines.append(f"{where}: {fault['msg']}")
    return "; ".join(lines)[:_LONGEST_COMPLAINT]


class ChatModel:
    """A chat model of LangChain.

    Attributes:
        name: `PROVIDER:MODEL` as set.
        identity: Name, server and method: what tells one model's answers from another's. It holds
            no credentials.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.llm is not None
        self.name = settings.llm
        self.timeout = settings.llm_timeout
        self.method = settings.llm_method
        self.answer_tokens = settings.llm_answer_tokens
        self.identity = f"{self.name} at {_server()} by {self.method}"
        self._model: Any = None
        self._failed: tuple[float, str] | None = None

    @property
    def model(self) -> Any:
        """LangChain's model, made on first use.

        Raises:
            BadInput: LangChain or the provider's package is not installed, the provider is
                unknown, or its key is missing.
        """
        if self._model is None:
            self._model = self._load()
        return self._model

    def _load(self) -> Any:
        try:
            from langchain.chat_models import init_chat_model
        except ImportError as error:
            raise BadInput(
                f"MEDGEN_LLM={self.name} needs LangChain: pip install 'medgen[llm]', or unset it"
            ) from error
        options: dict[str, Any] = {
            "timeout": self.timeout,
            "max_retries": 0,
            "temperature": 0,
            "max_tokens": self.answer_tokens,
        }
        local = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
        if self.name.startswith("openai:") and local and not os.environ.get("OPENAI_API_KEY"):
            options["api_key"] = "none"  # local servers want no key, the client insists on one
        try:
            return init_chat_model(self.name, **options)
        except ImportError as error:
            package = self.name.partition(":")[0].replace("_", "-")
            raise BadInput(
                f"MEDGEN_LLM={self.name} needs LangChain's package for that provider: "
                f"pip install langchain-{package}, or unset it"
            ) from error
        except ValueError as error:
            raise BadInput(
                f"MEDGEN_LLM={self.name} is no PROVIDER:MODEL that LangChain knows: "
                "correct or unset it"
            ) from error
        except Exception as error:
            raise BadInput(
                f"MEDGEN_LLM={self.name} cannot be used ({type(error).__name__}): set the "
                "provider's key, or OPENAI_BASE_URL for a local server"
            ) from error

    def ask(self, messages: Sequence[Message], record: type[Record]) -> Reply:
        """One answer within the timeout, however slowly its bytes arrive.

        Raises:
            NoAnswer: No server, no answer in time, an error of the server's, or one of these less
                than `REST_SECONDS` ago.
            BadInput: The model cannot be made (see `model`).
        """
        if self._failed is not None:
            since = time.monotonic() - self._failed[0]
            if since < REST_SECONDS:
                raise NoAnswer(f"{self._failed[1]} {since:.0f} s ago", lasting=True)
        try:
            reply = self._ask(messages, record)
        except NoAnswer as error:
            # A table of requests shall not wait for the same dead server row by row.
            self._failed = (time.monotonic(), str(error)) if error.lasting else None
            raise
        self._failed = None
        return reply

    def _ask(self, messages: Sequence[Message], record: type[Record]) -> Reply:
        # The schema as data: given the class, some clients raise on a wrong answer and lose it.
        chain = self.model.with_structured_output(
            record.model_json_schema(), method=self.method, include_raw=True
        )
        outcome: list[Any] = []

        def call() -> None:
            try:
                outcome.append(chain.invoke(list(messages)))
            except Exception as error:
                outcome.append(error)

        # A thread of its own, for the client's timeout is between bytes, not for the whole.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(call,), daemon=True)
        thread.start()
        thread.join(self.timeout + _GRACE)
        if not outcome:
            raise NoAnswer(f"no answer within {self.timeout:g} s", lasting=True)
        if type(outcome[0]).__name__ == "LengthFinishReasonError":  # openai's, of a cut answer
            usage = getattr(getattr(outcome[0], "completion", None), "usage", None)
            asked = getattr(usage, "prompt_tokens", None) or estimated_tokens(messages)
            answered = getattr(usage, "completion_tokens", None) or self.answer_tokens
            return Reply(None, "", _TOO_LONG, asked, answered)
        if isinstance(outcome[0], Exception):
            raise self.why(outcome[0]) from None
        return _reply(outcome[0], messages, record)

    def why(self, error: Exception) -> NoAnswer:
        """What went wrong, in our words: the provider's may quote a key."""
        chain: list[BaseException] = []
        link: BaseException | None = error
        while link is not None and link not in chain:
            chain.append(link)
            link = link.__cause__ or link.__context__
        status = next((s for s in (getattr(e, "status_code", None) for e in chain) if s), None)
        if isinstance(status, int):
            again = status in _PASSING_STATUS
            said = f"HTTP {status}, {_STATUS.get(status, 'an error of the server')}"
            return NoAnswer(said, lasting=status in _LASTING_STATUS, passing=again)
        names = " ".join(type(e).__name__ for e in chain)
        if "Timeout" in names:
            return NoAnswer(f"no answer within {self.timeout:g} s", lasting=True)
        if any(word in names for word in ("ConnectError", "ConnectionRefused", "gaierror")):
            return NoAnswer("its server cannot be reached", lasting=True)
        if "Protocol" in names or "Connection" in names or "ReadError" in names:
            return NoAnswer("the connection was cut off mid-answer", passing=True)
        if "JSONDecodeError" in names:
            return NoAnswer("its server answered something else than a chat completion")
        return NoAnswer(f"asking failed ({type(error).__name__})")


def _reply(raw_and_parsed: Any, messages: Sequence[Message], record: type[Record]) -> Reply:
    raw, parsed = raw_and_parsed["raw"], raw_and_parsed["parsed"]
    text = _text(raw)
    usage = getattr(raw, "usage_metadata", None) or {}
    reason = (getattr(raw, "response_metadata", None) or {}).get("finish_reason")
    answer, complaint = None, ""
    if parsed is None:
        complaint = "it is not the JSON object that was asked for"
    else:
        try:
            answer = record.model_validate(parsed)
        except ValidationError as error:
            complaint = complaint_of(error)
    if complaint and reason == "length":
        complaint = _TOO_LONG
    return Reply(
        record=answer,
        text=text[:_LONGEST_TEXT],
        complaint=complaint,
        prompt_tokens=int(usage.get("input_tokens") or estimated_tokens(messages)),
        answer_tokens=int(usage.get("output_tokens") or estimated_tokens([("ai", text)])),
    )


def _text(raw: Any) -> str:
    calls = getattr(raw, "tool_calls", None)
    if calls:
        return json.dumps(calls[0].get("args", {}), ensure_ascii=False)
    content = getattr(raw, "content", "")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _server() -> str:
    """Host and path of the OpenAI-compatible server in use, without credentials.

    Raises:
        BadInput: `OPENAI_BASE_URL` is no URL.
    """
    url = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE") or ""
    try:
        parts = urlsplit(url)
        place = f"{parts.hostname}:{parts.port or ''}{parts.path}"
    except ValueError:  # whose message may quote the URL's password
        raise BadInput(
            "OPENAI_BASE_URL is no URL: give one such as http://localhost:8080/v1"
        ) from None
    return place if parts.hostname else "its provider"
