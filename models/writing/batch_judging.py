"""What the lines of a batch mean: the same as the replies to calls that are made at once."""

from collections.abc import Mapping
from typing import Any

from models.writing.batch_lines import ResultLine
from models.writing.calls import DeclinedError
from models.writing.chat_config import EndpointConfig
from storage.errors import EngineError, InputError, TransientError
from storage.identity import canonical_json

_FRAME_TOKENS = 64  # what a chat template may add around the messages
_RETRIED = {0, 200, 408, 409, 425, 429}
_SERVER_ERROR = 500
_FILTERED = {"content_filter", "content_policy_violation"}


def worst_case(body: Mapping[str, Any]) -> tuple[int, int]:
    """Upper bounds of the tokens that a call reads and writes.

    Args:
        body: Its JSON.
    """
    limits = [body.get("max_completion_tokens"), body.get("max_tokens")]
    most = max((limit for limit in limits if isinstance(limit, int)), default=0)
    return len(canonical_json(body)) + _FRAME_TOKENS, most


def metered(response: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens read and written, as the service counts them; None for what it does not say."""
    usage = response.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return read if isinstance(read, int) else None, written if isinstance(written, int) else None


def judge(line: ResultLine, config: EndpointConfig) -> EngineError:
    """Say what a line without an answer means for its call.

    Args:
        line: What came of the call.
        config: Whom it was asked of.

    Returns:
        DeclinedError for a content filter, TransientError for what may work later, InputError for
        what somebody must change.
    """
    said, codes = _said(line)
    message = f"{config.base_url} answered a call of a batch with {line.status}: {said}"
    if codes & _FILTERED:
        return DeclinedError(message)
    is_passing = line.status in _RETRIED or line.status >= _SERVER_ERROR
    if is_passing and "insufficient_quota" not in codes:
        return TransientError(message)
    return InputError(f"{message}; check model {config.model!r} and the writer's other settings")


def _said(line: ResultLine) -> tuple[str, set[str]]:
    """The service's words, and its names for what went wrong."""
    body = line.body if isinstance(line.body, dict) else {}
    error = body.get("error", body)
    error = error if isinstance(error, dict) else {"message": error}
    codes = {str(error.get(name) or "").lower() for name in ("code", "type")} | {line.code}
    return str(error.get("message") or line.words or line.body or "no answer"), codes - {""}
