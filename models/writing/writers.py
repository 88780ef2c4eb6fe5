"""Prompt writers, and their configuration."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from models.protocols import PromptWriter, TextAnswer, TextRequest
from models.writing.chat import ChatWriter, ChatWriterConfig
from models.writing.templates import load_templates
from storage.identity import derive_seed
from storage.ledger import Ledger


class TemplateWriterConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Fills a template grammar: offline, free, and always the same."""

    kind: Literal["template"] = "template"
    """Tells this writer from the others."""
    templates: str = "miniature"
    """A template set of the engine (miniature, simple, rich) or the path of a .yaml file."""


WriterConfig = Annotated[TemplateWriterConfig | ChatWriterConfig, Field(discriminator="kind")]
"""Any writer's configuration; ``kind`` says which."""


class TemplateWriter:
    """Writes texts from a template grammar.

    Args:
        config: Which grammar.

    Raises:
        InputError: If the grammar does not exist or is faulty.
    """

    def __init__(self, config: TemplateWriterConfig) -> None:
        self._config = config
        self._templates = load_templates(config.templates)

    @property
    def name(self) -> str:
        """``template:`` and the grammar's name."""
        return f"template:{self._config.templates}"

    def write(self, requests: Sequence[TextRequest]) -> list[TextAnswer]:
        """Answer every request, in order; see `PromptWriter`.

        Raises:
            InputError: If the grammar has no templates for as many classes as asked for.
        """
        return [self._answer(request) for request in requests]

    def _answer(self, request: TextRequest) -> TextAnswer:
        seed = derive_seed(request.seed, request.round)
        texts = self._templates.texts(request.classes, request.count, seed, avoid=request.avoid)
        return TextAnswer(tuple(texts))


def build_writer(config: TemplateWriterConfig | ChatWriterConfig, ledger: Ledger) -> PromptWriter:
    """Make the writer that a configuration describes.

    Args:
        config: Which writer.
        ledger: For writers that pay for their texts.

    Raises:
        InputError: If what the writer needs is missing: a grammar, or a key in the environment.
    """
    if isinstance(config, ChatWriterConfig):
        return ChatWriter(config, ledger)
    return TemplateWriter(config)
