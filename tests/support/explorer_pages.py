"""The explorer's server asked as its page asks it."""

import json

from starlette.testclient import TestClient

from flows.explorer.application import make_application
from flows.explorer.explorer import Explorer
from flows.explorer.guard import Guard

__all__ = ["OURS", "found", "open_page", "post"]

OURS = {"x-magicseg": "1", "content-type": "application/json"}
"""What the page sends with what changes something."""


def open_page(store):
    """The page of a dataset, as a browser has it: asks by paths below the token."""
    explorer = Explorer(store)
    explorer.refresh()
    guard = Guard(make_application(explorer))
    client = TestClient(guard, base_url=f"http://127.0.0.1:8000/{guard.token}/")
    client.guard, client.store = guard, store
    return client


def found(page, **query):
    """What is listed by a filter."""
    answer = page.get("api/samples", params={"query": json.dumps(query)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(page, path, **fields):
    """Send what the page sends."""
    return page.post(path, content=json.dumps(fields), headers=OURS)
