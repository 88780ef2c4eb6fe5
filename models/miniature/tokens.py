"""A tiny CLIP tokenizer: every word of the world is one token, other words are spelled."""

import json
import string
from collections.abc import Iterable
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, words: Iterable[str], max_length: int) -> None:
    """Write the files of a `CLIPTokenizer`.

    Args:
        folder: Where `CLIPTokenizer.from_pretrained` shall find it; created.
        words: Lower-case words that become one token each.
        max_length: Tokens of a text, start and end included.
    """
    merges, vocabulary = _byte_pairs(sorted(set(words)))
    common = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = common | {"tokenizer_class": "CLIPTokenizer", "model_max_length": max_length}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(common, indent=1), encoding="utf-8")


def _byte_pairs(words: list[str]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Merges that join each word from left to right, and the token ids.

    A merge that is added later never gets in the way of an earlier word, because the earlier merges
    are applied first.
    """
    letters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = _apply([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _apply(pieces, merges)
            tokens.append(merges[-1][0] + merges[-1][1])
    ordered = [*dict.fromkeys(tokens), START, END]
    return merges, {token: index for index, token in enumerate(ordered)}


def _apply(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    for left, right in merges:
        index = 0
        while index < len(pieces) - 1:
            if pieces[index] == left and pieces[index + 1] == right:
                pieces[index : index + 2] = [left + right]
            index += 1
    return pieces
