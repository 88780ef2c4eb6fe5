"""Damaged files of benchmarks, read in a process of little memory.

    python fuzz_benchmarks.py FORMAT COUNT FOLDER

prints what became of them as JSON. A crash, another error than one in words, or one that does not
name its folder ends it.
"""

import io
import json
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from fuzzing import damaged
from hostile import saved
from png_files import PALETTE, RGB, RGB_ALPHA, write_png
from storage.errors import DataError, InputError
from storage.label_colours import voc_colours
from storage.run_lengths import encode_rle

MEMORY = 3 << 29
"""Bytes that reading may take on top of the program: enough for the largest picture."""
WIDTH, HEIGHT = 60, 40
CORNER = np.indices((HEIGHT, WIDTH)).sum(axis=0) // 8 % 21
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4))
POINT_FILE = "oidv7-val-annotations-point-labels.csv"
POINTS = (
    "ImageId,X,Y,Label,EstimatedYesNo,Source,YesVotes,NoVotes,UnsureVotes,TextLabel\n"
    + "".join(
        f"a,0.{number},0.5,/m/0{number},{answer},ih,1,0,0,\n"
        for number, answer in enumerate(["yes", "no", "unsure"] * 3)
    )
)


def resealed(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums that belong to them, as far as it has chunks."""
    found, at = bytearray(png), 8
    while at + 12 <= len(found):
        end = at + 8 + int.from_bytes(found[at : at + 4], "big")
        if end + 4 > len(found):
            break
        found[end : end + 4] = zlib.crc32(found[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(found)


STRANGE = [
    None, True, -1, 0, 0.5, 1e308, 10**400, float("nan"), float("inf"), "", "x", "-1", "\0", "..",
    [], {}, [[]], [None], [[0] * 5], {"size": [1, 1]}, {"id": 1}, [1] * 7, 2**31, 8192,
]  # fmt: skip


def changed_values(data: bytes, seed: int) -> bytes:
    """A JSON file in which some values are others, or left out."""
    rng = np.random.default_rng(seed)
    document = json.loads(data)
    for _ in range(rng.integers(1, 3)):
        places = list(_places(document))
        owner, name = places[rng.integers(len(places))]
        if isinstance(owner, dict) and not rng.integers(4):
            del owner[name]
        else:
            owner[name] = STRANGE[rng.integers(len(STRANGE))]
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place inside a value: what holds it, and its name or number there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in list(inner):
        yield value, name
        if isinstance(each, dict | list):
            yield from _places(each)


def changed_cells(data: bytes, seed: int) -> bytes:
    """A table in which some cells are others."""
    rng = np.random.default_rng(seed)
    rows = [line.split(b",") for line in data.split(b"\n")]
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        row[rng.integers(len(row))] = str(STRANGE[rng.integers(len(STRANGE))]).encode()
    return b"\n".join(b",".join(row) for row in rows)


def torn(data: bytes, seed: int) -> bytes:
    """Damage, behind which every second PNG has right checksums."""
    return resealed(damaged(data, seed)) if seed % 2 else damaged(data, seed)


def label_pngs() -> Sequence[bytes]:
    return [
        write_png(CORNER),
        write_png(CORNER % 16, 4, interlaced=True),
        write_png(CORNER, 16),
        write_png(CORNER, 8, PALETTE, palette=voc_colours()),
        write_png(voc_colours()[CORNER], 8, RGB),
    ]


def photograph_pngs() -> Sequence[bytes]:
    data = Image.Exif()
    data[0x0112] = 3
    return [
        write_png(NOISE[..., :3], 8, RGB, interlaced=True),
        write_png(NOISE, 8, RGB_ALPHA),
        write_png(NOISE[..., 0] * 255, 16),
        write_png(NOISE[..., 0] % 16, 4, PALETTE, palette=NOISE[0, :16, :3]),
        saved(Image.fromarray(NOISE[..., :3].astype(np.uint8)), exif=data),
    ]


def jpegs() -> Sequence[bytes]:
    data = Image.Exif()
    data[0x0112] = 3
    image = Image.fromarray(NOISE[..., :3].astype(np.uint8))
    return [
        saved(image, "JPEG"),
        saved(image, "JPEG", progressive=True, exif=data),
        saved(image.convert("CMYK"), "JPEG", quality=60),
        saved(image.convert("L"), "JPEG", restart_marker_blocks=2),
    ]


def lists() -> Sequence[bytes]:
    names = "a\nb\nc d\n"
    paths = "/JPEGImages/a.jpg /SegmentationClass/a.png\n./JPEGImages/b.jpg\tb.png\n"
    return [names.encode(), names.encode("utf-16"), paths.encode(), b"a  1\r\nb -1\r\n"]


def annotations() -> Sequence[bytes]:
    image = {"id": 1, "width": WIDTH, "height": HEIGHT, "neg_category_ids": [3]}
    image["coco_url"] = "http://images.cocodataset.org/val2017/a.jpg"
    shapes = [
        [[5, 5, 15, 5, 15, 15, 5, 15]],
        {"size": [HEIGHT, WIDTH], "counts": encode_rle(CORNER > 9)},
        {"size": [HEIGHT, WIDTH], "counts": [100, 300, 2000]},
    ]
    rows = [
        {"id": n, "image_id": 1, "category_id": 5, "area": 9.5, "segmentation": shape, "bbox": [1]}
        for n, shape in enumerate(shapes)
    ]
    document = {"images": [image], "annotations": rows, "categories": []}
    document["categories"] = [{"id": 1, "name": "aerosol_can", "synset": "a.n.01"}]
    text = json.dumps(document)
    return [text.encode(), json.dumps(document, indent=1).encode(), text.encode("utf-16")]


def point_tables() -> Sequence[bytes]:
    excel = POINTS.replace(",", ";").replace("0.", "0,").replace("\n", "\r\n")
    return [POINTS.encode(), excel.encode("utf-8-sig"), POINTS.replace(",", "\t").encode("utf-16")]


def name_tables() -> Sequence[bytes]:
    names = "LabelName,DisplayName\n" + "".join(f'/m/0{n},"Thing, {n}"\n' for n in range(9))
    return [names.encode(), names.replace("\n", "\r\n").encode("utf-16")]


def matlab_files() -> Sequence[bytes]:
    found: list[bytes] = []
    hows: list[dict[str, Any]] = [{}, {"do_compression": True}, {"format": "4"}]
    for how in hows:
        buffer = io.BytesIO()
        savemat(buffer, {"LabelMap": CORNER.astype(np.float64)}, **how)
        found.append(buffer.getvalue())
    return found


def grey_labels() -> Sequence[bytes]:
    """Labels that COCO-Stuff and Cityscapes have both, as grey of 8 bits."""
    buffer = io.BytesIO()
    Image.fromarray((CORNER % 2 + 7).astype(np.uint8)).save(buffer, "png")
    return [buffer.getvalue()]


def write_folder(root: Path) -> None:
    """All benchmarks in one folder, whole."""
    files = {
        "JPEGImages/a.jpg": jpegs()[0],
        "JPEGImages/b.jpg": jpegs()[0],
        "JPEGImages/c d.jpg": jpegs()[0],
        "SegmentationClass/a.png": label_pngs()[0],
        "SegmentationClass/b.png": label_pngs()[0],
        "SegmentationClass/c d.png": label_pngs()[0],
        "ImageSets/Segmentation/val.txt": b"a\n",
        "ImageSets/SegmentationContext/val.txt": b"a\n",
        "trainval/a.mat": matlab_files()[0],
        "val2017/a.jpg": jpegs()[0],
        "leftImg8bit/val/ulm/a_leftImg8bit.jpg": jpegs()[0],
        "gtFine/val/ulm/a_gtFine_labelIds.png": grey_labels()[0],
        "images/val2017/1.jpg": jpegs()[0],
        "annotations/val2017/1.png": grey_labels()[0],
        "lvis_v1_val.json": annotations()[0],
        POINT_FILE: point_tables()[0],
        "oidv7-class-descriptions.csv": name_tables()[0],
        "validation/a.jpg": jpegs()[0],
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


Damage = Callable[[bytes, int], bytes]
FORMATS: dict[str, tuple[str, str, Callable[[], Sequence[bytes]], Damage]] = {
    "label png": ("voc21", "SegmentationClass/a.png", label_pngs, torn),
    "label jpeg": ("voc21", "SegmentationClass/a.png", jpegs, damaged),
    "photograph png": ("voc21", "JPEGImages/a.jpg", photograph_pngs, torn),
    "photograph jpeg": ("voc21", "JPEGImages/a.jpg", jpegs, damaged),
    "list": ("voc21", "ImageSets/Segmentation/val.txt", lists, damaged),
    "lvis json": ("lvis", "lvis_v1_val.json", annotations, damaged),
    "lvis values": ("lvis", "lvis_v1_val.json", lambda: annotations()[:1], changed_values),
    "points csv": ("open_images", POINT_FILE, point_tables, damaged),
    "points cells": ("open_images", POINT_FILE, lambda: point_tables()[:1], changed_cells),
    "names csv": ("open_images", "oidv7-class-descriptions.csv", name_tables, damaged),
    "label ids": ("cityscapes", "gtFine/val/ulm/a_gtFine_labelIds.png", grey_labels, torn),
    "pixel map": ("coco_stuff", "annotations/val2017/1.png", grey_labels, torn),
    "mat": ("context60", "trainval/a.mat", matlab_files, damaged),
}
"""Of each: the benchmark, the file, what it may hold when it is whole, and how it is damaged."""


def read_all(name: str, root: Path) -> None:
    """Read every image of a benchmark and its labels."""
    benchmark = open_benchmark(BenchmarkConfig.model_validate({"name": name, "root": root}))
    benchmark.check()
    assert benchmark.classes.names
    for _ in benchmark:
        pass


def fuzz(kind: str, count: int, root: Path) -> dict[str, Any]:
    """Read so many damaged files.

    Returns:
        How many were read and refused, the seconds of the slowest, and the peak of memory.
    """
    name, place, whole, damage = FORMATS[kind]
    write_folder(root)
    files = whole()
    for data in files:
        (root / place).write_bytes(data)
        assert _outcome(name, root) == ("DataError" if kind == "label jpeg" else "read")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() + MEMORY, hard))
    outcomes, slowest = Counter({"read": 0, "InputError": 0, "DataError": 0}), 0.0
    for seed in range(count):
        (root / place).write_bytes(damage(files[seed % len(files)], seed))
        began = time.monotonic()
        outcomes[_outcome(name, root)] += 1
        slowest = max(slowest, time.monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {**outcomes, "slowest_s": round(slowest, 2), "peak_mib": peak}


def _outcome(name: str, root: Path) -> str:
    """`read`, or the kind of the error."""
    try:
        read_all(name, root)
    except (InputError, DataError) as error:
        said, kind = str(error), type(error).__name__
    else:
        return "read"
    assert str(root) in said, f"names no file: {said}"
    return kind


def _virtual_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    json.dump(fuzz(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])), sys.stdout)
