"""Predictions about images of a dataset that a segmenter has not seen, in the dataset's labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16

from evaluation.scoring.background import apply_background
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.on_closed_sets import ClosedSetPredictor
from evaluation.scoring.phrases import background_words, text_rows
from evaluation.scoring.predictors import Predictor, StudentPredictor
from models.student.config import StudentConfig
from models.student.trained import load_student
from storage.class_sets import BenchmarkClasses
from storage.current_samples import CurrentSamples
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.subjects import ClosedSetRun, TrainedStudent, view_of
from training.closed_sets.trained import load_closed_set


@dataclass(frozen=True)
class HeldOutPredictor:
    """A segmenter that is asked about images of a dataset.

    Attributes:
        predictor: It, made for the classes of the dataset.
        known: The classes that it can find, as ids of the vocabulary.
        rule: What makes a pixel background, and its threshold.
    """

    predictor: Predictor
    known: frozenset[int]
    rule: tuple[Background, float]


def held_out_predictor(
    subject: TrainedStudent | ClosedSetRun,
    classes: BenchmarkClasses,
    config: ScoringConfig,
    device: Any,
) -> HeldOutPredictor:
    """Load a trained segmenter that is to find some classes.

    Args:
        subject: The student of a run, or the network of a closed-set run.
        classes: The classes, with a background.
        config: Templates, windows, background rule and threshold of a student.
        device: Where it computes.

    Raises:
        DataError: If its files are damaged.
        InputError: If it is not trained, weights are missing, or it knows none of the classes.
    """
    if isinstance(subject, ClosedSetRun):
        network, record = load_closed_set(Path(subject.run))
        view = view_of(record)
        found = ClosedSetPredictor(network.to(device), record.closed_set, classes, view, device)
        wanted = record.closed_set.class_ids
        known = frozenset(k for k in classes.class_ids if k is not None and k in wanted)
        return HeldOutPredictor(found, known, (Background.NONE, 0.0))
    from models.student.text_embeddings import TextEncoder

    student, meta = load_student(subject.run)
    clip = StudentConfig.model_validate(meta["config"]["student"])
    encoder = TextEncoder.load(clip.clip, clip.revision).to(device)
    inference = config.inference
    words = ()
    if inference.background is Background.WORDS:
        words = background_words(config.background_words)
    rows = text_rows(encoder, classes.phrases, words, config)
    return HeldOutPredictor(
        StudentPredictor(student.to(device), rows, inference),
        frozenset(k for k in classes.class_ids if k is not None),
        (inference.background, inference.threshold),
    )


def dataset_classes(dataset: str, vocabulary: str) -> BenchmarkClasses:
    """The classes that the good shards of a dataset show, with a background, by ascending id.

    Raises:
        DataError: If a manifest or a correction is damaged.
    """
    store, records = Store.open(dataset), load_vocabulary(vocabulary)
    current, shown = CurrentSamples(store), set[int]()
    for shard in store.shards():
        if not shard.degraded:
            shown.update(*current.classes(shard).values())
    ordered = sorted(shown)
    return BenchmarkClasses(
        name="dataset",
        names=tuple(records[k].name for k in ordered),
        phrases=tuple(records[k].embedding_phrases for k in ordered),
        vocabulary=vocabulary,
        class_ids=tuple(ordered),
        background=True,
    )


def predict_labels(
    predictor: Predictor,
    image: np.ndarray,
    candidates: Sequence[int] | None,
    classes: BenchmarkClasses,
    rule: tuple[Background, float],
) -> UInt16[np.ndarray, "height width"]:
    """Predict an image's labels as the vocabulary has them: ``class_id + 1``, 0 background."""
    scores = predictor.predict(image, candidates)
    positions = apply_background(scores, *rule, background=True)
    table = np.array([0, *(1 + (k or 0) for k in classes.class_ids)], np.uint16)
    return table[positions]
