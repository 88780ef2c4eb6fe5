"""What a resumed run pays to see how far a dataset of 380,000 samples is.

The dataset is fabricated. Its tars have the members of their samples, with few bytes each, and are
one file under many names. The peer opens every tar to see what is in it, as one does who keeps no
records; the limit reads the records' bytes and nothing more. A second dataset has shards that were
begun: every sample has its pieces, and no shard is packed, which is the most there can be to look
at. `before` is version 0.1, which looked at a finished shard stage by stage and had no pieces; its
own fabricated dataset was looked at on the day of these figures.
"""

import argparse
import io
import tarfile
import tempfile
from pathlib import Path

from benchmarks.measurement import Row, compare
from benchmarks.results_file import write_results
from benchmarks.store_scale import fabricate
from flows.generation_parameters import GenerationParameters
from flows.generation_plan import describe_plan
from flows.generation_run import open_run, prepare
from flows.quotas import survey
from storage.commit_log import record_path
from storage.commits import Counts, Verdict
from storage.layout import SHARD_FOLDER, shard_path
from storage.payloads import Payload, describe_payload
from storage.store import Store
from tasks.cells import short_digest
from tasks.work import ShardWork

SHARDS = 380
SAMPLES = 1000
BEGUN_SHARDS = 20
BEFORE = {"scan": {"cpu_seconds": 8.5}, "plan": {"cpu_seconds": 7.5}}
MEMBERS = ("jpg", "cf.jpg", "mask.png", "json")


def fabricate_finished(root: Path, shards: int) -> GenerationParameters:
    """A dataset of finished shards whose tars have the members of their samples."""
    parameters = fabricate(root, shards)
    store = Store.open(root)
    tar = root.with_name("members.tar")
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in range(SAMPLES):
            for member in MEMBERS:
                entry = tarfile.TarInfo(f"{sample:016d}.{member}")
                entry.size = 100
                archive.addfile(entry, io.BytesIO(bytes(100)))
    for commit in store.log.good():
        place = root / shard_path(commit.shard)
        place.unlink()
        place.hardlink_to(tar)
        record = root / record_path(commit)
        assert commit.object is not None
        reference = commit.object.model_copy(update={"size": tar.stat().st_size})
        record.write_bytes(commit.model_copy(update={"object": reference}).sealed().encode())
    return parameters


def fabricate_pieces(root: Path, shards: int) -> GenerationParameters:
    """A dataset of which every sample has passed every stage but the last."""
    parameters = GenerationParameters(
        root=str(root), samples=shards * SAMPLES, samples_per_shard=SAMPLES
    )
    with prepare(parameters) as run:
        for shard in run.planned:
            _fabricate_pieces_of(run.work(shard), root)
    return parameters


def _fabricate_pieces_of(work: ShardWork, root: Path) -> None:
    for part in work.parts:
        outputs: dict[tuple[str, str], str] = {}
        for stage, inputs in work.keys.inputs.items():
            verdicts: dict[str, Verdict] = {}
            for sample in part.samples:
                read = [outputs[each, sample.key] for each in inputs]
                key = work.keys.key(stage, sample, read)
                outputs[stage, sample.key] = short_digest(key.encode())
                verdicts[sample.key] = Verdict(key=key, output=outputs[stage, sample.key])
            counts = Counts(requested=len(verdicts), written=len(verdicts))
            payload = Payload(part.name.encode(), about={"verdicts": verdicts})
            key = short_digest(repr(sorted(verdicts)).encode()) * 4
            record = describe_payload(stage, part.name, key, payload, counts)
            assert record.object is not None
            for path, data in (
                (root / record_path(record), record.encode()),
                (root / record.object.path, payload.data),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def measure_finished(root: Path, shards: int) -> list[Row]:
    """Rows of a dataset with nothing to do."""
    parameters = fabricate_finished(root, shards)
    tars = sorted((root / SHARD_FOLDER).glob("*.tar"))
    records = [root / path for path in Store.open(root).log.paths()]

    def scan() -> None:
        run = open_run(parameters)
        assert run is not None
        assert not survey(run).todo

    def open_tars() -> None:
        for tar in tars:
            with tarfile.open(tar) as archive:
                assert len(archive.getmembers()) == SAMPLES * len(MEMBERS)

    ways = {
        "scan": scan,
        "plan": lambda: describe_plan(parameters),
        "every tar opened with tarfile": open_tars,
        "the records' bytes": lambda: [record.read_bytes() for record in records],
    }
    return [
        row | {"shards": shards, "before": BEFORE.get(row["what"], {})}
        for row in compare(ways, repeats=1)
    ]


def measure_begun(root: Path, shards: int) -> list[Row]:
    """Rows of a dataset of which every sample is made and no shard is packed."""
    parameters = fabricate_pieces(root, shards)
    records = [root / path for path in Store.open(root).log.paths()]

    def plan() -> None:
        planned = describe_plan(parameters)
        assert [each.to_do for each in planned.stages] == [0] * (len(planned.stages) - 1) + [shards]

    ways = {
        "plan of begun shards": plan,
        "the records' bytes": lambda: [record.read_bytes() for record in records],
    }
    return [row | {"shards": shards} for row in compare(ways, repeats=1)]


def main() -> None:
    """Measure both datasets."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shards", type=int, default=SHARDS, help="finished shards")
    shards = options.parse_args().shards
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_finished(Path(folder) / "finished", shards)
        rows += measure_begun(Path(folder) / "begun", min(shards, BEGUN_SHARDS))
    write_results(
        "resume_scan",
        rows,
        ("magicseg-engine", "pydantic"),
        setting={"samples_per_shard": SAMPLES, "classes": 14},
    )


if __name__ == "__main__":
    main()
