"""Closed-set segmenters on a benchmark: trained classes instead of text, background among them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from evaluation.benchmarks.contract import Benchmark
from evaluation.scoring.background import BACKGROUND_WORD, ScoreMap
from evaluation.scoring.config import Background, ScoringConfig, ViewConfig
from evaluation.scoring.on_labels import measure
from evaluation.scoring.predictors import Watch, require_finite
from evaluation.scoring.protocols import describe_protocol
from evaluation.scoring.results import ScoreProtocol, Scores, Subject, write_scores
from evaluation.scoring.windows import View
from models.closed_sets.networks import ClosedSetNetwork
from storage.class_sets import BenchmarkClasses
from storage.errors import InputError
from storage.exports.closed_sets import ClosedSet

_TABLE = "IV"


class ClosedSetPredictor:
    """A network with one output a class.

    A pixel is background where the background's output, or that of a class that the benchmark does
    not have, is the largest; on a class set without background the best class wins always.

    Args:
        network: The network, in eval mode, with output 0 for background.
        closed_set: Its classes.
        classes: The class set of the benchmark.
        view: At which size an image is shown.
        device: Where the network is.

    Raises:
        InputError: If the benchmark has none of the network's classes.
    """

    def __init__(
        self,
        network: ClosedSetNetwork,
        closed_set: ClosedSet,
        classes: BenchmarkClasses,
        view: ViewConfig,
        device: torch.device,
    ) -> None:
        self._network = network
        self._device = device
        self._background = classes.background
        positions = find_positions(closed_set, classes)
        pairs = [(position, k + 1) for k, position in enumerate(positions) if position is not None]
        self._outputs = dict(sorted(pairs))
        self._others = [0, *(k + 1 for k, position in enumerate(positions) if position is None)]
        self.view = view
        self.num_classes = len(closed_set.names)

    @torch.no_grad()
    def predict(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        candidates: Sequence[int] | None = None,
        *,
        watch: Watch | None = None,
    ) -> ScoreMap:
        """Find the best class of every pixel; `BACKGROUND_WORD` where it is background.

        Args:
            image: RGB.
            candidates: Positions of the classes that may be predicted; all if not given.
            watch: Told the scores of each class; changes nothing.

        Raises:
            InputError: If scores are not finite.
        """
        size = (image.shape[0], image.shape[1])
        shown = View(size, self.view, patch_size=1).resized(image)
        scores = self._network.scores(shown.to(self._device), size)  # (labels, height, width)
        require_finite(scores, "scores")
        wanted = set(self._outputs if candidates is None else candidates)
        asked = [position for position in self._outputs if position in wanted]
        if not asked:
            nothing = np.zeros(size, np.float32)
            return ScoreMap(nothing, np.full(size, BACKGROUND_WORD, np.int32))
        if watch is not None:
            for position in asked:
                watch(position, scores[self._outputs[position]].float())
        best, place = scores[[self._outputs[p] for p in asked]].max(dim=0)  # (height, width) each
        index = torch.tensor(asked, dtype=torch.int32, device=place.device)[place]
        if self._background:
            # Of equal outputs the first wins, as in an arg-max with background in front.
            index[scores[self._others].amax(dim=0) >= best] = BACKGROUND_WORD
        return ScoreMap(best.float().cpu().numpy(), index.cpu().numpy())


def score_closed_set(
    predictor: ClosedSetPredictor,
    benchmark: Benchmark,
    *,
    subject: Subject,
    config: ScoringConfig,
    out: Path,
) -> Scores:
    """Score a closed-set segmenter; published numbers beside it are those of MagicSeg's table IV.

    Args:
        predictor: The network, made for this benchmark.
        benchmark: Images and truth.
        subject: What the network is.
        config: Of it the average and the number of examples count.
        out: Folder for the results.

    Raises:
        InputError: If files of the benchmark are missing.
        DataError: If the benchmark's files are broken.
    """
    protocol = closed_set_protocol(
        benchmark, config, view=predictor.view, num_classes=predictor.num_classes
    )
    # There is no threshold to move.
    plain = config.model_copy(update={"thresholds": ()})
    scores = measure(
        predictor, benchmark, subject=subject, protocol=protocol, config=plain, out=out
    )
    published = tuple(result for result in scores.published if result.table == _TABLE)
    scores = scores.model_copy(update={"published": published})
    write_scores(scores, out)
    return scores


def closed_set_protocol(
    benchmark: Benchmark, config: ScoringConfig, *, view: ViewConfig, num_classes: int
) -> ScoreProtocol:
    """What the scores of a closed-set segmenter depend on besides its weights.

    Args:
        benchmark: Images and truth.
        config: Of it the average counts.
        view: At which size an image is shown.
        num_classes: Classes that the network was trained on.
    """
    return describe_protocol(
        benchmark,
        config,
        background_rule=Background.NONE,
        threshold=0.0,
        text=f"no text: {num_classes} trained classes and a trained background",
        view=f"short side {view.short_side}, long side at most {view.long_side}, whole image",
        preset="",
        preset_changes=(),
        preset_omits=(),
    )


def find_positions(closed_set: ClosedSet, classes: BenchmarkClasses) -> list[int | None]:
    """Find the classes of a network in the class set of a benchmark.

    Raises:
        InputError: If there is none of them.
    """
    if closed_set.names == classes.names:
        return list(range(len(classes.names)))
    known = {class_id: place for place, class_id in enumerate(classes.class_ids)}
    same = closed_set.vocabulary == classes.vocabulary
    found = [
        known.get(class_id) if same and class_id is not None else None
        for class_id in closed_set.class_ids
    ]
    if all(position is None for position in found):
        message = (
            f"benchmark {classes.name} has none of the {len(found)} classes of {closed_set.name}: "
            "score on another benchmark"
        )
        raise InputError(message)
    return found
