"""What a run needs, checked before it is paid for: weights, keys, space, server, benchmarks."""

import os
from collections.abc import Callable, Iterator

from rich.console import Console

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from flows.generation_run import require_space
from models.profiles import GENERATORS, Profile, load_profile
from models.weights import require_marker, resolve_weights
from models.writing.chat import ChatWriterConfig
from models.writing.templates import load_templates
from storage.errors import EngineError, InputError
from storage.records import Record
from storage.vocabulary import load_vocabulary


class Finding(Record, frozen=True):
    """One thing that was looked at."""

    what: str
    """What it is."""
    ok: bool
    """Whether a run can go on with it."""
    detail: str
    """What was found, and the way out if it is not right."""


def examine(profile_name: str, root: str | None) -> list[Finding]:
    """Look at everything that a run of a profile needs.

    Args:
        profile_name: Shipped profile, or path of a YAML file.
        root: Dataset to check for space, or nothing.

    Raises:
        InputError: There is no such profile.
    """
    profile = load_profile(profile_name)
    checks = dict(_checks(profile, root))
    return [_finding(what, check) for what, check in checks.items()]


def examine_benchmark(config: BenchmarkConfig) -> list[Finding]:
    """Look at the files of a benchmark: its list, whether all are there, and the first ones.

    Args:
        config: Which benchmark, and where.
    """
    try:
        benchmark = open_benchmark(config)
        classes, count = benchmark.classes, len(benchmark)
    except EngineError as error:
        return [Finding(what=config.name, ok=False, detail=str(error))]
    background = "with" if classes.background else "without"
    published = benchmark.published_as
    note = f"published numbers of {published} stand beside" if published else "no published numbers"
    listed = (
        f"{count} images in the split {benchmark.split}, {len(classes.names)} classes {background} "
        f"background; {note}"
    )

    def files() -> str:
        benchmark.check()
        return "all there"

    def first() -> str:
        sample = next(iter(benchmark))
        height, width = sample.image.shape[:2]
        return f"{sample.key}: {width} x {height} pixels, read with its truth"

    checks: dict[str, Callable[[], str]] = {"files": files, "first image": first}
    return [
        Finding(what=config.name, ok=True, detail=listed),
        *(_finding(what, check) for what, check in checks.items()),
    ]


def print_findings(findings: list[Finding], console: Console) -> None:
    """Print one line for each finding."""
    for finding in findings:
        mark = "ok   " if finding.ok else "WRONG"
        console.print(f"{mark} {finding.what}: {finding.detail}", markup=False, soft_wrap=True)


def _checks(profile: Profile, root: str | None) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "vocabulary", lambda: f"{len(load_vocabulary(profile.vocabulary))} classes"
    yield "writer", lambda: _writer(profile)
    for role, marker in GENERATORS.items():
        config = getattr(profile, role)
        yield (
            role,
            lambda config=config, marker=marker: _weights(config.model, config.revision, marker),
        )
    student = profile.student
    yield "student's CLIP", lambda: _weights(student.clip, student.revision, "config.json")
    yield "device", lambda: _device(profile.painter.device)
    yield "Prefect", _server
    if root is not None:
        yield "space", lambda: f"{require_space(root) / 1e9:.0f} GB free"


def _finding(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, ok=True, detail=check())
    except EngineError as error:
        return Finding(what=what, ok=False, detail=str(error))


def _writer(profile: Profile) -> str:
    config = profile.writer
    if not isinstance(config, ChatWriterConfig):
        return f"{load_templates(config.templates).capacity(1)} texts a class from templates"
    if config.api_key_env and not os.environ.get(config.api_key_env):
        message = (
            f"the environment variable {config.api_key_env} with the key of {config.base_url} is "
            "not set; set it, or set writer.api_key_env to null for a server that wants none"
        )
        raise InputError(message)
    prices = "known" if config.prices else "unknown: the cost will be unknown too"
    return f"{config.model} at {config.base_url}, prices {prices}"


def _weights(model: str, revision: str | None, marker: str) -> str:
    path = require_marker(resolve_weights(model, revision), marker)
    return f"{model} in {path.parent}"


def _device(device: str) -> str:
    from models.devices import pick_device  # torch, which the files of a benchmark do not need

    return str(pick_device(device))


def _server() -> str:
    url = os.environ.get("PREFECT_API_URL")
    return f"server at {url}" if url else "no PREFECT_API_URL: runs start a server of their own"
