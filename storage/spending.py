"""Spending: what a dataset has cost so far, in calls, tokens, money and seconds of devices.

Calls come from the ledger, seconds from the commit records; nothing is remembered elsewhere. A sum
of which a part is not known is not known: it is never the sum of the rest.
"""

from collections.abc import Iterator, Sequence

from storage.ledger import Ledger, Totals
from storage.records import Record, Stage
from storage.store import Store
from storage.summaries import SliceStatus

CPU = "cpu"
"""What computes where no GPU does."""


class DeviceTime(Record, frozen=True):
    """How long a stage has computed on a device."""

    stage: Stage
    """The stage."""
    device: str
    """What computed: cpu, or a GPU's product name; empty where older records do not say."""
    seconds: float
    """Wall time of the work, without the wait for the device."""


class Spending(Record, frozen=True):
    """What a dataset has cost so far."""

    calls: Totals
    """Every call to a language model."""
    devices: tuple[DeviceTime, ...]
    """Every stage on every device that computed for it."""
    requested: int
    """Planned samples of the finished shards."""
    written: int
    """Of these, samples in tars."""

    @property
    def gpu_seconds(self) -> float:
        """Seconds on anything but the CPU; those of older records, which do not say, count too."""
        return sum(each.seconds for each in self.devices if each.device != CPU)

    @property
    def usd_a_sample(self) -> float | None:
        """Money for a written sample; None if it is not known, or nothing is written yet."""
        if self.calls.cost_usd is None or not self.written:
            return None
        return self.calls.cost_usd / self.written

    @property
    def gpu_seconds_a_sample(self) -> float | None:
        """GPU seconds for a written sample; None if nothing is written yet."""
        return self.gpu_seconds / self.written if self.written else None


def add_up(store: Store, statuses: Sequence[SliceStatus] | None = None) -> Spending:
    """Add up what a dataset has cost.

    Args:
        store: The dataset.
        statuses: Its slices' status, if it has been asked for already.

    Raises:
        DataError: If an answer in the ledger is damaged.
    """
    slices = store.status() if statuses is None else statuses
    seconds: dict[tuple[Stage, str], float] = {}
    for status in slices:
        for stage, by_device in status.device_seconds.items():
            for device, spent in by_device.items():
                seconds[stage, device] = seconds.get((stage, device), 0.0) + spent
    order = list(Stage)
    return Spending(
        calls=Ledger(store.objects).totals(),
        devices=tuple(
            DeviceTime(stage=stage, device=device, seconds=round(seconds[stage, device], 3))
            for stage, device in sorted(seconds, key=lambda each: (order.index(each[0]), each[1]))
        ),
        requested=sum(status.requested for status in slices),
        written=sum(status.written for status in slices),
    )


def spending_rows(spending: Spending) -> Iterator[tuple[str, str, str]]:
    """What was spent as rows of a table: on what, how much in all, how much a written sample."""
    calls, written = spending.calls, spending.written
    if calls.calls or calls.errors:
        counts = {
            "calls to a language model": calls.calls,
            "tokens read": calls.prompt_tokens,
            "tokens written": calls.completion_tokens,
        }
        for what, count in counts.items():
            yield what, f"{count:,}", _share(count, written, "")
        money = "not known" if calls.cost_usd is None else f"{calls.cost_usd:.4f} USD"
        own = "not known" if calls.cost_usd is None else _share(calls.cost_usd, written, " USD")
        yield "money for them", money, own
    for each in spending.devices:
        device = each.device or "a device that older records do not name"
        what = f"{each.stage} on {device}"
        yield what, f"{each.seconds:,.1f} s", _share(each.seconds, written, " s")


def spending_notes(spending: Spending) -> Iterator[str]:
    """What the rows do not tell."""
    calls = spending.calls
    if calls.calls and calls.cost_usd is None:
        yield (
            "the money is not known, because calls were made without prices or came back without "
            "tokens; state prices: {prompt: ..., completion: ...} for the writer (USD for a "
            "million tokens)"
        )
    if calls.unmetered:
        yield f"{calls.unmetered} calls came back without tokens, which are counted as none here"
    if calls.errors:
        yield f"{calls.errors} attempts brought no answer; a service may charge for some of them"
    if calls.unsettled:
        yield f"{calls.unsettled} calls were sent of which nobody knows whether they were paid"


def _share(amount: float, written: int, unit: str) -> str:
    """How much falls to a written sample."""
    return f"{amount / written:.4g}{unit}" if written else "nothing written yet"
