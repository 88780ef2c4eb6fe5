"""Profiles name all models of a run."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml

from models.labellers import parts_of
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.painting.painters import DiffusionPairPainter
from models.profiles import Profile, load_profile, profile_names
from models.protocols import PairRequest
from models.registry import Role
from models.weights import resolve_weights
from storage.errors import InputError
from storage.vocabulary import load_vocabulary


def write(path, **changes):
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    path.write_text(yaml.safe_dump(document | changes))
    return str(path)


def test_the_shipped_profiles_are_the_miniature_and_the_papers_with_other_painters_and_labellers():
    assert profile_names() == ["flux", "miniature", "sd15", "sd15-float32", "sd15-sam3", "sdxl"]


@pytest.mark.parametrize("name", profile_names())
def test_a_shipped_profile_is_whole(name):
    profile = load_profile(name)
    assert profile.name == name
    assert len(load_vocabulary(profile.vocabulary)) > 0
    for config in (profile.painter, *parts_of(profile.labeller).values()):
        assert config.model.startswith("weights:") or len(config.revision) == 40


@pytest.mark.parametrize(("name", "dtype"), [("sd15", "float16"), ("sd15-float32", "float32")])
def test_sd15_has_the_models_and_settings_of_the_paper(name, dtype):
    profile = load_profile(name)
    assert profile.labeller.detector.dtype == profile.labeller.segmenter.dtype == dtype
    assert profile.vocabulary == "lvis1205"
    assert profile.writer.kind == "chat"
    assert profile.writer.model == "gpt-3.5-turbo"
    painter = profile.painter
    assert painter.model == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert (painter.steps, painter.guidance) == (20, 7.5)
    assert (painter.width, painter.height) == (512, 512)
    assert (painter.scheduler, painter.shared_latent) == (None, True)
    assert profile.labeller.detector.model == "IDEA-Research/grounding-dino-tiny"
    assert (profile.labeller.detector.box_threshold, profile.labeller.detector.text_threshold) == (
        0.30,
        0.25,
    )
    assert profile.labeller.segmenter.model == "facebook/sam-vit-huge"
    assert not profile.labeller.segmenter.multimask
    assert profile.student.clip == "openai/clip-vit-base-patch16"


def test_sd15_is_sd15_float32_that_labels_in_half_precision():
    half, whole = load_profile("sd15"), load_profile("sd15-float32")
    parts = {
        name: getattr(half.labeller, name).model_copy(update={"dtype": "float32"})
        for name in ("detector", "segmenter")
    }
    labeller = half.labeller.model_copy(update=parts)
    assert half != whole
    assert half.model_copy(update={"name": whole.name, "labeller": labeller}) == whole


def test_sd15_sam3_is_sd15_with_one_network_as_its_labeller():
    profile, paper = load_profile("sd15-sam3"), load_profile("sd15")
    same = {"name": "sd15", "labeller": paper.labeller}
    assert profile.model_copy(update=same) == paper
    assert profile.labeller.kind == "sam3"
    assert profile.labeller.model == "facebook/sam3"
    assert profile.labeller.score_threshold == profile.labeller.mask_threshold == 0.5


@pytest.mark.parametrize("name", profile_names())
def test_the_table_of_the_shipped_profiles_has_what_they_pin(name):
    page = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text(encoding="utf-8")
    table = page.split("## What the shipped profiles load")[1].split("\n## ")[0]
    for config in load_profile(name).models().values():
        if getattr(config, "revision", None):
            [row] = [line for line in table.splitlines() if f"| `{config.model}` |" in line]
            assert f"`{config.revision[:12]}`" in row


@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_another_painters_profile_differs_from_sd15_float32_by_the_painter_alone(name):
    profile, paper = load_profile(name), load_profile("sd15-float32")
    assert profile.painter.model != paper.painter.model
    changed = {"name": paper.name, "painter": paper.painter}
    assert profile.model_copy(update=changed) == paper


@pytest.mark.parametrize(
    ("name", "pipeline"), [("flux", "FluxPipeline"), ("sdxl", "StableDiffusionXLPipeline")]
)
def test_another_painters_profile_paints_from_a_folder_in_the_layout_of_the_hub(
    saved_family, tmp_path, monkeypatch, name, pipeline
):
    painter = load_profile(name).painter
    (tmp_path / painter.model).parent.mkdir()
    (tmp_path / painter.model).symlink_to(saved_family(pipeline))
    monkeypatch.setenv("MAGICSEG_WEIGHTS", str(tmp_path))
    small = {"device": "cpu", "steps": 1, "height": 32, "width": 32, "batch_size": 1}
    settings = painter.model_copy(update=small | {"dtype": "bfloat16"})
    assert DiffusionPairPainter(settings).paint([PairRequest("a", "b", 0)])[0].image.std() > 1


def test_sd15_resolves_to_the_hub_at_fixed_commits(monkeypatch):
    monkeypatch.delenv("MAGICSEG_WEIGHTS", raising=False)
    profile = load_profile("sd15")
    for config in (profile.painter, *parts_of(profile.labeller).values()):
        weights = resolve_weights(config.model, config.revision)
        assert (weights.source, weights.revision) == (config.model, config.revision)


@pytest.mark.parametrize(
    ("kind", "role"),
    [(DiffusionPairPainter, "painter"), (GroundingDino, "detector"), (Sam, "segmenter")],
)
def test_sd15_without_weights_and_network_says_what_to_download(kind, role, tmp_path, monkeypatch):
    monkeypatch.delenv("MAGICSEG_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    config = load_profile("sd15").models()[Role(role)]
    command = f"hf download {config.model} --revision {config.revision}"
    with pytest.raises(InputError, match=command):
        kind(config.model_copy(update={"device": "cpu"}))


def test_sd15_runs_from_folders_in_the_layout_of_the_hub(
    build_pipeline, build_detector, build_sam, tmp_path, monkeypatch
):
    """The folders are tiny and their weights random; ids, code and precision are those of sd15."""
    profile = load_profile("sd15")
    build_pipeline(tmp_path / profile.painter.model, safety_threshold=2.0)
    build_detector(tmp_path / profile.labeller.detector.model)
    build_sam(tmp_path / profile.labeller.segmenter.model)
    monkeypatch.setenv("MAGICSEG_WEIGHTS", str(tmp_path))
    small = {"device": "cpu", "steps": 2, "height": 64, "width": 64, "batch_size": 1}
    painter = DiffusionPairPainter(profile.painter.model_copy(update=small))
    pair = painter.paint([PairRequest("a bus", "a nothing", 0)])[0]
    loose = {"device": "cpu", "box_threshold": 0.0, "text_threshold": 0.0}
    detector = GroundingDino(profile.labeller.detector.model_copy(update=loose))
    found = detector.detect([pair.image], [("bus",)])[0]
    segmenter = Sam(profile.labeller.segmenter.model_copy(update={"device": "cpu"}))
    cut = segmenter.segment([pair.image], [found.xyxy])[0]
    assert cut.masks.shape == (len(found.scores), 64, 64)
    assert not pair.unsafe


def test_a_file_of_ones_own_is_a_profile(tmp_path):
    path = write(tmp_path / "mine.yaml", image_format="jpg")
    profile = load_profile(path)
    assert profile == load_profile("miniature").model_copy(
        update={"name": "mine", "image_format": "jpg"}
    )
    assert isinstance(profile, Profile)


def test_an_unknown_profile_is_refused_with_those_that_are_known():
    with pytest.raises(InputError) as caught:
        load_profile("sd-15")
    assert str(caught.value) == (
        f"profile 'sd-15' is unknown; did you mean sd15? known: {', '.join(profile_names())}, "
        "or the path of a .yaml file"
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        load_profile(str(tmp_path / "none.yaml"))


def test_a_misspelt_key_is_named_with_its_neighbours(tmp_path):
    painter = load_profile("miniature").painter.model_dump()
    painter["guidence"] = painter.pop("guidance")
    path = write(tmp_path / "mine.yaml", painter=painter)
    with pytest.raises(InputError, match=r"'painter\.guidence'; did you mean guidance\?"):
        load_profile(path)


def test_a_value_that_does_not_fit_is_named(tmp_path):
    path = write(tmp_path / "mine.yaml", writer={"kind": "chat", "model": "m", "concurrency": 0})
    with pytest.raises(InputError, match=r"'writer\.concurrency' is 0"):
        load_profile(path)


def test_a_profile_that_names_a_detector_and_a_segmenter_means_a_grounded_labeller(tmp_path):
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    labeller = document.pop("labeller")
    path = tmp_path / "flat.yaml"
    path.write_text(yaml.safe_dump(document | {k: labeller[k] for k in ("detector", "segmenter")}))
    flat = load_profile(str(path))
    assert flat == load_profile("miniature").model_copy(update={"name": "flat"})
    assert list(flat.models()) == [Role.WRITER, Role.PAINTER, Role.DETECTOR, Role.SEGMENTER]

    del document["painter"]
    path.write_text(yaml.safe_dump(document | {"detector": labeller["detector"]}))
    with pytest.raises(InputError, match=r"labeller\.segmenter"):
        load_profile(str(path))


def test_all_networks_of_a_profile_move_to_another_device():
    moved = load_profile("miniature").on_device("cuda:1", 3)
    for role, config in moved.models().items():
        assert role is Role.WRITER or (config.device, config.batch_size) == ("cuda:1", 3)
