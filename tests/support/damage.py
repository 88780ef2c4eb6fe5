"""Kinds of damage that a dataset can take: each is done to a folder by one function.

Those that are only found by a deep look are the rule; what a plain `verify` sees is a part of them.
"""

import json
import os
import re
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from storage.commit_log import record_path
from storage.commits import Commit, read_commit
from storage.records import Stage
from storage.store import Store

__all__ = ["DAMAGE", "Harm"]

Harm = Callable[[Path], None]
DAMAGE: dict[str, Harm] = {}
"""Every kind by its name."""


def harm(function: Harm) -> Harm:
    DAMAGE[function.__name__.replace("_", " ")] = function
    return function


def flip(path: Path, at: float = 0.5) -> None:
    """Turn one bit of a file round."""
    with path.open("r+b") as file:
        file.seek(int(at * (path.stat().st_size - 1)))
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def tars(root: Path) -> list[Path]:
    return sorted((root / "data").glob("*.tar"))


def manifests(root: Path) -> list[Path]:
    return sorted((root / ".engine/manifests").glob("*.parquet"))


def commits(root: Path, stage: Stage) -> list[Commit]:
    return Store.open(root).commits(stage)


def output(root: Path, stage: Stage) -> Path:
    commit = commits(root, stage)[0]
    assert commit.object is not None
    return root / commit.object.path


def record(root: Path, stage: Stage = Stage.SHARDS) -> Path:
    return root / record_path(commits(root, stage)[0])


def rewrite(root: Path, stage: Stage = Stage.SHARDS, **changes: object) -> None:
    """Edit a record in a way that only its contents can give away: its checksum fits."""
    commit = commits(root, stage)[0]
    edited = Commit.model_validate(commit.model_dump() | changes).sealed()
    (root / record_path(commit)).write_bytes(edited.encode())


def swap(first: Path, second: Path) -> None:
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


@harm
def one_bit_in_a_tar(root):
    flip(tars(root)[0])


@harm
def one_bit_in_a_header_of_a_tar(root):
    flip(tars(root)[1], 0.0)


@harm
def one_bit_in_the_padding_of_a_tar(root):
    flip(tars(root)[1], 1.0)


@harm
def two_tars_swapped(root):
    swap(*tars(root)[:2])


@harm
def a_text_edited_in_every_tar(root):
    for tar in tars(root):
        data = tar.read_bytes()
        edited = re.sub(rb'"text":"(.)', b'"text":"Q', data)
        assert edited != data
        tar.write_bytes(edited)


@harm
def a_tar_cut_between_two_samples(root):
    tar = tars(root)[0]
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
    assert len(members) > 4
    os.truncate(tar, members[4].offset)


@harm
def a_tar_emptied(root):
    tars(root)[0].write_bytes(b"")


@harm
def bytes_appended_to_a_tar(root):
    with tars(root)[0].open("ab") as file:
        file.write(bytes(512))


@harm
def a_tar_deleted(root):
    tars(root)[0].unlink()


@harm
def a_tar_of_another_maker(root):
    with BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("x.txt"))
        tars(root)[0].write_bytes(buffer.getvalue())


@harm
def a_stray_tar(root):
    (root / "data/train-0badcafe-000009.tar").write_bytes(tars(root)[0].read_bytes())


@harm
def a_tar_under_the_name_of_a_shard_that_is_not_finished(root):
    tar = tars(root)[0]
    tar.with_name(tar.name.replace("000000", "000077")).write_bytes(tar.read_bytes())


@harm
def one_bit_in_a_manifest(root):
    flip(manifests(root)[0])


@harm
def a_manifest_cut(root):
    os.truncate(manifests(root)[0], 100)


@harm
def a_manifest_deleted(root):
    manifests(root)[0].unlink()


@harm
def two_manifests_swapped(root):
    swap(*manifests(root)[:2])


@harm
def one_bit_in_the_pictures_of_a_piece(root):
    flip(output(root, Stage.PAIRS))


@harm
def one_bit_in_the_pictures_and_nothing_made_of_them_yet(root):
    store = Store.open(root)
    for stage in (Stage.SHARDS, Stage.MASKS, Stage.DETECTIONS):
        for commit in store.commits(stage):
            store.withdraw(commit, "not made yet")
    flip(output(root, Stage.PAIRS))


@harm
def one_bit_in_the_texts_of_a_piece(root):
    flip(output(root, Stage.PROMPTS))


@harm
def one_bit_in_the_boxes_of_a_piece(root):
    flip(output(root, Stage.DETECTIONS))


@harm
def one_bit_in_the_masks_of_a_piece_that_is_packed_again(root):
    store = Store.open(root)
    for commit in store.commits(Stage.SHARDS):
        store.withdraw(commit, "to be packed again")
    flip(output(root, Stage.MASKS))


@harm
def the_pictures_of_a_piece_deleted(root):
    output(root, Stage.PAIRS).unlink()


@harm
def the_texts_of_a_piece_emptied(root):
    output(root, Stage.PROMPTS).write_bytes(b"")


@harm
def one_bit_in_a_record_of_a_shard(root):
    flip(record(root))


