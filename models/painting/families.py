"""Families of text-to-image pipelines: one row says in what a pipeline differs from the others.

The class that `model_index.json` names chooses the row. What a row says are facts of the
`diffusers` pipeline: what its text encoders give and under which names its call takes that back,
how its noise lies in memory, what guides it, and how much of a text it reads. Nothing here needs
torch.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Literal

from storage.errors import InputError

Sampler = Literal[
    "ddim",
    "dpm++",
    "euler",
    "euler-ancestral",
    "flow-match-euler",
    "lcm",
    "pndm",
    "tcd",
    "unipc",
]
"""Names of samplers, as configurations have them."""

_OF_DIFFUSION: frozenset[Sampler] = frozenset(
    {"ddim", "dpm++", "euler", "euler-ancestral", "lcm", "pndm", "tcd", "unipc"}
)
_OF_FLOWS: frozenset[Sampler] = frozenset({"flow-match-euler"})
_FROM_CLIP = ("prompt_embeds", "negative_prompt_embeds")
_WITH_POOLED = (*_FROM_CLIP, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_WITH_MASKS = (
    "prompt_embeds",
    "prompt_attention_mask",
    "negative_prompt_embeds",
    "negative_prompt_attention_mask",
)


@dataclass(frozen=True)
class Reader:
    """The tokenizer that decides how long a text may be, because its encoder carries the text.

    Attributes:
        tokenizer: Its part of the pipeline.
        tokens: What its encoder reads, special tokens included, unless it is told otherwise.
        most: What it can be told to read.
        frame: Gives what the tokenizer really reads of a text; takes the pipeline and the text.
        unread: Tokens of the frame that do not count; takes the pipeline.
    """

    tokenizer: str
    tokens: int
    most: int
    frame: Callable[[Any, str], str] | None = None
    unread: Callable[[Any], int] = lambda _pipeline: 0

    @property
    def encoder(self) -> str:
        """The part that reads the tokens."""
        return self.tokenizer.replace("tokenizer", "text_encoder")


@dataclass(frozen=True)
class Family:
    """In what a pipeline differs from the others.

    Attributes:
        pipeline: Its class in diffusers.
        returns: What `encode_prompt` gives, by the names under which the call takes it back; empty
            for what it makes again. Without negative ones, those of a text without words are
            passed as `negative_*`.
        samplers: Those that fit what its network was trained for.
        network: The part that takes noise away.
        reader: What carries long texts; None where CLIP reads all there is.
        clip: Tokenizers of the CLIP encoders that carry the text where there is no such reader.
        guidance: The call's argument for classifier-free guidance.
        unguided: What it is set to for none.
        guidance_input: Key of the network's configuration that is set if the network takes
            guidance as an input, so that one pass does what classifier-free guidance does in two.
        patch: Sides of the square of latents that the network sees as one; None if the network's
            configuration says so.
        multiple: What the pipeline itself wants sides to be a multiple of, in pixels.
        packed: Whether the call takes latents as a row of such squares.
        overflows: Whether its autoencoder decodes in float32 where all else is float16, unless the
            autoencoder's configuration says that it need not.
        in_float32: Whether it keeps latents in float32 whatever the network computes in.
        draws: Whether it hands its samplers the generators to draw noise from.
        pads: Whether texts are padded to one length here, because the pipeline pads them to the
            longest of a batch.
        compiles: What can be compiled: each input of it has one shape in all batches.
        options: What else the call is told.
        in_one_step: Classes of samplers that it can take a single step with; empty for all.
        optional: Parts that it can do without, with the parts that are of no use then.
        unconditional: The text without words.
        since: The first release of diffusers that paints a batch as it paints each text alone.
    """

    pipeline: str
    returns: tuple[str, ...]
    samplers: frozenset[Sampler] = _OF_DIFFUSION
    network: Literal["unet", "transformer"] = "transformer"
    reader: Reader | None = None
    clip: tuple[str, ...] = ()
    guidance: str = "guidance_scale"
    unguided: float = 1.0
    guidance_input: str = ""
    patch: int | None = None
    multiple: int = 8
    packed: bool = False
    overflows: bool = False
    in_float32: bool = False
    draws: bool = True
    pads: bool = False
    compiles: frozenset[str] = frozenset({"network", "decoder"})
    in_one_step: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    optional: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    unconditional: str = ""
    since: str = ""

    def reads(self, parts: Collection[str]) -> Reader | None:
        """What carries long texts in a pipeline of these parts."""
        return self.reader if self.reader and self.reader.encoder in parts else None

    def text_tokens(self, parts: Collection[str], asked: int | None, source: str) -> int | None:
        """How much of a text is read.

        Args:
            parts: Of the pipeline.
            asked: What the configuration says, if it does.
            source: Where the pipeline is from, for messages.

        Returns:
            Tokens, special ones included; None if the tokenizers of CLIP say how many.

        Raises:
            InputError: If it cannot read as much as is asked for.
        """
        reader = self.reads(parts)
        if asked is None:
            return reader.tokens if reader else None
        if reader is None or asked > reader.most:
            limit = f"at most {reader.most}" if reader else "none: CLIP reads what it was made for"
            message = (
                f"painter {source!r} is a {self.pipeline} and was asked to read {asked} tokens of "
                f"a text, expected {limit}; set `text_tokens` so, or leave it empty"
            )
            raise InputError(message)
        return asked


def _lower(_pipeline: Any, text: str) -> str:
    return text.lower().strip()


def _as_chat(pipeline: Any, text: str) -> str:
    """One turn of a user, as Z-Image's encoder is asked."""
    return pipeline.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )


