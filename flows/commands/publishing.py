"""Commands that give a dataset to others: push."""

import re
from typing import Annotated

from cyclopts import Parameter

from flows.commands.app import Flag, Json, Place, app, console, errors, print_json, show_examples
from storage.errors import InputError

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@app.command(
    help_epilogue=show_examples(
        "magicseg push runs/mine me/my-dataset --dry",
        "magicseg push runs/mine me/my-dataset --license cc-by-4.0",
    )
)
def push(
    dataset: Place,
    repository: str,
    *,
    dry: Flag = False,
    public: Flag = False,
    licence: Annotated[str | None, Parameter(name="--license")] = None,
    json_: Json = False,
) -> None:
    """Put a dataset on the Hugging Face hub: Parquet files and a card, in one commit.

    Only files that the hub lacks are made and sent, so a push that was cut goes on, and one of a
    dataset that has grown adds what is new. The token is that of HF_TOKEN or of 'hf auth login'.

    Args:
        dataset: Root of a dataset.
        repository: Where to: owner/name; made if it is not there.
        dry: List what would be sent, and send nothing.
        public: Let everybody read a repository that has to be made.
        licence: Licence that the card's header names, such as cc-by-4.0; without, the one that the
            card on the hub has.
        json_: Print JSON; with --dry the plan, otherwise what was done by it.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        message = (
            f"--license is {licence!r}, expected an identifier of the hub's such as cc-by-4.0 "
            "(https://huggingface.co/docs/hub/repositories-licenses)"
        )
        raise InputError(message)
    from flows.pushing import publication_of, push_locally

    publication = publication_of(dataset, repository, licence or "")
    shown = errors if json_ else console
    plan = push_locally(publication, repository, shown, dry=dry, public=public)
    if json_:
        print_json(plan.model_dump(mode="json"))
