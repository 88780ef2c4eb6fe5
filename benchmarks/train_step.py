"""Loss and gradients of a training step beside the released way, at full size and miniature.

The peer sends image and counterfactual through the tower one after the other, prompts as tokens
like all others, and holds every loss map at full size; on a GPU it stays in float32 as the release
does. Neither makes data or moves weights. The limit is the time of our multiplications and
additions at the speed of one large matrix product, measured in the same run. Weights of the
full-size student are random: the figures need no download, and no class is learned.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.measurement import Row, compare, peak_megabytes, seconds_on
from benchmarks.results_file import write_results
from benchmarks.train_loss import plain_losses
from models.profiles import load_profile
from models.student.config import StudentConfig
from models.student.zegclip import ZegClip
from training.config import LossConfig
from training.losses import counterfactual_loss, mask_losses, weighted_sum
from training.sampling import BACKGROUND

LOSSES = LossConfig(ignored_pixels="negative")
TOLERANCES = {
    "cpu": {"loss_error": 1e-5, "gradient_error": 1e-4},
    "cuda": {"loss_error": 1e-2, "gradient_error": 1e-1},
}
"""Of ours against float32; on a GPU ours is in bfloat16."""


@dataclass(frozen=True)
class Case:
    """A student in training mode without dropout, and what one step is computed from."""

    student: ZegClip
    image: Tensor
    twin: Tensor
    text: Tensor
    targets: Tensor

    @classmethod
    def of(cls, student: ZegClip, batch: int, names: int, device: str) -> "Case":
        """Draw random images and unit text vectors, and targets with two names an image."""
        generator = torch.Generator().manual_seed(0)
        side = student.config.image_size
        shape = (batch, 3, side, side)
        image, twin = (
            torch.randint(256, shape, dtype=torch.uint8, generator=generator) for _ in range(2)
        )
        text = torch.randn(batch, names, student.embed_width, generator=generator)
        targets = torch.full((batch, side, side), BACKGROUND, dtype=torch.int16)
        targets[:, side // 5 : side // 2, side // 5 : side // 2] = 0
        targets[:, side // 2 : side // 4 * 3, side // 8 : side // 2] = 1
        moved = (part.to(device) for part in (image, twin, F.normalize(text, dim=-1), targets))
        return cls(student.to(device).train(), *moved)

    def ours(self) -> tuple[Tensor, Tensor]:
        """Do the step as `training.loop` does."""
        student = self.student
        bfloat16 = self.image.device.type == "cuda"
        with torch.autocast(self.image.device.type, torch.bfloat16, enabled=bfloat16):
            images = (student.normalise(pixels) for pixels in (self.image, self.twin))
            patches, cls, other = student.encode_pair(*images)
            logits = student.scores(patches, cls, self.text)
        terms = mask_losses(logits, self.targets, LOSSES)
        return self._learn({**terms, "counterfactual": counterfactual_loss(cls, other)})

    def released(self) -> tuple[Tensor, Tensor]:
        """Do the step as the release does."""
        student = self.student
        patches, cls = plain_encode(student, student.normalise(self.image))
        _, other = plain_encode(student, student.normalise(self.twin))
        terms = plain_losses(student.scores(patches, cls, self.text), self.targets)
        return self._learn({**terms, "counterfactual": counterfactual_loss(cls, other)})

    def _learn(self, terms: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss, and all gradients one behind another."""
        self.student.zero_grad(set_to_none=True)
        loss = weighted_sum(terms, LOSSES)
        loss.backward()
        gradients = (p.grad for _, p in self.student.trainable_parameters())
        return loss.detach(), torch.cat([g.flatten() for g in gradients if g is not None])


