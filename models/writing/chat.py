"""The prompt writer that asks a language model."""

from collections.abc import Callable, Sequence
from datetime import datetime

from models.protocols import AwaitedAnswers, TextAnswer, TextRequest
from models.writing.answers import ReadReply, read_reply
from models.writing.batch_desk import BatchDesk, system_clock
from models.writing.batch_service import BatchService
from models.writing.calls import CallOutcome, ChatCall, DeclinedError, cut_calls
from models.writing.chat_config import ChatWriterConfig
from models.writing.endpoints import ChatEndpoint
from models.writing.instructions import load_instructions
from models.writing.rounds import CallRound
from storage.errors import AwaitedError, EngineError
from storage.ledger import Ledger


class ChatWriter:
    """Asks a language model for scene texts, several calls at a time.

    Args:
        config: Where and how.
        ledger: What was answered before, and the place for what is answered now.
        clock: Says what time it is.

    Raises:
        InputError: If the environment variable for the key is not set, or the instructions cannot
            be read.
    """

    def __init__(
        self,
        config: ChatWriterConfig,
        ledger: Ledger,
        clock: Callable[[], datetime] = system_clock,
    ) -> None:
        self._config = config
        self._instructions = load_instructions(config.instructions)
        self._endpoint = ChatEndpoint(config, ledger)
        service = BatchService(config, self._endpoint.client, self._endpoint.without_secrets)
        self._desk = BatchDesk(config, ledger, service, self._make, clock)

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
        calling = CallRound(self._endpoint, self._config.concurrency)
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


def _read(outcome: CallOutcome, count: int, max_tokens: int) -> TextAnswer:
    if isinstance(outcome, DeclinedError):
        return TextAnswer((), f"refused: {outcome}", refused=True)
    if isinstance(outcome, AwaitedError):
        return TextAnswer((), f"awaited: {outcome}", awaited=True)
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
        awaited=any(answer.awaited for answer in answers),
    )
