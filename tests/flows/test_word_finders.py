"""`magicseg segment` with what is no student: a profile's labeller, a closed-set run."""

import json

import numpy as np
import pytest
import torch

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.measured import read_measured
from models.closed_sets.networks import build_network
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.profiles import load_profile
from storage.codecs import decode_label_map
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import ExportedSet
from storage.vocabulary import load_vocabulary
from tasks.subjects import Baseline, ClosedSetRun
from training.closed_sets.config import ClosedSetConfig, load_recipe
from training.closed_sets.trained import save_trained


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "b"
    write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0), root)
    return root


@pytest.fixture(scope="module")
def closed_run(tmp_path_factory):
    """A network before training, saved as a finished run of five classes."""
    out = tmp_path_factory.mktemp("closed")
    classes = resolve_closed_set(load_vocabulary("miniature"), "cat,boat,tree,star,bus")
    exported = ExportedSet(
        closed_set=classes,
        labels=classes.labels,
        image_suffix=".png",
        num_samples=1,
        num_skipped=0,
        samples_by_class={},
        digest="d",
    )
    recipe = load_recipe("deeplabv3_miniature")
    config = ClosedSetConfig.model_validate({**recipe, "data": "none", "out": str(out)})
    torch.manual_seed(0)
    network = build_network(config.network, len(classes.labels))
    network.eval()
    noise = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        network.decode_head.conv_seg.weight.mul_(50)  # and no label is the best one everywhere
        usual = network.scores(noise, (96, 96)).log().mean(dim=(1, 2))
        network.decode_head.conv_seg.bias.sub_(usual)
    save_trained(network, config, [exported], out)
    return out


@pytest.fixture
def segment(type_line, tmp_path):
    def run(*words):
        code, said = type_line("segment", *words, "--out", tmp_path / "out")
        return code, " ".join(said.split())

    return run


def labels_by_key(out):
    return {
        file.name.rsplit("-", 1)[0]: decode_label_map(file.read_bytes())
        for file in out.glob("*.labels.png")
    }


def evaluate(subject, drawn, out):
    """The label maps that scoring predicts, by the benchmark's keys."""
    benchmark = open_benchmark(BenchmarkConfig(name="miniature", root=drawn))
    scores = subject.measure(benchmark, ScoringConfig(), out=out, device="cpu")
    [file] = out.glob("scores-*.json")
    assert read_measured(file).examples == scores.examples
    return benchmark, {
        each.key: decode_label_map((out / each.prediction).read_bytes()) for each in scores.examples
    }


def test_a_labellers_label_map_is_what_evaluate_predicts(segment, drawn, tmp_path):
    subject = Baseline(labeller=load_profile("miniature").labeller)
    benchmark, expected = evaluate(subject, drawn, tmp_path / "scores")
    words = [word for own in benchmark.classes.phrases for word in ("--word", own[0])]
    code, said = segment(drawn / "JPEGImages", *words, "--labeller", "miniature", "--heat")
    assert code == 0, said
    mine = labels_by_key(tmp_path / "out")
    assert mine.keys() == expected.keys()
    for key, labels in expected.items():
        np.testing.assert_array_equal(mine[key], labels)
    assert any(labels.any() for labels in mine.values())
    for file in (tmp_path / "out").glob("val*.json"):
        record = json.loads(file.read_text())
        assert (record["background"], record["threshold"]) == ("constant", 0)
        assert record["asked"]["student"].endswith("@labeller")
        for each in record["words"]:
            assert (each["best_score"] > 0) >= (each["area"] > 0)
    assert len(list((tmp_path / "out").glob("*.heat-*"))) == 3 * len(benchmark.classes.phrases)


def test_a_labellers_thresholds_are_settings_and_another_question(segment, drawn):
    line = (drawn / "JPEGImages" / "val_000000.jpg", "--word", "cat", "--labeller", "miniature")
    assert segment(*line)[0] == 0
    assert "was there" in segment(*line)[1]
    code, said = segment(*line, "--set", "detector.box_threshold=0.9")
    assert (code, "other settings (student)" in said) == (2, True)
    code, said = segment(*line, "--set", "detector.box_treshold=0.9")
    assert (code, "did you mean box_threshold or" in said) == (2, True)
    code, said = segment(*line, "--set", "inference.threshold=0.9")
    assert (code, "inference" in said) == (2, True)


