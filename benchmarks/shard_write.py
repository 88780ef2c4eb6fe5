"""Packing 1,000 samples into a tar, beside webdataset's ShardWriter and the bare bytes."""

import tempfile
from pathlib import Path

import numpy as np
import webdataset

from benchmarks.results_file import best_cpu_seconds, write_results
from storage.codecs import encode_image, encode_label_map, encode_rle
from storage.records import Instance, Mention
from storage.shards import Sample, pack

SAMPLES = 1_000
SIDE = 512


def main() -> None:
    """Time all three on the same encoded images."""
    samples = _samples()
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

        def write_ours() -> None:
            ours.write_bytes(pack(samples))

        def write_peer() -> None:
            with webdataset.TarWriter(str(peer)) as writer:
                for member in members:
                    writer.write(member)

        timed = (
            ("bare bytes", lambda: raw.write_bytes(payload), raw),
            ("ours", write_ours, ours),
            ("webdataset TarWriter", write_peer, peer),
        )
        rows = []
        for name, work, path in timed:
            seconds = best_cpu_seconds(work)
            size = path.stat().st_size
            rows.append({"what": name, "cpu_seconds": round(seconds, 4), "bytes": size})
        rows[1]["same_bytes_again"] = bytes(pack(samples)) == ours.read_bytes()
    write_results("shard_write", rows, ("magicseg-engine", "webdataset", "pillow", "numpy"))


def _samples() -> list[Sample]:
    """Smooth random pictures, which compress about as photographs do, with one mask each."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(8):
        coarse = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        smooth = np.kron(coarse, np.ones((SIDE // 32, SIDE // 32, 1), np.uint8))
        noise = generator.integers(0, 24, smooth.shape, dtype=np.uint8)
        pictures.append(encode_image((smooth // 2 + noise).astype(np.uint8), "jpg"))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[100:400, 150:380] = True
    labels = encode_label_map(mask.astype(np.uint16) * 8)
    instance = Instance(
        class_id=7,
        score=0.9,
        predicted_iou=0.9,
        xyxy=(150.0, 100.0, 380.0, 400.0),
        area=int(mask.sum()),
        rle=encode_rle(mask),
    )
    return [
        Sample(
            key=f"{index:016d}",
            index=index,
            text="a cat on a mat",
            counterfactual_text="a nothing on a mat",
            class_ids=(7,),
            class_names=("cat",),
            mentions=(Mention(class_id=7, start=2, end=5),),
            seed=index,
            instances=(instance,),
            image_bytes=pictures[index % 8],
            counterfactual_bytes=pictures[(index + 1) % 8],
            mask_bytes=labels,
        )
        for index in range(SAMPLES)
    ]


if __name__ == "__main__":
    main()
