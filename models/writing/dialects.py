"""What services mean when they do not answer: one table for all OpenAI-compatible ones.

The table has a row for everything that services say in different ways. A row is recognised by a
code, or by words where a service has no code for it; what no row knows is judged by its status.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from models.writing.addresses import advised_address
from models.writing.calls import DeclinedError, RefusedError
from models.writing.chat_config import EndpointConfig
from models.writing.faults import Fault
from models.writing.waits import asked_wait
from storage.errors import EngineError, InputError, TransientError

_RETRIED = {202, 408, 409, 425, 429}
_SERVER_ERROR = 500
_ADDRESS = {404, 405, 301, 302, 307, 308}
_ACCOUNT = {401, 402, 403, 407}


class Meaning(StrEnum):
    """What a service means."""

    DECLINED = "declined"
    """A filter turned this request away; others may pass."""
    ACCOUNT = "account"
    """Key, rights or credit: no request passes until somebody sees to it."""
    MODEL = "model"
    """There is no such model there."""
    ADDRESS = "address"
    """There is no chat service at that path."""
    LENGTH = "length"
    """This request is too long for the model."""
    SETTING = "setting"
    """The service does not take a field as it was sent."""
    BUSY = "busy"
    """The service would answer later."""
    REQUEST = "request"
    """Something else is wrong with the request."""


@dataclass(frozen=True)
class Dialect:
    """One thing that services say, and how.

    Attributes:
        meaning: What it means.
        services: Who says it so.
        codes: Values of code, type or status in lower case.
        words: What stands in the message where there is no code.
        advice: The setting that would help.
    """

    meaning: Meaning
    services: str
    codes: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    advice: str = ""

    def matches(self, fault: Fault) -> bool:
        """Whether a fault is of this kind."""
        return bool(self.codes & set(fault.codes)) or bool(
            self.words and self.words.search(fault.words)
        )


def _row(
    meaning: Meaning, services: str, *codes: str, words: str = "", advice: str = ""
) -> Dialect:
    pattern = re.compile(words, re.IGNORECASE) if words else None
    return Dialect(meaning, services, frozenset(codes), pattern, advice)


DIALECTS = (
    _row(
        Meaning.DECLINED,
        "OpenAI, Azure, LiteLLM, DashScope, OpenRouter",
        "content_filter",
        "content_policy_violation",
        "contentpolicyviolationerror",
        "responsibleaipolicyviolation",
        "data_inspection_failed",
        "datainspectionfailed",
        "moderation_blocked",
        "content_filter_error",
        "safety_error",
        "prohibited_content",
        "sensitive",
        "1301",
    ),
    _row(
        Meaning.DECLINED,
        "Azure, LiteLLM, DashScope, OpenRouter, gateways",
        words=r"contentpolicyviolation|content management policy|content (?:policy|filter)"
        r"|inappropriate content|flagged (?:by|for|as)|requires moderation|input (?:was|is) flagged"
        r"|safety (?:system|filter|polic)|violat\w+ [\w' ]{0,40}(?:usage|content) polic"
        r"|guardrail|\bdata inspection failed|blocked by [\w' ]{0,20}(?:filter|moderation|policy)",
    ),
    _row(
        Meaning.ACCOUNT,
        "OpenAI, DashScope, OpenRouter, LiteLLM, DeepSeek",
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "arrearage",
        "budget_exceeded",
        "invalid_api_key",
        "invalidapikey",
        "insufficient_balance",
        "insufficient_credits",
        "authentication_error",
        "permission_error",
        "1113",
        "402",
    ),
    _row(
        Meaning.ACCOUNT,
        "OpenAI, OpenRouter, LiteLLM, DashScope",
        words=r"exceeded your current quota|insufficient (?:credits?|balance|funds|quota)"
        r"|budget has been exceeded|exceededbudget|budgetexceeded|overdue|out of credits?"
        r"|incorrect api key|invalid (?:api key|subscription key|token|authentication)"
        r"|(?:free )?allocated quota exceeded|no auth credentials|payment required|add credits",
    ),
    _row(
        Meaning.BUSY,
        "OpenAI, TGI, LiteLLM, DashScope, llama.cpp",
        "rate_limit_exceeded",
        "rate_limit_error",
        "ratelimiterror",
        "throttling_error",
        "overloaded",
        "overloaded_error",
        "unavailable_error",
        "server_error",
        "limit_requests",
        "limit_burst_rate",
        "throttling",
        "throttling.ratequota",
        "throttling.allocationquota",
        "requesttimeout",
        "serviceunavailable",
        "slow_down",
        "timeout",
        "engine_overloaded_error",
        "resource_exhausted",
        "unavailable",
    ),
    _row(
        Meaning.BUSY,
        "Ollama, llama.cpp, LM Studio, TGI, vLLM, gateways",
        words=r"loading model|model (?:is )?(?:currently )?(?:loading|overloaded|busy|starting)"
        r"|server (?:is )?(?:busy|overloaded)|too many requests|rate[- ]?limit(?:ed|error| reached)"
        r"|maximum pending requests|(?:try|retry) again (?:in|later)|temporarily unavailable"
        r"|no (?:free )?slots? available|queue is full|capacity|engine (?:is )?dead"
        r"|upstream (?:connect )?error|bad gateway|provider returned error",
    ),
    _row(
        Meaning.ADDRESS,
        "LM Studio, FastAPI, nginx, llama.cpp, Azure",
        words=r"unexpected endpoint|no (?:handler|route) (?:found|matched)|page not found"
        r"|^\W*not found\W*$|file not found|resource not found|invalid url|unknown path"
        r"|method not allowed|^<!doctype|^<html|cannot post",
    ),
    _row(
        Meaning.MODEL,
        "OpenAI, Azure, vLLM, LM Studio, DashScope",
        "model_not_found",
        "deploymentnotfound",
        "invalid_model",
        "modelnotfound",
        "model_not_supported",
    ),
    _row(
        Meaning.MODEL,
        "Ollama, vLLM, OpenRouter, LiteLLM, LM Studio",
        words=r"model\W+[^\n]{0,120}?(?:not found|does not exist|not exist|is not available"
        r"|not a valid model)|not a valid model|invalid model(?: name)?\b|no models? loaded"
        r"|no endpoints? found|unknown model|unable to load model|deployment[^\n]{0,60}not exist",
    ),
    _row(
        Meaning.LENGTH,
        "OpenAI, vLLM, llama.cpp, TGI, OpenRouter",
        "context_length_exceeded",
        "exceed_context_size_error",
        "string_above_max_length",
        words=r"maximum context length|context (?:size|window|length)[^\n]{0,60}exceed"
        r"|exceed[^\n]{0,40}context|too many (?:input )?tokens|inputs\W+tokens \+"
        r"|prompt (?:is )?too long|must have less than \d+ tokens|range of input length",
        advice="texts_per_call and max_tokens (lower them)",
    ),
    _row(
        Meaning.SETTING,
        "all: answers in a schema",
        words=r"response[_ ]?format|json[_ ]?schema|json[_ ]?object|structured[_ ]?outputs?"
        r"|guided[_ ]?(?:json|decoding)|grammar",
        advice="answer_format (json or text)",
    ),
    _row(
        Meaning.SETTING,
        "OpenAI's reasoning models",
        words=r"\btemperature\b",
        advice="temperature (1, or null to send none)",
    ),
    _row(
        Meaning.SETTING,
        "OpenAI's reasoning models, older servers",
        words=r"max_completion_tokens|\bmax_tokens\b|max_new_tokens",
        advice="max_tokens_field ({other_field}), or max_tokens (a smaller number)",
    ),
    _row(
        Meaning.SETTING,
        "older servers, Anthropic's and Google's compatible ones",
        words=r"\bseed\b",
        advice="send_seed (false)",
    ),
)
"""Rows in the order in which they are looked at."""


def meaning_of(fault: Fault) -> tuple[Meaning, str]:
    """What a fault means, and the setting that would help; empty if none would."""
    for row in DIALECTS:
        if row.matches(fault) and _is_possible(row.meaning, fault):
            return row.meaning, row.advice
    if fault.status in _RETRIED or fault.status >= _SERVER_ERROR:
        return Meaning.BUSY, ""
    if fault.status in _ACCOUNT:
        return Meaning.ACCOUNT, ""
    return (Meaning.ADDRESS if fault.status in _ADDRESS else Meaning.REQUEST), ""


def _is_possible(meaning: Meaning, fault: Fault) -> bool:
    """Whether the status lets the words mean that: an overloaded server uses many of them."""
    if meaning in {Meaning.SETTING, Meaning.LENGTH}:
        return fault.status <= _SERVER_ERROR and fault.status not in _RETRIED | _ACCOUNT | _ADDRESS
    if meaning is Meaning.BUSY:
        return fault.status not in {400, 401, 402, 404, 405, 413, 422}
    if meaning in {Meaning.ADDRESS, Meaning.MODEL}:
        return fault.http_status < _SERVER_ERROR and fault.status not in {401, 402, 429}
    return True


def explained_fault(
    fault: Fault, config: EndpointConfig, *, is_proven: bool = False
) -> EngineError:
    """Say what a reply without an answer means for the call.

    Args:
        fault: What the service said.
        config: Whom it was asked of; says what the ways out are.
        is_proven: Whether the service has answered such calls before: then address and model are
            right, and a gateway has lost them for a while.

    Returns:
        DeclinedError for a filter, RefusedError for what is wrong with this request alone,
        TransientError for what may work later, InputError for what somebody must change.
    """
    meaning, advice = meaning_of(fault)
    inside = "" if fault.status == fault.http_status else f" (inside HTTP {fault.http_status})"
    said = f"{config.base_url} answered {fault.status}{inside}: {fault.words}"
    if meaning is Meaning.DECLINED:
        return DeclinedError(said)
    if meaning is Meaning.BUSY or (is_proven and meaning in {Meaning.ADDRESS, Meaning.MODEL}):
        return TransientError(said, retry_after=asked_wait(fault))
    way = _way_out(meaning, advice, config)
    error = RefusedError if meaning in {Meaning.REQUEST, Meaning.LENGTH} else InputError
    return error(f"{said}; {way}")


def _way_out(meaning: Meaning, advice: str, config: EndpointConfig) -> str:
    if meaning is Meaning.ACCOUNT:
        key = config.api_key_env or "api_key_env, which is not set"
        return f"see to the account at the service, or to the key in {key}"
    if meaning is Meaning.MODEL:
        return f"ask for another model than {config.model!r}, or get it onto the server"
    if meaning is Meaning.ADDRESS:
        return advised_address(config.base_url)
    if advice:
        fields = {"max_completion_tokens", "max_tokens"} - {config.max_tokens_field}
        return f"set the writer's {advice.format(other_field=fields.pop())}"
    return (
        f"check model {config.model!r}, base_url, and the writer's settings answer_format, "
        "temperature, max_tokens_field and send_seed, with which it leaves fields out"
    )
