"""Settings of a writer that asks a language model."""

import os
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, JsonValue, model_validator

from models.writing.addresses import proxy_words
from models.writing.instructions import DEFAULT_INSTRUCTIONS, AnswerFormat, load_instructions
from storage.errors import InputError
from storage.identity import canonical_json
from storage.prices import Prices

_OWN_FIELDS = frozenset(
    {
        "max_completion_tokens",  # a budget reckons with it
        "max_tokens",
        "messages",
        "model",
        "n",
        "response_format",
        "seed",
        "stream",
        "temperature",
    }
)
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)

_EXECUTION = frozenset(
    {
        "base_url",
        "api_key_env",
        "max_tokens_field",
        "timeout",
        "max_retries",
        "first_wait",
        "max_wait",
        "prices",
        "tokenizer",
        "budget_usd",
        "budget_tokens",
        "concurrency",
        "mode",
        "batch",
    }
)
"""Where a model is served and what it may cost says nothing about its texts."""


class EndpointConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Where a chat model is served, and the limits on calls and cost."""

    model: str = Field(min_length=1)
    """Name of the model, as the service knows it."""
    base_url: str = Field(default="https://api.openai.com/v1", pattern=r"^https?://[^@\s]+$")
    """Address of the service; no user names or passwords in it."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; null for a server that wants none."""
    max_tokens: int = Field(default=2048, gt=0)
    """Most tokens of one answer."""
    max_tokens_field: str = Field(
        default="max_completion_tokens", pattern=r"^max_(completion_)?tokens$"
    )
    """How the service calls that limit; older servers know only max_tokens."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds to wait for an answer."""
    max_retries: int = Field(default=6, ge=0)
    """How often a call is repeated after 408, 409, 429, 5xx, a timeout or a lost connection."""
    first_wait: float = Field(default=1.0, ge=0)
    """Seconds before the first repetition; doubled for each further one, with some jitter."""
    max_wait: float = Field(default=60.0, ge=0)
    """Longest pause in seconds. A service that asks for a longer one is not asked again."""
    prices: Prices | None = None
    """USD for a million tokens; null means unknown, and so is then the cost."""
    tokenizer: str | None = None
    """The model's tokenizer.json, or a folder with one, to estimate costs with; null estimates
    tokens from characters."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Most calls in flight, of all workers of a dataset together; fewer where the service says that
    it is busy."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Further fields of every request, such as top_p or chat_template_kwargs."""
    extra_headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Further headers of every request; $NAME stands for an environment variable."""
    budget_usd: float | None = Field(default=None, gt=0)
    """Most money that all calls of a dataset may cost together; needs prices."""
    budget_tokens: int | None = Field(default=None, gt=0)
    """Most tokens, read and written, that all calls of a dataset may take together."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.budget_usd is not None and self.prices is None:
            message = "budget_usd needs prices, expected prices: {prompt: ..., completion: ...}"
            raise ValueError(message)
        if own := sorted(_OWN_FIELDS & set(self.extra_body)):
            message = f"extra_body has {own}, which the writer sets itself; expected other fields"
            raise ValueError(message)
        for name, value in self.extra_headers.items():
            if _SECRET_HEADER.search(name) and not value.startswith("$"):
                message = (
                    f"extra_headers {name!r} looks like a secret, expected the name of an "
                    "environment variable that holds it, such as $MY_KEY"
                )
                raise ValueError(message)
        return self

    def __hash__(self) -> int:
        """Models are kept by their settings, and two of these are dictionaries."""
        return hash(canonical_json(self))


