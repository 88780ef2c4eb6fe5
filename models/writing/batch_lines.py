"""The lines of a batch: a request is one line of JSON, and so is what came of it.

OpenAI's Batch API and the `run-batch` of vLLM use the same lines:

    {"custom_id": ..., "method": "POST", "url": "/v1/chat/completions", "body": {...}}
    {"id": ..., "custom_id": ..., "response": {"status_code": ..., "body": {...}}, "error": ...}
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.writing.answers import is_reply
from models.writing.reply_json import read_reply_json
from storage.errors import DataError
from storage.identity import canonical_json

CHAT_PATH = "/v1/chat/completions"
"""What a line asks for."""

_UNFINISHED = frozenset({"batch_expired", "batch_cancelled", "batch_canceled"})
_STATUS_OK = 200


@dataclass(frozen=True)
class ResultLine:
    """What came of one call of a batch.

    Attributes:
        key: Of the call; empty if the line is not one that can be read.
        status: HTTP status; 0 if the call was not made.
        body: The response's JSON.
        code: The batch's own name for what went wrong, apart from the response.
        words: The batch's own words for it.
    """

    key: str
    status: int
    body: Any
    code: str = ""
    words: str = ""

    @property
    def is_answer(self) -> bool:
        """Whether a model answered: a response without choices is no answer, whatever it cost."""
        return self.response is not None

    @property
    def response(self) -> dict[str, Any] | None:
        """The answer's JSON; None if there is no answer."""
        if self.status != _STATUS_OK or not isinstance(self.body, dict):
            return None
        return self.body if is_reply(self.body) else None

    @property
    def is_unfinished(self) -> bool:
        """Whether the batch ended before the call's turn came."""
        return self.code in _UNFINISHED


def request_line(key: str, body: Mapping[str, Any]) -> bytes:
    """A call as a line of the file that is sent, with its end."""
    line = {"custom_id": key, "method": "POST", "url": CHAT_PATH, "body": dict(body)}
    return canonical_json(line) + b"\n"


def read_requests(data: bytes, place: str) -> dict[str, dict[str, Any]]:
    """The bodies of the calls of a file that is sent, by key.

    Raises:
        DataError: The file is damaged.
    """
    try:
        lines = [json.loads(line) for line in data.splitlines() if line.strip()]
        return {line["custom_id"]: line["body"] for line in lines}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"the requests of batch {place} cannot be read ({error!r}); run 'magicseg batch "
        message += f"forget ROOT {place}', and its calls are asked again"
        raise DataError(message) from error


def read_results(data: bytes) -> Iterator[ResultLine]:
    """What came of calls, in whatever order the lines have.

    A line that is no such JSON is given without a key: what it was about is not known.

    Args:
        data: An output file or an error file.
    """
    for line in data.split(b"\n"):  # a text may hold other characters that end a line
        if line.strip():
            yield _read(line)


def _read(line: bytes) -> ResultLine:
    try:
        value = read_reply_json(line)
    except ValueError:
        return ResultLine("", 0, None, words=f"no line of JSON: {line[:80]!r}")
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        return ResultLine("", 0, None, words=f"a line without custom_id: {line[:80]!r}")
    response, error = value.get("response"), value.get("error")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    error = error if isinstance(error, dict) else {"message": error or ""}
    return ResultLine(
        key=value["custom_id"],
        status=status if isinstance(status, int) and not isinstance(status, bool) else 0,
        body=_parsed(body),
        code=str(error.get("code") or "").lower(),
        words=str(error.get("message") or ""),
    )


def _parsed(body: Any) -> Any:
    """A body; some servers write it as a text that holds JSON."""
    if not isinstance(body, str):
        return body
    try:
        return read_reply_json(body)
    except ValueError:
        return body
