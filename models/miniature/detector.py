"""Training of the miniature Grounding DINO on drawn scenes.

The architecture is that of `transformers`, in a tiny geometry. The loss is our own, because the
built-in one gives the proposal heads of the encoder no gradient, and because its label maps are
wrong in batches of several prompts. The first part of the run trains the encoder alone, with a
dense loss on all of its proposals; then the decoder joins; the last part lets all boxes that fit an
object claim it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from os.path import relpath
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    SwinConfig,
)
from transformers.models.grounding_dino.modeling_grounding_dino import (
    GroundingDinoObjectDetectionOutput,
)

from models.miniature.degradation import PAINTER_AUTOENCODER, load_autoencoder
from models.miniature.loop import Training
from models.miniature.optimisation import Course, LossOfStep, Schedule, save_half, teach
from models.miniature.scenes import (
    DrawnScene,
    SceneBatch,
    SceneStream,
    collate,
    held_out,
    normalised,
)
from models.miniature.world import BACKGROUNDS, CANVAS, CLASSES, COLOURS, SIZES

BOX_THRESHOLD = 0.30
"""A class counts as found where its score passes this, as in Grounded-SAM's command line."""

_SPECIAL = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}
_WORDS_FROM = 200
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MAX_TEXT = 48
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Config(Training):
    """Hyper-parameters of the detector's training, beside those of every training.

    Attributes:
        encoder_steps: how many of the first ones train the encoder alone.
        refine_steps: how many of the last ones want every good box of an object to be sure of it,
            not the best one alone; they begin again at half the learning rate.
        batch: scenes in a step.
        learning_rate: highest learning rate.
        flat: share of the steps after which the rate falls.
        two_share: share of the scenes with two objects.
        empty_share: share of the scenes whose objects are left out.
        autoencoder: folder of the painter's autoencoder, which degrades a part of the pictures.
    """

    steps: int = 3900
    encoder_steps: int = 900
    refine_steps: int = 1300
    batch: int = 32
    learning_rate: float = 1e-3
    flat: float = 0.5
    two_share: float = 0.5
    empty_share: float = 0.15
    autoencoder: str = PAINTER_AUTOENCODER


@dataclass(frozen=True)
class Prompts:
    """Texts of a batch and what they ask for.

    Attributes:
        ids: token ids, long (batch, length), padded with 0.
        asked: class of each token, long (batch, length), -1 where it names no class of the world.
    """

    ids: Tensor
    asked: Tensor

    def to(self, device: str) -> "Prompts":
        """The same prompts on a device."""
        return Prompts(self.ids.to(device), self.asked.to(device))

    @property
    def mask(self) -> Tensor:
        """Tokens that are no padding, bool (batch, length)."""
        return self.ids != 0


def vocabulary() -> dict[str, int]:
    """Words by id: special tokens where Grounding DINO has them, words, letters for the rest."""
    words = [*CLASSES, *COLOURS, *SIZES, *BACKGROUNDS, *_LETTERS]
    words += [f"##{letter}" for letter in _LETTERS]
    known = _SPECIAL | {word: _WORDS_FROM + number for number, word in enumerate(words)}
    taken = set(known.values())
    unused = (number for number in range(max(taken)) if number not in taken)
    return known | {f"[unused{number}]": number for number in unused}


def processor() -> GroundingDinoProcessor:
    """Text and image processor for scenes of the world."""
    edges = {"shortest_edge": CANVAS, "longest_edge": CANVAS}
    tokenizer = BertTokenizer(vocab=vocabulary(), model_max_length=_MAX_TEXT)
    return GroundingDinoProcessor(GroundingDinoImageProcessorPil(size=edges), tokenizer)


