import hashlib
import math
import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError

from storage.errors import InputError
from storage.identity import (
    Fingerprint,
    canonical_json,
    derive_seed,
    describe_drift,
    digest,
)


class Detector(BaseModel):
    box_threshold: float = 0.3
    phrases: tuple[str, ...] = ("bow", "caf\u00e9")


def test_the_order_of_keys_and_the_kind_of_sequence_do_not_matter():
    assert canonical_json({"b": (1, 2), "a": None}) == canonical_json({"a": None, "b": [1, 2]})
    assert canonical_json({"b": [1, 2.5], "a": None}) == b'{"a":null,"b":[1,2.5]}'


def test_a_model_is_written_as_its_fields():
    assert canonical_json([Detector()]) == canonical_json([Detector().model_dump()])
    assert "caf\u00e9".encode() in canonical_json(Detector())


def test_values_that_differ_have_different_digests():
    values = [1, 1.0, "1", True, None, [1], {"1": 1}, [], {}, 0.1, 0.1 + 2**-56]
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(InputError, match="finite"):
        canonical_json({"detector": Detector(box_threshold=number)})


def test_what_is_no_json_is_refused():
    with pytest.raises(TypeError, match="a set has no canonical JSON"):
        digest({"classes": {1, 2}})


def test_seeds_are_the_same_in_every_process():
    code = "from storage.identity import derive_seed; print(derive_seed(0, 'pair', 7))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive_seed(0, "pair", 7) == 7592631628548169258


def test_seeds_differ_with_every_part_and_its_type():
    parts = [(1, 2), (12,), ("1", 2), (1, "2"), ("1,2",), (2, 1), (1, 2, ""), ()]
    seeds = {derive_seed(*p) for p in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (0,),
        (-3, 2**70),
        ("",),
        ('a"b\\c', "caf\u00e9\n\t\x00\x7f\u2028"),
        (True, "1"),
        ("\U0001f431",),
    ],
)
def test_a_seed_is_made_of_the_canonical_json_of_its_parts(parts):
    whole = hashlib.sha256(canonical_json(list(parts))).digest()
    assert derive_seed(*parts) == int.from_bytes(whole[:8], "big") >> 1


def test_a_part_that_is_no_text_is_refused():
    with pytest.raises(InputError, match="no canonical JSON"):
        derive_seed("\ud800")


def test_seeds_fill_their_range():
    seeds = [derive_seed("range", i) for i in range(4000)]
    assert min(seeds) < 2**63 / 500
    assert max(seeds) > 2**63 * (1 - 1 / 500)
    assert 0.47 < sum(seed % 2 for seed in seeds) / len(seeds) < 0.53


def test_a_fingerprint_survives_its_json_and_knows_its_scheme():
    mark = Fingerprint.of({"seed": 1, "detector": Detector()})
    assert Fingerprint.model_validate_json(mark.model_dump_json()) == mark
    assert mark == Fingerprint.of({"detector": Detector().model_dump(), "seed": 1})
    assert mark != Fingerprint.of({"seed": 2, "detector": Detector()})
    assert mark.scheme == 1
    with pytest.raises(ValidationError):
        Fingerprint(scheme=1, digest="abc")


def test_drift_is_told_by_dotted_path_with_old_and_new_value():
    old = {"detector": {"box_threshold": 0.3, "text_threshold": 0.25}, "seed": 1}
    new = {"detector": {"box_threshold": 0.35, "text_threshold": 0.25}, "seed": 1}
    assert describe_drift(old, new) == ["detector.box_threshold: 0.3 -> 0.35"]


def test_fields_that_come_and_go_and_change_their_kind_are_told():
    old = {"a": 1, "models": ["sd15", "sam"], "deep": {"x": None}, "rules": {}}
    new = {"a": "1", "models": ["sd15"], "deep": None, "rules": {"nms": 0.5}}
    assert describe_drift(old, new) == [
        'a: 1 -> "1"',
        "deep: not set -> null",
        "deep.x: null -> not set",
        'models.1: "sam" -> not set',
        "rules: {} -> not set",
        "rules.nms: not set -> 0.5",
    ]


def test_specifications_with_the_same_fingerprint_have_no_drift():
    old, new = {"a": (1, 2), "b": {}}, {"b": {}, "a": [1, 2]}
    assert Fingerprint.of(old) == Fingerprint.of(new)
    assert describe_drift(old, new) == []
    assert describe_drift({}, {"a": 1}) == ["a: not set -> 1"]
