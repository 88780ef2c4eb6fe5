"""Objects that nobody asked for: how many the stage `others` finds, and what a student gains by it.

Two kinds of scenes hold two objects, of which the engine is told one. *Drawn* scenes come with the
exact mask of both, so that the truth is known pixel by pixel: an object counts as found if an
instance of its class has an IoU of 0.5 with it; scenes of one object beside them hold nothing to be
found. *Painted* ones are generated from captions of two classes, each asked for one of them; what
was painted is said by the miniature's judge, a network that takes no part in generation. Then the
same samples are packed with `others.way` none, ignore and labels, and a student is trained on each;
on the first of them also with the names of its text kept out of an image's negatives.
`--out` keeps datasets and runs; what is there is not made again.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.nn import functional as F

from benchmarks.results_file import write_results
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.results import Scores
from flows.generation_parameters import GenerationParameters
from flows.local_runs import generate_locally
from flows.local_steps import evaluate_locally, train_locally
from flows.training_parameters import TrainAndEvaluateParameters
from models.labellers import cutting_part, finding_part
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.miniature.captions import caption
from models.miniature.judge.network import FOUND, load
from models.miniature.scenes import DrawnScene, held_out
from models.miniature.world import CLASSES, sample_scene
from models.profiles import load_profile
from models.registry import build
from models.student.clip import load_clip
from models.student.config import CHANNELS
from models.student.text_embeddings import TextEncoder, embed_phrases
from models.weights import resolve_weights
from storage.codecs import decode_image, decode_rle, encode_rle
from storage.records import Instance, MaskSample, Others, Stage
from storage.shards import Sample, iterate
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.drawn_agreement import mask_iou
from tasks.other_finder import OtherFinder
from tasks.others import SearchedScene, find_others
from tasks.rules import OtherRules

VOCABULARY = load_vocabulary("miniature")
NEAREST = (1, 3, 5, 13)
MIN_SCORES = (0.0, 0.35, 0.5)
IOU = 0.5
WAYS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "none, names of the text kept out": ("none", {"negatives": {"mentioned": True}}),
    "ignore": ("ignore", {}),
    "labels": ("labels", {}),
}
"""The dataset and the training settings of each way."""


def drawn_rows(count: int) -> Iterator[dict[str, Any]]:
    """Recall and precision on drawn scenes, by classes asked for and by the least score."""
    scenes = [*held_out(count, 0, num_things=2), *held_out(count // 2, 0, num_things=1)]
    scenes = [scene for scene in scenes if min(scene.class_ids) >= 0]
    told = [_told(str(number), scene) for number, scene in enumerate(scenes)]
    finder = _finder()
    settings = [(nearest, 0.35, 0.5) for nearest in NEAREST]
    settings += [(5, score, 0.5) for score in MIN_SCORES if score != 0.35]
    settings += [(5, 0.35, 1.0)]
    for nearest, score, overlap in settings:
        rules = OtherRules(
            way="ignore",
            mentioned=False,
            nearest=nearest,
            min_score=score,
            max_overlap=overlap,
        )
        found = find_others(told, finder, rules)
        assert all(isinstance(each, Others) for each in found)
        yield {
            "scenes": "drawn",
            "nearest": nearest,
            "min_score": score,
            "max_overlap": overlap,
            **_drawn_figures(scenes, [each for each in found if isinstance(each, Others)]),
        }


@torch.inference_mode()
def patch_tokens_row(count: int, nearest: int) -> dict[str, Any]:
    """How often the hidden class is among the nearest by the last patch tokens of the same CLIP."""
    scenes = [s for s in held_out(count, 0, num_things=2) if min(s.class_ids) >= 0]
    clip: Any = load_clip("weights:clip")
    phrases = [record.embedding_phrases for record in VOCABULARY]
    table = embed_phrases(TextEncoder.load("weights:clip"), phrases, "single")
    mean, deviation = (torch.tensor(row)[:, None, None] for row in CHANNELS["clip"])
    pictures = torch.from_numpy(np.stack([scene.picture for scene in scenes]))
    pixels = (pictures.permute(0, 3, 1, 2) / 255 - mean) / deviation
    tower = clip.vision_model
    tokens = tower.post_layernorm(tower(pixels).last_hidden_state[:, 1:])
    vectors = F.normalize(clip.visual_projection(tokens), dim=-1)  # (scenes, patches, embed)
    alike = (vectors @ table.T).amax(dim=1)  # (scenes, classes)
    asked = 0
    for scene, own in zip(scenes, alike, strict=True):
        first, hidden = scene.class_ids
        order = [each for each in own.argsort(descending=True).tolist() if each != first]
        asked += hidden in order[:nearest]
    return {
        "scenes": "drawn",
        "candidates": "patch tokens",
        "nearest": nearest,
        "asked_share": round(asked / len(scenes), 3),
    }


def _finder() -> OtherFinder:
    profile = load_profile("miniature")
    finding, cutting = finding_part(profile.labeller), cutting_part(profile.labeller)
    return OtherFinder(VOCABULARY, build(finding), build(cutting), build(profile.scouting))


def _told(key: str, scene: DrawnScene) -> SearchedScene:
    """A drawn scene of which the first object is known."""
    mask = scene.masks[0]
    own = Instance(
        class_id=scene.class_ids[0],
        score=1.0,
        predicted_iou=1.0,
        xyxy=(0, 0, 64, 64),
        area=int(mask.sum()),
        rle=encode_rle(mask),
    )
    masks = MaskSample(key=key, width=64, height=64, instances=(own,))
    return SearchedScene(key, scene.picture, "", (own.class_id,), masks)


def _drawn_figures(scenes: Sequence[DrawnScene], found: Sequence[Others]) -> dict[str, Any]:
    hidden = seen = asked = right = instances = 0
    for scene, own in zip(scenes, found, strict=True):
        truth = scene.class_ids[1:]
        good = [
            bool(truth)
            and each.class_id == truth[0]
            and mask_iou(decode_rle(each.rle, 64, 64), scene.masks[1]) >= IOU
            for each in own.instances
        ]
        hidden += len(truth)
        asked += bool(truth) and truth[0] in own.asked
        seen += any(good)
        right += sum(good)
        instances += len(good)
    return {
        "hidden": hidden,
        "asked_share": round(asked / hidden, 3),
        "recall": round(seen / hidden, 3),
        "precision": round(right / max(instances, 1), 3),
        "found": instances,
    }


def write_captions(file: Path, each: int) -> Path:
    """Captions of two classes, as many for each first class."""
    rng, lines = np.random.default_rng(7), list[str]()
    for first in range(len(CLASSES)):
        for _ in range(each):
            second = int(rng.choice([c for c in range(len(CLASSES)) if c != first]))
            scene = sample_scene(rng, num_things=2, class_ids=(first, second))
            lines.append(caption(scene, rng, bare=False)[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    return file


def generate(
    out: Path, name: str, captions: Path, samples: int, others: Mapping[str, Any]
) -> list[Sample]:
    """Make a dataset, or find it; the pictures are painted once for all of them."""
    writer = {"kind": "captions", "file": str(captions), "within_words": None, "banned_words": []}
    document = {
        "root": str(out / name),
        "samples": samples,
        "samples_per_shard": samples,
        "two_class_share": 0.0,
        "texts_per_class_set": 8,
        "writer": writer,
        "others": dict(others),
        "reuse": str(out / "none") if name != "none" else None,
    }
    generate_locally(GenerationParameters.model_validate(document), Console())
    shards = [shard.path for shard in Store.open(out / name).shards() if shard.path is not None]
    return [sample for path in shards for sample in iterate(path)]


def painted_figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Recall and precision on generated samples, by what the judge sees in them."""
    folder = resolve_weights("weights:judge").folder
    assert folder is not None
    images = np.stack([decode_image(sample.image_bytes) for sample in samples])
    seen = load(folder).probabilities(images)[:, : len(CLASSES)] >= FOUND
    hidden = found = both = 0
    for sample, shown in zip(samples, seen, strict=True):
        # A text's mentions are those of the classes that the engine was told.
        asked = {mention.class_id for mention in sample.mentions}
        truth = set(np.flatnonzero(shown).tolist()) - asked
        own = {each.class_id for each in sample.others or ()}
        hidden += len(truth)
        found += len(own)
        both += len(truth & own)
    return {
        "hidden": hidden,
        "recall": round(both / max(hidden, 1), 3),
        "precision": round(both / max(found, 1), 3),
        "found": found,
    }


