"""Announcing: the event that says that a dataset has enough shards to be trained on.

Nothing remembers that a dataset was announced: an event can be lost, and a record of it would then
stand for a training that never started. So every run that ends with enough shards announces the
dataset again, and whoever hears of it finds out whether there is anything to do
(`flows/start_training.py`).
"""

from prefect.events import emit_event

from storage.identity import Fingerprint
from storage.store import Store

READY_EVENT = "magicseg.dataset.ready"

_DIGITS = 16


def announce(store: Store, profile: str, wanted: int | None) -> bool:
    """Emit the event that starts training, if enough good shards are committed.

    Args:
        store: The dataset.
        profile: Profile that it was made with; automations choose by it.
        wanted: Good shards that are enough; nothing if the dataset is not to be announced.

    Returns:
        Whether it was announced.
    """
    if wanted is None:
        return False
    good = count_good_shards(store)
    if good < wanted:
        return False
    emit_event(
        event=READY_EVENT,
        resource={
            "prefect.resource.id": f"magicseg.dataset.{dataset_digest(store)}",
            "magicseg.profile": profile,
        },
        payload={"dataset": store.root, "shards": good, "wanted": wanted, "profile": profile},
    )
    return True


def count_good_shards(store: Store) -> int:
    """Committed shards that training uses."""
    return sum(not shard.degraded for shard in store.shards())


def dataset_digest(store: Store) -> str:
    """What a dataset is, in 16 hex digits: equal for equal specifications, wherever they lie."""
    return Fingerprint.of(store.spec).digest[:_DIGITS]
