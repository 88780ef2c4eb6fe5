"""Estimates: how many calls and tokens texts will take, before any of them is asked for.

The requests are rendered as a run would send them, so their number and length are those of the run.
How long answers are, and how many texts must be asked for again, is told by the answers of the same
model to the same instructions in the ledger; without any, by what the instructions ask for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from models.protocols import TextRequest
from models.writing.answers import read_reply
from models.writing.calls import cut_calls
from models.writing.chat_config import ChatWriterConfig
from models.writing.instructions import InstructionSet, load_instructions
from models.writing.text_tokens import TextTokens, text_tokens
from storage.ledger import Answer, Ledger
from storage.vocabulary import ClassRecord

_MOST_ANSWERS = 128
_MOST_LOOKED_AT = 384
_MESSAGE_TOKENS = 4.0  # what a chat's form adds to each message, and to the beginning of the answer
_FORM_TOKENS, _TEXT_FORM_TOKENS = 6.0, 3.0  # {"texts": [ ... ]}, and "...", around each text
_CAPTION = (
    "An old red fishing boat with peeling paint lies on the wet sand of a quiet harbour at low "
    "tide, while two gulls circle above the grey stone pier and the first warm light of the "
    "morning falls on the roofs of the small town behind it."
)
"""English as captions are written in, to learn how many tokens a word has."""


@dataclass(frozen=True)
class CallEstimate:
    """What texts will take.

    Attributes:
        calls: Calls that will be sent, those of later rounds included.
        known_calls: Calls of the first round that the ledger answers.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        requests: Text requests, of which `sampled` were rendered and the others taken to be alike.
        sampled: See `requests`.
        sources: Where each figure comes from, in words.
    """

    calls: int
    known_calls: int
    prompt_tokens: int
    completion_tokens: int
    requests: int
    sampled: int
    sources: tuple[str, ...]


def estimate_calls(
    config: ChatWriterConfig,
    requests: Sequence[TextRequest],
    total: int,
    ledger: Ledger | None = None,
) -> CallEstimate:
    """Estimate what text requests will take; nothing is sent.

    Args:
        config: The writer.
        requests: Requests of the first round; some of them, evenly chosen, if there are many.
        total: How many requests there are.
        ledger: What was answered before costs nothing, and tells how long answers are.

    Raises:
        DataError: If an answer in the ledger is damaged.
        InputError: If the instructions or the tokenizer cannot be read.
    """
    instructions = load_instructions(config.instructions)
    tokens = text_tokens(config.tokenizer)
    calls = cut_calls(config, requests, instructions)
    known = ledger.keys() if ledger is not None else frozenset[str]()
    new = [call for call in calls if known.isdisjoint((call.key, *call.earlier_keys))]
    past = list(_alike(ledger, config, instructions)) if ledger is not None else []
    history = _History.of(past, tokens)
    scale = total / len(requests) if requests else 0.0
    prompt = scale * sum(_message_tokens(call.body["messages"], tokens) for call in new)
    captions = _Captions(instructions.words, tokens)
    a_text = captions.length if history is None else lambda _classes: history.tokens_a_text
    completion = scale * sum(
        _FORM_TOKENS * (history is None) + call.count * a_text(requests[call.request].classes)
        for call in new
    )
    if history is not None:
        prompt *= history.prompt_factor * (1 + history.again_prompt)
        completion *= 1 + history.again_completion
    again = 1 + history.again_calls if history is not None else 1.0
    return CallEstimate(
        calls=round(scale * len(new) * again),
        known_calls=round(scale * (len(calls) - len(new))),
        prompt_tokens=round(prompt),
        completion_tokens=round(completion),
        requests=total,
        sampled=len(requests),
        sources=tuple(_sources(tokens, instructions, history)),
    )


@dataclass(frozen=True)
class _History:
    """What the answers of the same model to the same instructions tell.

    Attributes:
        answers: How many.
        prompt_factor: Tokens read as the service counts them, for each that we count.
        tokens_a_text: Tokens written for each text.
        again_calls: Calls of later rounds for each call of the first.
        again_prompt: Tokens read in later rounds for each in the first.
        again_completion: Tokens written in later rounds for each in the first.
    """

    answers: int
    prompt_factor: float
    tokens_a_text: float
    again_calls: float
    again_prompt: float
    again_completion: float

    @classmethod
    def of(cls, answers: Sequence[Answer], tokens: TextTokens) -> "_History | None":
        """Learn from answers, all of which say how many tokens they took; nothing from none."""
        first = [answer for answer in answers if not answer.request.get("round")]
        later = [answer for answer in answers if answer.request.get("round")]
        sent = (answer.request["body"]["messages"] for answer in first)
        counted = sum(_message_tokens(messages, tokens) for messages in sent)
        texts = sum(_num_texts(answer) for answer in first)
        if not counted or not texts:
            return None
        read, written = _read(first), _written(first)
        return cls(
            answers=len(answers),
            prompt_factor=read / counted,
            tokens_a_text=written / texts,
            again_calls=len(later) / len(first),
            again_prompt=_read(later) / read,
            again_completion=_written(later) / written,
        )


def _alike(
    ledger: Ledger, config: ChatWriterConfig, instructions: InstructionSet
) -> Iterator[Answer]:
    """Answers of the same model to the same instructions; as keys are digests, at random."""
    identity = instructions.identity

    def fits(answer: Answer) -> bool:
        body = answer.request.get("body", {})
        return (
            body.get("model") == config.model
            and "messages" in body
            and answer.request.get("instructions") == identity
            and bool(answer.prompt_tokens and answer.completion_tokens)
        )

    looked_at = islice(ledger.answers(), _MOST_LOOKED_AT)
    return islice(filter(fits, looked_at), _MOST_ANSWERS)


class _Captions:
    """Captions as long as they are asked for, in the middle.

    Args:
        words: Fewest and most words.
        tokens: Counts tokens.
    """

    def __init__(self, words: tuple[int, int], tokens: TextTokens) -> None:
        self._words = sum(words) / 2
        self._tokens = tokens
        self._a_word = tokens.count(_CAPTION) / len(_CAPTION.split())

    def length(self, classes: Sequence[ClassRecord]) -> float:
        """Tokens of a caption that names the classes: their words are rarer than the others."""
        names = " ".join(record.forms[0] for record in classes)
        others = max(0.0, self._words - len(names.split()))
        return self._tokens.count(names) + others * self._a_word + _TEXT_FORM_TOKENS


def _message_tokens(messages: Iterable[dict[str, str]], tokens: TextTokens) -> float:
    return _MESSAGE_TOKENS + sum(_MESSAGE_TOKENS + tokens.count(m["content"]) for m in messages)


def _num_texts(answer: Answer) -> int:
    if answer.reading is not None:
        return answer.reading.texts
    return len(read_reply(answer.response).texts)


def _read(answers: Iterable[Answer]) -> int:
    return sum(answer.prompt_tokens or 0 for answer in answers)


def _written(answers: Iterable[Answer]) -> int:
    return sum(answer.completion_tokens or 0 for answer in answers)


def _sources(
    tokens: TextTokens, instructions: InstructionSet, history: _History | None
) -> Iterator[str]:
    if history is None:
        least, most = instructions.words
        yield f"tokens read: {tokens.source}; a service may count its own form of the answer too"
        yield (
            f"tokens written: captions of {(least + most) / 2:g} words, the middle of the {least} "
            f"to {most} that are asked for, {tokens.source}; a model that thinks before it answers "
            "takes more"
        )
        yield (
            "texts that are refused and asked for again: none, as nothing is known yet; make "
            "one shard (--shards 0) and plan again to learn it from the answers"
        )
        return
    by = f"{history.answers} answers of this model to these instructions"
    yield f"tokens read: {tokens.source}, times {history.prompt_factor:.2f} as {by} say"
    yield f"tokens written: {history.tokens_a_text:.1f} a text, as {by} took"
    yield f"texts that are asked for again: {history.again_calls:.1%} more calls, as in {by}"
