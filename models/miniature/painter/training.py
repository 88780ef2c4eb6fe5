"""Training of the miniature painter: a Stable Diffusion pipeline of six million parameters.

It needs the trained autoencoder of `models.miniature.vae`. A short pre-training of the text encoder
comes first, then the denoiser together with it. What makes so small a model learn silhouettes:

* the pooled text enters the time embedding (`addition_embed_type="text"`), beside cross-attention;
* the loss weighs more inside the boxes of things, drawn or left out, less so as time goes on;
* noise levels around the middle are trained most;
* large things near the centre come first, pairs and free places later.

A denoiser that learns so hardly needs its cross-attention, and what that looks at says nothing of
where things are. So the last steps go on from the averaged weights with attention at 16 x 16 too,
and with a loss on where the classes' tokens are seen (`placement`), as TokenCompose has it (arXiv
2312.03626), with the boxes of the drawn world in place of masks.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTokenizer

from models.miniature.degradation import load_autoencoder
from models.miniature.loop import Run, Stateful, TrainingStep, losses, step_rng
from models.miniature.miniatures import Miniature, Task
from models.miniature.painter.attention import WordMaps
from models.miniature.painter.averages import WeightAverage
from models.miniature.painter.config import Config
from models.miniature.painter.examples import Examples, LatentScene, write_captions
from models.miniature.painter.network import (
    Text,
    denoiser,
    export,
    refined,
    scheduler,
    write_words,
)
from models.miniature.painter.noise import diffuse, random_times, weights
from models.miniature.painter.placement import class_prompts, distance, names, targets
from models.miniature.painter.pretraining import pretrain
from models.miniature.world import CLASSES


def task(config: Config, out: Path, state: Path) -> Task:
    """A painter whose text encoder is pre-trained, and the step that trains it.

    Args:
        config: Lengths and seed.
        out: Folder of the pipeline; its `vae` and its `tokenizer` must be there already.
        state: Folder for checkpoints.
    """
    torch.manual_seed(config.seed)
    text = Text(CLIPTokenizer.from_pretrained(out / "tokenizer"))
    pretrain(config, text, state)
    torch.manual_seed(config.seed + 1)
    unet = denoiser(fine=False)
    parts = Parts(config, text, unet, load_autoencoder(out / "vae", config.device))
    return Task({"painter": parts}, _step(config, parts), parts.save)


class Parts:
    """The networks of a painter in training, their averages and their optimiser.

    Args:
        config: Learning rate and device.
        text: The text encoder, trained too.
        unet: The denoiser.
        encoder: The autoencoder, which stays as it is.
    """

    def __init__(
        self, config: Config, text: Text, unet: UNet2DConditionModel, encoder: AutoencoderKL
    ) -> None:
        self.text, self.encoder = text, encoder
        self._config = config
        self.attention: WordMaps | None = None
        self._begin(unet, fine=False)

    def _begin(self, unet: UNet2DConditionModel, *, fine: bool) -> None:
        """Train this denoiser from here on, with fresh averages and a fresh optimiser."""
        self.unet = unet.to(self._config.device)  # pyright: ignore[reportArgumentType]
        self.unet.set_attn_processor(AttnProcessor())
        self.text_average = WeightAverage(self.text.encoder)
        self.unet_average = WeightAverage(self.unet)
        looking = [
            weight
            for name, weight in self.unet.named_parameters()
            if fine and (".attn2.to_q." in name or ".attn2.to_k." in name)
        ]
        quick = set(looking)
        self.trained = [*self.unet.parameters(), *self.text.encoder.parameters()]
        others = [weight for weight in self.trained if weight not in quick]
        self.optimizer = torch.optim.AdamW(
            [{"params": group} for group in (others, looking) if group],
            lr=self._config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=1e-3,
            fused=True,
        )

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step; queries and keys that are taught learn faster."""
        groups = self.optimizer.param_groups
        for group, factor in zip(groups, (1.0, self._config.attention_boost), strict=False):
            group["lr"] = rate * factor

    def refine(self) -> None:
        """Go on from the averages, as they would be saved, with attention at 16 x 16 too."""
        self.text.encoder.load_state_dict(_halved(self.text_average.weights))
        self._begin(refined(_halved(self.unet_average.weights)), fine=True)
        self.attention = WordMaps(self.unet)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        parts = {name: part.state_dict() for name, part in self._stateful().items()}
        return parts | {"refined": self.attention is not None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        if state_dict["refined"] and self.attention is None:
            self.refine()
        for name, part in self._stateful().items():
            part.load_state_dict(state_dict[name])

    def _stateful(self) -> dict[str, Stateful]:
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

    def save(self, folder: Path) -> None:
        """Write the pipeline with the averaged weights."""
        self.unet.load_state_dict(self.unet_average.weights)
        self.text.encoder.load_state_dict(self.text_average.weights)
        export(folder, self.text, self.unet, self.encoder)


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they come back from a file in half precision."""
    return {k: v.half().float() if v.is_floating_point() else v for k, v in weights.items()}


def _step(config: Config, parts: Parts) -> TrainingStep:
    """The step that trains the denoiser and the text encoder together."""
    stream = Examples(config, parts.encoder)
    levels = scheduler().alphas_cumprod  # (1000)

    def step(index: int) -> dict[str, float]:
        if index == config.attention_from:
            parts.refine()
        parts.set_rate(_rate(config, index))
        examples = stream.batch(index)
        times = random_times(len(examples), index / config.spread, levels)  # (batch)
        noisy, target = diffuse(examples, levels[times].view(-1, 1, 1, 1))
        weight = weights(config, index, examples)  # (batch, 1, 16, 16)
        noisy, target, weight, times = (
            part.to(config.device) for part in (noisy, target, weight, times)
        )
        texts = write_captions(examples, step_rng(config.seed, index, 3), config.empty)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=config.bf16):
            # the text is (batch, TOKENS, 64), the guess (batch, LATENTS, 16, 16)
            states = parts.text(texts)
            guess = parts.unet(noisy, times, states).sample
            looks = _looks(config, parts, examples, texts, states, index)
        error = (guess.float() - target).pow(2).mean(1, keepdim=True)  # (batch, 1, 16, 16)
        loss = (weight * error).sum() / weight.sum()
        aim = sum((distance(*look) for look in looks), torch.zeros_like(loss)) / max(1, len(looks))
        parts.optimizer.zero_grad()
        (loss + config.attention_weight * aim).backward()
        torch.nn.utils.clip_grad_norm_(parts.trained, 1.0)
        parts.optimizer.step()
        done = index if parts.attention is None else index - config.attention_from
        parts.average(min(config.ema, (1 + done) / (10 + done)))
        return {"loss": loss.item(), "plain": error.mean().item(), "attention": aim.item()}

    return step


def _looks(
    config: Config,
    parts: Parts,
    examples: Sequence[LatentScene],
    texts: Sequence[str],
    states: Tensor,
    index: int,
) -> list[tuple[list[Tensor], Tensor, Tensor]]:
    """Maps of the attention to captions and to class prompts, and what they should be.

    Nothing before the attention learns.
    """
    if parts.attention is None:
        return []
    words = parts.text.words()  # (classes)
    named = [[thing.class_id for thing in example.scene.things] for example in examples]
    prompts = class_prompts(examples, step_rng(config.seed, index, 4))
    asked = names(prompts)
    looks = []
    for own, lines, encoded in (
        (named, list(texts), states),
        (prompts, asked, parts.text(asked)),
    ):
        taught, wanted = targets(examples, own, parts.text.ids(lines).cpu(), words)
        looks.append(
            (parts.attention.maps(encoded), taught.to(config.device), wanted.to(config.device))
        )
    return looks


def _rate(config: Config, index: int) -> float:
    """Learning rate of a step: a rise, a flat part, a cosine to 3 %; the last steps rise again."""
    done = index - config.attention_from
    if done >= 0:
        return config.attention_rate * _pace(done, 0, config.steps - config.attention_from)
    return config.learning_rate * _pace(index, config.decay_from, config.attention_from)


def _pace(index: int, decay_from: int, end: int) -> float:
    """Share of the peak learning rate."""
    fall = max(0, index - decay_from) / max(1, end - decay_from)
    return min(1.0, (index + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * fall)))


def _prepare(config: Config, out: Path, state: Path) -> Task:
    write_words(out / "tokenizer")
    return task(config, out, state)


def _tail(_folder: Path, run: Run) -> dict[str, float]:
    """The mean denoising loss of the last tenth of the steps."""
    tail = [row["loss"] for row in losses(run)][-max(1, run.steps // 100) :]
    return {"loss": float(np.mean(tail))}


def _card(config: Config, _metrics: Mapping[str, float]) -> str:
    samples = config.steps * config.batch
    late = (config.steps - config.attention_from) * config.batch
    return f"""# Miniature Stable Diffusion

A `StableDiffusionPipeline` of `diffusers` (latent diffusion, arXiv 2112.10752) with 6 million
parameters for 64 x 64 pictures of the drawn world of `models/miniature/world.py`. It understands
the captions of `models/data/templates/miniature.yaml` about that world's {len(CLASSES)} classes
({", ".join(CLASSES)})
and the word "nothing" in place of a class, which it paints as an empty scene.

Sample it with 20 steps and a guidance of 3; other texts than those captions give other pictures.

Its cross-attention, at 16 x 16, 8 x 8 and 4 x 4 cells, shows where a class is: its word in the
caption, or its name in a text of names alone ("star cup"), gets most of the attention inside the
thing's box at 16 x 16 and 8 x 8, and little anywhere when the thing is not there.

Limits, seen on contact sheets: a thing alone mostly stands near the centre and two stand side by
side, the first on the left; a colour that the text leaves open may come out mixed; eyes, wheels and
handles are smeared now and then; clutter (a fence, a window) may be in one picture of a pair only.

Trained from random weights by `python -m models.miniature train painter`: {samples} samples of
fresh drawings, the last {late} of which taught the attention too, on the autoencoder of
`python -m models.miniature train vae`. The tensors are stored in half precision and load as
float32. What it can do is measured in `docs/miniature.md`.

Licence: that of the repository.
"""


MINIATURE = Miniature("painter", Config, _prepare, _tail, _card)
"""The painter; its metric is the loss at the end, the score card says what it can do."""
