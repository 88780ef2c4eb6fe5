import pytest

from storage.errors import IncompleteError, InputError
from storage.store import Store
from tasks.training import require_shards


def test_training_waits_for_enough_good_shards(tmp_path):
    Store.create(tmp_path / "d", {"min_yield": 0.5})
    with pytest.raises(IncompleteError, match=r"has 0 good shards .* 3 are wanted"):
        require_shards(str(tmp_path / "d"), 3)


def test_training_on_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a dataset nor a folder with tars"):
        require_shards(str(tmp_path), 1)
