"""Paid calls to an OpenAI-compatible chat endpoint: retried, bounded by a budget, written down."""

import contextlib
import email.utils
import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from models.writing.calls import DeclinedError
from models.writing.chat_config import EndpointConfig, api_key
from models.writing.instructions import whole_characters
from storage.errors import BudgetError, EngineError, InputError, TransientError
from storage.identity import canonical_json
from storage.ledger import Answer, Ledger

if TYPE_CHECKING:
    import openai

_log = logging.getLogger(__name__)

_RETRIED = {408, 409, 429}
_SERVER_ERROR = 500
_FILTERED = {"content_filter", "content_policy_violation"}
_FRAME_TOKENS = 64  # what a chat template may add around the messages


class ChatEndpoint:
    """Sends chat requests; threads may share it.

    Args:
        config: Where and how.
        ledger: Answers from earlier calls, and the place for new ones.

    Raises:
        InputError: If the environment variable for the key is not set.
    """

    def __init__(self, config: EndpointConfig, ledger: Ledger) -> None:
        import openai  # late: configurations are read where nothing is ever asked

        self._config = config
        self._ledger = ledger
        self._key = api_key(config)
        self._client = openai.OpenAI(
            api_key=self._key, base_url=config.base_url, timeout=config.timeout, max_retries=0
        )
        self._budget = _Budget(config, ledger)
        self._quiet_until = 0.0

    @property
    def client(self) -> "openai.OpenAI":
        """The client, with key and address; it repeats nothing by itself."""
        return self._client

    def hide(self, words: str) -> str:
        """Take credentials out of a text."""
        return words.replace(self._key, "***") if self._key else words

    def refresh(self) -> None:
        """Take in what other processes spent, if there is a budget; before a batch of calls."""
        if self._config.budget_usd is not None or self._config.budget_tokens is not None:
            self._ledger.refresh()

    def find(self, key: str) -> Answer | None:
        """Look up what was answered before, by the digest of the request."""
        return self._ledger.find(key)

    def send(
        self, key: str, body: Mapping[str, Any], about: Mapping[str, Any], stop: threading.Event
    ) -> Answer:
        """Send a request until it is answered, and write the answer down.

        Args:
            key: Digest of all that makes the request what it is.
            body: The request's JSON.
            about: What the ledger keeps beside the body.
            stop: Set by another thread to end the waiting.

        Returns:
            The answer, on disk by now.

        Raises:
            BudgetError: If the call could pass the budget; it was not sent.
            DeclinedError: If a content filter turned the request away.
            InputError: If the service refuses it for another reason (4xx).
            TransientError: If there was no answer after all repetitions.
        """
        most = (len(canonical_json(body)) + _FRAME_TOKENS, self._config.max_tokens)
        with self._budget.reserved(*most):
            started = time.monotonic()
            response = self._insist(key, body, stop)
            return self._ledger.add(
                Answer(
                    key=key,
                    request={"base_url": self._config.base_url, "body": dict(body), **about},
                    response=response,
                    prompt_tokens=_count(response, "prompt_tokens"),
                    completion_tokens=_count(response, "completion_tokens"),
                    most_prompt_tokens=most[0],
                    most_completion_tokens=most[1],
                    prices=self._config.prices,
                    seconds=round(time.monotonic() - started, 3),
                )
            )

    def _insist(self, key: str, body: Mapping[str, Any], stop: threading.Event) -> dict[str, Any]:
        waits = self._waits()
        while True:
            _sleep(self._quiet_until - time.monotonic(), stop)
            try:
                with self._errors_filed(key):
                    return self._post(body)
            except TransientError as error:
                asked, wait = error.retry_after or 0.0, next(waits, None)
                if wait is None or asked > self._config.max_wait:
                    raise
                _log.warning("%s; asking again in %.1f s", error, asked or wait)
                if asked:  # the service wants to be left alone by every call, not just this one
                    self._quiet_until = max(self._quiet_until, time.monotonic() + asked)
            _sleep(asked or wait, stop)

    def _waits(self) -> Iterator[float]:
        """Exponential, each shortened by up to a quarter so that callers do not march in step."""
        jitter = secrets.SystemRandom()
        for attempt in range(self._config.max_retries):
            wait = min(self._config.first_wait * 2**attempt, self._config.max_wait)
            yield wait * jitter.uniform(0.75, 1.0)

    @contextlib.contextmanager
    def _errors_filed(self, key: str) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            self._ledger.add_error(key, str(error))
            raise

    def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        import openai

        try:
            raw = self._client.chat.completions.with_raw_response.create(**body)
            response = _storable(json.loads(raw.http_response.text, parse_constant=str))
        except openai.APIStatusError as error:
            # tracebacks are logged, and a service may repeat the key in its words: so without them
            raise self._explained(error) from None
        except openai.APIConnectionError as error:
            message = f"{self._config.base_url} gave no answer: {error} ({error.__cause__!r})"
            raise TransientError(message.replace(self._key, "***")) from None
        except ValueError as error:
            message = f"{self._config.base_url} answered with something other than JSON: {error}"
            raise TransientError(message) from error
        if not isinstance(response, dict):
            message = f"{self._config.base_url} answered with a {type(response).__name__}"
            raise TransientError(message)
        return response

    def _explained(self, error: "openai.APIStatusError") -> EngineError:
        words = str(error.message).replace(self._key, "***")
        said = f"{self._config.base_url} answered {error.status_code}: {words}"
        if error.code in _FILTERED:
            return DeclinedError(said)
        if error.code != "insufficient_quota" and (
            error.status_code in _RETRIED or error.status_code >= _SERVER_ERROR
        ):
            return TransientError(said, retry_after=_retry_after(error.response.headers))
        return InputError(
            f"{said}; check model {self._config.model!r}, base_url, the writer's other settings, "
            f"and the account behind {self._config.api_key_env}"
        )


