"""Packing 1,000 samples into a tar, beside webdataset's TarWriter and the bare bytes."""

import tempfile
from pathlib import Path

from webdataset.writer import TarWriter

from benchmarks.measurement import compare
from benchmarks.pictures import draw_samples
from benchmarks.results_file import write_results
from storage.shards import pack
from storage.vocabulary import load_vocabulary

SAMPLES = 1_000


def main() -> None:
    """Time all three on the same encoded images."""
    samples = draw_samples(SAMPLES, load_vocabulary("lvis1205"))
    members = [
        {
            "__key__": sample.key,
            "jpg": sample.image_bytes,
            "cf.jpg": sample.counterfactual_bytes,
            "mask.png": sample.mask_bytes,
            "json": b'{"key":"' + sample.key.encode() + b'"}',
        }
        for sample in samples
    ]
    payload = b"".join(
        sample.image_bytes + sample.counterfactual_bytes + sample.mask_bytes for sample in samples
    )
    with tempfile.TemporaryDirectory() as folder:
        raw, ours, peer = (Path(folder) / name for name in ("raw", "ours.tar", "peer.tar"))

        def write_peer() -> None:
            with TarWriter(str(peer)) as writer:
                for member in members:
                    writer.write(member)

        rows = compare(
            {
                "ours": lambda: ours.write_bytes(pack(samples)),
                "webdataset TarWriter": write_peer,
                "limit: bare bytes": lambda: raw.write_bytes(payload),
            },
            repeats=5,
        )
        for row, path in zip(rows, (ours, peer, raw), strict=True):
            row["bytes"] = path.stat().st_size
        assert bytes(pack(samples)) == ours.read_bytes()
    packages = ("magicseg-engine", "webdataset", "pillow", "numpy")
    write_results("shard_write", rows, packages, setting={"samples": SAMPLES})


if __name__ == "__main__":
    main()
