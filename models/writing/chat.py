"""The prompt writer that asks a language model."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from models.protocols import TextAnswer, TextRequest
from models.writing.endpoints import ChatEndpoint, DeclinedError, EndpointConfig, api_key
from models.writing.instructions import (
    INSTRUCTIONS_VERSION,
    RESPONSE_FORMATS,
    AnswerFormat,
    chat_messages,
    read_texts,
)
from storage.errors import InputError, TransientError
from storage.identity import derive_seed, digest
from storage.ledger import Answer, Ledger

_STREAK = 3  # calls given up one after the other before the service counts as down
_LOOK_SECONDS = 0.1  # between two looks at whether a call that waits for its turn is still wanted

_EXECUTION = frozenset(
    {
        "base_url",
        "api_key_env",
        "max_tokens_field",
        "timeout",
        "max_retries",
        "first_wait",
        "max_wait",
        "prices",
        "budget_usd",
        "budget_tokens",
        "concurrency",
    }
)
"""Where a model is served and what it may cost says nothing about its texts."""


class ChatWriterConfig(EndpointConfig, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A language model behind an OpenAI-compatible endpoint."""

    kind: Literal["chat"] = "chat"
    """Tells this writer from the others."""
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    """Sampling temperature; null sends none, as some models demand."""
    send_seed: bool = True
    """Whether a derived seed is sent; not every service knows the field."""
    answer_format: AnswerFormat = "schema"
    """`schema` demands a strict JSON schema; `json` any JSON, for models from before schemas such
    as gpt-3.5-turbo; `text` sends no such field, for services that know none."""
    texts_per_call: int = Field(default=10, ge=1, le=100)
    """Most texts asked for in one call."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Most calls in flight, of all shards of a run together."""

    def identity(self) -> dict[str, Any]:
        """Say what the texts depend on; where a model is served and what it costs is no part."""
        fields = self.model_dump(mode="json", exclude=set(_EXECUTION))
        return {**fields, "instructions": INSTRUCTIONS_VERSION}

    def check(self) -> str:
        """Look for the key; say which model is asked, and whether its cost will be known.

        Raises:
            InputError: If the environment variable for the key is not set.
        """
        api_key(self)
        prices = "known" if self.prices else "unknown: the cost will be unknown too"
        return f"{self.model} at {self.base_url}, prices {prices}"


class ChatWriter:
    """Asks a language model for scene texts, several calls at a time.

    Args:
        config: Where and how.
        ledger: What was answered before, and the place for what is answered now.

    Raises:
        InputError: If the environment variable for the key is not set.
    """

    def __init__(self, config: ChatWriterConfig, ledger: Ledger) -> None:
        self._config = config
        self._endpoint = ChatEndpoint(config, ledger)
        self._slots = threading.BoundedSemaphore(config.concurrency)

    @property
    def name(self) -> str:
        """``chat:`` and the model."""
        return f"chat:{self._config.model}"

    def write(self, requests: Sequence[TextRequest]) -> list[TextAnswer]:
        """Answer every request, in order; see `PromptWriter`.

        Raises:
            BudgetError, InputError, TransientError: As `write_while`.
        """
        return self.write_while(requests, lambda: True)

    def write_while(
        self, requests: Sequence[TextRequest], is_wanted: Callable[[], bool]
    ) -> list[TextAnswer]:
        """Answer requests, in order, as long as they are wanted; see `WaitingWriter`.

        Calls under way are waited for even when nobody wants them any more: they are paid.

        Args:
            requests: What to write.
            is_wanted: Asked again and again, in this thread.

        Raises:
            BudgetError: Before a call that could pass the budget; earlier answers are kept.
            InputError: If the service refuses requests of this kind.
            TransientError: If not one of the calls was answered.
        """
        calls = [
            call for index, request in enumerate(requests) for call in self._calls(index, request)
        ]
        self._endpoint.refresh()
        calling = _Round(self._endpoint, self._slots, self._config.concurrency)
        outcomes = calling.run(calls, is_wanted)
        parts: list[list[TextAnswer]] = [[] for _ in requests]
        for call, outcome in zip(calls, outcomes, strict=True):
            parts[call.request].append(_read(outcome, call.count, self._config.max_tokens))
        return [_joined(answers) for answers in parts]

    def _calls(self, index: int, request: TextRequest) -> list["_Call"]:
        size = self._config.texts_per_call
        starts = range(0, request.count, size)
        counts = [min(size, request.count - start) for start in starts]
        return [self._call(index, request, part, count) for part, count in enumerate(counts)]

    def _call(self, index: int, request: TextRequest, part: int, count: int) -> "_Call":
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": chat_messages(request, count),
            config.max_tokens_field: config.max_tokens,
        }
        if (form := RESPONSE_FORMATS[config.answer_format]) is not None:
            body["response_format"] = form
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.send_seed:
            body["seed"] = derive_seed(request.seed, request.round, part) % 2**31
        about = {
            "instructions": INSTRUCTIONS_VERSION,
            "seed": request.seed,
            "round": request.round,
            "part": part,
        }
        key = digest({"base_url": config.base_url, "body": body, **about})
        return _Call(index, count, key, body, about)