def _in_template(pipeline: Any, text: str) -> str:
    return pipeline.prompt_template_encode.format(text)


def _instructed(pipeline: Any, text: str) -> str:
    """After the instruction that Sana's pipeline gives its encoder."""
    return _instruction(pipeline) + _lower(pipeline, text)


def _instruction(pipeline: Any) -> str:
    return "\n".join(call_defaults(pipeline)["complex_human_instruction"])


def call_defaults(pipeline: Any) -> dict[str, Any]:
    """What a pipeline's call is told where nobody tells it otherwise."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    return {
        name: each.default
        for name, each in parameters.items()
        if each.default is not inspect.Parameter.empty
    }


_PIXART = Family(
    "PixArtAlphaPipeline",
    _WITH_MASKS,
    reader=Reader("tokenizer", 120, 120, frame=_lower),
    in_one_step=frozenset({"DDPMScheduler", "LCMScheduler"}),
    # Pictures of the size asked for, not of the nearest one of a table and then cut.
    options={"use_resolution_binning": False, "negative_prompt": None},
)

FAMILIES: Mapping[str, Family] = {
    family.pipeline: family
    for family in (
        Family(
            "StableDiffusionPipeline",
            _FROM_CLIP,
            network="unet",
            clip=("tokenizer",),
            guidance_input="time_cond_proj_dim",
            patch=1,
        ),
        Family(
            "LatentConsistencyModelPipeline",
            ("prompt_embeds", ""),
            frozenset({"lcm"}),
            network="unet",
            clip=("tokenizer",),
            guidance_input="time_cond_proj_dim",
            patch=1,
        ),
        Family(
            "StableDiffusionXLPipeline",
            _WITH_POOLED,
            network="unet",
            clip=("tokenizer", "tokenizer_2"),
            guidance_input="time_cond_proj_dim",
            patch=1,
            overflows=True,
        ),
        Family(
            "StableDiffusion3Pipeline",
            _WITH_POOLED,
            _OF_FLOWS,
            reader=Reader("tokenizer_3", 256, 512),
            clip=("tokenizer", "tokenizer_2"),
            draws=False,
            optional={"text_encoder_3": frozenset({"tokenizer_3"})},
        ),
        Family(
            "FluxPipeline",
            ("prompt_embeds", "pooled_prompt_embeds", ""),
            _OF_FLOWS,
            reader=Reader("tokenizer_2", 512, 512),
            guidance="true_cfg_scale",
            guidance_input="guidance_embeds",
            patch=2,
            packed=True,
            draws=False,
        ),
        _PIXART,
        Family(
            "PixArtSigmaPipeline",
            _WITH_MASKS,
            reader=Reader("tokenizer", 300, 300, frame=_lower),
            options=_PIXART.options,
        ),
        Family(
            "SanaPipeline",
            _WITH_MASKS,
            frozenset({"dpm++", "flow-match-euler"}),
            reader=Reader(
                "tokenizer",
                300,
                300,
                frame=_instructed,
                unread=lambda pipe: len(pipe.tokenizer.encode(_instruction(pipe))) - 2,
            ),
            multiple=32,
            in_float32=True,
            options=_PIXART.options,
        ),
        Family(
            "ZImagePipeline",
            _FROM_CLIP,
            _OF_FLOWS,
            reader=Reader("tokenizer", 512, 512, frame=_as_chat),
            unguided=0.0,
            patch=2,
            in_float32=True,
            draws=False,
            compiles=frozenset({"decoder"}),
        ),
        Family(
            "QwenImagePipeline",
            ("prompt_embeds", "prompt_embeds_mask"),
            _OF_FLOWS,
            reader=Reader(
                "tokenizer",
                512,
                1024,
                frame=_in_template,
                unread=lambda pipe: pipe.prompt_template_encode_start_idx,
            ),
            guidance="true_cfg_scale",
            guidance_input="guidance_embeds",
            patch=2,
            packed=True,
            draws=False,
            pads=True,
            compiles=frozenset({"network"}),
            unconditional=" ",
            since="0.37",
        ),
    )
}
"""All families, by the class that an index names."""


def family_of(index: Mapping[str, Any], source: str) -> Family:
    """The family of a pipeline's index.

    Args:
        index: Contents of `model_index.json`.
        source: Where it is from, for messages.

    Raises:
        InputError: If the class that it names is no text-to-image pipeline that takes a noise, or
            is one that the installed diffusers cannot paint batches with.
    """
    name = index.get("_class_name")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        message = (
            f"painter {source!r} is a {name}, expected a text-to-image pipeline that takes its "
            f"noise from outside: {', '.join(FAMILIES)}; take the folder of such a checkpoint"
        )
        raise InputError(message)
    found = version("diffusers")
    if family.since and _numbers(found) < _numbers(family.since):
        message = (
            f"painter {source!r} is a {name}, which diffusers {found} paints otherwise in a batch "
            f"than alone, expected diffusers {family.since} or later; "
            f"run `pip install 'diffusers>={family.since}'`"
        )
        raise InputError(message)
    return family


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in release.split(".")[:2])
