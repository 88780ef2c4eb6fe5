"""What a folder of an original checkpoint must hold; nothing here needs the packages."""

import os
import pickle

import pytest
import torch
from torch import nn

from models.labelling.original.checkpoints import keeping_command, load_checkpoint
from models.labelling.original.config import OriginalDetectorConfig, OriginalSegmenterConfig
from models.labelling.original.files import find_text_encoder, read_settings
from storage.documents import validate
from storage.errors import InputError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "?", "bus"]


@pytest.fixture
def folder(tmp_path):
    """A whole folder of a detector."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "bert", "vocab_size": 7}')
    (tmp_path / "text" / "vocab.txt").write_text("\n".join(VOCABULARY))
    (tmp_path / "settings.py").write_text("nheads = 8\nbackbone = 'swin_T_224_1k'\n")
    torch.save({"model": network().state_dict()}, tmp_path / "weights.pth")
    return tmp_path


def network():
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4), nn.Linear(4, 3)
    return nn.ModuleDict({"first": first, "second": second, "again": first})


def detector(folder, **changes):
    return OriginalDetectorConfig(model=str(folder), **changes)


def saved(folder, contents):
    torch.save(contents, folder / "weights.pth")
    return folder / "weights.pth"


def test_the_identity_is_of_checkpoint_vocabulary_and_settings_and_of_no_other_file(folder):
    named = detector(folder).identity()
    assert named["weights"].startswith("sha256:")
    assert named["kind"] == "grounding-dino-original"
    assert "device" not in named
    (folder / "notes.txt").write_text("x")
    (folder / "text" / "model.safetensors").write_bytes(b"of BERT; the checkpoint has its own")
    assert detector(folder, batch_size=1).identity() == named
    own = detector(folder, architecture="own").identity()
    (folder / "settings.py").write_text("nheads = 4\n")
    assert detector(folder).identity() == named  # they are the package's
    assert detector(folder, architecture="own").identity()["weights"] != own["weights"]
    (folder / "text" / "vocab.txt").write_text("\n".join([*VOCABULARY, "cat"]))
    assert detector(folder).identity()["weights"] != named["weights"]


def test_another_size_of_pictures_is_another_identity(folder):
    assert detector(folder, short_side=600).identity() != detector(folder).identity()


def test_the_identity_of_a_segmenter_is_of_its_checkpoint(folder):
    config = OriginalSegmenterConfig(model=str(folder))
    before = config.identity()
    assert config.model_copy(update={"boxes_at_once": 3}).identity() == before
    saved(folder, {"a": torch.zeros(1)})
    assert config.identity()["weights"] != before["weights"]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("weights.pth", r"holds none, expected one checkpoint \(\.pth\)"),
        ("text/config.json", "holds none, expected one folder of the text encoder"),
        ("text/vocab.txt", "its tokenizer has no vocabulary"),
        ("settings.py", r"holds none, expected one file of settings \(\.py\)"),
    ],
)
def test_what_is_missing_is_named(folder, missing, message):
    (folder / missing).unlink()
    with pytest.raises(InputError, match=message):
        detector(folder, architecture="own").identity()


def test_of_two_checkpoints_none_is_taken(folder):
    (folder / "other.pth").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds 'other\.pth', 'weights\.pth', expected one"):
        detector(folder).identity()


def test_an_empty_checkpoint_and_a_pointer_are_refused(folder):
    (folder / "weights.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"weights\.pth' is empty"):
        detector(folder).identity()
    (folder / "weights.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="Git LFS pointer"):
        detector(folder).identity()


def test_a_text_encoder_of_another_kind_is_refused(folder):
    (folder / "text" / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(InputError, match="of type 'roberta', expected 'bert'"):
        find_text_encoder(folder)


def test_a_file_or_nothing_in_place_of_the_folder_is_refused(folder):
    with pytest.raises(InputError, match="are a single file, expected a folder"):
        detector(folder / "weights.pth").identity()
    with pytest.raises(InputError, match="are no existing folder, expected a folder"):
        OriginalSegmenterConfig(model=str(folder / "none")).identity()


def test_half_precision_is_refused(folder):
    with pytest.raises(InputError, match="dtype is 'float16', expected float32 or tf32"):
        validate(OriginalDetectorConfig, {"model": "x", "dtype": "float16"}, "profile")
    with pytest.raises(InputError, match="dtype is 'bfloat16', expected float32 or tf32"):
        validate(OriginalSegmenterConfig, {"model": "x", "dtype": "bfloat16"}, "profile")


def test_settings_are_read_and_not_run(tmp_path):
    path = tmp_path / "settings.py"
    path.write_text('"""Ours."""\nnheads = 8  # heads\nindices = [1, 2, 3]\nlr = -1e-4\n')
    assert read_settings(path) == {"nheads": 8, "indices": [1, 2, 3], "lr": -1e-4}


@pytest.mark.parametrize(
    "text",
    [
        "import os\n",
        "nheads = __import__('os').getpid()\n",
        "nheads: int = 8\n",
        "a = b = 8\n",
        "nheads = 2 * 4\n",
        "nheads = (\n",
        "a = '\0'\n",
        "a = " + "[" * 5000 + "]" * 5000,
    ],
)
def test_settings_that_are_more_than_values_are_refused(tmp_path, text):
    path = tmp_path / "settings.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"settings .* expected lines of `name = value`"):
        read_settings(path)


@pytest.mark.parametrize("inside", ["", "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_is_loaded_by_the_names_of_the_network(folder, inside, prefix):
    weights = {f"{prefix}{n}": torch.full_like(t, 2.0) for n, t in network().state_dict().items()}
    path = saved(folder, {inside: weights, "epoch": 3} if inside else weights)
    loaded = network()
    load_checkpoint(loaded, path)
    assert all((tensor == 2).all() for tensor in loaded.state_dict().values())


def test_a_tensor_that_two_names_share_may_stand_under_one(folder):
    weights = {n: t for n, t in network().state_dict().items() if not n.startswith("again.")}
    load_checkpoint(network(), saved(folder, weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("second.bias"), r"lacks 1 tensors of the network, 'second\.bias' for one"),
        (
            lambda w: w.update({"second.bias": torch.zeros(5)}),
            r"'second\.bias' of shape \(5,\), expected \(3,\); set `architecture`",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(folder, change, message):
    weights = dict(network().state_dict())
    change(weights)
    with pytest.raises(InputError, match=message):
        load_checkpoint(network(), saved(folder, weights))


@pytest.mark.parametrize("contents", [{}, [1, 2], {"model": {"a": 1}}, torch.zeros(3)])
def test_a_checkpoint_without_named_tensors_is_refused(folder, contents):
    with pytest.raises(InputError, match="holds no named tensors"):
        load_checkpoint(network(), saved(folder, contents))


@pytest.mark.parametrize("cut", [1, 20, 400, 900])
def test_a_checkpoint_that_ends_too_early_is_refused(folder, cut):
    path = folder / "weights.pth"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"weights\.pth' cannot be read .*download it again"):
        load_checkpoint(network(), path)


@pytest.mark.parametrize("contents", [b"no weights", b"PK\x03\x04" + bytes(100), bytes(64)])
def test_a_file_of_another_kind_is_refused(folder, contents):
    path = folder / "weights.pth"
    path.write_bytes(contents)
    with pytest.raises(InputError, match=r"weights\.pth' cannot be read .*download it again"):
        load_checkpoint(network(), path)


class Touch:
    """What a hostile file does when it is unpickled without care."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda saved, path: path.write_bytes(pickle.dumps(saved))]
)
def test_code_in_a_checkpoint_is_refused_and_not_run(folder, save):
    path, touched = folder / "weights.pth", folder / "touched"
    save({"model": network().state_dict(), "args": Touch(touched)}, path)
    with pytest.raises(InputError, match=r"could run any code, and is not read|no tensors in it"):
        load_checkpoint(network(), path)
    assert not touched.exists()


def test_what_is_advised_keeps_the_tensors_alone(folder):
    path = saved(folder, {"model": network().state_dict(), "args": Touch(folder / "touched")})
    with pytest.raises(InputError) as refused:
        load_checkpoint(network(), path)
    command = keeping_command(path)
    assert command in str(refused.value)
    statements = command.partition('"')[2].rstrip('"')
    exec(statements)  # noqa: S102 - as `python -c` would, without starting one
    load_checkpoint(network(), path)
