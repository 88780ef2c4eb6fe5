"""A push that starts from a terminal: a dataset as Parquet files on the Hugging Face hub."""

from functools import partial

from huggingface_hub import HfApi
from rich.console import Console
from rich.table import Table

from storage.card import render_published_card
from storage.exports.hub import Publication, PushPlan, plan_push, push_shards, require_token
from storage.exports.source_shards import source_shards
from storage.store import Store
from storage.vocabulary import load_vocabulary


def publication_of(dataset: str, repository: str, licence: str = "") -> Publication:
    """What of a dataset is to be on the hub.

    Raises:
        InputError: There is no dataset, or nothing in it.
        DataError: Its records are damaged.
    """
    store = Store.open(dataset)
    return Publication(
        shards=source_shards(store),
        vocabulary=load_vocabulary(store.vocabulary),
        card=partial(render_published_card, store, repository),
        licence=licence,
    )


def push_locally(
    publication: Publication, repository: str, console: Console, *, dry: bool, public: bool
) -> PushPlan:
    """Send a dataset to the hub, or say what would be sent.

    Raises:
        DataError: A shard is damaged.
        InputError: There is no token, or the hub refuses it or the repository's name.
        TransientError: The hub does not answer.
    """
    api = HfApi()
    if not dry:
        require_token(api)
    plan = plan_push(api, repository, publication)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    table = Table("what", "file", "bytes, about")
    for what, files in (("send", plan.send), ("remove", plan.remove)):
        for each in files:
            table.add_row(what, each.path, f"{each.size:,}")
    if table.rows:
        console.print(table)
    made = "" if plan.exists else ", which is made"
    total = sum(each.size for each in plan.send)
    say(
        f"{repository} on {api.endpoint}{made}: {len(plan.send)} files of about {total:,} bytes to "
        f"send, {len(plan.remove)} to remove; {len(plan.keep)} shards are there already"
    )
    if not dry:
        url = push_shards(api, plan, publication, public=public, note=say)
        say(f"pushed: {url}" if url else "nothing to do")
    return plan
