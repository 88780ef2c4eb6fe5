"""Commands that show what there is: demo, explore, report, doctor."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from evaluation.benchmarks.names import BenchmarkName
from flows.commands.app import (
    Flag,
    Json,
    LocalPath,
    Place,
    Settings,
    Whole,
    app,
    console,
    print_json,
    say,
    show_examples,
)
from flows.commands.benchmarks import benchmark_config, benchmark_settings
from flows.commands.data import GenerationFile, GenerationOptions
from storage.errors import InputError
from storage.exit_codes import EXIT_INPUT

_NOWHERE = "memory://doctor"
"""Stands for a dataset where none is named."""


@app.command(
    help_epilogue=show_examples("magicseg demo", "magicseg demo --out runs/second --seed 1")
)
def demo(
    *,
    out: LocalPath = Path("runs/demo"),
    seed: Annotated[Whole, Parameter(validator=Number(gte=0, lt=2**63))] = 0,
) -> None:
    """Generate, train, evaluate and report on the models that ship with the engine.

    Args:
        out: Folder for everything; an interrupted demo goes on where it stopped.
        seed: Seed of every random choice.
    """
    from flows.demo import run_demo

    run_demo(out, seed, console)


@app.command(
    help_epilogue=show_examples(
        "magicseg explore runs/mine",
        "magicseg explore s3://bucket/rare --no-browser --port 8123",
    )
)
def explore(
    root: Place,
    /,
    *,
    port: Annotated[Whole, Parameter(validator=Number(gte=0, lt=2**16))] = 0,
    no_browser: Flag = False,
) -> None:
    """Look through the samples of a dataset in a browser; flag, note and exclude them.

    The page is served to this machine alone, at an address that nobody can guess, until Ctrl-C. It
    filters by class, scores, area, words and why samples were dropped. Exclusions are those of
    'magicseg exclusions': trainings and exports leave these samples out.

    Args:
        root: Dataset: a folder or an object-store URL.
        port: Where to listen; 0 takes a free port.
        no_browser: Print the address only; open no browser.
    """
    from flows.explorer.server import explore as serve

    serve(root, port=port, browser=not no_browser, say=say)


@app.command(
    help_epilogue=show_examples(
        "magicseg report --dataset runs/mine --out runs/mine.html",
        "magicseg report --run runs/mine-run --run runs/second-run --out runs.html",
        "magicseg report --run runs/mine-run --compare runs/second-run --out two.html",
    )
)
def report(
    *,
    dataset: Place | None = None,
    run: tuple[LocalPath, ...] = (),
    compare: LocalPath | None = None,
    out: LocalPath,
) -> None:
    """Write one HTML page about a dataset and the runs made from it.

    Args:
        dataset: Root of a dataset.
        run: Folders of training runs; may be repeated.
        compare: Folder of another run, which is put side by side with the only one: scores,
            classes, curves, parameters that differ, and the same images.
        out: The file to write.
    """
    from evaluation.reports.page import write_report

    if dataset is None and not run:
        message = "there is nothing to report on: give --dataset, --run, or both"
        raise InputError(message)
    say(f"report: {write_report(dataset, run, out, compare=compare)}")


@app.command(
    help_epilogue=show_examples(
        "magicseg doctor --root runs/mine",
        "magicseg doctor run.yaml",
        "magicseg doctor --profile sd15 --set twins.way=inpaint",
        "magicseg doctor --benchmark voc21 --root VOCdevkit/VOC2012 --deep",
    )
)
def doctor(
    file: GenerationFile = None,
    *,
    profile: str | None = None,
    root: Place | None = None,
    benchmark: BenchmarkName | None = None,
    split: str = "val",
    deep: Flag = False,
    set_: Settings = (),
    json_: Json = False,
) -> None:
    """Check what a run would need: weights, keys, space, Prefect; or the files of a benchmark.

    Args:
        file: YAML file with generation parameters.
        profile: Shipped profile, or path of a YAML file; miniature, if the parameters name none.
        root: Dataset to check for space and write access; with a benchmark, the folder of that.
        benchmark: Name of a benchmark; then its files are checked and nothing else.
        split: Which part of the benchmark.
        deep: Open every image of the benchmark with its truth, and list all faults.
        set_: Any other generation parameter, such as twins.way=inpaint; of a benchmark its own
            settings, such as benchmark.lvis.images=all; may be repeated.
        json_: Print JSON.
    """
    from flows.doctor import examine, examine_benchmark, print_findings

    own, others = benchmark_settings(set_)
    if own and benchmark is None:
        message = f"{', '.join(set_)} means nothing here: name the benchmark with --benchmark"
        raise InputError(message)
    if benchmark is not None and (others or file is not None or profile is not None):
        given = others or (str(file) if file is not None else f"--profile {profile}",)
        message = (
            f"{', '.join(given)} means nothing here, expected benchmark.<name>=value: the files of "
            "a benchmark are checked apart from what a run needs"
        )
        raise InputError(message)
    if deep and benchmark is None:
        message = "--deep opens the files of a benchmark: name it with --benchmark"
        raise InputError(message)
    if benchmark is None:
        wanted = GenerationOptions(root=root, profile=profile, set=others)
        parameters = wanted.parameters(file, root=_NOWHERE, samples=1)
        given = None if parameters.root == _NOWHERE else parameters.root
        findings = examine(parameters.recipe, given)
    elif root is None:
        message = f"{benchmark} cannot be checked without its folder: name it with --root"
        raise InputError(message)
    else:
        config = benchmark_config({"name": benchmark, "root": root, "split": split}, own)
        findings = examine_benchmark(config, deep=deep)
    if json_:
        print_json([finding.model_dump(mode="json") for finding in findings])
    else:
        print_findings(findings, console)
    if not all(finding.ok for finding in findings):
        sys.exit(EXIT_INPUT)
