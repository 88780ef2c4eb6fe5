"""Commands that make a dataset and look after it: plan, generate, status, verify, export."""

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from flows.commands.app import (
    Flag,
    Json,
    LocalPath,
    Place,
    Whole,
    app,
    console,
    print_json,
    say,
    show_examples,
)
from models.loading import importing
from storage.errors import InputError
from storage.exit_codes import EXIT_WORK_LEFT


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """What to generate: the options of plan and generate; the rest comes from the file."""

    root: Place | None = None
    """Dataset: a folder or an object-store URL."""
    slice: str | None = None
    """Classes: all, lvis-r, voc20, 0:100, or names between commas."""
    samples: Whole | None = None
    """Samples to plan for the slice; more than before extends it."""
    min_per_class: int | None = None
    """Written samples that each class shall have: those that yield less get extra samples."""
    max_extra: float | None = None
    """Most extra samples, as a multiple of --samples (1.0)."""
    accept_failed: Flag = False
    """Pack shards without the samples that no service delivered."""
    profile: str | None = None
    """Shipped profile (miniature, sd15, sd15-sam3, sdxl, flux), or the path of a YAML file."""
    shards: str | None = None
    """Shards to work on: all, or indices and ranges such as 0-3,7."""
    set: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    """Any other parameter, as name=value; may be repeated."""

    def parameters(self, file: Path | None, **usual: Any) -> Any:
        """All `GenerationParameters`: those of the file, with what is given here on top.

        Args:
            file: YAML file with parameters.
            usual: What neither of them has to say.

        Raises:
            InputError: If the file cannot be read, or something is unknown, missing or does not
                fit.
        """
        with importing():
            from flows.generation_parameters import GenerationParameters
        from storage.documents import read_assignments, read_parameters

        given: dict[str, Any] = asdict(self)
        settings = read_assignments(given.pop("set"))
        accepted = {"accept_failed": True} if given.pop("accept_failed") else {}
        values = {name: value for name, value in given.items() if value is not None} | accepted
        if doubled := sorted(settings.keys() & values.keys()):
            message = f"{doubled[0]!r} is given by --{doubled[0]} and by --set; keep one of them"
            raise InputError(message)
        return read_parameters(GenerationParameters, file, values | settings, usual)


GenerationFile = Annotated[
    LocalPath | None, Parameter(help="YAML file with generation parameters.")
]


@app.command(
    help_epilogue=show_examples(
        "magicseg plan --root runs/mine --samples 96",
        'magicseg plan --root runs/mine --samples 96 --slice "cat,boat" --json',
    )
)
def plan(
    file: GenerationFile = None,
    *,
    wanted: GenerationOptions = GenerationOptions(),
    json_: Json = False,
) -> None:
    """Show which shards a run would make, and which are committed; makes nothing.

    Args:
        file: YAML file with generation parameters.
        wanted: What to plan.
        json_: Print JSON.
    """
    with importing():
        from flows.generation_plan import describe_plan, print_plan

    described = describe_plan(wanted.parameters(file))
    if json_:
        print_json(described.model_dump(mode="json"))
    else:
        print_plan(described, console)


@app.command(
    help_epilogue=show_examples(
        "magicseg preview --slice miniature --samples 8",
        "magicseg preview --slice cat --samples 8 --paint --out cat.png",
    )
)
def preview(
    file: GenerationFile = None,
    *,
    wanted: GenerationOptions = GenerationOptions(),
    paint: Flag = False,
    out: LocalPath = Path("preview.png"),
    json_: Json = False,
) -> None:
    """Write the first texts of a slice, and with --paint their pictures; commits nothing.

    Texts are asked for as a run asks for them. If --root is a dataset, its ledger keeps what a
    service answered, and a run with the same settings pays nothing for it again.

    Args:
        file: YAML file with generation parameters.
        wanted: What to look at.
        paint: Paint the pairs too.
        out: The picture to write with --paint.
        json_: Print JSON.
    """
    from flows.preview import make_preview, print_preview

    samples = 8 if wanted.samples is None else wanted.samples  # a file's are those of a run
    parameters = replace(wanted, samples=samples).parameters(file, root="memory://preview")
    made = make_preview(parameters, out if paint else None)
    if json_:
        print_json(made.model_dump(mode="json"))
    else:
        print_preview(made, parameters, console)


@app.command(
    help_epilogue=show_examples(
        "magicseg generate --root runs/mine --samples 96",
        'magicseg generate --root runs/mine --samples 96 --slice "cat,boat"',
        "magicseg generate --root runs/mine --samples 96 --min-per-class 4",
    )
)
def generate(
    file: GenerationFile = None, *, wanted: GenerationOptions = GenerationOptions()
) -> None:
    """Make the shards of a slice; committed ones are not made again.

    With --min-per-class, classes that yield little get extra samples until each has enough or
    --max-extra is reached; those that stay short are named, and the exit code is 0 all the same.

    Args:
        file: YAML file with generation parameters.
        wanted: What to generate.
    """
    with importing():
        from flows.local_runs import generate_locally

    generate_locally(wanted.parameters(file), console)


