"""The page itself, made of Gradio's parts, and what happens when somebody uses it."""

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio

from evaluation.segment import WordFinder
from flows.student_page.keeping import Keeping
from flows.student_page.looking import (
    Kept,
    WordRow,
    as_picture,
    look,
    read_picture,
    shrink_for_screen,
)
from flows.student_page.tables import table_cells, table_heads
from flows.student_page.uploads import picture_place
from storage.errors import EngineError, InputError

TITLE = "MagicSeg: words in a picture"

_FIRST = "drop a picture and type what to find"
_MOST_WAITING = 16
_MOST_LETTERS = 20_000
_CACHE_SECONDS = (600, 7200)


@dataclass(frozen=True)
class _Asked:
    picture: gradio.File
    words: gradio.Textbox
    find: gradio.Button
    slider: gradio.Slider
    save: gradio.Button
    saved: gradio.File


@dataclass(frozen=True)
class _Answered:
    said: gradio.Textbox
    overlays: list[gradio.Image]
    table: gradio.Dataframe
    word: gradio.Dropdown
    heats: list[gradio.Image]


class StudentPage:
    """What the page does; each method is one thing that people do on it.

    Args:
        finders: The students by name; the first is asked, the others are compared with it.
        threshold: Where the slider stands at first, in [0, 1].
        folder: Where label maps are put for downloading.
    """

    def __init__(self, finders: Mapping[str, WordFinder], threshold: float, folder: Path) -> None:
        self._finders = finders
        self._threshold = threshold
        self._folder = folder
        self._keeping = Keeping()
        self._leaving = threading.Event()

    def leave(self) -> None:
        """Let what is at work end soon: nobody looks any more."""
        self._leaving.set()

    @property
    def names(self) -> list[str]:
        """The students."""
        return list(self._finders)

    def build(self) -> gradio.Blocks:
        """Lay the page out."""
        with gradio.Blocks(
            title=TITLE, analytics_enabled=False, delete_cache=_CACHE_SECONDS
        ) as page:
            gradio.Markdown(f"# {TITLE}")
            with gradio.Row():
                with gradio.Column(scale=1, min_width=280):
                    asked = self._asked()
                with gradio.Column(scale=3):
                    answered = self._answered()
            self._wire(asked, answered)
        page.has_launched = True  # else Gradio does not look at what requests name
        page.queue(max_size=_MOST_WAITING, api_open=False)
        return page

    def _asked(self) -> "_Asked":
        """What people use."""
        return _Asked(
            picture=picture_place(
                label="Picture (JPEG or PNG)", file_types=[".jpg", ".jpeg", ".png"]
            ),
            words=gradio.Textbox(
                label="Words, between commas or on lines of their own",
                placeholder="cat, red boat",
                lines=4,
                max_lines=12,
                max_length=_MOST_LETTERS,
            ),
            find=gradio.Button("Find", variant="primary"),
            slider=gradio.Slider(0, 1, value=self._threshold, step=0.001, label="Threshold"),
            save=gradio.Button("Label map as a file"),
            saved=gradio.File(label="Label maps (PNG)", interactive=False, visible=False),
        )

    def _answered(self) -> "_Answered":
        """What they see."""
        said = gradio.Textbox(_FIRST, label="Note", max_lines=4, interactive=False, elem_id="note")
        with gradio.Row():
            overlays = [self._image(name, "overlay") for name in self.names]
        table = gradio.Dataframe(
            headers=table_heads(self.names),
            datatype="str",
            type="array",
            interactive=False,
            wrap=True,
            label="Words",
            elem_id="table",
        )
        word = gradio.Dropdown([], label="Heat map of", interactive=True)
        with gradio.Row():
            heats = [self._image(f"heat map, {name}", "heat") for name in self.names]
        return _Answered(said, overlays, table, word, heats)

    def _wire(self, asked: "_Asked", answered: "_Answered") -> None:
        """Say what happens when."""
        token = gradio.State(None, delete_callback=self._keeping.drop)
        said, word, heats = answered.said, answered.word, answered.heats
        results = [*answered.overlays, answered.table]
        looked = [token, said, *results, word, *heats, asked.saved]
        how: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "minimal",
            "concurrency_limit": 1,
        }
        drawing = {**how, "concurrency_id": "drawing"}
        asked.picture.change(self._preview, [asked.picture, token], looked, **drawing)
        # Beside the drawing, so that a threshold moves while another picture is looked at.
        asked.find.click(
            self._find,
            [asked.picture, asked.words, asked.slider, token],
            looked,
            **how,
            concurrency_id="network",
        )
        asked.slider.input(
            self._draw,
            [token, asked.slider],
            [said, *results, asked.saved],
            **drawing,
            trigger_mode="always_last",
        )
        word.input(self._heat, [token, word], [said, *heats], **drawing)
        asked.save.click(self._save, [token, asked.slider], [said, asked.saved], **drawing)

    def _image(self, label: str, kind: str) -> gradio.Image:
        return gradio.Image(
            label=label,
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_classes=[kind],
        )

    def _preview(self, file: str | None, token: str | None) -> list[Any]:
        """Another picture: show it, and forget what was found in the one before."""
        self._keeping.drop(token)
        nothing = [None] * len(self.names)
        rest = [[], gradio.update(choices=[], value=None), *nothing, gradio.update(visible=False)]
        if file is None:
            return [None, _FIRST, *nothing, *rest]
        try:
            shown = shrink_for_screen(read_picture(_bytes_of(file)))
        except EngineError as error:
            return [None, _told(error), *nothing, *rest]
        return [None, "now press Find", shown, *nothing[1:], *rest]

    def _find(self, file: str | None, text: str, threshold: float, token: str | None) -> list[Any]:
        """Ask the students."""
        try:
            if file is None:
                message = "there is no picture yet: drop one"
                raise InputError(message)
            kept = look(_bytes_of(file), text, self._finders, self._leaving.is_set)
        except EngineError as error:
            unchanged = [gradio.update()] * (2 * len(self.names) + 3)
            return [token, _told(error), *unchanged]
        token = self._keeping.put(kept, token)
        first = kept.surest(self.names[0])
        return [
            token,
            *self._drawn(kept, threshold),
            gradio.update(choices=list(kept.words), value=first),
            *self._heats(kept, first),
            gradio.update(visible=False),
        ]

    def _draw(self, token: str | None, threshold: float) -> list[Any]:
        """Another threshold: draw again; no network runs."""
        if token is None:
            return [gradio.update()] * (len(self.names) + 3)
        try:
            kept = self._keeping.get(token)
        except EngineError as error:
            unchanged = [gradio.update()] * (len(self.names) + 2)
            return [_told(error), *unchanged]
        return [*self._drawn(kept, threshold), gradio.update(visible=False)]

    def _heat(self, token: str | None, word: str | None) -> list[Any]:
        """Another word: show its heat maps."""
        unchanged = [gradio.update()] * len(self.names)
        if token is None or word is None:
            return [gradio.update(), *unchanged]
        try:
            return [gradio.update(), *self._heats(self._keeping.get(token), word)]
        except EngineError as error:
            return [_told(error), *unchanged]

    def _save(self, token: str | None, threshold: float) -> list[Any]:
        """Write the label maps for downloading, as `magicseg segment` writes them."""
        try:
            if token is None:
                message = "there is nothing to save yet: press Find"
                raise InputError(message)
            kept = self._keeping.get(token)
        except EngineError as error:
            return [_told(error), gradio.update()]
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        files = []
        for number, name in enumerate(self.names, start=1):
            ending = f"-{number}" if len(self.names) > 1 else ""
            file = folder / f"labels{ending}.png"
            file.write_bytes(kept.label_map(name, threshold))
            files.append(str(file))
        return [gradio.update(), gradio.update(value=files, visible=True)]

    def _drawn(self, kept: Kept, threshold: float) -> list[Any]:
        shown = {name: kept.show(name, threshold) for name in self.names}
        pictures = [as_picture(each.overlay) for each in shown.values()]
        said = "; ".join(
            f"{name}: {_counted(each.rows)}" if len(shown) > 1 else _counted(each.rows)
            for name, each in shown.items()
        )
        return [said, *pictures, table_cells({name: each.rows for name, each in shown.items()})]

    def _heats(self, kept: Kept, word: str) -> list[Any]:
        return [kept.show_heat(name, word) for name in self.names]


def _bytes_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except FileNotFoundError as error:
        message = "the picture was dropped too long ago and is gone: drop it again"
        raise InputError(message) from error


def _counted(rows: Sequence[WordRow]) -> str:
    return f"{sum(row.area > 0 for row in rows)} of {len(rows)} words found"


def _told(error: EngineError) -> str:
    return f"error: {error}"
