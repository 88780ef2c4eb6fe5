"""A small dataset from the shipped models: most samples pass, on any allowed version."""

from importlib.metadata import version

import pytest

from storage.records import Stage
from storage.store import Store

SAMPLES = 16


@pytest.mark.slow
def test_the_shipped_models_find_most_of_what_they_painted(run, tmp_path):
    root = tmp_path / "d"
    code, _, said = run(
        "generate", "--root", root, "--samples", SAMPLES, "--set", "texts_per_class_set=1"
    )
    assert code == 0, said
    store = Store.open(root)
    shards = store.commits(Stage.SHARDS)
    written = sum(commit.counts.written for commit in shards)
    assert written >= 0.75 * SAMPLES, [commit.counts for commit in shards]
    for commit in [*shards, *store.commits(Stage.PAIRS)]:
        for name in ("torch", "transformers", "diffusers", "pillow", "tokenizers"):
            assert commit.libraries[name] == version(name)
