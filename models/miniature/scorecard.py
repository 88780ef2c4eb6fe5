"""How good the miniatures are, alone and in a chain, and the page that says so.

The painter is asked through the same code as in a generation run. An independent judge, trained on
drawn scenes, says what its pictures show; the detector that labels them has no say in that.
"""

import hashlib
import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.miniature import captions, judge
from models.miniature.scenes import DrawnScene, held_out
from models.miniature.world import CLASSES, sample_scene
from models.painting.painters import DiffusionPairPainter
from models.profiles import load_profile
from models.protocols import FoundBoxes, PaintedPair, PairRequest
from storage.errors import InputError

_CHANGE = 60
_BARS = {
    "one_recognised": (">=", 0.90, "one thing: the judge's first choice is the class asked for"),
    "one_worst_class": (">=", 0.60, "the same, worst class"),
    "two_recognised": (">=", 0.60, "two things: the judge finds both"),
    "counterfactual_found": ("<=", 0.02, "counterfactuals in which a removed class is found"),
    "pairs_right": ("", 0.0, "pairs that are right: all classes found, and none once removed"),
    "background_psnr_median": (">=", 25.0, "agreement outside the changed box, median in dB"),
    "background_psnr_p10": ("", 0.0, "the same, 10th percentile"),
    "box_share_median": ("", 0.0, "share of the picture inside the changed box, median"),
    "detector_found": (">=", 0.70, "objects asked for that the detector finds in positives"),
    "detector_false": ("", 0.0, "counterfactuals in which the detector finds a removed class"),
    "seconds_for_64_pairs": ("<=", 180.0, "seconds to paint, search and cut out 64 pairs"),
}
_OTHER_BARS = {
    ("detector", "recall_one"): ">= 0.95",
    ("detector", "recall_two"): ">= 0.95",
    ("detector", "false_twin"): "<= 0.05",
    ("detector", "false_alone"): "<= 0.05",
    ("detector", "false_among_all"): "<= 0.05",
    ("segmenter", "iou"): ">= 0.85",
    ("clip", "zero_shot"): ">= 0.8",
    ("detector and segmenter", "iou_detector_boxes"): ">= 0.8",
}
_OTHERS = {"judge": judge.__name__} | {
    name: f"models.miniature.{name}" for name in ("detector", "segmenter", "clip")
}

_STUDENT_BAR = 60
_SUBJECTS = {
    "student on generated": "student on generated samples",
    "student on drawn": "student on drawn scenes with exact masks",
    "untrained": "student before its training",
    "baseline": "Grounding DINO and SAM",
}
_MARK = "<!-- All that follows is written by `python -m models.miniature scorecard`. -->"


@dataclass(frozen=True)
class Order:
    """A pair to paint and the classes that its first picture must show.

    Attributes:
        class_ids: One or two classes.
        request: Both texts and the seed.
    """

    class_ids: tuple[int, ...]
    request: PairRequest


@dataclass(frozen=True)
class Painted:
    """Pairs and what the judge sees in them.

    Attributes:
        orders: What was asked for.
        pairs: What was painted.
        positive: The judge's probabilities for the positives, shape (pairs, classes + 1).
        negative: The same for the counterfactuals.
    """

    orders: Sequence[Order]
    pairs: Sequence[PaintedPair]
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]


def orders(per_class: int, pairs: int, seed: int) -> list[Order]:
    """Texts in the painter's language: some for each class alone, some for two random classes."""
    rng = np.random.default_rng((seed, 5))
    wanted = [(class_id,) for class_id in range(len(CLASSES)) for _ in range(per_class)]
    wanted += [tuple(rng.choice(len(CLASSES), 2, replace=False).tolist()) for _ in range(pairs)]
    result = []
    for number, class_ids in enumerate(wanted):
        scene = sample_scene(rng, num_things=len(class_ids), class_ids=class_ids)
        text, twin, _ = captions.caption(scene, rng, bare=False)
        shown = tuple(thing.class_id for thing in scene.things)
        result.append(Order(shown, PairRequest(text, twin, seed * 100_000 + number)))
    return result


