"""How long a service asks to be left alone, in the ways that services say it."""

import email.utils
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from models.writing.faults import Fault

_EPOCH = 1e9  # numbers beyond are points in time, not lengths of it
_EPOCH_MS = 1e12
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_WHOLE_LENGTH = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)\s*)+")
_WORDS = re.compile(
    r"(?:(?:try|retry) again (?:in|after)|retry (?:in|after)|please wait(?: for)?|wait(?: for)?"
    r"|available (?:again )?in|resets? in|retrydelay\W+)\s*(?:about |approximately )?"
    r"(?P<length>(?:\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h)"
    r"(?![a-z])\s*(?:and |, )?)+)",
    re.IGNORECASE,
)
_WORD_UNIT = re.compile(
    r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|hours?|h|minutes?|mins?|m|seconds?|secs?|s)",
    re.IGNORECASE,
)
_DEPTH = 4
_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_FIELDS = ("retry_after", "retry_after_seconds", "retryafter", "retry_after_ms", "retrydelay")


def asked_wait(fault: Fault) -> float | None:
    """Seconds that a service asks to wait; None if it does not say.

    Headers count before the body, and `Retry-After` before the times at which limits are reset.
    """
    for wait in (*_retry_after(fault.headers), *_resets(fault.headers), *_in_body(fault)):
        return max(wait, 0.0)
    return None


def exhausted_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until a limit is reset of which nothing remains, as an answer's headers say it."""
    lowered = {name.lower(): value for name, value in headers.items()}
    waits = [wait for kind in _KINDS if (wait := _reset(lowered, kind, unknown=False)) is not None]
    return max(waits, default=None)


def remaining_requests(headers: Mapping[str, str]) -> int | None:
    """How many more requests a service lets pass before the next reset, if it says so."""
    lowered = {name.lower(): value for name, value in headers.items()}
    with suppress(KeyError, ValueError):
        return int(float(lowered["x-ratelimit-remaining-requests"]))
    return None


def _retry_after(headers: Mapping[str, str]) -> Iterator[float]:
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001)):
        with suppress(KeyError, ValueError):
            yield float(headers[name]) * unit
    for name in ("retry-after", "x-retry-after"):
        with suppress(KeyError, ValueError):
            yield _moment(headers[name])


def _resets(headers: Mapping[str, str]) -> Iterator[float]:
    """Resets of the limits that are used up; of those of which nothing is known, too."""
    waits = [wait for kind in _KINDS if (wait := _reset(headers, kind, unknown=True)) is not None]
    if waits:
        yield max(waits)
    for name in ("x-ratelimit-reset-after", "x-ratelimit-reset", "ratelimit-reset"):
        with suppress(KeyError, ValueError):
            yield _moment(headers[name])
    if match := re.search(r"(?:reset|\bt)\s*=\s*(\d+(?:\.\d+)?)", headers.get("ratelimit", "")):
        yield float(match[1])


def _reset(headers: Mapping[str, str], kind: str, *, unknown: bool) -> float | None:
    for remaining, reset in (
        (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}"),
        (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset"),
    ):
        left = headers.get(remaining)
        used_up = left is None if unknown else False
        with suppress(ValueError, TypeError):
            used_up = float(left or "x") <= 0
        if used_up and reset in headers:
            with suppress(ValueError):
                return _moment(headers[reset])
    return None


def _moment(text: str) -> float:
    """Seconds from now: of a number, a length such as 6m0s, a moment since 1970, or a date.

    Raises:
        ValueError: It is none of these.
    """
    text = text.strip()
    with suppress(ValueError):
        number = float(text)
        if not math.isfinite(number):
            return 0.0
        if number >= _EPOCH_MS:
            return number / 1000 - time.time()
        return number - time.time() if number >= _EPOCH else number
    if _WHOLE_LENGTH.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _LENGTH.findall(text))
    with suppress(ValueError):
        return datetime.fromisoformat(text).timestamp() - time.time()
    return email.utils.parsedate_to_datetime(text).timestamp() - time.time()


def _in_body(fault: Fault) -> Iterator[float]:
    for name, value in _fields(fault.body):
        with suppress(ValueError, TypeError):
            yield _moment(str(value)) * (0.001 if name.endswith("_ms") else 1.0)
    if match := _WORDS.search(fault.words):
        pieces = _WORD_UNIT.findall(match["length"])
        yield sum(float(number) * _word_unit(unit.lower()) for number, unit in pieces)


def _word_unit(word: str) -> float:
    return _UNITS["ms" if word.startswith(("ms", "milli")) else word[0]]


def _fields(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Fields of the body that hold a time to wait, at any place."""
    if isinstance(value, Mapping) and depth <= _DEPTH:
        for name, inner in value.items():
            if str(name).lower() in _FIELDS and isinstance(inner, str | int | float):
                yield str(name).lower(), inner
            else:
                yield from _fields(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner, depth + 1)
