"""Commands that help people to look at a dataset: rank."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from flows.commands.app import (
    Json,
    LocalPath,
    Place,
    Settings,
    Whole,
    app,
    console,
    errors,
    print_json,
    show_examples,
)
from storage.errors import InputError


@app.command(
    help_epilogue=show_examples(
        "magicseg rank runs/mine",
        "magicseg rank runs/mine --run runs/mine-run --out runs/mine-rank --top 50",
        "magicseg rank runs/mine --run runs/mine-noise --out runs/mine-rank",
    )
)
def rank(
    root: Place,
    /,
    *,
    run: LocalPath | None = None,
    out: LocalPath | None = None,
    top: Annotated[Whole, Parameter(validator=Number(gte=1))] = 20,
    profile: str = "miniature",
    set_: Settings = (),
    json_: Json = False,
) -> None:
    """Order the samples of a dataset by doubt, so that people look at the most doubtful first.

    The doubt is a mean of places by what was recorded of boxes, masks and areas, and by how far a
    student's prediction agrees with the mask, which counts three times. What is excluded already is
    left out; nothing is changed. A run that was interrupted goes on where it stopped.

    Args:
        root: Dataset: a folder or an object-store URL.
        run: A student to ask: folder of a training run; or of a denoise, whose students are each
            asked about what they were not trained on. Without it only records are read.
        out: Folder for rank.csv and rank.json with all samples, and for keys.txt and sheet.png with
            the first of them.
        top: How many samples to show, and to name in keys.txt.
        profile: Profile of the student.
        set_: Scoring settings that differ from the profile's, as name=value; may be repeated.
        json_: Print JSON; progress goes to standard error.
    """
    from flows.ranking import StudentQuestion, describe_ranking, print_ranking, ranked_locally
    from storage.documents import nest, read_assignments

    settings = nest(read_assignments(set_))
    if settings and run is None:
        message = f"{', '.join(set_)} means nothing without a student: name its run with --run"
        raise InputError(message)
    question = None if run is None else StudentQuestion(run, profile, settings)
    ranking = ranked_locally(root, question, out, top, errors if json_ else console)
    if json_:
        print_json(describe_ranking(ranking, top))
    else:
        print_ranking(ranking, top, out, console)
