"""The verbs that look after a dataset: commands that run in this process, and their advice tried.

Two datasets are made once, with the shipped models, and copied for each test.
"""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from flows.__main__ import main
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.profiles import load_profile
from storage.batches import list_batches
from storage.codecs import decode_image
from storage.commit_log import record_path
from storage.layout import OBJECT_FOLDER
from storage.payloads import Payload
from storage.plan import index_of
from storage.records import Stage
from storage.reopening import Wanted, find_dropped, reopen
from storage.shards import iterate
from storage.store import Store
from storage.verification import repair, verify_bytes
from storage.vocabulary import load_vocabulary
from tasks.earlier_layout import _key as old_key
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES
from training.data import SampleFiles, find_shards

pytestmark = [pytest.mark.server, pytest.mark.slow]

QUICK_TRAINING = "--set optimiser.steps=2 --set compile=false"

DROPPED = {2: "000000", 8: "000002"}
"""The samples whose masks are too large, and where they are packed."""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """The shipped models, made quick."""
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["painter"] |= {"steps": 3, "batch_size": 4}
    document["labeller"]["detector"] |= {
        "box_threshold": 0.02,
        "text_threshold": 0.01,
        "batch_size": 4,
    }
    file = tmp_path_factory.mktemp("profile") / "quick.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture(scope="module")
def settings(profile):
    return {
        "profile": str(profile),
        "samples": 10,
        "samples_per_shard": 4,
        "texts_per_class_set": 1,
        "detections": {"counterfactual": "record", "require": "any"},
        "masks": {"min_area": 0.05, "max_area": 0.2},
        "min_yield": 0.6,
    }


@pytest.fixture(scope="module")
def made(settings, tmp_path_factory):
    """Ten samples in three shards, the last short and degraded; two samples are dropped."""
    root = tmp_path_factory.mktemp("made") / "d"
    make_here({**settings, "root": str(root)})
    manifests = [Store.open(root).manifest(each.commit) for each in Store.open(root).shards()]
    rows = [row for manifest in manifests for row in manifest]
    assert {row.index for row in rows if row.status == "rejected"} == set(DROPPED)
    return root


def make_here(document):
    """What a run does, without a server."""
    with prepare(GenerationParameters.model_validate(document)) as run:
        run.keep_parameters()
        for shard in run.todo:
            work = run.work(shard)
            for declaration in map(STAGES.get, run.keys.stages):
                make_stage(declaration, work)


@pytest.fixture
def root(made, tmp_path):
    repair(Store.open(made), None)  # writes the card
    return Path(shutil.copytree(made, tmp_path / "d"))


@pytest.fixture
def say(monkeypatch, capsys, server):
    """Run a command line in this process; its exit code, and what it wrote."""
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())

    def run(line):
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", ["magicseg", *words[words[0] == "magicseg" :]])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return ended.value.code, said.out, " ".join(said.err.split())

    return run


@pytest.fixture
def told(say):
    """Run a command with --json, and return what it says."""

    def run(line):
        code, out, err = say(f"{line} --json")
        assert code == 0, err
        return json.loads(out)

    return run


def names_of(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if "leases" not in path.parts}


def painted(root):
    """How often each sample was painted, by the records that are there."""
    counts = {}
    for commit in Store.open(root).commits(Stage.PAIRS):
        for key in commit.verdicts:
            counts[index_of(key)] = counts.get(index_of(key), 0) + 1
    return counts


def reasons(root):
    """Why each sample was dropped; empty for those that were written."""
    store = Store.open(root)
    rows = [row for shard in store.shards() for row in store.manifest(shard.commit)]
    return {row.index: row.reason for row in rows}


def decided_masks(root):
    return sorted(
        index_of(key) for each in Store.open(root).commits(Stage.MASKS) for key in each.verdicts
    )


def executed(out):
    """What a run says that it did."""
    [words] = re.findall(r"executed: (.*) shards;", " ".join(out.split()))
    return set(words.split(", "))