def paint(weights: Path, wanted: Sequence[Order]) -> Painted:
    """Paint and judge.

    Args:
        weights: Folder that holds `painter` and `judge`.
        wanted: The pairs.
    """
    settings = load_profile("miniature").painter
    painter = DiffusionPairPainter(settings.model_copy(update={"model": str(weights / "painter")}))
    pairs = painter.paint([order.request for order in wanted])
    referee = judge.load(weights / "judge")
    return Painted(
        wanted,
        pairs,
        referee.probabilities(np.stack([pair.image for pair in pairs])),
        referee.probabilities(np.stack([pair.counterfactual for pair in pairs])),
    )


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
    names = (*CLASSES, captions.NOTHING)
    counts: dict[str, int] = {}
    for order, chances in zip(painted.orders, painted.positive, strict=True):
        seen = int(chances.argmax())
        if len(order.class_ids) == 1 and seen != order.class_ids[0]:
            key = f"{CLASSES[order.class_ids[0]]} taken for {names[seen]}"
            counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def figures(painted: Painted) -> dict[str, float]:
    """The figures of the painter: see `_BARS` for what each means."""
    by_class = recognised(painted)
    both, found, right = [], [], []
    for order, chances, others in zip(
        painted.orders, painted.positive, painted.negative, strict=True
    ):
        wanted = list(order.class_ids)
        shown = bool((chances[wanted] >= judge.FOUND).all())
        found.append(bool((others[wanted] >= judge.FOUND).any()))
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


def detections(painted: Painted, weights: Path) -> dict[str, float]:
    """What the detector of the pipeline finds, at the thresholds of the profile."""
    positive, negative = (
        np.array([len(set(boxes.phrases.tolist())) for boxes in found])
        for found in _searched(painted, weights)
    )
    return {
        "detector_found": float(positive.sum() / sum(len(o.class_ids) for o in painted.orders)),
        "detector_false": float((negative > 0).mean()),
    }


def seconds_for(weights: Path, wanted: Sequence[Order]) -> float:
    """How long it takes to paint pairs, search both pictures and cut out what is found.

    Loading the models is part of it, writing texts and shards is not.
    """
    started = time.monotonic()
    painted = paint(weights, wanted)
    found, _ = _searched(painted, weights)
    kept = [(p.image, b.xyxy) for p, b in zip(painted.pairs, found, strict=True) if len(b.xyxy)]
    images, boxes = zip(*kept, strict=True)
    _segmenter(weights).segment(images, boxes)
    return time.monotonic() - started


def _searched(painted: Painted, weights: Path) -> tuple[Sequence[FoundBoxes], Sequence[FoundBoxes]]:
    """Boxes of the classes asked for in the positives and in the counterfactuals."""
    detector = _detector(weights)
    asked = [tuple(CLASSES[i] for i in order.class_ids) for order in painted.orders]
    return (
        detector.detect([pair.image for pair in painted.pairs], asked),
        detector.detect([pair.counterfactual for pair in painted.pairs], asked),
    )


def _detector(weights: Path) -> GroundingDino:
    settings = load_profile("miniature").detector
    return GroundingDino(settings.model_copy(update={"model": str(weights / "detector")}))


def _segmenter(weights: Path) -> Sam:
    settings = load_profile("miniature").segmenter
    return Sam(settings.model_copy(update={"model": str(weights / "segmenter")}))


