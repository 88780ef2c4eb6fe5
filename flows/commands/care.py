"""Commands that look after a dataset: retry, extend, merge, gc, quarantine, exclusions, batch."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from flows.commands.app import (
    Flag,
    Json,
    LocalPath,
    Place,
    app,
    console,
    errors,
    print_json,
    say,
    show_examples,
)
from storage.errors import InputError

_BatchAction = Annotated[
    Literal["list", "export", "import", "forget"],
    Parameter(help="list batches, export or import the calls of mode run-batch, or forget one."),
]
_Action = Annotated[
    Literal["list", "restore", "empty"],
    Parameter(help="list batches, restore one of them, or empty the quarantine."),
]


@app.command(
    help_epilogue=show_examples(
        "magicseg retry runs/mine",
        "magicseg retry runs/mine --reason near-duplicate --dry-run",
    )
)
def retry(
    root: str,
    *,
    slice: str | None = None,  # noqa: A002 - the name of the option
    shard: str | None = None,
    stage: str | None = None,
    reason: str | None = None,
    degraded: Flag = False,
    dry_run: Flag = False,
    json_: Json = False,
) -> None:
    """Open dropped samples of finished shards again, so that 'magicseg generate' makes them.

    Without --stage, --reason and --degraded: the samples that a service failed to deliver. Texts
    are asked for in further rounds; images, boxes and masks follow from texts and seeds, so there
    only another machine or version may decide otherwise.

    Args:
        root: Dataset: a folder or an object-store URL.
        slice: Of one slice only: its id, or what was given as --slice to generate.
        shard: Of one shard only, by name.
        stage: Samples that were dropped at this stage: prompts, pairs, detections or masks.
        reason: Samples that were dropped for this reason, as 'magicseg status' names it.
        degraded: Only shards with too few written samples, and all dropped ones of them.
        dry_run: Show what would be opened; change nothing.
        json_: Print JSON.
    """
    from flows.dataset_care import describe_retry, print_retry, wanted_samples
    from flows.kept_parameters import find_slice
    from storage.store import Store

    store = Store.open(root)
    slice_id = "" if slice is None else find_slice(store, slice)
    wanted = wanted_samples(slice_id, shard, stage, reason, degraded=degraded)
    described = describe_retry(store, wanted, dry_run=dry_run)
    if json_:
        print_json(described)
    else:
        print_retry(described, say)


@app.command(
    help_epilogue=show_examples(
        "magicseg extend runs/mine --by 96",
        'magicseg extend runs/mine --by 96 --slice "cat,boat"',
    )
)
def extend(
    root: str,
    *,
    by: Annotated[int, Parameter(validator=Number(gte=1))],
    slice: str | None = None,  # noqa: A002 - the name of the option
    json_: Json = False,
) -> None:
    """Generate more samples of a slice, with the parameters of its last 'magicseg generate'.

    Args:
        root: Dataset: a folder or an object-store URL.
        by: How many more samples.
        slice: Which slice: its id, or what was given as --slice; not needed if there is only one.
        json_: Print JSON; progress goes to standard error.
    """
    from flows.dataset_care import describe_extension, extended_parameters
    from flows.local_runs import generate_locally

    parameters = extended_parameters(root, by, slice)
    generate_locally(parameters, errors if json_ else console)
    if json_:
        print_json(describe_extension(parameters, by))


_ExclusionAction = Annotated[
    Literal["list", "add", "undo"],
    Parameter(help="list what is left out, leave samples out, or take them back."),
]


@app.command(
    help_epilogue=show_examples(
        "magicseg exclusions list runs/mine",
        'magicseg exclusions add runs/mine 1f2e3d4c00000017 --why "half a cat"',
        'magicseg exclusions undo runs/mine --keys keys.txt --why "it is right"',
    )
)
def exclusions(
    action: _ExclusionAction,
    root: Place,
    samples: tuple[str, ...] = (),
    /,
    *,
    keys: LocalPath | None = None,
    why: str = "",
    json_: Json = False,
) -> None:
    """Leave finished samples out of trainings and exports, or take them back.

    The tars stay as they are; who said so, when and why is kept, also of what was undone. A folder
    whose training was begun with other samples refuses to go on: name another one.

    Args:
        action: What to do.
        root: Dataset: a folder or an object-store URL.
        samples: Keys of the samples, as tars and manifests have them.
        keys: File with more keys, one a line.
        why: The reason, for whoever meets it later; add and undo need one.
        json_: Print JSON.
    """
    from flows.exclusions import change_exclusions, list_exclusions, print_exclusions, read_keys

    if action == "list":
        if samples or keys is not None or why:
            message = "list takes a dataset alone: write 'magicseg exclusions list ROOT'"
            raise InputError(message)
        described = list_exclusions(root)
    else:
        wanted = [*samples, *(() if keys is None else read_keys(keys))]
        if not wanted:
            message = f"{action} needs samples: name their keys, or a file of them with --keys"
            raise InputError(message)
        described = change_exclusions(action, root, wanted, why)
    if json_:
        print_json(described)
    else:
        print_exclusions(described, say)


_CorrectionAction = Annotated[
    Literal["list", "import", "undo"],
    Parameter(help="list what is corrected, import a file of masks, or undo corrections."),
]


@app.command(
    help_epilogue=show_examples(
        "magicseg corrections list runs/mine",
        'magicseg corrections import runs/mine annotations.xml --why "lost tails"',
        'magicseg corrections undo runs/mine 1f2e3d4c00000017 --why "was right"',
    )
)
def corrections(
    action: _CorrectionAction,
    root: Place,
    what: tuple[str, ...] = (),
    /,
    *,
    why: str = "",
    json_: Json = False,
) -> None:
    """Take in masks that people corrected in Label Studio or CVAT, or undo that.

    'magicseg export --format label-studio' (or cvat) writes the tasks. Trainings, exports and
    relabelling read the corrected masks; the tars stay as they are, and who said so, when and why
    is kept, also of what was undone. A file is taken in whole or not at all.

    Args:
        action: What to do.
        root: Dataset: a folder or an object-store URL.
        what: For import the file, JSON of Label Studio or XML of CVAT for images 1.1; for undo
            the keys of samples.
        why: The reason, for whoever meets it later; import and undo need one.
        json_: Print JSON.
    """
    from flows.corrections import (
        import_corrections,
        list_corrections,
        print_corrections,
        undo,
    )
    from storage.paths import local_path

    wanted = {"list": "ROOT", "import": "ROOT FILE", "undo": "ROOT KEY..."}[action]
    fits = {"list": not what and not why, "import": len(what) == 1, "undo": bool(what)}[action]
    if not fits:
        message = (
            f"{action} does not fit {len(what)} further arguments: write 'magicseg corrections "
            f"{action} {wanted}{'' if action == 'list' else ' --why TEXT'}'"
        )
        raise InputError(message)
    if action == "list":
        described = list_corrections(root)
    elif action == "import":
        described = import_corrections(root, local_path(what[0], "the file"), why)
    else:
        described = undo(root, what, why)
    if json_:
        print_json(described)
    else:
        print_corrections(described, say)


_LedgerAction = Annotated[
    Literal["show", "reread"],
    Parameter(
        help="show what the dataset has cost so far, or reread the paid answers with the reader of "
        "today: nothing is sent, nothing is paid."
    ),
]


@app.command(
    help_epilogue=show_examples(
        "magicseg ledger show runs/mine",
        "magicseg ledger show runs/mine --json",
        "magicseg ledger reread runs/mine",
    )
)
def ledger(action: _LedgerAction, root: Place, /, *, json_: Json = False) -> None:
    """Show what a dataset has cost in calls, tokens, money and seconds of devices, in one table.

    Args:
        action: What to do.
        root: Dataset: a folder or an object-store URL.
        json_: Print JSON.
    """
    if action == "reread":
        _reread(root, as_json=json_)
        return
    from flows.dataset_status import print_spending, spending_facts
    from storage.spending import add_up
    from storage.store import Store

    facts = spending_facts(add_up(Store.open(root)))
    if json_:
        print_json(facts)
    else:
        print_spending(facts, console)


def _reread(root: str, *, as_json: bool) -> None:
    from flows.rereading import print_rereading, reread

    found = reread(root)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_rereading(found, console)


@app.command(help_epilogue=show_examples("magicseg merge runs/mine runs/second --out runs/both"))
def merge(
    roots: tuple[Place, ...],
    /,
    *,
    out: Place,
    degraded: Flag = False,
    json_: Json = False,
) -> None:
    """Join datasets of one vocabulary into one, whose shards are theirs.

    Training, export, report, status and verify read it as any other; nothing is generated into it.
    Shards that are there already are not copied again, so a merge may be repeated when its sources
    have grown.

    Args:
        roots: Datasets: folders or object-store URLs, two or more.
        out: The merge: an empty place, or an earlier merge of the same datasets.
        degraded: Copy shards with too few written samples too.
        json_: Print JSON.
    """
    from storage.merging import merge_datasets

    done = merge_datasets(roots, out, use_degraded=degraded)
    if json_:
        print_json(done.model_dump(mode="json"))
        return
    left = f"; {done.left_out} degraded shards left out" if done.left_out else ""
    say(f"{out}: {done.samples} samples in {done.shards} shards, {done.added} of them new{left}")


@app.command(help_epilogue=show_examples("magicseg gc runs/mine", "magicseg gc runs/mine --yes"))
def gc(root: str, *, yes: Flag = False, json_: Json = False) -> None:
    """Free the painted pairs of packed shards, and bytes that no record names.

    The last shard of each slice keeps its pairs, so that it can grow. A shard whose pairs are freed
    cannot be packed in another size, and none of its samples retried; if its tar is damaged later,
    all of it is painted again.

    Args:
        root: Dataset: a folder or an object-store URL.
        yes: Really free it; without this nothing is changed.
        json_: Print JSON.
    """
    from flows.dataset_care import describe_garbage, print_garbage

    described = describe_garbage(root, really=yes)
    if json_:
        print_json(described)
    else:
        print_garbage(described, say)


@app.command(
    help_epilogue=show_examples(
        "magicseg quarantine list runs/mine",
        "magicseg quarantine empty runs/mine --older-than 30 --yes",
    )
)
def quarantine(
    action: _Action,
    root: str,
    batch: str | None = None,
    *,
    older_than: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    id_: Annotated[str | None, Parameter(name="--id")] = None,
    yes: Flag = False,
    json_: Json = False,
) -> None:
    """List what was put aside because it was damaged or replaced; move it back, or delete it.

    Args:
        action: What to do.
        root: Dataset: a folder or an object-store URL.
        batch: Which batch to restore, by its id.
        older_than: Empty only batches that are more than so many days old.
        id_: Empty only this batch.
        yes: Really delete; without this nothing is changed.
        json_: Print JSON.
    """
    from flows.dataset_care import (
        describe_emptying,
        describe_quarantine,
        print_quarantine,
        restore,
    )

    chosen: dict[str, Any] = {"--older-than": older_than, "--id": id_, "--yes": yes or None}
    given = [name for name, value in chosen.items() if value is not None]
    if given and action != "empty":
        message = f"{', '.join(given)} means nothing for {action}, only for empty"
        raise InputError(message)
    if (batch is None) == (action == "restore"):
        what = f"{batch!r} means nothing for {action}" if batch else "restore needs a batch"
        message = (
            f"{what}: write 'magicseg quarantine {action} ROOT"
            f"{' ID' if action == 'restore' else ''}'; 'magicseg quarantine list ROOT' shows ids"
        )
        raise InputError(message)
    if action == "list":
        described = describe_quarantine(root)
    elif action == "restore":
        described = restore(root, batch or "")
    else:
        described = describe_emptying(root, older_than=older_than, batch_id=id_, really=yes)
    if json_:
        print_json(described)
    else:
        print_quarantine(described, say)


@app.command(
    help_epilogue=show_examples(
        "magicseg batch list runs/mine",
        "magicseg batch export runs/mine calls.jsonl",
        "magicseg batch import runs/mine results.jsonl",
    )
)
def batch(
    action: _BatchAction,
    root: Place,
    what: str | None = None,
    *,
    json_: Json = False,
) -> None:
    """Show the writer's batches that are not answered yet; bring answers from elsewhere.

    A run whose writer has the mode run-batch says which calls it needs. Export writes them as the
    file that 'vllm run-batch -i' reads, import takes in the one that its '-o' names; then the same
    'magicseg generate' goes on.

    Args:
        action: What to do.
        root: Dataset: a folder or an object-store URL.
        what: The file to write or to read; for forget, the batch whose calls are asked again.
        json_: Print JSON.
    """
    from flows.batch_files import (
        awaited_batches,
        export_calls,
        forget_batch,
        import_results,
        import_words,
    )
    from flows.open_batches import batch_words
    from storage.paths import local_path

    wanted = {"export": "FILE", "import": "FILE", "forget": "ID"}.get(action, "")
    if (what is None) == bool(wanted):
        found = f"{action} needs {wanted}" if wanted else f"{what!r} means nothing for {action}"
        message = f"{found}: write 'magicseg batch {action} ROOT{f' {wanted}' if wanted else ''}'"
        raise InputError(message)
    described: Any
    if action == "list":
        described = awaited_batches(root)
        lines = [batch_words(each) for each in described] or [f"no open batches in {root}"]
    elif action == "export":
        described = {"calls": export_calls(root, local_path(what or "", "the file"))}
        lines = [f"{described['calls']} calls in {what}"]
    elif action == "import":
        ends = import_results(root, local_path(what or "", "the file"))
        described = [each.model_dump(mode="json", exclude={"unanswered"}) for each in ends]
        lines = [import_words(ends)]
    else:
        forget_batch(root, what or "")
        described = {"forgotten": what}
        lines = [f"batch {what} is forgotten; its calls are asked again"]
    if json_:
        print_json(described)
        return
    for line in lines:
        say(line)
