"""Label Studio: tasks with the masks as brush strokes, and what comes back of them.

The JSON is Label Studio's own (labelstud.io/guide/export, "JSON"), the strokes are in its run
lengths, so that masks survive to the pixel. Tasks come with the masks as predictions; those that
somebody submitted have annotations, of which the last one that was not cancelled counts.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from storage.codecs import decode_rle
from storage.documents import explain
from storage.errors import InputError
from storage.exports.brush_rle import pack_brush, unpack_brush
from storage.exports.drawn_masks import DrawnRegion, DrawnSample
from storage.exports.forms import Entries, ExportFacts, laid_out
from storage.exports.regions import IGNORED, shown_regions
from storage.picture_headers import image_size
from storage.shards import Sample
from storage.vocabulary import Vocabulary

__all__ = ["LabelStudioForm", "read_label_studio"]

_FROM, _TO, _KIND = "label", "image", "brushlabels"
_MODEL = "MagicSeg"


class LabelStudioForm:
    """Writes samples as tasks for Label Studio.

    Args:
        vocabulary: Its classes are the labels, all of them.
        folder: Name of the export's folder below the root of Label Studio's local files.
    """

    name = "label-studio"
    document = "tasks.json"
    parts = ("tasks",)
    folders = ("images",)
    is_numbered = True

    def __init__(self, vocabulary: Vocabulary, folder: str) -> None:
        self._vocabulary = vocabulary
        self._folder = folder

    def file_names(self, key: str, suffix: str) -> tuple[str, ...]:
        """The picture of a sample."""
        return (f"{key}{suffix}",)

    def entries(self, sample: Sample, suffix: str) -> Entries:
        """A task, with what the label map shows as its prediction."""
        width, height = image_size(sample.image_bytes)
        result = [
            {
                "id": f"{sample.key}-{number}",
                "type": _KIND,
                "from_name": _FROM,
                "to_name": _TO,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": each.scores[0],
                "value": {
                    "format": "rle",
                    "rle": pack_brush(decode_rle(each.rle, height, width, name=sample.key)),
                    _KIND: [label_of(each.class_id, self._vocabulary)],
                },
            }
            for number, each in enumerate(shown_regions(sample))
        ]
        data = {
            "key": sample.key,
            "image": f"/data/local-files/?d={self._folder}/images/{sample.key}{suffix}",
            "text": sample.text,
            "classes": ", ".join(sample.class_names),
        }
        task = {"data": data, "predictions": [{"model_version": _MODEL, "result": result}]}
        line = json.dumps(task, ensure_ascii=False, separators=(",", ":"))
        return Entries({"tasks": [line]}, len(result), (sample.image_bytes,))

    def document_lines(
        self, facts: ExportFacts, lists: Mapping[str, Iterator[str]]
    ) -> Iterator[str]:
        """A list of tasks has no room for facts: they are in the card beside it."""
        del facts
        yield from laid_out(("[\n", "\n]\n"), lists, ",\n")

    def other_files(self, facts: ExportFacts) -> Mapping[str, str]:
        """The labelling interface that the project needs."""
        del facts
        labels = [each.name for each in self._vocabulary] + [IGNORED]
        lines = [f"    <Label value={quoteattr(name)}/>" for name in labels]
        view = [
            "<View>",
            '  <Text name="text" value="$text"/>',
            f'  <Image name="{_TO}" value="$image" zoom="true"/>',
            f'  <BrushLabels name="{_FROM}" toName="{_TO}">',
            *lines,
            "  </BrushLabels>",
            "</View>",
        ]
        return {"labels.xml": "\n".join([*view, ""])}


class _Value(BaseModel):
    format: str = ""
    rle: tuple[int, ...] = ()
    brushlabels: tuple[str, ...] = ()


class _Result(BaseModel):
    type: str = ""
    original_width: int = Field(default=0, ge=0)
    original_height: int = Field(default=0, ge=0)
    value: _Value = _Value()


class _Annotation(BaseModel):
    result: list[_Result]
    was_cancelled: bool = False
    updated_at: str | None = None
    created_at: str | None = None


class _Data(BaseModel):
    key: str


class _Task(BaseModel):
    data: _Data
    annotations: tuple[_Annotation, ...] = ()


_TASKS = TypeAdapter(list[_Task])


def read_label_studio(data: bytes, name: str) -> list[DrawnSample]:
    """Read what Label Studio exported as JSON.

    Args:
        data: The file.
        name: What messages call it.

    Returns:
        The samples that somebody submitted, in file order.

    Raises:
        InputError: It is no such file, or has something else than brush strokes in it.
    """
    try:
        tasks = _TASKS.validate_json(data)
    except ValidationError as error:
        message = (
            f"{name} is no export of Label Studio ({explain(None, error)}): export the project as "
            "JSON (not JSON-MIN), of tasks that 'magicseg export --format label-studio' wrote"
        )
        raise InputError(message) from error
    return [
        DrawnSample(task.data.key, tuple(_regions(task.data.key, annotation)))
        for task in tasks
        if (annotation := _last(task)) is not None
    ]


def _last(task: _Task) -> _Annotation | None:
    """The annotation that counts."""
    submitted = [each for each in task.annotations if not each.was_cancelled]
    order = sorted(submitted, key=lambda each: each.updated_at or each.created_at or "")
    return order[-1] if order else None


def _regions(key: str, annotation: _Annotation) -> Iterator[DrawnRegion]:
    for each in annotation.result:
        if each.type != _KIND:
            if each.type.endswith("labels") or each.type == "brush":
                message = (
                    f"sample {key} has a region of type {each.type!r}, expected {_KIND!r}: draw it "
                    "with the brush"
                )
                raise InputError(message)
            continue  # a choice or a remark, not a mask
        if each.value.format != "rle" or len(each.value.brushlabels) != 1:
            message = (
                f"sample {key} has a region of format {each.value.format!r} with "
                f"{len(each.value.brushlabels)} labels, expected 'rle' with one"
            )
            raise InputError(message)
        size: Any = (each.original_height, each.original_width)
        decode = partial(unpack_brush, each.value.rle, *size, name=f"sample {key}")
        yield DrawnRegion(
            each.value.brushlabels[0], each.original_width, each.original_height, decode
        )


def label_of(class_id: int | None, vocabulary: Vocabulary) -> str:
    """What tools call a class, or the pixels that are to be ignored."""
    return IGNORED if class_id is None else vocabulary[class_id].name
