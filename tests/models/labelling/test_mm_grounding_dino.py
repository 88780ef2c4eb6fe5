"""What MM-Grounding-DINO must do: as Grounding DINO, behind the same span scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import GroundingDinoProcessor, MMGroundingDinoForObjectDetection

from benchmarks.converted import save_mm_grounding_dino
from models.labelling.config import MmGroundingDinoConfig
from models.miniature import scenes, world
from models.profiles import load_profile
from models.registry import build
from storage.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(build_mm_detector, tmp_path_factory):
    return build_mm_detector(tmp_path_factory.mktemp("mm"))


def detector(model, **changes):
    loose = {"box_threshold": 0.0, "text_threshold": 0.0, "nms_iou": 1.0, "batch_size": 2}
    return build(MmGroundingDinoConfig(model=model, device="cpu", **(loose | changes)))


def picture(seed, height, width):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [picture(0, 64, 64), picture(1, 64, 64), picture(2, 40, 80)]
PHRASES = [("bus",), ("mushroom", "school bus", "tree"), ("cat", "fish")]


def as_rows(boxes, scores, phrases):
    rows = np.column_stack([scores, phrases, boxes])
    return rows[np.lexsort(rows.T[::-1])]


def test_it_says_what_the_librarys_own_pipeline_says(checkpoint):
    processor = GroundingDinoProcessor.from_pretrained(checkpoint)
    model = MMGroundingDinoForObjectDetection.from_pretrained(checkpoint).eval()
    text = "mushroom. school bus. tree."
    inputs = processor(images=Image.fromarray(IMAGES[1]), text=text, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    tokens = outputs.logits[0].sigmoid().numpy()
    # [CLS] mush ##room . school bus . tree . [SEP]
    scores = np.stack([tokens[:, own].mean(axis=1) for own in ([1, 2], [4, 5], [7])], axis=1)
    centre, extent = outputs.pred_boxes[0, :, :2], outputs.pred_boxes[0, :, 2:]
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1).clamp(0, 1).numpy() * 64
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    found = detector(checkpoint).detect(IMAGES[1:2], PHRASES[1:2])[0]
    np.testing.assert_allclose(
        as_rows(found.xyxy, found.scores, found.phrases),
        as_rows(boxes[inside], scores.max(axis=1)[inside], scores.argmax(axis=1)[inside]),
        atol=1e-3,
    )


def test_captions_of_other_images_in_the_batch_change_nothing(checkpoint):
    for one, other in zip(
        detector(checkpoint, batch_size=1).detect(IMAGES, PHRASES),
        detector(checkpoint).detect(IMAGES, PHRASES),
        strict=True,
    ):
        np.testing.assert_allclose(
            as_rows(one.xyxy, one.scores, one.phrases),
            as_rows(other.xyxy, other.scores, other.phrases),
            atol=1e-3,
        )


def test_a_folder_that_lacks_parameters_or_is_of_another_kind_is_refused(
    checkpoint, build_detector, tmp_path
):
    with pytest.raises(InputError, match="'grounding-dino', expected 'mm-grounding-dino'"):
        detector(build_detector(tmp_path / "other"))
    (tmp_path / "own").mkdir()
    for file in Path(checkpoint).iterdir():
        (tmp_path / "own" / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "own/model.safetensors")
    del tensors["class_embed.0.bias"]
    save_file(tensors, tmp_path / "own/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack \d parameters .*class_embed\.0\.bias"):
        detector(str(tmp_path / "own"))
    (tmp_path / "own/vocab.txt").unlink()
    (tmp_path / "own/tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match="vocabulary"):
        MmGroundingDinoConfig(model=str(tmp_path / "own")).check()


def test_a_larger_image_tower_is_a_matter_of_the_folders_configuration(build_detector, tmp_path):
    """Grounding DINO base differs from tiny in its Swin's sizes alone."""
    described = json.loads((Path(build_detector(tmp_path)) / "config.json").read_text())
    described["backbone_config"] |= {"embed_dim": 32, "depths": [1, 1, 2, 1], "window_size": 8}
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    from models.labelling.config import DetectorConfig

    described.pop("model_type")
    base = GroundingDinoForObjectDetection(GroundingDinoConfig(**described))
    base.save_pretrained(tmp_path)
    found = build(DetectorConfig(model=str(tmp_path), device="cpu")).detect(IMAGES[:1], [("bus",)])
    assert found[0].finite
    assert found[0].best_scores[0] > 0


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_does_not_round_boxes_or_is_refused(checkpoint, kind):
    if transformers.__version__.startswith("4."):
        with pytest.raises(InputError, match="which computes it in float32 alone"):
            detector(checkpoint, dtype=kind)
        return
    found = detector(checkpoint, dtype=kind).detect(IMAGES, PHRASES)
    places = torch.from_numpy(np.concatenate([own.xyxy for own in found])) / 64
    rounded = places.to(getattr(torch, kind)).float()
    inside = (places > 0) & (places < 1)
    assert (places != rounded)[inside].float().mean() > 0.5
    assert all(own.finite for own in found)


def test_the_trained_miniature_as_mm_grounding_dino_finds_the_same_boxes(tmp_path):
    drawn = [scenes.draw(world.sample_scene(np.random.default_rng(seed))) for seed in range(8)]
    asked = [tuple(world.CLASSES[t.class_id] for t in each.scene.things) for each in drawn]
    pictures = [each.picture for each in drawn]
    settings = load_profile("miniature").labeller.detector
    trained = build(settings).detect(pictures, asked)
    same = settings.model_dump(exclude={"kind", "model", "revision"})
    model = save_mm_grounding_dino(tmp_path)
    relative = build(MmGroundingDinoConfig(model=model, **same)).detect(pictures, asked)
    assert sum(len(own.scores) for own in trained) >= len(drawn)
    for one, other in zip(trained, relative, strict=True):
        np.testing.assert_array_equal(one.phrases, other.phrases)
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
