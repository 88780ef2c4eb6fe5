"""The student's decoder: one query a class, scored against every patch.

In the comments below B is the batch, Q the classes, and P the patches of an image.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from models.student.config import StudentConfig
from storage.errors import InputError

_FIRST_CHANGE = 0.1


class CrossAttention(nn.Module):
    """Multi-head attention from queries to patches, with separate projections.

    Args:
        width: Channels of the queries.
        memory_width: Channels of the patches.
        heads: Attention heads; divides `width`.
        dropout: Share of attention weights dropped while training.
    """

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_width, width)
        self.value = nn.Linear(memory_width, width)
        self.output = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "batch classes width"],
        memory: Float[Tensor, "batch patches memory"],
    ) -> Float[Tensor, "batch classes width"]:
        """Mix the memory's values by the queries' softmax scores."""
        # (B, Q, width) and (B, P, memory) -> (B, heads, Q or P, width / heads)
        q, k, v = (
            split_heads(project(tokens), self.heads)
            for project, tokens in (
                (self.query, queries),
                (self.key, memory),
                (self.value, memory),
            )
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.output(merge_heads(mixed))  # (B, heads, Q, width / heads) -> (B, Q, width)


class DecoderLayer(nn.Module):
    """Cross-attention and feed-forward with norms behind the residuals, and no self-attention.

    Classes never look at each other, which keeps the vocabulary open (ZegCLIP section 3).

    Args:
        width: Channels of the queries.
        memory_width: Channels of the patches.
        heads: Attention heads.
        dropout: Share dropped in every branch while training.
    """

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = CrossAttention(width, memory_width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "batch classes width"],
        memory: Float[Tensor, "batch patches memory"],
    ) -> Float[Tensor, "batch classes width"]:
        """Refine the queries by what the patches hold."""
        attended = self.dropout(self.attention(queries, memory))  # (B, Q, width)
        queries = self.attention_norm(queries + attended)
        hidden = self.dropout(F.relu(self.expand(queries)))  # (B, Q, 4 * width)
        return self.feedforward_norm(queries + self.dropout(self.contract(hidden)))


class ScoreLayer(nn.Module):
    """The part of the last decoder layer that has an effect: its scaled scores before softmax.

    Args:
        width: Channels of the queries.
        memory_width: Channels of the patches.
        heads: Attention heads, over which the scores are averaged.
    """

    def __init__(self, width: int, memory_width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_width, width)
        # The mean over heads of q.k / sqrt(width / heads) is one inner product over all channels.
        self.scale = 1.0 / (heads * math.sqrt(width / heads))

    def forward(
        self,
        queries: Float[Tensor, "batch classes width"],
        memory: Float[Tensor, "batch patches memory"],
    ) -> Float[Tensor, "batch classes patches"]:
        """Score every patch for every query."""
        # (B, Q, width) (B, width, P) -> (B, Q, P)
        return self.query(queries) @ self.key(memory).transpose(1, 2) * self.scale


class MaskDecoder(nn.Module):
    """Relationship descriptor, decoder layers and the scoring layer.

    Args:
        embed_width: Width of CLIP's joint space.
        config: Geometry.

    Raises:
        InputError: If the heads do not divide the width.
    """

    def __init__(self, embed_width: int, config: StudentConfig) -> None:
        super().__init__()
        width = config.decoder_width or embed_width
        heads = config.decoder_heads
        if width % heads:
            message = (
                f"the decoder is {width} wide, which {heads} heads do not divide evenly: change "
            )
            raise InputError(message + "decoder_heads or decoder_width")
        self.descriptor = nn.Linear(2 * embed_width, width)
        self.layers = nn.ModuleList(
            DecoderLayer(width, embed_width, heads, config.decoder_dropout)
            for _ in range(config.decoder_layers - 1)
        )
        self.scores = ScoreLayer(width, embed_width, heads)
        if config.decoder_init == "identical":
            self._copy_first_layer()
        if config.decoder_init == "similarity":
            self._start_from_similarity(config.similarity_scale)

    def forward(
        self,
        patches: Float[Tensor, "batch embed h w"],
        cls: Float[Tensor, "batch embed"],
        text: Float[Tensor, "... classes embed"],
    ) -> Float[Tensor, "batch classes h w"]:
        """Score the patches for all classes."""
        text = text if text.ndim == 3 else text.expand(len(cls), *text.shape)  # (B, Q, embed)
        # ZegCLIP's relationship descriptor: image times text, beside the text itself.
        described = torch.cat([cls[:, None] * text, text], dim=-1)  # (B, Q, 2 * embed)
        queries = self.descriptor(described)  # (B, Q, width)
        memory = patches.flatten(2).transpose(1, 2)  # (B, embed, h, w) -> (B, P = h * w, embed)
        for layer in self.layers:
            queries = layer(queries, memory)
        scores = self.scores(queries, memory)  # (B, Q, P)
        return scores.unflatten(2, patches.shape[2:])  # (B, Q, h, w)

    @torch.no_grad()
    def _copy_first_layer(self) -> None:
        for layer in self.layers[1:]:
            layer.load_state_dict(self.layers[0].state_dict())
        for layer in self.layers[:1]:
            attention = layer.get_submodule("attention")
            for name in ("query", "key"):
                own = attention.get_submodule(name).state_dict()
                self.scores.get_submodule(name).load_state_dict(own)

    @torch.no_grad()
    def _start_from_similarity(self, scale: float) -> None:
        """Let queries be texts, layers change them little, and the last layer compare them."""
        width, embed = self.descriptor.out_features, self.scores.key.in_features
        if width != embed:
            message = (
                f"the decoder is {width} wide and CLIP's space {embed}; decoder_init "
                "'similarity' needs them equal: leave decoder_width out"
            )
            raise InputError(message)
        identity = torch.eye(width)
        self.descriptor.weight.copy_(torch.cat([torch.zeros_like(identity), identity], dim=1))
        self.descriptor.bias.zero_()
        for layer in self.layers:
            for name in ("attention.output", "contract"):
                for tensor in layer.get_submodule(name).parameters():
                    tensor *= _FIRST_CHANGE
        # A unit text has length sqrt(width) behind the norm of a layer, and 1 without one.
        length = math.sqrt(width) if len(self.layers) else 1.0
        gain = math.sqrt(scale / (self.scores.scale * length))
        for project in (self.scores.query, self.scores.key):
            project.weight.copy_(gain * identity)
            project.bias.zero_()


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, width / heads)."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """Inverse of `split_heads`."""
    return tokens.transpose(1, 2).flatten(2)
