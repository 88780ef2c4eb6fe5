"""Class names of published works, several names for a class, and background words."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from evaluation.scoring.config import SeveralPhrases, TextConfig
from evaluation.scoring.phrases import background_words, class_phrases, text_rows, text_words
from storage.class_sets import load_benchmark
from storage.errors import InputError

VOC = load_benchmark("voc21")


class LetterEncoder:
    """Embeds a text by what it starts with and how long it is."""

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        bare = [text.removeprefix("a photo of a ") for text in texts]
        rows = [[ord(text[0]) - 96, len(text), 1.0] for text in bare]
        return F.normalize(torch.tensor(rows), dim=-1)


ENCODER = LetterEncoder()


def embed(phrase: str) -> torch.Tensor:
    return LetterEncoder()([f"a photo of a {phrase}."])[0]


def test_the_names_of_a_work_replace_official_ones_where_it_renames_them() -> None:
    names = dict(zip(VOC.names, class_phrases(VOC, "groupvit"), strict=True))
    assert names["diningtable"] == ("table",)
    assert names["tvmonitor"] == ("monitor",)
    assert names["aeroplane"] == ("aeroplane",)
    names = dict(zip(VOC.names, class_phrases(VOC, "sclip"), strict=True))
    assert names["boat"] == ("ship",)
    assert len(names["person"]) == 7
    assert names["tvmonitor"][0] == "television monitor"
    assert class_phrases(VOC, "official") == tuple((name,) for name in VOC.names)
    assert class_phrases(VOC, "preferred") == VOC.phrases


def test_a_work_may_rename_a_class_on_one_benchmark_only() -> None:
    context = load_benchmark("context60")
    names = dict(zip(context.names, class_phrases(context, "groupvit"), strict=True))
    assert names["aeroplane"] == ("airplane",)
    coco = load_benchmark("coco_object")
    names = dict(zip(coco.names, class_phrases(coco, "sclip"), strict=True))
    assert names["person"][-1] == "body"


def test_names_that_nobody_used_on_a_benchmark_are_refused() -> None:
    with pytest.raises(InputError, match=r"no list of names 'groupvitt' for voc21; did you mean"):
        class_phrases(VOC, "groupvitt")
    with pytest.raises(InputError, match=r"no list of names 'sclip' for miniature; .*preferred"):
        class_phrases(load_benchmark("miniature"), "sclip")


def test_background_words_are_named_lists() -> None:
    assert background_words("background") == ("background",)
    assert background_words("sclip")[:3] == ("sky", "wall", "tree")
    with pytest.raises(InputError, match="no list of background words 'stuff'"):
        background_words("stuff")


def test_several_phrases_are_read_first_averaged_or_apart() -> None:
    phrases = [("person", "man"), ("bus",)]
    first = text_rows(ENCODER, phrases, (), TextConfig(templates="single"))
    assert first.owners == (0, 1)
    torch.testing.assert_close(first.embeddings[0], embed("person"))
    config = TextConfig(templates="single", several=SeveralPhrases.AVERAGE)
    average = text_rows(ENCODER, phrases, (), config)
    expected = F.normalize((embed("person") + embed("man")) / 2, dim=0)
    torch.testing.assert_close(average.embeddings[0], expected)
    torch.testing.assert_close(average.embeddings[1], embed("bus"))
    config = TextConfig(templates="single", several=SeveralPhrases.BEST)
    apart = text_rows(ENCODER, phrases, ("sky", "wall"), config)
    assert apart.owners == (-1, -1, 0, 0, 1)
    rows = [embed(each) for each in ("sky", "wall", "person", "man", "bus")]
    torch.testing.assert_close(apart.embeddings, torch.stack(rows))


def test_the_text_is_said_in_words() -> None:
    assert text_words(TextConfig(), words=False) == (
        "preferred names in the templates zegclip_multi15"
    )
    config = TextConfig(
        names="sclip", several=SeveralPhrases.BEST, background_words="sclip", templates="imagenet80"
    )
    assert text_words(config, words=True) == (
        "names as sclip has them, the best of several for each pixel in the templates imagenet80; "
        "background words: sclip (26)"
    )
