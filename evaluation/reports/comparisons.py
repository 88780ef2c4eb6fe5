"""Comparisons of labellers: what each makes of the same pictures, and what is learned from it."""

from typing import Any, Literal

from pydantic import Field

from storage.records import Record


class LabelledSet(Record, frozen=True):
    """What one labeller made of the pictures of one seed."""

    labeller: str
    """Its name in the comparison."""
    seed: int
    """Seed of the pictures."""
    root: str
    """Where the dataset is."""
    requested: int
    """Samples of its finished shards."""
    written: int
    """Of these, samples in tars."""
    dropped: dict[str, int]
    """The others, by reason."""
    common: int
    """Samples that the first labeller's dataset has too."""
    agreement: float | None
    """Mean IoU of these with the first labeller's masks, class by class, in [0, 1]; uncertain
    pixels are left out; None if there are none."""
    exact: float | None = None
    """Mean IoU with exact masks on drawn scenes with one thing; None if none were drawn."""
    exact_two: float | None = None
    """The same on drawn scenes with two things."""
    seconds: float
    """What finding and cutting took, for each sample that was painted."""


class TrainedSubject(Record, frozen=True):
    """A segmenter that learned from one dataset."""

    labeller: str
    """Whose masks it learned from."""
    seed: int
    """Seed of the pictures and of the training."""
    subject: str
    """`student`, or the recipe of a closed-set segmenter."""
    state: Literal["measured", "failed", "to do"] = "to do"
    """How far it is."""
    error: str = ""
    """Why it failed."""
    scores: dict[str, float] = Field(default_factory=dict)
    """The headline in [0, 1] by benchmark."""


class Comparison(Record, frozen=True):
    """Labellers side by side."""

    profile: str
    """Models that they share."""
    labellers: tuple[str, ...]
    """In the order of the tables; the first is what the others are compared to."""
    subjects: tuple[str, ...]
    """What is trained on each."""
    seeds: tuple[int, ...]
    """In the order of the tables."""
    benchmarks: tuple[str, ...]
    """In the order of the tables."""
    metrics: dict[str, str]
    """What the headline is, by benchmark."""
    sets: tuple[LabelledSet, ...]
    """Every dataset that is there."""
    trained: tuple[TrainedSubject, ...]
    """Every training."""
    settings: dict[str, Any]
    """The parameters."""
    engine_version: str
    """Version of the code."""

    @property
    def unfinished(self) -> tuple[TrainedSubject, ...]:
        """Trainings that are not measured."""
        return tuple(each for each in self.trained if each.state != "measured")
