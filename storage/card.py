"""The dataset card: what is in a dataset, how it was made, and how to read it."""

import contextlib
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import yaml

from storage.archives import first_name
from storage.checks import read_whole
from storage.commits import ClassOutcomes, Commit
from storage.corrections import count_corrected
from storage.errors import DataError, InputError
from storage.exclusions import count_excluded, count_reasons
from storage.layout import CARD_PATH
from storage.manifest import count_outcomes
from storage.spending import add_up, spending_notes, spending_rows
from storage.store import Store
from storage.summaries import SliceStatus
from storage.vocabulary import load_vocabulary

_FRONT_MATTER = """\
---
pretty_name: Counterfactual segmentation quadruplets
task_categories:
- image-segmentation
tags:
- synthetic
- {kind}
- counterfactual
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.{suffix}
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

_LOADING_TABLES = """\
## How to read it

```python
import datasets, numpy as np
for sample in datasets.load_dataset("{repository}", split="train"):
    image, twin = sample["image"], sample["counterfactual"]
    labels, about = np.array(sample["mask"]), sample["instances"]
```

A pixel of `mask` is `class id + 1`, 0 is background, 65535 is to be ignored. `class_ids` and
`class_names` are of the classes in the mask. `instances` are the single objects: `rle` is COCO's
compressed run lengths (column by column, `height` x `width`), before overlaps are resolved.
"""

# what a part of the spec is called that names its model: with its revision, or as a digest
_MODEL_FIELDS = ("model", "weights", "templates")

LICENCE_TERMS = (
    "Texts, images and masks are outputs of models; the terms of those models, which the dataset "
    "card names, apply to them"
)
"""What there is to say of the licence where no more than a line has room."""

_LICENCES = """\
## Licences

Texts, images and masks are outputs of the models named above. The terms of those models apply to
them: read their licences before sharing the dataset, and add a `license` field to this card's
header of the copy that you publish. The engine that made it is Apache-2.0.
"""

_PUBLISHED_TERMS = """\
## Licences

Texts, images and masks are outputs of the models named above, whose terms apply to them. The
licence in this card's header is what the publisher says of this copy.
"""

_MAX_REASONS = 8
"""Reasons that the card names."""

_COST_TITLE = "## What it cost"
_COST = re.compile(rf"\n{_COST_TITLE}\n.*?(?=\n## )", re.DOTALL)


def write_card(store: Store) -> str:
    """Rebuild the card from the spec and the commit records.

    Replaced at once and durable; whoever writes last is as right as the records are. A card that
    says what is committed stays: it costs no look at the ledger.

    Args:
        store: The dataset.

    Returns:
        The card's path or URL.
    """
    if not is_current(store):
        store.objects.replace(CARD_PATH, render_card(store).encode())
    return f"{store.root}/{CARD_PATH}"


def is_current(store: Store) -> bool:
    """Whether the card says what is committed; calls that led to no commit may cost more by now."""
    try:
        text = store.objects.read(CARD_PATH).decode(errors="replace")
    except FileNotFoundError:
        return False
    return _COST.sub("", text) == render_card(store, with_cost=False)


def render_card(store: Store, *, with_cost: bool = True) -> str:
    """Write the card's Markdown, with the YAML header that `datasets` reads.

    Args:
        store: The dataset.
        with_cost: Say what it cost, for which the whole ledger is read.

    Returns:
        Text; the same for the same records. Shards that are damaged are named in it.
    """
    commits = [commit for _, commit in sorted(store.log.shards().items())]
    outcomes, damaged = _outcomes(store, commits)
    loading = _LOADING.replace("{root}", "<root>").replace(
        "{extension}", _extension(store, commits)
    )
    statuses = store.status()
    parts = (
        _summary(statuses),
        _named(damaged),
        _left_out(store),
        _corrected(store),
        _spent(store, statuses) if with_cost else "",
        loading,
        _classes(outcomes),
        _others(store, statuses),
        _models(store.spec),
        _LICENCES,
    )
    return _front_matter("webdataset", "tar") + "\n" + "\n".join(part for part in parts if part)


def render_published_card(store: Store, repository: str, licence: str = "") -> str:
    """Write the card of a copy of a dataset as Parquet files, such as one on a hub.

    Samples that are left out are not in it, and what it cost is nobody else's affair; all else is
    what the dataset's card says.

    Args:
        store: The dataset.
        repository: How readers name the copy.
        licence: What the header says of it; nothing if that is not known.
    """
    commits = [commit for _, commit in sorted(store.log.shards().items())]
    outcomes, damaged = _outcomes(store, commits)
    missing = sum(sum(each.values()) for each in count_excluded(store).values())
    note = f"{missing} of these samples were left out afterwards, and are not here.\n"
    parts = (
        _summary(store.status()),
        note if missing else "",
        _named(damaged),
        _LOADING_TABLES.replace("{repository}", repository),
        _classes(outcomes),
        _models(store.spec),
        _PUBLISHED_TERMS if licence else _LICENCES,
    )
    head = _front_matter("parquet", "parquet")
    if licence:
        head = head.replace("---\n", f"---\nlicense: {licence}\n", 1)
    return head + "\n" + "\n".join(part for part in parts if part)


def _front_matter(kind: str, suffix: str) -> str:
    return _FRONT_MATTER.replace("{kind}", kind).replace("{suffix}", suffix)


def _outcomes(
    store: Store, commits: Sequence[Commit]
) -> tuple[dict[str, ClassOutcomes], list[str]]:
    """What became of the samples of each class, by its name, and which shards do not tell."""
    planned: Counter[str] = Counter()
    written: Counter[str] = Counter()
    damaged: list[str] = []
    names = known_class_names(store)
    for commit in commits:
        try:
            counted = _count(store, commit, names)
        except DataError as error:
            damaged.append(f"{commit.shard}: {error}")
            continue
        for name, (wanted, made) in counted.items():
            planned[name] += wanted
            written[name] += made
    outcomes = {
        name: ClassOutcomes(planned=count, written=written[name]) for name, count in planned.items()
    }
    return outcomes, damaged


def _count(store: Store, commit: Commit, names: Mapping[int, str]) -> dict[str, tuple[int, int]]:
    """Planned and written samples by class name; older records leave it to the manifest."""
    if commit.classes and all(class_id in names for class_id in commit.classes):
        return {names[i]: (each.planned, each.written) for i, each in commit.classes.items()}
    if commit.manifest is None:
        return {}
    found = count_outcomes(
        read_whole(store.objects, commit, commit.manifest), name=commit.manifest.path
    )
    planned: Counter[str] = Counter()
    for (name, _), count in found.items():
        planned[name] += count
    return {name: (count, found[name, "written"]) for name, count in planned.items()}


def known_class_names(store: Store) -> dict[int, str]:
    """The names of a dataset's classes by their ids; none if its vocabulary is not known."""
    try:
        return {record.class_id: record.name for record in load_vocabulary(store.vocabulary)}
    except InputError:
        return {}


