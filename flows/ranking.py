"""What the command `rank` shows and writes: the samples of a dataset, the most doubtful first.

A folder of a ranking holds all of it: `rank.json` and `rank.csv` with every sample, `sheet.png`
with the first of them, and `keys.txt` with their keys, from which those that are right are struck
out before `magicseg exclusions add` reads it.
"""

import csv
import io
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from evaluation.reports.sheets import DoubtfulPicture, draw_doubtful
from evaluation.scoring.agreement import Agreement
from evaluation.scoring.config import ScoringConfig
from models.profiles import load_profile
from storage.codecs import decode_image, decode_label_map
from storage.current_samples import CurrentSamples
from storage.documents import merge, validate
from storage.errors import IncompleteError, InputError
from storage.exclusions import excluded_keys
from storage.files import write_whole
from storage.locks import hold_folder, refuse_other_files
from storage.manifest import ManifestRow
from storage.shards import Sample
from storage.store import Store
from tasks.doubt import SIGNALS, DoubtedSample, rank_doubt, table_row

KEYS_FILE, CSV_FILE, JSON_FILE, SHEET_FILE = "keys.txt", "rank.csv", "rank.json", "sheet.png"

_JUDGED = "judged"
_TILE = 128
_SHEET_SAMPLES = 96


@dataclass(frozen=True)
class DoubtOrder:
    """The samples of a dataset in the order of doubt.

    Attributes:
        root: The dataset.
        samples: The most doubtful first.
        excluded: How many are left out already, and are not among them.
        asked: Whether a student was asked.
    """

    root: str
    samples: Sequence[DoubtedSample]
    excluded: int
    asked: bool


@dataclass(frozen=True)
class StudentQuestion:
    """Who is asked about the masks, and how.

    Attributes:
        run: Folder of a training run, or of a noise learning.
        profile: Profile of its student.
        settings: Scoring settings that differ from the profile's.
    """

    run: Path
    profile: str
    settings: dict[str, Any]


def rank_dataset(
    root: str,
    question: StudentQuestion | None = None,
    *,
    out: Path | None = None,
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> DoubtOrder:
    """Order the samples of a dataset's good shards by doubt.

    Without a student nothing is computed: what was recorded of boxes, masks and areas decides.
    Of a corrected sample these are a person's: scores and IoU of 1, and the areas of its masks.

    Args:
        root: The dataset.
        question: A student that is asked too.
        out: Folder where its answers are kept, shard by shard.
        watch: Told how many of how many shards were judged.

    Raises:
        DataError: A manifest, a shard or a student is damaged.
        IncompleteError: There is no sample to rank.
        InputError: There is no dataset, or the run is none or of another vocabulary.
    """
    store = Store.open(root)
    excluded = excluded_keys(store.objects)
    rows = list(_written(store))
    kept = [row for row in rows if row.key not in excluded]
    if not kept:
        message = f"{store.root} has no sample to rank in a good shard" + (
            f": {len(rows)} are excluded" if rows else ": run 'magicseg generate' first"
        )
        raise IncompleteError(message)
    agreements = None if question is None else _ask(root, question, out, watch)
    samples = rank_doubt(kept, agreements)
    return DoubtOrder(store.root, samples, len(rows) - len(kept), asked=question is not None)


def ranked_locally(
    root: str, question: StudentQuestion | None, out: Path | None, top: int, console: Console
) -> DoubtOrder:
    """Rank, show how far it is, and write the files of the ranking if a folder is given.

    Raises:
        InputError: As `rank_dataset`; a student is to be asked and no folder is given, or the
            folder holds something else.
        LeaseHeldError: Somebody else ranks there.
    """
    if out is None:
        if question is not None:
            message = "a student's answers need a folder, where they are found again: give --out"
            raise InputError(message)
        return rank_dataset(root)
    refuse_other_files(out, "a ranking", marks=(JSON_FILE, _JUDGED))
    Store.open(root)
    with hold_folder(out), console.status("ranking") as status:

        def watch(done: int, total: int) -> None:
            status.update(f"judged {done} of {total} shards")

        ranking = rank_dataset(root, question, out=out, watch=watch)
        write_ranking(ranking, out, top)
    return ranking


def write_ranking(ranking: DoubtOrder, out: Path, top: int) -> None:
    """Write the order as JSON and CSV, and the first samples as keys and as a picture.

    Args:
        ranking: The order.
        out: The folder.
        top: How many keys; the picture shows as many of them as fit.

    Raises:
        DataError: A shard is damaged.
    """
    first = ranking.samples[:top]
    buffer = io.StringIO()
    rows = [table_row(each, place) for place, each in enumerate(ranking.samples, start=1)]
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / CSV_FILE, buffer.getvalue().encode())
    shown = draw_doubtful(list(_pictures(ranking, first[:_SHEET_SAMPLES])), tile=_TILE)
    write_whole(out / SHEET_FILE, shown)
    write_whole(out / KEYS_FILE, "".join(f"{each.key}\n" for each in first).encode())
    text = json.dumps(describe_ranking(ranking, len(ranking.samples)), indent=1)
    write_whole(out / JSON_FILE, text.encode())


