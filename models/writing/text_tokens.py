"""How many tokens a text has for a language model, for estimates: nothing is sent."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import InputError
from storage.paths import local_path

CHARACTERS_A_TOKEN = 4.0
"""A rule of thumb for English text, which services state; true counts are mostly lower."""

_FILE = "tokenizer.json"


@dataclass(frozen=True)
class TextTokens:
    """Counts the tokens of texts.

    Attributes:
        count: Of one text; the ratio gives fractions.
        source: Words for people: what counts.
    """

    count: Callable[[str], float]
    source: str


def text_tokens(tokenizer: str | None) -> TextTokens:
    """What counts the tokens of a writer's model.

    Args:
        tokenizer: A `tokenizer.json`, or a folder with one; None counts characters.

    Raises:
        InputError: If there is no such file, or it is no tokenizer.
    """
    if tokenizer is None:
        ratio = f"estimated at {CHARACTERS_A_TOKEN:.1f} characters a token"
        return TextTokens(lambda text: len(text) / CHARACTERS_A_TOKEN, ratio)
    place = local_path(tokenizer, "the tokenizer")
    file = place / _FILE if place.is_dir() else place
    loaded = _load(file)
    return TextTokens(
        lambda text: float(len(loaded.encode(text, add_special_tokens=False).ids)),
        f"counted by the tokenizer {file}",
    )


def _load(file: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = (
            f"tokenizer {file} cannot be read ({error}); expected a {_FILE} as the model's folder "
            "has it, or leave the setting 'tokenizer' out to count characters"
        )
        raise InputError(message) from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more exact
        message = (
            f"tokenizer {file} is none ({error}); expected a {_FILE} as the model's folder has it, "
            "or leave the setting 'tokenizer' out to count characters"
        )
        raise InputError(message) from error
