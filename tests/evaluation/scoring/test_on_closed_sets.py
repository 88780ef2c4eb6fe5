"""Closed-set segmenters on a benchmark."""

import numpy as np
import pytest
import torch

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.background import BACKGROUND_WORD
from evaluation.scoring.config import ScoringConfig, ViewConfig
from evaluation.scoring.on_closed_sets import ClosedSetPredictor, find_positions, score_closed_set
from evaluation.scoring.results import Subject
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.class_sets import load_benchmark
from storage.errors import InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.vocabulary import load_vocabulary

MINIATURE = load_vocabulary("miniature")
LVIS = load_vocabulary("lvis1205")
VIEW = ViewConfig(short_side=32, window=None)
CPU = torch.device("cpu")


class Painted:
    """Scores that are read off the image: output k has the value of column k."""

    def __init__(self, columns):
        self._columns = torch.tensor(columns, dtype=torch.float32)
        self.shown = []

    def scores(self, pixels, size):
        self.shown.append((tuple(pixels.shape[2:]), size))
        assert size[1] == self._columns.shape[1]
        return self._columns[:, None, :].expand(-1, *size)


def predictor(network, closed_set, classes):
    return ClosedSetPredictor(network, closed_set, load_benchmark(classes), VIEW, CPU)


def test_background_wins_where_its_output_is_the_largest():
    pair = resolve_closed_set(MINIATURE, "rocket,bus")
    network = Painted([[0.5, 0.1, 0.1, 0.4], [0.1, 0.6, 0.1, 0.4], [0.4, 0.3, 0.8, 0.2]])
    found = predictor(network, pair, "miniature").predict(np.zeros((3, 4, 3), np.uint8))
    bus, rocket = 1, 13
    # In the last column background and rocket are equal: the first wins, as in an arg-max.
    assert found.index[0].tolist() == [BACKGROUND_WORD, rocket, bus, BACKGROUND_WORD]
    assert found.best[1] == pytest.approx([0.4, 0.6, 0.8, 0.4])
    assert network.shown == [((32, 43), (3, 4))]


def test_scores_that_are_not_finite_are_no_answer():
    pair = resolve_closed_set(MINIATURE, "rocket,bus")
    network = Painted([[0.5, 0.1], [0.1, float("nan")], [0.4, 0.3]])
    with pytest.raises(InputError, match="the network's scores for an image are not finite"):
        predictor(network, pair, "miniature").predict(np.zeros((3, 2, 3), np.uint8))


def test_on_a_class_set_without_background_the_best_class_always_wins():
    voc = resolve_closed_set(LVIS, "voc20")
    columns = np.zeros((21, 2))
    columns[0] = 0.9
    columns[3, 0], columns[20, 1] = 0.05, 0.04
    found = predictor(Painted(columns), voc, "voc20").predict(np.zeros((2, 2, 3), np.uint8))
    assert found.index[0].tolist() == [2, 19]


def test_a_class_that_the_benchmark_does_not_have_is_background_there():
    mixed = resolve_closed_set(LVIS, "unicycle,airplane")
    network = Painted([[0.1, 0.1], [0.6, 0.2], [0.3, 0.7]])
    found = predictor(network, mixed, "voc21").predict(np.zeros((2, 2, 3), np.uint8))
    assert found.index[0].tolist() == [BACKGROUND_WORD, 0]


def test_only_candidates_are_predicted():
    pair = resolve_closed_set(MINIATURE, "rocket,bus")
    own = predictor(Painted([[0.1], [0.6], [0.3]]), pair, "miniature")
    image = np.zeros((1, 1, 3), np.uint8)
    assert own.predict(image, [1]).index.tolist() == [[1]]
    assert own.predict(image, [2, 3]).index.tolist() == [[BACKGROUND_WORD]]


def test_classes_are_matched_by_name_or_by_their_place_in_the_vocabulary():
    coco = resolve_closed_set(LVIS, "coco80")
    assert find_positions(coco, load_benchmark("coco_object")) == list(range(80))
    voc = find_positions(resolve_closed_set(LVIS, "voc20"), load_benchmark("coco_object"))
    names = load_benchmark("coco_object").names
    assert [names[place] for place in voc[:3]] == ["airplane", "bicycle", "bird"]


def test_a_benchmark_without_a_common_class_is_refused():
    with pytest.raises(InputError, match="has none of the 2 classes of rocket,bus"):
        find_positions(resolve_closed_set(MINIATURE, "rocket,bus"), load_benchmark("voc21"))


def test_scores_say_that_the_background_was_trained(tmp_path):
    config = DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0)
    root = write_benchmark(config, tmp_path / "drawn")
    benchmark = open_benchmark(BenchmarkConfig(root=root))
    everything = resolve_closed_set(MINIATURE, "miniature")
    background = np.zeros((15, 64))
    background[0] = 1
    scores = score_closed_set(
        ClosedSetPredictor(Painted(background), everything, benchmark.classes, VIEW, CPU),
        benchmark,
        subject=Subject(kind="closed-set", name="painted", fingerprint="0"),
        config=ScoringConfig(num_examples=1),
        out=tmp_path / "out",
    )
    truth = [sample.labels for sample in benchmark]
    share = np.mean([labels == 0 for labels in truth])
    present = len(np.unique(truth))
    assert scores.miou == pytest.approx(share / present)
    assert scores.protocol.background_rule == "none"
    assert "14 trained classes and a trained background" in scores.protocol.text
    assert scores.curve == ()
    assert len(list((tmp_path / "out").glob("scores-*.json"))) == 1