def count_others(store: Store, statuses: Iterable[SliceStatus]) -> dict[str, int]:
    """Count the written samples with an object that nobody asked for.

    Args:
        store: The dataset.
        statuses: Of its slices.

    Returns:
        Samples by the name of the object's class, most first; nothing where nobody looked.
    """
    found: Counter[int] = Counter()
    for status in statuses:
        found.update(status.others)
    names = known_class_names(store)
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return {names.get(class_id, f"class {class_id}"): count for class_id, count in ordered}


def _others(store: Store, statuses: Sequence[SliceStatus]) -> str:
    """Which objects were found that nobody asked for."""
    found = count_others(store, statuses)
    if not found:
        return ""
    words = (
        "Images were looked through for objects of classes that their texts were not written for. "
        "`others` in a sample's `json` is a JSON string that lists them; training does not take "
        "their classes for absent."
    )
    rows = [f"| {name} | {count} |" for name, count in found.items()]
    head = ["| class not asked for | samples |", "|---|---|"]
    return "\n".join(["## Objects that nobody asked for", "", words, "", *head, *rows, ""])


def _named(damaged: Sequence[str]) -> str:
    """The shards that could not be counted."""
    if not damaged:
        return ""
    lines = [f"- {each}" for each in damaged]
    return "\n".join(["## Shards that are damaged", "", *lines, ""])


def _left_out(store: Store) -> str:
    """How many samples nobody is to train on."""
    title = "## Samples that are left out"
    try:
        counted = count_reasons(store)
    except DataError as error:
        return "\n".join([title, "", f"Not known: {error}", ""])
    by: Counter[str] = Counter()
    why: Counter[str] = Counter()
    for reasons in counted.values():
        for judge, reason, number in reasons:
            by[judge] += number
            why[" ".join(reason.split())] += number
    if not by:
        return ""
    ordered = sorted(why.items(), key=lambda item: (-item[1], item[0]))
    told = [f"- {count}: {reason}" for reason, count in ordered[:_MAX_REASONS]]
    if len(ordered) > _MAX_REASONS:
        told.append(f"- and {len(ordered) - _MAX_REASONS} more reasons")
    judges = ", ".join(f"{judge} {count}" for judge, count in sorted(by.items()))
    words = (
        f"{by.total()} of the samples above are in the tars, but the engine neither trains on "
        f"them nor exports them ({judges}). `.engine/exclusions/*.jsonl` says which and why, in "
        "order: the last line about a `key` counts. Other readers have to leave them out "
        "themselves."
    )
    return "\n".join([title, "", words, "", *told, ""])


