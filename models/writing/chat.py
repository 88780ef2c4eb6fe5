"""The prompt writer that asks a language model."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import BaseModel, Field, ValidationError

from models.protocols import AwaitedAnswers, TextAnswer, TextRequest
from models.writing.batch_desk import BatchDesk, system_clock
from models.writing.batch_service import BatchService
from models.writing.calls import CallOutcome, ChatCall, DeclinedError, cut_calls
from models.writing.chat_config import ChatWriterConfig
from models.writing.endpoints import ChatEndpoint
from models.writing.instructions import read_texts
from models.writing.rounds import CallRound
from storage.errors import AwaitedError, TransientError
from storage.ledger import Ledger


class ChatWriter:
    """Asks a language model for scene texts, several calls at a time.

    Args:
        config: Where and how.
        ledger: What was answered before, and the place for what is answered now.
        clock: Says what time it is.

    Raises:
        InputError: If the environment variable for the key is not set.
    """

    def __init__(
        self,
        config: ChatWriterConfig,
        ledger: Ledger,
        clock: Callable[[], datetime] = system_clock,
    ) -> None:
        self._config = config
        self._endpoint = ChatEndpoint(config, ledger)
        service = BatchService(config, self._endpoint.client, self._endpoint.hide)
        self._desk = BatchDesk(config, ledger, service, self._make, clock)
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
        calls = cut_calls(self._config, requests)
        self._endpoint.refresh()
        outcomes = self._desk.known(calls)
        if now := [call for call in calls if call.key not in outcomes]:
            made = self._make(now, is_wanted)
            outcomes |= {call.key: outcome for call, outcome in zip(now, made, strict=True)}
        parts: list[list[TextAnswer]] = [[] for _ in requests]
        for call in calls:
            outcome = outcomes[call.key]
            parts[call.request].append(_read(outcome, call.count, self._config.max_tokens))
        return [_joined(answers) for answers in parts]

    def _make(self, calls: Sequence[ChatCall], is_wanted: Callable[[], bool]) -> list[CallOutcome]:
        calling = CallRound(self._endpoint, self._slots, self._config.concurrency)
        return calling.run(calls, is_wanted)

    def settle(self, check: Callable[[], None]) -> None:
        """Take in what batches have brought; see `BatchingWriter`.

        Raises:
            InputError: The service refused calls, or does not know a batch any more.
        """
        self._desk.settle(check)

    def send(self, check: Callable[[], None], is_wanted: Callable[[], bool]) -> bool:
        """Make batches of the calls that wait for one; see `BatchingWriter`.

        Raises:
            BudgetError: Not one call fits into the budget.
            InputError: The service has no Batch API, or refuses the calls.
            TransientError: Calls that are made at once were not answered.
        """
        return self._desk.send(check, is_wanted)

    def awaited(self) -> AwaitedAnswers:
        """What is waited for now."""
        return self._desk.awaited()


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def _read(outcome: CallOutcome, count: int, max_tokens: int) -> TextAnswer:
    if isinstance(outcome, DeclinedError):
        return TextAnswer((), f"refused: {outcome}", refused=True)
    if isinstance(outcome, AwaitedError):
        return TextAnswer((), f"awaited: {outcome}", awaited=True)
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
        awaited=any(answer.awaited for answer in answers),
    )
