"""A student finds words in images."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.scoring.config import Background, InferenceConfig, ScoringConfig
from evaluation.segment import Segmentation, Student
from models.miniature.world import CLASSES, masks, render, sample_scene
from models.profiles import load_profile
from runs import write_run
from storage.errors import DataError, InputError
from storage.photographs import read_photograph


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def segmenter(run: Path) -> Student:
    return Student.load(run, profile="miniature", device="cpu")


def settings(**inference: object) -> ScoringConfig:
    config = ScoringConfig.model_validate(load_profile("miniature").scoring)
    changed = {**config.inference.model_dump(), **inference}
    return config.model_copy(update={"inference": InferenceConfig.model_validate(changed)})


def changed(segmenter: Student, **inference: object) -> Student:
    return Student(segmenter._student, segmenter._encoder, settings(**inference))


def picture(seed: int = 0) -> np.ndarray:
    return render(sample_scene(np.random.default_rng(seed), class_ids=[0]))


def test_the_settings_are_those_of_the_profile_of_the_same_clip(
    run: Path, segmenter: Student
) -> None:
    assert segmenter.config == settings()
    assert Student.load(run, device="cpu").config == settings()
    own = ScoringConfig()
    assert Student.load(run, device="cpu", config=own).config is own
    with pytest.raises(InputError, match="profile 'none' is unknown"):
        Student.load(run, profile="none")


def test_a_batch_gives_what_each_image_gives_alone(segmenter: Student, tmp_path: Path) -> None:
    words = ("cat", "red  boat", "tree")
    file = tmp_path / "a picture.png"
    Image.fromarray(picture(3)).save(file)
    images = [picture(1), np.zeros((7, 300, 3), np.uint8), str(file), file]
    found = segmenter.segment_all(iter(images), words)
    for image, one in zip([*images[:2], picture(3), picture(3)], found, strict=True):
        alone = segmenter.segment(image, words)
        assert one.words == alone.words == ("cat", "red boat", "tree")
        np.testing.assert_array_equal(one.labels, alone.labels)
        np.testing.assert_array_equal(one.scores, alone.scores)
    assert segmenter.segment_all([], words) == []
    with pytest.raises(InputError, match="words are"):
        segmenter.segment_all([], [])
    (tmp_path / "b.png").write_bytes(file.read_bytes()[:90])
    with pytest.raises(DataError, match=r"b\.png"):
        segmenter.segment_all([file, tmp_path / "b.png"], words)


@pytest.mark.parametrize("rule", list(Background))
def test_a_threshold_afterwards_is_the_threshold_before(
    segmenter: Student, rule: Background
) -> None:
    looked = changed(segmenter, background=rule).look(picture(), ["cat", "boat"])
    for threshold in (0.0, 0.2, 0.35, 0.7, 1.0):
        asked = changed(segmenter, background=rule, threshold=threshold)
        expected = asked.segment(picture(), ["cat", "boat"])
        np.testing.assert_array_equal(looked.at(threshold).labels, expected.labels)
    maps: dict[str, np.ndarray] = {}
    again = changed(segmenter, background=rule).look(
        picture(), ["cat", "boat"], watch=lambda word, scores: maps.update({word: scores})
    )
    assert again.best_scores == looked.best_scores
    assert again.best_scores == tuple(float(maps[word].max()) for word in ("cat", "boat"))


def test_labels_are_what_scores_and_threshold_say(segmenter: Student) -> None:
    found = segmenter.segment(picture(), ["cat", "red boat", "a word of no vocabulary"])
    assert found.labels.dtype == np.uint16
    assert found.labels.max() <= 3
    np.testing.assert_array_equal(found.labels > 0, found.scores >= np.float32(0.35))


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (301, 33), (64, 64)])
def test_images_of_any_size_keep_their_size(segmenter: Student, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = segmenter.segment(image, ["cat"])
    assert found.labels.shape == found.scores.shape == shape
    assert np.isfinite(found.scores).all()


def test_the_order_of_the_words_is_that_of_the_labels(segmenter: Student) -> None:
    image, everything = picture(), changed(segmenter, threshold=0.0)
    one = everything.segment(image, ["cat", "tree", "boat"])
    other = everything.segment(image, ["boat", "cat", "tree"])
    np.testing.assert_array_equal(
        np.array(("", *one.words))[one.labels], np.array(("", *other.words))[other.labels]
    )


@pytest.mark.parametrize("rule", list(Background))
def test_every_background_rule_can_be_used(segmenter: Student, rule: Background) -> None:
    found = changed(segmenter, background=rule, window=48, stride=32).segment(
        picture(), ["cat", "boat"]
    )
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    if rule is Background.NONE:
        assert found.labels.min() == 1


def test_background_words_can_win(segmenter: Student) -> None:
    found = changed(segmenter, background="words", threshold=0.0).segment(
        picture(), ["thing of a kind that nobody has heard of"]
    )
    assert (found.scores[found.labels == 0] >= 0).all()


def test_the_pixels_of_an_object_are_more_like_its_name_than_others(
    segmenter: Student,
) -> None:
    """The decoder starts from CLIP's own likeness, so this holds before any training."""
    inside, outside = [], []
    for number in range(8):
        scene = sample_scene(np.random.default_rng(number), class_ids=[number])
        scores = segmenter.segment(render(scene), [CLASSES[number]]).scores
        mask = masks(scene)[0]
        inside.append(scores[mask].mean())
        outside.append(scores[~mask].mean())
    assert np.mean(inside) > np.mean(outside)