def build() -> GroundingDinoForObjectDetection:
    """A Grounding DINO with random weights: 1.7 million parameters, strides 8 and 16."""
    vision = SwinConfig(
        image_size=CANVAS,
        patch_size=4,
        embed_dim=48,
        depths=[1, 2, 2],
        num_heads=[2, 4, 8],
        window_size=4,
        drop_path_rate=0.0,
        out_indices=[2, 3],  # pyright: ignore[reportCallIssue] - a property of the mixin
    )
    text = BertConfig(
        vocab_size=max(vocabulary().values()) + 1,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config = GroundingDinoConfig(
        backbone_config=vision,
        text_config=text,
        num_queries=16,
        d_model=64,
        encoder_layers=2,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_layers=2,
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        num_feature_levels=2,
        max_text_len=_MAX_TEXT,
        dropout=0.0,
        fusion_droppath=0.0,
    )
    network = GroundingDinoForObjectDetection(config)
    layers = cast("list[Any]", network.model.encoder.layers)
    with torch.no_grad():
        for layer in layers:
            # the published start, 1e-4, keeps the text out of the picture for a thousand steps
            layer.fusion_layer.vision_param.fill_(0.1)
            layer.fusion_layer.text_param.fill_(0.1)
        # class logits are unscaled products of normalised vectors: begin near 0, not near 8
        layers[-1].text_enhancer_layer.layer_norm_after.weight.fill_(0.2)
    return network


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
    network, losses = task(config)

    def save(folder: Path) -> None:
        save_half(network, folder)
        processor().save_pretrained(folder)

    course = Course("detector", network, losses, schedule(config), save, score, _card)
    return teach(course, replace(config, autoencoder=relpath(config.autoencoder, out)), out, state)


def schedule(config: Config) -> Schedule:
    """The learning rate of the two cycles."""
    return Schedule(config.steps, config.learning_rate, config.flat, config.refine_steps)


def task(config: Config) -> tuple[GroundingDinoForObjectDetection, LossOfStep]:
    """The network as it begins, and its losses at a step."""
    torch.manual_seed(config.seed)
    network = build().to(config.device)  # pyright: ignore[reportArgumentType]
    autoencoder = load_autoencoder(config.autoencoder, config.device)
    stream = SceneStream(config.seed, config.two_share)

    def losses(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        batch = stream.batch(step, config.batch, empty_share=config.empty_share)
        batch = batch.damaged(generator, autoencoder)
        prompts = ask(batch.class_ids, random.Random(f"{config.seed}/{step}"))  # noqa: S311
        stage = 0 if step < config.encoder_steps else 1
        if step >= config.steps - config.refine_steps:
            stage = 2
        return _losses(network, batch.to(config.device), prompts.to(config.device), stage)

    return network, losses


def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a trained folder on held-out scenes, through the ordinary processor.

    Args:
        folder: a `from_pretrained` folder.
        num_scenes: scenes of each kind.
        seed: of the held-out scenes.

    Returns:
        Shares in [0, 1]. Recall at IoU 0.5 of one-object and of two-object scenes (`recall_one`,
        `recall_two`; the prompt names the present classes), of one-object scenes with all classes
        in the prompt (`recall_all_asked`), of damaged two-object scenes (`recall_damaged`); mean
        IoU of the found boxes (`box_iou`); how often an absent class is found when it is asked for
        alone in the object-free twin (`false_twin`), alone beside another object (`false_alone`),
        and among all classes (`false_among_all`).
    """
    detector = Finder.load(folder)
    one = held_out(num_scenes, seed, num_things=1)
    two = held_out(num_scenes, seed, num_things=2)
    found = {name: detector.recall(scenes) for name, scenes in (("one", one), ("two", two))}
    every = list(range(len(CLASSES)))
    metrics = {f"recall_{name}": recall for name, (recall, _) in found.items()}
    metrics["recall_all_asked"] = detector.recall(one, [every] * len(one))[0]
    metrics["recall_damaged"] = detector.recall(two, damage=seed)[0]
    metrics["box_iou"] = sum(iou for _, iou in found.values()) / len(found)
    count = len(CLASSES)
    asked = [[(item.class_ids[0] + 1 + i % (count - 1)) % count] for i, item in enumerate(one)]
    metrics["false_twin"] = detector.false(one, [i.class_ids for i in one], twin=True)
    metrics["false_alone"] = detector.false(one, asked)
    metrics["false_among_all"] = detector.false(one + two, [every] * (len(one) + len(two)))
    return metrics


def found_boxes(folder: Path, batch: SceneBatch) -> Tensor:
    """Boxes of the scenes' own classes, as a trained folder finds them.

    Args:
        folder: a `from_pretrained` folder.
        batch: the scenes.

    Returns:
        The surest box of each object's class, float (batch, things, 4), pixels; 0 where the class
        is not found.
    """
    asked = [[int(c) for c in row if c >= 0] for row in batch.class_ids]
    boxes = torch.zeros(*batch.class_ids.shape, 4)
    for row, answer in enumerate(Finder.load(folder).find(batch.images, asked)):
        for column, class_id in enumerate(batch.class_ids[row].tolist()):
            if class_id in answer:
                boxes[row, column] = answer[class_id][0].clamp(0, CANVAS)
    return boxes


def prompt(class_ids: Sequence[int]) -> str:
    """The text that asks for these classes."""
    return " ".join(f"{CLASSES[class_id]}." for class_id in class_ids)


def ask(class_ids: Tensor, rng: random.Random) -> Prompts:
    """Ask for most of the present classes, some absent ones and now and then an unknown word."""
    vocab = vocabulary()
    rows = [_ask_one({int(c) for c in row if c >= 0}, vocab, rng) for row in class_ids]
    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    asked = torch.full((len(rows), length), -1)
    for number, (row, classes) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        asked[number, : len(row)] = torch.tensor(classes)
    return Prompts(ids, asked)


def _ask_one(
    present: set[int], vocab: Mapping[str, int], rng: random.Random
) -> tuple[list[int], list[int]]:
    absent = [c for c in range(len(CLASSES)) if c not in present]
    kind = rng.random()
    if kind < 0.25:  # nothing that is there: the counterfactual's question
        chosen = rng.sample(absent, rng.randint(1, 2))
    else:
        extra = rng.randint(0, 2) if kind < 0.65 else rng.randint(0, len(absent))
        chosen = [c for c in sorted(present) if rng.random() < 0.9] + rng.sample(absent, extra)
    rng.shuffle(chosen)
    groups = [([vocab[CLASSES[c]]], c) for c in chosen]
    if not groups or rng.random() < 0.1:
        groups.insert(rng.randint(0, len(groups)), (_unknown_word(vocab, rng), -1))
    ids, classes = [_SPECIAL["[CLS]"]], [-1]
    for tokens, class_id in groups:
        ids += [*tokens, _SPECIAL["."]]
        classes += [class_id] * len(tokens) + [-1]
    return [*ids, _SPECIAL["[SEP]"]], [*classes, -1]


def _unknown_word(vocab: Mapping[str, int], rng: random.Random) -> list[int]:
    """A word outside the world, which the tokenizer spells: nothing may be found for it."""
    letters = [rng.choice(_LETTERS) for _ in range(rng.randint(3, 7))]
    return [vocab[letters[0]], *(vocab[f"##{letter}"] for letter in letters[1:])]


def _losses(
    network: GroundingDinoForObjectDetection, batch: SceneBatch, prompts: Prompts, stage: int
) -> dict[str, Tensor]:
    """Losses of the encoder, and of the decoder from stage 1 on; stage 2 is the refinement."""
    pixels = normalised(batch.images, _MEAN, _STD)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        result = network(
            pixel_values=pixels, input_ids=prompts.ids, attention_mask=prompts.mask.long()
        )
    truth = Truth.of(batch, prompts)
    logits = result.enc_outputs_class.float()
    boxes = result.enc_outputs_coord_logits.float().sigmoid()
    found = {
        "encoder": truth.loss(logits, boxes, _nearest(truth, logits.shape[1])),
        "decoder": torch.zeros((), device=logits.device),
    }
    if stage:
        found["decoder"] = _decoder_loss(network, result, truth, refine=stage == 2)
    found["loss"] = found["encoder"] + found["decoder"]
    return found


def _decoder_loss(
    network: GroundingDinoForObjectDetection,
    result: GroundingDinoObjectDetectionOutput,
    truth: "Truth",
    *,
    refine: bool,
) -> Tensor:
    """Mean over the decoder's layers of the loss after matching."""
    hidden, later = result.intermediate_hidden_states, result.intermediate_reference_points
    text = result.encoder_last_hidden_state_text
    assert hidden is not None and later is not None and text is not None  # noqa: PT018, S101
    references = [result.init_reference_points, *later.unbind(1)]
    losses = []
    for layer, states in enumerate(hidden.float().unbind(1)):
        logits = network.class_embed[layer](states, text.float(), truth.token_mask)
        offset = network.bbox_embed[layer](states)
        boxes = (offset + torch.special.logit(references[layer].float(), eps=1e-5)).sigmoid()
        owner = match(truth, logits, boxes)
        if refine:
            losses.append(truth.loss(logits, boxes, *share(truth, boxes, owner)))
        else:
            losses.append(truth.loss(logits, boxes, owner))
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class Truth:
    """What the network should answer for a batch.

    Attributes:
        boxes: centre, width and height in [0, 1], float (batch, things, 4).
        wanted: whether the thing is there and asked for, bool (batch, things).
        tokens: tokens that name the thing's class, bool (batch, things, text).
        token_mask: tokens that are no padding, bool (batch, length).
    """

    boxes: Tensor
    wanted: Tensor
    tokens: Tensor
    token_mask: Tensor

    @classmethod
    def of(cls, batch: SceneBatch, prompts: Prompts) -> "Truth":
        """What is there and asked for."""
        left, top, right, bottom = (batch.boxes() / CANVAS).unbind(-1)
        boxes = torch.stack(
            ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), -1
        )
        present = batch.class_ids >= 0
        tokens = (batch.class_ids[:, :, None] == prompts.asked[:, None]) & present[:, :, None]
        wanted = tokens.any(-1)
        padded = F.pad(tokens, (0, _MAX_TEXT - tokens.shape[-1]))
        return cls(boxes, wanted, padded, prompts.mask)

    def loss(
        self, logits: Tensor, boxes: Tensor, owner: Tensor, doubtful: Tensor | None = None
    ) -> Tensor:
        """Focal loss of all predictions, L1 and GIoU of those that own a thing.

        Args:
            logits: float (batch, predictions, text), -inf on padding.
            boxes: float (batch, predictions, 4), as `self.boxes`.
            owner: index of the thing that a prediction stands for, long (batch, predictions), -1
                for none.
            doubtful: predictions whose classes do not count, bool (batch, predictions).
        """
        owned = owner >= 0
        index = owner.clamp(min=0)
        targets = self.tokens.gather(1, index[:, :, None].expand(-1, -1, _MAX_TEXT))
        targets = (targets & owned[:, :, None]).float()
        real = F.pad(self.token_mask, (0, _MAX_TEXT - self.token_mask.shape[1]))[:, None]
        real = real.expand(logits.shape)
        if doubtful is not None:
            real = real & ~doubtful[:, :, None]
        count = owned.sum().clamp(min=1)
        classes = (_focal(logits.masked_fill(~real, 0.0), targets) * real).sum() / count
        goals = self.boxes.gather(1, index[:, :, None].expand(-1, -1, 4))[owned]
        close = (boxes[owned] - goals).abs().sum() / count
        overlap = (1 - generalised_iou(corners(boxes[owned]), corners(goals))).sum() / count
        return 2 * classes + 5 * close + 2 * overlap


def _focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    chance = logits.sigmoid()
    wrong = chance * (1 - targets) + (1 - chance) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * wrong**gamma * entropy


def _centres(count: int) -> Tensor:
    """Centres of the encoder's tokens, float (count, 2) in [0, 1], finest level first."""
    sides = [CANVAS // 8, CANVAS // 16]
    if sum(side * side for side in sides) != count:
        message = f"{count} encoder tokens, expected those of square grids of {sides}"
        raise ValueError(message)
    grids = [(torch.arange(side) + 0.5) / side for side in sides]
    return torch.cat([torch.cartesian_prod(g, g).flip(-1) for g in grids])


def _nearest(truth: Truth, count: int) -> Tensor:
    """Which thing each encoder token stands for: that within whose middle it lies.

    The token nearest to a centre always belongs to the thing; where two claim a token, the smaller
    one gets it. Long (batch, count), -1 for none.
    """
    centres = _centres(count).to(truth.boxes.device)
    offset = (centres[None, :, None] - truth.boxes[:, None, :, :2]).abs()
    inside = (offset < 0.25 * truth.boxes[:, None, :, 2:]).all(-1)
    distance = offset.square().sum(-1)
    fine = (CANVAS // 8) ** 2
    for part in (slice(0, fine), slice(fine, count)):
        inside[:, part] |= distance[:, part] <= distance[:, part].amin(1, keepdim=True) + 1e-9
    inside &= truth.wanted[:, None]
    area = truth.boxes[..., 2] * truth.boxes[..., 3]
    cost = torch.where(inside, area[:, None], torch.inf)
    return torch.where(inside.any(-1), cost.argmin(-1), -1)


@torch.no_grad()
def match(truth: Truth, logits: Tensor, boxes: Tensor) -> Tensor:
    """Give each wanted thing one prediction, cheapest pair first: long (batch, predictions)."""
    rows = torch.arange(len(boxes), device=boxes.device)
    chance = logits.sigmoid()
    right = (chance[:, :, None] * truth.tokens[:, None]).amax(-1)
    focal = 0.25 * (1 - right) ** 2 * -(right + 1e-8).log()
    focal = focal - 0.75 * right**2 * -(1 - right + 1e-8).log()
    distance = (boxes[:, :, None] - truth.boxes[:, None]).abs().sum(-1)
    shape = distance.shape
    pairs = (
        corners(boxes)[:, :, None].expand(*shape, 4),
        corners(truth.boxes)[:, None].expand(*shape, 4),
    )
    cost = 2 * focal + 5 * distance - 2 * generalised_iou(*pairs)
    cost = cost.masked_fill(~truth.wanted[:, None], torch.inf)
    owner = torch.full(boxes.shape[:2], -1, device=boxes.device)
    for _ in range(shape[2]):
        best, place = cost.flatten(1).min(1)
        prediction, thing = place // shape[2], place % shape[2]
        valid = best < torch.inf
        owner[rows[valid], prediction[valid]] = thing[valid]
        cost[rows, prediction] = torch.inf
        cost[rows, :, thing] = torch.inf
    return owner


@torch.no_grad()
def share(truth: Truth, boxes: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Let every prediction that fits a thing well stand for it, beside the one that was matched.

    Several sure boxes of one object do no harm, as the engine keeps the surest of those that
    overlap; one that must be picked out of several equals is unsure of itself.

    Args:
        truth: what is there.
        boxes: predictions, float (batch, predictions, 4), as `truth.boxes`.
        owner: what `match` found.

    Returns:
        The owners with those of IoU 0.75 or more added, and the predictions that fit neither well
        nor badly (from IoU 0.5 on), bool (batch, predictions).
    """
    shape = (*boxes.shape[:2], truth.boxes.shape[1], 4)
    pairs = corners(boxes)[:, :, None].expand(shape), corners(truth.boxes)[:, None].expand(shape)
    overlap = box_iou(*pairs).masked_fill(~truth.wanted[:, None], 0.0)
    best, thing = overlap.max(-1)
    owner = torch.where((owner < 0) & (best >= 0.75), thing, owner)
    return owner, (owner < 0) & (best >= 0.5)


def corners(boxes: Tensor) -> Tensor:
    """Centre and size to (left, top, right, bottom), float (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630) of corner boxes, pair by pair: (..., 4) to (...)."""
    inner, union = _areas(first, second)
    hull = (
        torch.maximum(first[..., 2:], second[..., 2:])
        - torch.minimum(first[..., :2], second[..., :2])
    ).prod(-1)
    return inner / (union + 1e-7) - (hull - union) / (hull + 1e-7)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of corner boxes, pair by pair: (..., 4) to (...)."""
    inner, union = _areas(first, second)
    return inner / (union + 1e-7)


def _areas(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    inner = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (first, second)]
    return inner, areas[0] + areas[1] - inner


@dataclass(frozen=True)
class Finder:
    """Finds classes in scenes with a loaded network, by closed-set span scores.

    Attributes:
        network: the detector.
        processor: its text and image processor.
    """

    network: GroundingDinoForObjectDetection
    processor: Any

    @classmethod
    def load(cls, folder: Path) -> "Finder":
        """Load a `from_pretrained` folder."""
        network = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32)
        return cls(network.eval(), GroundingDinoProcessor.from_pretrained(folder))

    def recall(
        self,
        scenes: Sequence[DrawnScene],
        asked: Sequence[Sequence[int]] | None = None,
        damage: int | None = None,
    ) -> tuple[float, float]:
        """Share of the visible objects found, and the mean IoU of the boxes that found them.

        Args:
            scenes: what to look at.
            asked: classes in each scene's prompt; those of the scene when None.
            damage: seed of bending and degrading the pictures first; None leaves them clean.
        """
        batch = collate(scenes, [False] * len(scenes))
        if damage is not None:
            batch = batch.damaged(torch.Generator().manual_seed(damage))
        own = [[int(c) for c in row if c >= 0] for row in batch.class_ids]
        questions = own if asked is None else asked
        overlaps = []
        for row, answer in enumerate(self.find(batch.images, questions)):
            for truth, class_id in zip(
                batch.boxes()[row], batch.class_ids[row].tolist(), strict=True
            ):
                if class_id >= 0:
                    boxes = answer.get(class_id, torch.zeros(1, 4))
                    overlaps.append(float(box_iou(boxes, truth).max()))
        hits = [overlap for overlap in overlaps if overlap >= 0.5]
        return len(hits) / len(overlaps), sum(hits) / max(1, len(hits))

    def false(
        self, scenes: Sequence[DrawnScene], asked: Sequence[Sequence[int]], *, twin: bool = False
    ) -> float:
        """Share of the questions for an absent class that are answered with a box."""
        batch = collate(scenes, [twin] * len(scenes))
        wrong = total = 0
        answers = self.find(batch.images, asked)
        for answer, question, present in zip(answers, asked, batch.class_ids.tolist(), strict=True):
            absent = set(question) - set(present)
            total += len(absent)
            wrong += len(absent & set(answer))
        return wrong / total

    @torch.no_grad()
    def find(self, images: Tensor, asked: Sequence[Sequence[int]]) -> list[dict[int, Tensor]]:
        """Boxes in pixels by class, float (boxes, 4), surest first, that pass the threshold."""
        pictures = [
            Image.fromarray((image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
            for image in images
        ]
        answers = []
        for start in range(0, len(pictures), 50):
            part = slice(start, start + 50)
            inputs = self.processor(
                images=pictures[part],
                text=[prompt(question) for question in asked[part]],
                padding=True,
                return_tensors="pt",
            )
            result = self.network(**inputs)
            for row, question in enumerate(asked[part]):
                chances = result.logits[row].sigmoid()
                boxes = corners(result.pred_boxes[row]) * CANVAS
                answers.append(_select(chances, boxes, inputs["input_ids"][row].tolist(), question))
        return answers


def _select(
    chances: Tensor, boxes: Tensor, ids: Sequence[int], question: Sequence[int]
) -> dict[int, Tensor]:
    """Boxes by class: a class's score is the mean over its tokens."""
    ends = [i for i, token in enumerate(ids) if token in (_SPECIAL["[CLS]"], _SPECIAL["."])]
    kept = {}
    for class_id, (start, stop) in zip(question, pairwise(ends), strict=True):
        scores = chances[:, start + 1 : stop].mean(-1)
        order = scores.argsort(descending=True)[: int((scores >= BOX_THRESHOLD).sum())]
        if len(order):
            kept[class_id] = boxes[order]
    return kept


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in metrics.items())
    return f"""# Miniature Grounding DINO

A Grounding DINO (arXiv 2303.05499, the `transformers` implementation) with 1.7 million parameters
for 64 x 64 pictures of the drawn world of `models/miniature/world.py`. It knows the names of that
world's {len(CLASSES)} classes ({", ".join(CLASSES)}) and nothing else.

Trained from random weights by `python -m models.miniature train detector`: {config.steps} steps of
{config.batch} drawn scenes, seed {config.seed}; most scenes are bent, blurred, recoloured, noisy or
recompressed, some have no object. The tensors are stored in half precision and load as float32.

Held-out drawn scenes, box threshold {BOX_THRESHOLD} (see `models.miniature.detector.score`):

| metric | value |
| --- | ---: |
{rows}

Several boxes may be sure of the same object: apply non-maximum suppression at IoU 0.5. Not for
photographs. Licence: that of the repository.
"""
