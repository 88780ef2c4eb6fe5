"""Words found in pictures: what `magicseg segment` makes, one picture after another.

A folder of results belongs to one question: the words, the student and the rule, which stand in
`asked.json`. Each picture has its files there, named after the picture and its bytes, so that
pictures of the same name never meet; its record is written last and says that the others are whole.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.reports.found_words import LegendEntry, draw_heat, draw_overlay
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.results import slug
from evaluation.segment import ImageSegmenter, Segmentation, checked_words
from models.profiles import load_profile
from models.student.trained import describe_student
from storage.codecs import encode_label_map, encode_rle
from storage.documents import merge, validate
from storage.errors import DataError, EngineError, IncompleteError, InputError
from storage.files import write_whole
from storage.locks import hold_folder, refuse_other_files
from storage.photographs import decode_photograph
from storage.picture_headers import image_format
from storage.records import Record, RecordT, read_record

ASKED_FILE = "asked.json"
"""Name of the file that says what a folder's results answer."""

_FORMAT = 1
_READ = frozenset({"templates", "background_words", "inference"})
_EXECUTION = {"batch_size", "class_chunk", "seen_offset"}
_NAME_LETTERS, _WORD_LETTERS, _DIGITS = 80, 40, 12
_SIGNATURE_BYTES = 16


class Asked(Record, frozen=True):
    """What a folder of results answers; equal ones have equal results for equal pictures."""

    format: int = _FORMAT
    """Version of the files; raised when the same question gets other files."""
    words: tuple[str, ...]
    """What was asked for, in the order of the labels."""
    student: str
    """Fingerprint and step of the student."""
    rule: dict[str, Any]
    """Templates, windows, background rule and threshold."""


class FoundWord(Record, frozen=True):
    """What was found of a word."""

    word: str
    """The word."""
    label: int
    """What stands for it in the label map."""
    area: int
    """Its pixels."""
    share: float
    """Its share of the picture, in [0, 1]."""
    mean_score: float | None
    """Mean score of its pixels, in [0, 1]; null if it has none."""
    best_score: float
    """Its highest score anywhere in the picture, over the threshold or not, best word or not."""
    segmentation: dict[str, Any] | None
    """Its mask as COCO's compressed run lengths: size (rows, columns) and counts; null if it has no
    pixel."""


class Found(Record, frozen=True):
    """What was found in a picture."""

    picture: str
    """Its file, as it was named."""
    sha256: str
    """Digest of its bytes."""
    width: int
    """Pixels of the upright picture."""
    height: int
    """Pixels of the upright picture."""
    background: Background
    """The background rule."""
    threshold: float
    """Its threshold."""
    background_area: int
    """Pixels that have no word."""
    words: tuple[FoundWord, ...]
    """Each word, in the order of the labels."""
    files: dict[str, str]
    """Name of each file made, and the digest of its bytes."""
    heat: bool
    """Whether the heat maps are among them."""
    asked: Asked
    """The question."""


class Segmenting:
    """A question about pictures, and the folder for the answers.

    Args:
        words: What to find.
        run: Folder of the student's run.
        profile: Profile that the student was trained with.
        settings: Scoring settings that differ from the profile's: of `inference`, `templates` and
            `background_words`.
        out: Folder for the results; made if missing.
        heat: Whether each word gets a heat map.

    Raises:
        DataError: If the checkpoint is damaged.
        InputError: If words or settings mean nothing, the folder holds something else, there is no
            checkpoint, or the student is of another profile.
    """

    def __init__(
        self,
        words: Sequence[str],
        run: Path,
        *,
        profile: str,
        settings: dict[str, Any],
        out: Path,
        heat: bool,
    ) -> None:
        self._config = segmenting_settings(profile, settings)
        self._run = run
        self._out = out
        self._heat = heat
        words = checked_words(words)
        refuse_other_files(out, "results of 'magicseg segment'", marks=(ASKED_FILE,))
        about = describe_student(run)
        _refuse_other_profile(about, run, profile)
        self._asked = Asked(
            words=words,
            student=f"{about['fingerprint']}@{about['step']}",
            rule=_rule(self._config),
        )

    def answer(self, pictures: Sequence[Path], tell: Callable[[str], None]) -> None:
        """Segment pictures; what is there already is found.

        Args:
            pictures: Their files.
            tell: Told a line about each picture.

        Raises:
            IncompleteError: Some have no result; names them. The others have theirs.
            InputError: The folder holds the answers to another question.
            LeaseHeldError: Somebody else is at work in the folder.
        """
        failed: list[str] = []
        with hold_folder(self._out):
            self._claim()
            for picture in pictures:
                try:
                    tell(self._answer_one(picture))
                except EngineError as error:
                    failed.append(f"{picture}: {error}")
                    tell(f"{picture}: failed")
        if failed:
            message = (
                f"{len(failed)} of {len(pictures)} pictures have no result, the others have theirs "
                f"in {self._out}: {'; '.join(failed)}"
            )
            raise IncompleteError(message)

    def _claim(self) -> None:
        """Say in the folder which question its results answer, or refuse another one's folder."""
        file = self._out / ASKED_FILE
        if not file.exists():
            _write(file, self._asked)
            return
        there = _read(Asked, file)
        if there != self._asked:
            other = [name for name, value in there if value != getattr(self._asked, name)]
            message = (
                f"{self._out} holds what was found with other settings ({', '.join(other)}): "
                f"choose another folder with --out; {ASKED_FILE} there says which they were"
            )
            raise InputError(message)

    def _answer_one(self, picture: Path) -> str:
        data = _read_bytes(picture)
        sha256 = hashlib.sha256(data).hexdigest()
        stem = f"{slug(picture.stem)[:_NAME_LETTERS]}-{sha256[:_DIGITS]}"
        record = self._out / f"{stem}.json"
        if (there := self._found(record, sha256)) is not None:
            return f"{picture}: {_shares(there)} (was there, {record})"
        found = self._make(picture, data, sha256, stem)
        _write(record, found)
        return f"{picture}: {_shares(found)} ({record})"

    def _found(self, record: Path, sha256: str) -> Found | None:
        """The record of a picture if it is there and all its files are whole."""
        if not record.is_file():
            return None
        try:
            found = _read(Found, record)
        except DataError:  # cut by whoever copied it: it is made again
            return None
        if (found.asked, found.sha256) != (self._asked, sha256) or found.heat < self._heat:
            return None
        whole = all(_digest(self._out / name) == found.files[name] for name in found.files)
        return found if whole else None

    def _make(self, picture: Path, data: bytes, sha256: str, stem: str) -> Found:
        image = decode_photograph(data, str(picture))
        files: dict[str, str] = {}

        def keep(name: str, contents: bytes) -> None:
            # The record holds its digest: what a loss of power takes is made again.
            write_whole(self._out / name, contents, durable=False)
            files[name] = hashlib.sha256(contents).hexdigest()

        best: dict[str, float] = {}

        def watch(word: str, scores: np.ndarray) -> None:
            best[word] = float(scores.max())
            if self._heat:
                number = len(best)
                name = f"{stem}.heat-{number:03}-{slug(word)[:_WORD_LETTERS]}.png"
                keep(name, draw_heat(scores))

        result = self._segmenter.segment(image, self._asked.words, watch=watch)
        words = _describe_words(result, best)
        legend = [LegendEntry(each.word, each.label, each.share) for each in words]
        keep(f"{stem}.labels.png", encode_label_map(result.labels))
        keep(f"{stem}.overlay.png", draw_overlay(image, result.labels, legend))
        height, width = result.labels.shape
        return Found(
            picture=_readable(picture),
            sha256=sha256,
            width=width,
            height=height,
            background=self._config.inference.background,
            threshold=self._config.inference.threshold,
            background_area=width * height - sum(each.area for each in words),
            words=words,
            files=files,
            heat=self._heat,
            asked=self._asked,
        )

    @cached_property
    def _segmenter(self) -> ImageSegmenter:
        """Loaded for the first picture that has no result yet."""
        return ImageSegmenter.load(self._run, config=self._config)