def test_shares_are_those_of_the_label_map() -> None:
    labels = np.array([[0, 1, 1, 3]], dtype=np.uint16)
    found = Segmentation(("a", "b", "c"), labels, np.zeros((1, 4), dtype=np.float32))
    assert found.shares() == {"a": 0.5, "b": 0.0, "c": 0.25}
    assert dataclasses.replace(found, words=("a", "b", "c", "d")).shares()["d"] == 0


@pytest.mark.parametrize(
    "words", [[], [""], [" "], ["cat", "cat"], ["red  boat", "red boat"], "cat"]
)
def test_words_that_mean_nothing_are_refused(segmenter: Student, words: list[str] | str) -> None:
    with pytest.raises(InputError, match="words are"):
        segmenter.segment(picture(), words)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "with alpha", "floats", "empty"],
)
def test_what_is_no_image_is_refused(segmenter: Student, image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"the image is an array of .*read_photograph\(path\)"):
        segmenter.segment(image, ["cat"])


def test_embeddings_of_the_same_words_are_made_once(segmenter: Student) -> None:
    asked: list[int] = []

    def encoder(texts: list[str]) -> torch.Tensor:
        asked.append(len(texts))
        return segmenter._encoder(texts)

    counting = Student(segmenter._student, encoder, segmenter.config)
    for words in (["cat"], ["cat"], ["boat"]):
        counting.segment(picture(), words)
    assert len(asked) == 2


def test_a_folder_without_a_run_and_a_diverged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a checkpoint"):
        Student.load(tmp_path)
    with pytest.raises(InputError, match="its training had diverged"):
        Student.load(write_run(tmp_path / "nan", nan=True))
    run = write_run(tmp_path / "cut")
    weights = next((run / "checkpoints").rglob("student.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged"):
        Student.load(run)


@pytest.mark.parametrize("mode", ["I;16", "LA", "P", "1"])
def test_a_photograph_of_any_kind_is_segmented_once_it_is_read(
    segmenter: Student, tmp_path: Path, mode: str
) -> None:
    Image.new(mode, (24, 20)).save(tmp_path / "a.png")
    found = segmenter.segment(read_photograph(tmp_path / "a.png"), ["cat"])
    assert found.labels.shape == (20, 24)
