"""Recording where a painter looks for the words of each class, beside the painting.

DiffuMask (arXiv 2303.11681, section 3.1) and Dataset Diffusion (arXiv 2309.14303, section 3.2) read
masks from it. The network's own layers paint as ever: before each of them runs, the probabilities
of its attention are computed once more from what it is about to see. That costs the products of
queries and keys twice, and leaves every picture what it is without a recording, bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.attention_maps import AttentionMaps, MapsWanted, TokenMaps, tokens_of_spans
from models.compiling import Compiled
from models.painting.attention_grids import (
    attention_grids,
    require_resolutions,
    require_unet,
)
from models.painting.pipelines import LoadedPipeline
from models.protocols import AttendedClass

_CHUNK_BYTES = 256 * 1024**2
"""Most that probabilities of one layer may take at a time: maps cost the same for any batch."""
_LAYERS = ("attn1", "attn2")


@dataclass(frozen=True)
class Listened:
    """What is recorded of one picture.

    Attributes:
        tokens: Tokens of its text that name classes.
        classes: For each of them the position of its class.
        prompt_tokens: Tokens of the class prompt that do.
        prompt_classes: For each of them the position of its class.
    """

    tokens: tuple[int, ...]
    classes: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    prompt_classes: tuple[int, ...]


def listen_for(tokenizer: Any, text: str, attended: Sequence[AttendedClass]) -> Listened:
    """Find the tokens that name classes, in a text and in its class prompt.

    Args:
        tokenizer: Of the painter; says which characters a token stands for.
        text: What is painted; of tokens that it is too long for nothing is recorded.
        attended: The classes, with their mentions in the text.
    """
    names = [each.name for each in attended]
    starts = [sum(len(name) + 1 for name in names[:index]) for index in range(len(names))]
    alone = [[(start, start + len(name))] for start, name in zip(starts, names, strict=True)]
    spans = [each.spans for each in attended]
    return Listened(
        *tokens_of_spans(_offsets(tokenizer, text), spans),
        *tokens_of_spans(_offsets(tokenizer, class_prompt(attended)), alone),
    )


def class_prompt(attended: Sequence[AttendedClass]) -> str:
    """The names of the classes alone (Dataset Diffusion, section 3.2)."""
    return " ".join(each.name for each in attended)


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    found = tokenizer(
        text,
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_offsets_mapping=True,
    )
    return [tuple(each) for each in found["offset_mapping"]]


class AttentionRecorder:
    """Adds up what the attention layers of a network see, while a batch of pictures is painted.

    Sums are added in place, so that memory does not grow with steps. Of classifier-free guidance
    the half with the texts counts.

    Args:
        loaded: The pipeline, of which `require_attention` let pass what is wanted.
        wanted: What to record.
        latent: Rows and columns of the latents.
        pictures: How many pictures a batch has, images first, then as many counterfactuals.
        prompts: The class prompts of the images as the network reads texts; None for no recording
            of them. Those of the counterfactuals are the same.
    """

    def __init__(
        self,
        loaded: LoadedPipeline,
        wanted: MapsWanted,
        latent: tuple[int, int],
        pictures: int,
        prompts: Float[Tensor, "images tokens channels"] | None,
    ) -> None:
        self._network = loaded.network
        self._wanted = wanted
        self._grids = attention_grids(latent)
        self._images = pictures // 2
        self._pictures = pictures
        self._prompts = prompts
        self._keys: dict[str, Tensor] = {}
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._calls: dict[tuple[str, int], int] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record every call of the network until the end."""
        forward = self._network.forward
        if isinstance(forward, Compiled):  # what was compiled without the hooks would not run them
            self._network.forward = forward.plain
        hooks = [
            layer.register_forward_pre_hook(partial(self._hear, name), with_kwargs=True)
            for name, layer in _layers(self._network)
        ]
        try:
            yield
        finally:
            self._network.forward = forward
            for hook in hooks:
                hook.remove()

    def maps(self, listened: Sequence[Listened]) -> list[AttentionMaps]:
        """The maps of each image and its counterfactual.

        Args:
            listened: Which tokens matter, image by image.
        """
        means = {key: each / self._calls[key] for key, each in self._sums.items()}
        return [self._maps_of(index, means, each) for index, each in enumerate(listened)]

    def _maps_of(
        self, index: int, means: Mapping[tuple[str, int], Tensor], listened: Listened
    ) -> AttentionMaps:
        def chosen(kind: str, picture: int, tokens: Sequence[int]) -> dict[int, Any]:
            found: dict[int, Any] = {}
            for resolution in self._wanted.cross:
                rows, columns = self._grids[resolution]
                own = means[kind, resolution][picture][list(tokens)]
                found[resolution] = own.reshape(-1, rows, columns).cpu().numpy()
            return found

        mentions = prompt = twin = cells = None
        if self._wanted.mentions:
            mentions = TokenMaps(listened.classes, chosen("text", index, listened.tokens))
        if self._wanted.class_prompt:
            tokens, classes = listened.prompt_tokens, listened.prompt_classes
            prompt = TokenMaps(classes, chosen("prompt", index, tokens))
            twin = TokenMaps(classes, chosen("prompt", self._images + index, tokens))
        grid = (0, 0)
        if self._wanted.cells is not None:
            cells = means["cells", self._wanted.cells][index].cpu().numpy()
            grid = self._grids[self._wanted.cells]
        return AttentionMaps(mentions, prompt, twin, cells, grid)

    def _hear(self, name: str, layer: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden = args[0] if args else options["hidden_states"]
        context = args[1] if len(args) > 1 else options.get("encoder_hidden_states")
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        resolution = self._resolution_of(hidden.shape[1])
        if context is None:
            if resolution == self._wanted.cells:
                self._hear_cells(layer, hidden, resolution)
        elif resolution in self._wanted.cross:
            self._hear_words(name, layer, hidden[-self._pictures :], context, resolution)

    def _hear_cells(self, layer: Any, hidden: Tensor, resolution: int) -> None:
        """Add how the cells of the images attend to each other; counterfactuals are left out."""
        first = len(hidden) - self._pictures
        own = hidden[first : first + self._images]
        total = self._total("cells", resolution, (self._images, own.shape[1], own.shape[1]), own)
        queries, keys = _heads(layer, layer.to_q(own)), _heads(layer, layer.to_k(own))
        self._add(layer, queries, keys, total)

    def _hear_words(
        self, name: str, layer: Any, hidden: Tensor, context: Tensor, resolution: int
    ) -> None:
        queries = _heads(layer, layer.to_q(hidden))
        cells = hidden.shape[1]
        if self._wanted.mentions:  # a counterfactual mentions no class
            own = context[-self._pictures :][: self._images]
            keys = _heads(layer, layer.to_k(own))
            shape = (self._images, keys.shape[2], cells)
            total = self._total("text", resolution, shape, hidden)
            self._add(layer, queries[: self._images], keys, total, turned=True)
        if self._prompts is not None:
            if name not in self._keys:  # the same at every step
                self._keys[name] = _heads(layer, layer.to_k(self._prompts)).repeat(2, 1, 1, 1)
            keys = self._keys[name]
            shape = (self._pictures, keys.shape[2], cells)
            total = self._total("prompt", resolution, shape, hidden)
            self._add(layer, queries, keys, total, turned=True)

    def _add(
        self, layer: Any, queries: Tensor, keys: Tensor, total: Tensor, *, turned: bool = False
    ) -> None:
        """Add mean probabilities over heads, some pictures at a time."""
        size = 4 * queries.shape[1] * queries.shape[2] * keys.shape[2]
        step = max(1, _CHUNK_BYTES // (2 * size))
        for first in range(0, len(queries), step):
            part = slice(first, first + step)
            products = queries[part].float() @ keys[part].float().transpose(-1, -2)
            found = products.mul_(layer.scale).softmax(dim=-1).mean(dim=1)
            total[part] += found.transpose(1, 2) if turned else found

    def _total(self, kind: str, resolution: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        key = (kind, resolution)
        if key not in self._sums:
            self._sums[key] = torch.zeros(shape, dtype=torch.float32, device=like.device)
        self._calls[key] = self._calls.get(key, 0) + 1
        return self._sums[key]

    def _resolution_of(self, cells: int) -> int:
        for resolution, (rows, columns) in self._grids.items():
            if rows * columns == cells:
                return resolution
        return 0


def require_attention(loaded: LoadedPipeline, wanted: MapsWanted, latent: tuple[int, int]) -> None:
    """Refuse a painter that does not have the attention that is asked for.

    Args:
        loaded: The pipeline.
        wanted: What is asked for.
        latent: Rows and columns of its latents.

    Raises:
        InputError: If its network attends to words and cells in one, or has no layers at a
            resolution.
    """
    name = loaded.family.pipeline
    require_unet(name, loaded.family.network)
    require_resolutions(name, loaded.network.config, latent, wanted)


def _layers(network: Any) -> Iterator[tuple[str, Any]]:
    for name, layer in network.named_modules():
        if name.rpartition(".")[2] in _LAYERS and hasattr(layer, "to_q"):
            yield name, layer


def _heads(
    layer: Any, projected: Float[Tensor, "pictures places channels"]
) -> Float[Tensor, "pictures heads places width"]:
    return projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
