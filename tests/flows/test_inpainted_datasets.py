"""A dataset whose counterfactuals are painted over: all that looks at datasets knows its stages."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from fakes import FakeDetector, FakeInpainter, FakePainter, FakeSegmenter, FakeWriter
from flows.dataset_care import describe_retry, wanted_samples
from flows.dataset_status import describe_status, print_status
from flows.generation_parameters import GenerationParameters
from flows.generation_plan import describe_plan
from flows.generation_run import prepare
from flows.kept_parameters import kept_parameters
from flows.preview_pictures import PreviewPainter
from models.registry import Role, kind_of
from storage.card import render_card
from storage.checks import DamagedError
from storage.codecs import decode_image, decode_label_map
from storage.errors import InputError
from storage.garbage import find_garbage, free_garbage
from storage.plan import plan_samples
from storage.records import Prompt, Reason, Rejected, Stage
from storage.shards import iterate
from storage.slices import resolve_slice
from storage.store import Store
from storage.verification import verify_bytes
from storage.vocabulary import load_vocabulary
from tasks.regions import soft_region
from tasks.repacking import make_way, other_packing
from tasks.resident import ResidentModels
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES

SAMPLES = 24
OWN = [stage for stage in Stage if stage is not Stage.OTHERS]


class Blind(FakeInpainter):
    """Leaves every fourth picture as it is."""

    def __init__(self):
        self.asked = Counter()

    def inpaint(self, requests):
        self.asked.update(request.seed for request in requests)
        painted = super().inpaint(requests)
        for request, picture in zip(requests, painted, strict=True):
            if request.seed % 4 == 0:
                picture.image[:] = request.image
        return painted


class Fakes(ResidentModels):
    """Fakes for all models."""

    def __init__(self):
        super().__init__()
        self.inpainter = Blind()
        self.painter = FakePainter(load_vocabulary("miniature"))
        self.fakes = {
            Role.WRITER: FakeWriter(),
            Role.PAINTER: self.painter,
            Role.DETECTOR: FakeDetector(),
            Role.SEGMENTER: FakeSegmenter(),
            Role.INPAINTER: self.inpainter,
        }

    def model(self, config, objects):
        return self.fakes[kind_of(config).role]


def parameters(root, **changes):
    document = {
        "root": str(root),
        "samples": SAMPLES,
        "samples_per_shard": 12,
        "texts_per_class_set": 4,
        "batch_size": 4,
        "min_yield": 0.1,
        "masks": {"min_area": 0.0, "max_area": 1.0},
        "twins": {"way": "inpaint", "grow": 0.1},
    }
    return GenerationParameters.model_validate(document | changes)


def make(root, models, **changes):
    """Run all stages of all shards that are left."""
    with prepare(parameters(root, **changes), models) as run:
        run.keep_parameters()
        for shard in run.todo:
            work = run.work(shard)
            for stage in run.keys.stages:
                make_stage(STAGES[stage], work)
        run.bring_card_up_to_date()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "d"
    make(root, Fakes())
    return root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "d")


def samples(root):
    return [each for shard in Store.open(root).shards() for each in iterate(shard.path)]


def rows(root):
    store = Store.open(root)
    return [row for shard in store.shards() for row in store.manifest(shard.commit)]


def test_twins_are_their_images_outside_the_objects_and_show_no_class(root):
    written = samples(root)
    assert written
    for sample in written:
        image, twin = map(decode_image, (sample.image_bytes, sample.counterfactual_bytes))
        objects = decode_label_map(sample.mask_bytes) != 0
        far = soft_region(objects, 3, 1) == 0
        assert np.array_equal(image[far], twin[far])
        assert not np.array_equal(image, twin)
        assert sample.counterfactual_boxes == ()


def test_every_planned_sample_has_a_fate_and_seen_twins_are_dropped_by_the_check(root):
    fates = Counter((row.status, row.stage, row.reason) for row in rows(root))
    seen = fates["rejected", "checks", Reason.CLASS_IN_COUNTERFACTUAL]
    assert seen == sum(row.seed % 4 == 0 for row in rows(root))
    assert 0 < seen < SAMPLES
    assert fates["written", "", ""] + sum(n for (_, stage, _), n in fates.items() if stage) == 24
    assert verify_bytes(Store.open(root), 14) == []


def test_status_plan_and_card_know_the_stages(root):
    status = describe_status(str(root))
    assert list(status["slices"][0]["under_way"]) == [s.value for s in OWN]
    assert {"twins", "checks"} <= status["slices"][0]["seconds"].keys()
    print_status(status, Console(quiet=True))
    plan = describe_plan(parameters(root))
    assert [(each.stage, each.committed) for each in plan.stages] == [(s, 2) for s in OWN]
    more = describe_plan(parameters(root, samples=48))
    measured = {each.stage for each in more.cost.stages}
    assert measured == {stage for stage, each in STAGES.items() if each.role and stage in OWN[1:]}
    assert "twins:" in render_card(Store.open(root))


def test_a_new_dataset_is_planned_with_the_stages_of_its_recipe(tmp_path):
    plan = describe_plan(parameters(tmp_path / "new"))
    assert [each.stage for each in plan.stages] == OWN
    usual = describe_plan(parameters(tmp_path / "new", twins={}))
    assert [each.stage for each in usual.stages] == [s for s in Stage if not s.is_optional]


def test_another_way_or_region_is_another_dataset(root):
    for changes, words in (
        ({"twins": {}}, "twins"),
        ({"twins": {"way": "inpaint", "grow": 0.2}}, "grow: 0.1 -> 0.2"),
    ):
        with pytest.raises(InputError, match="made with other settings") as refused:
            describe_plan(parameters(root, **changes))
        assert words in str(refused.value)


def test_a_dataset_of_pairs_is_not_gone_on_with_by_painting_over(tmp_path):
    make(tmp_path / "d", Fakes(), twins={})
    with pytest.raises(InputError, match="made with other settings"):
        describe_plan(parameters(tmp_path / "d"))


def test_what_was_dropped_by_the_check_can_be_tried_again_and_nothing_is_painted_twice(root):
    models = Fakes()
    wanted = wanted_samples("", None, "checks", None, degraded=False)
    described = describe_retry(Store.open(root), wanted, dry_run=False)
    assert described["samples"] == sum(row.seed % 4 == 0 for row in rows_of_made(root, described))
    before = {each.key for each in samples(root)}
    make(root, models)
    assert not models.inpainter.asked
    assert before <= {each.key for each in samples(root)}
    assert verify_bytes(Store.open(root), 14) == []


def rows_of_made(root, described):
    """The samples that were opened again, by their seeds."""
    own = parameters(root)
    classes = Store.open(root).specification.named(
        resolve_slice(load_vocabulary(own.spec.vocabulary), own.slice)
    )
    keys = {each["key"] for shard in described["shards"] for each in shard["samples"]}
    return [each for each in plan_samples(own.spec, classes, 0, SAMPLES) if each.key in keys]


def test_what_can_be_freed_are_images_and_twins(root):
    make(root, Fakes(), samples=36)
    store = Store.open(root)
    garbage = find_garbage(store)
    assert {output.stage for output in garbage.outputs} == {Stage.PAIRS, Stage.TWINS}
    assert garbage.samples == SAMPLES
    assert not find_garbage(store).loose
    free_garbage(store, garbage)
    assert verify_bytes(Store.open(root), 14) == []
    assert [shard.samples for shard in Store.open(root).shards()]


def test_the_parameters_are_kept_for_the_next_run(root):
    [slice_id] = {shard.commit.slice_id for shard in Store.open(root).shards()}
    kept = kept_parameters(Store.open(root), str(root), slice_id)
    assert kept is not None
    assert kept.twins == parameters(root).twins


def test_another_size_of_shards_paints_nothing_again(root):
    models = Fakes()
    changed = parameters(root, samples_per_shard=8)
    with prepare(changed, models) as run:
        commits = run.store.log.shards().values()
        replaced = other_packing(run.store, commits, run.planned)
        make_way([(run.work(held), commit) for commit, held in replaced])
    make(root, models, samples_per_shard=8)
    assert not models.inpainter.asked
    assert len(rows(root)) == SAMPLES


def test_a_preview_shows_what_the_stages_would_make(root):
    store = Store.open(root)
    prompts = [
        row
        for piece in store.commits(Stage.PROMPTS)
        for row in store.rows(piece)
        if isinstance(row, Prompt)
    ]
    own = parameters(root)
    classes = store.specification.named(
        resolve_slice(load_vocabulary(own.spec.vocabulary), own.slice)
    )
    planned = {each.key: each for each in plan_samples(own.spec, classes, 0, SAMPLES)}
    painter = PreviewPainter(own.recipe, Fakes(), store.objects)
    shown = painter.paint([each for each in prompts if each.key in planned], planned)
    fates = {row.key: row for row in rows(root)}
    for key, result in shown.items():
        if isinstance(result, Rejected):
            assert (fates[key].reason, fates[key].stage) == (result.reason, result.stage)
        else:
            assert fates[key].status == "written"
            assert result.painted.counterfactual is not None
    assert {row.stage for row in fates.values() if row.key in shown} == {"", "checks"}
    written = {sample.key: decode_image(sample.image_bytes) for sample in samples(root)}
    assert written.keys() <= shown.keys()
    for key, image in written.items():
        assert np.array_equal(shown[key].painted.image, image)


def pieces(root, stage):
    return Store.open(root).commits(stage)


def published(root):
    return {path.name: path.read_bytes() for path in (root / "data").iterdir()}


@pytest.mark.parametrize("is_named", [True, False], ids=["verified first", "met by the run"])
@pytest.mark.parametrize("stage", [Stage.TWINS, Stage.CHECKS])
def test_a_damaged_piece_of_its_stages_is_found_put_aside_and_made_again_alone(
    root, type_line, is_named, stage
):
    before, victim = published(root), pieces(root, stage)[0]
    path = root / victim.object.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    code, said = type_line("verify", root, "--deep")
    assert code == 3
    assert f".engine/commits/{stage}/" in said
    assert f"{victim.object.path}: its sha256 is not" in said
    if is_named:
        assert type_line("verify", root, "--deep", "--repair")[0] == 3
    models = Fakes()
    tars = list((root / "data").glob("*.tar"))
    for tar in tars:  # what is packed is not made again for its pieces
        tar.unlink()
    make_through_damage(root, models)
    own = victim.verdicts.keys() if stage is Stage.TWINS else set()
    assert set(models.inpainter.asked) == {each.seed for each in planned(root) if each.key in own}
    assert published(root) == before
    listed = json.loads(type_line("quarantine", "list", root, "--json")[1])
    aside = [path for batch in listed["batches"] for path in batch["files"]]
    assert victim.object.path in aside
    assert type_line("verify", root, "--deep")[0] == 0


def make_through_damage(root, models):
    """Make what is left, as the flow does: what turns out to be damaged is put aside on the way."""
    for _ in range(3):
        try:
            make(root, models)
        except DamagedError as error:
            Store.open(root).withdraw(error.commit, str(error))
        else:
            return


def planned(root):
    own = parameters(root)
    classes = Store.open(root).specification.named(
        resolve_slice(load_vocabulary(own.spec.vocabulary), own.slice)
    )
    return plan_samples(own.spec, classes, 0, SAMPLES)


def test_the_commands_that_look_after_a_dataset_name_its_stages_and_its_way(root, type_line):
    dropped = sum(row.stage == "checks" for row in rows(root))
    code, said = type_line("retry", root, "--stage", "checks", "--json")
    assert code == 0
    described = json.loads(said)
    assert described["samples"] == dropped
    [command] = described["next"]
    assert '"way": "inpaint"' in command
    [about] = json.loads(type_line("status", root, "--json")[1])["slices"]
    assert about["under_way"]["twins"] - about["under_way"]["checks"] == dropped
    make(root, Fakes(), samples=36)
    code, said = type_line("gc", root, "--yes", "--json")
    assert (code, json.loads(said)["freed"]["pieces"]) == (0, json.loads(said)["pieces"])
    assert {each.stage for each in find_garbage(Store.open(root)).outputs} == set()
    code, said = type_line("retry", root, "--stage", "checks")
    assert code == 2
    assert "were freed" in said


def test_a_freed_shard_is_made_again_with_its_twins_as_the_message_says(root, type_line, tmp_path):
    before = published(root)
    make(root, Fakes(), samples=36)
    assert type_line("gc", root, "--yes")[0] == 0
    [name] = {tar for tar in before if tar.endswith("000000.tar")}
    (root / "data" / name).rename(tmp_path / name)
    assert type_line("verify", root, "--repair")[0] == 3
    models = Fakes()
    make(root, models, samples=36)
    assert set(models.inpainter.asked) == {each.seed for each in planned(root)[:12]}
    assert before.items() <= published(root).items()
    assert type_line("verify", root, "--deep")[0] == 0