def seconds_a_sample(out: Path, name: str) -> dict[str, float]:
    """What the painting and the search of a sample took, by the records."""
    painted, searched = (Store.open(out / each).shards()[0].commit for each in ("none", name))
    return {
        "painting_seconds": round(painted.stage_seconds[Stage.PAIRS] / painted.counts.requested, 3),
        "search_seconds": round(searched.stage_seconds[Stage.OTHERS] / searched.counts.written, 3),
    }


def score(root: Path, out: Path, training: Mapping[str, Any], benchmark: Path) -> dict[str, Any]:
    """Train the profile's student on a dataset, and score it on the drawn benchmark."""
    parameters = TrainAndEvaluateParameters(
        dataset=str(root),
        out=str(out),
        training=dict(training),
        benchmarks=(BenchmarkConfig(root=benchmark, split="val"),),
        untrained=False,
        baseline=False,
    )
    train_locally(parameters, Console())
    [scores] = evaluate_locally(parameters, Console())
    assert isinstance(scores, Scores)
    return {
        "student_miou": round(100 * scores.miou, 2),
        "student_foreground_miou": round(100 * (scores.foreground_miou or 0.0), 2),
    }


def student_rows(out: Path, seeds: int) -> Iterator[dict[str, Any]]:
    """What students learn, by the way and the seed, and their means and deviations."""
    benchmark = write_benchmark(DrawnBenchmarkConfig(), out / "benchmark")
    for way, (dataset, settings) in WAYS.items():
        folder = way.replace(",", "").replace(" ", "-")
        rows = [
            score(
                out / dataset,
                out / f"{folder}-run-{seed}",
                {"seed": seed, **settings},
                benchmark,
            )
            for seed in range(seeds)
        ]
        for seed, row in enumerate(rows):
            yield {"way": way, "seed": seed, **row}
        summary: dict[str, Any] = {"way": way, "seed": "mean"}
        for name in rows[0]:
            values = [row[name] for row in rows]
            summary[name] = round(fmean(values), 2)
            summary[f"{name}_deviation"] = round(stdev(values), 2) if seeds > 1 else 0.0
        yield summary


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/others"))
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--samples", type=int, default=224)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    out = arguments.out
    rows: list[dict[str, Any]] = []
    for row in drawn_rows(arguments.scenes):
        rows.append(row)
        print(row, flush=True)
    rows.append(patch_tokens_row(arguments.scenes, 5))
    captions = write_captions(out / "captions.txt", 4 * arguments.samples // len(CLASSES))
    for name, others in (
        ("none", {}),
        ("ignore", {"way": "ignore"}),
        ("labels", {"way": "labels"}),
        ("nearest", {"way": "ignore", "mentioned": False}),
    ):
        samples = generate(out, name, captions, arguments.samples, others)
        if name in {"ignore", "nearest"}:
            asked = "text and nearest" if name == "ignore" else "nearest"
            figures = painted_figures(samples) | seconds_a_sample(out, name)
            rows.append({"scenes": "painted", "asked": asked, **figures})
            print(rows[-1], flush=True)
    for row in student_rows(out, arguments.seeds):
        rows.append(row)
        print(row, flush=True)
    write_results(
        "others",
        rows,
        ("magicseg-engine", "torch", "transformers"),
        setting={"samples_planned": arguments.samples, "scenes": arguments.scenes, "iou": IOU},
    )


if __name__ == "__main__":
    main()
