"""The dataset card: what is in a dataset, how it was made, and how to read it."""

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, cast

import yaml

from storage.archives import first_name
from storage.errors import TransientError
from storage.layout import CARD_PATH
from storage.manifest import count_outcomes
from storage.records import Stage
from storage.store import Store

_FRONT_MATTER = """\
---
pretty_name: Counterfactual segmentation quadruplets
task_categories:
- image-segmentation
tags:
- synthetic
- webdataset
- counterfactual
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.tar
---
"""

_LOADING = """\
## How to read it

With `datasets` (images decoded, `mask.png` as 16-bit grayscale, `json` as a dictionary):

```python
import datasets, numpy as np
for sample in datasets.load_dataset("{root}", split="train"):
    image, twin = sample["{extension}"], sample["cf.{extension}"]
    labels, about = np.array(sample["mask.png"]), sample["json"]
```

With `webdataset` (raw members; its own `pil` decoder would turn the 16-bit labels into RGB):

```python
import glob, io, json, numpy as np, webdataset as wds
from PIL import Image
for sample in wds.WebDataset(sorted(glob.glob("{root}/data/*.tar")), shardshuffle=False):
    names = ("{extension}", "cf.{extension}", "mask.png")
    image, twin, labels = (np.array(Image.open(io.BytesIO(sample[name]))) for name in names)
    about = json.loads(sample["json"])
```

A pixel of `mask.png` is `class id + 1`, 0 is background, 65535 is to be ignored. `about` has
`class_ids` and `class_names` of the classes in the mask, `text` and `counterfactual_text`;
`mentions`, `instances` and `counterfactual_boxes` are JSON strings. `.engine/manifests/*.parquet`
has a row for every planned sample, also for those that were dropped, and why.
"""

# what a part of the spec is called that names its model: with its revision, or as a digest
_MODEL_FIELDS = ("model", "weights", "templates")

_LICENCES = """\
## Licences

Texts, images and masks are outputs of the models named above. The terms of those models apply to
them: read their licences before sharing the dataset, and add a `license` field to this card's
header of the copy that you publish. The engine that made it is Apache-2.0.
"""


def write_card(store: Store) -> str:
    """Rebuild the card from the spec, the commit records and the manifests.

    Replaced at once and durable; whoever writes last is as right as the records are.

    Args:
        store: The dataset.

    Returns:
        The card's path or URL.
    """
    store.objects.replace(CARD_PATH, render_card(store).encode())
    return f"{store.root}/{CARD_PATH}"


def render_card(store: Store) -> str:
    """Write the card's Markdown, with the YAML header that `datasets` reads.

    Args:
        store: The dataset.

    Returns:
        Text; the same for the same records.

    Raises:
        TransientError: A shard is being replaced right now, or is damaged.
    """
    outcomes: Counter[tuple[str, str]] = Counter()
    try:
        for commit in store.commits(Stage.SHARDS):
            if commit.manifest is not None:
                path = commit.manifest.path
                outcomes += count_outcomes(store.objects.read(path), name=path)
        extension = _extension(store)
    except FileNotFoundError as error:
        message = f"a committed file is gone ({error}); if this stays so, run 'magicseg verify'"
        raise TransientError(message) from error
    loading = _LOADING.replace("{root}", "<root>").replace("{extension}", extension)
    parts = (_summary(store), loading, _classes(outcomes), _models(store.spec), _LICENCES)
    return _FRONT_MATTER + "\n" + "\n".join(part for part in parts if part)


def _summary(store: Store) -> str:
    lines = [
        "# Counterfactual segmentation quadruplets",
        "",
        "Text, image, counterfactual image (the same scene without the objects) and masks, all "
        "generated: nobody was photographed, nothing was labelled by hand.",
        "",
        "| slice | finished shards | samples | planned | yield | degraded | lost, by reason |",
        "|---|---|---|---|---|---|---|",
    ]
    for status in store.status():
        share = status.written / status.requested if status.requested else 0.0
        dropped = ", ".join(f"{why} {count}" for why, count in sorted(status.dropped.items()))
        lines.append(
            f"| {status.slice_id} | {status.shards[Stage.SHARDS]} | {status.written} | "
            f"{status.requested} | {share:.1%} | {len(status.degraded)} | {dropped or 'none'} |"
        )
    return "\n".join([*lines, ""])


def _classes(outcomes: Mapping[tuple[str, str], int]) -> str:
    if not outcomes:
        return ""
    lines = ["## Yield by class", "", "| class | samples | planned | yield |", "|---|---|---|---|"]
    for name in sorted({name for name, _ in outcomes}):
        written = outcomes.get((name, "written"), 0)
        planned = sum(outcomes.get((name, each), 0) for each in ("written", "rejected", "failed"))
        lines.append(f"| {name} | {written} | {planned} | {written / planned:.1%} |")
    return "\n".join([*lines, ""])


def _models(spec: dict[str, Any]) -> str:
    lines = ["## How it was made", "", "| part | model |", "|---|---|"]
    for part, section in _sections(spec):
        for field in _MODEL_FIELDS:
            if isinstance(section.get(field), str):
                revision = section.get("revision")
                lines.append(f"| {part} | {section[field]}{f'@{revision}' if revision else ''} |")
    settings = yaml.safe_dump(spec, sort_keys=True, allow_unicode=True, width=100)
    return "\n".join([*lines, "", "Everything that the samples depend on:", ""]) + (
        f"\n```yaml\n{settings}```\n"
    )


def _sections(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping inside a spec, with its dotted path."""
    if isinstance(value, Mapping):
        section = cast("Mapping[str, Any]", value)
        yield path, section
        for key, item in section.items():
            yield from _sections(item, f"{path}.{key}" if path else str(key))


def _extension(store: Store) -> str:
    """The images' extension, from the first header of the first tar."""
    for shard in store.shards():
        if shard.commit.object is not None:
            header = store.objects.read_range(shard.commit.object.path, 0, tarfile.BLOCKSIZE)
            return first_name(header, shard.commit.object.path).rpartition(".")[2]
    return "jpg"
