"""What stands before a network: its tokenizer and its image processor, each by its class.

The libraries would choose classes by what else is installed: with torchvision, the same folder
gives an image processor that resizes a little otherwise. Named by class, they are the same
everywhere.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.folders import NETWORK_CONFIG, SENTENCEPIECE_FILES, require_vocabulary
from models.loading import importing
from models.weights import Weights, loading, require_marker, way_out
from storage.errors import InputError

_VOCABULARIES = "tokenizer_config.json, tokenizer.json, vocab.json, merges.txt or vocab.txt"
_UNKNOWN = "a \u2603"
_FAST = {
    "CLIPTokenizer": "CLIPTokenizerFast",
    "BertTokenizer": "BertTokenizerFast",
    "GemmaTokenizer": "GemmaTokenizerFast",
    "Qwen2Tokenizer": "Qwen2TokenizerFast",
    "T5Tokenizer": "T5TokenizerFast",
}


def load_whole_tokenizer(
    weights: Weights, name: str, *, part: str = "", marker: str = NETWORK_CONFIG
) -> Any:
    """Load a tokenizer with all of its words.

    Args:
        weights: Where its files are.
        name: Its class in transformers; of two ways to compute it the fast one is taken.
        part: Its folder in a pipeline; empty beside a network.
        marker: The small file at the root of the checkpoint.

    Raises:
        InputError: If its class is unknown or its vocabulary is missing or damaged.
    """
    if weights.folder is not None:
        require_vocabulary(weights.folder / part)
        _require_reader(weights.folder / part)
    name = _FAST.get(name, name)
    with importing():
        import transformers

        kind = getattr(transformers, name, None)
    if kind is None:
        message = f"tokenizer {name!r} of {weights.source!r} is no class of transformers"
        raise InputError(message)
    options = {**weights.options, "subfolder": part} if part else weights.options
    with loading(weights, part or "tokenizer", _VOCABULARIES):
        tokenizer = kind.from_pretrained(weights.source, **options)
        tokenizer(_UNKNOWN)  # some vocabularies only fail when they meet what they do not know
    if weights.folder is None:
        require_vocabulary(require_marker(weights, marker).parent / part)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # Without its files the class makes an empty tokenizer instead of an error.
        message = (
            f"weights in {weights.source!r} have no words in their tokenizer ({_VOCABULARIES}), "
            f"expected its vocabulary; {way_out(weights)}"
        )
        raise InputError(message)
    return tokenizer


def _require_reader(folder: Path) -> None:
    """Refuse a vocabulary that nothing here reads: the libraries would name another package."""
    names = {path.name for path in folder.iterdir()}
    if names & SENTENCEPIECE_FILES and "tokenizer.json" not in names and not _reads_sentencepiece():
        message = (
            f"folder {str(folder)!r} has its vocabulary in {min(names & SENTENCEPIECE_FILES)} "
            "alone, expected tokenizer.json or the package that reads such a file; "
            "run `pip install sentencepiece`"
        )
        raise InputError(message)


def _reads_sentencepiece() -> bool:
    return find_spec("sentencepiece") is not None


def require_fit(tokenizer: Any, rows: int, weights: Weights) -> None:
    """Check that a network has a vector for each word of its tokenizer.

    Args:
        tokenizer: The tokenizer.
        rows: How many words the network knows.
        weights: Where both come from.

    Raises:
        InputError: If a word has a number beyond the network's table.
    """
    word, number = max(tokenizer.get_vocab().items(), key=lambda each: each[1])
    if number >= rows:
        message = (
            f"weights in {weights.source!r} have {rows} words, but their tokenizer has {word!r} "
            f"with the number {number}; {way_out(weights)}"
        )
        raise InputError(message)


def load_image_processor(weights: Weights, name: str, *, part: str = "") -> Any:
    """Load an image processor that computes with Pillow and numpy.

    Args:
        weights: Where its file is.
        name: Its class in transformers 4; that of transformers 5 has `Pil` at its end.
        part: Its folder in a pipeline; empty beside a network.

    Raises:
        InputError: If its file is missing or damaged.
    """
    options = {**weights.options, "subfolder": part} if part else weights.options
    with loading(weights, part or "image processor", "preprocessor_config.json"):
        return image_processor_class(name).from_pretrained(weights.source, **options)


def image_processor_class(name: str) -> Any:
    """The class that computes with Pillow and numpy.

    Args:
        name: Its name in transformers 4; that of transformers 5 has `Pil` at its end.
    """
    import transformers

    pinned = f"{name}Pil"
    return getattr(transformers, pinned if hasattr(transformers, pinned) else name)
