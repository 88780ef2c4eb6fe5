import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.writing.answers import is_reply, read_reply
from models.writing.dialects import Meaning, meaning_of
from models.writing.faults import read_fault
from models.writing.usage import read_usage
from models.writing.waits import asked_wait

TEXTS = ("a cat sits on the red mat", "a dog runs by the wall")
GOOD = json.dumps({"texts": list(TEXTS)})
DRAFT = 'The form is {"texts": ["..."]}; an idea: {"texts": ["a cat", "cats", "more cats"]}.'


def reply(content, finish="stop", **message):
    message = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "finish_reason": finish, "message": message}]}


@pytest.mark.parametrize(
    "content",
    [
        f"<think>\n{DRAFT}\n</think>\n\n{GOOD}",
        f"{DRAFT}</think>{GOOD}",
        f"<thinking>{DRAFT}</thinking>{GOOD}",
        f"[THINK]{DRAFT}[/THINK]{GOOD}",
        f"<think></think>{GOOD}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>"
        f"{GOOD}<|return|>",
    ],
)
def test_what_a_model_thought_is_not_read(content):
    assert read_reply(reply(content)).texts == TEXTS


def test_a_thought_that_never_ends_holds_no_answer():
    read = read_reply(reply(f"<think>{DRAFT}", "length"))
    assert (read.texts, read.cut_off) == ((), True)


@pytest.mark.parametrize(
    "response",
    [
        reply(GOOD, reasoning_content=DRAFT),
        reply(GOOD, reasoning=DRAFT),
        reply([{"type": "text", "text": GOOD}]),
        reply([{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": GOOD}]),
        reply([{"type": "text", "text": GOOD[:20]}, {"type": "text", "text": GOOD[20:]}]),
        reply([{"type": "output_text", "text": {"value": GOOD}}]),
        reply({"texts": list(TEXTS)}),
        reply(list(TEXTS)),
        reply(None, parsed={"texts": list(TEXTS)}),
        reply(None, tool_calls=[{"type": "function", "function": {"arguments": GOOD}}]),
        reply(None, reasoning_content=GOOD),
        {"choices": [{"index": 0, "text": GOOD, "finish_reason": "stop"}]},
        {"choices": [reply("")["choices"][0], reply(GOOD)["choices"][0]]},
    ],
)
def test_texts_are_found_wherever_a_server_puts_them(response):
    assert is_reply(response)
    assert read_reply(response).texts == TEXTS


def test_a_draft_of_a_thought_is_no_answer():
    response = reply(None, "length", reasoning_content=DRAFT)
    assert is_reply(response)  # it was paid
    assert read_reply(response).texts == ()


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (reply("", refusal="I would rather not"), "rather not"),
        (reply([{"type": "refusal", "refusal": "not this"}]), "not this"),
        (reply("", "content_filter"), "content_filter"),
        (reply(None, "SAFETY"), "SAFETY"),
        (reply("I'm sorry, but I can't help with that."), "can't help"),
        (reply("As an AI, I do not write such things."), "As an AI"),
    ],
)
def test_a_refusal_is_told_in_the_services_words(response, words):
    assert words in read_reply(response).refusal


def test_texts_that_came_before_a_filter_cut_in_are_kept():
    read = read_reply(reply(GOOD[:-5], "content_filter"))
    assert read.texts[:1] == TEXTS[:1]
    assert read.refusal


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"hello": 1},
        {"choices": []},
        {"choices": None},
        {"error": {"message": "overloaded"}},
        {"choices": [], "error": {"code": 502}},
        {"choices": [{"error": {"code": 502, "message": "upstream"}, "finish_reason": "error"}]},
        {"choices": [{"finish_reason": "error", "message": {"content": ""}}]},
        [],
        "text",
        None,
    ],
)
def test_what_has_no_choices_is_no_answer(response):
    assert not is_reply(response)


NAMES = [
    *("choices", "message", "content", "text", "type", "refusal", "finish_reason", "tool_calls"),
    *("function", "arguments", "parsed", "reasoning_content", "usage", "prompt_tokens", "timings"),
    *("error", "code", "detail", "loc", "msg", "metadata", "headers", "raw", "innererror"),
    *("retry_after", "retryDelay", "completion_tokens", "status", "delta"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5), st.sampled_from([200, 400, 503]))
def test_no_reply_is_too_strange_to_be_read(response, status):
    for reply in (response, {"choices": [response]}, {"choices": [{"message": response}]}):
        is_reply(reply)
        assert all(isinstance(text, str) for text in read_reply(reply).texts)
        assert all(count is None or count > 0 for count in read_usage(reply))
        fault = read_fault(status, {}, json.dumps(reply))
        assert meaning_of(fault)[0] in Meaning
        assert (asked_wait(fault) or 0.0) >= 0
