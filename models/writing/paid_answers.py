"""What the ledger keeps of a reply, whichever way it came, and what a call can cost at most."""

from collections.abc import Mapping
from typing import Any

from models.writing.answers import read_reply
from models.writing.text_lists import READER_VERSION
from models.writing.usage import read_usage
from storage.identity import canonical_json
from storage.ledger import Answer, Reading
from storage.prices import Prices

_FRAME_TOKENS = 64  # what a chat template may add around the messages
_LIMITS = ("max_completion_tokens", "max_tokens")


def most_tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """Upper bounds of the tokens that a call reads and writes.

    Args:
        body: Its JSON, which says how many tokens it may write.
    """
    limits = [limit for name in _LIMITS if isinstance(limit := body.get(name), int)]
    return len(canonical_json(body)) + _FRAME_TOKENS, max(limits, default=0)


def paid_answer(
    key: str,
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    prices: Prices | None,
    seconds: float,
) -> Answer:
    """What the ledger keeps of a reply: it raw, what was read in it, and what it took.

    Args:
        key: Of the call.
        request: Address and body of the call, and what it was for.
        response: The reply's JSON.
        prices: What the service charges for it, if that is known.
        seconds: From sending to the whole answer.
    """
    read, (prompt_tokens, completion_tokens) = read_reply(response), read_usage(response)
    most = most_tokens(request["body"])
    return Answer(
        key=key,
        request=dict(request),
        response=dict(response),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        most_prompt_tokens=most[0],
        most_completion_tokens=most[1],
        prices=prices,
        seconds=round(seconds, 3),
        reading=Reading(reader=READER_VERSION, form=read.form, texts=len(read.texts)),
    )
