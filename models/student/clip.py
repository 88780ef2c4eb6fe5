"""CLIP from a hub id or a folder: the frozen network and the tokenizer beside it."""

from transformers import CLIPModel, PreTrainedTokenizerBase

from models import processors
from models.networks import load_network
from models.weights import resolve_weights


def load_clip(model: str, revision: str | None = None) -> CLIPModel:
    """Load a CLIP in float32.

    Args:
        model: Hub id, path of a folder, or `weights:<name>`.
        revision: Commit or tag of a hub id.

    Raises:
        InputError: If the weights are missing, damaged or not those of a CLIP.
    """
    weights = resolve_weights(model, revision)
    return load_network(CLIPModel, weights, model_type="clip", dtype="float32")


def load_tokenizer(model: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a CLIP.

    Args:
        model: Hub id, path of a folder, or `weights:<name>`.
        revision: Commit or tag of a hub id.

    Raises:
        InputError: If its files are missing.
    """
    return processors.load_whole_tokenizer(resolve_weights(model, revision), "CLIPTokenizer")
