"""What the painter's attention is taught: a class is seen inside its thing's box, and only there.

Labellers that read attention ask for a class in two ways, and both are taught: by its word in the
caption, and by the names of classes alone ("star cup"), a text that the picture never sees. Names
of classes that the picture lacks are among these, so that the share of attention that a name gets
tells whether its thing is there.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.miniature.painter.attention import SIDES
from models.miniature.painter.examples import LatentScene
from models.miniature.world import CANVAS, CLASSES, Scene, boxes

_WANTED = 0.9  # share of the attention inside a box; the other tokens keep the rest
_PLAIN = 0.5  # share of the prompts that are the scene's classes
_NAMED = 0.85  # chance of each of them to be in one of the other prompts
_FEW, _MANY = (1, 2), (3, 10)  # numbers of classes in those that the scene does not have


def class_prompts(examples: Sequence[LatentScene], rng: np.random.Generator) -> list[list[int]]:
    """Choose the classes that are asked for.

    Half of the prompts are the scene's classes in their order, as labellers ask for them. The
    others hold most of the scene's classes and some that are not there, a few or most of them,
    in any order: who does not tell names apart loses most there.

    Args:
        examples: What is in the scenes, drawn or left out.
        rng: Chooses.

    Returns:
        One or more classes for each example.
    """
    prompts = []
    for example in examples:
        things = [thing.class_id for thing in example.scene.things]
        if rng.random() < _PLAIN:
            prompts.append(things)
            continue
        others = [class_id for class_id in range(len(CLASSES)) if class_id not in things]
        low, high = _FEW if rng.random() < 0.5 else _MANY
        kept = [class_id for class_id in things if rng.random() < _NAMED]
        kept += rng.choice(others, int(rng.integers(low, high + 1)), replace=False).tolist()
        prompts.append([kept[i] for i in rng.permutation(len(kept))])
    return prompts


def names(prompts: Sequence[Sequence[int]]) -> list[str]:
    """The texts of class prompts: the names, blanks between them."""
    return [" ".join(CLASSES[class_id] for class_id in prompt) for prompt in prompts]


def targets(
    examples: Sequence[LatentScene], prompts: Sequence[Sequence[int]], tokens: Tensor, words: Tensor
) -> tuple[Tensor, Tensor]:
    """Say which tokens are taught, and where each is to be seen.

    Args:
        examples: What the pictures show.
        prompts: The classes whose tokens are taught, for each example.
        tokens: The text's token ids, long (examples, tokens); a class that is not among them is
            passed over.
        words: Token id of each class, long (classes).

    Returns:
        Which tokens are taught, bool (examples, tokens), and the share of the attention that each
        of those is to get: float (taught tokens, 16, 16), 0 for things that are not shown.
    """
    taught = torch.zeros_like(tokens, dtype=torch.bool)
    wanted: dict[tuple[int, int], Tensor] = {}
    for row, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
        places = covered(example.scene)  # (things, 16, 16)
        shown = {
            thing.class_id: places[number]
            for number, thing in enumerate(example.scene.things)
            if not example.absent and number != example.unpainted
        }
        for class_id in prompt:
            for column in (tokens[row] == words[class_id]).nonzero().flatten().tolist():
                taught[row, column] = True
                place = shown.get(class_id, torch.zeros(SIDES[0], SIDES[0]))
                wanted[row, column] = _WANTED * place
    empty = torch.zeros(0, SIDES[0], SIDES[0])
    return taught, torch.stack([wanted[at] for at in sorted(wanted)]) if wanted else empty


def covered(scene: Scene) -> Tensor:
    """Share of each cell that a thing's box covers, float (things, 16, 16)."""
    edges = torch.linspace(0, CANVAS, SIDES[0] + 1)  # (17)
    corners = torch.from_numpy(boxes(scene))  # (things, 4)
    cell = CANVAS / SIDES[0]
    # of each column and each row, (things, 16)
    columns, rows = (
        torch.minimum(corners[:, high, None], edges[1:])
        .sub(torch.maximum(corners[:, low, None], edges[:-1]))
        .clamp(min=0)
        / cell
        for low, high in ((0, 2), (1, 3))
    )
    return rows[:, :, None] * columns[:, None, :]


def distance(maps: Sequence[Tensor], taught: Tensor, wanted: Tensor) -> Tensor:
    """How far attention is from where it should be.

    Args:
        maps: Shares of attention, float (examples, tokens, side, side) of each layer.
        taught: Which tokens count, bool (examples, tokens).
        wanted: What those should get, float (taught tokens, 16, 16).

    Returns:
        Binary cross-entropy, mean over cells, taught tokens and layers, float (); 0 without any.
    """
    if not len(wanted):
        return torch.zeros((), device=taught.device)
    parts = []
    for layer in maps:
        shares = layer[taught]  # (taught tokens, side, side)
        goal = F.avg_pool2d(wanted[None], SIDES[0] // shares.shape[-1])[0]
        parts.append(F.binary_cross_entropy(shares.clamp(0, 1), goal))
    return torch.stack(parts).mean()
