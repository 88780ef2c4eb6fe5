"""The registry: which kinds of model each role has, and how one is built.

Adding a kind is a module with its configuration and its class, and a row in `KINDS`. Profiles, the
recipe, resident models, `magicseg doctor` and the table in `docs/profiles.md` read the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, Discriminator, Tag

from models.labelling.attention.config import DatasetDiffusionConfig, DiffuMaskConfig
from models.labelling.config import (
    DetectorConfig,
    MmGroundingDinoConfig,
    Owlv2Config,
    Sam2Config,
    SamHqConfig,
    SegmenterConfig,
)
from models.labelling.original.config import OriginalDetectorConfig, OriginalSegmenterConfig
from models.labelling.sam3_config import Sam3Config
from models.loading import LOADING, importing
from models.painting.config import InpainterConfig, PainterConfig
from models.protocols import TokenCounter
from models.student.scout_config import ClipScoutConfig
from models.writing.caption_writer import CaptionWriterConfig
from models.writing.chat_config import ChatWriterConfig
from models.writing.writers import TemplateWriterConfig
from storage.errors import InputError

__all__ = ["KINDS", "Kind", "Need", "Role", "build", "build_tokens"]


class Role(StrEnum):
    """What a model does for a sample, in the order in which a sample meets it."""

    WRITER = "writer"
    PAINTER = "painter"
    LABELLER = "labeller"
    DETECTOR = "detector"
    SEGMENTER = "segmenter"
    INPAINTER = "inpainter"
    SCOUT = "scout"


class Need(StrEnum):
    """What a model or a stage takes up while it works."""

    DEVICE = "device"
    """A GPU, or the CPU in its place: one caller at a time."""
    SERVICE = "paid service"
    """Calls that may cost money and are written into the dataset's ledger."""
    DISK = "disk"
    """Nothing but reading and writing the dataset."""


@dataclass(frozen=True)
class Kind:
    """One way to fill a role.

    Attributes:
        role: What it does.
        config: Its configuration, importable without torch. `kind` has the kind's name as its
            default; `identity()` says what the outputs depend on, and becomes part of the keys of
            what is made; `check()` looks for everything that is needed without loading it, and
            says what it found or raises InputError with the way to get it.
        model: `module:class` of the model, imported when one is built. The class takes the
            configuration, and the dataset's ledger if the kind needs a service.
        need: What it takes up while it works.
        about: What it is, in a few words.
        tokens: For painters: `module:class` that counts a text's tokens without the painter.
    """

    role: Role
    config: type[BaseModel]
    model: str
    need: Need
    about: str
    tokens: str = ""

    @property
    def name(self) -> str:
        """The kind's name, as profiles write it."""
        return self.config.model_fields["kind"].default


KINDS: tuple[Kind, ...] = (
    Kind(
        Role.WRITER,
        TemplateWriterConfig,
        "models.writing.writers:TemplateWriter",
        Need.DISK,
        "fills a grammar of templates: offline and free",
    ),
    Kind(
        Role.WRITER,
        ChatWriterConfig,
        "models.writing.chat:ChatWriter",
        Need.SERVICE,
        "asks a language model behind an OpenAI-compatible endpoint",
    ),
    Kind(
        Role.WRITER,
        CaptionWriterConfig,
        "models.writing.caption_writer:CaptionWriter",
        Need.DISK,
        "takes captions from a file, filtered as DiffuMask does",
    ),
    Kind(
        Role.PAINTER,
        PainterConfig,
        "models.painting.painters:DiffusionPairPainter",
        Need.DEVICE,
        "a text-to-image pipeline of `diffusers`",
        tokens="models.painting.tokens:PipelineTokens",
    ),
    Kind(
        Role.LABELLER,
        Sam3Config,
        "models.labelling.sam3:Sam3",
        Need.DEVICE,
        "SAM 3 of `transformers`, with either text encoder: boxes and masks in one pass",
    ),
    Kind(
        Role.LABELLER,
        DiffuMaskConfig,
        "models.labelling.attention.labellers:DiffuMask",
        Need.DEVICE,
        "masks from where the painter looked for the words of a class (DiffuMask)",
    ),
    Kind(
        Role.LABELLER,
        DatasetDiffusionConfig,
        "models.labelling.attention.labellers:DatasetDiffusion",
        Need.DEVICE,
        "masks from class-prompt attention, spread by self-attention (Dataset Diffusion)",
    ),
    Kind(
        Role.DETECTOR,
        DetectorConfig,
        "models.labelling.detectors:GroundingDino",
        Need.DEVICE,
        "Grounding DINO of `transformers`, asked for a closed set of phrases",
    ),
    Kind(
        Role.DETECTOR,
        MmGroundingDinoConfig,
        "models.labelling.detectors:MmGroundingDino",
        Need.DEVICE,
        "MM-Grounding-DINO of `transformers`, asked as Grounding DINO is",
    ),
    Kind(
        Role.DETECTOR,
        Owlv2Config,
        "models.labelling.owlv2:Owlv2",
        Need.DEVICE,
        "OWLv2 of `transformers`, asked one text a phrase",
    ),
    Kind(
        Role.DETECTOR,
        OriginalDetectorConfig,
        "models.labelling.original.detector:OriginalGroundingDino",
        Need.DEVICE,
        "Grounding DINO of its authors' package `groundingdino-py`, from their checkpoint",
    ),
    Kind(
        Role.SEGMENTER,
        SegmenterConfig,
        "models.labelling.segmenters:Sam",
        Need.DEVICE,
        "SAM of `transformers`, prompted with boxes",
    ),
    Kind(
        Role.SEGMENTER,
        SamHqConfig,
        "models.labelling.sam_hq:SamHq",
        Need.DEVICE,
        "SAM-HQ of `transformers`, with finer borders",
    ),
    Kind(
        Role.SEGMENTER,
        Sam2Config,
        "models.labelling.sam2:Sam2",
        Need.DEVICE,
        "SAM 2 of `transformers`, on images",
    ),
    Kind(
        Role.SEGMENTER,
        OriginalSegmenterConfig,
        "models.labelling.original.segmenter:OriginalSam",
        Need.DEVICE,
        "SAM of its authors' package `segment-anything`, from their checkpoint",
    ),
    Kind(
        Role.INPAINTER,
        InpainterConfig,
        "models.painting.inpainting:DiffusionInpainter",
        Need.DEVICE,
        "a pipeline of `diffusers` that paints a region of an image over",
    ),
    Kind(
        Role.SCOUT,
        ClipScoutConfig,
        "models.student.scout:ClipScout",
        Need.DEVICE,
        "a CLIP that says which classes windows of an image are like",
    ),
)
"""All kinds; the first of a role is the one that a configuration without `kind` means."""


