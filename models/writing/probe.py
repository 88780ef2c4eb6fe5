"""One small request to a chat service, to see that it answers and what that costs."""

from models.protocols import TextRequest
from models.writing.answers import read_reply
from models.writing.calls import DeclinedError, cut_calls
from models.writing.chat_config import ChatWriterConfig
from models.writing.endpoints import ChatEndpoint
from models.writing.instructions import load_instructions
from models.writing.rounds import CallRound
from storage.errors import InputError
from storage.ledger import Answer, Ledger
from storage.vocabulary import ClassRecord


def ask_once(config: ChatWriterConfig, ledger: Ledger, record: ClassRecord) -> str:
    """Ask for one text about a class; say how the service answered and what that cost.

    Args:
        config: Whom to ask.
        ledger: The place for the answer; the same question is not paid twice with one ledger.
        record: The class.

    Raises:
        BudgetError: The budget does not allow it.
        InputError: The service does not take such requests, or its answer holds no text.
        TransientError: It does not answer.
    """
    once = config.model_copy(update={"max_retries": 0})
    calls = cut_calls(once, [TextRequest((record,), 1, 0)], load_instructions(config.instructions))
    [outcome] = CallRound(ChatEndpoint(once, ledger), 1).run(calls, lambda: True)
    if isinstance(outcome, DeclinedError):
        message = f"a filter turned a harmless request away ({record.name}): {outcome}"
        raise InputError(message)
    if not isinstance(outcome, Answer):
        raise outcome
    read = read_reply(outcome.response)
    if not read.texts:
        message = (
            f"{config.base_url} answered without a text: {read.excerpt!r}; look at max_tokens "
            f"({config.max_tokens}), answer_format ({config.answer_format}) and the model"
        )
        raise InputError(message)
    return f"answered in {outcome.seconds:.1f} s as {read.form}, {_cost(outcome)}"


def _cost(answer: Answer) -> str:
    if answer.prompt_tokens is None or answer.completion_tokens is None:
        return "and does not say how many tokens that took: its cost is unknown"
    tokens = f"{answer.prompt_tokens} tokens read and {answer.completion_tokens} written"
    cost = "of unknown cost" if answer.cost_usd is None else f"for {answer.cost_usd:.6f} USD"
    return f"{tokens}, {cost}"