def findings(root):
    return verify_bytes(Store.open(root), 14)


def generate_line(document):
    given = {name: value for name, value in document.items() if name not in {"samples", "profile"}}
    words = ["generate", "--samples", str(document["samples"]), "--profile", document["profile"]]
    for name, value in given.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return shlex.join(words)


def test_retry_makes_exactly_the_chosen_samples_again(root, say, told, tars):
    before, store = tars(root), Store.open(root)
    shown = told(f"retry {root} --reason mask-too-large --dry-run")
    assert tars(root) == before
    described = told(f"retry {root} --reason mask-too-large")
    assert described == {**shown, "dry_run": False}
    slice_id = store.shards()[0].commit.slice_id
    assert [
        (each["shard"], [index_of(row["key"]) for row in each["samples"]])
        for each in described["shards"]
    ] == [(f"{slice_id}-{shard}", [index]) for index, shard in DROPPED.items()]
    assert decided_masks(root) == sorted(set(range(10)) - set(DROPPED))
    assert findings(root) == []
    assert set(tars(root)) == {f"train-{slice_id}-000001.tar"}
    (status,) = Store.open(root).status()
    assert sum(status.undelivered.values()) == 2
    [command] = described["next"]
    code, out, err = say(command)
    assert code == 0, err
    assert executed(out) == {"masks of 2", "shards of 2"}
    assert tars(root) == before  # the same models decide the same
    assert painted(root) == dict.fromkeys(range(10), 1)
    assert findings(root) == []
    again = told(f"retry {root} --degraded")
    assert [each["shard"] for each in again["shards"]] == [f"{slice_id}-000002"]
    assert say(again["next"][0])[0] == 0
    assert tars(root) == before


