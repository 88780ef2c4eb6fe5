import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.painting.tokens import PipelineTokens
from models.protocols import PairRequest
from storage.errors import InputError

LONG = " ".join("abcdefghijklmnopqrstuvwxyz")
COUNTS = 100_000


@pytest.fixture(scope="module")
def config(build_pipeline, tmp_path_factory):
    model = build_pipeline(tmp_path_factory.mktemp("painter"))
    return PainterConfig(model=str(model), device="cpu", steps=1, height=64, width=64, batch_size=1)


def test_tokens_are_counted_with_the_text_encoders_own_tokenizer(config):
    tokens = PipelineTokens(config)
    assert tokens.max_tokens == 20
    assert tokens.count_tokens("a b c") == 5
    assert tokens.count_tokens(LONG) == 28


@pytest.mark.slow
def test_counting_beside_painting_is_never_wrong_and_disturbs_no_painting(config):
    """A fast tokenizer keeps truncation as state, which painting sets and counting must not see."""
    tokens, painter = PipelineTokens(config), DiffusionPairPainter(config)
    request = PairRequest(LONG, "a b", 1)
    over = threading.Event()
    failures, painted = [], []

    def paint():
        while not over.is_set():
            try:
                painted.append(painter.paint([request])[0].image.tobytes())
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells
                failures.append(error)
                return

    thread = threading.Thread(target=paint)
    thread.start()
    try:
        counts = {tokens.count_tokens(LONG) for _ in range(COUNTS)}
    finally:
        over.set()
        thread.join()
    assert counts == {28}
    assert not failures
    assert len(set(painted)) == 1


def test_tokens_need_no_weights_of_the_painter(config, build_pipeline, tmp_path):
    model = Path(build_pipeline(tmp_path / "bare"))
    for part in ("unet", "vae"):
        for file in (model / part).iterdir():
            file.unlink()
    bare = config.model_copy(update={"model": str(model)})
    assert PipelineTokens(bare).count_tokens(LONG) == 28


def test_a_painter_without_tokenizer_is_refused(config, build_pipeline, tmp_path):
    model = Path(build_pipeline(tmp_path / "none"))
    for file in (model / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"no words in its tokenizer|cannot be loaded"):
        PipelineTokens(config.model_copy(update={"model": str(model)}))


def read(painter, text):
    """What the network is given of a text."""
    given = painter._texts.arguments([text])
    return {name: each for name, each in given.items() if "prompt" in name and each is not None}


def are_equal(first, second):
    return all(
        torch.equal(a, b)
        for name in first
        for a, b in zip(first[name], second[name], strict=True)
        if a.shape == b.shape
    ) and all(first[name][0].shape == second[name][0].shape for name in first)


READERS = [
    ("StableDiffusionPipeline", None, 20),
    ("StableDiffusionXLPipeline", None, 20),
    ("StableDiffusion3Pipeline", None, 256),
    ("StableDiffusion3Pipeline", 300, 300),
    ("FluxPipeline", 64, 64),
    ("PixArtAlphaPipeline", None, 120),
    ("PixArtSigmaPipeline", None, 300),
    ("SanaPipeline", None, 300),
    ("ZImagePipeline", 64, 64),
]


@pytest.mark.parametrize(("name", "asked", "longest"), READERS)
def test_a_text_that_is_not_too_long_is_read_to_its_last_word(saved_family, name, asked, longest):
    settings = PainterConfig(
        model=saved_family(name), device="cpu", text_tokens=asked, height=32, width=32
    )
    tokens, painter = PipelineTokens(settings), DiffusionPairPainter(settings)
    assert tokens.max_tokens == longest
    words = longest
    while tokens.count_tokens("b" * words + "b") > longest:
        words -= 1
    assert tokens.count_tokens("b" * words + "b") == longest
    assert not are_equal(read(painter, "b" * words + "b"), read(painter, "b" * words + "x"))
    if name != "ZImagePipeline":  # there the end of the turn is cut before the text
        words += 1
        assert are_equal(read(painter, "b" * words + "b"), read(painter, "b" * words + "x"))


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("StableDiffusionXLPipeline", 64, "none: CLIP reads what it was made for"),
        ("FluxPipeline", 513, "at most 512"),
    ],
)
def test_a_painter_that_cannot_read_as_much_says_so(saved_family, name, asked, words):
    settings = PainterConfig(
        model=saved_family(name), device="cpu", text_tokens=asked, height=32, width=32
    )
    for ask in (PipelineTokens, DiffusionPairPainter, PainterConfig.check):
        with pytest.raises(InputError, match=f"read {asked} tokens of a text, expected {words}"):
            ask(settings)


def test_without_its_largest_encoder_stable_diffusion_3_reads_as_much_as_clip(
    build_family, tmp_path
):
    def without(parts):
        parts |= {"text_encoder_3": None, "tokenizer_3": None}

    model = build_family("StableDiffusion3Pipeline", tmp_path, change=without)
    assert PipelineTokens(PainterConfig(model=model)).max_tokens == 20


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="here it can be read")
def test_a_vocabulary_that_only_sentencepiece_reads_is_told_with_the_command(
    build_family, tmp_path
):
    settings = PainterConfig(model=build_family("PixArtSigmaPipeline", tmp_path))
    (tmp_path / "tokenizer" / "tokenizer.json").rename(tmp_path / "tokenizer" / "spiece.model")
    settings.identity()  # it can be named where it cannot be read
    with pytest.raises(InputError, match=r"in spiece\.model alone.*`pip install sentencepiece`"):
        PipelineTokens(settings)
