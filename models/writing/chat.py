"""The prompt writer that asks a language model."""

import threading
from collections.abc import Callable, Sequence

from pydantic import BaseModel, Field, ValidationError

from models.protocols import TextAnswer, TextRequest
from models.writing.calls import CallOutcome, DeclinedError, cut_calls
from models.writing.chat_config import ChatWriterConfig
from models.writing.endpoints import ChatEndpoint
from models.writing.instruction_sets import load_instructions
from models.writing.instructions import read_texts
from models.writing.rounds import CallRound
from storage.errors import TransientError
from storage.ledger import Ledger


class ChatWriter:
    """Asks a language model for scene texts, several calls at a time.

    Args:
        config: Where and how.
        ledger: What was answered before, and the place for what is answered now.

    Raises:
        InputError: If the environment variable for the key is not set, or the instructions cannot
            be read.
    """

    def __init__(self, config: ChatWriterConfig, ledger: Ledger) -> None:
        self._config = config
        self._instructions = load_instructions(config.instructions)
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
        calls = cut_calls(self._config, requests, self._instructions)
        self._endpoint.refresh()
        calling = CallRound(self._endpoint, self._slots, self._config.concurrency)
        outcomes = calling.run(calls, is_wanted)
        parts: list[list[TextAnswer]] = [[] for _ in requests]
        for call, outcome in zip(calls, outcomes, strict=True):
            parts[call.request].append(_read(outcome, call.count, self._config.max_tokens))
        return [_joined(answers) for answers in parts]


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
