"""Training of the miniature CLIP on drawn scenes and their captions.

Random batches would let it tell pictures apart by their background and colours alone. Here all
pictures of a batch share one background, every class is there several times, and most captions name
the class alone. Two heads that are thrown away afterwards help: one names the classes from the
image embedding, one names the class of each patch, so that patch tokens know what they show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from models.miniature import captions, world
from models.miniature.degradation import PAINTER_AUTOENCODER, load_autoencoder
from models.miniature.loop import Training
from models.miniature.optimisation import Course, LossOfStep, Schedule, save_half, teach
from models.miniature.scenes import HELD_OUT, DrawnScene, SceneBatch, collate, draw, normalised
from models.miniature.tokens import END, START, write_tokenizer
from models.miniature.world import BACKGROUNDS, CANVAS, CLASSES, Scene

ZERO_SHOT = "a photo of {a} {class1}"
"""The text that stands for a class in `score`."""

_BARE = (ZERO_SHOT, ZERO_SHOT, "a photo of a {class1}", "this is {a} {class1}", "{a} {class1}",
         "{class1}", "there is {a} {class1} in the scene")  # fmt: skip
_ONE = (
    "{a} {colour1} {class1} {place}",
    "{a} {colour1} {class1} {place}",
    "{a} {colour1} {class1} {place}",
    "{a} {class1} {place}",
    "{a} {size1} {colour1} {class1} {place}",
    "{place} {a} {colour1} {class1}",
    "a photo of {a} {colour1} {class1} {place}",
    "there is {a} {class1} {place}",
    "{a} {colour1} {class1}",
    "a photo of {a} {class1}",
)
_TWO = (
    "{a} {colour1} {class1} and {a} {colour2} {class2} {place}",
    "{a} {colour1} {class1} and {a} {colour2} {class2} {place}",
    "{a} {class1} and {a} {class2} {place}",
    "a photo of {a} {colour1} {class1} and {a} {colour2} {class2} {place}",
    "{place} {a} {colour1} {class1} and {a} {colour2} {class2}",
)
_WORDS = ("this", "is", "the", "scene", "there", "in", "background", "nothing", "an", "of", "photo",
          "no", "picture", "drawing", "object", "with", "and")  # fmt: skip
_EMPTY = ("a photo of nothing", "there is nothing in the scene", "background", "nothing",
          "a photo of the background", "nothing {place}")  # fmt: skip
_MAX_LENGTH = 32
_WIDTH = 64
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_SLOTS = 20
_PERIOD = 1500


@dataclass(frozen=True)
class Config(Training):
    """Hyper-parameters of CLIP's training, beside those of every training.

    Every third step is of fewer pictures, twice as large.

    Attributes:
        per_class: one-object scenes of each class in a batch.
        pairs: two-object scenes in a batch.
        empties: object-free scenes in a batch.
        bare_share: share of the captions that name a class and nothing else.
        learning_rate: highest learning rate.
        flat: share of the steps after which the rate falls.
        autoencoder: folder of the painter's autoencoder, which degrades a part of the pictures.
    """

    steps: int = 1500
    per_class: int = 3
    pairs: int = 16
    empties: int = 4
    bare_share: float = 0.6
    learning_rate: float = 1e-3
    flat: float = 0.67
    autoencoder: str = PAINTER_AUTOENCODER


class Learner(nn.Module):
    """A CLIP and the two heads that only its training needs."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.image_head = nn.Linear(_WIDTH, len(CLASSES))
        self.patch_head = nn.Linear(_WIDTH, len(CLASSES) + 1)

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Projected, unnormalised embeddings: image (batch, 64), patches (batch, patches, 64)."""
        vision = self.clip.vision_model
        states = vision(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        tokens = self.clip.visual_projection(vision.post_layernorm(states))
        return tokens[:, 0], tokens[:, 1:]


@dataclass(frozen=True)
class Claim:
    """What a caption says: each thing's class (-1: nothing), colour and size, where it names them.

    Attributes:
        things: (class id, colour or None, size or None) of each thing; empty for "nothing".
        text: the caption.
    """

    things: tuple[tuple[int, str | None, str | None], ...]
    text: str

    def holds(self, scene: Scene, *, bare: bool) -> bool:
        """Whether the caption is true of a scene; `bare`: of its object-free twin."""
        if bare or not self.things:
            return bare and not self.things
        return all(
            any(
                thing.class_id == class_id
                and colour in (None, thing.colour)
                and size in (None, thing.size)
                for thing in scene.things
            )
            for class_id, colour, size in self.things
        )


class SceneShelf:
    """Drawn scenes by class and background; each place gets a fresh scene now and then.

    Args:
        seed: of the scenes.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: dict[tuple[int, ...], tuple[int, DrawnScene]] = {}

    def scene(self, step: int, background: int, classes: Sequence[int], slot: int) -> DrawnScene:
        """The scene that stands in a place at a step.

        Args:
            step: number of the training step.
            background: index into `BACKGROUNDS`.
            classes: the classes of its objects, one or two.
            slot: number of the place among those of the same classes and background.
        """
        generation = (step + slot * _PERIOD // _SLOTS) // _PERIOD
        key = (background, slot, *classes)
        if key not in self._drawn or self._drawn[key][0] != generation:
            rng = np.random.default_rng((self._seed, 3, *key, generation))
            scene = world.sample_scene(
                rng,
                num_things=len(classes),
                hard=float(rng.random()),
                class_ids=classes,
                background=BACKGROUNDS[background],
            )
            self._drawn[key] = (generation, draw(scene))
        return self._drawn[key][1]


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP with random weights: ViT of 4 layers with patches of 8, text of 2 layers."""
    vocabulary = tokenizer.get_vocab()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        projection_dim=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_MAX_LENGTH,
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
    )
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        projection_dim=_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CANVAS,
        patch_size=8,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=_WIDTH))


def write_processor(folder: Path) -> CLIPProcessor:
    """Write and load the text and image processor; each word of the world is one token."""
    words = {*captions.vocabulary(), *_WORDS, *BACKGROUNDS}
    write_tokenizer(folder, words, _MAX_LENGTH)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    side = {"height": CANVAS, "width": CANVAS}
    images = CLIPImageProcessorPil(size={"shortest_edge": CANVAS}, crop_size=side)
    loaded = CLIPProcessor(images, tokenizer)
    loaded.save_pretrained(folder)
    return loaded


def train(config: Config, out: Path, state: Path) -> dict[str, float]:
    """Train, write the `from_pretrained` folder `out` and score it.

    Args:
        config: hyper-parameters.
        out: folder for weights, processor, model card, `training.json` and `losses.csv`.
        state: folder for checkpoints; a run that was stopped goes on from there.

    Returns:
        The metrics of `score`.
    """
    torch.set_num_threads(config.threads)
    learner, losses = task(config, write_processor(out).tokenizer)

    def save(folder: Path) -> None:
        save_half(learner.clip, folder)

    course = Course("clip", learner, losses, schedule(config), save, score, _card)
    return teach(course, replace(config, autoencoder=relpath(config.autoencoder, out)), out, state)


def schedule(config: Config) -> Schedule:
    """The learning rate over the run."""
    return Schedule(config.steps, config.learning_rate, config.flat)


def task(config: Config, tokenizer: CLIPTokenizer) -> tuple[Learner, LossOfStep]:
    """The network as it begins, and its losses at a step."""
    torch.manual_seed(config.seed)
    learner = Learner(build(tokenizer)).to(config.device)
    autoencoder = load_autoencoder(config.autoencoder, config.device)
    shelf = SceneShelf(config.seed)

    def losses(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rng = np.random.default_rng((config.seed, 4, step))
        drawn, bare = _batch(config, shelf, step, rng)
        claims = [
            write_claim(item.scene, rng, bare=none, short=rng.random() < config.bare_share)
            for item, none in zip(drawn, bare, strict=True)
        ]
        fits = [
            [claim.holds(item.scene, bare=none) for claim in claims]
            for item, none in zip(drawn, bare, strict=True)
        ]
        batch = collate(drawn, bare).damaged(generator, autoencoder).to(config.device)
        ids = tokenizer([claim.text for claim in claims], padding=True, return_tensors="pt")
        holds = torch.tensor(fits, device=config.device).float()
        return _losses(learner, batch, ids.to(config.device), holds, scale=_scale(step))

    return learner, losses


def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a trained folder on held-out scenes with one object.

    Args:
        folder: a `from_pretrained` folder.
        num_scenes: about how many scenes; they come as sets of all classes on one background.
        seed: of the held-out scenes.

    Returns:
        Shares in [0, 1]: the right class among all by "a photo of a ..." (`zero_shot`), the same
        from pictures of twice the size (`zero_shot_large`) and damaged ones (`zero_shot_damaged`);
        the right picture for a class among those of all classes on the same background
        (`retrieval`); object patches, from large pictures, whose nearest class text is right
        (`patch_zero_shot`).
    """
    clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    learner = Learner(clip).eval()
    loaded = CLIPProcessor.from_pretrained(folder)
    drawn = _held_out_sets(max(1, round(num_scenes / len(CLASSES))), seed)
    batch = collate(drawn, [False] * len(drawn))
    truth = batch.class_ids[:, 0]
    texts = _class_texts(clip, loaded)
    with torch.no_grad():
        image, _ = learner.embed(_pixels(batch.images, loaded))
        large, patches = learner.embed(_larger(batch.images))
        damaged = batch.damaged(torch.Generator().manual_seed(seed)).images
        spoilt, _ = learner.embed(_pixels(damaged, loaded))
    sets = F.normalize(image, dim=-1).view(-1, len(CLASSES), _WIDTH) @ texts.T
    object_patches = patch_shares(batch, patches.shape[1])[..., :-1].amax(-1) > 0.75
    wanted = truth[:, None].expand(object_patches.shape)[object_patches]
    return {
        "zero_shot": _right(image, texts, truth),
        "zero_shot_large": _right(large, texts, truth),
        "zero_shot_damaged": _right(spoilt, texts, truth),
        "retrieval": float((sets.argmax(1) == torch.arange(len(CLASSES))).float().mean()),
        "patch_zero_shot": _right(patches[object_patches], texts, wanted),
    }


def _right(embeddings: Tensor, texts: Tensor, truth: Tensor) -> float:
    return float(((embeddings @ texts.T).argmax(-1) == truth).float().mean())


def _held_out_sets(count: int, seed: int) -> list[DrawnScene]:
    """`count` sets of all classes in order, each set on one background."""
    scenes = []
    for number in range(count):
        for class_id in range(len(CLASSES)):
            rng = np.random.default_rng((HELD_OUT, seed, 5, number, class_id))
            scene = world.sample_scene(
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
    return F.normalize(_text_embeddings(clip, ids), dim=-1)


def _text_embeddings(clip: CLIPModel, ids: Mapping[str, Tensor]) -> Tensor:
    pooled = clip.text_model(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]
    ).pooler_output
    return clip.text_projection(pooled)


def _pixels(images: Tensor, loaded: Any) -> Tensor:
    """Pictures in [0, 1] as the ordinary processor would give them to the network."""
    arrays = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    pictures = [Image.fromarray(np.ascontiguousarray(array)) for array in arrays]
    return loaded(images=pictures, return_tensors="pt")["pixel_values"]


def _larger(images: Tensor) -> Tensor:
    """Pictures of twice the size, normalised."""
    scaled = F.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)
    return normalised(scaled.clamp(0, 1), _MEAN, _STD)


