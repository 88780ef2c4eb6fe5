"""Replies that are no answers: what a service says when it will not, cannot or must not write."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_MOST_WORDS = 400
_STATUSES = range(400, 600)
_DEPTH = 3


@dataclass(frozen=True)
class Fault:
    """What a service said in the place of an answer.

    Attributes:
        http_status: Status of the response.
        status: The same; where the body of a success names another one (a gateway's error), that.
        words: The service's own words.
        codes: The names that it gives the fault (code, type, status), in lower case.
        headers: Of the response, names in lower case; those that a gateway passes on included.
        body: The response's JSON, or an empty object.
    """

    http_status: int
    status: int
    words: str
    codes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_fault(status: int, headers: Mapping[str, str], text: str) -> Fault:
    """Read what a service said in the place of an answer, whichever way it says such things.

    Args:
        status: HTTP status.
        headers: Of the response.
        text: Its body.
    """
    body = _json(text)
    errors = list(_errors(body))
    codes = [code for error in errors for code in _codes(error)]
    words = next((said for error in errors if (said := _words(error))), "") or _plain(text)
    lowered = {name.lower(): value for name, value in headers.items()}
    for error in errors:
        lowered |= _passed_on(error)
    return Fault(
        status,
        _status(status, codes),
        words[:_MOST_WORDS],
        tuple(dict.fromkeys(codes)),
        lowered,
        body if isinstance(body, Mapping) else {},
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _errors(body: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects that describe the fault, the one inside first."""
    if isinstance(body, list) and body:  # some gateways answer with a list of one
        body = body[0]
    if not isinstance(body, Mapping) or depth > _DEPTH:
        return
    for name in ("error", "innererror", "inner_error", "fault"):
        inner = body.get(name)
        if isinstance(inner, str) and inner:
            yield {"message": inner}
        elif inner:
            yield from _errors(inner, depth + 1)
    for choice in body.get("choices") or () if isinstance(body.get("choices"), list) else ():
        if isinstance(choice, Mapping) and choice.get("error"):
            yield from _errors({"error": choice["error"]}, depth + 1)
    yield body


def _codes(error: Mapping[str, Any]) -> Iterator[str]:
    for name in ("code", "type", "status", "error_type", "error_code", "http_status_code"):
        value = error.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield str(value).lower()


def _words(error: Mapping[str, Any]) -> str:
    """The message; beside a gateway's own, what the provider behind it said."""
    said = error.get("message") or error.get("detail") or error.get("msg") or error.get("title")
    metadata = error.get("metadata")
    more = [metadata.get("raw"), metadata.get("reasons")] if isinstance(metadata, Mapping) else []
    return "; ".join(_said(each) for each in (said, *more) if each)


def _said(value: Any) -> str:
    """A message as text; FastAPI lists what is wrong, with the place of each."""
    if isinstance(value, list):
        return "; ".join(_said(each) for each in value)
    if isinstance(value, Mapping):
        place = value.get("loc")
        where = ".".join(str(each) for each in place) if isinstance(place, list) else ""
        said = value.get("msg") or value.get("message") or json.dumps(value, ensure_ascii=False)
        return f"{where}: {said}" if where else str(said)
    return str(value)


def _plain(text: str) -> str:
    """A body that is no JSON, in one line."""
    return " ".join(text.split()) or "(an empty body)"


def _passed_on(error: Mapping[str, Any]) -> dict[str, str]:
    metadata = error.get("metadata")
    headers = metadata.get("headers") if isinstance(metadata, Mapping) else None
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _status(status: int, codes: list[str]) -> int:
    """The status that counts: inside a success, the one that the body names, or 502."""
    if status in _STATUSES:
        return status
    named = [int(code) for code in codes if code.isdigit() and int(code) in _STATUSES]
    return named[0] if named else 502
