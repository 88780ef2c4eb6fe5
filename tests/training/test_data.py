from dataclasses import replace

import numpy as np
import pytest
import torch

from storage.codecs import encode_rle
from storage.errors import DataError, InputError
from storage.records import Instance
from storage.shards import pack
from storage.store import Store
from storage.vocabulary import load_vocabulary
from training.config import AugmentationConfig, NegativesConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards
from training.shard_cache import ShardCache


@pytest.fixture
def samples(tars):
    return SampleFiles(find_shards(str(tars)), load_vocabulary("miniature"))


def plan(**changes):
    fields = {
        "side": 32,
        "classes_per_image": 5,
        "negatives": NegativesConfig(),
        "augmentation": AugmentationConfig(),
        "padding": (1, 2, 3),
        "seed": 0,
    }
    return BatchPlan(**{**fields, **changes})


def assert_same(first, second):
    for name, value in vars(first).items():
        other = getattr(second, name)
        assert torch.equal(value, other), name


def test_every_sample_is_found_and_decoded(samples):
    assert len(samples) == 10
    for i in range(10):
        stored = samples[i]
        assert stored.pair.image.shape == (64, 64, 3)
        (class_id,) = stored.class_ids
        assert set(np.unique(stored.pair.labels)) == {0, class_id + 1}


def test_a_batch_is_what_its_position_says(samples):
    batches = Batches(samples, plan())
    first, again = batches.batch(7, 4), Batches(samples, plan()).batch(7, 4)
    assert_same(first, again)
    assert first.image.shape == (4, 3, 32, 32)
    assert first.targets.shape == (4, 32, 32)
    assert first.class_ids.shape == (4, 5)
    joined = torch.cat([batches.batch(7, 2).image, batches.batch(9, 2).image])
    assert torch.equal(first.image, joined)


def test_targets_point_at_the_class_of_the_pixel(samples):
    batch = Batches(samples, plan()).batch(0, 10)
    assert set(batch.targets.unique().tolist()) == {-2, -1, 0}
    assert batch.num_present == sum(int((targets == 0).any()) for targets in batch.targets)
    own = sorted(samples[i].class_ids[0] for i in range(10))
    assert sorted(batch.class_ids[:, 0].tolist()) == own


def test_an_epoch_shows_every_sample_once_in_its_own_order(samples):
    shown = []
    unaltered = AugmentationConfig(
        min_scale=1, max_scale=1, flip=0, brightness=0, contrast=0, saturation=0, hue=0
    )
    batches = Batches(samples, plan(side=64, augmentation=unaltered))
    stored = [samples[i].pair.image.tobytes() for i in range(10)]
    for epoch in range(2):
        images = batches.batch(10 * epoch, 10).image.permute(0, 2, 3, 1).numpy()
        shown.append([stored.index(image.tobytes()) for image in images])
    assert sorted(shown[0]) == sorted(shown[1]) == list(range(10))
    assert shown[0] != shown[1]


def test_names_differ_from_epoch_to_epoch(samples):
    batches = Batches(samples, plan())
    names = [batches.batch(10 * e, 10).class_ids for e in range(2)]
    assert not torch.equal(names[0].sort(dim=0)[0], names[1].sort(dim=0)[0])


def test_a_class_that_the_text_names_is_no_negative(draw, tmp_path):
    """Asked for one class, the writer put a bus beside it."""
    bus = load_vocabulary("miniature").by_name("bus").class_id
    drawn = [draw(i) for i in range(8)]
    asked = [replace(s, text="A bus is near.") for s in drawn if bus not in s.class_ids]
    (tmp_path / "train-0.tar").write_bytes(pack(asked))
    samples = SampleFiles(find_shards(str(tmp_path)), load_vocabulary("miniature"))
    for mentioned in (False, True):
        config = NegativesConfig(mentioned=mentioned)
        batches = Batches(samples, plan(negatives=config, classes_per_image=13))
        batch = batches.batch(0, 50)
        shown = [bus in row for row in batch.class_ids[:, 1:].tolist()]
        assert any(shown) is not mentioned
        assert batch.active.all()


