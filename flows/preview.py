"""A preview: some texts of a slice, and their pictures, before anything is committed."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evaluation.reports.sheets import PairPicture, draw_pairs
from flows.generation_parameters import GenerationParameters
from flows.live_money import totals_words
from flows.preview_pictures import PreviewedSample, PreviewPainter
from models.profiles import require_weights
from models.registry import Need, kind_of
from models.writing.chat_config import ChatWriterConfig
from storage.errors import InputError
from storage.files import write_whole
from storage.layout import SPEC_PATH
from storage.ledger import Ledger, Totals
from storage.objects import ObjectStore, open_objects
from storage.paths import local_path
from storage.plan import plan_samples
from storage.records import PlannedSample, Prompt, Record, Rejected, Stage
from storage.slices import resolve_slice
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.machine import Machine
from tasks.prompts import cut_class_sets, write_prompts
from tasks.resident import ResidentModels
from tasks.stages import STAGES

MOST_PREVIEWED = 1000
"""Most samples of a preview; what is more is a dataset."""

_TILE = 192


class PreviewRow(Record, frozen=True):
    """What became of a sample."""

    index: int
    """Position in the slice."""
    classes: tuple[str, ...]
    """What its text must name."""
    text: str = ""
    """Its text; empty if none passed."""
    counterfactual_text: str = ""
    """The text without the classes."""
    stage: str = ""
    """Where it was refused; empty if it was not."""
    reason: str = ""
    """Why."""
    detail: str = ""
    """The values behind the reason; for texts, the text that was refused."""
    others: tuple[str, ...] | None = None
    """Classes of objects that nobody asked for, best score first; None where the picture was not
    looked through."""


class Preview(Record, frozen=True):
    """Some samples of a slice."""

    slice: str
    """Name of the slice."""
    rows: tuple[PreviewRow, ...]
    """One for each sample, in plan order."""
    calls: Totals
    """Calls of the ledger that the texts came from; `cached` ones were answered before."""
    ledger: str = ""
    """The dataset that keeps the answers; empty if nothing does."""
    sheet: str = ""
    """The picture that was written; empty if none was."""


@dataclass(frozen=True)
class _Place:
    """Where the answers of a preview go.

    Attributes:
        objects: An existing dataset, or a place that vanishes with the preview.
        dataset: The dataset's root; empty if there is none.
    """

    objects: ObjectStore
    dataset: str


def make_preview(
    parameters: GenerationParameters,
    out: Path | None = None,
    models: ResidentModels | None = None,
) -> Preview:
    """Write the first texts of a slice, and paint them if a picture is wanted; commits nothing.

    Pictures are looked through for objects that nobody asked for, if the recipe says so; they are
    outlined then, and samples whose own objects are not found are told as a run would drop them.

    Texts are asked for as a run asks, in whole class sets; so if the dataset exists, its ledger
    keeps the answers, and a run with the same settings finds them there and pays nothing twice.

    Args:
        parameters: What to generate; `samples` says how many samples are wanted.
        out: The PNG to write; nothing is painted without it.
        models: Models of an earlier run to go on with.

    Raises:
        BudgetError: A call could pass the budget.
        InputError: The parameters mean nothing, weights are missing, or the picture cannot be
            written.
        TransientError: The writer's service does not answer.
    """
    if parameters.samples > MOST_PREVIEWED:
        message = (
            f"a preview of {parameters.samples} samples is a dataset, expected at most "
            f"{MOST_PREVIEWED}; run 'magicseg generate' instead"
        )
        raise InputError(message)
    if out is not None:
        _check_picture(out)
    parameters = _at_once(parameters)
    spec = parameters.spec
    vocabulary = load_vocabulary(spec.vocabulary)
    classes = resolve_slice(vocabulary, parameters.slice)
    recipe = parameters.recipe
    recipe.profile.writer.check()
    if out is not None:  # texts may cost money, and would be asked for in vain
        require_weights(recipe.models())
    size = spec.texts_per_class_set
    planned = plan_samples(spec, classes, 0, -(-parameters.samples // size) * size)
    with Machine(models) as machine, _place(parameters.root) as place:
        shown = planned[: parameters.samples]
        written = _written(parameters, planned, vocabulary, machine, place)
        painted, drawn = dict[str, PreviewedSample | Rejected](), False
        if out is not None:
            prompts = [each for each in map(written.get, _keys(shown)) if isinstance(each, Prompt)]
            painted = _painted(parameters, shown, prompts, machine, place)
            drawn = _draw(painted, prompts, vocabulary, out)
        calls = Ledger(place.objects).totals()
    rows = [
        _row(sample, written.get(sample.key), painted.get(sample.key), vocabulary)
        for sample in shown
    ]
    return Preview(
        slice=classes.label,
        rows=tuple(rows),
        calls=calls,
        ledger=place.dataset,
        sheet=str(out) if drawn else "",
    )


def _at_once(parameters: GenerationParameters) -> GenerationParameters:
    """The same parameters with a writer that waits for no batch."""
    writer = parameters.recipe.profile.writer
    if not isinstance(writer, ChatWriterConfig):
        return parameters
    return parameters.model_copy(update={"writer": writer.model_copy(update={"mode": "sync"})})


def _keys(samples: Sequence[PlannedSample]) -> list[str]:
    return [sample.key for sample in samples]


@contextmanager
def _place(root: str) -> Iterator[_Place]:
    """The dataset if there is one, else a folder that is gone afterwards."""
    if root and open_objects(root).size(SPEC_PATH) is not None:
        yield _Place(open_objects(root), root)
        return
    with tempfile.TemporaryDirectory(prefix="magicseg-preview-") as folder:
        yield _Place(open_objects(folder), "")


def _written(
    parameters: GenerationParameters,
    planned: tuple[PlannedSample, ...],
    vocabulary: Vocabulary,
    machine: Machine,
    place: _Place,
) -> dict[str, Prompt | Rejected]:
    """Texts, or why there are none, by sample key; without those whose call is in an open batch."""
    profile = parameters.recipe.profile
    records = write_prompts(
        cut_class_sets(planned, parameters.spec.texts_per_class_set),
        vocabulary,
        machine.models.model(profile.writer, place.objects),
        machine.models.tokens(profile.painter),
        parameters.prompts,
    )
    return {record.key: record for record in records}


def _painted(
    parameters: GenerationParameters,
    planned: Sequence[PlannedSample],
    prompts: Sequence[Prompt],
    machine: Machine,
    place: _Place,
) -> dict[str, PreviewedSample | Rejected]:
    """Paint what has a text, by sample key."""
    recipe = parameters.recipe
    if not prompts:
        return {}

    def hold(stage: Stage) -> AbstractContextManager[None]:
        device = STAGES[stage].device(recipe)
        return machine.turns.turn(device or "cpu", of="preview")

    painter = PreviewPainter(recipe, machine.models, place.objects, hold)
    return painter.paint(prompts, {sample.key: sample for sample in planned})


def _draw(
    painted: Mapping[str, PreviewedSample | Rejected],
    prompts: Sequence[Prompt],
    vocabulary: Vocabulary,
    out: Path,
) -> bool:
    """Draw what was painted into one picture, unless that is nothing; returns whether it was."""
    pairs = [
        PairPicture(
            each.painted.image,
            each.painted.counterfactual,
            prompt.text,
            prompt.counterfactual_text,
            each.overlay,
            "" if each.overlay is None else _others_words(_others(each, vocabulary)),
        )
        for prompt in prompts
        if isinstance(each := painted[prompt.key], PreviewedSample)
        and each.painted.counterfactual is not None
    ]
    if pairs:
        write_whole(out, draw_pairs(pairs, tile=_TILE))
    return bool(pairs)


def _others(sample: PreviewedSample, vocabulary: Vocabulary) -> tuple[str, ...]:
    return tuple(vocabulary[each.class_id].name for each in sample.others)


def _others_words(names: Sequence[str]) -> str:
    return f"not asked for: {', '.join(names) or 'nothing found'}"


def _check_picture(out: Path) -> None:
    """Refuse to put a picture in the place of something else."""
    if out.suffix.lower() != ".png":
        message = f"{out} is the picture to write, expected a name that ends in .png"
        raise InputError(message)
    target = local_path(out, "--out")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        message = f"{out} is no ordinary file, expected a picture or a new name: give another one"
        raise InputError(message)
    if target.is_file():
        with target.open("rb") as file:
            start = file.read(8)
        if start and start != b"\x89PNG\r\n\x1a\n":
            message = f"{out} is there and is no PNG; it would be replaced: give another name"
            raise InputError(message)


def _row(
    sample: PlannedSample,
    written: Prompt | Rejected | None,
    painted: PreviewedSample | Rejected | None,
    vocabulary: Vocabulary,
) -> PreviewRow:
    names = tuple(vocabulary[class_id].name for class_id in sample.class_ids)
    if written is None:
        why = "its text is in an open batch; 'magicseg batch list' shows it"
        return PreviewRow(
            index=sample.index, classes=names, stage=Stage.PROMPTS, reason="awaited", detail=why
        )
    text = written if isinstance(written, Prompt) else None
    others: tuple[str, ...] | None = None
    if isinstance(written, Rejected):
        lost = written
    elif isinstance(painted, PreviewedSample):
        lost = painted.refused
        others = None if painted.overlay is None else _others(painted, vocabulary)
    else:
        lost = painted
    return PreviewRow(
        index=sample.index,
        classes=names,
        text=text.text if text else "",
        counterfactual_text=text.counterfactual_text if text else "",
        stage=lost.stage.value if lost else "",
        reason=lost.reason.value if lost else "",
        detail=lost.detail if lost else "",
        others=others,
    )


def print_preview(preview: Preview, parameters: GenerationParameters, console: Console) -> None:
    """Print a preview: each text with the one without its classes, or why there is none."""
    for line in preview_lines(preview, parameters):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def preview_lines(preview: Preview, parameters: GenerationParameters) -> Iterator[str]:
    """Say what a preview shows, and where the answers are."""
    for row in preview.rows:
        yield f"{row.index}: {', '.join(row.classes)}"
        if row.text:
            yield f"  text: {row.text}"
            yield f"  counterfactual: {row.counterfactual_text}"
        if row.others is not None:
            yield f"  {_others_words(row.others)}"
        if row.reason:
            yield f"  refused at {row.stage}: {row.reason}: {row.detail}"
    good = sum(not row.reason for row in preview.rows)
    yield f"{good} of {len(preview.rows)} samples of slice {preview.slice} would go on"
    if preview.sheet:
        yield f"pictures: {preview.sheet}"
    if kind_of(parameters.recipe.profile.writer).need is Need.SERVICE:
        yield f"writer: {totals_words(preview.calls)}"
        yield (
            f"the answers are kept in the ledger of {preview.ledger}: a run with the same settings "
            "pays nothing for them again"
            if preview.ledger
            else "the answers are not kept, because there is no dataset at --root yet"
        )
