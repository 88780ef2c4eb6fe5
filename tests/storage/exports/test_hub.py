import dataclasses
import io
import json
from functools import partial

import numpy as np
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from PIL import Image

from hub_server import TOKEN, serve_hub
from storage.card import render_published_card
from storage.commits import Counts
from storage.errors import InputError, TransientError
from storage.exclusions import exclude_samples
from storage.exports.hub import Publication, plan_push, push_shards
from storage.exports.parquet_tables import write_table
from storage.exports.source_shards import source_shards
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import Stage
from storage.shards import iterate, pack
from storage.store import Store
from storage.vocabulary import load_vocabulary

NAME = "me/mine"
pytestmark = pytest.mark.filterwarnings(
    # of the hub's client, where it sends files by HTTP
    "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    disable_progress_bars()
    with serve_hub() as server:
        # as HF_ENDPOINT sets it: older clients take other hubs' addresses for names
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server
    enable_progress_bars()


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture
def publish(tmp_path, sample, plan_of):
    """A dataset of so many shards of two samples each, as it is to be on the hub."""

    def make(shards, *, excluded=(), licence="cc-by-4.0"):
        spec = {"plan": {"vocabulary": "lvis1205"}, "painter": {"model": "someone/painter"}}
        store = Store.create(tmp_path / "d", spec)
        names = {1204: load_vocabulary("lvis1205")[1204].name}
        for index in range(shards):
            samples = [sample(2 * index + i) for i in range(2)]
            samples = [named(each, names) for each in samples]
            plan = plan_of(samples, index=index)
            rows = describe_samples(plan, names, samples=samples, dropped=[])
            payload = Payload(pack(samples), encode_manifest(rows))
            store.commit(Stage.SHARDS, plan.name, f"{index:016x}", payload, Counts.of(2, 2, []))
        if excluded:
            exclude_samples(store, excluded, who="me", why="two cats")
        card = partial(render_published_card, store, NAME)
        return Publication(source_shards(store), load_vocabulary("lvis1205"), card, licence=licence)

    return make


def named(sample, names):
    return dataclasses.replace(sample, class_names=tuple(names[i] for i in sample.class_ids))


def push(api, publication, **options):
    return push_shards(api, plan_push(api, NAME, publication), publication, **options)


def written(folder, repository):
    for path, data in repository.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def sent(hub):
    return [path for command, path in hub.requests if command == "PUT"]


def test_datasets_reads_back_what_was_pushed(api, hub, publish, tmp_path):
    datasets = pytest.importorskip("datasets")
    publication = publish(3)
    assert hub.url in push(api, publication)
    repository = hub.repositories[NAME]
    assert (repository.private, repository.commits) == (True, 1)
    folder = written(tmp_path / "copy", repository)
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    stored = {s.key: s for tar in publication.shards for s in iterate(tar.path)}
    assert len(found) == len(stored) == 6
    assert set(found["key"]) == stored.keys()
    for row in found:
        sample = stored[row["key"]]
        for kind, data in (
            ("image", sample.image_bytes),
            ("counterfactual", sample.counterfactual_bytes),
            ("mask", sample.mask_bytes),
        ):
            with Image.open(io.BytesIO(data)) as picture:
                assert (np.asarray(row[kind]) == np.asarray(picture)).all()
        assert row["mask"].mode.startswith("I;16")
        assert (row["text"], row["counterfactual_text"]) == (
            sample.text,
            sample.counterfactual_text,
        )
        assert row["class_ids"] == list(sample.class_ids)
        assert row["class_names"] == list(sample.class_names)
        [instance] = row["instances"]
        assert instance == {
            **sample.instances[0].model_dump(),
            "xyxy": list(sample.instances[0].xyxy),
        }
        assert (row["width"], row["height"], row["seed"]) == (16, 16, sample.seed)
        assert row["mentions"] == [each.model_dump() for each in sample.mentions]
    card = repository.files["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "data/*.parquet" in card
    assert "| painter | someone/painter |" in card
    assert f'load_dataset("{NAME}"' in card
    assert TOKEN not in card


def test_a_push_of_what_is_there_sends_nothing_and_one_that_has_grown_the_rest(api, hub, publish):
    push(api, publish(2))
    hub.requests.clear()
    plan = plan_push(api, NAME, publish(2))
    assert (plan.send, len(plan.keep), plan.remove) == ((), 2, ())
    assert {method for method, _ in hub.requests} == {"GET"}
    assert push(api, publish(2)) == ""
    assert hub.repositories[NAME].commits == 1
    assert sent(hub) == []
    push(api, publish(3))
    assert len(sent(hub)) == 1
    assert len(hub.repositories[NAME].files) == 4


def test_a_sample_that_was_left_out_is_taken_from_the_hub(api, hub, publish, sample, tmp_path):
    datasets = pytest.importorskip("datasets")
    push(api, publish(1))
    before = set(hub.repositories[NAME].files)
    hub.repositories[NAME].files["notes.txt"] = b"of somebody"
    bad = sample(1).key
    publication = publish(1, excluded=[bad])
    plan = plan_push(api, NAME, publication)
    assert [each.path for each in plan.remove] == sorted(before - {"README.md"})
    push(api, publication)
    files = hub.repositories[NAME].files
    assert "notes.txt" in files
    [table] = [data for path, data in files.items() if path.endswith(".parquet")]
    (tmp_path / "t.parquet").write_bytes(table)
    found = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "t.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert found["key"][:] == [sample(0).key]
    assert "1 of these samples were left out" in files["README.md"].decode()


def test_a_push_that_breaks_changes_nothing_and_the_next_sends_only_the_rest(api, hub, publish):
    push(api, publish(1))
    before = dict(hub.repositories[NAME].files)
    hub.trouble["/commit/"] = 500
    with pytest.raises(TransientError, match=r"answered 500 \(the hub is not well\).*again"):
        push(api, publish(3))
    assert hub.repositories[NAME].files == before
    hub.trouble.clear()
    assert len(sent(hub)) == 3
    hub.requests.clear()
    push(api, publish(3))
    assert sent(hub) == []
    assert len(hub.repositories[NAME].files) == 4


def test_a_licence_that_was_said_once_stays(api, hub, publish):
    push(api, publish(1))
    assert push(api, publish(1, licence="")) == ""
    push(api, publish(1, licence="mit"))
    push(api, publish(2, licence=""))
    assert hub.repositories[NAME].files["README.md"].startswith(b"---\nlicense: mit\n")


def test_two_pushes_at_a_time_do_not_mix(api, hub, publish):
    publication = publish(1)
    push(api, publication)
    grown = publish(2)
    plan = plan_push(api, NAME, grown)
    hub.repositories[NAME].commits += 1  # somebody else's
    with pytest.raises(TransientError, match=r"somebody else has changed me/mine .*again"):
        push_shards(api, plan, grown)


def test_small_files_that_go_with_the_commit_are_kept_until_then(api, hub, publish):
    hub.all_regular = True
    push(api, publish(2))
    assert sum(path.endswith(".parquet") for path in hub.repositories[NAME].files) == 2


@pytest.mark.parametrize(
    ("token", "name", "trouble", "error", "words"),
    [
        ("hf_wrong_one", NAME, {}, InputError, r"does not know the token \(401.*HF_TOKEN"),
        (TOKEN, "others/x", {}, InputError, r"may not write to others/x \(403.*hf auth login"),
        (TOKEN, "no way", {}, InputError, "'no way' is no name of a repository"),
        (TOKEN, NAME, {"/api/datasets": 503}, TransientError, "answered 503"),
        (TOKEN, NAME, {"/api/datasets": 429}, TransientError, "answered 429"),
        (TOKEN, NAME, {"/repos/create": 402}, InputError, r"refused me/mine \(402"),
    ],
)
def test_what_the_hub_refuses_is_told_without_the_token(
    hub, publish, token, name, trouble, error, words
):
    hub.trouble.update(trouble)
    api = HfApi(endpoint=hub.url, token=token)
    publication = publish(1)
    with pytest.raises(error, match=words) as raised:
        push_shards(api, plan_push(api, name, publication), publication)
    assert token not in str(raised.value)
    assert hub.objects == {}


def test_a_hub_that_is_not_there_and_no_token_are_told(hub, publish, monkeypatch, tmp_path):
    publication = publish(1)
    nowhere = HfApi(endpoint="http://127.0.0.1:9", token=TOKEN)
    with pytest.raises(TransientError, match="could not be asked"):
        plan_push(nowhere, NAME, publication)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    nobody = HfApi(endpoint=hub.url)
    plan = plan_push(nobody, NAME, publication)  # looking needs none
    assert not plan.exists
    with pytest.raises(InputError, match="there is no token for"):
        push_shards(nobody, plan, publication)
    assert hub.repositories == {}


def test_a_file_is_the_same_whenever_it_is_written(sample, tmp_path):
    samples = [sample(i) for i in range(70)]
    assert write_table(samples, tmp_path / "a") == 70
    write_table(samples, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert write_table([], tmp_path / "c") == 0
    assert not (tmp_path / "c").exists()


def test_the_features_are_those_that_datasets_knows(sample, tmp_path):
    datasets = pytest.importorskip("datasets")
    import pyarrow.parquet as pq

    write_table([sample(0)], tmp_path / "a")
    schema = pq.read_schema(tmp_path / "a")
    said = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    features = datasets.Features.from_dict(said)
    assert features.arrow_schema.types == schema.types
    assert features["mask"] == datasets.Image()
