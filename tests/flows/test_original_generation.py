"""A dataset that the original packages label is the one that transformers' networks label."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("groundingdino", reason="the extra 'original' has an environment of its own")

from transformers import GroundingDinoForObjectDetection, SamModel

from models.processors import load_whole_tokenizer
from models.weights import resolve_weights
from original_folders import fitted_detector, fitted_segmenter, save_detector, save_segmenter
from storage.manifest import decode_manifest

SAME = (
    *("index", "seed", "status", "stage", "reason", "class_ids", "text", "counterfactual_text"),
    *("image_sha256", "counterfactual_sha256", "mask_class_ids", "instance_class_ids"),
)


@pytest.fixture
def labelled_by_originals(quick, tmp_path):
    """The quick profile with the same weights in the original packages."""
    detector, segmenter = (resolve_weights(f"weights:{name}") for name in ("detector", "segmenter"))
    found = GroundingDinoForObjectDetection.from_pretrained(detector.source)
    cut = SamModel.from_pretrained(segmenter.source)
    tokenizer = load_whole_tokenizer(detector, "BertTokenizer")
    document = yaml.safe_load(Path(quick["profile"]).read_text())
    labeller = document["labeller"]
    rules = ("box_threshold", "text_threshold", "phrase_score", "nms_iou", "batch_size")
    labeller["detector"] = {name: labeller["detector"][name] for name in rules} | {
        "kind": "grounding-dino-original",
        "model": save_detector(found, tokenizer, tmp_path / "detector"),
        "architecture": "own",
        "short_side": 64,
        "long_side": 64,
    }
    labeller["segmenter"] = {
        "kind": "sam-original",
        "model": save_segmenter(cut, tmp_path / "segmenter"),
        "architecture": "vit_b",
    }
    file = tmp_path / "original.yaml"
    file.write_text(yaml.safe_dump(document))
    with fitted_detector(found.config), fitted_segmenter(cut.config):
        yield {**quick, "profile": str(file)}


def rows_of(root):
    rows = [
        row
        for path in sorted(root.rglob("*.parquet"))
        for row in decode_manifest(path.read_bytes())
    ]
    return sorted(rows, key=lambda row: row.index)


@pytest.mark.slow
def test_a_dataset_labelled_by_the_originals_has_the_same_samples(
    make, labelled_by_originals, tmp_path
):
    strict = {"detections": {}, "masks": {}}  # the rules as they are
    make(tmp_path / "ours", **strict)
    make(tmp_path / "original", **{**labelled_by_originals, **strict})
    ours, original = rows_of(tmp_path / "ours"), rows_of(tmp_path / "original")
    assert len(ours) == 12
    for one, other in zip(ours, original, strict=True):
        assert {name: getattr(one, name) for name in SAME} == {
            name: getattr(other, name) for name in SAME
        }
        assert one.instance_scores == pytest.approx(other.instance_scores, abs=1e-4)
        assert one.instance_ious == pytest.approx(other.instance_ious, abs=1e-4)
        assert one.mask_areas == pytest.approx(other.mask_areas, rel=1e-3)
    assert len({row.status for row in ours}) == 2  # some pass, some do not
