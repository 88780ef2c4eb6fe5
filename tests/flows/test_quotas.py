"""Quotas, on shards whose samples have fates that are made up: nothing is painted."""

import hashlib
import io
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flows.__main__ import main
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from flows.local_runs import generate_locally
from flows.quota_words import quota_lines
from flows.quotas import survey
from storage.checks import DamagedError
from storage.commits import Counts
from storage.manifest import count_classes, describe_samples, encode_manifest
from storage.payloads import Payload
from storage.plan import plan_samples
from storage.records import PlannedShard, Reason, Rejected, Stage
from storage.shards import iterate, pack
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.repacking import other_packing

VOCABULARY = load_vocabulary("miniature")
CAT, BOAT, STAR, BUS = (
    VOCABULARY.by_name(name).class_id for name in ("cat", "boat", "star", "bus")
)
YIELDS = {CAT: 0.9, BOAT: 0.3, STAR: 0.0, BUS: 0.6}


@pytest.fixture
def drawing(dataset):
    return next(iterate(dataset / "train-0.tar"))


def is_written(sample):
    """Whether a sample of these yields comes through, by its key alone."""
    luck = int(hashlib.sha256(sample.key.encode()).hexdigest()[:8], 16) / 2**32
    return luck < min(YIELDS[class_id] for class_id in sample.class_ids)


def finish(run, shard, drawing):
    """Commit a shard as if its samples had been made."""
    planned = plan_samples(run.spec, run.classes, shard.start, shard.stop)
    written = [
        replace(
            drawing,
            key=s.key,
            index=s.index,
            seed=s.seed,
            class_ids=s.class_ids,
            class_names=tuple(VOCABULARY[class_id].name for class_id in s.class_ids),
        )
        for s in planned
        if is_written(s)
    ]
    dropped = [
        Rejected(key=s.key, stage=Stage.DETECTIONS, reason=Reason.CLASS_NOT_FOUND, detail="0.1")
        for s in planned
        if not is_written(s)
    ]
    names = {record.class_id: record.name for record in VOCABULARY}
    plan = PlannedShard(slice_id=shard.slice_id, index=shard.index, samples=planned)
    rows = describe_samples(plan, names, samples=written, dropped=dropped)
    about = {"start": shard.start, "stop": shard.stop, "classes": count_classes(rows)}
    payload = Payload(pack(written) if written else b"", encode_manifest(rows), about=about)
    key = run.keys.shard_key(run.spec, shard)
    counts = Counts.of(len(planned), len(written), dropped)
    run.store.commit(Stage.SHARDS, shard.name, key, payload, counts)


@pytest.fixture
def parameters(tmp_path):
    def choose(root="d", **changes):
        values = {"samples": 12, "slice": "cat,boat,star,bus", "min_per_class": 8, "max_extra": 20}
        values |= {"samples_per_shard": 100, "texts_per_class_set": 2} | changes
        return GenerationParameters.model_validate({"root": str(tmp_path / root), **values})

    return choose


@pytest.fixture
def work(drawing):
    """Make what a run is short of, in any order; `most` shards before it is killed."""

    def make(parameters, *, most=10**6, order=0):
        made = []
        with prepare(parameters) as run:
            while (found := survey(run)).todo and len(made) < most:
                for own in {job[0] for job in found.todo}:
                    commits = found.commits.get(own.classes.slice_id, {}).values()
                    for commit, _ in other_packing(run.store, commits, own.planned):
                        run.store.withdraw(commit, "another packing")
                jobs = list(found.todo)
                random.Random(order).shuffle(jobs)  # noqa: S311
                for own, shard in jobs[: most - len(made)]:
                    finish(own, shard, drawing)
                    made.append((shard.name, shard.start, shard.stop))
            return made, survey(run)

    return make


def held(root):
    """Which samples a dataset holds, by shard."""
    return {c.shard: (c.start, c.stop) for c in Store.open(root).commits(Stage.SHARDS)}


def test_every_class_ends_with_its_quota_and_the_hopeless_one_is_named_with_its_reasons(
    parameters, work
):
    made, found = work(parameters())
    classes = {each.class_id: each for each in found.quota.classes}
    for class_id in (CAT, BOAT, BUS):
        assert class_id not in classes or classes[class_id].total >= 8
    (star,) = found.quota.short
    assert (star.name, star.total) == ("star", 0)
    assert star.dropped == {"class-not-found": star.extra}
    assert 0 < star.extra <= 80
    lines = quota_lines(found.quota)
    assert "1 classes stay short" in lines[0]
    assert lines[1] == (
        f"class star: 0 of 8; of {star.planned} samples of the slice 0 were written, of "
        f"{star.extra} extra samples {star.extra} were dropped: class-not-found {star.extra}; "
        "of the last 2 rounds of extras none was written"
    )
    assert found.tally.requested == 12
    # whoever yields more gets less
    assert classes[BOAT].extra > classes[BUS].extra > 0
    assert made


def test_the_same_extras_are_planned_whatever_the_order_the_machine_and_the_kills(
    parameters, work, caplog
):
    _, whole = work(parameters("whole"))
    made, other = work(parameters("other"), order=5)
    assert other.quota == whole.quota
    for number in range(len(made)):  # killed after every shard
        work(parameters("killed"), most=1, order=number)
    left, killed = work(parameters("killed"))
    assert left == []
    assert killed.quota == whole.quota
    assert held(parameters("killed").root) == held(parameters("whole").root)
    again, same = work(parameters("whole"))
    assert again == []
    assert same.quota == whole.quota
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