@app.command(
    help_epilogue=show_examples("magicseg status runs/mine", "magicseg status runs/mine --json")
)
def status(root: Place, *, json_: Json = False) -> None:
    """Show what is committed in a dataset, from its records alone.

    Args:
        root: Dataset: a folder or an object-store URL.
        json_: Print JSON.
    """
    from flows.dataset_status import describe_status, print_status

    described = describe_status(root)
    if json_:
        print_json(described)
    else:
        print_status(described, console)


@app.command(
    help_epilogue=show_examples("magicseg verify runs/mine", "magicseg verify runs/mine --deep")
)
def verify(
    root: Place,
    *,
    deep: Flag = False,
    repair: Flag = False,
    json_: Json = False,
) -> None:
    """Compare the files of a dataset with its records; changes nothing unless it shall repair.

    Args:
        root: Dataset: a folder or an object-store URL.
        deep: Hash every byte and open every sample, instead of comparing sizes and counts.
        repair: Move what is damaged into the quarantine; the next 'magicseg generate' remakes it.
        json_: Print JSON.
    """
    from storage.layout import SPEC_PATH
    from storage.store import Store
    from storage.verification import repair as put_aside
    from storage.verification import verify_bytes, verify_records, verify_specification
    from storage.vocabulary import load_vocabulary

    findings = verify_specification(root, mend=repair)
    # what a dataset is must be known before the rest of it can be looked at
    if not any(each.path == SPEC_PATH and not each.repaired for each in findings):
        store = Store.open(root)
        num_classes = len(load_vocabulary(store.vocabulary)) if deep else None
        if repair:
            findings += put_aside(store, num_classes)
        elif num_classes is not None:
            findings += verify_bytes(store, num_classes)
        else:
            findings += verify_records(store)
    if json_:
        print_json([finding.model_dump(mode="json") for finding in findings])
    else:
        for finding in findings:
            what = "put aside" if finding.repaired else finding.way_out
            say(f"{finding.path}: {finding.problem}; {what}")
        say(f"{len(findings)} findings in {root}")
        if any(finding.repaired for finding in findings):
            say("run 'magicseg generate' (or 'merge') again to remake what is missing")
    if findings:
        sys.exit(EXIT_WORK_LEFT)


_Format = Annotated[
    Literal["folders", "coco", "yolo", "fiftyone", "label-studio", "cvat"],
    Parameter(
        name="--format",
        help="folders (images and 8-bit label maps of some classes), coco (instances as JSON), "
        "yolo (polygons), fiftyone, or tasks for correction: label-studio, cvat.",
    ),
]


@app.command(
    help_epilogue=show_examples(
        "magicseg export --dataset runs/mine --classes miniature --out exports/mine",
        "magicseg export --dataset runs/mine --format coco --out exports/coco",
        "magicseg export --dataset runs/mine --format cvat --out exports/cvat",
        "magicseg export --dataset runs/mine --format yolo --out exports/yolo",
        "magicseg export --dataset runs/mine --format fiftyone --out exports/fo",
    )
)
def export(
    *,
    dataset: Place,
    out: LocalPath,
    form: _Format = "folders",
    classes: str | None = None,
    no_images: Flag = False,
    vocabulary: str | None = None,
) -> None:
    """Write a dataset into a folder in a form that other tools read.

    Samples that were left out are not exported, and masks are those that were corrected.

    Args:
        dataset: Root of a dataset, or a folder of tars.
        out: The folder; an export of the same there goes on and follows the dataset.
        form: What is written.
        classes: Of folders, which need it: voc20, coco80, coco_stuff, cityscapes, context59,
            miniature, or names between commas.
        no_images: Write no pictures, only what is said of them: coco, label-studio, cvat.
        vocabulary: What the label maps index; only needed for a folder of tars.
    """
    if (classes is None) == (form == "folders"):
        how = "needs --classes" if classes is None else "takes no --classes: it has all of them"
        message = f"--format {form} {how}"
        raise InputError(message)
    if no_images and form in {"folders", "yolo", "fiftyone"}:
        message = f"--no-images means nothing for --format {form}"
        raise InputError(message)
    from flows.local_steps import export_locally, vocabulary_of

    if form == "folders":
        export_locally(dataset, classes or "", vocabulary, out, console)
        return
    from flows.dataset_exports import export_as, print_export

    chosen = vocabulary_of(dataset, vocabulary)
    print_export(export_as(dataset, form, chosen, out, images=not no_images), out, say)
