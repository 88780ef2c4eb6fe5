"""What services say when they do not answer: bodies as their documentation and users show them."""

import json
from collections import Counter

import pytest

from models.writing.calls import DeclinedError, RefusedError
from models.writing.chat_config import EndpointConfig
from models.writing.dialects import DIALECTS, Meaning, explained_fault, meaning_of
from models.writing.faults import read_fault
from storage.errors import InputError, TransientError

CONFIG = EndpointConfig(model="m", base_url="http://host:8000/v1")


def openai(message, code=None, kind="invalid_request_error", param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def inside(code, message="Provider returned error", **metadata):
    return {"error": {"code": code, "message": message, "metadata": metadata}}


SAID = [
    # OpenAI
    ("OpenAI", 400, openai("Your request was rejected.", "content_policy_violation"), "declined"),
    ("OpenAI", 429, openai("You exceeded your current quota", "insufficient_quota"), "account"),
    ("OpenAI", 429, openai("Rate limit reached for m", "rate_limit_exceeded"), "busy"),
    ("OpenAI", 404, openai("The model `m` does not exist", "model_not_found"), "model"),
    ("OpenAI", 404, openai("Invalid URL (POST /chat/completions)"), "address"),
    ("OpenAI", 401, openai("Incorrect API key provided", "invalid_api_key"), "account"),
    (
        "OpenAI",
        400,
        openai("Unsupported value: 'temperature' does not support 0.5", "unsupported_value"),
        "setting",
    ),
    (
        "OpenAI",
        400,
        openai("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        "setting",
    ),
    (
        "OpenAI",
        400,
        openai("Invalid 'temperature': decimal above maximum value", "decimal_above_max_value"),
        "setting",
    ),
    ("Google", 400, openai("Unknown name 'seed': Cannot find field.", "400"), "setting"),
    ("Mistral", 422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}, "setting"),
    (
        "vLLM",
        400,
        {"object": "error", "message": "temperature must be non-negative", "code": 400},
        "setting",
    ),
    # Azure
    (
        "Azure",
        400,
        {
            "error": {
                "message": "The response was filtered",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        "declined",
    ),
    ("Azure", 404, {"error": {"code": "404", "message": "Resource not found"}}, "address"),
    (
        "Azure",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist"}},
        "model",
    ),
    (
        "Azure",
        401,
        {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}},
        "account",
    ),
    ("Azure", 429, {"error": {"code": "429", "message": "Please retry after 20 seconds."}}, "busy"),
    # vLLM
    (
        "vLLM",
        404,
        {"object": "error", "message": "The model `m` does not exist.", "code": 404},
        "model",
    ),
    (
        "vLLM",
        400,
        openai("This model's maximum context length is 4096 tokens and max_tokens", 400),
        "length",
    ),
    ("vLLM", 400, openai("guided_json is not supported with this backend", 400), "setting"),
    ("vLLM", 500, {"object": "error", "message": "engine is dead", "code": 500}, "busy"),
    # Ollama
    (
        "Ollama",
        404,
        openai('model "m" not found, try pulling it first', None, "api_error"),
        "model",
    ),
    ("Ollama", 404, {"error": "model 'm' not found"}, "model"),
    (
        "Ollama",
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        "busy",
    ),
    # LM Studio
    ("LM Studio", 200, {"error": "Unexpected endpoint or method. (POST /chat)"}, "address"),
    ("LM Studio", 404, openai("No models loaded. Please load a model", "model_not_found"), "model"),
    ("LM Studio", 400, {"error": "'response_format.type' must be 'json_schema'"}, "setting"),
    # llama.cpp
    (
        "llama.cpp",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "busy",
    ),
    (
        "llama.cpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error",
            }
        },
        "length",
    ),
    ("llama.cpp", 404, {"error": {"code": 404, "message": "File Not Found"}}, "address"),
    # TGI
    ("TGI", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, "busy"),
    (
        "TGI",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096",
            "error_type": "validation",
        },
        "length",
    ),
    ("TGI", 424, {"error": "Request failed during generation", "error_type": "x"}, "request"),
    # LiteLLM
    (
        "LiteLLM",
        429,
        openai("litellm.RateLimitError: upstream", "429", "throttling_error"),
        "busy",
    ),
    (
        "LiteLLM",
        400,
        openai("litellm.ContentPolicyViolationError: AzureException", "400", "None"),
        "declined",
    ),
    ("LiteLLM", 400, openai("ExceededBudget: over 10", "400", "budget_exceeded"), "account"),
    ("LiteLLM", 400, openai("Invalid model name passed in model=m", "400"), "model"),
    # OpenRouter
    ("OpenRouter", 200, inside(429, raw="m is temporarily rate-limited upstream"), "busy"),
    ("OpenRouter", 200, inside(502), "busy"),
    ("OpenRouter", 402, inside(402, "Insufficient credits. Add more"), "account"),
    (
        "OpenRouter",
        403,
        inside(403, "m requires moderation. Your input was flagged", reasons=["violence"]),
        "declined",
    ),
    ("OpenRouter", 404, inside(404, "No endpoints found for m."), "model"),
    (
        "OpenRouter",
        200,
        {
            "choices": [
                {
                    "finish_reason": "error",
                    "message": {"content": ""},
                    "error": {"code": 429, "message": "slow"},
                }
            ]
        },
        "busy",
    ),
    # DashScope
    (
        "DashScope",
        400,
        openai("Input data may contain inappropriate content.", "data_inspection_failed"),
        "declined",
    ),
    (
        "DashScope",
        400,
        {"code": "DataInspectionFailed", "message": "Output data", "request_id": "r"},
        "declined",
    ),
    ("DashScope", 429, openai("Requests rate limit exceeded", "limit_requests"), "busy"),
    ("DashScope", 400, {"code": "Arrearage", "message": "Access denied"}, "account"),
    # a plain FastAPI server, proxies
    ("FastAPI", 404, {"detail": "Not Found"}, "address"),
    ("FastAPI", 405, {"detail": "Method Not Allowed"}, "address"),
    (
        "FastAPI",
        422,
        {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
        "setting",
    ),
    (
        "FastAPI",
        422,
        {"detail": [{"loc": ["body", "response_format"], "msg": "extra fields"}]},
        "setting",
    ),
    ("FastAPI", 500, {"detail": "CUDA out of memory"}, "busy"),
    ("nginx", 502, "<html><h1>502 Bad Gateway</h1></html>", "busy"),
    ("nginx", 503, "<html>Service Temporarily Unavailable</html>", "busy"),
    ("nginx", 404, "<html>404 Not Found</html>", "address"),
    ("a web page", 200, "<!DOCTYPE html><title>Open WebUI</title>", "address"),
    ("Go", 404, "404 page not found", "address"),
    ("nobody", 529, "", "busy"),
    ("nobody", 408, "", "busy"),
    ("nobody", 418, {"message": "a teapot"}, "request"),
]