class BatchSettings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How batches are made; most need none of it."""

    min_calls: int = Field(default=100, ge=1)
    """Fewest calls that mode `auto` makes a batch of; fewer are made at once."""
    max_calls: int = Field(default=50_000, ge=1, le=50_000)
    """Most calls of one batch; services have a limit on what may wait at the same time."""
    max_bytes: int = Field(default=200_000_000, ge=100_000, le=200_000_000)
    """Most bytes of the file of one batch."""
    price_share: float = Field(default=0.5, ge=0, le=1)
    """What an answer of a batch costs, as a share of `prices`."""
    look_seconds: float = Field(default=900.0, ge=10)
    """Seconds between two looks at a batch."""


class ChatWriterConfig(EndpointConfig, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A language model behind an OpenAI-compatible endpoint."""

    kind: Literal["chat"] = "chat"
    """Tells this writer from the others."""
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    """Sampling temperature; null sends none, as some models demand."""
    send_seed: bool = True
    """Whether a derived seed is sent; not every service knows the field."""
    answer_format: AnswerFormat = "schema"
    """`schema` demands a strict JSON schema; `json` any JSON, for models from before schemas such
    as gpt-3.5-turbo; `text` sends no such field, for services that know none."""
    instructions: str = DEFAULT_INSTRUCTIONS
    """The words in which texts are asked for: a set of the engine (paper), or the path of a .yaml
    file. The texts depend on its contents, not on its name."""
    texts_per_call: int = Field(default=10, ge=1, le=100)
    """Most texts asked for in one call."""
    mode: Literal["auto", "sync", "batch", "run-batch"] = "sync"
    """How answers are asked for: `sync` makes every call at once; `batch` puts them into batches,
    which cost half and are answered within a day; `auto` does that where the service can and there
    are at least `batch.min_calls` of them; `run-batch` writes them down for the offline program of
    vLLM, see `magicseg batch`."""
    batch: BatchSettings = BatchSettings()
    """How batches are made."""

    @property
    def batch_prices(self) -> Prices | None:
        """What an answer of a batch costs; None if that is not known."""
        return None if self.prices is None else self.prices.times(self.batch.price_share)

    def identity(self) -> dict[str, Any]:
        """Say what the texts depend on; where a model is served and what it costs is no part.

        Raises:
            InputError: If the instructions cannot be read.
        """
        # what is not used is no part of it, so that datasets from before it existed stay the same
        unused = {name for name in ("extra_body", "extra_headers") if not getattr(self, name)}
        fields = self.model_dump(mode="json", exclude={*_EXECUTION, *unused})
        return {**fields, "instructions": load_instructions(self.instructions).identity}

    def check(self) -> str:
        """Look for the key; say which model is asked, and whether its cost will be known.

        Raises:
            InputError: If the environment variable for the key or a header is not set, or the
                instructions cannot be read.
        """
        api_key(self)
        load_instructions(self.instructions)
        prices = "known" if self.prices else "unknown: the cost will be unknown too"
        sent_headers(self)
        proxy = proxy_words(self.base_url)
        way = f", {proxy}" if proxy else ""
        return f"{self.model} at {self.base_url}{way}, prices {prices}"


def api_key(config: EndpointConfig) -> str:
    """Read the service's key from the environment; empty for a server that wants none.

    Raises:
        InputError: If the variable is not set.
    """
    if config.api_key_env is None:
        return ""
    key = os.environ.get(config.api_key_env, "").strip()  # a file that is read in ends in a newline
    if not key:
        message = (
            f"the environment variable {config.api_key_env} is not set; put the key for "
            f"{config.base_url} into it, name another variable with api_key_env, or set that to "
            "null for a server that wants no key"
        )
        raise InputError(message)
    return key


def sent_headers(config: EndpointConfig) -> tuple[list[str], dict[str, str]]:
    """The headers to send: the values that must not be shown, and all by name.

    Raises:
        InputError: If an environment variable that one names is not set.
    """
    secrets: list[str] = []
    headers: dict[str, str] = {}
    for name, value in config.extra_headers.items():
        if value.startswith("$"):
            variable, value = value[1:], os.environ.get(value[1:], "").strip()
            if not value:
                message = (
                    f"the environment variable {variable} is not set, which extra_headers wants "
                    f"for {name!r}; set it, or take the header out"
                )
                raise InputError(message)
            secrets.append(value)
        headers[name] = value
    return secrets, headers
