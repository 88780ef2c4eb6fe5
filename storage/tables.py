"""The tables that are shipped with the package; `data/SOURCES.md` says where each comes from."""

import csv
from importlib.resources import files
from importlib.resources.abc import Traversable


def table_file(name: str) -> Traversable:
    """Where the shipped file of that name lies."""
    return files("storage").joinpath("data", name)


def read_table(name: str) -> list[dict[str, str]]:
    """Read a shipped table.

    Args:
        name: File name in the package's data folder; the first line names the columns.

    Returns:
        The rows in file order, each by column name; an empty cell is an empty string.
    """
    return list(csv.DictReader(table_file(name).read_text(encoding="utf-8").splitlines()))
