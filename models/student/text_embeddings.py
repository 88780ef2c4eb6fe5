"""Class names as unit vectors of CLIP's joint space, averaged over templates and phrases."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, PreTrainedTokenizerBase

from models.processors import require_fit
from models.student.clip import load_clip, load_tokenizer
from models.weights import resolve_weights, weights_identity
from storage.errors import InputError
from storage.files import whole_file
from storage.identity import digest
from storage.vocabulary import text_templates

__all__ = ["TextEmbedder", "TextEncoder", "embed_phrases"]

_log = logging.getLogger(__name__)

TextEmbedder = Callable[[Sequence[str]], Float[Tensor, "texts embed"]]
"""What gives each text a unit vector: a `TextEncoder`, for one."""

_BATCH = 256


class TextEncoder(nn.Module):
    """The text tower of a CLIP with its tokenizer, frozen.

    Args:
        clip: Any transformers CLIP.
        tokenizer: Its tokenizer.
    """

    def __init__(self, clip: CLIPModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.text = clip.text_model
        self.projection = clip.text_projection
        self.tokenizer = tokenizer
        self.requires_grad_(requires_grad=False).eval()

    @classmethod
    def load(cls, clip: str, revision: str | None = None) -> Self:
        """Load the text tower of a CLIP given by hub id, folder or `weights:` name.

        Raises:
            InputError: If the weights are not there.
        """
        network, tokenizer = load_clip(clip, revision), load_tokenizer(clip, revision)
        config: Any = network.config
        rows = config.text_config.vocab_size
        require_fit(tokenizer, rows, resolve_weights(clip, revision))
        return cls(network, tokenizer)

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Float[Tensor, "texts embed"]:
        """Embed texts as unit vectors; what exceeds the tower's length is cut off."""
        length = self.text.config.max_position_embeddings
        device = self.projection.weight.device
        rows = []
        for start in range(0, len(texts), _BATCH):
            tokens = self.tokenizer(
                list(texts[start : start + _BATCH]),
                padding=True,
                truncation=True,
                max_length=length,
                return_tensors="pt",
            ).to(device)
            pooled = self.text(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            rows.append(F.normalize(self.projection(pooled), dim=-1))
        return torch.cat(rows)


def embed_phrases(
    clip: TextEmbedder, phrases: Sequence[tuple[str, ...]], templates: str
) -> Float[Tensor, "classes embed"]:
    """Embed every class as one unit vector.

    A phrase is the normalised mean of its filled templates, each normalised before; a class is the
    normalised mean of its phrases.

    Args:
        clip: Text tower.
        phrases: Phrases of each class, at least one.
        templates: Name of a template set.

    Raises:
        InputError: If the set is unknown, a class has no phrase, or a vector is not finite.
    """
    empty = [str(i) for i, own in enumerate(phrases) if not own]
    if empty or not phrases:
        message = f"classes without a phrase: {', '.join(empty) or 'all'}; give each at least one"
        raise InputError(message)
    filled = text_templates(templates)
    unique = list(dict.fromkeys(phrase for own in phrases for phrase in own))
    texts = [template.replace("{}", phrase) for phrase in unique for template in filled]
    means = clip(texts).unflatten(0, (len(unique), len(filled))).mean(dim=1)
    rows = dict(zip(unique, F.normalize(means, dim=-1), strict=True))
    classes = [torch.stack([rows[phrase] for phrase in own]).mean(dim=0) for own in phrases]
    table = F.normalize(torch.stack(classes), dim=-1)
    if not table.isfinite().all():
        message = (
            "the text vectors of the student's CLIP are not finite (NaN or infinite), expected "
            "unit vectors: its weights are damaged, download them again"
        )
        raise InputError(message)
    return table


def load_embeddings(
    clip: str,
    revision: str | None,
    phrases: Sequence[tuple[str, ...]],
    templates: str,
    *,
    folder: Path | None = None,
) -> Float[Tensor, "classes embed"]:
    """Embed every class, or read what an earlier call with the same inputs has kept.

    Args:
        clip: Hub id, folder or `weights:` name of the CLIP.
        revision: Commit of the hub repository, or nothing.
        phrases: Phrases of each class.
        templates: Name of a template set.
        folder: Where tables are kept; None keeps none. A file that cannot be read is replaced.
    """
    if folder is None:
        return embed_phrases(TextEncoder.load(clip, revision), phrases, templates)
    inputs = {
        "clip": weights_identity(clip, revision),
        "phrases": [list(own) for own in phrases],
        "templates": list(text_templates(templates)),
    }
    path = folder / f"{digest(inputs)[:32]}.safetensors"
    kept = _read(path)
    if kept is not None:
        return kept
    table = embed_phrases(TextEncoder.load(clip, revision), phrases, templates)
    with whole_file(path) as place:
        save_file({"classes": table.contiguous()}, place)
    return table


def _read(path: Path) -> Tensor | None:
    if not path.exists():
        return None
    try:
        return load_file(path)["classes"]
    except (SafetensorError, KeyError) as error:
        _log.warning("%s cannot be read (%s) and is made again", path, error)
        return None
