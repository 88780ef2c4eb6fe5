"""Every program in examples/ runs, and is short enough to be read at once."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.miniature.world import CLASSES, masks, render, sample_scene
from runs import write_run

ROOT = Path(__file__).parent.parent
PROGRAMS = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
MOST_LINES = 60


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of seven samples, a run, and a folder of drawn images with label maps."""
    folder = tmp_path_factory.mktemp("place")
    with tarfile.open(ROOT / "tests/data/old-dataset.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "old-dataset").rename(folder / "dataset")
    write_run(folder / "run")
    write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0), folder / "benchmark")
    for name in ("images", "labels"):
        (folder / "mine" / name).mkdir(parents=True)
    (folder / "mine" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for number in range(3):
        scene = sample_scene(np.random.default_rng(number), class_ids=[number])
        labels = np.where(masks(scene)[0], number + 1, 0).astype(np.uint8)
        Image.fromarray(render(scene)).save(folder / "mine" / "images" / f"{number}.jpg")
        Image.fromarray(labels).save(folder / "mine" / "labels" / f"{number}.png")
    return folder


@pytest.fixture
def play(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a program in this process, in the place; returns what it printed."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", [str(PROGRAMS[name]), *arguments])
        runpy.run_path(str(PROGRAMS[name]), run_name="__main__")
        return capsys.readouterr().out

    return run


def alone(name: str, cwd: Path, *arguments: str) -> str:
    """Run a program in a process of its own; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if "PREFECT" not in key}
    environment["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "180"  # a busy machine
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(cwd / "hf")}
    done = subprocess.run(
        [sys.executable, str(PROGRAMS[name]), *arguments],
        cwd=cwd,
        env={**environment, **offline, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert not done.returncode, done.stderr
    return done.stdout


# program, its arguments, and what the end of its output looks like
QUICK = [
    ("read_samples", "dataset", r"7 samples"),
    ("read_with_webdataset", "dataset", r"7 samples"),
    ("filter_samples", "dataset cat 0.1", r"[1-7] samples; dropped: \{.*\}"),
    ("export_classes", "dataset cat,star export", r"2 star: \d images\n\d samples"),
    ("own_writer", "cat,boat,rocket", r"a \w+( and a \w+)? .+ -> a nothing .*"),
    ("own_detector", "dataset", r"Counter\(\{.*\}\)"),
    ("own_benchmark", "mine run scores", r"mIoU 0\.\d{3} on 3 images"),
    ("score_benchmark", "run benchmark scores", r"mIoU 0\.\d{3} on 3 images"),
    ("segment_folder", "run mine/images seen cat boat", r"2\.jpg: cat [\d.]+%, boat .*%\n3 images"),
]
ALONE = {"read_with_datasets", "run_flows", "two_workers"}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves tars open
@pytest.mark.parametrize(("name", "line", "end"), QUICK, ids=[name for name, _, _ in QUICK])
def test_an_example_runs(play: Callable[..., str], name: str, line: str, end: str) -> None:
    out = play(name, *line.split())
    assert re.search(rf"(^|\n){end}\n$", out), out


def test_the_export_and_the_label_maps_of_examples_are_files(
    play: Callable[..., str], place: Path
) -> None:
    play("segment_folder", "run", "mine/images", "found", "red boat")
    assert len(list((place / "found").glob("*.labels.png"))) == 3
    play("export_classes", "dataset", "balloon", "exported")
    assert list((place / "exported" / "images" / "train").iterdir())


def test_datasets_reads_a_dataset(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "dataset", tmp_path / "dataset")
    assert alone("read_with_datasets", tmp_path, "dataset").endswith("7 samples\n")


@pytest.mark.slow
def test_two_workers_share_a_dataset(tmp_path: Path) -> None:
    assert alone("two_workers", tmp_path, "shared", "8").endswith("all shards are there\n")
    assert len(list((tmp_path / "shared/.engine/commits/shards").iterdir())) == 2


@pytest.mark.slow
def test_flows_run_from_python(tmp_path: Path) -> None:
    printed = alone("run_flows", tmp_path, "all", "8")
    assert "of 8 samples, dropped" in printed
    assert "2 scores, 3 steps executed" in printed


def test_every_example_is_run_here() -> None:
    assert {name for name, _, _ in QUICK} | ALONE == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_is_short_and_says_how_it_is_run(name: str) -> None:
    lines = PROGRAMS[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) < MOST_LINES
    assert lines[0].startswith('"""')
    assert f"\n    python examples/{name}.py " in "\n".join(lines)
