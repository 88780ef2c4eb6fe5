"""A specification that is not as it was written is found, and restored from its copy."""

import pytest

from storage.errors import DataError, InputError
from storage.identity import SCHEME, canonical_json
from storage.specification_copies import find_damage
from storage.store import Store
from storage.verification import verify_records, verify_specification

SPEC = {"seed": 7, "min_yield": 0.25, "plan": {"vocabulary": "miniature", "texts": 3}, "x": "a é"}
SPEC_FILE, COPY = ".engine/spec.json", ".engine/spec.copy.json"


@pytest.fixture
def store(root):
    return Store.create(root, SPEC)


def flip(store, path, bit):
    data = bytearray(store.objects.read(path))
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    store.objects.replace(path, bytes(data))


def mended(root):
    assert all(finding.repaired for finding in verify_specification(root, mend=True))
    return verify_specification(root) == [] and Store.open(root).spec == SPEC


def test_a_whole_one_has_no_findings(store):
    assert verify_specification(store.root) == []
    assert Store.open(store.root).spec == SPEC
    assert Store.create(store.root, SPEC).spec == SPEC


@pytest.mark.parametrize("path", [SPEC_FILE, COPY])
def test_every_bit_counts(tmp_path, path):
    store = Store.create(tmp_path / "d", SPEC)
    whole = store.objects.read(path)
    for bit in range(8 * len(whole)):
        flip(store, path, bit)
        assert [damage.path for damage in find_damage(store.objects)] == [path], bit
        store.objects.replace(path, whole)
    assert find_damage(store.objects) == []


@pytest.mark.parametrize("path", [SPEC_FILE, COPY])
@pytest.mark.parametrize("bit", [0, 77, 300, 555, 811])
def test_one_flipped_bit_is_told_and_restored(store, path, bit):
    flip(store, path, bit)
    [finding] = verify_specification(store.root)
    assert finding.path == path
    assert "verify --repair" in finding.way_out
    if path == SPEC_FILE:
        for use in (lambda: Store.open(store.root), lambda: Store.create(store.root, SPEC)):
            with pytest.raises(DataError, match="run 'magicseg verify --repair'"):
                use()
    assert mended(store.root)
    assert store.objects.read(SPEC_FILE) == store.objects.read(COPY)


@pytest.mark.parametrize("path", [SPEC_FILE, COPY])
@pytest.mark.parametrize("left", [b"", b"{}", b"[]", b"null", b'{"scheme":1,"spec":[]}', None])
def test_what_is_no_specification_is_restored(store, path, left):
    if left is None:
        store.objects.delete(path)
    else:
        store.objects.replace(path, left)
    if path == SPEC_FILE:
        with pytest.raises(DataError, match=r"spec\.json .*verify --repair"):
            Store.open(store.root)
        with pytest.raises(DataError, match=r"spec\.json .*verify --repair"):
            Store.create(store.root, SPEC)
    assert mended(store.root)


def test_two_lost_files_are_told_and_left_alone(store):
    for path in (SPEC_FILE, COPY):
        flip(store, path, 300)
    findings = verify_specification(store.root, mend=True)
    assert [finding.repaired for finding in findings] == [False, False]
    assert "a copy of your own" in findings[0].way_out


def test_no_dataset_is_no_damage(root):
    assert verify_specification(root) == []
    with pytest.raises(InputError, match="there is no dataset"):
        Store.open(root)


def test_an_older_dataset_is_read_and_gets_its_copy_when_it_goes_on(store):
    store.objects.replace(SPEC_FILE, canonical_json({"scheme": SCHEME, "spec": SPEC}))
    store.objects.delete(COPY)
    assert verify_specification(store.root) == []
    assert Store.open(store.root).spec == SPEC
    assert verify_records(Store.create(store.root, SPEC)) == []
    assert store.objects.size(COPY)
    assert verify_specification(store.root) == []
    flip(store, SPEC_FILE, 8 * 20 + 1)
    [finding] = verify_specification(store.root)
    assert finding.path == SPEC_FILE
    assert mended(store.root)
