"""How the miniature painter is trained."""

from dataclasses import dataclass

from models.miniature.loop import Training


@dataclass(frozen=True)
class Config(Training):
    """How the painter is trained, beside what every training is told.

    Attributes:
        text_steps: Steps of the text encoder's pre-training.
        batch: Scenes a step.
        chunk: Scenes that are drawn ahead; a multiple of 64.
        learning_rate: Peak; constant until `decay_from`, then a cosine to 3 %.
        decay_from: Step at which the learning rate begins to fall.
        attention_steps: The last steps, in which the cross-attention learns where things are; the
            network gets cross-attention at 16 x 16 for them.
        attention_rate: Peak of the learning rate in those steps; a cosine to 3 %.
        attention_boost: How much faster the queries and keys of the cross-attention learn than the
            rest: to tell classes apart they have to change most.
        attention_weight: Weight of the attention's loss beside that of denoising.
        unpainted: Share of the scenes of those steps in which one thing that the caption names is
            not drawn: attention must learn from the picture what is there. The denoiser does not
            learn from them.
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
        ema: Decay of the averaged weights, which are the ones that are saved.
        bf16: Compute in bfloat16 where that is safe.
    """

    seed: int = 1
    steps: int = 13_600
    text_steps: int = 400
    batch: int = 32
    chunk: int = 2048
    learning_rate: float = 1e-3
    decay_from: int = 6_000
    attention_steps: int = 1_600
    attention_rate: float = 1e-3
    attention_boost: float = 5.0
    attention_weight: float = 1.0
    unpainted: float = 0.15
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

    @property
    def attention_from(self) -> int:
        """Step from which the attention learns; 0 in a run of fewer steps than that takes."""
        return max(0, self.steps - self.attention_steps)
