"""What is there in place of a file that is missing: messages look before they advise."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_DEEPEST, _UPWARDS, _MOST_FOLDERS = 3, 2, 300
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".gz")
_MOST_NAMED = 8
_AUGMENTED = "SegmentationClassAug"


def other_root(root: Path, wanted: Sequence[str]) -> Path | None:
    """Find the folder that was probably meant: below the one that was given, or above it.

    Args:
        root: What was given.
        wanted: Paths inside a right one, of which one is enough.
    """
    for folder in (*_below(root), *root.absolute().parents[:_UPWARDS]):
        if any(exists(folder / path) for path in wanted):
            return folder
    return None


def root_hint(root: Path, wanted: Sequence[str]) -> str:
    """Say which folder was probably meant, as part of a sentence; empty if there is none."""
    found = other_root(root, wanted)
    return f"{found} is laid out as the benchmark: give that folder" if found else ""


def files_hint(missing: Sequence[Path]) -> str:
    """Say what is there in place of missing files, as part of a sentence; empty if nothing is.

    Args:
        missing: Files, of which the first few are looked for.
    """
    for path in missing[:_MOST_NAMED]:
        for hint in (_packed(path), _other_folder(path, missing), _other_spelling(path)):
            if hint:
                return hint
    return ""


def lists_hint(listing: Path) -> str:
    """Name the lists beside one that is missing, as part of a sentence; empty if there is none."""
    others = sorted(path for path in _listed(listing.parent) if path.suffix.lower() == ".txt")
    close = [path.name for path in others if path.stem.casefold() == listing.stem.casefold()]
    if close:
        return f"{close[0]} is there: rename it to {listing.name}"
    if others:
        names = ", ".join(path.stem for path in others[:_MOST_NAMED])
        return f"there are lists of the splits {names}: choose one of them"
    return ""


def splits_hint(path: Path, start: str) -> str:
    """Name files beside one that is missing which differ in the name of the split alone."""
    others = [
        other.stem.removeprefix(start)
        for other in _listed(path.parent)
        if other.name.startswith(start) and other.suffix == path.suffix and is_file(other)
    ]
    if not others:
        return ""
    return f"there are files of the splits {', '.join(sorted(others))}: choose one of them"


def labels_hint(listing: Path, folder: Path) -> str:
    """Say that label files lie there without a list, as part of a sentence."""
    count = sum(path.suffix.lower() == ".png" for path in _listed(folder))
    if not count:
        return ""
    return f"{folder} holds {count} label files, so write their names into {listing}"


def exists(path: Path) -> bool:
    """Whether something is there that can be looked at."""
    with contextlib.suppress(OSError, ValueError):
        return path.exists()
    return False


def is_file(path: Path) -> bool:
    """Whether a file is there that can be looked at."""
    with contextlib.suppress(OSError, ValueError):
        return path.is_file()
    return False


def _listed(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _below(root: Path) -> Iterator[Path]:
    """Folders in a folder, the nearest first; not too many of them."""
    level = [root]
    for _ in range(_DEEPEST):
        level = [child for folder in level for child in _folders(folder)[:_MOST_FOLDERS]]
        level = level[:_MOST_FOLDERS]
        yield from level


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return []


def _packed(path: Path) -> str:
    """An archive that nobody has unpacked, in place of a file or its folder."""
    for place in (path, path.parent):
        for ending in _ARCHIVES:
            archive = place.with_name(place.name + ending)
            if is_file(archive):
                return f"{archive} is there: unpack it"
    return ""


def _other_folder(path: Path, missing: Sequence[Path]) -> str:
    """A folder inside or beside that holds the file: unpacked twice, or another kind of label."""
    folder = path.parent
    beside = [
        other
        for other in _folders(folder.parent)
        if other != folder and other.name.casefold().startswith(folder.name.casefold())
    ]
    for other in (*_folders(folder), *beside):
        if is_file(other / path.name):
            count = sum(is_file(other / each.name) for each in missing if each.parent == folder)
            if other.name == _AUGMENTED:
                return f"{other} holds {count} of them, which are read for the split trainaug"
            return f"{other} holds {count} of them: move them to {folder}"
    return ""


def _other_spelling(path: Path) -> str:
    """A file of the same name with another ending, or in capitals."""
    for other in _listed(path.parent):
        if other.stem.casefold() == path.stem.casefold() and other != path:
            kind = "a folder" if other.is_dir() else "there"
            return f"{other} is {kind}, expected {path.name}"
    if exists(path):
        return f"{path} is a folder, expected a file"
    return ""
