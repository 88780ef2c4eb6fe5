"""The price table: what services charge for models, as far as is public, with dates."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import RootModel

from models.writing.addresses import ServiceAddress
from models.writing.chat_config import EndpointConfig
from storage.documents import read_yaml, validate
from storage.prices import Prices
from storage.records import Record

_FILE = Path(__file__).parents[1] / "data" / "prices.yaml"


class ListedPrice(Record, frozen=True):
    """A row of the table."""

    prompt: float
    """USD for a million tokens that are read."""
    completion: float
    """USD for a million tokens that are written."""
    date: str
    """When it was checked, as year, month and day."""


class _Table(RootModel[dict[str, dict[str, ListedPrice]]], frozen=True):
    """Rows by service and model."""


@dataclass(frozen=True)
class KnownPrices:
    """Prices, and where they come from.

    Attributes:
        prices: USD for a million tokens; None if they are not known.
        source: Words for people: whose prices these are and of which day, or how to state them.
    """

    prices: Prices | None
    source: str


def known_prices(config: EndpointConfig) -> KnownPrices:
    """The prices of a writer's model: its own settings first, then the table.

    Another service than the one of the table may ask other prices for a model of the same name, so
    the address counts too.
    """
    if config.prices is not None:
        return KnownPrices(config.prices, "the writer's own prices")
    rows = {ServiceAddress.of(url).identity: models for url, models in _rows().items()}
    row = rows.get(ServiceAddress.of(config.base_url).identity, {}).get(config.model)
    if row is None:
        return KnownPrices(
            None,
            f"no price of {config.model!r} is known; state prices: {{prompt: ..., completion: "
            "...} for the writer, in USD for a million tokens",
        )
    return KnownPrices(
        Prices(prompt=row.prompt, completion=row.completion),
        f"{row.prompt:g} and {row.completion:g} USD for a million tokens read and written, by the "
        f"engine's price table, checked {row.date}; the writer's own prices come first",
    )


@cache
def _rows() -> dict[str, dict[str, ListedPrice]]:
    return validate(_Table, read_yaml(_FILE), "the price table").root