def chain_iou(weights: Path, scenes: Sequence[DrawnScene]) -> dict[str, float]:
    """Masks cut along the detector's best box of each thing of drawn scenes.

    Returns:
        `detected`: share of the visible things that have a box; `iou_detector_boxes`: mean IoU of
        the masks of those that have one.
    """
    detector, segmenter = _detector(weights), _segmenter(weights)
    asked = [tuple(CLASSES[t.class_id] for t in drawn.scene.things) for drawn in scenes]
    overlaps, missing = [], 0
    for drawn, found in zip(
        scenes, detector.detect([drawn.picture for drawn in scenes], asked), strict=True
    ):
        for number, class_id in enumerate(drawn.class_ids):
            own = np.flatnonzero(found.phrases == number)
            if class_id < 0 or not own.size:
                missing += class_id >= 0
                continue
            best = own[found.scores[own].argmax()]
            (cut,) = segmenter.segment([drawn.picture], [found.xyxy[[best]]])
            both = (cut.masks[0] & drawn.masks[number]).sum()
            overlaps.append(float(both / (cut.masks[0] | drawn.masks[number]).sum()))
    return {
        "detected": len(overlaps) / (len(overlaps) + missing),
        "iou_detector_boxes": float(np.mean(overlaps)),
    }


def background_psnr(pair: PaintedPair) -> tuple[float, float]:
    """Agreement of the two pictures outside the box of what changed.

    Returns:
        Peak signal-to-noise ratio in dB outside the smallest box around the rows and columns with
        several strongly changed pixels (0 if that box leaves less than a tenth of the picture, at
        most 60), and the share of the picture inside the box.
    """
    difference = pair.image.astype(np.int16) - pair.counterfactual
    strong = np.abs(difference).max(axis=2) > _CHANGE
    rows, columns = (np.flatnonzero(strong.sum(axis=axis) > 3) for axis in (1, 0))
    outside = np.ones(strong.shape, dtype=bool)
    if rows.size and columns.size:
        top, left = max(0, rows[0] - 2), max(0, columns[0] - 2)
        outside[top : rows[-1] + 3, left : columns[-1] + 3] = False
    share = 1 - float(outside.mean())
    if share > 0.9:
        return 0.0, share
    error = np.square(difference[outside] / 255).mean()
    return float(min(60.0, -10 * np.log10(error + 1e-12))), share


def contact_sheet(painted: Painted, columns: int = 8, rows: int = 8) -> Image.Image:
    """Positives with their counterfactuals beside them, spread evenly over what was painted."""
    chosen = np.linspace(0, len(painted.pairs) - 1, columns * rows).round().astype(int)
    tiles = [
        np.concatenate([painted.pairs[i].image, painted.pairs[i].counterfactual], axis=1)
        for i in chosen
    ]
    lines = [np.concatenate(tiles[i * columns : (i + 1) * columns], axis=1) for i in range(rows)]
    return Image.fromarray(np.concatenate(lines))


def students(results: Path) -> dict[str, float]:
    """The student on generated samples beside the same student on drawn scenes.

    Args:
        results: What `python -m benchmarks.student_transfer` wrote.

    Returns:
        Mean mIoU over the seeds in percent as `<subject>, <split>`, the number of seeds (`seeds`),
        and for each split how much of the second student's the first one reaches, as
        `share, <split>`.

    Raises:
        InputError: The benchmark has not been run.
    """
    if not results.is_file():
        message = f"{results} is not there; run python -m benchmarks.student_transfer first"
        raise InputError(message)
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    means = {
        f"{row['subject']}, {row['split']}": row["miou"] for row in rows if row["seed"] == "mean"
    }
    found: dict[str, float] = {"seeds": len({row["seed"] for row in rows} - {"mean"})}
    for split in ("val", "test"):
        first, second = (means[f"student on {kind}, {split}"] for kind in ("generated", "drawn"))
        found[f"share, {split}"] = first / second
    return found | means


