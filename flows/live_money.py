"""Money while a run works: what is spent, what that comes to at this pace, and the limit."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from flows.generation_run import GenerationRun
from flows.open_batches import batch_words, open_batches
from models.registry import Need, kind_of
from models.writing.chat_config import EndpointConfig
from models.writing.price_table import known_prices
from storage.errors import EngineError
from storage.ledger import Ledger, Totals

LOOK_SECONDS = 30.0
"""Seconds between two looks at the ledger, which other workers write too."""

_ENOUGH = 0.02
"""Share of the texts that must be written before their pace tells anything."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Spent:
    tokens: int
    usd: float | None
    is_exact: bool


class LiveMoney:
    """Says what the texts of a run have cost so far; asked again and again.

    Args:
        run: The run.
        share: Says how much of the run's texts is there, in [0, 1].
    """

    def __init__(self, run: GenerationRun, share: Callable[[], float]) -> None:
        writer = run.recipe.profile.writer
        self._ledger = Ledger(run.store.objects) if is_paid(run) else None
        self._config = writer if isinstance(writer, EndpointConfig) else None
        self._share = share
        self._first: tuple[float, _Spent] | None = None
        self._asked, self._told, self._open = float("-inf"), "", ""

    def words(self, *, now: bool = False) -> str:
        """Spent, projected and the limit; empty for a writer that costs nothing.

        Args:
            now: Look even if the last look is not long ago.
        """
        if self._ledger is None:
            return ""
        if now or time.monotonic() - self._asked > LOOK_SECONDS:
            try:
                self._told = self._look(self._ledger)
            except (EngineError, OSError) as error:  # what is shown must not end the work
                _log.debug("what was spent cannot be read", exc_info=error)
                self._told = f"what was spent cannot be read: {error}"
            self._asked = time.monotonic()
        return self._told

    def batches(self) -> str:
        """The batches that are open, as far as the last look told; empty if there are none."""
        return self._open

    def _look(self, ledger: Ledger) -> str:
        self._open = "; ".join(map(batch_words, open_batches(ledger)))
        totals, share = ledger.totals(), self._share()
        spent = self._spent(ledger, totals)
        if self._first is None:
            self._first = (share, spent)
        return f"{self._amounts(share, spent)}; {totals.calls} calls, {totals.errors} errors"

    def _spent(self, ledger: Ledger, totals: Totals) -> _Spent:
        tokens = totals.prompt_tokens + totals.completion_tokens
        if totals.cost_usd is not None:
            return _Spent(tokens, totals.cost_usd, is_exact=True)
        prices = known_prices(self._config).prices if self._config is not None else None
        if prices is None:
            return _Spent(tokens, None, is_exact=False)
        return _Spent(tokens, ledger.spent(prices)[1], is_exact=False)

    def _amounts(self, share: float, spent: _Spent) -> str:
        first_share, first = self._first or (share, spent)
        cap = self._config.budget_usd if self._config is not None else None
        if spent.usd is None or first.usd is None:
            limit = self._config.budget_tokens if self._config is not None else None
            projected = _projected(first.tokens, spent.tokens, first_share, share)
            more = "" if projected is None else f", about {projected:,.0f} projected"
            most = "no limit" if limit is None else f"limit {limit:,}"
            return f"{spent.tokens:,} tokens spent{more}, {most} (money not known)"
        about = "" if spent.is_exact else "about "
        projected = _projected(first.usd, spent.usd, first_share, share)
        more = "projected later" if projected is None else f"about {projected:.2f} projected"
        most = "no limit" if cap is None else f"limit {cap:g}"
        return f"{about}{spent.usd:.2f} USD spent, {more}, {most}"


def totals_words(totals: Totals) -> str:
    """Say what calls took, and what they cost as far as that is known."""
    cost = "money not known" if totals.cost_usd is None else f"{totals.cost_usd:.4f} USD"
    return (
        f"{totals.calls} calls in the ledger, {totals.prompt_tokens:,} tokens read, "
        f"{totals.completion_tokens:,} written, {cost}"
    )


def is_paid(run: GenerationRun) -> bool:
    """Whether the run's writer asks a service that may cost money."""
    return kind_of(run.recipe.profile.writer).need is Need.SERVICE


def _projected(before: float, now: float, first_share: float, share: float) -> float | None:
    """What the whole run comes to if its other texts cost as much as those of this run so far."""
    if share - first_share < _ENOUGH:
        return None
    return before + (now - before) / (share - first_share) * (1 - first_share)
