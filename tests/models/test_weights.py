"""Weights are found, named and asked for in words."""

import huggingface_hub.constants
import pytest
import torch

from models.configs import ModelConfig
from models.devices import pick_device
from models.weights import Weights, loading, require_marker, resolve_weights, weights_identity
from storage.errors import InputError

HUB = "facebook/sam-vit-huge"
COMMIT = "87aecf0df4ce6b30cd7de76e87673c49644bdf67"


@pytest.fixture(autouse=True)
def _no_weights_folder(monkeypatch, tmp_path_factory):
    monkeypatch.delenv("MAGICSEG_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cache = str(tmp_path_factory.mktemp("hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", cache)


def write_model(folder):
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "sub" / "words.txt").write_bytes(b"a")
    return folder


def test_a_folder_is_found_by_its_path(tmp_path):
    assert resolve_weights(str(write_model(tmp_path / "m"))) == Weights(str(tmp_path / "m"), None)


def test_a_hub_id_stays_one_with_its_revision():
    weights = resolve_weights(HUB, COMMIT)
    assert weights == Weights(HUB, COMMIT)
    assert weights.folder is None


def test_a_hub_id_is_found_in_the_weights_folder(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "facebook" / "sam-vit-huge")
    monkeypatch.setenv("MAGICSEG_WEIGHTS", str(tmp_path))
    assert resolve_weights(HUB, COMMIT) == Weights(str(folder), None)
    assert resolve_weights(HUB) == Weights(str(folder), None)


def test_a_branch_is_no_revision():
    with pytest.raises(InputError, match="has the branch 'main' as its revision; give the commit"):
        resolve_weights(HUB, "main")


def test_a_hub_id_without_a_revision_is_refused():
    with pytest.raises(InputError, match=r"'facebook/sam-vit-huge' has no revision; give the com"):
        resolve_weights(HUB)


@pytest.mark.parametrize(
    "model", ["nowhere", "a/b/c", "./missing", "/no/such/folder", "bad name/x"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(model):
    with pytest.raises(InputError, match="no existing folder and no hub id"):
        resolve_weights(model, "main")


@pytest.mark.parametrize("model", ["weights:nothing", "weights:../../data"])
def test_weights_that_do_not_ship_are_refused_with_those_that_do(model):
    with pytest.raises(InputError, match="do not ship with the engine; those that do"):
        resolve_weights(model)


def test_a_missing_model_offline_says_what_to_download_and_where_to_put_it():
    with pytest.raises(InputError) as caught:
        require_marker(resolve_weights(HUB, COMMIT), "config.json")
    message = str(caught.value)
    command = f"hf download {HUB} --revision {COMMIT} --local-dir FOLDER"
    assert f"hub model '{HUB}' at revision '{COMMIT}' cannot be loaded" in message
    assert f"`{command}`, then set `model` to FOLDER" in message
    assert f"FOLDER be <weights>/{HUB} and set MAGICSEG_WEIGHTS=<weights>" in message


def test_a_file_missing_in_a_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot be loaded .*no model_index\.json"):
        require_marker(resolve_weights(str(write_model(tmp_path / "m"))), "model_index.json")


def test_errors_of_the_machine_are_not_taken_for_missing_weights(tmp_path):
    def load():
        with loading(Weights(str(tmp_path), None)):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        load()


def test_the_identity_of_a_hub_model_is_its_revision_wherever_it_lies(tmp_path, monkeypatch):
    assert weights_identity(HUB, COMMIT) == f"{HUB}@{COMMIT}"
    write_model(tmp_path / "facebook" / "sam-vit-huge")
    monkeypatch.setenv("MAGICSEG_WEIGHTS", str(tmp_path))
    assert weights_identity(HUB, COMMIT) == f"{HUB}@{COMMIT}"


def test_the_identity_of_a_folder_is_its_contents(tmp_path):
    one, other = write_model(tmp_path / "one"), write_model(tmp_path / "other")
    before = weights_identity(str(one))
    assert before == weights_identity(str(other))
    assert before.startswith("sha256:")
    (other / "model.safetensors").write_bytes(b"weighty")
    assert weights_identity(str(other)) != before
    (one / "sub" / "words.txt").rename(one / "words.txt")
    assert weights_identity(str(one)) != before


def test_what_no_model_reads_does_not_change_the_identity(tmp_path):
    folder = write_model(tmp_path / "m")
    before = weights_identity(str(folder))
    (folder / "README.md").write_text("about")
    (folder / "training.json").write_text("{}")
    assert weights_identity(str(folder)) == before


def test_a_folder_without_weights_has_no_identity(tmp_path):
    with pytest.raises(InputError, match="holds no weights"):
        weights_identity(str(tmp_path))


def test_a_model_is_the_same_on_any_device_and_in_any_batch(tmp_path):
    model = str(write_model(tmp_path / "m"))
    config = ModelConfig(model=model)
    assert config.identity() == ModelConfig(model=model, device="cuda", batch_size=2).identity()
    assert config.identity() != ModelConfig(model=model, dtype="float16").identity()
    assert config.identity() == {"weights": weights_identity(model), "dtype": "float32"}


def test_devices_are_picked_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_an_unknown_or_absent_device_is_refused():
    with pytest.raises(InputError, match="device 'gpu' is unknown"):
        pick_device("gpu")
    with pytest.raises(InputError, match="device 'cuda:63' is not there"):
        pick_device("cuda:63")
