"""The Batch API of a service: files go up, batches are made and looked at, results come down."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from models.writing.chat_config import EndpointConfig
from models.writing.dialects import Meaning, meaning_of
from models.writing.faults import read_fault
from storage.errors import EngineError, InputError, TransientError

if TYPE_CHECKING:
    import openai

ENDED = frozenset({"completed", "expired", "cancelled"})
"""States in which what a batch has answered is there, and nothing more will come."""
FAILED = "failed"
"""The state of a batch that was not begun."""

_WINDOW = "24h"  # the only one there is
_UNKNOWN = {400, 404, 405, 410, 421, 501}
_CLOCKS = timedelta(days=1)  # by which the service's clock may differ from ours
_NO_ROOM = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})
_GONE = 404
_TRANSFER_SECONDS = 600.0  # a file may have 200 MB

_ValueT = TypeVar("_ValueT")


@dataclass(frozen=True)
class ServiceBatch:
    """A batch, as the service describes it.

    Attributes:
        batch_id: The service's name for it.
        status: How far it is.
        files: The files with what came of its calls: answers and errors.
        problem: Why it was not begun; empty if it was.
        has_no_room: Whether that was for lack of room, so that it may be begun later.
    """

    batch_id: str
    status: str
    files: tuple[str, ...]
    problem: str = ""
    has_no_room: bool = False


class BatchService:
    """Speaks to the Batch API of a service.

    Args:
        config: Whom to ask.
        client: With key and address.
        hide: Takes credentials out of a text.
    """

    def __init__(
        self, config: EndpointConfig, client: "openai.OpenAI", hide: Callable[[str], str]
    ) -> None:
        self._config = config
        self._client = client.with_options(timeout=max(config.timeout, _TRANSFER_SECONDS))
        self._hide = hide
        self._is_there: bool | None = None

    def is_there(self) -> bool:
        """Whether the service has a Batch API; it is asked once.

        Raises:
            InputError: It does not let us ask.
            TransientError: It does not answer.
        """
        import openai

        if self._is_there is None:
            with self._explained("be asked for its batches"):
                try:
                    self._client.batches.list(limit=1)
                    self._is_there = True
                except openai.APIStatusError as error:
                    if error.status_code not in _UNKNOWN:
                        raise
                    self._is_there = False
        return self._is_there

    def upload(self, name: str, data: bytes) -> str:
        """Send a file of requests; gives the service's name for it."""
        with self._explained(f"take the file {name}"):
            file = self._client.files.create(file=(name, data), purpose="batch")
            return self._text(getattr(file, "id", None), "an upload")

    def make(self, file_id: str, metadata: Mapping[str, str]) -> ServiceBatch:
        """Make a batch of an uploaded file: from now on it is paid."""
        with self._explained("make a batch"):
            return self._described(
                self._client.batches.create(
                    input_file_id=file_id,
                    endpoint="/v1/chat/completions",
                    completion_window=_WINDOW,
                    metadata=dict(metadata),
                )
            )

    def find(
        self, metadata: Mapping[str, str], since: datetime, ignored: tuple[str, ...]
    ) -> ServiceBatch | None:
        """Look for a batch by what we told the service of it.

        Args:
            metadata: What it has, among other things.
            since: Before that it cannot have been made.
            ignored: Batches that are known to be others.
        """
        oldest, seen = (since - _CLOCKS).timestamp(), set[str]()
        with self._explained("list its batches"):
            for each in self._client.batches.list(limit=100):
                # the newest come first; a server that knows no pages gives the first one again
                if _number(each.created_at) < oldest or each.id in seen:
                    return None
                seen.add(each.id)
                found = each.metadata if isinstance(each.metadata, dict) else {}
                if metadata.items() <= found.items() and each.id not in ignored:
                    return self._described(each)
        return None

    def look(self, batch_id: str) -> ServiceBatch:
        """Ask how far a batch is.

        Raises:
            InputError: The service does not know it.
            TransientError: It does not answer.
        """
        with self._explained(f"say how far batch {batch_id} is", batch_id):
            return self._described(self._client.batches.retrieve(batch_id))

    def results(self, batch: ServiceBatch) -> list[bytes]:
        """Fetch the files with what came of a batch's calls."""
        with self._explained(f"give the results of batch {batch.batch_id}", batch.batch_id):
            return [self._client.files.content(file_id).read() for file_id in batch.files]

    def _described(self, batch: Any) -> ServiceBatch:
        files = [getattr(batch, name, None) for name in ("output_file_id", "error_file_id")]
        problems = _problems(batch)
        return ServiceBatch(
            batch_id=self._text(getattr(batch, "id", None), "a batch"),
            status=self._text(getattr(batch, "status", None), "the state of a batch"),
            files=tuple(file for file in files if isinstance(file, str) and file),
            problem=self._hide("; ".join(words for _, words in problems)),
            has_no_room=any(code in _NO_ROOM for code, _ in problems),
        )

    def _text(self, value: object, what: str) -> str:
        if not isinstance(value, str) or not value:
            message = f"{self._config.base_url} described {what} by {value!r}, expected a name"
            raise TransientError(message)
        return value

    @contextmanager
    def _explained(self, what: str, batch_id: str = "") -> Iterator[None]:
        """Say in our own words what went wrong when the service should do something."""
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            # tracebacks are logged, and a service may repeat the key in its words: so without them
            raise self._refused(error, what, batch_id) from None
        except openai.APIConnectionError as error:
            message = f"{self._config.base_url} gave no answer: {error} ({error.__cause__!r})"
            raise TransientError(self._hide(message)) from None
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            message = f"{self._config.base_url} answered in another form than a Batch API: {error}"
            raise TransientError(self._hide(message)) from None

    def _refused(self, error: "openai.APIStatusError", what: str, batch_id: str) -> EngineError:
        said = f"{self._config.base_url} did not {what}, it answered {error.status_code}: "
        said += self._hide(str(error.message))
        response = error.response
        fault = read_fault(response.status_code, response.headers, response.text)
        if meaning_of(fault)[0] is Meaning.BUSY:
            return TransientError(said)
        if batch_id and error.status_code == _GONE:
            return InputError(
                f"{said}; use the key with which the batch was made, or let its calls be asked "
                "again by 'magicseg batch forget', which 'magicseg batch list' shows how to type"
            )
        return InputError(f"{said}; check base_url and the account behind its key")


def _problems(batch: Any) -> list[tuple[str, str]]:
    """Code and words of what was wrong with a batch as a whole."""
    listed = getattr(getattr(batch, "errors", None), "data", None)
    return [
        (str(getattr(each, "code", "") or ""), str(getattr(each, "message", "") or each))
        for each in (listed if isinstance(listed, list) else [])
    ]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")
