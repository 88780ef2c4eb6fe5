"""Boxes and masks at the size of Grounding DINO tiny and SAM ViT-H, images of 512 pixels.

The peer is the library's own loop: processor, network and postprocessing for one image after the
other. Rows "of it" say where our time goes: what prepares the pixels, and the network alone on
batches that are on the device already; the rest is postprocessing. The same work in other
arithmetic is measured beside them. Weights are random, so that the figures need no download: how
good boxes and masks are in half precision cannot be read from them, and nearly all of the
detector's queries become boxes, about a thousand an image, which have to be told apart.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    BertTokenizerFast,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SamModel,
    SamProcessor,
)

from benchmarks.measurement import Row, compare, peak_megabytes, seconds_on
from benchmarks.random_models import Geometry, chosen_geometry, save_detector, save_segmenter
from benchmarks.results_file import write_results
from models.labelling.config import DetectorConfig, SegmenterConfig
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.preparation import ImagePreparation
from models.processors import image_processor_class
from models.weights import resolve_weights

PHRASES = ("a", "b")
OTHERS = {"detector": ("tf32", "float16"), "segmenter": ("tf32", "bfloat16", "float16")}
"""Arithmetic that is measured beside float32 on a GPU."""
SCORES_AGREE = 1e-2
"""A phrase's best score may differ by this: a batch of another size adds up in another order."""
PIXELS_AGREE = 0.98
"""Share of the pixels of all masks on which both ways have to agree."""

Images = Sequence[np.ndarray]


def random_images(count: int, side: int) -> list[np.ndarray]:
    """Draw soft coloured blotches: plain noise is all that no photograph is."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (count, side // 8, side // 8, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(own).resize((side, side))) for own in small]


def random_boxes(side: int) -> np.ndarray:
    """Two boxes, xyxy in pixels."""
    return np.array([[0.1, 0.2, 0.6, 0.7], [0.4, 0.3, 0.9, 0.95]], np.float32) * side


@dataclass(frozen=True)
class PlainDetector:
    """The library's own use of Grounding DINO."""

    network: Any
    processor: Any
    device: str

    @classmethod
    def load(cls, folder: str, device: str) -> "PlainDetector":
        """Load it from a checkpoint."""
        images = image_processor_class("GroundingDinoImageProcessor").from_pretrained(folder)
        processor = GroundingDinoProcessor(images, BertTokenizerFast.from_pretrained(folder))
        network: Any = GroundingDinoForObjectDetection.from_pretrained(folder)
        return cls(network.to(device), processor, device)

    def prepare(self, images: Images) -> Any:
        """Turn images and their caption into what the network takes, on the processor."""
        pictures = [Image.fromarray(image) for image in images]
        caption = "".join(f"{phrase}. " for phrase in PHRASES).rstrip()
        return self.processor(images=pictures, text=[caption] * len(images), return_tensors="pt")

    @torch.inference_mode()
    def run(self, inputs: Any) -> Any:
        """Run the network alone."""
        return self.network(**inputs)

    def best_scores(self, images: Images) -> np.ndarray:
        """Find boxes image by image; of them, the best score of each phrase."""
        found: list[list[float]] = []
        for image in images:
            inputs = self.prepare([image])
            outputs = self.run(inputs.to(self.device))
            boxes = self.processor.post_process_grounded_object_detection(
                outputs, inputs["input_ids"], target_sizes=[image.shape[:2]], threshold=0.3
            )
            assert len(boxes) == 1
            # One letter is one token: caption [CLS] a . b . [SEP]
            scores = outputs.logits[0].float().sigmoid().amax(dim=0)
            found.append([scores[1 + 2 * place].item() for place in range(len(PHRASES))])
        return np.array(found)


@dataclass(frozen=True)
class PlainSegmenter:
    """The library's own use of SAM."""

    network: Any
    processor: Any
    device: str

    @classmethod
    def load(cls, folder: str, device: str) -> "PlainSegmenter":
        """Load it from a checkpoint."""
        images = image_processor_class("SamImageProcessor").from_pretrained(folder)
        network: Any = SamModel.from_pretrained(folder)
        return cls(network.to(device), SamProcessor(images), device)

    def prepare(self, images: Images, boxes: np.ndarray) -> Any:
        """Turn images and boxes into what the network takes, on the processor."""
        pictures = [Image.fromarray(image) for image in images]
        own = [boxes.astype(float).tolist()] * len(images)
        return self.processor(images=pictures, input_boxes=own, return_tensors="pt")

    @torch.inference_mode()
    def run(self, inputs: Any) -> Any:
        """Run the network alone."""
        return self.network(
            pixel_values=inputs["pixel_values"].to(self.device),
            input_boxes=inputs["input_boxes"].to(self.device, torch.float32),
            multimask_output=False,
        )

    def masks(self, images: Images, boxes: np.ndarray) -> list[np.ndarray]:
        """Cut the masks image by image."""
        cut: list[np.ndarray] = []
        for image in images:
            inputs = self.prepare([image], boxes)
            outputs = self.run(inputs)
            [masks] = self.processor.image_processor.post_process_masks(
                outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )
            cut.append(masks[:, 0].cpu().numpy())
        return cut


