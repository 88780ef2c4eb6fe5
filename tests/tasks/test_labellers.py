"""One network that finds and cuts: two stages, one pass, and the records of any labeller."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import transformers
import yaml

from fakes import FakeDetector, FakeLabeller, FakePainter, FakeSegmenter, FakeWriter
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.labellers import on_device
from models.labelling.sam3_config import Sam3Config
from models.profiles import load_profile
from models.protocols import CutMasks, FoundObjects, PairRequest
from models.registry import Need, Role, kind_of
from storage.errors import DataError
from storage.records import Detection, Reason, Rejected, Stage
from storage.rows import read_rows, write_rows
from storage.shards import iterate
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.detections import detect_objects
from tasks.masks import cut_masks, take_masks
from tasks.pairs import PaintedSample
from tasks.recipe import Recipe
from tasks.resident import ResidentModels
from tasks.rules import DetectionRules, MaskRules
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES, StageKeys, stages_of

VOCABULARY = load_vocabulary("miniature")
BUS, CAT, ROCKET = (VOCABULARY.by_name(name).class_id for name in ("bus", "cat", "rocket"))
ANY_AREA = MaskRules(min_area=0, max_area=1)


def pair(key, text, counterfactual="a nothing"):
    painted = FakePainter(VOCABULARY).paint([PairRequest(text, counterfactual, 1)])[0]
    return PaintedSample(key, painted.image, painted.counterfactual)


def both(own, ids, *, rules=None, masks=ANY_AREA):
    """What the two stages make of a sample, with one network and with two."""
    rules = rules or DetectionRules()
    size = own.image.shape[:2]
    results = []
    for finder in (FakeLabeller(), FakeDetector()):
        [found] = detect_objects([own], {own.key: ids}, VOCABULARY, finder, rules)
        if isinstance(found, Rejected):
            results.append(found)
        elif found.masks:
            results.append(take_masks(found, size, masks))
        else:
            results += cut_masks([own], [found], FakeSegmenter(), masks)
    return results


@pytest.mark.parametrize(
    ("text", "counterfactual", "ids", "rules", "masks", "reason"),
    [
        ("a bus and a cat", "a nothing", (CAT, BUS), {}, {}, None),
        ("a bus", "a nothing", (BUS, ROCKET), {}, {}, Reason.CLASS_NOT_FOUND),
        ("a bus", "a nothing", (BUS, ROCKET), {"require": "any"}, {}, None),
        ("a bus", "a bus", (BUS,), {}, {}, Reason.CLASS_IN_COUNTERFACTUAL),
        ("a bus", "a bus", (BUS,), {"counterfactual": "record"}, {}, None),
        ("a bus", "a nothing", (BUS,), {}, {"min_area": 0.9}, Reason.MASK_TOO_SMALL),
        ("a bus", "a nothing", (BUS,), {}, {"max_area": 0.01}, Reason.MASK_TOO_LARGE),
    ],
)
def test_the_rules_in_front_of_one_network_are_those_in_front_of_two(
    text, counterfactual, ids, rules, masks, reason
):
    one, two = both(
        pair("a", text, counterfactual),
        ids,
        rules=DetectionRules(**rules),
        masks=ANY_AREA.model_copy(update=masks),
    )
    assert one == two
    assert (one.reason if isinstance(one, Rejected) else None) is reason


class Scripted(FakeLabeller):
    """A labeller whose answers are changed."""

    def __init__(self, change):
        self._change = change

    def label(self, images, phrases):
        return [self._change(found) for found in super().label(images, phrases)]


def test_the_best_score_wins_where_masks_overlap_and_the_hidden_class_is_too_small():
    def everywhere(found):
        scores = np.array([0.4, 0.9], np.float32)[np.argsort(found.boxes.phrases)]
        masks = np.ones_like(found.cuts.masks)
        return FoundObjects(
            replace(found.boxes, scores=scores), CutMasks(masks, found.cuts.predicted_ious)
        )

    own = pair("a", "a bus and a cat")
    [found] = detect_objects(
        [own], {"a": (BUS, CAT)}, VOCABULARY, Scripted(everywhere), DetectionRules()
    )
    assert [box.class_id for box in found.boxes] == [CAT, BUS]
    dropped = take_masks(found, own.image.shape[:2], MaskRules(max_area=1))
    assert dropped.reason is Reason.MASK_TOO_SMALL
    assert f"class {BUS} covers 0.0000" in dropped.detail


def test_each_mask_stays_with_its_box_whatever_order_the_network_has():
    def turned(found):
        order = np.argsort(found.boxes.phrases)
        for turn in (order, order[::-1]):
            scores = np.array([0.5, 0.8], np.float32)
            yield FoundObjects(
                replace(
                    found.boxes,
                    xyxy=found.boxes.xyxy[turn],
                    phrases=found.boxes.phrases[turn],
                    scores=scores[found.boxes.phrases[turn]],
                ),
                CutMasks(found.cuts.masks[turn], found.cuts.predicted_ious[turn]),
            )

    own = pair("a", "a bus and a cat")
    made = []
    for place in (0, 1):
        finder = Scripted(lambda found, place=place: list(turned(found))[place])
        made += detect_objects([own], {"a": (BUS, CAT)}, VOCABULARY, finder, DetectionRules())
    assert made[0] == made[1]
    for box, instance in zip(
        made[0].boxes, take_masks(made[0], own.image.shape[:2], ANY_AREA).instances, strict=True
    ):
        left, top, right, bottom = box.xyxy
        assert instance.area <= (right - left) * (bottom - top)
        assert instance.class_id == box.class_id


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f: replace(f, boxes=replace(f.boxes, finite=False)), "boxes or scores"),
        (lambda f: replace(f, cuts=replace(f.cuts, finite=False)), "masks"),
        (
            lambda f: replace(f, cuts=replace(f.cuts, predicted_ious=np.float32([np.nan]))),
            "masks",
        ),
    ],
)
def test_values_that_are_no_numbers_are_the_labellers(change, what):
    [dropped] = detect_objects(
        [pair("a", "a bus")], {"a": (BUS,)}, VOCABULARY, Scripted(change), DetectionRules()
    )
    assert (dropped.stage, dropped.reason) == (Stage.DETECTIONS, Reason.NOT_FINITE)
    assert f"the labeller's {what} are not finite" in dropped.detail
    assert "set the labeller's dtype" in dropped.detail


def test_a_detection_without_masks_is_written_as_it_always_was():
    [two] = detect_objects(
        [pair("a", "a bus")], {"a": (BUS,)}, VOCABULARY, FakeDetector(), DetectionRules()
    )
    assert b"masks" not in write_rows([two])
    [one] = detect_objects(
        [pair("a", "a bus")], {"a": (BUS,)}, VOCABULARY, FakeLabeller(), DetectionRules()
    )
    assert read_rows(write_rows([one])) == [one]
    assert one.model_copy(update={"masks": ()}) == two
    with pytest.raises(DataError, match="a has boxes and no masks, expected both"):
        take_masks(two, (32, 32), MaskRules())


class Counting(ResidentModels):
    """Fakes for all models; counts what each is asked for."""

    def __init__(self):
        super().__init__()
        self.labelled = Counter()
        self.fakes = {
            Role.WRITER: FakeWriter(),
            Role.PAINTER: FakePainter(VOCABULARY),
            Role.LABELLER: FakeLabeller(),
            Role.DETECTOR: FakeDetector(),
            Role.SEGMENTER: FakeSegmenter(),
        }

    def model(self, config, objects):
        self.labelled[kind_of(config).role] += 1
        return self.fakes[kind_of(config).role]


@pytest.fixture
def profile(tmp_path):
    """A profile with one network for both, whose files nobody reads, and the two it stands for."""
    folder = tmp_path / "sam3"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "sam3"}')
    for name in ("model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["labeller"] = {"kind": "sam3", "model": str(folder)}
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


def generated(root, profile, **changes):
    """The tar of a dataset that fakes made, and which models worked."""
    settings = {"samples": 12, "samples_per_shard": 12, "texts_per_class_set": 2, "batch_size": 4}
    settings |= {"root": str(root), "profile": profile}
    models = Counting()
    with prepare(GenerationParameters(**settings | changes), models=models) as run:
        [shard] = run.planned
        for stage in stages_of(run.recipe):
            make_stage(STAGES[stage], run.work(shard))
    [tar] = (root / "data").glob("*.tar")
    return list(iterate(tar)), models.labelled


@pytest.mark.skipif(
    not hasattr(transformers, "Sam3Model"), reason="the installed transformers has no SAM 3"
)
def test_both_stages_run_on_one_pass_and_the_samples_are_those_of_two_networks(profile, tmp_path):
    one, asked = generated(tmp_path / "one", profile)
    two, of_two = generated(tmp_path / "two", "miniature")
    assert asked[Role.LABELLER] > 0
    assert not {Role.DETECTOR, Role.SEGMENTER} & asked.keys()
    assert of_two[Role.SEGMENTER] > 0
    assert len(one) == len(two) > 6
    for mine, other in zip(one, two, strict=True):
        assert (mine.index, mine.class_ids) == (other.index, other.class_ids)
        assert mine.instances == other.instances
        assert mine.mask_bytes == other.mask_bytes
    rows = Store.open(tmp_path / "one").commits(Stage.DETECTIONS)
    assert all(
        len(row.masks) == len(row.boxes)
        for commit in rows
        for row in Store.open(tmp_path / "one").rows(commit)
        if isinstance(row, Detection)
    )


def test_masks_take_no_device_and_other_mask_rules_run_the_network_on_nothing(profile):
    recipe = Recipe(profile=load_profile(profile))
    assert STAGES[Stage.DETECTIONS].need(recipe) is Need.DEVICE
    assert STAGES[Stage.MASKS].need(recipe) is Need.DISK
    assert STAGES[Stage.MASKS].device(recipe) is None
    other = recipe.model_copy(update={"masks": MaskRules(min_area=0.5)})
    before, after = (StageKeys(each).describe() for each in (recipe, other))
    assert before[Stage.DETECTIONS] == after[Stage.DETECTIONS]
    assert before[Stage.MASKS] != after[Stage.MASKS]
    assert "labeller" in before[Stage.DETECTIONS]
    assert before[Stage.MASKS].keys().isdisjoint({"labeller", "segmenter"})


def test_a_labeller_moves_to_a_device_and_stays_what_it_is(profile):
    labeller = load_profile(profile).labeller
    assert isinstance(labeller, Sam3Config)
    moved = on_device(labeller, {"device": "cuda:1", "batch_size": 3})
    assert (moved.device, moved.batch_size) == ("cuda:1", 3)
    assert moved.identity() == labeller.identity()
    assert list(load_profile(profile).models()) == [Role.WRITER, Role.PAINTER, Role.LABELLER]