def kinds_of(role: Role) -> list[Kind]:
    """The kinds of a role, the default one first."""
    return [kind for kind in KINDS if kind.role is role]


def kind_of(config: object) -> Kind:
    """The kind that a configuration belongs to.

    Raises:
        InputError: If its class is in no row.
    """
    for kind in KINDS:
        if type(config) is kind.config:
            return kind
    message = f"{type(config).__name__} is no configuration of a kind: add a row to models.registry"
    raise InputError(message)


def build(config: Any, *resources: Any) -> Any:
    """Build the model that a configuration describes; threads that build take turns.

    Args:
        config: Of any kind.
        resources: What the kind's class takes besides: the ledger for a paid service.

    Raises:
        InputError: If weights, a key or a package are missing.
    """
    with LOADING:
        return _load(kind_of(config).model)(config, *resources)


def build_tokens(config: Any) -> TokenCounter:
    """Build what counts the tokens of texts for a painter, without loading the painter.

    Raises:
        InputError: If the painter's tokenizer is missing.
    """
    with LOADING:
        return _load(kind_of(config).tokens)(config)


def config_type(role: Role) -> Any:
    """The type of a role's configuration: any of its kinds, told apart by `kind`."""
    kinds = kinds_of(role)
    if len(kinds) == 1:
        return kinds[0].config

    def tag(value: Any) -> str:
        if isinstance(value, dict):
            return value.get("kind", kinds[0].name)
        return getattr(value, "kind", "")

    members = tuple(Annotated[kind.config, Tag(kind.name)] for kind in kinds)
    return Annotated[Union[members], Discriminator(tag)]  # noqa: UP007 - made of a tuple


def kinds_table() -> str:
    """All kinds as a Markdown table, for `docs/profiles.md`."""
    rows = ["| role | kind | what it is | takes up |", "|---|---|---|---|"]
    rows += [
        f"| {kind.role.value} | `{kind.name}`{_default_mark(kind)} | {kind.about} | {kind.need} |"
        for kind in _by_role()
    ]
    return "\n".join(rows) + "\n"


def _by_role() -> Iterator[Kind]:
    for role in Role:
        yield from kinds_of(role)


def _default_mark(kind: Kind) -> str:
    own = kinds_of(kind.role)
    return " (default)" if len(own) > 1 and own[0] is kind else ""


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    with importing():
        return getattr(import_module(module), name)


if TYPE_CHECKING:
    WriterConfig = TemplateWriterConfig | ChatWriterConfig | CaptionWriterConfig
    AnyPainterConfig = PainterConfig
    AnyDetectorConfig = (
        DetectorConfig | MmGroundingDinoConfig | Owlv2Config | OriginalDetectorConfig
    )
    AnySegmenterConfig = SegmenterConfig | SamHqConfig | Sam2Config | OriginalSegmenterConfig
    AnyInpainterConfig = InpainterConfig
    AnyScoutConfig = ClipScoutConfig
else:
    WriterConfig = config_type(Role.WRITER)
    AnyPainterConfig = config_type(Role.PAINTER)
    AnyDetectorConfig = config_type(Role.DETECTOR)
    AnySegmenterConfig = config_type(Role.SEGMENTER)
    AnyInpainterConfig = config_type(Role.INPAINTER)
    AnyScoutConfig = config_type(Role.SCOUT)
