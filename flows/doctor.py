"""What a run needs, checked before it is paid for: weights, keys, space, server, benchmarks."""

import os
import secrets
from collections.abc import Callable, Iterator

from rich.console import Console

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.split_files import spread
from evaluation.scoring.examination import Examination, examine_files
from flows.embedded_server import check_server
from flows.generation_run import require_space
from models.devices import pick_device
from models.profiles import Profile
from models.registry import Need, Role, kind_of
from storage.errors import EngineError
from storage.layout import SPEC_PATH
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.records import Record
from storage.vocabulary import load_vocabulary
from tasks.recipe import Recipe

_FEW_IMAGES = 8
_NAMED_CLASSES = 20


class Check(Record, frozen=True):
    """One thing that was checked."""

    what: str
    """What it is."""
    ok: bool
    """Whether a run can go on with it."""
    detail: str
    """What was found, and the way out if it is not right."""


def examine(recipe: Recipe, root: str | None) -> list[Check]:
    """Check everything that a run needs: what its recipe asks for, and what else its profile names.

    Args:
        recipe: How samples are to be made.
        root: Dataset to check for space, or nothing.
    """
    checks = dict(_checks(recipe, root))
    return [_finding(what, check) for what, check in checks.items()]


def examine_benchmark(config: BenchmarkConfig, *, deep: bool = False) -> list[Check]:
    """Check the files of a benchmark: its list, that all are there, and what they hold.

    Args:
        config: Which benchmark, and where.
        deep: Open every image with its truth, and list all faults, instead of a few.
    """
    try:
        benchmark = open_benchmark(config)
        classes, count = benchmark.classes, len(benchmark)
    except EngineError as error:
        return [Check(what=config.name, ok=False, detail=str(error))]
    background = "with" if classes.background else "without"
    published = benchmark.published_as
    note = f"published numbers of {published} stand beside" if published else "no published numbers"
    listed = (
        f"{count} images in the split {benchmark.split}, {len(classes.names)} classes {background} "
        f"background; {note}"
    )

    def files() -> str:
        benchmark.check()
        return benchmark.coverage or "all there"

    found = [
        Check(what=config.name, ok=True, detail=listed),
        _finding("files", files),
    ]
    chosen = benchmark.keys if deep else spread(benchmark.keys, _FEW_IMAGES)
    return found + _contents(examine_files(benchmark, chosen), whole=len(chosen) == count)


def _contents(found: Examination, *, whole: bool) -> list[Check]:
    """What the images that were opened hold."""
    faults = [Check(what="fault", ok=False, detail=fault) for fault in found.faults]
    good = found.num_images - len(faults)
    opened = "every image" if whole else f"{found.num_images} images"
    detail = f"{good} of {found.num_images} read with their truth"
    checks = [Check(what=opened, ok=not faults, detail=detail), *faults]
    if found.pixels:
        checks.append(_truth(found, whole=whole))
    checks += [Check(what="beware", ok=True, detail=each) for each in found.warnings if whole]
    return checks


def _truth(found: Examination, *, whole: bool) -> Check:
    """The classes that the truth shows."""
    if found.nonsense:
        more = "" if whole else "; --deep looks at all images"
        return Check(what="truth", ok=not whole, detail=f"{found.nonsense}{more}")
    named = [f"{name} in {count}" for name, count in list(found.found.items())[:_NAMED_CLASSES]]
    left = len(found.found) - len(named)
    more = f" and {left} more" if left else ""
    detail = (
        f"{len(found.found)} of {len(found.classes.names)} classes ({', '.join(named)}{more}), "
        f"{found.void_share:.1%} of the pixels ignored"
    )
    return Check(what="truth", ok=True, detail=detail)


def print_findings(findings: list[Check], console: Console) -> None:
    """Print one line for each finding."""
    for finding in findings:
        mark = "ok   " if finding.ok else "WRONG"
        console.print(f"{mark} {finding.what}: {finding.detail}", markup=False, soft_wrap=True)


def _checks(recipe: Recipe, root: str | None) -> Iterator[tuple[str, Callable[[], str]]]:
    profile = recipe.profile
    yield "vocabulary", lambda: f"{len(load_vocabulary(profile.vocabulary))} classes"
    for role, config in profile.models().items():
        yield role.value, config.check
    if recipe.paints_over and profile.inpainter is None:
        yield Role.INPAINTER.value, lambda: f"the painter's own: {profile.inpainting.check()}"
    if recipe.looks_for_others and recipe.others.nearest and profile.scout is None:
        yield Role.SCOUT.value, lambda: f"the student's own: {profile.scouting.check()}"
    if recipe.maps_wanted is not None:
        yield "attention", lambda: _attention(recipe)
    if kind_of(profile.writer).need is Need.SERVICE:
        yield "writer's answer", lambda: _answer(profile, root)
    yield "student's CLIP", profile.student.check
    yield "device", lambda: str(pick_device(profile.painter.device))
    yield "Prefect", _server
    if root is not None:
        yield "space", lambda: f"{require_space(root) / 1e9:.0f} GB free"


def _attention(recipe: Recipe) -> str:
    recipe.check_recording()
    return "the painter has what is to be recorded"


def _answer(profile: Profile, root: str | None) -> str:
    """Send the writer's service one small request, filed in the dataset if there is one."""
    from models.writing.probe import ask_once

    writer = profile.writer
    if writer.kind != "chat" or writer.mode == "run-batch":
        return "asked offline, so nothing was sent"
    objects = open_objects(f"memory://doctor-{secrets.token_hex(8)}")
    if root is not None and open_objects(root).size(SPEC_PATH) is not None:
        objects = open_objects(root)
    return ask_once(writer, Ledger(objects), load_vocabulary(profile.vocabulary)[0])


def _finding(what: str, check: Callable[[], str]) -> Check:
    try:
        return Check(what=what, ok=True, detail=check())
    except EngineError as error:
        return Check(what=what, ok=False, detail=str(error))


def _server() -> str:
    url = os.environ.get("PREFECT_API_URL")
    return (
        f"server at {check_server(url)}"
        if url
        else "no PREFECT_API_URL: runs start a server of their own"
    )
