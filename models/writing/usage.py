"""How many tokens a call took, in the ways that services say it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

_READ = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "prompt_eval_count")
_WRITTEN = ("completion_tokens", "output_tokens", "completionTokens", "outputTokens", "eval_count")
_TIMINGS = ("prompt_n", "predicted_n")  # llama.cpp
_PLACES = ("usage", "x_usage", "usage_metadata", "usageMetadata")


def read_usage(response: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens read and written; None for what the service does not say.

    No request and no answer has zero tokens: a service that says so does not count.

    Args:
        response: The reply's JSON.
    """
    for place in _places(response):
        read, written = _first(place, _READ), _first(place, _WRITTEN)
        if read is not None or written is not None:
            return read, written
    timings = response.get("timings")
    if isinstance(timings, Mapping):
        return _count(timings.get(_TIMINGS[0])), _count(timings.get(_TIMINGS[1]))
    return None, None


def _places(response: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in _PLACES:
        place = response.get(name)
        if isinstance(place, Mapping):
            yield place
    yield response  # Ollama's own form


def _first(place: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    counts = (_count(place.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def _count(value: Any) -> int | None:
    """A number of tokens above zero, also as a float or in a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and number >= 1 else None
