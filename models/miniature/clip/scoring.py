"""How well the miniature CLIP names the objects of held-out scenes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from models.miniature import captions
from models.miniature.clip.claims import ZERO_SHOT
from models.miniature.clip.losses import larger, patch_shares
from models.miniature.clip.network import WIDTH, ClipWithHeads, text_embeddings
from models.miniature.scenes import HELD_OUT_SCENES, DrawnScene, as_pictures, collate, draw
from models.miniature.world import BACKGROUNDS, CLASSES, sample_scene


def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a trained folder on held-out scenes with one object.

    Args:
        folder: A `from_pretrained` folder.
        num_scenes: About how many scenes; they come as sets of all classes on one background.
        seed: Of the held-out scenes.

    Returns:
        Shares in [0, 1]: the right class among all by "a photo of a ..." (`zero_shot`), the same
        from pictures of twice the size (`zero_shot_large`) and damaged ones (`zero_shot_damaged`);
        the right picture for a class among those of all classes on the same background
        (`retrieval`); object patches, from large pictures, whose nearest class text is right
        (`patch_zero_shot`).
    """
    clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    learner = ClipWithHeads(clip).eval()
    loaded = CLIPProcessor.from_pretrained(folder)
    drawn = _held_out_sets(max(1, round(num_scenes / len(CLASSES))), seed)
    batch = collate(drawn)
    truth = batch.class_ids[:, 0]
    texts = _class_texts(clip, loaded)
    with torch.no_grad():
        image, _ = learner.embed(_processed(batch.images, loaded))  # (scenes, 64)
        large, patches = learner.embed(larger(batch.images))  # patches (scenes, patches, 64)
        pictures = batch.damaged(torch.Generator().manual_seed(seed)).images
        damaged, _ = learner.embed(_processed(pictures, loaded))
    # pictures of all classes on one background against texts: (sets, classes, classes)
    sets = F.normalize(image, dim=-1).view(-1, len(CLASSES), WIDTH) @ texts.T
    object_patches = patch_shares(batch, patches.shape[1])[..., :-1].amax(-1) > 0.75
    wanted = truth[:, None].expand(object_patches.shape)[object_patches]
    return {
        "zero_shot": _right(image, texts, truth),
        "zero_shot_large": _right(large, texts, truth),
        "zero_shot_damaged": _right(damaged, texts, truth),
        "retrieval": float((sets.argmax(1) == torch.arange(len(CLASSES))).float().mean()),
        "patch_zero_shot": _right(patches[object_patches], texts, wanted),
    }


def _right(embeddings: Tensor, texts: Tensor, truth: Tensor) -> float:
    """Share of embeddings (items, 64) whose likeliest text is the true one, long (items)."""
    return float(((embeddings @ texts.T).argmax(-1) == truth).float().mean())


def _held_out_sets(count: int, seed: int) -> list[DrawnScene]:
    """`count` sets of all classes in order, each set on one background."""
    scenes = []
    for number in range(count):
        for class_id in range(len(CLASSES)):
            rng = np.random.default_rng((HELD_OUT_SCENES, seed, 5, number, class_id))
            scene = sample_scene(
                rng,
                hard=float(rng.random()),
                class_ids=[class_id],
                background=BACKGROUNDS[number % len(BACKGROUNDS)],
            )
            scenes.append(draw(scene))
    return scenes


@torch.no_grad()
def _class_texts(clip: CLIPModel, loaded: Any) -> Tensor:
    """Unit text embeddings of all classes, float (classes, 64)."""
    texts = [captions.fill(ZERO_SHOT, {"class1": name})[0] for name in CLASSES]
    ids = loaded(text=texts, padding=True, return_tensors="pt")
    return F.normalize(text_embeddings(clip, ids), dim=-1)


def _processed(images: Tensor, loaded: Any) -> Tensor:
    """Pictures in [0, 1] as the ordinary processor gives them to the network."""
    return loaded(images=as_pictures(images), return_tensors="pt")["pixel_values"]