def _scale(step: int) -> int:
    """How many times their size the pictures of a step are shown."""
    return 2 if step % 3 == 2 else 1


def _batch(
    config: Config, shelf: SceneShelf, step: int, rng: np.random.Generator
) -> tuple[list[DrawnScene], list[bool]]:
    """Scenes on one background, and which of them are shown without their objects."""
    background = int(rng.integers(len(BACKGROUNDS)))
    share = 1 if _scale(step) == 1 else 3
    classes = list(range(len(CLASSES)))
    asked = [[c] for c in classes for _ in range(max(1, config.per_class // share))]
    # pairs of neighbours in one fixed list, so that few enough of them are drawn again and again
    pairs = [[c, (c + gap) % len(CLASSES)] for c in classes for gap in (1, 3, 5)]
    chosen = rng.choice(len(pairs), config.pairs // share, replace=False)
    asked += [pairs[int(number)] for number in chosen]
    asked += [[int(rng.integers(len(CLASSES)))] for _ in range(config.empties // share)]
    slots = rng.integers(0, _SLOTS, len(asked))
    drawn = [
        # two-object scenes share few places: there are three times as many kinds of them
        shelf.scene(step, background, c, int(slot) // (1 if len(c) == 1 else 4))
        for c, slot in zip(asked, slots, strict=True)
    ]
    empties = config.empties // share
    return drawn, [False] * (len(drawn) - empties) + [True] * empties


def write_claim(scene: Scene, rng: np.random.Generator, *, bare: bool, short: bool) -> Claim:
    """Write a caption of a scene, or of its object-free twin."""
    place = captions.places()[scene.background]
    if bare:
        template = _EMPTY[int(rng.integers(len(_EMPTY)))]
        return Claim((), template.replace("{place}", place))
    things = scene.things
    if short or rng.random() < 0.3:
        things = (things[int(rng.integers(len(things)))],)
    templates = _BARE if short else _ONE if len(things) == 1 else _TWO
    template = templates[int(rng.integers(len(templates)))]
    values, told = {"place": place}, []
    for number, thing in enumerate(things, start=1):
        named = {"class": CLASSES[thing.class_id], "colour": thing.colour, "size": thing.size}
        values |= {f"{name}{number}": word for name, word in named.items()}
        colour = thing.colour if f"{{colour{number}}}" in template else None
        size = thing.size if f"{{size{number}}}" in template else None
        told.append((thing.class_id, colour, size))
    return Claim(tuple(told), captions.fill(template, values)[0])


def _losses(
    learner: Learner,
    batch: SceneBatch,
    ids: Mapping[str, Tensor],
    fits: Tensor,
    scale: int,
) -> dict[str, Tensor]:
    """Contrast of pictures and captions, classes of pictures, classes of patches.

    Args:
        learner: the network and its heads.
        batch: the pictures.
        ids: the tokenised captions.
        fits: 1 where the caption (column) is true of the picture (row).
        scale: 2 to show the pictures at twice their size.
    """
    pixels = _larger(batch.images) if scale == 2 else normalised(batch.images, _MEAN, _STD)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        image, patches = learner.embed(pixels)
        text = _text_embeddings(learner.clip, ids)
    image, patches, text = image.float(), patches.float(), text.float()
    cosine = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    logits = cosine * learner.clip.logit_scale.exp().clamp(max=100)
    contrast = (_contrast(logits, fits) + _contrast(logits.T, fits.T)) / 2
    present = torch.zeros(len(image), len(CLASSES) + 1, device=image.device)
    present.scatter_(1, batch.class_ids % (len(CLASSES) + 1), 1.0)
    named = F.binary_cross_entropy_with_logits(
        learner.image_head(image),
        present[:, :-1],
        pos_weight=torch.tensor(4.0, device=image.device),
    )
    shown = _patch_loss(learner.patch_head(patches), patch_shares(batch, patches.shape[1]))
    total = contrast + 2 * named + shown
    return {"loss": total, "contrast": contrast, "named": named, "shown": shown}


def _contrast(logits: Tensor, fits: Tensor) -> Tensor:
    """Cross-entropy of each row against all columns that fit it, weighted alike."""
    counts = fits.sum(1)
    rows = counts > 0
    share = fits[rows] / counts[rows, None]
    return F.cross_entropy(logits[rows], share)


def patch_shares(batch: SceneBatch, patches: int) -> Tensor:
    """Share of each patch's area by class, background last: float (batch, patches, classes + 1)."""
    side = round(patches**0.5)
    area = F.adaptive_avg_pool2d(batch.masks, side).flatten(2)
    count = len(CLASSES)
    shares = torch.zeros(len(area), count + 1, patches, device=area.device)
    index = (batch.class_ids % (count + 1))[:, :, None].expand_as(area)
    shares.scatter_add_(1, index, area * (batch.class_ids >= 0)[:, :, None])
    shares[:, count] = 1 - shares[:, :count].sum(1)
    return shares.transpose(1, 2)


def _patch_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of patches; those on objects weigh four times as much as background."""
    entropy = -(shares * logits.log_softmax(-1)).sum(-1)
    weight = 1 + 3 * (1 - shares[..., -1])
    return (entropy * weight).sum() / weight.sum()


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in metrics.items())
    return f"""# Miniature CLIP

A CLIP (arXiv 2103.00020, the `transformers` implementation): a ViT of 4 layers with patches of 8
pixels and a text encoder of 2 layers, for the drawn world of `models/miniature/world.py`. Pictures
may be 64 x 64 or, with `interpolate_pos_encoding=True`, 128 x 128. Its tokenizer knows the words of
that world; other words are spelled and mean nothing to it.

Trained from random weights by `python -m models.miniature train clip`: {config.steps} steps, seed
{config.seed}. All pictures of a batch share one background and show every class. Unlike the
original it was also told, by heads that were thrown away, which class each patch shows. The tensors
are stored in half precision and load as float32.

Held-out drawn scenes with one object (see `models.miniature.clip.score`):

| metric | value |
| --- | ---: |
{rows}

Not for photographs. Licence: that of the repository.
"""
