import contextlib
import threading

import pytest

from storage.errors import DataError, InputError, TransientError
from storage.store import Store
from storage.vocabulary import load_vocabulary
from training.config import AugmentationConfig, NegativesConfig, TrainingConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards
from training.loop import train_student
from training.shard_cache import ShardCache


@pytest.fixture
def shards(bucket, draw, commit_shard):
    """Six committed shards of four samples in an object store."""
    store = Store.create(bucket.root, {"min_yield": 0.5})
    for number in range(6):
        commit_shard(store, number, [draw(10 * number + i) for i in range(4)], 0)
    found = find_shards(bucket.root)
    bucket.reads.clear()
    return found


def tars(bucket):
    return [path for path in bucket.reads if path.endswith(".tar")]


def batches(shards, cache, mixed_shards):
    samples = SampleFiles(shards, load_vocabulary("miniature"), shard_cache=cache)
    plan = BatchPlan(
        side=32,
        classes_per_image=5,
        negatives=NegativesConfig(),
        augmentation=AugmentationConfig(),
        padding=(0, 0, 0),
        seed=0,
        mixed_shards=mixed_shards,
    )
    return Batches(samples, plan)


def test_with_room_for_all_every_shard_is_fetched_once(shards, bucket, tmp_path):
    with ShardCache(tmp_path, 10**9) as cache:
        found = batches(shards, cache, None)
        assert not tars(bucket)
        for _ in found.stream(iter([[p] for p in range(0, 96, 8)]), 8, 3):
            pass
    assert sorted(tars(bucket)) == sorted(set(tars(bucket)))
    assert len(tars(bucket)) == 6
    with ShardCache(tmp_path, 10**9) as cache:
        batches(shards, cache, None).batch(0, 24)
    assert len(tars(bucket)) == 6


def sizes_of_tars(folder):
    for path in folder.glob("*.tar"):
        # a shard may be let go between its listing and this line
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_size


@pytest.mark.parametrize("threads", [0, 3])
def test_with_room_for_two_windows_a_shard_is_fetched_once_an_epoch(
    shards, bucket, tmp_path, threads
):
    capacity = sum(sorted(shard.num_bytes for shard in shards)[-4:])
    with ShardCache(tmp_path, capacity) as cache:
        cache.require_room([shards], 2)
        steps = iter([[p] for p in range(0, 3 * 24, 4)])
        for _ in batches(shards, cache, 2).stream(steps, 4, threads):
            assert sum(sizes_of_tars(tmp_path)) <= capacity
    fetched = tars(bucket)
    # A window may come back at once when an epoch ends; the last one looks ahead.
    assert 10 <= len(fetched) <= 3 * 6 + 2


def test_batches_do_not_depend_on_where_shards_are_kept(shards, tmp_path):
    with ShardCache(tmp_path / "large", 10**9) as large, ShardCache(tmp_path / "small", 0) as small:
        for position in (0, 20):
            first = batches(shards, large, 1).batch(position, 6)
            second = batches(shards, small, 1).batch(position, 6)
            assert (first.image == second.image).all()
            assert (first.class_ids == second.class_ids).all()


def test_too_little_room_is_refused_with_what_would_fit(shards, tmp_path):
    size = max(shard.num_bytes for shard in shards)
    with ShardCache(tmp_path, 4 * size) as cache:
        cache.require_room([shards], 2)
        with pytest.raises(InputError, match="set mixed_shards to at most 2, or let it be"):
            cache.require_room([shards], None)
    with ShardCache(tmp_path, size) as cache, pytest.raises(InputError, match=f"is {size}: let it"):
        cache.require_room([shards], 1)


