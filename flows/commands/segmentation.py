"""The command that uses a trained student: segment."""

from typing import Annotated

from cyclopts import Parameter

from flows.commands.app import Flag, LocalPath, Settings, app, console, say, show_examples
from storage.errors import InputError

AskedWords = Annotated[tuple[str, ...], Parameter(name="--word", negative="", show_default=False)]
"""Words to find; the option may be repeated."""


@app.command(
    help_epilogue=show_examples(
        'magicseg segment photo.jpg --word cat --word "red boat" \\',
        "    --run runs/mine-run --out found",
        'magicseg segment holiday "more/**/*.png" --word cat --heat \\',
        "    --run runs/mine-run --out found-cats --set inference.threshold=0.5",
    )
)
def segment(
    images: tuple[LocalPath, ...],
    /,
    *,
    word: AskedWords = (),
    run: LocalPath | None = None,
    checkpoint: LocalPath | None = None,
    out: LocalPath,
    profile: str = "miniature",
    heat: Flag = False,
    set_: Settings = (),
) -> None:
    """Find what words name in pictures, with a trained student.

    For each picture a label map, an overlay with a legend, and a JSON file with masks, areas and
    scores are written; what is there already is not made again.

    Args:
        images: JPEG or PNG files, folders of them, or globs.
        word: A word or a short phrase without an article; may be repeated.
        run: Folder of the training run whose student looks.
        checkpoint: Instead of a run: a released ZegCLIP checkpoint (.pth); the profile is one whose
            student stands on the same CLIP, such as sd15.
        out: Folder for what is found; one for each choice of words, run and settings.
        profile: Profile that the student was trained with: its windows, background rule and
            threshold are taken.
        heat: Write the scores of each word as a grey picture too.
        set_: Settings that differ from the profile's, as name=value, such as
            inference.threshold=0.5 or inference.background=softmax; may be repeated.
    """
    from flows.picture_lists import list_pictures
    from flows.segmentation import ReleasedStudent, RunStudent, Segmenting
    from storage.documents import nest, read_assignments

    if run is not None and checkpoint is None:
        student = RunStudent(run, profile)
    elif checkpoint is not None and run is None:
        student = ReleasedStudent(checkpoint, profile)
    else:
        message = "a student is needed: give either --run or --checkpoint"
        raise InputError(message)
    settings = nest(read_assignments(set_))
    pictures = list_pictures(images)
    segmenting = Segmenting(word, student, settings=settings, out=out, heat=heat)
    with console.status("segmenting"):
        segmenting.answer(pictures, say)