def measure_detector(geometry: Geometry, device: str, folder: Path) -> list[Row]:
    """Check that both ways agree, then take time and memory an image."""
    path = save_detector(folder / "detector", geometry, device)
    images = random_images(geometry.images, geometry.side)
    ours = [_detector(path, geometry, device, kind) for kind in _kinds("detector", device)]
    plain = PlainDetector.load(path, device)
    asked = [PHRASES] * len(images)
    scores = np.stack([found.best_scores for found in ours[0].detect(images, asked)])
    error = float(np.abs(scores - plain.best_scores(images)).max())
    assert error < SCORES_AGREE, error
    ready = plain.prepare(images).to(device)
    plain.run(ready)
    pixels = ImagePreparation(
        resolve_weights(path), "GroundingDinoImageProcessor", torch.device(device)
    )
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: ours[0].detect(images, asked),
        "plain loop": lambda: plain.best_scores(images),
        "of it: pixels prepared": lambda: pixels.prepare(images),
        "of it: network": lambda: plain.run(ready),
    }
    for kind, other in zip(_kinds("detector", device)[1:], ours[1:], strict=True):
        works[f"ours in {kind}"] = lambda other=other: other.detect(images, asked)
    rows = _timed(works, len(images), device)
    rows[0]["score_error"] = float(f"{error:.1g}")
    return [{"model": "detector", "batch": geometry.images, **row} for row in rows]


def measure_segmenter(geometry: Geometry, device: str, folder: Path) -> list[Row]:
    """Check that both ways agree, then take time and memory an image."""
    path = save_segmenter(folder / "segmenter", geometry, device)
    batch = max(1, geometry.images // 2)
    images = random_images(batch, geometry.side)
    boxes = random_boxes(geometry.side)
    ours = [_segmenter(path, batch, device, kind) for kind in _kinds("segmenter", device)]
    plain = PlainSegmenter.load(path, device)
    for module in plain.network.mask_decoder.transformer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5  # ours has the number with which SAM was trained
    given = [boxes] * batch
    masks = np.stack([cut.masks for cut in ours[0].segment(images, given)])
    agreement = float((masks == np.stack(plain.masks(images, boxes))).mean())
    assert agreement > PIXELS_AGREE, agreement
    ready = plain.prepare(images, boxes).to(device)
    plain.run(ready)
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: ours[0].segment(images, given),
        "plain loop": lambda: plain.masks(images, boxes),
        "of it: pixels prepared": lambda: ours[0].backend.squares(images),
        "of it: network": lambda: plain.run(ready),
    }
    for kind, other in zip(_kinds("segmenter", device)[1:], ours[1:], strict=True):
        works[f"ours in {kind}"] = lambda other=other: other.segment(images, given)
    rows = _timed(works, batch, device)
    rows[0]["pixels_agree"] = round(agreement, 4)
    return [{"model": "segmenter", "batch": batch, **row} for row in rows]


def _kinds(model: str, device: str) -> tuple[str, ...]:
    return ("float32",) if device == "cpu" else ("float32", *OTHERS[model])


def _detector(path: str, geometry: Geometry, device: str, kind: Any) -> GroundingDino:
    return GroundingDino(
        DetectorConfig(
            model=path,
            dtype=kind,
            device=device,
            batch_size=geometry.images,
        )
    )


def _segmenter(path: str, batch: int, device: str, kind: Any) -> Sam:
    return Sam(SegmenterConfig(model=path, dtype=kind, device=device, batch_size=batch))


def _timed(works: dict[str, Callable[[], object]], items: int, device: str) -> list[Row]:
    for work in works.values():
        work()
    rows = compare(works, repeats=2, items=items, clock=seconds_on(device))
    for row, work in zip(rows, works.values(), strict=True):
        row["peak_mb"] = peak_megabytes(work, device)
    return rows


def measure(geometry: Geometry, device: str, folder: Path) -> list[Row]:
    """Measure both models."""
    rows = measure_detector(geometry, device, folder)
    for row in rows:
        print(row, flush=True)
    return rows + measure_segmenter(geometry, device, folder)


def main() -> None:
    """Measure at full size on a GPU, or the small geometry on a processor."""
    geometry, device = chosen_geometry(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(geometry, device, Path(folder))
    setting = {"geometry": geometry.name, "side": geometry.side, "phrases": 2, "boxes": 2}
    packages = ("magicseg-engine", "torch", "transformers")
    write_results("full_labels", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
