"""The hub is asked once and shortly; what its cache holds is not asked for at all."""

import socket
import time

import huggingface_hub.constants as hub
import pytest

from flows.doctor import examine
from models.hub import find_on_hub
from models.labelling.config import SegmenterConfig
from models.profiles import load_profile
from models.weights import resolve_weights
from storage.errors import InputError
from tasks.recipe import Recipe

HUB = "facebook/sam-vit-huge"
COMMIT = "87aecf0df4ce6b30cd7de76e87673c49644bdf67"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.delenv("MAGICSEG_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / f"models--{HUB.replace('/', '--')}"


def fill(cache, commit=COMMIT):
    snapshot = cache / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "sam"}')
    return snapshot


@pytest.fixture
def silent_hub(monkeypatch):
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.fixture
def closed_hub(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("network", ["silent_hub", "closed_hub"])
def test_the_doctor_answers_soon_without_a_network(request, network):
    request.getfixturevalue(network)
    began = time.monotonic()
    recipe = Recipe(profile=load_profile("sd15"))
    findings = {each.what: each for each in examine(recipe, None)}
    assert time.monotonic() - began < 5
    for role in ("painter", "detector", "segmenter", "student's CLIP"):
        assert not findings[role].ok
        assert "127.0.0.1 did not answer" in findings[role].detail
        assert "hf download" in findings[role].detail


@pytest.mark.parametrize("network", ["silent_hub", "closed_hub"])
def test_what_is_in_the_cache_needs_no_network(request, cache, network):
    request.getfixturevalue(network)
    snapshot = fill(cache)
    began = time.monotonic()
    assert find_on_hub(HUB, "config.json", COMMIT) == snapshot / "config.json"
    assert time.monotonic() - began < 1


def test_a_cache_without_the_weights_is_not_ok_if_the_hub_is_not_to_be_asked(cache, monkeypatch):
    snapshot = fill(cache)
    config = SegmenterConfig(model=HUB, revision=COMMIT)
    assert str(snapshot) in config.check()  # the rest can be downloaded
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"no weights.*hf download"):
        config.check()
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (snapshot / "preprocessor_config.json").write_text("{}")
    assert str(snapshot) in config.check()


@pytest.mark.parametrize("part", ["87aecf0", "87aecf0df4ce", COMMIT[:39]])
def test_a_part_of_a_commit_is_refused_with_the_whole_one_if_it_is_known(cache, part):
    with pytest.raises(InputError, match=r"expected all 40 digits of the commit$"):
        resolve_weights(HUB, part)
    fill(cache)
    with pytest.raises(InputError, match=f"digits of the commit, which is {COMMIT}"):
        resolve_weights(HUB, part)


@pytest.mark.parametrize("revision", [COMMIT, "v1.0", "refs/pr/3", "fp16"])
def test_other_revisions_are_taken_as_they_are(revision):
    assert resolve_weights(HUB, revision).revision == revision
