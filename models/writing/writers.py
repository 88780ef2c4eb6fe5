"""The prompt writer that fills templates."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from models.protocols import TextAnswer, TextRequest
from models.writing.templates import load_kinds, load_templates
from storage.identity import derive_seed, digest


class TemplateWriterConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Fills a template grammar: offline, free, and always the same."""

    kind: Literal["template"] = "template"
    """Tells this writer from the others."""
    templates: str = "miniature"
    """A template set of the engine (miniature, simple, rich, subclasses) or the path of a .yaml
    file."""
    subclasses: str | None = None
    """A .yaml file with names of kinds by class (`cat: [tabby, Persian, ""]`), which stand for
    `{subclass1}` and `{subclass2}` in a grammar that has them; an empty one is the class alone."""

    def identity(self) -> dict[str, Any]:
        """Say what the texts depend on: the contents of the grammar, and of the subclasses.

        Raises:
            InputError: If a file does not exist or is faulty.
        """
        found = {"templates": digest(load_templates(self.templates))}
        if self.subclasses is not None:  # older identities do not have it
            found["subclasses"] = digest(load_kinds(self.subclasses))
        return found

    def check(self) -> str:
        """Read the grammar; say how many texts it can write.

        Raises:
            InputError: If a file does not exist or is faulty.
        """
        number = load_templates(self.templates).capacity(1)
        if self.subclasses is None:
            return f"{number} texts a class from templates"
        kinds = load_kinds(self.subclasses)
        return f"{number} texts a kind from templates; kinds of {len(kinds)} classes"


class TemplateWriter:
    """Writes texts from a template grammar.

    Args:
        config: Which grammar.

    Raises:
        InputError: If a file does not exist or is faulty.
    """

    def __init__(self, config: TemplateWriterConfig) -> None:
        self._config = config
        self._templates = load_templates(config.templates)
        self._kinds = {} if config.subclasses is None else load_kinds(config.subclasses)

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
        kinds = {
            record.class_id: self._kinds[record.name]
            for record in request.classes
            if record.name in self._kinds
        }
        texts = self._templates.texts(
            request.classes, request.count, seed, avoid=request.avoid, kinds=kinds
        )
        return TextAnswer(tuple(texts))
