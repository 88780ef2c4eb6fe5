import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from models.miniature.tokens import write_tokenizer
from models.student.text_embeddings import TextEncoder, embed_phrases, load_embeddings
from storage.errors import InputError
from storage.vocabulary import text_templates

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_tokenizer(folder, ["a", "photo", "of", "cat", "bus"], 40)
    ids = json.loads((folder / "vocab.json").read_text())
    text = {
        **{k: v for k, v in VISION.items() if k not in {"image_size", "patch_size"}},
        "vocab_size": len(ids),
        "max_position_embeddings": 40,
        "eos_token_id": ids["<|endoftext|>"],
    }
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))
    clip.save_pretrained(folder)
    return folder


def test_a_class_is_the_normalised_mean_of_its_templates_then_of_its_phrases(folder):
    encoder = TextEncoder.load(str(folder))
    found = embed_phrases(encoder, [("cat",), ("bus", "school bus")], "zegclip_multi15")
    rows = []
    for phrase in ("cat", "bus", "school bus"):
        texts = [t.replace("{}", phrase) for t in text_templates("zegclip_multi15")]
        one = torch.cat([encoder([text]) for text in texts])
        rows.append(F.normalize(one.mean(dim=0), dim=-1))
    expected = torch.stack([rows[0], F.normalize(rows[1] + rows[2], dim=-1)])
    torch.testing.assert_close(found, expected)


def test_rows_have_unit_length_and_do_not_depend_on_their_neighbours(folder):
    encoder = TextEncoder.load(str(folder))
    both = embed_phrases(encoder, [("cat",), ("a very long name of a thing",)], "single")
    alone = embed_phrases(encoder, [("cat",)], "single")
    torch.testing.assert_close(both.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(both[:1], alone)


def test_a_kept_table_is_read_and_a_damaged_one_made_again(folder, tmp_path):
    phrases = [("cat",), ("bus",)]
    first = load_embeddings(str(folder), None, phrases, "single", folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    stamp = kept.stat().st_mtime_ns
    assert torch.equal(
        first, load_embeddings(str(folder), None, phrases, "single", folder=tmp_path)
    )
    assert kept.stat().st_mtime_ns == stamp
    kept.write_bytes(kept.read_bytes()[:20])
    assert torch.equal(
        first, load_embeddings(str(folder), None, phrases, "single", folder=tmp_path)
    )
    assert kept.stat().st_size > 20


def test_other_phrases_or_templates_have_a_table_of_their_own(folder, tmp_path):
    load_embeddings(str(folder), None, [("cat",)], "single", folder=tmp_path)
    load_embeddings(str(folder), None, [("bus",)], "single", folder=tmp_path)
    load_embeddings(str(folder), None, [("cat",)], "imagenet80", folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_threads_that_make_one_table_at_once_all_get_it(folder, tmp_path):
    def load(_):
        return load_embeddings(str(folder), None, [("cat",), ("bus",)], "single", folder=tmp_path)

    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(load, range(8)))
    assert all(torch.equal(table, tables[0]) for table in tables)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_a_class_without_a_phrase_is_refused(folder):
    with pytest.raises(InputError, match="classes without a phrase: 1"):
        embed_phrases(TextEncoder.load(str(folder)), [("cat",), ()], "single")


def test_an_unknown_template_set_is_refused(folder):
    with pytest.raises(InputError, match="zegclip_multi15"):
        embed_phrases(TextEncoder.load(str(folder)), [("cat",)], "multi15")
