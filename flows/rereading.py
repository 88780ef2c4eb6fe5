"""Reading the answers of a ledger again, with the reader of today; nothing is sent or paid."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from models.writing.answers import read_reply
from storage.ledger import Ledger
from storage.records import Record
from storage.store import Store


class Rereading(Record, frozen=True):
    """What a ledger's answers hold."""

    answers: int
    """Answers that were read again."""
    forms: dict[str, int]
    """How many were written in each form."""
    texts: int
    """Texts in all of them."""
    texts_before: int
    """Texts that were read when they came, in the answers that say so."""
    better: int
    """Answers in which more texts are found than when they came."""
    more_texts: int
    """How many more."""


def reread(root: str) -> Rereading:
    """Read every answer of a dataset's ledger again.

    Args:
        root: Dataset.

    Raises:
        InputError: There is no dataset.
        DataError: An answer is damaged.
    """
    forms: Counter[str] = Counter()
    texts = before = better = more = 0
    for answer in Ledger(Store.open(root).objects).answers():
        read = read_reply(answer.response)
        forms[read.form] += 1
        texts += len(read.texts)
        if answer.reading is not None:
            before += answer.reading.texts
            gained = len(read.texts) - answer.reading.texts
            better += gained > 0
            more += max(gained, 0)
    return Rereading(
        answers=forms.total(),
        forms=dict(sorted(forms.items())),
        texts=texts,
        texts_before=before,
        better=better,
        more_texts=more,
    )


def print_rereading(found: Rereading, console: Console) -> None:
    """Print what was found, and what to do with it."""
    table = Table("written as", "answers")
    for form, count in found.forms.items():
        table.add_row(form, str(count))
    console.print(table)
    words = f"{found.answers} answers hold {found.texts} texts"
    if found.better:
        words += (
            f"; {found.better} of them {found.more_texts} more than when they came: run the same "
            "'magicseg generate' again, it takes them without asking anybody"
        )
    console.print(words, markup=False, soft_wrap=True)
