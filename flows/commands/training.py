"""Commands that train and score: train, evaluate, closed-set, denoise, ablate."""

from pathlib import Path
from typing import Any, Literal

from evaluation.benchmarks.names import BenchmarkName
from flows.commands.app import (
    Flag,
    Json,
    LocalPath,
    Place,
    Settings,
    Sources,
    Whole,
    app,
    console,
    errors,
    print_json,
    say,
    show_examples,
)
from flows.commands.benchmarks import benchmark_config, benchmark_settings
from flows.commands.sources import read_source
from storage.errors import InputError


@app.command(
    help_epilogue=show_examples(
        "magicseg train --dataset runs/mine --out runs/mine-run",
        "magicseg train --dataset runs/mine --set optimiser.steps=100 --set seed=1",
        "magicseg train --profile sd15 --data voc21:VOCdevkit/VOC2012 --out runs/voc",
        "magicseg train --data runs/mine,weight=3 --data miniature:runs/benchmark \\",
        "    --out runs/mixed",
    )
)
def train(
    *,
    dataset: Place | None = None,
    data: Sources = (),
    imports: LocalPath | None = None,
    out: LocalPath | None = None,
    profile: str = "miniature",
    set_: Settings = (),
) -> None:
    """Train the profile's student on committed shards; an interrupted training resumes.

    Args:
        dataset: Root of a dataset.
        data: A source beside the dataset, or instead: [LAYOUT:]PLACE[,split=NAME][,weight=NUMBER].
            PLACE is the root of a dataset, or with a LAYOUT (voc21, context60, coco_object,
            miniature) a folder of real images, of which the split train is taken if none is named.
            Samples are drawn by the weights, 1 if none is given; may be repeated.
        imports: Folder for real images in the engine's format, which runs may share; by default
            imports in the run's.
        out: Folder of the run; by default the dataset's with -run behind its name.
        profile: Shipped profile, or path of a YAML file.
        set_: Training settings that differ from the profile's, as name=value; may be repeated.
    """
    from flows.local_steps import train_locally
    from flows.training_parameters import TrainAndEvaluateParameters
    from storage.documents import validate

    values = {
        **_trained_on(dataset, data, imports),
        "out": _text(out),
        "profile": profile,
        "training": _nested(set_),
    }
    train_locally(validate(TrainAndEvaluateParameters, values, "parameters"), console)


@app.command(
    help_epilogue=show_examples(
        "magicseg evaluate --run runs/mine-run --root runs/benchmark",
        "magicseg evaluate --run runs/mine-run --root runs/benchmark --preset sclip",
    )
)
def evaluate(
    *,
    run: LocalPath,
    root: LocalPath,
    benchmark: BenchmarkName = "miniature",
    split: str = "val",
    profile: str = "miniature",
    limit: Whole | None = None,
    available: Flag = False,
    preset: str | None = None,
    untrained: bool = True,
    baseline: bool = True,
    by_image: Flag = False,
    set_: Settings = (),
) -> None:
    """Score a trained student on a benchmark, and others beside it.

    Args:
        run: Folder of the training run.
        root: Folder of the benchmark.
        benchmark: Its name.
        split: Which part of the benchmark.
        profile: Profile that the student was trained with.
        limit: Score only this many images.
        available: Score the images whose files are there; their share stands beside the number.
        preset: Score as a published work did, such as groupvit, tcl, sclip, clearclip, zegclip, gem
            or magicseg_released; settings that are given win.
        untrained: Score the student before training too.
        baseline: Score the profile's labeller too.
        by_image: Score again what an older version scored without the figures and pictures of
            single images that reports show.
        set_: Scoring settings that differ from the profile's, as name=value, or settings of the
            benchmark, such as benchmark.lvis.images=all; may be repeated.
    """
    from flows.local_steps import evaluate_locally
    from flows.training_parameters import EvaluationParameters
    from storage.documents import read_parameters

    own, scoring = benchmark_settings(set_)
    config = benchmark_config(
        {
            "name": benchmark,
            "root": root,
            "split": split,
            "limit": limit,
            "available": available,
        },
        own,
    )

    parameters = read_parameters(
        EvaluationParameters,
        None,
        {
            "run": str(run),
            "profile": profile,
            "scoring": _nested(scoring) | ({} if preset is None else {"preset": preset}),
            "benchmarks": [config],
            "untrained": untrained,
            "baseline": baseline,
            "by_image": by_image,
        },
    )
    evaluate_locally(parameters, console)