def test_a_shard_that_is_not_the_committed_one_is_refused(shards, bucket, tmp_path):
    key = next(key for key in bucket.objects if key.endswith("000002.tar"))
    damaged = bytearray(bucket.objects[key])
    damaged[700] ^= 1
    bucket.objects[key] = bytes(damaged)
    with ShardCache(tmp_path, 10**9) as cache:
        with pytest.raises(DataError, match=r"000002\.tar is not the committed shard .* sha256"):
            cache.fetch(shards[2])
        bucket.objects[key] = bytes(damaged[:5000])
        with pytest.raises(DataError, match=r"000002\.tar is .*: it ends after 5000 bytes"):
            cache.fetch(shards[2])
        del bucket.objects[key]
        with pytest.raises(DataError, match=r"000002\.tar is not the committed shard .* gone"):
            cache.fetch(shards[2])
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_an_object_store_in_trouble_is_told_and_leaves_nothing(
    shards, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("MAGICSEG_STORE_PATIENCE_SECONDS", "0.5")
    with ShardCache(tmp_path, 10**9) as cache:
        for trouble, error, words in [
            ("cut", TransientError, "run the same command again"),
            ((503, "SlowDown"), TransientError, "overloaded"),
            ((403, "AccessDenied"), InputError, "do not give the right to read there"),
            ((404, "NoSuchBucket"), InputError, "there is no such bucket"),
        ]:
            bucket.trouble = trouble
            with pytest.raises(error, match=words):
                cache.fetch(shards[0])
        bucket.trouble = None
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
        assert cache.fetch(shards[0]).stat().st_size == shards[0].num_bytes


def test_a_cache_that_cannot_be_is_told(shards, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        ShardCache(tmp_path / "file" / "cache", 10**9) as cache,
        pytest.raises(InputError, match=r"file is a file, .*choose another shard_cache"),
    ):
        cache.fetch(shards[0])


def test_those_who_want_a_shard_at_once_fetch_it_once(shards, bucket, tmp_path):
    with ShardCache(tmp_path, 10**9) as one, ShardCache(tmp_path, 10**9) as other:
        wanting = [
            threading.Thread(target=cache.fetch, args=[shards[0]]) for cache in (one, other) * 4
        ]
        for thread in wanting:
            thread.start()
        for thread in wanting:
            thread.join()
    assert len(tars(bucket)) == 1


def test_a_shard_that_somebody_removes_is_read_on_and_then_fetched_again(shards, bucket, tmp_path):
    with ShardCache(tmp_path, 10**9) as cache:
        before = cache.read_range(shards[0], 0, 100)
        cache.fetch(shards[0]).unlink()
        assert cache.read_range(shards[0], 0, 100) == before
        assert len(tars(bucket)) == 1
        for other in (shards[1:2], shards[2:3]):
            cache.prefetch(other)
        assert cache.read_range(shards[0], 0, 100) == before
    assert sum("000000.tar" in path for path in tars(bucket)) == 2


def test_what_a_killed_process_left_is_removed(shards, tmp_path):
    with ShardCache(tmp_path, 10**9) as cache:
        for shard in shards[:2]:
            (tmp_path / f"{shard.identity}.tmp").write_bytes(b"half" * 10**6)
        assert cache.fetch(shards[0]).stat().st_size == shards[0].num_bytes
    assert not list(tmp_path.glob("*.tmp"))


def test_without_a_cache_remote_shards_are_refused(shards):
    with pytest.raises(InputError, match="give a shard_cache"):
        SampleFiles(shards, load_vocabulary("miniature"))


def test_a_run_on_a_remote_dataset_ends_with_the_weights_of_a_local_one(
    shards, bucket, settings, draw, commit_shard, tmp_path
):
    from models.student.trained import load_student

    store = Store.create(tmp_path / "local", {"min_yield": 0.5})
    for number in range(6):
        commit_shard(store, number, [draw(10 * number + i) for i in range(4)], 0)
    settings |= {"mixed_shards": 2, "threads": 2, "shard_cache": str(tmp_path / "kept")}
    paths = [
        train_student(
            TrainingConfig(**{**settings, "dataset": str(root), "out": str(tmp_path / name)})
        )
        for name, root in (("far", bucket.root), ("near", tmp_path / "local"))
    ]
    far, near = (dict(load_student(path)[0].trainable_parameters()) for path in paths)
    assert all((far[name] == near[name]).all() for name in far)
    assert list((tmp_path / "kept").glob("*.tar"))
