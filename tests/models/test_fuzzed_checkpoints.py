"""Damaged files of checkpoints: they load, or an error in words names the folder; soon."""

import json
import resource
import string

import pytest
from transformers import CLIPConfig, CLIPModel

from fuzzing import damaged, survives
from models.folders import require_complete
from models.processors import load_whole_tokenizer
from models.student.clip import load_clip
from models.weights import Weights

pytestmark = pytest.mark.timeout(580)


@pytest.fixture(params=[150, pytest.param(2000, marks=pytest.mark.fuzz)])
def rounds(request):
    """How many damaged files there are."""
    return request.param


def clip_folder(folder):
    side = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    side |= {"num_attention_heads": 2, "projection_dim": 8}
    text = {"vocab_size": 56, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(
        text_config={**side, **text, "pad_token_id": 1},
        vision_config={**side, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    words = ["<|startoftext|>", "<|endoftext|>"]
    words += [each for letter in string.ascii_lowercase for each in (letter, letter + "</w>")]
    words += ["ab</w>", "cd"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\nc d\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 20}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def clip(tmp_path):
    return clip_folder(tmp_path / "clip")


def load_whole(folder):
    require_complete(folder)
    load_clip(str(folder))


def load_words(kind):
    def load(folder):
        tokenizer = load_whole_tokenizer(Weights(str(folder), None), kind)
        tokenizer("a cat by the sea")

    return load


def fuzz(file, read, rounds):
    """Share of damaged files that were read; what is no error in words goes up."""
    whole = file.read_bytes()
    read(file.parent)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    for seed in range(rounds):
        file.write_bytes(damaged(whole, seed))
        count += survives(read, file.parent, named=file.name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kilobytes
    return count / rounds


def test_damaged_weights(clip, rounds):
    assert fuzz(clip / "model.safetensors", load_whole, rounds) < 0.9


@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "vocab_size"])
@pytest.mark.parametrize("value", [10**6, 10**12, 2**64])
def test_configurations_that_no_machine_could_build(clip, name, value):
    config = json.loads((clip / "config.json").read_text())
    config["text_config"][name] = value
    (clip / "config.json").write_text(json.dumps(config))
    assert not survives(load_whole, clip, named="config.json")


def test_damaged_configurations(clip, rounds):
    assert fuzz(clip / "config.json", load_whole, rounds) < 0.5


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_damaged_words(clip, name, rounds):
    assert fuzz(clip / name, load_words("CLIPTokenizer"), rounds) < 1


def test_damaged_words_in_one_file(clip, rounds):
    load_whole_tokenizer(Weights(str(clip), None), "CLIPTokenizer").save_pretrained(clip)
    assert (clip / "tokenizer.json").is_file()
    assert fuzz(clip / "tokenizer.json", load_words("CLIPTokenizer"), rounds) < 0.9


def test_damaged_words_of_a_detector(tmp_path, rounds):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, "cat", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    assert fuzz(tmp_path / "vocab.txt", load_words("BertTokenizer"), rounds) < 1