def _corrected(store: Store) -> str:
    """How many samples have masks that people drew."""
    title = "## Masks that were corrected"
    try:
        count = sum(count_corrected(store).values())
    except DataError as error:
        return "\n".join([title, "", f"Not known: {error}", ""])
    if not count:
        return ""
    words = (
        f"The masks of {count} of the samples above were corrected by people. The tars have the "
        "first ones; the engine trains on the corrected ones and exports them. "
        "`.engine/corrections/*.jsonl` has them, and who drew them, when and why, in order: the "
        "last line about a `key` counts."
    )
    return "\n".join([title, "", words, ""])


def _spent(store: Store, statuses: Sequence[SliceStatus]) -> str:
    """What the dataset cost, as far as that is known."""
    try:
        spending = add_up(store, statuses)
    except DataError as error:
        return "\n".join([_COST_TITLE, "", f"Not known: {error}", ""])
    rows = [f"| {' | '.join(row)} |" for row in spending_rows(spending)]
    if not rows:
        return ""
    notes = [f"- {note}" for note in spending_notes(spending)]
    head = ["| what | in all | a written sample |", "|---|---|---|"]
    return "\n".join([_COST_TITLE, "", *head, *rows, "", *notes, *([""] if notes else [])])


def _summary(statuses: Sequence[SliceStatus]) -> str:
    lines = [
        "# Counterfactual segmentation quadruplets",
        "",
        "Text, image, counterfactual image (the same scene without the objects) and masks, all "
        "generated: nobody was photographed, nothing was labelled by hand.",
        "",
        "| slice | finished shards | samples | planned | yield | degraded | lost, by reason |",
        "|---|---|---|---|---|---|---|",
    ]
    for status in statuses:
        share = status.written / status.requested if status.requested else 0.0
        dropped = ", ".join(f"{why} {count}" for why, count in sorted(status.dropped.items()))
        lines.append(
            f"| {status.slice_id} | {status.shards} | {status.written} | "
            f"{status.requested} | {share:.1%} | {len(status.degraded)} | {dropped or 'none'} |"
        )
    return "\n".join([*lines, ""])


def _classes(outcomes: Mapping[str, ClassOutcomes]) -> str:
    if not outcomes:
        return ""
    lines = ["## Yield by class", "", "| class | samples | planned | yield |", "|---|---|---|---|"]
    for name, each in sorted(outcomes.items()):
        share = each.written / each.planned
        lines.append(f"| {name} | {each.written} | {each.planned} | {share:.1%} |")
    return "\n".join([*lines, ""])


def _models(spec: dict[str, Any]) -> str:
    lines = ["## How it was made", "", "| part | model |", "|---|---|"]
    lines += [f"| {part} | {model} |" for part, model in named_models(spec)]
    settings = yaml.safe_dump(spec, sort_keys=True, allow_unicode=True, width=100)
    return "\n".join([*lines, "", "Everything that the samples depend on:", ""]) + (
        f"\n```yaml\n{settings}```\n"
    )


def named_models(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every part of a specification that names a model, with that and its revision."""
    for part, section in _sections(spec):
        for field in _MODEL_FIELDS:
            if isinstance(section.get(field), str):
                revision = section.get("revision")
                yield part, f"{section[field]}{f'@{revision}' if revision else ''}"


def _sections(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping inside a spec, with its dotted path."""
    if isinstance(value, Mapping):
        section = cast("Mapping[str, Any]", value)
        yield path, section
        for key, item in section.items():
            yield from _sections(item, f"{path}.{key}" if path else str(key))


def _extension(store: Store, commits: Sequence[Commit]) -> str:
    """The images' extension, from the first header of the first tar."""
    for commit in commits:
        if commit.object is not None:
            with contextlib.suppress(DataError, FileNotFoundError):
                header = store.objects.read_range(commit.object.path, 0, tarfile.BLOCKSIZE)
                return first_name(header, commit.object.path).rpartition(".")[2]
    return "jpg"
