"""Class records, vocabularies and named slices of them."""

from pydantic import Field

from storage.records import Record


class ClassRecord(Record):
    """A class is more than a string."""

    class_id: int = Field(ge=0)
    """Index in its vocabulary."""
    name: str
    """Display name, unique in the vocabulary; a qualifier in parentheses is kept."""
    forms: tuple[str, ...] = Field(min_length=1)
    """Surface forms that count as a mention in a text, preferred singular first, then its plural,
    then synonyms and their plurals; never with a qualifier in parentheses."""
    detector_phrase: str
    """What the detector is asked for: lower case, no full stop."""
    embedding_phrases: tuple[str, ...] = Field(min_length=1)
    """What fills the text encoder's templates; several are averaged."""
    qualifier: str
    """What the parentheses held ("weapon" of "bow (weapon)"), or an empty string."""
    frequency: str
    """LVIS frequency r, c or f, or an empty string."""
