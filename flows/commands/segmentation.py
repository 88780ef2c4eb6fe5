"""The commands that use a trained student: segment, serve-student."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from flows.commands.app import (
    Flag,
    LocalPath,
    Settings,
    Whole,
    app,
    console,
    errors,
    say,
    show_examples,
)

AskedWords = Annotated[tuple[str, ...], Parameter(name="--word", negative="", show_default=False)]
"""Words to find; the option may be repeated."""
_PagePort = Annotated[Whole, Parameter(validator=Number(gte=0, lt=65536))]


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
    labeller: str | None = None,
    out: LocalPath,
    profile: str = "miniature",
    heat: Flag = False,
    set_: Settings = (),
) -> None:
    """Find what words name in pictures, with a trained student or a labeller.

    For each picture a label map, an overlay with a legend, and a JSON file with masks, areas and
    scores are written; what is there already is not made again.

    Args:
        images: JPEG or PNG files, folders of them, or globs.
        word: A word or a short phrase without an article; may be repeated.
        run: Folder of the training run whose student looks, or of a closed-set run, of whose
            classes the words must be.
        checkpoint: Instead of a run: a released ZegCLIP checkpoint (.pth); the profile is one whose
            student stands on the same CLIP, such as sd15.
        labeller: Instead of a run: a profile (shipped, or a YAML file) whose labeller looks, as it
            does for a dataset, such as sd15-sam3.
        out: Folder for what is found; one for each choice of words, run and settings.
        profile: Profile that the student was trained with: its windows, background rule and
            threshold are taken.
        heat: Write the scores of each word as a grey picture too.
        set_: Settings that differ from the profile's, as name=value, such as
            inference.threshold=0.5 or inference.background=softmax, of a labeller such as
            detector.box_threshold=0.2; may be repeated.
    """
    from flows.picture_lists import list_pictures
    from flows.segmentation import Segmenting
    from flows.word_finders import Named, choose_finder
    from storage.documents import nest, read_assignments

    named = Named(run, checkpoint, labeller, profile, nest(read_assignments(set_)))
    finder = choose_finder(named)
    pictures = list_pictures(images)
    segmenting = Segmenting(word, finder, out=out, heat=heat)
    with console.status("segmenting"):
        segmenting.answer(pictures, say)


@app.command(
    help_epilogue=show_examples(
        "magicseg serve-student --run runs/mine-run",
        "magicseg serve-student --run runs/mine-run --compare runs/older-run \\",
        "    --port 7870",
    )
)
def serve_student(
    *,
    run: LocalPath,
    compare: LocalPath | None = None,
    profile: str = "miniature",
    host: str = "127.0.0.1",
    port: _PagePort = 7860,
    set_: Settings = (),
) -> None:
    """Serve a page on which a trained student is asked about one's own pictures.

    Drop a picture, type words, move the threshold. Needs the extra `app`. Nothing is fetched from
    elsewhere and nothing is kept when it ends, by Ctrl-C.

    Args:
        run: Folder of the training run whose student looks.
        compare: Folder of another run, whose student is shown beside it.
        profile: Profile that the students were trained with: its windows, background rule and
            threshold are taken.
        host: Interface to listen on; any but this machine's own lets everybody in who reaches it.
        port: Its port; 0 takes a free one.
        set_: Settings that differ from the profile's, as for `magicseg segment`; may be repeated.
    """
    from contextlib import closing

    from flows.page_addresses import PageAddress
    from flows.student_page.server import quiet_gradio, serve
    from storage.documents import nest, read_assignments

    address = PageAddress(host, port)
    settings = nest(read_assignments(set_))
    with closing(address.listen()) as listening, quiet_gradio() as folder:
        if not address.is_loopback:
            errors.print(
                f"warning: {host} is not this machine alone: whoever reaches it can use the page, "
                "there is no password",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        from flows.student_page.opening import open_page

        page = open_page(run, compare, profile, settings, folder)
        try:
            serve(page, address, listening, lambda url: say(f"{url} (Ctrl-C ends it)"))
        except KeyboardInterrupt:
            say("stopped; nothing was kept")