def test_a_class_that_has_enough_gets_nothing(parameters, work):
    made, found = work(parameters(min_per_class=1, slice="cat"))
    assert made == [(made[0][0], 0, 12)]
    assert found.quota.classes == ()
    assert "0 classes stay short" in quota_lines(found.quota)[0]


@pytest.mark.parametrize("share", [0, 0.5, 1.0])
def test_the_cap_holds_over_all_classes_and_says_so(parameters, work, share):
    _, found = work(parameters(min_per_class=50, max_extra=share))
    assert found.quota.most_extra == int(12 * share)
    assert found.quota.extra == found.quota.most_extra
    assert len(found.quota.short) == 4
    assert {each.short for each in found.quota.short} == {"max_extra allows no more extras"}
    # what there is, is shared among the classes
    assert max(e.extra for e in found.quota.short) - min(e.extra for e in found.quota.short) <= 2


def test_more_than_asked_lies_there_and_the_same_is_planned(parameters, work):
    """Samples that another run made beyond the extras change nothing."""
    _, fresh = work(parameters("fresh", slice="cat,boat"))
    work(parameters("d", slice="boat", samples=100, min_per_class=None))
    _, found = work(parameters("d", slice="cat,boat"))
    assert replace_shards(found.quota) == replace_shards(fresh.quota)
    assert held(parameters("d").root) != held(parameters("fresh").root)


def replace_shards(report):
    return report.model_copy(update={"shards": 0})


def test_the_slice_of_a_single_class_goes_on_with_its_extras(parameters, work):
    asked = parameters(slice="boat", samples=7, min_per_class=6)
    made, found = work(asked)
    (boat,) = found.quota.classes
    assert boat.total >= 6
    assert found.tally.requested == 7
    assert (7 + boat.extra) % 2 == 0
    assert {(0, 7 + boat.extra)} == set(held(asked.root).values())
    assert work(asked)[0] == []
    _, plain = work(asked.model_copy(update={"min_per_class": None}))
    assert (plain.tally.requested, plain.tally.written) == (7, boat.written)
    assert made


def test_extras_wait_for_the_shards_that_other_workers_make(parameters, work):
    asked = {"samples": 40, "slice": "cat,boat", "min_per_class": 12, "samples_per_shard": 16}
    some = parameters(shards="0-1", **asked)
    _, found = work(some)
    assert found.quota.waits_for == 1
    assert quota_lines(found.quota) == [
        "quota of 12 written samples a class: extra samples are planned when the slice is "
        "finished, 1 of its shards are left"
    ]
    _, found = work(some.model_copy(update={"shards": "2"}))
    assert found.quota.waits_for == 0
    assert found.quota.extra
    _, whole = work(parameters("whole", **asked))
    assert found.quota == whole.quota


def test_another_size_of_shards_plans_the_same_extras(parameters, work):
    _, first = work(parameters(slice="cat,boat"))
    made, second = work(parameters(slice="cat,boat", samples_per_shard=5))
    assert made
    assert replace_shards(second.quota) == replace_shards(first.quota)


def test_a_damaged_manifest_is_told_and_not_counted(parameters, work):
    work(parameters(samples=12, min_per_class=None))
    asked = parameters(samples=5, min_per_class=3)
    store = Store.open(asked.root)
    (commit,) = store.commits(Stage.SHARDS)
    assert commit.manifest is not None
    path = Path(store.root) / commit.manifest.path
    path.write_bytes(b"XXXX" + path.read_bytes()[4:])
    with prepare(asked) as run, pytest.raises(DamagedError):
        survey(run)


def test_a_shard_of_one_class_is_never_degraded_by_its_yield(parameters, work):
    work(parameters(min_yield=1.0))
    for shard in Store.open(parameters().root).shards():
        alone = len(shard.commit.classes) == 1
        assert shard.degraded == (not alone or shard.commit.object is None)


def test_plan_and_generate_tell_what_the_quota_has_come_to(parameters, work, monkeypatch, capsys):
    asked = parameters()
    _, found = work(asked)
    words = ["plan", "--root", asked.root, "--samples", "12", "--slice", asked.slice]
    words += ["--min-per-class", "8", "--max-extra", "20", "--set", "samples_per_shard=100"]
    words += ["--set", "texts_per_class_set=2"]
    said = {}
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["magicseg", *words, *more])
        with pytest.raises(SystemExit, match="0"):
            main()
        said[bool(more)] = capsys.readouterr().out
    assert quota_lines(found.quota)[1] in said[False]
    quota = json.loads(said[True])["quota"]
    assert [each["name"] for each in quota["classes"] if each["short"]] == ["star"]
    out = io.StringIO()
    generate_locally(asked, Console(file=out, width=300))
    assert "no stage was executed" in out.getvalue()
    assert quota_lines(found.quota)[1] in out.getvalue()


def test_many_short_classes_are_counted_and_a_few_named(parameters, work):
    _, found = work(parameters(min_per_class=50, max_extra=0))
    many = found.quota.model_copy(update={"classes": found.quota.classes * 6})
    lines = quota_lines(many)
    assert len(lines) == 22
    assert lines[-1].startswith("and 4 more; 'magicseg plan'")


@pytest.mark.parametrize(
    ("option", "value"), [("--min-per-class", "0"), ("--max-extra", "-1"), ("--max-extra", "nan")]
)
def test_a_quota_that_means_nothing_is_refused(refused, tmp_path, option, value):
    said = refused("plan", "--root", tmp_path / "d", "--samples", 8, option, value)
    assert option[2:].replace("-", "_") in said.replace("-", "_")
