"""The prompt writer that fills templates."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from models.protocols import TextAnswer, TextRequest
from models.writing.templates import load_templates
from storage.identity import derive_seed, digest


class TemplateWriterConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Fills a template grammar: offline, free, and always the same."""

    kind: Literal["template"] = "template"
    """Tells this writer from the others."""
    templates: str = "miniature"
    """A template set of the engine (miniature, simple, rich) or the path of a .yaml file."""

    def identity(self) -> dict[str, Any]:
        """Say what the texts depend on: the contents of the grammar.

        Raises:
            InputError: If the grammar does not exist or is faulty.
        """
        return {"templates": digest(load_templates(self.templates))}

    def check(self) -> str:
        """Read the grammar; say how many texts it can write.

        Raises:
            InputError: If the grammar does not exist or is faulty.
        """
        return f"{load_templates(self.templates).capacity(1)} texts a class from templates"


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
