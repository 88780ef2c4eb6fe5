"""The command line. Exit codes: 0 done, 2 wrong input, 3 work left, 4 budget, 130 interrupted."""

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from storage.errors import EngineError, InputError
from storage.exit_codes import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_WORK_LEFT, exit_code

app = App(
    name="magicseg",
    help="From class names to counterfactual segmentation data, and the student trained on it.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
# Read when the libraries are imported: what they say about themselves is no news to our users.
for _name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
    os.environ.setdefault(_name, "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# Threads that wait by spinning take the cores from their neighbours: on a shared CPU a step of
# training took 1.6 s of CPU time with spinning and 0.45 s without.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_console = Console()
_errors = Console(stderr=True)

Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="")]


@app.command
def demo(*, out: Path = Path("runs/demo"), seed: int = 0) -> None:
    """Generate, train, evaluate and report on the models that ship with the engine.

    Args:
        out: Folder for everything; an interrupted demo goes on where it stopped.
        seed: Root of every random choice.
    """
    from flows.demo import run_demo

    run_demo(out, seed, _console)


@app.command
def plan(
    file: Path | None = None,
    *,
    root: str | None = None,
    slice: str | None = None,  # noqa: A002 - the name that people type
    samples: int | None = None,
    profile: str | None = None,
    set_: Settings = (),
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say which shards a run would make, and which are committed; executes nothing.

    Args:
        file: YAML file with generation parameters.
        root: Dataset: a folder or an object-store URL.
        slice: Classes: all, lvis-r, voc20, 0:100, or names between commas.
        samples: Samples to plan for the slice.
        profile: Shipped profile, or path of a YAML file.
        set_: Any other parameter, as name=value; may be repeated.
        json_: Print JSON.
    """
    from flows.generation_plan import describe_plan, print_plan

    given = {"root": root, "slice": slice, "samples": samples, "profile": profile}
    described = describe_plan(_generation(file, given, set_))
    if json_:
        _print_json(described.model_dump(mode="json"))
    else:
        print_plan(described, _console)


@app.command
def generate(
    file: Path | None = None,
    *,
    root: str | None = None,
    slice: str | None = None,  # noqa: A002 - the name that people type
    samples: int | None = None,
    profile: str | None = None,
    shards: str | None = None,
    set_: Settings = (),
) -> None:
    """Make the shards of a slice; what is committed is not made again.

    Args:
        file: YAML file with generation parameters.
        root: Dataset: a folder or an object-store URL.
        slice: Classes: all, lvis-r, voc20, 0:100, or names between commas.
        samples: Samples to plan for the slice; more than before extends it.
        profile: Shipped profile, or path of a YAML file.
        shards: Shards to work on: all, or indices and ranges such as 0-3,7.
        set_: Any other parameter, as name=value; may be repeated.
    """
    from flows.local_runs import generate_locally

    given = {
        "root": root,
        "slice": slice,
        "samples": samples,
        "profile": profile,
        "shards": shards,
    }
    generate_locally(_generation(file, given, set_), _console)


@app.command
def status(
    root: str, *, json_: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> None:
    """Say what is committed in a dataset, from its records alone.

    Args:
        root: Dataset: a folder or an object-store URL.
        json_: Print JSON.
    """
    from flows.dataset_status import describe_status, print_status

    described = describe_status(root)
    if json_:
        _print_json(described)
    else:
        print_status(described, _console)


@app.command
def verify(
    root: str,
    *,
    deep: bool = False,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Hold the files of a dataset against its records.

    Args:
        root: Dataset: a folder or an object-store URL.
        deep: Hash every byte and open every sample, instead of comparing sizes and counts.
        json_: Print JSON.
    """
    from storage.store import Store
    from storage.verification import verify_bytes, verify_records
    from storage.vocabulary import load_vocabulary

    store = Store.open(root)
    if deep:
        vocabulary = load_vocabulary(store.spec["plan"]["vocabulary"])
        findings = verify_bytes(store, len(vocabulary))
    else:
        findings = verify_records(store)
    if json_:
        _print_json([finding.model_dump(mode="json") for finding in findings])
    else:
        for finding in findings:
            text = f"{finding.path}: {finding.problem}; {finding.way_out}"
            _console.print(text, markup=False, soft_wrap=True)
        _console.print(f"{len(findings)} findings in {root}", markup=False, soft_wrap=True)
    if findings:
        sys.exit(EXIT_WORK_LEFT)


@app.command
def train(
    *,
    dataset: str,
    out: str | None = None,
    profile: str = "miniature",
    set_: Settings = (),
) -> None:
    """Train the profile's student on committed shards; an interrupted training goes on.

    Args:
        dataset: Root of a dataset.
        out: Folder of the run; by default the dataset's with -run behind its name.
        profile: Shipped profile, or path of a YAML file.
        set_: Training settings that differ from the profile's, as name=value; may be repeated.
    """
    from flows.local_steps import train_locally
    from flows.training_parameters import TrainAndEvaluateParameters

    parameters = TrainAndEvaluateParameters(
        dataset=dataset, out=out, profile=profile, training=_nested(set_)
    )
    train_locally(parameters, _console)


@app.command
def evaluate(
    *,
    run: str,
    root: Path,
    benchmark: str = "miniature",
    split: str = "val",
    profile: str = "miniature",
    limit: int | None = None,
    preset: str | None = None,
    untrained: bool = True,
    baseline: bool = True,
    set_: Settings = (),
) -> None:
    """Score a trained student on a benchmark, and others beside it.

    Args:
        run: Folder of the training run.
        root: Folder of the benchmark.
        benchmark: voc21, voc20, context60, context59, coco_object, lvis, open_images or miniature.
        split: Which part of the benchmark.
        profile: Profile that the student was trained with.
        limit: Score so many images only.
        preset: Score as a published work did, such as groupvit, tcl, sclip, clearclip, zegclip or
            magicseg_released; settings that are given win.
        untrained: Score the student before training too.
        baseline: Score the profile's detector with its segmenter too.
        set_: Scoring settings that differ from the profile's, as name=value, or settings of the
            benchmark, such as benchmark.lvis.images=all; may be repeated.
    """
    from flows.local_steps import evaluate_locally
    from flows.training_parameters import EvaluationParameters
    from storage.documents import read_parameters

    own, scoring = _benchmark_settings(set_)
    config = _benchmark({"name": benchmark, "root": root, "split": split, "limit": limit}, own)

    parameters = read_parameters(
        EvaluationParameters,
        None,
        {
            "run": run,
            "profile": profile,
            "scoring": _nested(scoring) | ({} if preset is None else {"preset": preset}),
            "benchmarks": [config],
            "untrained": untrained,
            "baseline": baseline,
        },
    )
    evaluate_locally(parameters, _console)


@app.command
def export(*, dataset: str, classes: str, out: Path, vocabulary: str | None = None) -> None:
    """Write the images and 8-bit label maps of some classes into a folder, for other trainers.

    Args:
        dataset: Root of a dataset, or a folder of tars.
        classes: voc20, coco80, context59, miniature, or names between commas.
        out: The folder; an export of the same classes there goes on and follows the dataset.
        vocabulary: What the label maps index; only needed for a folder of tars.
    """
    from flows.local_steps import export_locally

    export_locally(dataset, classes, vocabulary, out, _console)


@app.command
def closed_set(
    *,
    dataset: str,
    recipe: str,
    classes: str,
    root: Path | None = None,
    benchmark: str = "miniature",
    split: str = "val",
    out: str | None = None,
    profile: str = "miniature",
    set_: Settings = (),
) -> None:
    """Train an ordinary segmenter on committed shards, and score it beside the student.

    Args:
        dataset: Root of a dataset.
        recipe: deeplabv3_r50, deeplabv3_r101, mask2former_r50, deeplabv3_miniature,
            mask2former_miniature, or the path of a YAML file.
        classes: voc20, coco80, context59, miniature, or names between commas.
        root: Folder of a benchmark to score on.
        benchmark: Its name, as for evaluate.
        split: Which part of it.
        out: Folder of the run, as for train; the segmenter goes to closed-sets below it.
        profile: Profile that the dataset was made with.
        set_: Settings that differ from the recipe's, as name=value; may be repeated.
    """
    from flows.local_steps import closed_sets_locally
    from flows.training_parameters import TrainAndEvaluateParameters
    from storage.documents import read_parameters

    scored = [] if root is None else [{"name": benchmark, "root": root, "split": split}]
    values = {
        "dataset": dataset,
        "out": out,
        "profile": profile,
        "benchmarks": scored,
        "closed_sets": [{"recipe": recipe, "classes": classes, "settings": _nested(set_)}],
    }
    closed_sets_locally(read_parameters(TrainAndEvaluateParameters, None, values), _console)


@app.command
def ablate(
    file: Path | None = None,
    *,
    preset: Literal["miniature"] | None = None,
    out: str | None = None,
    set_: Settings = (),
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Train and score a grid of students, and compare them as the paper's tables V and VI do.

    Args:
        file: YAML file with ablation parameters.
        preset: Instead of a file: the grid on the models that ship with the engine.
        out: Folder for everything; an interrupted grid goes on where it stopped.
        set_: Any other parameter, as name=value; may be repeated.
        json_: Print JSON; progress goes to standard error.
    """
    from evaluation.reports.ablation_files import format_ablation
    from flows.ablation_grid import Grid, require_all
    from flows.demo import draw_ablation_benchmark
    from flows.local_steps import ablate_locally

    grid = Grid(_ablation(file, preset, out, set_))
    if preset is not None:
        draw_ablation_benchmark(grid)
    console = _errors if json_ else _console
    ablation = ablate_locally(grid, console)
    if json_:
        _print_json(ablation.model_dump(mode="json"))
    else:
        _console.print(format_ablation(ablation), markup=False, highlight=False, soft_wrap=True)
    require_all(ablation)


@app.command
def report(*, dataset: str | None = None, run: tuple[Path, ...] = (), out: Path) -> None:
    """Write one HTML page about a dataset and the runs made from it.

    Args:
        dataset: Root of a dataset.
        run: Folders of training runs; may be repeated.
        out: The file to write.
    """
    from evaluation.reports.page import write_report

    _console.print(f"report: {write_report(dataset, run, out)}", markup=False, soft_wrap=True)


@app.command
def doctor(
    *,
    profile: str = "miniature",
    root: str | None = None,
    benchmark: str | None = None,
    split: str = "val",
    set_: Settings = (),
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Check what a run would need: weights, keys, space, Prefect; or the files of a benchmark.

    Args:
        profile: Shipped profile, or path of a YAML file.
        root: Dataset to check for space and write access; with a benchmark, the folder of that.
        benchmark: voc21, voc20, context60, context59, coco_object, lvis, open_images or miniature;
            then its files are checked and nothing else.
        split: Which part of the benchmark.
        set_: Settings of the benchmark, such as benchmark.lvis.images=all; may be repeated.
        json_: Print JSON.
    """
    from flows.doctor import examine, examine_benchmark, print_findings

    own, others = _benchmark_settings(set_)
    if others or (own and benchmark is None):
        message = f"{', '.join(set_)} means nothing here, expected benchmark.<name>=value"
        raise InputError(message)
    if benchmark is None:
        findings = examine(profile, root)
    elif root is None:
        message = f"{benchmark} cannot be checked without its folder: name it with --root"
        raise InputError(message)
    else:
        config = _benchmark({"name": benchmark, "root": root, "split": split}, own)
        findings = examine_benchmark(config)
    if json_:
        _print_json([finding.model_dump(mode="json") for finding in findings])
    else:
        print_findings(findings, _console)
    if not all(finding.ok for finding in findings):
        sys.exit(EXIT_INPUT)


def main() -> None:
    """Run a command; an error that the engine explains is one line, without traceback."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    # Libraries may log more into a run's file; the terminal shows what needs attention.
    logging.getLogger().handlers[0].setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(EXIT_INPUT)
    except KeyboardInterrupt:
        _errors.print("interrupted; what was finished is kept, run the command again to go on")
        sys.exit(EXIT_INTERRUPTED)
    except EngineError as error:
        _errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(exit_code(error))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _generation(file: Path | None, given: Mapping[str, Any], settings: tuple[str, ...]) -> Any:
    from flows.generation_parameters import GenerationParameters
    from storage.documents import read_parameters, split_assignment

    values = {name: value for name, value in given.items() if value is not None}
    values |= dict(split_assignment(text) for text in settings)
    return read_parameters(GenerationParameters, file, values)


def _ablation(
    file: Path | None, preset: str | None, out: str | None, settings: tuple[str, ...]
) -> Any:
    from flows.ablation_grid import AblationParameters
    from flows.demo import demo_ablation
    from storage.documents import nest, read_parameters, split_assignment, validate

    if (file is None) == (preset is None):
        message = "give either a YAML file with ablation parameters or --preset miniature"
        raise InputError(message)
    values = dict(split_assignment(text) for text in settings)
    if out is not None:
        values["out"] = out
    if file is not None:
        return read_parameters(AblationParameters, file, values)
    document = demo_ablation(Path(out or "runs/ablation")).model_dump(mode="json")
    return validate(AblationParameters, nest(values, document), "parameters")


def _nested(settings: tuple[str, ...]) -> dict[str, Any]:
    from storage.documents import nest, split_assignment

    return nest(dict(split_assignment(text) for text in settings))


def _benchmark_settings(settings: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The settings of a benchmark, without the word in front, and the others."""
    prefix = "benchmark."
    own = tuple(text.removeprefix(prefix) for text in settings if text.startswith(prefix))
    return own, tuple(text for text in settings if not text.startswith(prefix))


def _benchmark(given: Mapping[str, Any], settings: tuple[str, ...]) -> Any:
    from evaluation.benchmarks.contract import BenchmarkConfig
    from storage.documents import read_parameters, split_assignment

    values = {**given, **dict(split_assignment(text) for text in settings)}
    return read_parameters(BenchmarkConfig, None, values)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