@dataclass(frozen=True)
class _Call:
    """One HTTP request: a part of a text request."""

    request: int
    count: int
    key: str
    body: dict[str, Any]
    about: dict[str, Any]


_Outcome = Answer | DeclinedError | TransientError


class _Round:
    """Makes calls at the same time and keeps what came of each, in order."""

    def __init__(
        self, endpoint: ChatEndpoint, slots: threading.BoundedSemaphore, concurrency: int
    ) -> None:
        self._endpoint = endpoint
        self._slots = slots  # rounds of other shards take theirs from the same ones
        self._concurrency = concurrency
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._streak = 0

    def run(self, calls: Sequence[_Call], is_wanted: Callable[[], bool]) -> list[_Outcome]:
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="writer")
        try:
            made = [pool.submit(self._make, call) for call in calls]
            while wait(made, _LOOK_SECONDS).not_done:
                if not is_wanted() or any(each.done() and each.exception() for each in made):
                    self._stop.set()
            outcomes = [each.result() for each in made]
        finally:
            self._stop.set()  # ends the waiting; answers under way still reach the ledger
            pool.shutdown(cancel_futures=True)
        down = [outcome for outcome in outcomes if isinstance(outcome, TransientError)]
        if down and len(down) == len(outcomes):
            raise down[0]
        return outcomes

    def _make(self, call: _Call) -> _Outcome:
        if (answer := self._endpoint.find(call.key)) is not None:
            return answer
        try:
            with self._slot():
                outcome: _Outcome = self._endpoint.send(call.key, call.body, call.about, self._stop)
        except (DeclinedError, TransientError) as error:
            outcome = error
        except InputError:
            self._stop.set()  # the other calls are of the same kind
            raise
        self._count_failures(outcome)
        return outcome

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Wait until one call fewer than allowed is in flight."""
        while not self._slots.acquire(timeout=_LOOK_SECONDS):
            if self._stop.is_set():
                message = "the call was given up, because others were given up too"
                raise TransientError(message)
        try:
            yield
        finally:
            self._slots.release()

    def _count_failures(self, outcome: _Outcome) -> None:
        with self._lock:
            self._streak = self._streak + 1 if isinstance(outcome, TransientError) else 0
            if self._streak == _STREAK:
                self._stop.set()


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def _read(outcome: _Outcome, count: int, max_tokens: int) -> TextAnswer:
    if isinstance(outcome, DeclinedError):
        return TextAnswer((), f"refused: {outcome}", refused=True)
    if isinstance(outcome, TransientError):
        return TextAnswer((), f"failed: {outcome}")
    try:
        choice = _Reply.model_validate(outcome.response).choices[0]
    except ValidationError as error:
        return TextAnswer((), f"failed: the answer is no chat completion ({error.errors()[0]})")
    if choice.message.refusal or choice.finish_reason == "content_filter":
        words = choice.message.refusal or "the content filter cut in"
        return TextAnswer((), f"refused: {words}", refused=True)
    return _texts(choice, count, max_tokens)


def _texts(choice: _Choice, count: int, max_tokens: int) -> TextAnswer:
    content = choice.message.content or ""
    texts = read_texts(content)
    if choice.finish_reason == "length":
        failure = f"failed: the answer was cut off after {max_tokens} tokens (max_tokens)"
    elif texts is None:
        failure = f"failed: the answer is not the JSON that was asked for: {content[:80]!r}"
    elif len(texts) < count:
        failure = f"failed: the answer holds {len(texts)} of {count} texts"
    else:
        failure = ""
    return TextAnswer(tuple(texts or ())[:count], failure)


def _joined(answers: Sequence[TextAnswer]) -> TextAnswer:
    return TextAnswer(
        texts=tuple(text for answer in answers for text in answer.texts),
        failure="; ".join(dict.fromkeys(answer.failure for answer in answers if answer.failure)),
        refused=any(answer.refused for answer in answers),
    )
