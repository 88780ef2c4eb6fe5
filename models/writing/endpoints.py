"""Paid calls to an OpenAI-compatible chat endpoint: repeated, bounded by a budget, written down."""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.writing.addresses import ServiceAddress, proxy_words
from models.writing.admission import Admission, Sending
from models.writing.answers import is_reply
from models.writing.calls import ChatCall
from models.writing.chat_config import EndpointConfig, api_key, sent_headers
from models.writing.dialects import explained_fault
from models.writing.faults import read_fault
from models.writing.pace import CallPace
from models.writing.paid_answers import most_tokens, paid_answer
from models.writing.reply_json import read_reply_json
from storage.errors import EngineError, TransientError
from storage.ledger import Answer, Ledger

if TYPE_CHECKING:
    import openai

_log = logging.getLogger(__name__)

_STATUS_OK = 200


class ChatEndpoint:
    """Sends chat requests; threads may share it.

    Args:
        config: Where and how.
        ledger: Answers from earlier calls, and the place for new ones.

    Raises:
        InputError: If an environment variable for the key or a header is not set.
    """

    def __init__(self, config: EndpointConfig, ledger: Ledger) -> None:
        import openai  # late: configurations are read where nothing is ever asked

        self._config = config
        self._ledger = ledger
        self._key = api_key(config)
        self._address = ServiceAddress.of(config.base_url)
        self._secrets, headers = sent_headers(config)
        if self._address.is_azure and self._key:
            headers = {"api-key": self._key, **headers}
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=self._address.url,
            default_query=self._address.query,
            default_headers=headers,
            timeout=config.timeout,
            max_retries=0,
        )
        self._admission = Admission(config, ledger)
        self._pace = CallPace(config.concurrency, config.max_wait)
        self.is_proven = False

    @property
    def client(self) -> "openai.OpenAI":
        """The client, with key and address; it repeats nothing by itself."""
        return self._client

    def find(self, call: ChatCall) -> Answer | None:
        """Look up what was answered before."""
        return self._ledger.find(call.key, *call.earlier_keys)

    def send(self, call: ChatCall, stop: threading.Event) -> Answer:
        """Send a request until it is answered, and write the answer down.

        Args:
            call: The request.
            stop: Set by another thread to end the waiting.

        Returns:
            The answer, on disk by now.

        Raises:
            BudgetError: If the call could pass the budget; it was not sent.
            DeclinedError: If a content filter turned the request away.
            RefusedError: If the service does not take this request.
            InputError: If the service refuses all requests of this kind.
            TransientError: If there was no answer after all repetitions.
        """
        waits = self._waits()
        while True:
            try:
                return self._attempt(call, stop)
            except TransientError as error:
                asked, wait = error.retry_after, next(waits, None)
                if stop.is_set() or wait is None or (asked or 0.0) > self._config.max_wait:
                    raise
                _log.warning("%s; asking again in %.1f s", error, wait if asked is None else asked)
            if asked is None and stop.wait(wait):
                message = "the call was given up, because the service does not answer others either"
                raise TransientError(message)

    def _waits(self) -> Iterator[float]:
        """Exponential, each shortened by up to a quarter so that callers do not march in step."""
        jitter = secrets.SystemRandom()
        for attempt in range(self._config.max_retries):
            wait = min(self._config.first_wait * 2**attempt, self._config.max_wait)
            yield wait * jitter.uniform(0.75, 1.0)

    def _attempt(self, call: ChatCall, stop: threading.Event) -> Answer:
        most = most_tokens(call.body)
        with (
            self._pace.turn(stop),
            self._admission.admitted(call.key, most, stop) as sending,
            self._errors_filed(call.key),
        ):
            sending.is_lost = True  # until it is known to have cost nothing, or its answer is filed
            started = time.monotonic()
            reply = self._post(call.body, sending)
            response = self._judged(reply, sending)
            request = {"base_url": self._config.base_url, "body": call.body, **call.about}
            seconds = time.monotonic() - started
            answer = paid_answer(call.key, request, response, self._config.prices, seconds)
            return self._ledger.add(answer.model_copy(update={"call": sending.token}))

    @contextlib.contextmanager
    def _errors_filed(self, key: str) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            self._ledger.add_error(key, str(error))
            raise

    def _post(self, body: Mapping[str, Any], sending: Sending) -> "_Reply":
        import httpx
        import openai

        try:
            raw = self._client.post("/chat/completions", cast_to=httpx.Response, body=dict(body))
            return _Reply(raw.status_code, raw.headers, raw.text)
        except openai.APIStatusError as error:
            response = error.response
            return _Reply(response.status_code, response.headers, response.text)
        except openai.APIConnectionError as error:
            # tracebacks are logged, and a service may repeat the key in its words: so without them
            sending.is_lost = not isinstance(
                error.__cause__,
                httpx.ConnectError | httpx.PoolTimeout | httpx.ConnectTimeout | httpx.ProxyError,
            )
            raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> TransientError:
        words = f"{self._config.base_url} gave no answer: {error} ({error.__cause__!r})"
        if proxy := proxy_words(self._config.base_url):
            words = f"{words}; it was asked {proxy}"
        return TransientError(self.without_secrets(words))

    def _judged(self, reply: "_Reply", sending: Sending) -> dict[str, Any]:
        """The reply's JSON, if it is an answer; anything else is raised as what it means."""
        response = reply.json() if reply.status == _STATUS_OK else None
        if response is not None and is_reply(response):
            self.is_proven = True
            self._pace.answered(reply.headers)
            return response
        if reply.is_cut_off:  # it was written, so it was paid
            message = f"{self._config.base_url} answered with something other than JSON: "
            raise TransientError(message + self.without_secrets(repr(reply.text[:80])))
        sending.is_lost = False
        text = self.without_secrets(reply.text)
        fault = read_fault(reply.status, reply.headers, text)
        error = explained_fault(fault, self._config, is_proven=self.is_proven)
        if isinstance(error, TransientError):
            self._pace.refused(error.retry_after)
        raise error from None

    def without_secrets(self, words: str) -> str:
        """A text without keys: a service may repeat them in its words."""
        for secret in (self._key, *self._secrets):
            words = words.replace(secret, "***") if secret else words
        return words


@dataclass(frozen=True)
class _Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """The body's JSON as files can hold it; nothing if it is none."""
        try:
            return read_reply_json(self.text)
        except ValueError:
            return None

    @property
    def is_cut_off(self) -> bool:
        """Whether this is the beginning of JSON that did not arrive whole."""
        begins = self.text.lstrip()[:1] in {"{", "["}
        return self.status == _STATUS_OK and begins and self.json() is None
