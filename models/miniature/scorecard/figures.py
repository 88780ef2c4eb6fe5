"""The painter's figures: what the judge sees in its pairs, and how alike the two pictures are."""

import numpy as np
from numpy.typing import NDArray

from models.miniature.judge.network import FOUND
from models.miniature.scorecard.pairs import Painted
from models.miniature.world import CLASSES
from models.protocols import PaintedPair
from models.writing.mentions import NOTHING

_CHANGE = 60  # grey levels by which a strongly changed pixel differs


def figures(painted: Painted) -> dict[str, float]:
    """The painter's figures by name; the score card says what each means."""
    by_class = recognised(painted)
    both, found, right = [], [], []
    for order, chances, others in zip(
        painted.orders, painted.positive, painted.negative, strict=True
    ):
        wanted = list(order.class_ids)
        shown = bool((chances[wanted] >= FOUND).all())
        found.append(bool((others[wanted] >= FOUND).any()))
        right.append(shown and not found[-1])
        if len(wanted) == 2:
            both.append(shown)
    agreement = [background_psnr(pair) for pair in painted.pairs]
    levels, shares = (np.array(column) for column in zip(*agreement, strict=True))
    return {
        "one_recognised": float(np.nanmean(by_class)),
        "one_worst_class": float(np.nanmin(by_class)),
        "two_recognised": float(np.mean(both)),
        "counterfactual_found": float(np.mean(found)),
        "pairs_right": float(np.mean(right)),
        "background_psnr_median": float(np.median(levels)),
        "background_psnr_p10": float(np.percentile(levels, 10)),
        "box_share_median": float(np.median(shares)),
    }


def recognised(painted: Painted) -> NDArray[np.floating]:
    """Share of the one-class positives of each class whose likeliest class is the right one.

    NaN where a class was not asked for alone.
    """
    hits: list[list[bool]] = [[] for _ in CLASSES]
    for order, chances in zip(painted.orders, painted.positive, strict=True):
        if len(order.class_ids) == 1:
            hits[order.class_ids[0]].append(int(chances.argmax()) == order.class_ids[0])
    return np.array([np.mean(row) if row else np.nan for row in hits])


def confusions(painted: Painted) -> dict[str, int]:
    """How often the judge took one class of a one-class positive for another (or for nothing)."""
    names = (*CLASSES, NOTHING)
    counts: dict[str, int] = {}
    for order, chances in zip(painted.orders, painted.positive, strict=True):
        seen = int(chances.argmax())
        if len(order.class_ids) == 1 and seen != order.class_ids[0]:
            key = f"{CLASSES[order.class_ids[0]]} taken for {names[seen]}"
            counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def background_psnr(pair: PaintedPair) -> tuple[float, float]:
    """Agreement of the two pictures outside the box of what changed.

    Returns:
        Peak signal-to-noise ratio in dB outside the smallest box around the rows and columns with
        several strongly changed pixels (0 if that box leaves less than a tenth of the picture, at
        most 60), and the share of the picture inside the box.
    """
    difference = pair.image.astype(np.int16) - pair.counterfactual  # (height, width, 3)
    strong = np.abs(difference).max(axis=2) > _CHANGE  # (height, width)
    rows, columns = (np.flatnonzero(strong.sum(axis=axis) > 3) for axis in (1, 0))
    outside = np.ones(strong.shape, dtype=bool)
    if rows.size and columns.size:
        top, left = max(0, rows[0] - 2), max(0, columns[0] - 2)
        outside[top : rows[-1] + 3, left : columns[-1] + 3] = False
    share = 1 - float(outside.mean())
    if share > 0.9:
        return 0.0, share
    error = np.square(difference[outside] / 255).mean()  # of (pixels outside, 3)
    return float(min(60.0, -10 * np.log10(error + 1e-12))), share
