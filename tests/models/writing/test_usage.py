import pytest

from models.writing.usage import read_usage


@pytest.mark.parametrize(
    ("response", "tokens"),
    [
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}, (10, 5)),
        ({"usage": {"input_tokens": 10, "output_tokens": 5}}, (10, 5)),
        ({"usage": {"promptTokens": 10, "completionTokens": 5}}, (10, 5)),
        ({"usage": {"prompt_tokens": "10", "completion_tokens": 5.0}}, (10, 5)),
        (
            {
                "usage": {
                    "prompt_tokens": 10,
                    "completion_tokens": 5,
                    "prompt_tokens_details": {"cached_tokens": 9},
                    "completion_tokens_details": {"reasoning_tokens": 4},
                }
            },
            (10, 5),
        ),
        ({"prompt_eval_count": 10, "eval_count": 5}, (10, 5)),
        ({"timings": {"prompt_n": 10, "predicted_n": 5}}, (10, 5)),
        ({"usage": None, "timings": {"prompt_n": 10, "predicted_n": 5}}, (10, 5)),
        ({"usage": {"prompt_tokens": 10}}, (10, None)),
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 0}}, (10, None)),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, (None, None)),
        ({"usage": {"total_tokens": 15}}, (None, None)),
        ({"usage": {"prompt_tokens": True, "completion_tokens": "many"}}, (None, None)),
        ({"usage": {"prompt_tokens": -3, "completion_tokens": float("inf")}}, (None, None)),
        ({"usage": []}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_tokens_are_read_as_services_say_them(response, tokens):
    assert read_usage(response) == tokens
