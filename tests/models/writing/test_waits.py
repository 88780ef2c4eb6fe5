import email.utils
import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from models.writing.faults import read_fault
from models.writing.waits import asked_wait, exhausted_wait, remaining_requests


def wait_of(body="", **headers):
    text = body if isinstance(body, str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asked_wait(read_fault(429, named, text))


def message(words):
    return {"error": {"message": words, "code": "rate_limit_exceeded"}}


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (lambda: wait_of(Retry_After="2"), 2),
        (lambda: wait_of(retry_after="1.5"), 1.5),
        (lambda: wait_of(retry_after_ms="700"), 0.7),
        (lambda: wait_of(x_ms_retry_after_ms="300"), 0.3),
        (lambda: wait_of(retry_after="-5"), 0),
        (lambda: wait_of(retry_after=email.utils.formatdate(time.time() - 60, usegmt=True)), 0),
        (lambda: wait_of(retry_after=email.utils.formatdate(time.time() + 9, usegmt=True)), 9),
        (lambda: wait_of(retry_after=str(int(time.time()) + 7)), 7),
        (lambda: wait_of(x_ratelimit_reset=str(int((time.time() + 4) * 1000))), 4),
        (lambda: wait_of(x_ratelimit_reset="12"), 12),
        (lambda: wait_of(ratelimit_reset="8"), 8),
        (lambda: wait_of(ratelimit="limit=10, remaining=0, reset=6"), 6),
        (lambda: wait_of(ratelimit='"default";r=0;t=5'), 5),
        (lambda: wait_of(x_ratelimit_reset_requests="6m0s"), 360),
        (lambda: wait_of(x_ratelimit_reset_tokens="12ms"), 0.012),
        (
            lambda: wait_of(
                x_ratelimit_reset_requests="1s",
                x_ratelimit_remaining_requests="0",
                x_ratelimit_reset_tokens="6m0s",
                x_ratelimit_remaining_tokens="9000",
            ),
            1,
        ),
        (
            lambda: wait_of(
                anthropic_ratelimit_requests_reset=(
                    datetime.now(UTC) + timedelta(seconds=11)
                ).isoformat()
            ),
            11,
        ),
        (lambda: wait_of(message("Please try again in 1.1s.")), 1.1),
        (lambda: wait_of(message("Please retry after 20 seconds.")), 20),
        (lambda: wait_of(message("Try again in 6m30s")), 390),
        (lambda: wait_of(message("please wait 250ms")), 0.25),
        (lambda: wait_of(message("Limit resets in 2 minutes and 5 seconds")), 125),
        (lambda: wait_of({"error": {"details": [{"retryDelay": "17s"}]}}), 17),
        (lambda: wait_of({"error": {"message": "slow", "retry_after": 3}}), 3),
        (lambda: wait_of({"retry_after_ms": 1500}), 1.5),
        (
            lambda: wait_of(
                {"error": {"code": 429, "metadata": {"headers": {"X-RateLimit-Reset": "5"}}}}
            ),
            5,
        ),
    ],
)
def test_how_long_a_service_wants_to_be_left_alone(wait, seconds):
    assert wait() == pytest.approx(seconds, abs=1.1 if seconds >= 4 else 0.01)


@pytest.mark.parametrize("value", ["later", "", "nan", "soon; maybe"])
def test_words_that_are_no_time_are_none(value):
    assert not wait_of(retry_after=value)


def test_a_service_that_says_nothing_asks_for_nothing():
    assert wait_of(message("slow down")) is None


def test_headers_of_an_answer_tell_what_is_left():
    headers = {"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "2s"}
    assert exhausted_wait(headers) == 2
    assert remaining_requests(headers) == 0
    headers["X-RateLimit-Remaining-Requests"] = "7"
    assert exhausted_wait(headers) is None
    assert remaining_requests(headers) == 7
    assert remaining_requests({}) is None
