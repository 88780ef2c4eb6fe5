"""What a chat service answered: the texts in it, however the model wrapped them.

Every answer was paid, so nothing that holds texts is thrown away. A reader looks, in this order,
for whole JSON anywhere in the answer, for JSON that is broken or cut off, and for one text a line.
What a reasoning model thought before it answered is not part of the answer.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.writing.text_lists import FoundTexts, find_texts

_FILTERED = re.compile(
    r"content[-_ ]?filter|safety|sensitive|blocked|prohibited|guardrail|recitation|refusal",
    re.IGNORECASE,
)
_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens", "token_limit"})
_THOUGHT = re.compile(
    r"<(think|thinking|thought|thoughts|reasoning|reflection)\b[^>]*>.*?</\1\s*>"
    r"|\[THINK\].*?\[/THINK\]|◁think▷.*?◁/think▷",
    re.IGNORECASE | re.DOTALL,
)
_THOUGHT_BEGINS = re.compile(
    r"<(?:think|thinking|thought|thoughts|reasoning|reflection)\b[^>]*>|\[THINK\]|◁think▷",
    re.IGNORECASE,
)
_THOUGHT_ENDS = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|reflection)\s*>|\[/THINK\]|◁/think▷",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_MARK = re.compile(r"<\|[\w-]+\|>")
_APOLOGY = re.compile(
    r"\W*(?:i['\u2019]?m (?:really |very )?sorry|i am (?:very )?sorry|sorry,"
    r"|i can(?:no|['\u2019])?t\b|i cannot|i won['\u2019]?t"
    r"|i (?:am|['\u2019]m) (?:unable|not able)|i must decline"
    r"|unfortunately, i can|as an ai\b|(?:很)?抱歉|对不起)",
    re.IGNORECASE,
)
_THOUGHT_PARTS = frozenset({"thinking", "reasoning", "redacted_thinking", "reasoning_text"})


@dataclass(frozen=True)
class ReadReply:
    """What was read in a reply.

    Attributes:
        texts: All texts that it holds, in order.
        form: How they were written: ``json``, ``repaired json``, ``lines`` or ``nothing``.
        excerpt: The beginning of the answer, for people.
        cut_off: Whether the model ran out of tokens.
        refusal: Why the model or a filter declined, in its own words; empty if it did not.
    """

    texts: tuple[str, ...]
    form: str
    excerpt: str
    cut_off: bool
    refusal: str


def is_reply(response: Any) -> bool:
    """Whether a response's JSON is a model's answer: it has choices, and not only a fault's."""
    return any(_content(choice) or not _is_fault(choice) for choice in _choices(response))


def read_reply(response: Mapping[str, Any]) -> ReadReply:
    """Read the texts out of a reply.

    Args:
        response: The reply's JSON, as the ledger keeps it.
    """
    read = [_read_choice(choice) for choice in _choices(response)]
    if not read:
        return ReadReply((), "nothing", str(response)[:80], cut_off=False, refusal="")
    return max(read, key=lambda each: len(each.texts))  # the first of the best


def _choices(response: Any) -> list[Mapping[str, Any]]:
    choices = response.get("choices") if isinstance(response, Mapping) else None
    if not isinstance(choices, list):
        return []
    return [choice for choice in choices if isinstance(choice, Mapping)]


def _is_fault(choice: Mapping[str, Any]) -> bool:
    """Whether a gateway reports a fault in the place of an answer."""
    return bool(choice.get("error")) or choice.get("finish_reason") == "error"


def _read_choice(choice: Mapping[str, Any]) -> ReadReply:
    finish = str(choice.get("finish_reason") or choice.get("native_finish_reason") or "")
    cut_off = finish.lower() in _CUT
    content = _content(choice)
    found = find_texts(content, cut_off=cut_off)
    if not found.texts and not cut_off:  # some servers file a whole answer as a thought
        found = next(filter(lambda each: each.texts, _thoughts(choice)), found)
    refusal = _refusal(choice, finish)
    if found.form in {"lines", "nothing"} and _APOLOGY.match(content):
        found, refusal = FoundTexts((), "nothing"), refusal or content[:200]
    return ReadReply(tuple(found.texts), found.form, content[:80], cut_off, refusal)


def _thoughts(choice: Mapping[str, Any]) -> Iterator[Any]:
    message = _message(choice)
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and not _content(choice):
            found = find_texts(_spoken(message[name]))
            if found.form == "json":  # anything looser would read drafts
                yield found


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("message", "delta"):
        if isinstance(choice.get(name), Mapping):
            return choice[name]
    return {"content": choice.get("text")}


def _content(choice: Mapping[str, Any]) -> str:
    """What the model said, without what it thought."""
    message = _message(choice)
    said = _spoken(_text(message.get("content")))
    return said if said.strip() else _spoken("\n".join(_elsewhere(message)))


def _elsewhere(message: Mapping[str, Any]) -> Iterator[str]:
    """Other places of a message in which servers put structured answers."""
    if isinstance(message.get("parsed"), Mapping | list):
        yield json.dumps(message["parsed"], ensure_ascii=False)
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)]
    for function in [*functions, message.get("function_call")]:
        if isinstance(function, Mapping):
            yield _text(function.get("arguments"))


def _text(content: Any) -> str:
    """Content as a string: as it is, of its parts, or of an object that a server had parsed."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and _are_parts(content):
        return "".join(_part(each) for each in content)
    if isinstance(content, Mapping) and isinstance(content.get("text"), str):
        return content["text"]
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def _are_parts(content: Sequence[Any]) -> bool:
    return any(isinstance(each, Mapping) and isinstance(each.get("type"), str) for each in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or part.get("type") in _THOUGHT_PARTS:
        return ""
    for name in ("text", "content", "json", "value"):
        if part.get(name) is not None:
            return _text(part[name])
    return ""


def _refusal(choice: Mapping[str, Any], finish: str) -> str:
    message = _message(choice)
    if message.get("refusal"):
        return str(message["refusal"])
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and part.get("refusal"):
            return str(part["refusal"])
    return f"the content filter cut in ({finish})" if _FILTERED.search(finish) else ""


def _spoken(content: str) -> str:
    """Drop what a reasoning model thought aloud; of a thought that never ends, everything."""
    if channels := list(_CHANNEL.finditer(content)):
        final = [each for each in channels if each[1] == "final"]
        content = content[final[-1].end() :] if final else ""
        return _MARK.split(content, maxsplit=1)[0]
    content = _THOUGHT.sub("", content)
    if ends := list(_THOUGHT_ENDS.finditer(content)):  # the template had begun the thought
        content = content[ends[-1].end() :]
    if begins := _THOUGHT_BEGINS.search(content):
        content = content[: begins.start()]
    return content