def describe_ranking(ranking: DoubtOrder, top: int) -> dict[str, Any]:
    """A ranking as JSON types, with the first samples of it."""
    return {
        "root": ranking.root,
        "ranked": len(ranking.samples),
        "excluded": ranking.excluded,
        "signals": dict(SIGNALS),
        "samples": [each.model_dump(mode="json") for each in ranking.samples[:top]],
    }


def print_ranking(ranking: DoubtOrder, top: int, out: Path | None, console: Console) -> None:
    """Print the first samples with what speaks against each, and what to do next."""
    table = Table("", Column("sample", no_wrap=True), "classes", "doubt", *SIGNALS)
    for place, each in enumerate(ranking.samples[:top], start=1):
        signals = [
            f"{each.values[name]:.2f} ({each.places[name]:.2f})" if name in each.values else "-"
            for name in SIGNALS
        ]
        names = escape(", ".join(each.class_names))
        table.add_row(str(place), each.key, names, f"{each.doubt:.2f}", *signals)
    console.print(table)
    for line in _notes(ranking, out):
        console.print(line, markup=False, soft_wrap=True)


def _notes(ranking: DoubtOrder, out: Path | None) -> Iterator[str]:
    yield (
        f"{len(ranking.samples)} samples ranked, {ranking.excluded} are excluded already; in "
        "parentheses the share of samples that are less doubtful by that alone"
    )
    if not ranking.asked:
        yield "no student was asked: --run RUN --out FOLDER asks that of a run or of a denoise"
    if out is not None:
        yield f"look at {out / SHEET_FILE}, strike out of {out / KEYS_FILE} what is right, then:"
        words = ("exclusions", "add", ranking.root, "--keys", str(out / KEYS_FILE))
        yield f"magicseg {shlex.join(words)} --why 'wrong mask'"


def _written(store: Store) -> Iterator[ManifestRow]:
    current = CurrentSamples(store)
    for shard in store.shards():
        if not shard.degraded and shard.path is not None:
            yield from (row for row in current.rows(shard) if row.status == "written")


def _ask(
    root: str, question: StudentQuestion, out: Path | None, watch: Callable[[int, int], None]
) -> dict[str, Agreement]:
    # What only looks at records must start without the libraries of networks.
    from tasks.judging import find_judges, judge_shards
    from tasks.training import refuse_other_vocabulary

    if out is None:
        message = "a student's answers need a folder: give out"
        raise InputError(message)
    profile = load_profile(question.profile)
    refuse_other_vocabulary(root, profile.vocabulary)
    scoring = validate(ScoringConfig, merge(profile.scoring, question.settings), "scoring settings")
    judges = find_judges(question.run)
    return judge_shards(root, judges, scoring, out=out, watch=watch)


def _pictures(ranking: DoubtOrder, shown: Sequence[DoubtedSample]) -> Iterator[DoubtfulPicture]:
    """The samples as pictures, in their order; only the tars that hold them are opened."""
    samples = _read(Store.open(ranking.root), {each.key for each in shown})
    for place, each in enumerate(shown, start=1):
        sample = samples[each.key]
        said = [f"{name} {value:.2f}" for name, value in each.values.items()]
        yield DoubtfulPicture(
            image=decode_image(sample.image_bytes, name=sample.member("image")),
            labels=decode_label_map(sample.mask_bytes, name=sample.member("mask")),
            title=f"{place}: {', '.join(each.class_names)}",
            lines=(
                ", ".join([f"doubt {each.doubt:.2f}", *said[:2]]),
                ", ".join(said[2:]),
                each.key,
            ),
        )


def _read(store: Store, keys: set[str]) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    current = CurrentSamples(store)
    for shard in store.shards():
        if shard.path is not None and keys & store.written_classes(shard.commit).keys():
            found.update((each.key, each) for each in current.of(shard) if each.key in keys)
    return found
