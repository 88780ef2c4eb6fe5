"""Folds: a dataset in parts of about the same size, by the keys of its samples alone."""

from typing import Self

from pydantic import Field, model_validator

from storage.identity import derive_seed
from storage.records import Record

__all__ = ["Fold"]


class Fold(Record, frozen=True):
    """One of several parts; a sample stays in its part when the dataset grows."""

    number: int = Field(ge=0)
    """Which one, from 0 on."""
    of: int = Field(ge=2, le=100)
    """How many there are."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.number >= self.of:
            message = f"number is {self.number}, expected less than of, which is {self.of}"
            raise ValueError(message)
        return self

    def has(self, key: str) -> bool:
        """Whether a sample is in this part, by its key."""
        return derive_seed("fold", key) % self.of == self.number
