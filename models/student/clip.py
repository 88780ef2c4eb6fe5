"""CLIP from a hub id or a folder: the frozen network and the tokenizer beside it."""

from transformers import CLIPModel, CLIPTokenizer, PreTrainedTokenizerBase

from models.networks import load_network
from models.weights import loading, resolve_weights


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
    weights = resolve_weights(model, revision)
    with loading(weights):
        return CLIPTokenizer.from_pretrained(weights.source, **weights.options)
