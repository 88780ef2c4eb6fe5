"""What the detector is asked for: a text of class names, and which token names which class."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.miniature.detector.network import LETTERS, SPECIAL, token_ids
from models.miniature.world import CLASSES


@dataclass(frozen=True)
class Prompts:
    """Texts of a batch and what they ask for.

    Attributes:
        ids: Token ids, long (batch, length), padded with 0.
        asked: Class of each token, long (batch, length), -1 where it names no class of the world.
    """

    ids: Tensor
    asked: Tensor

    def to(self, device: str) -> "Prompts":
        """The same prompts on a device."""
        return Prompts(self.ids.to(device), self.asked.to(device))

    @property
    def mask(self) -> Tensor:
        """Tokens that are not padding, bool (batch, length)."""
        return self.ids != 0


def prompt(class_ids: Sequence[int]) -> str:
    """The text that asks for these classes."""
    return " ".join(f"{CLASSES[class_id]}." for class_id in class_ids)


def ask(class_ids: Tensor, rng: random.Random) -> Prompts:
    """Make up texts that ask for most of the present classes, some absent ones and unknown words.

    Args:
        class_ids: What is there, long (batch, things), -1 for nothing.
        rng: Source of all randomness.
    """
    vocab = token_ids()
    rows = [_ask_one({int(c) for c in row if c >= 0}, vocab, rng) for row in class_ids]
    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    asked = torch.full((len(rows), length), -1)
    for number, (row, classes) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        asked[number, : len(row)] = torch.tensor(classes)
    return Prompts(ids, asked)


def _ask_one(
    present: set[int], vocab: Mapping[str, int], rng: random.Random
) -> tuple[list[int], list[int]]:
    """Token ids of one text, and the class of each token, -1 for none."""
    absent = [c for c in range(len(CLASSES)) if c not in present]
    kind = rng.random()
    if kind < 0.25:  # nothing that is there: the counterfactual's question
        chosen = rng.sample(absent, rng.randint(1, 2))
    else:
        extra = rng.randint(0, 2) if kind < 0.65 else rng.randint(0, len(absent))
        chosen = [c for c in sorted(present) if rng.random() < 0.9] + rng.sample(absent, extra)
    rng.shuffle(chosen)
    groups = [([vocab[CLASSES[c]]], c) for c in chosen]
    if not groups or rng.random() < 0.1:
        groups.insert(rng.randint(0, len(groups)), (_unknown_word(vocab, rng), -1))
    ids, classes = [SPECIAL["[CLS]"]], [-1]
    for tokens, class_id in groups:
        ids += [*tokens, SPECIAL["."]]
        classes += [class_id] * len(tokens) + [-1]
    return [*ids, SPECIAL["[SEP]"]], [*classes, -1]


def _unknown_word(vocab: Mapping[str, int], rng: random.Random) -> list[int]:
    """A word outside the world, which the tokenizer spells: nothing may be found for it."""
    letters = [rng.choice(LETTERS) for _ in range(rng.randint(3, 7))]
    return [vocab[letters[0]], *(vocab[f"##{letter}"] for letter in letters[1:])]