@harm
def one_bit_in_a_record_of_a_piece(root):
    flip(record(root, Stage.MASKS))


@harm
def a_record_cut(root):
    os.truncate(record(root), 200)


@harm
def a_record_emptied(root):
    record(root, Stage.PAIRS).write_bytes(b"")


@harm
def a_record_that_is_a_list(root):
    record(root).write_bytes(b"[1, 2]")


@harm
def a_record_deleted(root):
    record(root).unlink()


@harm
def all_records_of_shards_deleted(root):
    for commit in commits(root, Stage.SHARDS):
        (root / record_path(commit)).unlink()


@harm
def more_samples_in_a_record_than_in_its_shard(root):
    counts = commits(root, Stage.SHARDS)[0].counts.model_dump()
    rewrite(
        root,
        counts=counts | {"requested": counts["requested"] + 8, "written": counts["written"] + 8},
    )


@harm
def more_samples_in_a_record_than_in_its_piece(root):
    commit = commits(root, Stage.PROMPTS)[0]
    (name, verdict), *rest = commit.verdicts.items()
    counts = commit.counts.model_dump()
    counts |= {"requested": counts["requested"] + 1, "written": counts["written"] + 1}
    assert verdict.output
    stray = f"{commit.slice_id}{99:08d}"
    verdicts = {stray: verdict, name: verdict, **dict(rest)}
    rewrite(root, Stage.PROMPTS, counts=counts, verdicts=verdicts)


@harm
def another_sample_in_a_record_than_in_its_piece(root):
    commit = commits(root, Stage.PAIRS)[0]
    verdicts = {
        f"{commit.slice_id}{99:08d}" if number == 0 else name: verdict
        for number, (name, verdict) in enumerate(commit.verdicts.items())
    }
    rewrite(root, Stage.PAIRS, verdicts=verdicts)


@harm
def a_key_that_is_no_sample_s_in_a_record(root):
    path = record(root, Stage.PROMPTS)
    fields = json.loads(path.read_bytes())
    name = next(iter(fields["verdicts"]))
    fields["verdicts"]["f" * 16] = fields["verdicts"].pop(name)
    path.write_bytes(Commit.model_validate(fields).sealed().encode())


@harm
def a_record_of_other_samples(root):
    commit = commits(root, Stage.SHARDS)[0]
    rewrite(root, start=commit.start, stop=commit.stop + 3)


@harm
def a_record_with_other_classes(root):
    commit = commits(root, Stage.SHARDS)[0]
    classes = {number: each.model_dump() for number, each in commit.classes.items()}
    first = next(iter(classes))
    classes[first]["planned"] += 5
    rewrite(root, classes=classes)


@harm
def a_record_that_names_a_file_outside(root):
    path = record(root)
    fields = json.loads(path.read_bytes())
    fields["object"]["path"] = "../../../../../etc/passwd"
    commit = Commit.model_validate(fields).sealed()
    path.write_bytes(commit.encode())


@harm
def a_record_under_another_key(root):
    path = record(root)
    path.with_name(f"{'0' * 16}.json").write_bytes(path.read_bytes())


@harm
def a_second_record_of_a_shard(root):
    commit = commits(root, Stage.SHARDS)[0]
    other = commit.model_copy(update={"key": "0" * 64}).sealed()
    (root / record_path(other)).write_bytes(other.encode())
    read_commit(other.encode(), record_path(other))


@harm
def a_commit_that_was_begun_and_not_finished(root):
    path = record(root, Stage.PAIRS)
    intent = Path(str(path).replace("/commits/", "/intents/"))
    intent.parent.mkdir(parents=True, exist_ok=True)
    path.rename(intent)


@harm
def a_shard_that_was_begun_and_not_finished(root):
    path = record(root)
    intent = Path(str(path).replace("/commits/", "/intents/"))
    intent.parent.mkdir(parents=True, exist_ok=True)
    path.rename(intent)
    tars(root)[0].unlink()


@harm
def an_intent_that_cannot_be_read(root):
    intent = Path(str(record(root)).replace("/commits/", "/intents/"))
    intent.parent.mkdir(parents=True, exist_ok=True)
    intent.write_bytes(b'{"stage":')


@harm
def the_card_edited(root):
    card = root / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nmine\n", encoding="utf-8")


@harm
def the_card_deleted(root):
    (root / "README.md").unlink()


@harm
def one_bit_in_the_specification(root):
    flip(root / ".engine/spec.json")


@harm
def the_specification_deleted(root):
    (root / ".engine/spec.json").unlink()


@harm
def one_bit_in_the_copy_of_the_specification(root):
    flip(root / ".engine/spec.copy.json", 0.3)


@harm
def an_answer_in_the_ledger_cut(root):
    answer = root / f".engine/ledger/answers/{'0' * 64}.json"
    answer.parent.mkdir(parents=True)
    answer.write_bytes(b'{"key":')


@harm
def everything_at_once(root):
    for each in (
        one_bit_in_a_tar,
        two_manifests_swapped,
        the_pictures_of_a_piece_deleted,
        one_bit_in_a_record_of_a_piece,
        a_stray_tar,
        the_card_deleted,
        one_bit_in_the_specification,
    ):
        each(root)
