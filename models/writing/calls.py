"""The calls that a writer makes: text requests cut into HTTP requests."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models.protocols import TextRequest
from models.writing.addresses import ServiceAddress
from models.writing.chat_config import ChatWriterConfig
from models.writing.instructions import RESPONSE_FORMATS, InstructionSet, load_instructions
from storage.errors import AwaitedError, EngineError, InputError, TransientError
from storage.identity import derive_seed, digest
from storage.ledger import Answer


class DeclinedError(EngineError):
    """The service's content filter did not let the request pass; nothing was paid."""


class RefusedError(InputError):
    """The service does not take this request; nothing was paid, and others may pass."""


CallOutcome = Answer | DeclinedError | RefusedError | TransientError | AwaitedError
"""What came of a call."""


@dataclass(frozen=True)
class ChatCall:
    """One HTTP request: a part of a text request.

    Attributes:
        request: Index of the text request.
        count: How many texts it asks for.
        key: Digest of all that makes the call what it is; the ledger files its answer under it.
        body: The request's JSON.
        about: What the ledger keeps beside the body.
        earlier_keys: Keys that earlier versions gave the same call.
    """

    request: int
    count: int
    key: str
    body: dict[str, Any]
    about: dict[str, Any]
    earlier_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Form:
    """What the calls of a writer have in common."""

    config: ChatWriterConfig
    instructions: InstructionSet
    identity: str


def cut_calls(
    config: ChatWriterConfig,
    requests: Sequence[TextRequest],
    instructions: InstructionSet | None = None,
) -> list[ChatCall]:
    """Cut text requests into calls of at most `texts_per_call` texts, in order.

    Args:
        config: The writer.
        requests: What is to be written.
        instructions: The words to ask in, if they have been read already.

    Raises:
        InputError: If the instructions cannot be read.
    """
    words = instructions or load_instructions(config.instructions)
    form = _Form(config, words, words.identity)
    return [
        _call(form, index, request, part, count)
        for index, request in enumerate(requests)
        for part, count in enumerate(_counts(request.count, config.texts_per_call))
    ]


def _counts(count: int, most: int) -> Iterator[int]:
    for start in range(0, count, most):
        yield min(most, count - start)


def _call(form: _Form, index: int, request: TextRequest, part: int, count: int) -> ChatCall:
    config = form.config
    body: dict[str, Any] = {
        "model": config.model,
        "messages": form.instructions.messages(request, count),
        config.max_tokens_field: config.max_tokens,
    }
    if (demanded := RESPONSE_FORMATS[config.answer_format]) is not None:
        body["response_format"] = demanded
    if config.temperature is not None:
        body["temperature"] = config.temperature
    if config.send_seed:
        body["seed"] = derive_seed(request.seed, request.round, part) % 2**31
    about: dict[str, Any] = {
        "instructions": form.identity,
        "seed": request.seed,
        "round": request.round,
        "part": part,
    }
    body |= config.extra_body
    if config.extra_headers:
        about["headers"] = config.extra_headers
    service = ServiceAddress.of(config.base_url).identity
    key, earlier = (
        digest({"base_url": url, "body": body, **about}) for url in (service, config.base_url)
    )
    return ChatCall(index, count, key, body, about, () if earlier == key else (earlier,))