def fault_of(status, body, **headers):
    text = body if isinstance(body, str) else json.dumps(body)
    return read_fault(status, headers, text)


@pytest.mark.parametrize(("service", "status", "body", "meaning"), SAID)
def test_a_service_is_understood(service, status, body, meaning):
    assert meaning_of(fault_of(status, body))[0] == Meaning(meaning), service


def test_every_row_of_the_table_is_said_in_three_ways():
    faults = [fault_of(status, body) for _, status, body, _ in SAID]
    unsaid = [row for row in DIALECTS if sum(row.matches(fault) for fault in faults) < 3]
    assert unsaid == []


def test_every_service_of_the_table_says_three_things():
    services = Counter(service for service, *_ in SAID)
    named = ("OpenAI", "Azure", "vLLM", "Ollama", "LM Studio", "llama.cpp", "TGI", "LiteLLM")
    for service in (*named, "OpenRouter", "DashScope", "FastAPI"):
        assert services[service] >= 3, service


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (400, openai("response_format is not supported"), "answer_format"),
        (400, openai("Unrecognized field: seed"), "send_seed"),
        (400, openai("'temperature' must be 1"), "temperature"),
        (400, openai("unknown field max_completion_tokens"), "max_tokens_field (max_tokens)"),
        (400, openai("the maximum context length is 512"), "texts_per_call"),
        (404, {"detail": "Not Found"}, "http://host:8000/v1"),
        (401, openai("no"), "OPENAI_API_KEY"),
        (404, {"error": "model 'm' not found"}, "another model than 'm'"),
    ],
)
def test_the_words_and_the_setting_that_helps_reach_the_user(status, body, advice):
    fault = fault_of(status, body)
    error = explained_fault(fault, CONFIG)
    assert isinstance(error, InputError)
    assert fault.words in str(error)
    assert advice in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, openai("x", "content_filter"), DeclinedError),
        (418, {"message": "a teapot"}, RefusedError),
        (400, openai("the maximum context length is 512"), RefusedError),
        (503, "", TransientError),
        (402, "", InputError),
    ],
)
def test_what_it_means_for_the_call(status, body, kind):
    assert type(explained_fault(fault_of(status, body), CONFIG)) is kind


@pytest.mark.parametrize("body", [{"detail": "Not Found"}, {"error": "model 'm' not found"}])
def test_a_service_that_answered_before_has_lost_its_model_or_path_for_a_while(body):
    error = explained_fault(fault_of(404, body), CONFIG, is_proven=True)
    assert isinstance(error, TransientError)


def test_the_words_of_the_provider_behind_a_gateway_are_told():
    fault = fault_of(200, inside(429, raw="too many requests on m today"))
    assert "too many requests on m today" in fault.words
    assert (fault.status, fault.http_status) == (429, 200)
