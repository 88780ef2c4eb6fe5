"""A benchmark of your own: a folder of images and label maps, scored as every other is.

    python examples/own_benchmark.py FOLDER runs/demo/run runs/my-scores

The folder holds images/*.jpg, labels/*.png (8-bit: 0 background, k for the k-th class, 255 ignored)
of the same names, and classes.txt with one name a line.
"""

import sys
from pathlib import Path

from evaluation.benchmarks import folders
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.on_labels import score_student
from evaluation.scoring.results import Subject
from evaluation.segment import scoring_settings
from models.student.text_embeddings import TextEncoder
from models.student.trained import load_student
from storage.class_sets import BenchmarkClasses


def open_folder(folder: Path) -> folders.LabelledImages:
    """Make a benchmark of a folder."""
    names = tuple((folder / "classes.txt").read_text(encoding="utf-8").splitlines())
    classes = BenchmarkClasses(
        name=folder.name,
        names=names,
        phrases=tuple((name,) for name in names),
        vocabulary="miniature",
        class_ids=(None,) * len(names),
        background=True,
    )
    where_to_get = f"{folder} holds images and labels"

    def decode(path: Path) -> folders.Labels:
        stored = folders.read_indices(path, where_to_get)
        return folders.checked_labels(stored, path, highest=len(names), void=255)

    layout = folders.LabelFiles(folder / "images", folder / "labels", decode)
    keys = sorted(path.stem for path in layout.label_folder.glob("*.png"))
    origin = folders.Origin(where_to_get=where_to_get, truth="label maps as they are")
    return folders.LabelledImages(BenchmarkConfig(root=folder), classes, keys, layout, origin)


def main(folder: str, run: str, out: str) -> None:
    """Score a run's student on the folder."""
    student, about = load_student(run)
    encoder = TextEncoder.load(about["config"]["student"]["clip"])
    subject = Subject(kind="student", name="student", fingerprint=about["fingerprint"])
    config = scoring_settings("miniature")
    how = {"subject": subject, "config": config, "out": Path(out)}
    scores = score_student(student, encoder, open_folder(Path(folder)), **how)
    print(f"mIoU {scores.miou:.3f} on {scores.protocol.num_images} images")


if __name__ == "__main__":
    main(*sys.argv[1:])
