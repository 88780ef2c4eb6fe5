import gc
import pickle
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from storage.card import render_card, write_card
from storage.codecs import decode_image, decode_label_map
from storage.records import Stage
from storage.shards import iterate
from storage.store import Store

SPEC = {
    "seed": 7,
    "painter": {"model": "org/painter", "revision": "abc123", "steps": 20},
    "stages": {"detections": {"detector": {"weights": "org/dino@v1", "box_threshold": 0.3}}},
}


@pytest.fixture
def store(tmp_path, sample, payload) -> Store:
    """Two shards, a class called "train", a shard without survivors, and parquet in between."""
    store = Store.create(tmp_path / "set", SPEC)
    first = [sample(index) for index in range(4)]
    second = [sample(index, class_id=0) for index in range(4, 8)]
    store.commit(Stage.SHARDS, "0badcafe-000000", "a" * 64, *payload(first))
    store.commit(Stage.SHARDS, "0badcafe-000001", "b" * 64, *payload(second))
    store.commit(Stage.SHARDS, "0badcafe-000002", "c" * 64, *payload([], 2))
    write_card(store)
    return store


def blocks(store: Store) -> list[str]:
    """The card's Python snippets, for this root."""
    found = re.findall(r"```python\n(.*?)```", render_card(store), flags=re.DOTALL)
    return [block.replace("<root>", store.root) for block in found]


def run(snippet: str) -> dict[str, tuple[np.ndarray, ...]]:
    """Run a snippet, and collect what its loop sees."""
    seen: dict[str, tuple[np.ndarray, ...]] = {}
    scope: dict[str, object] = {"seen": seen}
    collect = "    seen[about['key']] = (np.array(image), np.array(twin), labels, about)\n"
    exec(snippet + collect, scope)  # noqa: S102 - the card's own code
    return seen


def check(seen, store: Store) -> None:
    samples = [s for shard in store.shards() if shard.path for s in iterate(shard.path)]
    assert sorted(seen) == [sample.key for sample in samples]
    for sample in samples:
        image, twin, labels, about = seen[sample.key]
        np.testing.assert_array_equal(image, decode_image(sample.image_bytes))
        np.testing.assert_array_equal(twin, decode_image(sample.counterfactual_bytes))
        np.testing.assert_array_equal(labels, decode_label_map(sample.mask_bytes))
        assert set(np.unique(labels)) == {0, sample.class_ids[0] + 1, 65535}
        assert about["class_ids"] == list(sample.class_ids)
        assert about["class_names"] == list(sample.class_names)
        assert about["seed"] == sample.seed


# whose old versions ask for older packages than Prefect does: it is not in the oldest environment
@pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets")
def test_the_datasets_snippet_returns_every_sample_with_the_right_ids(store, tmp_path, in_process):
    # its own process: the library reads its settings when it is imported
    code = f"""
import pickle, sys
import test_card
seen = test_card.run({blocks(store)[0]!r})
pickle.dump(seen, open(sys.argv[1], "wb"))
"""
    process = in_process(
        code,
        str(tmp_path / "seen.pickle"),
        HF_HOME=str(tmp_path / "hf"),
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    check(pickle.loads((tmp_path / "seen.pickle").read_bytes()), store)  # noqa: S301 - our own


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves tars open
def test_the_webdataset_snippet_returns_every_sample_with_the_right_ids(store):
    snippet = blocks(store)[1]
    assert len(snippet.splitlines()) <= 6
    check(run(snippet), store)
    gc.collect()  # or the warning comes in another test


def test_the_header_pins_the_tars_and_is_yaml(store):
    _, header, _ = (Path(store.root) / "README.md").read_text().split("---\n", 2)
    (config,) = yaml.safe_load(header)["configs"]
    assert config["data_files"] == [{"split": "train", "path": "data/*.tar"}]


def test_the_card_tells_yields_models_and_settings(store):
    text = render_card(store)
    assert "| 0badcafe | 3 | 8 | 12 | 66.7% | 1 | class-not-found 4 |" in text
    assert "| cat | 4 | 4 | 100.0% |" in text
    assert "| train | 4 | 8 | 50.0% |" in text
    assert "| painter | org/painter@abc123 |" in text
    assert "| stages.detections.detector | org/dino@v1 |" in text
    assert "box_threshold: 0.3" in text
    assert "seed: 7" in text


def test_the_card_is_the_same_for_the_same_records(store):
    assert render_card(store) == render_card(Store.open(store.root))


def test_a_dataset_without_shards_has_a_card(tmp_path):
    store = Store.create(tmp_path, {"seed": 1})
    assert write_card(store) == f"{tmp_path}/README.md"
    assert "Yield by class" not in (tmp_path / "README.md").read_text()


def test_a_damaged_shard_is_named_in_the_card_and_stops_no_other(store):
    store.objects.delete(".engine/manifests/0badcafe-000001.parquet")
    write_card(store)
    text = (Path(store.root) / "README.md").read_text()
    assert "## Shards that are damaged" in text
    assert re.search(
        r"0badcafe-000001: .*parquet is committed but gone; run 'magicseg verify", text
    )
    assert "| train |" in text