def test_a_closed_sets_label_map_is_what_evaluate_predicts(segment, drawn, closed_run, tmp_path):
    subject = ClosedSetRun(run=str(closed_run))
    benchmark, expected = evaluate(subject, drawn, tmp_path / "scores")
    names = ("cat", "boat", "tree", "star", "bus")
    line = [part for name in names for part in ("--word", name)]
    code, said = segment(drawn / "JPEGImages", *line, "--run", closed_run, "--heat")
    assert code == 0, said
    table = np.zeros(65536, np.uint16)  # the benchmark's labels by ours
    table[1:6] = [benchmark.classes.names.index(name) + 1 for name in names]
    mine = labels_by_key(tmp_path / "out")
    assert mine.keys() == expected.keys()
    for key, labels in expected.items():
        np.testing.assert_array_equal(table[mine[key]], labels)
    assert len({label for labels in mine.values() for label in np.unique(labels)}) > 1


def test_a_class_that_is_not_asked_for_is_background(segment, drawn, closed_run, tmp_path):
    picture = drawn / "JPEGImages" / "val_000000.jpg"
    line = ("--run", closed_run)
    names = ("cat", "boat", "tree", "star", "bus")
    words = [part for name in names for part in ("--word", name)]
    assert segment(picture, *words, *line)[0] == 0
    [whole] = labels_by_key(tmp_path / "out").values()
    winner = int(np.bincount(whole.ravel())[1:].argmax())
    others = [name for place, name in enumerate(names) if place != winner]
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    words = [part for name in others for part in ("--word", name)]
    assert segment(picture, *words, *line)[0] == 0
    [some] = labels_by_key(tmp_path / "out").values()
    assert not some[whole == winner + 1].any()
    kept = whole != winner + 1
    relabelled = np.array([0, *(0 if n not in others else others.index(n) + 1 for n in names)])
    np.testing.assert_array_equal(some[kept], relabelled[whole[kept]])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["unicorn"], "the word 'unicorn' is no class that the network was trained on"),
        (["cat", "boot"], "did you mean boat?"),
        (["rocket"], "known: boat, bus, cat, star, tree"),
        (["cat", "Cat"], "expected each class of cat,boat,tree,star,bus once"),
        ([], "words are []"),
    ],
)
def test_words_that_are_no_classes_are_refused_before_anything_is_made(
    segment, drawn, closed_run, tmp_path, words, reason
):
    line = [part for word in words for part in ("--word", word)]
    code, said = segment(drawn / "JPEGImages", *line, "--run", closed_run)
    assert (code, reason in said) == (2, True), said
    assert not (tmp_path / "out").exists()


def test_a_closed_set_has_no_settings(segment, drawn, closed_run):
    line = (drawn / "JPEGImages", "--word", "cat", "--run", closed_run)
    code, said = segment(*line, "--set", "inference.threshold=0.4")
    assert (code, "follow no setting, but inference came with --set" in said) == (2, True)


def test_a_cut_closed_set_is_refused(segment, drawn, closed_run, tmp_path):
    copy = tmp_path / "cut"
    copy.mkdir()
    for file in closed_run.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    (copy / "model.safetensors").write_bytes(b"cut")
    code, said = segment(drawn / "JPEGImages", "--word", "cat", "--run", copy)
    assert (code, "expected" in said and "train again elsewhere" in said) == (3, True), said
    (copy / "closed_set.json").write_text("{")
    code, said = segment(drawn / "JPEGImages", "--word", "cat", "--run", copy)
    assert (code, "closed_set.json" in said) == (3, True), said


@pytest.mark.parametrize(
    "line",
    [(), ("--run", "a", "--labeller", "miniature"), ("--checkpoint", "a", "--labeller", "sd15")],
)
def test_one_thing_looks_at_the_pictures(segment, drawn, line):
    code, said = segment(drawn / "JPEGImages", "--word", "cat", *line)
    assert (code, "expected one of them" in said) == (2, True)


def test_a_labeller_that_reads_its_painter_is_refused(segment, drawn, tmp_path):
    document = load_profile("miniature").model_dump(mode="json", exclude={"name", "labeller"})
    document["labeller"] = {"kind": "diffumask", "min_presence": 0.5}
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(document))
    code, said = segment(drawn / "JPEGImages", "--word", "cat", "--labeller", file)
    assert (code, "reads its painter's attention" in said) == (2, True), said
    code, said = segment(drawn / "JPEGImages", "--word", "cat", "--labeller", "nope")
    assert (code, "profile 'nope' is unknown" in said) == (2, True)