@app.command(
    help_epilogue=show_examples(
        "magicseg closed-set --dataset runs/mine --recipe mask2former_miniature \\",
        "    --classes miniature --root runs/benchmark",
        "magicseg closed-set --data voc21:VOCdevkit/VOC2012,split=trainaug \\",
        "    --profile sd15 --recipe deeplabv3_r50 --classes voc20 --out runs/voc",
    )
)
def closed_set(
    *,
    dataset: Place | None = None,
    data: Sources = (),
    imports: LocalPath | None = None,
    recipe: str,
    classes: str,
    root: LocalPath | None = None,
    benchmark: BenchmarkName = "miniature",
    split: str = "val",
    out: LocalPath | None = None,
    profile: str = "miniature",
    set_: Settings = (),
) -> None:
    """Train an ordinary segmenter on committed shards, and score it beside the student.

    Args:
        dataset: Root of a dataset.
        data: A source beside the dataset, or instead: [LAYOUT:]PLACE[,split=NAME][,weight=NUMBER],
            as for train; may be repeated.
        imports: Folder for real images in the engine's format, as for train.
        recipe: deeplabv3_r50, deeplabv3_r101, mask2former_r50, mask2former_swin_b,
            deeplabv3_miniature, mask2former_miniature, or the path of a YAML file.
        classes: voc20, coco80, coco_stuff, cityscapes, context59, miniature, or names between
            commas.
        root: Folder of a benchmark to score on.
        benchmark: Its name.
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
        **_trained_on(dataset, data, imports),
        "out": _text(out),
        "profile": profile,
        "benchmarks": scored,
        "closed_sets": [{"recipe": recipe, "classes": classes, "settings": _nested(set_)}],
    }
    closed_sets_locally(read_parameters(TrainAndEvaluateParameters, None, values), console)


@app.command(
    help_epilogue=show_examples(
        "magicseg denoise runs/mine --out runs/mine-noise",
        "magicseg denoise runs/mine --out runs/mine-noise --keep 0.5 --dry-run",
        "magicseg denoise runs/mine --out runs/mine-noise \\",
        "    --recipe deeplabv3_miniature --classes miniature",
    )
)
def denoise(
    dataset: Place,
    *,
    out: LocalPath,
    profile: str = "miniature",
    folds: Whole = 3,
    keep: float = 0.7,
    ranking: Literal["class", "all"] = "class",
    against: Literal["dataset", "sample"] = "dataset",
    recipe: str | None = None,
    classes: str | None = None,
    set_: Settings = (),
    dry_run: Flag = False,
    json_: Json = False,
) -> None:
    """Leave the samples out whose masks are contradicted by segmenters trained on the others.

    This is DiffuMask's noise learning. A segmenter for each fold is trained on the other folds and
    predicts its own; the samples whose masks agree least with that are left out, and can be taken
    back. A run that was interrupted goes on; another --keep or --ranking trains nothing again.

    Args:
        dataset: Root of a dataset.
        out: Folder for the segmenters and what they find.
        profile: Profile whose student judges: a shipped one, or path of a YAML file.
        folds: Parts of the dataset.
        keep: Share of the judged samples that stay. DiffuMask's script keeps 0.3.
        ranking: Compare a sample with others of its class, or with all.
        against: Let a prediction name all classes that the dataset shows, or the sample's own.
        recipe: Recipe of a closed-set segmenter that judges instead of the student.
        classes: Its classes, as for closed-set.
        set_: Training settings that differ from the profile's or the recipe's, as name=value; may
            be repeated.
        dry_run: Train and judge, but leave nothing out.
        json_: Print JSON; progress goes to standard error.
    """
    from flows.noise_learning import NoiseParameters, learn_noise_locally, verdict_words
    from storage.documents import read_parameters

    if (recipe is None) != (classes is None):
        message = "a closed-set segmenter needs both --recipe and --classes"
        raise InputError(message)
    closed = {"recipe": recipe, "classes": classes, "settings": _nested(set_)}
    values = {
        "dataset": dataset,
        "out": str(out),
        "profile": profile,
        "folds": folds,
        "keep": keep,
        "ranking": ranking,
        "against": against,
        "training": _nested(set_) if recipe is None else {},
        "closed_set": None if recipe is None else closed,
    }
    parameters = read_parameters(NoiseParameters, None, values)
    verdict = learn_noise_locally(parameters, errors if json_ else console, change=not dry_run)
    if json_:
        print_json(verdict.model_dump(mode="json"))
        return
    for line in verdict_words(verdict, dataset, change=not dry_run):
        say(line)


@app.command(
    help_epilogue=show_examples(
        "magicseg ablate --preset miniature --out runs/ablation",
        'magicseg ablate grid.yaml --set "seeds=[0]" --json',
    )
)
def ablate(
    file: LocalPath | None = None,
    *,
    preset: Literal["miniature"] | None = None,
    out: LocalPath | None = None,
    set_: Settings = (),
    json_: Json = False,
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
    from flows.ablation_grid import AblationParameters, Grid, require_all
    from flows.demo import demo_ablation, draw_ablation_benchmark
    from flows.local_steps import ablate_locally, hold_grid

    demo = None if preset is None else demo_ablation(out or Path("runs/ablation"))
    grid = Grid(_file_or_preset(AblationParameters, file, demo, out, set_))
    with hold_grid(grid):
        if preset is not None:
            draw_ablation_benchmark(grid)
        ablation = ablate_locally(grid, errors if json_ else console)
    if json_:
        print_json(ablation.model_dump(mode="json"))
    else:
        console.print(format_ablation(ablation), markup=False, highlight=False, soft_wrap=True)
    require_all(ablation)


@app.command(
    help_epilogue=show_examples(
        "magicseg train-affinity --dataset runs/mine --out runs/affinity",
        "magicseg train-affinity --dataset runs/mine --out runs/cats --classes cat",
    )
)
def train_affinity(
    *,
    dataset: Place,
    out: LocalPath,
    classes: str = "",
    set_: Settings = (),
) -> None:
    """Train the network of affinities that the labeller diffumask walks along.

    Args:
        dataset: Root of a dataset whose painter's attention was recorded.
        out: Folder of the training; an interrupted one goes on.
        classes: Names between commas; by default all classes.
        set_: Settings of the training that differ from the paper's, as name=value, such as
            network.stride=2, crop=64 or cross_resolutions={16:1}; may be repeated.
    """
    from flows.local_steps import train_affinity_locally
    from storage.documents import validate
    from tasks.affinities import AffinityJob

    settings = _nested(set_)
    maps = {name: settings.pop(name) for name in ("cross_resolutions",) if name in settings}
    names = tuple(each.strip() for each in classes.split(",") if each.strip())
    values = {"dataset": dataset, "out": str(out), "classes": names, "config": settings, **maps}
    train_affinity_locally(validate(AffinityJob, values, "parameters"), console)


@app.command(
    help_epilogue=show_examples(
        "magicseg self-train --dataset runs/mine --run runs/mine-run --out runs/again",
        "magicseg self-train --dataset runs/mine --run runs/mine-run --out runs/st \\",
        "    --rounds 2 --root runs/benchmark",
    )
)
def self_train(
    *,
    dataset: Place,
    run: LocalPath,
    out: LocalPath,
    rounds: Whole = 1,
    root: LocalPath | None = None,
    benchmark: BenchmarkName = "miniature",
    split: str = "val",
    profile: str = "miniature",
    set_: Settings = (),
) -> None:
    """Relabel a dataset with the student that learned from it, and train again.

    Args:
        dataset: Root of the dataset.
        run: Folder of the first student's run.
        out: Folder for the rounds; what is finished there is found, so an interrupted one goes on.
        rounds: How often to relabel and train.
        root: Folder of a benchmark to score every round's student on.
        benchmark: Its name.
        split: Which part of it.
        profile: Profile of the student.
        set_: Training settings that differ from the profile's, as name=value, or scoring settings
            such as scoring.inference.threshold=0.4; may be repeated.
    """
    from flows.local_steps import self_train_locally
    from flows.self_training import SelfTrainingParameters
    from storage.documents import read_parameters

    settings = _nested(set_)
    scoring = settings.pop("scoring", {})
    scored = [] if root is None else [{"name": benchmark, "root": root, "split": split}]
    values = {
        "dataset": dataset,
        "run": str(run),
        "out": str(out),
        "rounds": rounds,
        "profile": profile,
        "training": settings,
        "scoring": scoring,
        "benchmarks": scored,
    }
    self_train_locally(read_parameters(SelfTrainingParameters, None, values), console)


@app.command(
    help_epilogue=show_examples(
        "magicseg compare-labellers --preset miniature --out runs/labellers",
        'magicseg compare-labellers comparison.yaml --set "seeds=[0]" --json',
    )
)
def compare_labellers(
    file: LocalPath | None = None,
    *,
    preset: Literal["miniature"] | None = None,
    out: LocalPath | None = None,
    set_: Settings = (),
    json_: Json = False,
) -> None:
    """Label the same pictures with several labellers, and train the same networks on each.

    Args:
        file: YAML file with comparison parameters.
        preset: Instead of a file: grounded, diffumask and dataset-diffusion on the models that ship
            with the engine.
        out: Folder for everything; an interrupted comparison goes on where it stopped.
        set_: Any other parameter, as name=value; may be repeated.
        json_: Print JSON; progress goes to standard error.
    """
    from evaluation.reports.comparison_files import COMPARISON_PAGE, format_comparison
    from flows.demo import demo_comparison
    from flows.labeller_comparison import (
        ComparisonParameters,
        LabellerComparison,
        require_measured,
    )
    from flows.local_steps import compare_locally, hold_comparison

    demo = None if preset is None else demo_comparison(out or Path("runs/labellers"))
    comparison = LabellerComparison(_file_or_preset(ComparisonParameters, file, demo, out, set_))
    with hold_comparison(comparison):
        found = compare_locally(comparison, errors if json_ else console)
    if json_:
        print_json(found.model_dump(mode="json"))
    else:
        console.print(format_comparison(found), markup=False, highlight=False, soft_wrap=True)
        page = comparison.folder / COMPARISON_PAGE
        console.print(f"report: {page}", markup=False, soft_wrap=True)
    require_measured(found)


def _file_or_preset(
    kind: type[Any],
    file: Path | None,
    demo: Any,
    out: Path | None,
    settings: tuple[str, ...],
) -> Any:
    """Parameters of a YAML file or of a preset, with the settings on top."""
    from storage.documents import nest, read_assignments, read_parameters, validate

    if (file is None) == (demo is None):
        message = "give either a YAML file with parameters or --preset miniature"
        raise InputError(message)
    values = read_assignments(settings)
    if out is not None:
        values["out"] = str(out)
    if demo is None:
        return read_parameters(kind, file, values)
    return validate(kind, nest(values, demo.model_dump(mode="json")), "parameters")


def _trained_on(dataset: str | None, data: tuple[str, ...], imports: Path | None) -> dict[str, Any]:
    """The sources of a training, as fields of its parameters."""
    if dataset is None and not data:
        message = "there is nothing to train on: give --dataset, or --data, or both"
        raise InputError(message)
    sources = [read_source(text) for text in data]
    return {"dataset": dataset, "data": sources, "imports": _text(imports)}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _nested(settings: tuple[str, ...]) -> dict[str, Any]:
    from storage.documents import nest, read_assignments

    return nest(read_assignments(settings))
