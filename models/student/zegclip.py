"""The student: ZegCLIP (CVPR 2023) on the image tower of a frozen CLIP.

Deep visual prompts tune the tower, a relationship descriptor makes one query a class from the text
vector and the image's CLS vector, and a light decoder of cross-attention layers scores every patch
for every query. No parameter belongs to a class, so that any list of names works at test time.

In the comments below B is the batch, P the patches of an image on their (h, w) grid, and T = 1 + P
its tokens, CLS first.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPVisionModelWithProjection

from models.compiling import Compiled
from models.student import upstream
from models.student.clip import load_clip
from models.student.config import CHANNELS, StudentConfig
from models.student.decoder import MaskDecoder, merge_heads, split_heads
from storage.errors import InputError


class ZegClip(nn.Module):
    """Open-vocabulary segmenter over a frozen CLIP image tower.

    Args:
        clip: Any transformers CLIP with a ViT image tower; its image part is taken and frozen.
        config: Geometry of the parts that learn.

    Raises:
        InputError: If the image size is not a multiple of the tower's patch size.
    """

    def __init__(
        self, clip: CLIPModel | CLIPVisionModelWithProjection, config: StudentConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.vision = clip.vision_model.requires_grad_(requires_grad=False)
        self.projection = clip.visual_projection.requires_grad_(requires_grad=False)
        tower: Any = self.vision.config
        self.patch_size = int(tower.patch_size)
        self.embed_width = int(self.projection.out_features)
        if config.image_size % self.patch_size:
            message = (
                f"image_size is {config.image_size}, expected a multiple of CLIP's patch size"
                f" {self.patch_size}: change the student's image_size"
            )
            raise InputError(message)
        width, depth = int(tower.hidden_size), int(tower.num_hidden_layers)
        self.prompts = nn.Parameter(torch.empty(depth, config.num_prompt_tokens, width))
        self.prompt_projection = nn.Linear(width, width)
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6)
        self.prompt_dropout = nn.Dropout(config.prompt_dropout)
        self.decoder = MaskDecoder(self.embed_width, config)
        # Upstream resizes the position grid to the training size once, then to each input's size.
        side = config.image_size // self.patch_size
        positions = _resized_positions(self.vision.embeddings.position_embedding.weight, side, side)
        self.register_buffer("positions", positions.detach(), persistent=False)
        self.positions: Tensor
        mean, deviation = torch.tensor(CHANNELS[config.normalisation])[..., None, None]
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        self.mean: Tensor
        self.deviation: Tensor
        self._initialise_prompts()
        self._block: Callable[..., Tensor] = _block

    @classmethod
    def from_config(cls, config: StudentConfig) -> Self:
        """Build a student with fresh trainable weights on the CLIP that the config names.

        Raises:
            InputError: If CLIP's weights are not there.
        """
        return cls(load_clip(config.clip, config.revision), config)

    @classmethod
    def from_upstream(
        cls,
        state_dict: Mapping[str, Tensor],
        *,
        image_size: int,
        patch_size: int,
        vision_heads: int,
        decoder_heads: int,
    ) -> Self:
        """Build a student from the state dict of a released ZegCLIP checkpoint.

        Widths and depths are read from the shapes. What upstream stores without using it (the
        decoder's self-attention, the last layer's values) and buffers are named in the log.

        Args:
            state_dict: Names and shapes as the released code saves them; the prefixes `module.` and
                `_orig_mod.` of wrappers do not count.
            image_size: Training crop in pixels, to which the position grid belongs.
            patch_size: Side of a patch in pixels.
            vision_heads: Attention heads of the image tower.
            decoder_heads: Attention heads of the decoder.

        Raises:
            InputError: If a weight is missing or has another shape than the rest implies.
        """
        state_dict = upstream.unwrapped(state_dict)
        tower = upstream.tower_config(
            state_dict, image_size=image_size, patch_size=patch_size, heads=vision_heads
        )
        config = StudentConfig(
            clip="a released ZegCLIP checkpoint",
            normalisation="imagenet",
            image_size=image_size,
            num_prompt_tokens=upstream.entry(state_dict, "backbone.prompt_embeddings").shape[1],
            decoder_layers=upstream.count_layers(state_dict, "decode_head.decoder_1.layers."),
            decoder_heads=decoder_heads,
            class_embedding_twice=True,
        )
        student = cls(CLIPVisionModelWithProjection(tower), config)
        shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
        student.load_state_dict(upstream.convert(state_dict, shapes))
        student.positions = upstream.entry(state_dict, "backbone.positional_embedding").float()
        return student.eval()

    def train(self, mode: bool = True) -> Self:
        """Switch dropout of the trainable parts; the frozen tower stays in evaluation mode."""
        super().train(mode)
        self.vision.eval()
        return self

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and tensors of the parameters that learn, in a fixed order."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def compile_layers(self) -> None:
        """Let the tower's layers be compiled when images of a size are first encoded."""
        self._block = Compiled(_block, "the student's layers")

    def normalise(
        self, pixels: UInt8[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Turn RGB levels 0..255 into what `encode` and `forward` take."""
        return (pixels / 255.0 - self.mean) / self.deviation

    def encode(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch embed h w"], Float[Tensor, "batch embed"]]:
        """Embed patches and the whole image in CLIP's joint space.

        Args:
            image: Normalised RGB. Pixels beyond the last whole patch are not seen.

        Returns:
            Patch map and CLS vector, both of unit length along the embedding.

        Raises:
            InputError: If the image is smaller than one patch.
        """
        tokens, grid = self._embed(image)
        for layer, prompts in self._layers():
            tokens = self._block(layer, tokens, self._project(prompts, len(image)))
        return self._joint(tokens, grid)

    def encode_pair(
        self,
        image: Float[Tensor, "batch 3 height width"],
        counterfactual: Float[Tensor, "pairs 3 height width"],
    ) -> tuple[
        Float[Tensor, "batch embed h w"], Float[Tensor, "batch embed"], Float[Tensor, "pairs embed"]
    ]:
        """Embed images with their patches, and the CLS alone of counterfactuals of some of them.

        Both go through the tower together; its last layer computes nothing that is not asked for.

        Returns:
            Patch map and CLS vector of the images, and CLS vector of the counterfactuals.
        """
        count, both = len(image), len(image) + len(counterfactual)
        tokens, grid = self._embed(torch.cat([image, counterfactual]))  # (B + P, T, width)
        *early, (layer, prompts) = self._layers()
        for early_layer, early_prompts in early:
            tokens = self._block(early_layer, tokens, self._project(early_prompts, both))
        projected = self._project(prompts, both)
        patches, cls = self._joint(self._block(layer, tokens[:count], projected[:count]), grid)
        # Of the counterfactual only the CLS token is wanted, so that it alone asks: (P, 1, width).
        last = self._block(layer, tokens[count:], projected[count:], num_queries=1)
        return patches, cls, self._joint(last, (0, 0))[1]

    def scores(
        self,
        patches: Float[Tensor, "batch embed h w"],
        cls: Float[Tensor, "batch embed"],
        text: Float[Tensor, "... classes embed"],
    ) -> Float[Tensor, "batch classes h w"]:
        """Compute mask logits on the patch grid; `text` may be one table or one an image."""
        return self.decoder(patches, cls, text)

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        text: Float[Tensor, "... classes embed"],
    ) -> Float[Tensor, "batch classes height width"]:
        """Compute mask logits at the size of the input.

        Args:
            image: Normalised RGB.
            text: Unit text vectors, (classes, embed) or (batch, classes, embed).

        Returns:
            Logits whose sigmoid is the probability that the class covers the pixel.
        """
        low = self.scores(*self.encode(image), text)
        return F.interpolate(low, size=image.shape[2:], mode="bilinear", align_corners=False)

    def _embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens before the first layer, and the patch grid."""
        height, width = image.shape[2:]
        if min(height, width) < self.patch_size:
            message = (
                f"the image is {height} x {width} pixels, expected at least one patch of "
                f"{self.patch_size} pixels: enlarge it"
            )
            raise InputError(message)
        embeddings = self.vision.embeddings
        patches = embeddings.patch_embedding(image)  # (B, width, h, w)
        grid = (patches.shape[2], patches.shape[3])
        cls = embeddings.class_embedding.expand(len(image), 1, -1)  # (B, 1, width)
        tokens = torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)  # (B, T, width)
        positions = _resized_positions(self.positions, *grid)  # (T, width)
        if self.config.class_embedding_twice:
            first = positions[:1] + embeddings.class_embedding
            positions = torch.cat([first, positions[1:]])
        return self.vision.pre_layrnorm(tokens + positions), grid

    def _layers(self) -> list[tuple[Any, Tensor]]:
        """The tower's layers, each with its own prompts."""
        return list(zip(self.vision.encoder.layers, self.prompts, strict=True))

    def _joint(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Patch map and CLS vector in the joint space, from the tokens after the last layer."""
        tokens = self.vision.post_layernorm(self.prompt_norm(tokens))
        tokens = F.normalize(self.projection(tokens), dim=-1)  # (B, T, width) -> (B, T, embed)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, grid), tokens[:, 0]  # (B, embed, h, w)

    def _project(self, prompts: Tensor, batch: int) -> Tensor:
        """One layer's prompts for every image; dropout differs from image to image."""
        return self.prompt_dropout(self.prompt_projection(prompts).expand(batch, -1, -1))

    def _initialise_prompts(self) -> None:
        width = self.prompts.shape[2]
        bound = math.sqrt(6.0 / (3 * self.patch_size**2 + width))
        nn.init.uniform_(self.prompts, -bound, bound)
        nn.init.kaiming_normal_(self.prompt_projection.weight, mode="fan_out")


def _block(
    layer: Any, tokens: Tensor, prompts: Tensor, *, num_queries: int | None = None
) -> Tensor:
    """One transformer layer of CLIP with prompts.

    The tower overwrites the prompt positions before the next layer and drops them after the last,
    so prompts only ever act as keys and values: they need no query and no feed-forward.

    Args:
        layer: A layer of the tower.
        tokens: CLS and patches, (batch, tokens, width).
        prompts: The layer's prompts for each image, (batch, prompts, width).
        num_queries: How many of the first tokens are wanted; None means all.
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(tokens)  # (B, T, width)
    context = torch.cat([normed, layer.layer_norm1(prompts)], dim=1)  # (B, T + prompts, width)
    # (B, heads, queries, width / heads), and twice (B, heads, T + prompts, width / heads)
    q, k, v = (
        split_heads(project(x), attention.num_heads)
        for project, x in (
            (attention.q_proj, normed[:, :num_queries]),
            (attention.k_proj, context),
            (attention.v_proj, context),
        )
    )
    tokens = tokens[:, :num_queries]
    tokens = tokens + attention.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
    return tokens + layer.mlp(layer.layer_norm2(tokens))


def _resized_positions(positions: Tensor, height: int, width: int) -> Tensor:
    """Position table (1 + h * w, channels) for another grid; the CLS row is kept as it is."""
    side = math.isqrt(len(positions) - 1)
    if (height, width) == (side, side):
        return positions
    grid = positions[1:].T.unflatten(1, (side, side))[None]  # (1, channels, side, side)
    resized = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).T])  # (1 + height * width, channels)
