"""What the explorer's page is told: the dataset, samples in a list, and one sample in full."""

import json
from collections.abc import Mapping
from typing import Any

from evaluation.reports.gallery import Piece, changed_text, css_colour, marked_text
from storage.errors import DataError
from storage.manifest import ManifestRow
from storage.picture_headers import image_size, read_header
from storage.sample_columns import OPEN, WRITTEN
from storage.sample_queries import SampleFacts
from storage.sample_table import SampleTable
from storage.stored_samples import StoredSample

_MOST_PROBLEMS = 20


def describe_table(table: SampleTable, root: str) -> dict[str, Any]:
    """What there is to choose from."""
    fates = table.fates()
    still_open = fates.pop(OPEN, 0)
    return {
        "root": root,
        "samples": len(table),
        "written": fates.pop(WRITTEN, 0),
        "open": still_open,
        "open_shards": len(table.open_shards),
        "reasons": [{"name": name, "count": count} for name, count in sorted(fates.items())],
        "classes": [
            {"id": number, "name": name, "count": count, "colour": css_colour(number + 1)}
            for number, name, count in table.classes()
        ],
        "shards": len(table.shards),
        "slices": sorted({name.partition("-")[0] for name in (*table.shards, *table.open_shards)}),
        "problems": [*table.problems[:_MOST_PROBLEMS]],
        "more_problems": max(0, len(table.problems) - _MOST_PROBLEMS),
    }


def describe_facts(facts: SampleFacts) -> dict[str, Any]:
    """A sample in a list."""
    return {
        "key": facts.key,
        "shard": facts.shard,
        "fate": facts.fate,
        "stage": facts.stage,
        "classes": facts.classes,
        "measures": facts.measures,
        "excluded": facts.excluded,
        "flagged": facts.marked.flagged,
        "note": facts.marked.note,
        "version": facts.version,
    }


def describe_sample(
    facts: SampleFacts, row: ManifestRow, stored: StoredSample, names: Mapping[int, str]
) -> dict[str, Any]:
    """A sample in full.

    Args:
        facts: What the table knows of it.
        row: What its manifest says.
        stored: What is stored of it.
        names: Display names of classes.
    """
    known = {**names, **dict(zip(row.class_ids, row.class_names, strict=True))}
    class_ids = [*row.class_ids]
    for each in stored.objects:
        if each.class_id not in class_ids:
            class_ids.append(each.class_id)
    areas = dict(zip(row.mask_class_ids, row.mask_areas, strict=False))
    text = marked_text(row.text, stored.mentions)
    notes, size = [*stored.notes], _size_of(stored, row)
    if isinstance(size, str):
        notes.append(size)
        size = (row.width, row.height)
    return describe_facts(facts) | {
        "detail": row.detail,
        "text": [_piece(each) for each in text],
        "counterfactual_text": [
            _piece(each) for each in changed_text(row.text, row.counterfactual_text)
        ],
        "width": size[0],
        "height": size[1],
        "classes_in_full": [
            {
                "id": number,
                "name": known.get(number, f"class {number}"),
                "colour": css_colour(number + 1),
                "area": areas.get(number),
            }
            for number in class_ids
        ],
        "objects": [
            {
                "class_id": each.class_id,
                "score": each.score,
                "iou": each.iou,
                "xyxy": each.xyxy,
            }
            for each in stored.objects
        ],
        "counterfactual_boxes": [
            {"class_id": each.class_id, "score": each.score, "xyxy": each.xyxy}
            for each in stored.counterfactual_boxes
        ],
        "pictures": {
            "image": bool(stored.image),
            "counterfactual": bool(stored.counterfactual),
            "masks": stored.has_masks,
            "ignored": bool(stored.label_map),
        },
        "notes": notes,
        "row": row.model_dump(mode="json"),
        "record": _parsed(stored.record),
    }


def picture_type(data: bytes, name: str) -> str:
    """The media type of a stored picture.

    Raises:
        DataError: It is neither JPEG nor PNG.
    """
    return "image/png" if read_header(data, name).format == "png" else "image/jpeg"


def _size_of(stored: StoredSample, row: ManifestRow) -> tuple[int, int] | str:
    """Width and height of the pictures, or why they cannot be told."""
    picture = stored.image or stored.counterfactual
    if not picture:
        return row.width, row.height
    try:
        return image_size(picture)
    except DataError as error:
        return str(error)


def _piece(piece: Piece) -> dict[str, str]:
    return {"text": piece.text, "colour": piece.colour}


def _parsed(record: str) -> Any:
    if not record:
        return None
    fields = json.loads(record)
    for name in ("mentions", "instances", "counterfactual_boxes"):
        if isinstance(fields.get(name), str):
            fields[name] = json.loads(fields[name])
    return fields
