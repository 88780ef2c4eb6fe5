"""Training of the miniature painter: a Stable Diffusion pipeline of six million parameters.

It needs the trained autoencoder of `models.miniature.vae`. A short pre-training of the text encoder
comes first, then the denoiser together with it. What makes so small a model learn silhouettes:

* the pooled text enters the time embedding (`addition_embed_type="text"`), beside cross-attention;
* the loss weighs more inside the boxes of things, drawn or left out, less so as time goes on;
* noise levels around the middle are trained most;
* large things near the centre come first, pairs and free places later.
"""

import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.miniature import captions, loop, vae
from models.miniature.degradation import load_autoencoder
from models.miniature.tokens import write_tokenizer
from models.miniature.world import BACKGROUNDS, CLASSES, COLOURS, SIZES, Scene, sample_scene

logger = logging.getLogger(__name__)

TOKENS = 24
"""Longest caption in tokens, start and end included."""


@dataclass(frozen=True)
class Config(loop.Training):
    """How the painter is trained, beside what every training is told.

    Attributes:
        text_steps: Steps of the text encoder's pre-training.
        batch: Scenes a step.
        chunk: Scenes that are drawn ahead; a multiple of 64.
        learning_rate: Peak; constant until `decay_from`, then a cosine to 3 %.
        decay_from: Step at which the learning rate begins to fall.
        pairs_from: Step after which scenes with two things appear.
        pairs: Share of the scenes with two things from then on.
        hard_from: Step after which scenes grow harder.
        settled: Step from which difficulty and box weight stay as they are.
        spread: Step from which noise levels are as wide as they get.
        hard: Difficulty from `settled` on (see `models.miniature.world.sample_scene`).
        pairs_hard: Highest difficulty of scenes with two things, which are hard enough as they are:
            near 0 the first thing stands left of the second.
        twins: Share of the scenes whose things are left out and called "nothing".
        box_weight: First and last weight of the loss inside the boxes of things.
        empty: Share of empty captions, for classifier-free guidance.
        ema: Decay of the averaged weights, which are the ones that are kept.
        bf16: Compute in bfloat16 where that is safe.
    """

    seed: int = 1
    steps: int = 12_000
    text_steps: int = 400
    batch: int = 32
    chunk: int = 2048
    learning_rate: float = 1e-3
    decay_from: int = 6_000
    pairs_from: int = 1800
    pairs: float = 0.4
    hard_from: int = 2250
    settled: int = 4050
    spread: int = 4500
    hard: float = 0.35
    pairs_hard: float = 0.12
    twins: float = 0.22
    box_weight: tuple[float, float] = (8.0, 2.0)
    empty: float = 0.1
    ema: float = 0.998
    bf16: bool = True


_REPEATS = 4


class Text(nn.Module):
    """The text encoder with its tokenizer."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            projection_dim=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=len(tokenizer) - 2,
            eos_token_id=len(tokenizer) - 1,
            pad_token_id=len(tokenizer) - 1,
        )
        self.encoder = CLIPTextModel(config)

    def ids(self, texts: list[str]) -> Tensor:
        """Token ids, padded; shape (texts, TOKENS)."""
        kinds = {"padding": "max_length", "truncation": True, "max_length": TOKENS}
        return self.tokenizer(texts, return_tensors="pt", **kinds).input_ids.to(self.encoder.device)

    def forward(self, texts: list[str]) -> Tensor:
        """The states of all tokens; shape (texts, TOKENS, 64)."""
        return self.encoder(self.ids(texts)).last_hidden_state


def denoiser() -> UNet2DConditionModel:
    """A U-Net on 16 x 16 latents with cross-attention at 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=vae.LATENTS,
        out_channels=vae.LATENTS,
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=64,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, predicting velocities, sampled with trailing steps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


class Average:
    """An exponential moving average of a module's weights."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module, decay: float) -> None:
        """Move towards the present weights."""
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self.weights

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Take averaged weights over."""
        for name, value in state_dict.items():
            self.weights[name].copy_(value)


@dataclass(frozen=True)
class _Example:
    scene: Scene
    absent: bool
    latent: Tensor
    inside: Tensor


