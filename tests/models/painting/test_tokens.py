import threading
from pathlib import Path

import pytest

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