def test_a_class_that_was_found_unasked_is_no_negative(draw, tmp_path):
    """The detector saw a bus beside what the text was written for."""
    bus = load_vocabulary("miniature").by_name("bus").class_id
    drawn = [sample for sample in map(draw, range(8)) if bus not in sample.class_ids]
    mask = np.zeros((64, 64), np.bool_)
    mask[:4, :4] = True
    seen = Instance(
        class_id=bus,
        score=0.5,
        predicted_iou=0.5,
        xyxy=(0, 0, 4, 4),
        area=16,
        rle=encode_rle(mask),
    )
    for others in (None, (), (seen,)):
        folder = tmp_path / str(others is not None and len(others))
        folder.mkdir()
        tar = pack([replace(sample, others=others) for sample in drawn])
        (folder / "train-0.tar").write_bytes(tar)
        samples = SampleFiles(find_shards(str(folder)), load_vocabulary("miniature"))
        batch = Batches(samples, plan(classes_per_image=13)).batch(0, 50)
        assert any(bus in row for row in batch.class_ids.tolist()) is not bool(others)


def test_a_name_that_must_not_teach_fills_up_without_teaching(draw, tmp_path):
    sample = replace(draw(1), text="A bus is near.")
    (tmp_path / "train-0.tar").write_bytes(pack([sample]))
    vocabulary = load_vocabulary("miniature")
    bus = vocabulary.by_name("bus").class_id
    assert bus not in sample.class_ids
    samples = SampleFiles(find_shards(str(tmp_path)), vocabulary)
    config = NegativesConfig(mentioned=True)
    batch = Batches(samples, plan(negatives=config, classes_per_image=14)).batch(0, 3)
    assert (batch.class_ids[:, -1] == bus).all()
    assert not batch.active[:, -1].any()
    assert batch.active[:, :-1].all()


def test_decoded_samples_are_kept_only_if_all_fit(tars):
    shards, vocabulary = find_shards(str(tars)), load_vocabulary("miniature")
    each = 64 * 64 * (3 + 3 + 2)
    kept = SampleFiles(shards, vocabulary, cache_bytes=10 * each)
    assert kept[3] is kept[3]
    dropped = SampleFiles(shards, vocabulary, cache_bytes=10 * each - 1)
    assert dropped[3] is not dropped[3]


def test_samples_of_another_vocabulary_are_refused(tars):
    samples = SampleFiles(find_shards(str(tars)), load_vocabulary("lvis1205"))
    with pytest.raises(InputError, match="the vocabulary 'lvis1205' has"):
        samples[0]


def test_only_committed_shards_of_a_good_yield_are_trained_on(draw, commit_shard, root, tmp_path):
    store = Store.create(root, {"min_yield": 0.5})
    commit_shard(store, 0, [draw(1), draw(2)], 0)
    commit_shard(store, 1, [draw(3)], 9)
    commit_shard(store, 2, [], 2)
    store.objects.write_new("data/train-0badcafe-000003.tar", b"not committed")
    good = find_shards(root)
    assert [shard.path.rpartition("-")[2] for shard in good] == ["000000.tar"]
    assert len(find_shards(root, use_degraded=True)) == 2
    with ShardCache(tmp_path / "kept", 10**6) as cache:
        samples = SampleFiles(good, load_vocabulary("miniature"), shard_cache=cache)
        assert [s.class_ids for s in samples] == [draw(1).class_ids, draw(2).class_ids]


def test_a_dataset_of_poor_shards_alone_is_refused(draw, commit_shard, tmp_path):
    store = Store.create(tmp_path, {"min_yield": 0.5})
    commit_shard(store, 0, [draw(1)], 9)
    with pytest.raises(InputError, match="1 committed shards of which none"):
        find_shards(str(tmp_path))


def test_a_cut_tar_is_refused(tars, tmp_path):
    whole = (tars / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut"):
        SampleFiles(find_shards(str(tmp_path)), load_vocabulary("miniature"))


def test_nothing_to_train_on_is_said(tmp_path):
    with pytest.raises(InputError, match="generate the dataset first"):
        find_shards(str(tmp_path / "nowhere"))
