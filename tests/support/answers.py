"""Answers of a ledger, as tests want them."""

from typing import Any

from storage.ledger import Answer

__all__ = ["answered"]


def answered(number: int, **changes: Any) -> Answer:
    """An answer of 1,000 tokens read and 500 written; which one, the number tells."""
    about = {
        "key": f"{number:064x}",
        "request": {},
        "response": {"choices": [{}]},
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "most_prompt_tokens": 2000,
        "most_completion_tokens": 2000,
        "seconds": 1.0,
    }
    return Answer.model_validate(about | changes)