def _difficulty(config: Config, step: int) -> tuple[float, float]:
    """The share of pairs and the difficulty of scenes at a step."""
    ramp = (step - config.hard_from) / (config.settled - config.hard_from)
    pairs = config.pairs if step >= config.pairs_from else 0.0
    return pairs, config.hard * min(1.0, max(0.0, ramp))


class Scenes:
    """Fresh scenes, drawn and encoded a chunk ahead; each is used four times with other noise."""

    def __init__(self, config: Config, encoder: AutoencoderKL) -> None:
        self.config, self.encoder = config, encoder
        self._chunk, self._examples = -1, []

    def batch(self, step: int) -> list[_Example]:
        """The examples of one step."""
        span = self.config.chunk * _REPEATS // self.config.batch
        if step // span != self._chunk:
            self._chunk = step // span
            self._examples = list(self._draw(self._chunk, self._chunk * span))
        first = (step % span) * self.config.batch
        order = [index for part in range(_REPEATS) for index in self._shuffled(10 + part)]
        return [self._examples[index] for index in order[first : first + self.config.batch]]

    def _scene(self, rng: np.random.Generator, pairs: float, hard: float) -> Scene:
        if rng.random() < pairs:
            return sample_scene(rng, num_things=2, hard=min(hard, self.config.pairs_hard))
        return sample_scene(rng, hard=hard)

    def _shuffled(self, stream: int) -> list[int]:
        rng = loop.step_rng(self.config.seed, self._chunk, stream)
        return rng.permutation(self.config.chunk).tolist()

    def _draw(self, chunk: int, step: int) -> Iterator[_Example]:
        rng = loop.step_rng(self.config.seed, chunk, 1)
        pairs, hard = _difficulty(self.config, step)
        for _ in range(self.config.chunk // 64):
            scenes = [self._scene(rng, pairs, hard) for _ in range(64)]
            absent = rng.random(64) < self.config.twins
            images = vae.pictures(scenes, things=(~absent).tolist())
            with torch.no_grad():
                latents = vae.encode(self.encoder, images.to(self.encoder.device)).cpu()
            inside = [vae.inside(scene, cell=4) for scene in scenes]
            for parts in zip(scenes, absent.tolist(), latents, inside, strict=True):
                yield _Example(*parts)


def _words(examples: list[_Example], rng: np.random.Generator, empty: float) -> list[str]:
    """A caption for each example; that of the twin where the things are left out."""
    texts = []
    for example in examples:
        text, twin, _ = captions.caption(example.scene, rng)
        texts.append("" if rng.random() < empty else twin if example.absent else text)
    return texts


def _pretrain(config: Config, text: Text, state: Path) -> None:
    """Teach the mean of the text states which things, colours, sizes and places a text names."""
    classes, colours = len(CLASSES) + 2, len(COLOURS) + 1
    sizes = (classes, classes, colours, colours, len(SIZES) + 1, len(BACKGROUNDS) + 1)
    heads = nn.ModuleList(nn.Linear(64, size) for size in sizes)
    both = nn.ModuleList([text.encoder, heads]).to(config.device)
    optimizer = torch.optim.AdamW(both.parameters(), lr=3e-3, weight_decay=1e-3)

    def step(index: int) -> dict[str, float]:
        rng = loop.step_rng(config.seed, index, 2)
        texts, labels = [], []
        for _ in range(64):
            scene = sample_scene(rng, num_things=int(rng.integers(1, 3)), hard=1.0)
            texts.append(captions.caption(scene, rng)[rng.random() < config.twins])
            labels.append(_labels(texts[-1].split()))
        pooled = text(texts).mean(1)
        target = torch.tensor(labels, device=config.device)
        parts = [F.cross_entropy(head(pooled), target[:, i]) for i, head in enumerate(heads)]
        loss = torch.stack(parts).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    run = loop.Run("text", state, config.text_steps, config.seed)
    loop.fit(run, {"text": text.encoder, "heads": heads, "optimizer": optimizer}, step)


def _labels(words: list[str]) -> list[int]:
    """Numbers of first and second class, first and second colour, size and place; 0 is unnamed."""
    kinds = (*CLASSES, captions.NOTHING)
    classes = [1 + kinds.index(word) for word in words if word in kinds] + [0, 0]
    colours = [1 + COLOURS.index(word) for word in words if word in COLOURS] + [0, 0]
    size = next((1 + SIZES.index(word) for word in words if word in SIZES), 0)
    keys = dict(zip(BACKGROUNDS, (p.split()[-1] for p in captions.places().values()), strict=True))
    place = next((1 + i for i, key in enumerate(keys.values()) if key in words), 0)
    return [*classes[:2], *colours[:2], size, place]


def train(config: Config, out: Path, state: Path) -> dict[str, float]:
    """Train the text encoder and the denoiser, and save a `StableDiffusionPipeline`.

    Args:
        config: Lengths and seed.
        out: Folder of the pipeline (`from_pretrained`); its `vae` must be there already.
        state: Folder for checkpoints.

    Returns:
        `loss`, the mean denoising loss of the last tenth of the steps.
    """
    torch.set_num_threads(config.threads)
    write_tokenizer(out / "tokenizer", captions.vocabulary(), TOKENS)
    parts, step = task(config, out, state)
    run = loop.Run("painter", state, config.steps, config.seed, save_every=250)
    spent = loop.fit(run, parts.stateful(), step)
    parts.unet.load_state_dict(parts.unet_average.weights)
    parts.text.encoder.load_state_dict(parts.text_average.weights)
    export(out, parts)
    tail = [row["loss"] for row in loop.losses(run)][-max(1, config.steps // 100) :]
    metrics = {"loss": float(np.mean(tail))}
    loop.record(out, loop.Outcome(config, metrics, spent, _card(config)), run)
    return metrics


def task(config: Config, folder: Path, state: Path) -> tuple["Parts", loop.Step]:
    """All parts of the painter before its denoiser is trained, and the step that trains it.

    Args:
        config: Lengths and seed.
        folder: Holds the trained autoencoder (`vae`) and the `tokenizer`.
        state: Folder for the checkpoints of the text encoder's pre-training.
    """
    torch.manual_seed(config.seed)
    text = Text(CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    _pretrain(config, text, state)
    torch.manual_seed(config.seed + 1)
    unet = denoiser().to(config.device)  # pyright: ignore[reportArgumentType]
    unet.set_attn_processor(AttnProcessor())
    encoder = load_autoencoder(folder / "vae", config.device)
    parts = Parts(config, text, unet, encoder)
    return parts, _step(config, parts)


class Parts:
    """The networks of a painter in training, their averages and their optimizer."""

    def __init__(
        self, config: Config, text: Text, unet: UNet2DConditionModel, encoder: AutoencoderKL
    ) -> None:
        self.text, self.unet, self.encoder = text, unet, encoder
        self.text_average, self.unet_average = Average(text.encoder), Average(unet)
        self.trained = [*unet.parameters(), *text.encoder.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-3, fused=True
        )

    def stateful(self) -> dict[str, loop.Stateful]:
        """What a checkpoint holds."""
        return {
            "unet": self.unet,
            "text": self.text.encoder,
            "optimizer": self.optimizer,
            "unet_average": self.unet_average,
            "text_average": self.text_average,
        }

    def average(self, decay: float) -> None:
        """Move the averages towards the present weights."""
        self.unet_average.update(self.unet, decay)
        self.text_average.update(self.text.encoder, decay)


def export(out: Path, parts: Parts) -> None:
    """Write the pipeline in half precision, which costs nothing that can be seen."""
    networks: dict[str, Any] = {
        "vae": parts.encoder,
        "text_encoder": parts.text.encoder,
        "tokenizer": parts.text.tokenizer,
        "unet": parts.unet,
        "scheduler": scheduler(),
    }
    networks |= dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
    pipeline = StableDiffusionPipeline(**networks, requires_safety_checker=False)
    with TemporaryDirectory() as folder:
        saved = Path(folder) / "painter"  # a folder that others than its owner may read
        pipeline.to("cpu", torch.float16).save_pretrained(saved)
        # the autoencoder is there, and others may be reading it; the tokenizer comes from its words
        others = shutil.ignore_patterns("vae", "tokenizer")
        shutil.copytree(saved, out, ignore=others, dirs_exist_ok=True)
    write_tokenizer(out / "tokenizer", captions.vocabulary(), TOKENS)


def _step(config: Config, parts: Parts) -> loop.Step:
    """The step that trains the denoiser and the text encoder together."""
    scenes = Scenes(config, parts.encoder)
    levels = scheduler().alphas_cumprod

    def step(index: int) -> dict[str, float]:
        parts.optimizer.param_groups[0]["lr"] = config.learning_rate * _rate(config, index)
        examples = scenes.batch(index)
        times = _times(len(examples), index / config.spread, levels)
        noisy, target = _diffuse(examples, levels[times].view(-1, 1, 1, 1))
        weight = _weight(config, index, examples)
        noisy, target, weight, times = (
            part.to(config.device) for part in (noisy, target, weight, times)
        )
        words = _words(examples, loop.step_rng(config.seed, index, 3), config.empty)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=config.bf16):
            guess = parts.unet(noisy, times, parts.text(words)).sample
        error = (guess.float() - target).pow(2).mean(1, keepdim=True)
        loss = (weight * error).sum() / weight.sum()
        parts.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.trained, 1.0)
        parts.optimizer.step()
        parts.average(min(config.ema, (1 + index) / (10 + index)))
        return {"loss": loss.item(), "plain": error.mean().item()}

    return step


def _diffuse(examples: list[_Example], level: Tensor) -> tuple[Tensor, Tensor]:
    """Latents with noise at the given levels (share of the signal's power), and the velocities."""
    latents = torch.stack([example.latent for example in examples])
    noise = torch.randn_like(latents)
    noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
    return noisy, level.sqrt() * noise - (1 - level).sqrt() * latents


def _weight(config: Config, index: int, examples: list[_Example]) -> Tensor:
    """Weights of the loss, shape (examples, 1, 16, 16); 1 outside the boxes of things."""
    first, last = config.box_weight
    extra = first + (last - first) * min(1.0, index / config.settled) - 1
    return 1 + extra * torch.stack([example.inside for example in examples])


def _rate(config: Config, index: int) -> float:
    """Warm-up, flat, cosine to 3 %: the share of the peak learning rate."""
    falling = max(1, config.steps - config.decay_from)
    fall = max(0, index - config.decay_from) / falling
    return min(1.0, (index + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * fall)))


def _times(count: int, done: float, levels: Tensor) -> Tensor:
    """Time steps whose log signal-to-noise ratio is normal around the middle of the range."""
    wide = min(1.0, done)
    ratio = (-1 + 0.3 * wide) + (1.3 + 0.5 * wide) * torch.randn(count)
    table = (levels / (1 - levels)).log()
    return (len(table) - torch.searchsorted(table.flip(0), ratio)).clamp(0, len(table) - 1)


def _card(config: Config) -> str:
    samples = config.steps * config.batch
    return f"""# Miniature Stable Diffusion

A `StableDiffusionPipeline` of `diffusers` (latent diffusion, arXiv 2112.10752) with 6 million
parameters for 64 x 64 pictures of the drawn world of `models/miniature/world.py`. It understands
the captions of `models/data/templates/miniature.yaml` about that world's {len(CLASSES)} classes
({", ".join(CLASSES)})
and the word "nothing" in place of a class, which it paints as an empty scene.

Sample it with 20 steps and a guidance of 3; other texts than those captions give other pictures.

Limits, seen on contact sheets: a thing alone mostly stands near the centre and two stand side by
side, the first on the left; a colour that the text leaves open may come out mixed; eyes, wheels and
handles are smeared now and then; clutter (a fence, a window) may be in one picture of a pair only.

Trained from random weights by `python -m models.miniature train painter`: {samples} samples of
fresh drawings, on the autoencoder of `python -m models.miniature train vae`. The tensors are stored
in half precision and load as float32. What it can do is measured in `docs/miniature.md`.

Licence: that of the repository.
"""
