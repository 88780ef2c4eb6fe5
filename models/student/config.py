"""Settings of the student; nothing here needs torch."""

from typing import Literal

from pydantic import BaseModel, Field

from models.folders import NETWORK_CONFIG
from models.weights import require_weights_of, resolve_weights

CHANNELS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class StudentConfig(
    BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
):
    """Geometry of the student; the defaults are those of the released ZegCLIP for PASCAL VOC."""

    clip: str
    """Frozen CLIP: hub id, folder, or `weights:clip` for the one that ships with the engine."""
    revision: str | None = None
    """Commit of the hub repository; needed for a hub id, unused for a folder."""
    image_size: int = Field(default=512, gt=0)
    """Side of the square training crop in pixels; a multiple of CLIP's patch size."""
    normalisation: Literal["clip", "imagenet"] = "clip"
    """Mean and deviation of the input: CLIP's own, or ImageNet's as the released code has it."""
    num_prompt_tokens: int = Field(default=10, gt=0)
    """Visual prompt tokens of every layer (10 for VOC and MagicSeg, 100 for COCO upstream)."""
    prompt_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts' channels dropped while training."""
    decoder_layers: int = Field(default=3, gt=0)
    """Cross-attention layers; the scores of the last one are the mask logits."""
    decoder_heads: int = Field(default=8, gt=0)
    """Attention heads of the decoder."""
    decoder_width: int | None = Field(default=None, gt=0)
    """Channels of the queries; empty means CLIP's embedding width, as upstream."""
    decoder_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the decoder's attention, feed-forward and residual branches."""
    class_embedding_twice: bool = False
    """Add CLIP's class embedding a second time with its position, as upstream weights expect."""
    decoder_init: Literal["independent", "identical", "similarity"] = "independent"
    """How the decoder starts: every layer by itself; all layers with the same weights, as upstream
    does by copying one; or so that the first logits are the likeness of patch and class text in
    CLIP's space, from which a short training on little data gets much further."""
    similarity_scale: float = Field(default=10.0, gt=0)
    """First logit of a patch that equals its class text, under the third way to start."""

    def check(self) -> str:
        """Look for CLIP's weights without loading them; say where they are.

        Raises:
            InputError: If they are missing; says what to download and where to put it.
        """
        weights = resolve_weights(self.clip, self.revision)
        return f"{self.clip} in {require_weights_of(weights, NETWORK_CONFIG, frozenset())}"

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """RGB levels that come nearest to 0 after normalisation."""
        red, green, blue = (round(255 * mean) for mean in CHANNELS[self.normalisation][0])
        return red, green, blue
