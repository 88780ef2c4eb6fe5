"""What a terminal shows of scores."""

from io import StringIO

from rich.console import Console

from evaluation.scoring.config import Background
from evaluation.scoring.results import ScoreProtocol, Scores, Subject
from flows.score_tables import score_table


def test_a_table_of_scores_says_the_whole_protocol_below() -> None:
    protocol = ScoreProtocol(
        benchmark="voc21",
        split="val",
        num_images=1449,
        truth="made by hand",
        class_names=("background", "cat"),
        background=True,
        background_rule=Background.CONSTANT,
        threshold=0.4,
        text="official names in the templates tcl_custom9",
        view="short side 448",
        preset="tcl",
        preset_changes=("inference.stride 112 instead of 224",),
    )
    scores = Scores(
        subject=Subject(kind="student", name="student", fingerprint="f"),
        protocol=protocol,
        miou=0.5,
        foreground_miou=None,
        pixel_accuracy=0.75,
        classes=(),
        curve=(),
        published=(),
        examples=(),
        seconds=1.0,
        created="",
        engine_version="",
    )
    screen = StringIO()
    Console(width=400, file=screen).print(score_table([scores]))
    shown = " ".join(screen.getvalue().split())
    assert "50.0" in shown
    assert "constant 0.4" in shown
    assert (
        "student on voc21: background where the best score <= 0.4; official names in the templates "
        "tcl_custom9; short side 448; preset tcl (changed: inference.stride 112 instead of 224); "
        "mean over the classes that occur in the truth or the prediction"
    ) in shown