class _Budget:
    """Lets a call pass only if its worst case fits beside what was spent and is in flight."""

    def __init__(self, config: EndpointConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._changed = threading.Condition()
        self._in_flight: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def reserved(self, prompt_tokens: int, completion_tokens: int) -> Iterator[None]:
        call = (prompt_tokens, completion_tokens)
        with self._changed:
            while excess := self._excess(call):
                if not self._in_flight:
                    raise BudgetError(excess)
                self._changed.wait()  # what is in flight mostly costs less than its worst case
            self._in_flight.append(call)
        try:
            yield
        finally:
            with self._changed:
                self._in_flight.remove(call)
                self._changed.notify_all()

    def _excess(self, call: tuple[int, int]) -> str:
        """Why the call does not fit, or an empty text."""
        config, calls = self._config, [*self._in_flight, call]
        tokens, usd = self._ledger.spent(config.prices)
        reserved = self._ledger.batches.worst(config.prices)
        tokens, usd = tokens + reserved[0], usd + reserved[1]
        worst = sum(map(sum, calls))
        if config.budget_tokens is not None and tokens + worst > config.budget_tokens:
            return _beyond(
                f"{tokens} tokens", f"{worst}", f"budget_tokens = {config.budget_tokens}"
            )
        if config.budget_usd is None or config.prices is None:
            return ""
        worst_usd = sum(config.prices.cost(*call) for call in calls)
        if usd + worst_usd > config.budget_usd:
            return _beyond(
                f"{usd:.4f} USD", f"{worst_usd:.4f}", f"budget_usd = {config.budget_usd}"
            )
        return ""


def _beyond(spent: str, worst: str, limit: str) -> str:
    return (
        f"{spent} are spent and the next call may take {worst} more, beyond {limit}; raise the "
        "budget and run the same command again, nothing that was answered is asked again"
    )


def _sleep(seconds: float, stop: threading.Event) -> None:
    if stop.wait(max(seconds, 0.0)):
        message = "the call was given up, because the service does not answer others either"
        raise TransientError(message)


def _storable(value: Any) -> Any:
    """The same JSON without halves of characters, which no file can hold."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {whole_characters(name): _storable(item) for name, item in value.items()}
    return value


def _count(response: Mapping[str, Any], field: str) -> int | None:
    usage = response.get("usage")
    count = usage.get(field) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: milliseconds, seconds or a date, whichever is there."""
    for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            return max(float(headers[header]) * unit, 0.0)
    with contextlib.suppress(KeyError, ValueError):
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
        return max(date.timestamp() - time.time(), 0.0)
    return None
