"""The page `docs/miniature.md`: below a mark what is measured, above it what people wrote."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.miniature.clip import scoring as clip
from models.miniature.detector import scoring as detector
from models.miniature.judge import scoring as judge
from models.miniature.scenes import held_out
from models.miniature.scorecard.chain import chain_iou, detections, seconds_for
from models.miniature.scorecard.figures import confusions, figures, recognised
from models.miniature.scorecard.pairs import Painted, contact_sheet, orders, paint
from models.miniature.scorecard.students import read_students, student_section
from models.miniature.segmenter import scoring as segmenter
from models.miniature.world import CLASSES

_FIGURES = {
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
_WANTED = {
    ("detector", "recall_one"): ">= 0.95",
    ("detector", "recall_two"): ">= 0.95",
    ("detector", "false_twin"): "<= 0.05",
    ("detector", "false_alone"): "<= 0.05",
    ("detector", "false_among_all"): "<= 0.05",
    ("segmenter", "iou"): ">= 0.85",
    ("clip", "zero_shot"): ">= 0.8",
    ("detector and segmenter", "iou_detector_boxes"): ">= 0.8",
}
_SCORES = {
    "judge": judge.score,
    "detector": detector.score,
    "segmenter": segmenter.score,
    "clip": clip.score,
}
_MARK = "<!-- All that follows is written by `python -m models.miniature scorecard`. -->"


def write(page: Path, weights: Path, results: Path) -> dict[str, float]:
    """Measure everything and write the page, its contact sheet and the figures as JSON.

    Args:
        page: The Markdown file; `<stem>.png` and `<stem>.json` are written beside it. What stands
            there above the mark stays.
        weights: Folder with one folder of weights for each miniature.
        results: What `python -m benchmarks.student_transfer` wrote.

    Returns:
        The painter's figures.

    Raises:
        InputError: The students have not been measured.
    """
    compared = read_students(results)
    wanted = orders(per_class=12, pairs=84, seed=11)
    painted = paint(weights, wanted)
    seconds = seconds_for(weights, wanted[-64:])
    values = figures(painted) | detections(painted, weights) | {"seconds_for_64_pairs": seconds}
    others = {name: score(weights / name, 300, 0) for name, score in _SCORES.items()}
    drawn = [scene for count in (1, 2) for scene in held_out(150, 0, num_things=count)]
    others["detector and segmenter"] = chain_iou(weights, drawn)
    page.parent.mkdir(parents=True, exist_ok=True)
    sheet = page.with_suffix(".png")
    contact_sheet(painted).save(sheet)
    sections = [
        *_painter_sections(values, painted, sheet),
        *_other_sections(others),
        student_section(compared),
    ]
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(renewed(old, sections), encoding="utf-8")
    record = json.dumps({"painter": values, **others, "student": compared}, indent=1)
    page.with_suffix(".json").write_text(record + "\n", encoding="utf-8")
    return values


def renewed(old: str, sections: Sequence[str]) -> str:
    """The page with new sections below the mark; what stands above it stays."""
    above = old.partition(_MARK)[0] if _MARK in old else ""
    return above + "\n\n".join([_MARK, *sections]) + "\n"


def _painter_sections(values: Mapping[str, float], painted: Painted, sheet: Path) -> list[str]:
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


def _other_sections(others: Mapping[str, Mapping[str, float]]) -> list[str]:
    tables = [
        f"### {name}\n\n| metric | asked for | measured |\n| --- | ---: | ---: |\n"
        + "\n".join(
            f"| {key} | {_WANTED.get((name, key), '')} | {value:.3f} |"
            for key, value in scores.items()
        )
        for name, scores in others.items()
    ]
    return [
        "The other models are measured on held-out drawn scenes; `score` in "
        "`models/miniature/<name>/scoring.py` says what the metrics of each mean.",
        *tables,
    ]


def _figure_table(values: Mapping[str, float]) -> str:
    lines = ["| figure | asked for | measured |", "| --- | ---: | ---: |"]
    for key, value in values.items():
        sign, wanted, meaning = _FIGURES[key]
        lines.append(f"| {meaning} | {f'{sign} {wanted:g}' if sign else ''} | {value:.3f} |")
    return "\n".join(lines)
