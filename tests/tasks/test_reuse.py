"""What another dataset has is copied: pictures are labelled in another way, not painted again."""

from dataclasses import replace

import pytest

from models.registry import Role
from recorded import generated
from storage.errors import InputError
from storage.records import Stage
from storage.store import Store


def contents(samples):
    """Samples by index, without the keys, which are each dataset's own."""
    return {index: replace(sample, key="") for index, sample in samples.items()}


def test_pictures_are_painted_once_for_two_labellings(tmp_path):
    first, asked = generated(tmp_path / "first")
    assert asked[Role.PAINTER] > 0
    rules = {"masks": {"min_area": 0.25}}
    fresh, _ = generated(tmp_path / "fresh", **rules)
    second, asked = generated(tmp_path / "second", reuse=str(tmp_path / "first"), **rules)
    assert asked.keys() == {Role.SEGMENTER}
    assert second == fresh
    assert 0 < len(second) < len(first)
    borrowed = Store.open(tmp_path / "second").commits(Stage.PAIRS)
    assert borrowed
    assert all(commit.seconds == 0 for commit in borrowed)


def test_nothing_is_copied_that_would_have_been_made_otherwise(tmp_path):
    generated(tmp_path / "first")
    other, asked = generated(tmp_path / "other", reuse=str(tmp_path / "first"), seed=1)
    assert asked[Role.PAINTER] > 0
    assert other == generated(tmp_path / "fresh", seed=1)[0]


def test_what_is_damaged_there_is_made_here_and_told(tmp_path, caplog):
    generated(tmp_path / "first")
    [piece] = Store.open(tmp_path / "first").commits(Stage.PAIRS)
    file = tmp_path / "first" / piece.object.path
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    second, asked = generated(tmp_path / "second", reuse=str(tmp_path / "first"))
    assert asked[Role.PAINTER] > 0
    assert second == generated(tmp_path / "fresh")[0]
    assert "'magicseg verify' mends that dataset" in caplog.text


def test_a_dataset_that_is_not_there_is_told_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        generated(tmp_path / "second", reuse=str(tmp_path / "nowhere"))
    assert not (tmp_path / "second").exists()


def test_pictures_with_maps_are_labelled_in_both_ways(tmp_path):
    record = {"pairs": {"record": {"cross": [8], "cells": 8}}}
    grounded, _ = generated(tmp_path / "grounded", **record)
    plain, _ = generated(tmp_path / "plain")
    assert contents(grounded) == contents(plain)
    attentive = {
        "kind": "dataset-diffusion",
        "cross_resolution": 8,
        "cell_resolution": 8,
        "min_presence": 0.5,
    }
    changes = record | {"labeller": attentive, "reuse": str(tmp_path / "grounded")}
    other, asked = generated(tmp_path / "attentive", **changes)
    assert Role.PAINTER not in asked
    assert other.keys() == grounded.keys()
    for index, sample in other.items():
        assert sample.image_bytes == grounded[index].image_bytes
        assert sample.class_ids == grounded[index].class_ids


def test_attention_that_the_painter_has_not_is_told_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match=r"attention at the resolutions 4, 8, 16 .* reads 32"):
        generated(tmp_path / "d", pairs={"record": {"cross": [32]}})
    assert not (tmp_path / "d").exists()