def write(page: Path, weights: Path, results: Path) -> dict[str, float]:
    """Measure everything and write the page, its contact sheet and the figures as JSON.

    Args:
        page: The Markdown file; `<stem>.png` and `<stem>.json` are written beside it. What stands
            there above the mark of this function is kept.
        weights: Folder with one folder of weights for each miniature.
        results: What `python -m benchmarks.student_transfer` wrote.

    Returns:
        The painter's figures.

    Raises:
        InputError: The students have not been measured.
    """
    compared = students(results)
    wanted = orders(per_class=12, pairs=84, seed=11)
    painted = paint(weights, wanted)
    seconds = seconds_for(weights, wanted[-64:])
    values = figures(painted) | detections(painted, weights) | {"seconds_for_64_pairs": seconds}
    others = {
        name: importlib.import_module(module).score(weights / name, 300, 0)
        for name, module in _OTHERS.items()
    }
    drawn = [scene for count in (1, 2) for scene in held_out(150, 0, num_things=count)]
    others["detector and segmenter"] = chain_iou(weights, drawn)
    page.parent.mkdir(parents=True, exist_ok=True)
    sheet = page.with_suffix(".png")
    contact_sheet(painted).save(sheet)
    sections = [
        *_painter_card(values, painted, sheet),
        *_other_cards(others),
        _student_card(compared),
    ]
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(renewed(old, sections), encoding="utf-8")
    record = json.dumps({"painter": values, **others, "student": compared}, indent=1)
    page.with_suffix(".json").write_text(record + "\n", encoding="utf-8")
    return values


def renewed(old: str, sections: Sequence[str]) -> str:
    """The page with new sections below the mark; what a person wrote above it stays."""
    above = old.partition(_MARK)[0] if _MARK in old else ""
    return above + "\n\n".join([_MARK, *sections]) + "\n"


def _painter_card(values: Mapping[str, float], painted: Painted, sheet: Path) -> list[str]:
    by_class = zip(CLASSES, recognised(painted), strict=True)
    wrong = [f"{name} ({count})" for name, count in confusions(painted).items()]
    mark = hashlib.sha256(sheet.read_bytes()).hexdigest()[:8]
    return [
        "## Score card",
        "Measured on the weights in `models/miniature/weights`, with scenes that no training saw.",
        "### painter",
        f"{len(painted.orders)} pairs, sampled as the profile `miniature` says; what a picture "
        "shows is the opinion of an independent judge.",
        _figure_table(values),
        "Recognised by class: " + ", ".join(f"{c} {share:.2f}" for c, share in by_class) + ".",
        "Confusions: " + (", ".join(wrong) or "none") + ".",
        f"Every positive has its counterfactual at its right. Sheet `{mark}`:",
        f"![Pairs of positives and counterfactuals]({sheet.name})",
    ]


def _other_cards(others: Mapping[str, Mapping[str, float]]) -> list[str]:
    tables = [
        f"### {name}\n\n| metric | asked for | measured |\n| --- | ---: | ---: |\n"
        + "\n".join(
            f"| {key} | {_OTHER_BARS.get((name, key), '')} | {value:.3f} |"
            for key, value in scores.items()
        )
        for name, scores in others.items()
    ]
    return [
        "The other models are measured on held-out drawn scenes; `score` in the module of each "
        "(`models/miniature/<name>.py`) says what its metrics mean.",
        *tables,
    ]


def _student_card(compared: Mapping[str, float]) -> str:
    lines = [
        "### student",
        "",
        f"mIoU on the drawn benchmark in percent, mean of {compared['seeds']:.0f} seeds, from "
        "`python -m benchmarks.student_transfer`; [results](results.md) has the protocol.",
        "",
        "| subject | val | test |",
        "| --- | ---: | ---: |",
    ]
    for subject, words in _SUBJECTS.items():
        val, test = (compared[f"{subject}, {split}"] for split in ("val", "test"))
        lines.append(f"| {words} | {val:.1f} | {test:.1f} |")
    val, test = (100 * compared[f"share, {split}"] for split in ("val", "test"))
    lines += [
        "",
        f"On generated samples the student reaches {val:.0f} % (val) and {test:.0f} % (test) of "
        f"what it reaches on drawn scenes; asked for: {_STUDENT_BAR} %.",
    ]
    return "\n".join(lines)


def _figure_table(values: Mapping[str, float]) -> str:
    lines = ["| figure | asked for | measured |", "| --- | ---: | ---: |"]
    for key, value in values.items():
        sign, bar, meaning = _BARS[key]
        lines.append(f"| {meaning} | {f'{sign} {bar:g}' if sign else ''} | {value:.3f} |")
    return "\n".join(lines)
