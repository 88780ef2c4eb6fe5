"""The prompt writer that asks a language model."""

from collections.abc import Callable, Sequence

from models.protocols import TextAnswer, TextRequest
from models.writing.answers import ReadReply, read_reply
from models.writing.calls import CallOutcome, DeclinedError, cut_calls
from models.writing.chat_config import ChatWriterConfig
from models.writing.endpoints import ChatEndpoint
from models.writing.instructions import load_instructions
from models.writing.rounds import CallRound
from storage.errors import EngineError
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
            TransientError: If the service is down; what it answered before is in the ledger.
        """
        calls = cut_calls(self._config, requests, self._instructions)
        calling = CallRound(self._endpoint, self._config.concurrency)
        outcomes = calling.run(calls, is_wanted)
        parts: list[list[TextAnswer]] = [[] for _ in requests]
        for call, outcome in zip(calls, outcomes, strict=True):
            parts[call.request].append(_read(outcome, call.count, self._config.max_tokens))
        return [_joined(answers) for answers in parts]


def _read(outcome: CallOutcome, count: int, max_tokens: int) -> TextAnswer:
    if isinstance(outcome, DeclinedError):
        return TextAnswer((), f"refused: {outcome}", refused=True)
    if isinstance(outcome, EngineError):
        return TextAnswer((), f"failed: {outcome}")
    read = read_reply(outcome.response)
    failure = "" if len(read.texts) >= count else _failure(read, count, max_tokens)
    is_refusal = bool(failure and read.refusal)
    return TextAnswer(read.texts[:count], failure, refused=is_refusal)


def _failure(read: ReadReply, count: int, max_tokens: int) -> str:
    """Why texts are missing."""
    if read.refusal:
        return f"refused: {read.refusal}"
    if read.cut_off:
        return f"failed: the answer was cut off after {max_tokens} tokens (max_tokens)"
    if not read.texts:
        return f"failed: the answer holds no texts: {read.excerpt!r}"
    return f"failed: the answer holds {len(read.texts)} of {count} texts"


def _joined(answers: Sequence[TextAnswer]) -> TextAnswer:
    return TextAnswer(
        texts=tuple(text for answer in answers for text in answer.texts),
        failure="; ".join(dict.fromkeys(answer.failure for answer in answers if answer.failure)),
        refused=any(answer.refused for answer in answers),
    )