def segmenting_settings(profile: str, settings: dict[str, Any]) -> ScoringConfig:
    """How a profile's student is asked, with settings that differ.

    Raises:
        InputError: If a setting is unknown, does not fit, or is about scores alone.
    """
    useless = sorted(settings.keys() - _READ)
    if useless:
        message = (
            f"{', '.join(useless)} changes nothing in a picture, expected settings of "
            f"{', '.join(sorted(_READ))}, such as inference.threshold=0.4"
        )
        raise InputError(message)
    named = load_profile(profile)
    document = {name: value for name, value in named.scoring.items() if name in _READ}
    return validate(ScoringConfig, merge(document, settings), f"scoring settings of {named.name}")


def _rule(config: ScoringConfig) -> dict[str, Any]:
    """All settings that a label map depends on, and no other."""
    inference = config.inference.model_dump(mode="json", exclude=_EXECUTION)
    rule: dict[str, Any] = {"templates": config.templates, "inference": inference}
    if config.inference.background is Background.WORDS:
        rule["background_words"] = config.background_words
    return rule


def _refuse_other_profile(about: dict[str, Any], run: Path, profile: str) -> None:
    own, other = about["config"]["student"]["clip"], load_profile(profile).student.clip
    if own != other:
        message = (
            f"the student of {run} stands on {own} and profile {profile} on {other}, so that its "
            "windows and threshold do not fit: name the student's profile with --profile"
        )
        raise InputError(message)


def _describe_words(result: Segmentation, best: dict[str, float]) -> tuple[FoundWord, ...]:
    shares = result.shares()
    words = []
    for label, word in enumerate(result.words, start=1):
        mask = result.labels == label if shares[word] else None
        area = 0 if mask is None else int(mask.sum())
        words.append(
            FoundWord(
                word=word,
                label=label,
                area=area,
                share=shares[word],
                mean_score=(
                    None if mask is None else float(result.scores[mask].mean(dtype=np.float64))
                ),
                best_score=best[word],
                segmentation=(
                    None if mask is None else {"size": list(mask.shape), "counts": encode_rle(mask)}
                ),
            )
        )
    return tuple(words)


def _shares(found: Found) -> str:
    shown = [f"{each.word} {each.share:.1%}" for each in found.words if each.area]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more if shown else "nothing found"


def _read_bytes(picture: Path) -> bytes:
    """The bytes of a picture; of what is none only the first are read."""
    try:
        with picture.open("rb") as file:
            start = file.read(_SIGNATURE_BYTES)
            image_format(start, str(picture))
            return start + file.read()
    except OSError as error:
        message = f"{picture} cannot be read ({error.strerror}); give another path"
        raise InputError(message) from error


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _read(kind: type[RecordT], file: Path) -> RecordT:
    way_out = "choose another folder with --out"
    return read_record(kind, file.read_bytes(), str(file), way_out=way_out)


def _write(file: Path, record: Record) -> None:
    write_whole(file, (record.model_dump_json(indent=1) + "\n").encode())


def _readable(path: Path) -> str:
    """A path as text; bytes that are no UTF-8 are shown as such."""
    return os.fsencode(path).decode("utf-8", "replace")
