"""Captions: the phrases of an image as one text in which every phrase knows its tokens.

The text is `phrase1. phrase2.`, which Grounding DINO was trained on: words of different phrases do
not see each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from storage.errors import InputError

_SEPARATORS = str.maketrans(".?", "  ")  # what the network takes for the end of a phrase
_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class Caption:
    """Some phrases of one image, in the words of the tokenizer.

    Attributes:
        image: Index of the image.
        phrases: What stands in it, all different.
        text: The caption `p1. p2. p3.`.
        token_ids: The same with special tokens.
        spans: For each phrase the positions of its tokens.
    """

    image: int
    phrases: tuple[str, ...]
    text: str
    token_ids: list[int]
    spans: tuple[list[int], ...]


class Captions:
    """Writes captions that a network can read.

    Args:
        tokenizer: A fast tokenizer of BERT's kind.
        max_tokens: Longest caption, special tokens included.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    def of(self, image: int, phrases: Sequence[str]) -> Iterator[Caption]:
        """Spread the phrases of an image over as few captions as hold them, in order.

        Args:
            image: Its index.
            phrases: Plain ones, see `plain_phrase`; one that comes twice is written once.

        Raises:
            InputError: If a phrase is longer than the network reads, or has no token.
        """
        limit = self._max_tokens - _SPECIAL_TOKENS
        chunk: list[str] = []
        used = 0
        for phrase in dict.fromkeys(phrases):
            length = len(self._tokenizer(f"{phrase}.", add_special_tokens=False).input_ids)
            if length > limit:
                message = f"phrase {phrase!r} has {length} tokens, expected at most {limit}"
                raise InputError(message)
            if used + length > limit:
                yield self._caption(image, chunk)
                chunk, used = [], 0
            chunk.append(phrase)
            used += length
        if chunk:
            yield self._caption(image, chunk)

    def _caption(self, image: int, phrases: Sequence[str]) -> Caption:
        text, starts = "", []
        for phrase in phrases:
            starts.append(len(text))
            text += f"{phrase}. "
        text = text.rstrip()
        encoded = self._tokenizer(text, return_offsets_mapping=True)
        spans = tuple(
            [
                position
                for position, (first, last) in enumerate(encoded.offset_mapping)
                if start <= first < last <= start + len(phrase)
            ]
            for phrase, start in zip(phrases, starts, strict=True)
        )
        unread = [phrase for phrase, span in zip(phrases, spans, strict=True) if not span]
        if unread:
            message = f"phrase {unread[0]!r} has no token, expected words that the network knows"
            raise InputError(message)
        return Caption(image, tuple(phrases), text, encoded.input_ids, spans)


def plain_phrases(images: int, phrases: Sequence[Sequence[str]]) -> list[list[str]]:
    """The plain phrases of each image, see `plain_phrase`.

    Args:
        images: How many there are.
        phrases: For each image what to look for.

    Raises:
        InputError: If a phrase is empty, or there are phrases of more or fewer images.
    """
    if images != len(phrases):
        message = f"{images} images came with phrases of {len(phrases)}, expected as many"
        raise InputError(message)
    return [[plain_phrase(phrase) for phrase in own] for own in phrases]


def plain_phrase(phrase: str) -> str:
    """A phrase in lower case, without what ends a phrase.

    Raises:
        InputError: If nothing is left.
    """
    plain = " ".join(phrase.lower().translate(_SEPARATORS).split())
    if not plain:
        message = f"phrase {phrase!r} has no words, expected what the detector should look for"
        raise InputError(message)
    return plain
