"""Words found in pictures: what `magicseg segment` does with each, beside a plain inferencer.

The peer is a loop in the manner of mmsegmentation's inferencer with the same network and one
picture at a time: read, resize, forward, enlarge all maps, arg-max with a threshold, write. The
limit is the network alone. Pictures are read from JPEG files and label maps written as PNG by all;
`magicseg segment` writes an overlay and a record with masks besides.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.measurement import Row, compare, peak_megabytes
from benchmarks.results_file import write_results
from evaluation.scoring.config import ScoringConfig
from evaluation.segment import Student, scoring_settings
from flows.segmentation import Segmenting
from flows.word_finders import RunStudent
from models.miniature.world import render, sample_scene
from models.profiles import load_profile
from models.student.text_embeddings import TextEncoder, embed_phrases
from models.student.trained import load_student
from models.student.zegclip import ZegClip
from storage.codecs import decode_label_map, encode_label_map
from storage.photographs import read_photograph
from storage.vocabulary import load_vocabulary
from training.checkpoints import Checkpoint, save_checkpoint
from training.config import TrainingConfig
from training.loop import CHECKPOINT_FOLDER, student_run_identity

WORDS = ("cat", "boat", "tree", "red balloon", "star", "house", "fish", "cup")
MANY_WORDS = tuple(f"thing {number}" for number in range(300))
CASES = {
    "64 x 64, 8 words": (64, 64, 16, WORDS),
    "640 x 480, 8 words": (480, 640, 6, WORDS),
    "640 x 480, 300 words": (480, 640, 1, MANY_WORDS),
}
MOST_DIFFERENT = 0.01
"""Share of pixels in which the peer may differ, whose JPEG decoder rounds otherwise."""


def save_run(folder: Path) -> Path:
    """Save a miniature student as it is before training."""
    profile = load_profile("miniature")
    document = {**profile.training, "dataset": "none", "out": str(folder)}
    document |= {"vocabulary": profile.vocabulary, "student": profile.student}
    config = TrainingConfig.model_validate(document)
    torch.manual_seed(0)
    student = ZegClip.from_config(config.student)
    weights = {name: value.detach().clone() for name, value in student.trainable_parameters()}
    meta = student_run_identity(config, load_vocabulary(config.vocabulary), [])
    save_checkpoint(folder / CHECKPOINT_FOLDER, Checkpoint(0, meta, weights, None, {}), keep=1)
    return folder


def write_pictures(folder: Path, height: int, width: int, count: int) -> list[Path]:
    """Write drawn scenes of a size as JPEG files."""
    folder.mkdir()
    paths = []
    for number in range(count):
        scene = render(sample_scene(np.random.default_rng(number), class_ids=[number % 14]))
        image = Image.fromarray(scene).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{number:03}.jpg")
        image.save(paths[-1], quality=95)
    return paths


class Plain:
    """The loop that people write: one picture at a time, all maps at once."""

    def __init__(self, student: ZegClip, encoder: TextEncoder, config: ScoringConfig) -> None:
        self._student = student
        self._encoder = encoder
        self._templates = config.templates
        self._config = config.inference

    def read(self, words: tuple[str, ...]) -> None:
        """Embed the words that are asked for."""
        self._text = embed_phrases(self._encoder, [(word,) for word in words], self._templates)

    @torch.no_grad()
    def segment(self, path: Path) -> bytes:
        """Find the words in a picture; its label map as PNG."""
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        shown = self.shown(image)
        logits = self._student.scores(*self._student.encode(shown), self._text)
        how = {"mode": "bilinear", "align_corners": False}
        full = F.interpolate(logits, shown.shape[2:], **how)
        full = F.interpolate(full, image.shape[:2], **how)
        best, index = full.sigmoid()[0].max(dim=0)
        labels = (index + 1) * (best >= self._config.threshold)
        return encode_label_map(labels.numpy().astype(np.uint16))

    @torch.no_grad()
    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        """The network alone."""
        return self._student.scores(*self._student.encode(shown), self._text)

    def shown(self, image: np.ndarray) -> torch.Tensor:
        """A picture as the network sees it."""
        patch, sides = self._student.patch_size, image.shape[:2]
        scale = self._config.short_side / min(sides)
        size = [max(patch, round(side * scale / patch) * patch) for side in sides]
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        return self._student.normalise(resized)


def measure(folder: Path) -> list[Row]:
    """Check that label maps are equal, then take times."""
    torch.set_num_threads(1)
    run, config = save_run(folder / "run"), scoring_settings("miniature")
    student = Student.load(run, config=config, device="cpu")
    network, meta = load_student(run)
    clip = meta["config"]["student"]["clip"]
    plain = Plain(network, TextEncoder.load(clip), config)
    rows: list[Row] = []
    for case, (height, width, count, words) in CASES.items():
        paths = write_pictures(folder / case, height, width, count)
        shown = [plain.shown(read_photograph(path)) for path in paths]

        plain.read(words)

        def ours(own: list[Path] = paths, asked: tuple[str, ...] = words) -> list[bytes]:
            return [encode_label_map(found.labels) for found in student.segment_all(own, asked)]

        def peer(own: list[Path] = paths) -> list[bytes]:
            return [plain.segment(path) for path in own]

        def command(own: list[Path] = paths, asked: tuple[str, ...] = words) -> None:
            finder = RunStudent(run, "miniature", config)
            with tempfile.TemporaryDirectory(dir=folder) as out:
                segmenting = Segmenting(asked, finder, out=Path(out), heat=False)
                segmenting.answer(own, lambda _: None)

        def alone(own: list[torch.Tensor] = shown) -> list[torch.Tensor]:
            return [plain.forward(each) for each in own]

        ways = {
            "ours: label maps": ours,
            "plain inferencer": peer,
            "network alone": alone,
            "magicseg segment, with overlay, record and loading": command,
        }
        compared = list(ways)[:2]
        different = [
            np.mean(decode_label_map(one) != decode_label_map(other))
            for one, other in zip(ours(), peer(), strict=True)
        ]
        assert max(different) <= MOST_DIFFERENT, different
        command()
        alone()
        timed = compare(ways, repeats=5, items=count)
        for row in timed:
            name = row["what"]
            peak = {"peak_mb": peak_megabytes(ways[name])} if name in compared else {}
            rows.append({"pictures": case, **row, **peak})
    return rows


def main() -> None:
    """Measure, and write the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    packages = ("magicseg-engine", "torch", "numpy", "pillow", "opencv-python-headless")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder))
    write_results("segment", rows, packages)


if __name__ == "__main__":
    main()