def test_texts_that_failed_or_were_rejected_are_asked_for_again(
    settings, tmp_path, chat_server, say, told
):
    root = tmp_path / "d"
    writer = {"kind": "chat", "model": "m", "base_url": chat_server.url, "api_key_env": None}
    writer |= {"texts_per_call": 1, "concurrency": 1}
    chat_server.queue += [
        chat_server.completion(content="I will not write JSON"),
        chat_server.completion(["nothing of what was asked for stands in this text"]),
    ]
    rules = {"writer": writer, "prompts": {"max_rounds": 1}, "samples": 4, "accept_failed": True}
    line = generate_line({**settings, "root": str(root), **rules})
    code, _, err = say(line)
    assert code == 3, err  # the texts that come are too long to paint
    before = reasons(root)
    assert (before[0], before[1]) == ("writer-failed", "class-not-mentioned")
    for index, options in enumerate(["", "--reason class-not-mentioned"]):
        asked = len(chat_server.requests)
        described = told(f"retry {root} {options}")
        [row] = described["shards"][0]["samples"]
        assert (index_of(row["key"]), row["reason"]) == (index, before[index])
        assert findings(root) == []
        code, _, err = say(described["next"][0])
        assert code == 3, err
        assert "no sample" in err
        assert len(chat_server.requests) == asked + 1  # the others, and its first round, are known
    after = reasons(root)
    assert not {"writer-failed", "class-not-mentioned"} & set(after.values())
    assert {index: after[index] for index in (2, 3)} == {index: before[index] for index in (2, 3)}
    assert told(f"retry {root}")["shards"] == []
    assert findings(root) == []


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ("", []),
        ("--degraded", [8]),
        ("--stage masks", [2, 8]),
        ("--stage masks --degraded", [8]),
        ("--stage prompts", []),
        ("--stage masks --shard {slice}-000000", [2]),
        ("--stage masks --slice {slice}", [2, 8]),
        ("--stage masks --slice all", [2, 8]),
    ],
)
def test_retry_chooses_by_slice_shard_stage_reason_and_yield(root, told, options, samples):
    slice_id = Store.open(root).shards()[0].commit.slice_id
    described = told(f"retry {root} --dry-run {options.format(slice=slice_id)}")
    keys = [row["key"] for each in described["shards"] for row in each["samples"]]
    assert [index_of(key) for key in keys] == samples


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("retry {} --stage mask", "stage 'mask' is unknown; did you mean masks?"),
        ("retry {} --stage shards", "stage 'shards' is unknown"),
        ("retry {} --reason mask-too-big", "reason 'mask-too-big' is unknown; did you mean"),
        ("retry {} --shard nope", "nope is no finished shard"),
        ("retry {} --slice cat", "has no slice 'cat'"),
        ("retry {} --slice unicorn", "has no slice 'unicorn', it has {slice} (all)"),
        ("extend {} --by 2 --slice cat", "has no slice 'cat'"),
        ("extend {} --by 0", "--by"),
        ("gc {}/none", "there is no dataset"),
        ("quarantine list {} x", "'x' means nothing for list"),
        ("quarantine list {} --yes", "--yes means nothing for list"),
        ("quarantine restore {}", "restore needs a batch"),
        ("quarantine restore {} nope", "has no batch 'nope'"),
        ("quarantine empty {} --id nope", "has no batch 'nope'"),
        ("quarantine empty {} --older-than -1", "--older-than"),
        ("quarantine lose {}", "lose"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_changes(root, say, line, words):
    before = names_of(root)
    code, _, err = say(line.format(root))
    assert code == 2
    slice_id = Store.open(root).shards()[0].commit.slice_id
    assert words.replace("{slice}", slice_id) in err
    assert names_of(root) == before


def test_a_retry_that_was_cut_short_goes_on(root, told, say, tars):
    """As if it had been killed after the pieces and before the shard's record."""
    before, store = tars(root), Store.open(root)
    [shard, _] = find_dropped(store, Wanted(stage=Stage.MASKS))
    reopen(store, [shard])
    tar = f"data/train-{shard.commit.shard}.tar"
    [batch] = [each for each in list_batches(store.objects) if tar in each.files]
    assert told(f"quarantine restore {root} {batch.id}")["batches"][0]["id"] == batch.id
    assert tars(root) == before
    described = told(f"retry {root} --stage masks")
    assert described["samples"] == 2
    assert say(described["next"][0])[0] == 0
    assert tars(root) == before


def test_gc_frees_what_no_run_needs_and_growth_goes_on(root, say, told, settings, tars):
    before, names = tars(root), names_of(root)
    shown = told(f"gc {root}")
    assert (shown["pieces"], shown["samples"], shown["freed"]) == (2, 8, None)
    assert names_of(root) == names
    num_bytes = sum(file.stat().st_size for file in (root / OBJECT_FOLDER).rglob("*/*"))
    done = told(f"gc {root} --yes")
    assert done["freed"] == {"pieces": 2, "objects": 2, "bytes": shown["bytes"], "held": []}
    left = sum(file.stat().st_size for file in (root / OBJECT_FOLDER).rglob("*/*"))
    assert num_bytes - left == shown["bytes"] > 0.5 * num_bytes
    assert painted(root) == {8: 1, 9: 1}
    assert findings(root) == []
    line = generate_line({**settings, "root": str(root)})
    assert "nothing to do: all 3 shards" in say(line)[1]
    assert told(f"gc {root}")["bytes"] == 0

    code, _, err = say(generate_line({**settings, "root": str(root), "samples_per_shard": 5}))
    assert code == 2
    assert "the pieces of 4 of its 4 samples were freed" in err
    assert "go back to samples_per_shard=4" in err
    assert tars(root) == before
    assert "nothing to do" in say(line)[1]

    code, _, err = say(f"retry {root} --stage masks")
    assert code == 2
    assert "000000 cannot be opened again: the pieces of 4 of its 4 samples were freed" in err
    assert tars(root) == before

    described = told(f"extend {root} --by 3")
    assert (described["samples"], described["shards"]) == (13, 4)
    assert painted(root) == dict.fromkeys(range(8, 13), 1)
    assert findings(root) == []


def test_a_freed_shard_is_made_again_as_the_message_says(root, say, told, settings, tars):
    before = tars(root)
    told(f"gc {root} --yes")
    _, _, err = say(f"retry {root} --stage masks")
    [tar] = (root / "data").glob("*-000000.tar")
    assert f"move data/{tar.name} out of the dataset, run 'magicseg verify --repair'" in err
    tar.unlink()
    assert say(f"verify {root} --repair")[0] == 3
    assert say(generate_line({**settings, "root": str(root)}))[0] == 0
    assert tars(root) == before
    assert told(f"retry {root} --stage masks --dry-run")["samples"] == 2


def test_the_words_of_gc_tell_what_cannot_be_done_afterwards(root, say):
    assert "nothing was freed; --yes frees it" in say(f"gc {root}")[1]
    assert "freed 2 pieces" in say(f"gc {root} --yes")[1]


def as_version_0_1(document):
    """Turn the pieces of a dataset into what version 0.1 committed by shard."""
    with prepare(GenerationParameters.model_validate(document)) as run:
        [part] = run.work(run.planned[0]).parts  # all shards are in one cell
        for shard in run.planned:
            work, found = run.work(shard), {}
            keys = {sample.key for sample in work.samples}
            for stage, inputs in work.keys.inputs.items():
                [piece] = [p for p in run.store.pieces(stage, part.name) if keys == set(p.verdicts)]
                shas = [found[each].object.sha256 for each in inputs]
                key = old_key(work.keys, stage, work.samples, shas)
                payload = Payload(run.store.read(piece))
                found[stage] = run.store.commit(stage, shard.name, key, payload, piece.counts)
        for stage in run.keys.inputs:
            for piece in run.store.pieces(stage, part.name):
                run.store.objects.delete(record_path(piece))


def test_a_record_that_cannot_be_read_is_put_aside_before_objects_are_freed(root, say, told):
    store = Store.open(root)
    [piece, *_] = store.commits(Stage.DETECTIONS)
    assert piece.object is not None
    (root / record_path(piece)).write_text("{")
    shown = say(f"gc {root}")[1]
    assert "1 records cannot be read" in shown
    assert "run 'magicseg verify --repair' first" in shown
    assert told(f"gc {root}")["loose_objects"] == 0
    assert say(f"verify {root} --repair")[0] == 3
    assert told(f"gc {root}")["loose_objects"] == 1
    told(f"gc {root} --yes")
    assert not (root / piece.object.path).exists()
    assert findings(root) == []


def test_samples_of_version_0_1_can_be_retried_once_they_are_packed_anew(root, say, told, settings):
    document = {**settings, "root": str(root)}
    as_version_0_1(document)
    assert findings(root) == []
    names = names_of(root)
    code, _, err = say(f"retry {root} --stage masks")
    assert code == 2
    assert "000000 cannot be opened again: it was made by version 0.1" in err
    assert "run 'magicseg generate' with another samples_per_shard" in err
    assert names_of(root) == names
    code, out, err = say(generate_line({**document, "samples_per_shard": 5}))
    assert code == 0, err
    assert executed(out) == {"shards of 2"}
    described = told(f"retry {root} --stage masks")
    assert described["samples"] == 2
    code, out, err = say(described["next"][0])
    assert code == 0, err
    assert executed(out) == {"masks of 2", "shards of 2"}
    assert findings(root) == []


def test_extend_takes_the_parameters_of_the_last_run(root, say, told, made):
    [file] = (root / ".engine/parameters").glob("*.json")
    kept = json.loads(file.read_text())
    assert kept["samples"] == 10
    assert "root" not in kept
    file.write_text(json.dumps({**kept, "samples": 3, "shards": "0"}))
    described = told(f"extend {root} --by 1")
    assert (described["by"], described["samples"], described["shards"]) == (1, 11, 3)
    assert painted(root) == dict.fromkeys(range(11), 1)
    assert json.loads(file.read_text())["samples"] == 11

    file.write_text("[]")
    code, _, err = say(f"extend {root} --by 1")
    assert code == 2
    assert "run 'magicseg generate' with the parameters of the slice" in err
    file.unlink()
    code, _, err = say(f"extend {root} --by 1")
    assert code == 2
    assert "'magicseg generate' once with the same parameters and more --samples" in err
    file.write_text(json.dumps(kept))
    (file.parent / "0badcafe.json").write_text(json.dumps({**kept, "slice": "cat"}))
    code, _, err = say(f"extend {root} --by 1")
    assert code == 2
    slice_id = Store.open(root).shards()[0].commit.slice_id
    expected = f"has 2 slices, expected one: name it by --slice, one of {slice_id} (all), 0badcafe"
    assert expected in err


def test_the_quarantine_is_listed_and_emptied(root, say, told):
    store = Store.open(root)
    assert told(f"quarantine list {root}")["batches"] == []
    store.withdraw(store.shards()[0].commit, "to be looked at")
    [batch] = told(f"quarantine list {root}")["batches"]
    assert batch["reason"] == "to be looked at"
    assert batch["days"] < 1
    assert f"{batch['id']}: 3 files" in say(f"quarantine list {root}")[1]
    names = names_of(root)
    assert "1 batches" in say(f"quarantine empty {root}")[1]
    assert "0 batches" in say(f"quarantine empty {root} --older-than 1 --yes")[1]
    assert names_of(root) == names
    described = told(f"quarantine empty {root} --id {batch['id']} --yes")
    assert described["deleted"]
    assert described["bytes"] == batch["bytes"]
    assert told(f"quarantine list {root}")["batches"] == []
    assert not list((root / ".engine/quarantine").iterdir())


def pictures_to_train_on(root):
    """Every picture that the loader of a training gives, as bytes."""
    samples = SampleFiles(find_shards(str(root)), load_vocabulary("miniature"))
    return [samples[index].pair.image.tobytes() for index in range(len(samples))]


def picture_of(root):
    """The picture of every written sample, as bytes, by key."""
    store = Store.open(root)
    found = {}
    for shard in store.shards():
        for sample in iterate(shard.path, shard.sha256):
            found[sample.key] = decode_image(sample.image_bytes).tobytes()
    return found


def test_excluded_samples_stay_out_of_training_and_growth_and_come_back_by_a_line(
    root, say, told, tmp_path
):
    assert told(f"extend {root} --by 8")["samples"] == 18
    made = picture_of(root)
    keys = sorted(made)
    left_out = keys[:3] + keys[-7:]
    assert len(left_out) == 10
    (tmp_path / "keys.txt").write_text("\n".join(left_out))
    line = f"exclusions add {root} --keys {tmp_path / 'keys.txt'} --why 'two cats'"
    assert told(line) == {"changed": 10, "excluded": 10}

    def held(others):
        """The loader gives everything but what is left out; checks find nothing to say."""
        given = pictures_to_train_on(root)
        assert given
        assert not {picture_of(root)[key] for key in others} & set(given)
        assert say(f"verify {root} --deep")[0] == 0
        return len(given)

    before = held(left_out)
    shown = say(f"status {root}")[1]
    assert f"excluded: hand 10; {len(made) - 10} samples are left to train on" in shown
    assert "  10 hand: two cats" in shown
    assert "- 10: two cats" in (root / "README.md").read_text()
    # the last shard is packed anew when the slice grows
    assert told(f"extend {root} --by 4")["samples"] == 22
    assert set(made) < set(picture_of(root))
    assert held(left_out) > before
    code, out, _ = say(f"train --dataset {root} --out {tmp_path / 'run'} {QUICK_TRAINING}")
    assert code == 0, out
    assert told(f"exclusions undo {root} --keys {tmp_path / 'keys.txt'} --why right") == {
        "changed": 10,
        "excluded": 0,
    }
    assert set(made.values()) & set(pictures_to_train_on(root)) >= {made[key] for key in keys[:3]}
    assert "left out" not in (root / "README.md").read_text()