def plain_encode(student: ZegClip, image: Tensor) -> tuple[Tensor, Tensor]:
    """Embed normalised images with prompts that go through every layer as tokens."""
    vision: Any = student.vision
    tokens = vision.pre_layrnorm(vision.embeddings(image))
    count = student.config.num_prompt_tokens
    for layer, prompts in zip(vision.encoder.layers, student.prompts, strict=True):
        shown = student.prompt_projection(prompts).expand(len(image), -1, -1)
        found = layer(torch.cat([tokens[:, :1], shown, tokens[:, 1:]], dim=1), None)
        found = found if isinstance(found, Tensor) else found[0]
        tokens = torch.cat([found[:, :1], found[:, 1 + count :]], dim=1)
    joint = student.projection(vision.post_layernorm(student.prompt_norm(tokens)))
    joint = F.normalize(joint, dim=-1)
    side = image.shape[2] // student.patch_size
    return joint[:, 1:].transpose(1, 2).unflatten(2, (side, side)), joint[:, 0]


def full_student(side: int) -> ZegClip:
    """ZegCLIP on ViT-B/16 with random weights."""
    torch.manual_seed(0)
    tower = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        patch_size=16,
        image_size=side,
        projection_dim=512,
    )
    config = StudentConfig(clip="random weights", image_size=side, **_WITHOUT_DROPOUT)
    return ZegClip(CLIPVisionModelWithProjection(tower), config)


def miniature_student() -> ZegClip:
    """The student of the miniature profile."""
    torch.manual_seed(0)
    config = load_profile("miniature").student
    return ZegClip.from_config(config.model_copy(update=_WITHOUT_DROPOUT))


_WITHOUT_DROPOUT: dict[str, Any] = {"prompt_dropout": 0.0, "decoder_dropout": 0.0}


def count_flops(work: Callable[[], object]) -> int:
    """Multiplications and additions of all matrix products and convolutions."""
    # The fused attention of a CPU is not counted; its written-out form does the same products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def product_speed(device: str) -> float:
    """FLOP a millisecond of a large matrix product in the arithmetic of ours."""
    size, kind = (2048, torch.float32) if device == "cpu" else (8192, torch.bfloat16)
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    [row] = compare({"product": lambda: left @ right}, repeats=3, clock=seconds_on(device))
    return 2 * size**3 / row["best_ms"]


def measure(case: Case, device: str, speed: float) -> list[Row]:
    """Check that both ways agree, then take time and memory a pair."""
    batch = len(case.image)
    flops = count_flops(case.ours) / batch
    if device == "cuda":  # as the loop does
        case.student.compile_layers()
    (ours, gradient), (expected, expected_gradient) = case.ours(), case.released()
    errors = {
        "loss_error": ((ours - expected).abs() / expected).item(),
        "gradient_error": ((gradient - expected_gradient).norm() / gradient.norm()).item(),
    }
    for name, tolerance in TOLERANCES[device].items():
        assert errors[name] < tolerance, errors
    ways = {"ours": case.ours, "released way": case.released}
    rows = compare(ways, repeats=1, items=batch, clock=seconds_on(device))
    for row, work in zip(rows, ways.values(), strict=True):
        row["peak_mb"] = round(peak_megabytes(work, device) / batch)
    rows[0].update({name: float(f"{error:.1g}") for name, error in errors.items()})
    floor = flops / speed
    rows.append(
        {
            "what": "limit: its products",
            "best_ms": round(floor, 1),
            "times_ours": [round(floor / rows[0]["best_ms"], 3)],
            "gflop": round(flops / 1e9, 1),
        }
    )
    return rows


def main() -> None:
    """Measure the full-size student and the miniature."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=224)
    arguments = parser.parse_args()
    device = arguments.device
    speed = product_speed(device)
    full = Case.of(full_student(arguments.side), arguments.batch, 100, device)
    rows = [{"student": "ViT-B/16", **row} for row in measure(full, device, speed)]
    small = Case.of(miniature_student(), 16, 8, device)
    rows += [{"student": "miniature", **row} for row in measure(small, device, speed)]
    setting = {
        "batch": arguments.batch,
        "side": arguments.side,
        "names": 100,
        "miniature": {"batch": 16, "side": small.student.config.image_size, "names": 8},
        "product_gflop_per_s": round(speed / 1e6),
    }
    packages = ("magicseg-engine", "torch", "transformers")
    write_results("train_step", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
