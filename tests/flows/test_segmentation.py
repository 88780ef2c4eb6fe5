"""`magicseg segment`: what words find in pictures of every kind, and what is refused."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.on_labels import score_student
from evaluation.scoring.results import Subject
from evaluation.segment import Student, scoring_settings
from hostile import png_of
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.miniature.world import render, sample_scene
from models.profiles import load_profile
from models.student.text_embeddings import TextEncoder
from models.student.trained import load_student
from models.student.zegclip import ZegClip
from released import released_tensors
from runs import write_run
from storage.codecs import decode_label_map, decode_rle, encode_image
from storage.documents import merge, validate
from storage.locks import hold_folder
from storage.photographs import read_photograph

EXIF_TURNED = 6  # shown by a quarter turn


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("trained"))


def drawn(seed=0):
    return render(sample_scene(np.random.default_rng(seed), class_ids=[seed % 14]))


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(encode_image(drawn(), "png"))
    return file


@pytest.fixture
def segment(type_line, trained, tmp_path):
    """Type the command with a run and a folder for the results: exit code, and what it said."""

    def run(*words, out=tmp_path / "out"):
        code, said = type_line("segment", *words, "--run", trained, "--out", out)
        assert "Traceback" not in said
        assert "fault of the engine" not in said
        return code, " ".join(said.split())

    return run


def records(out):
    return [
        json.loads(file.read_text()) for file in sorted(out.glob("*.json")) if file.stem != "asked"
    ]


def labels_of(out):
    """The only label map of a folder."""
    [file] = out.glob("*.labels.png")
    return decode_label_map(file.read_bytes())


def opened(file):
    return np.asarray(Image.open(io.BytesIO(file.read_bytes())))


def stamps(out):
    return {file.name: file.stat().st_mtime_ns for file in out.glob("[!.]*")}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"background": "softmax", "softmax_scale": 10, "overlap": "logits"},
        {"background": "words", "threshold": 0.1},
        {"background": "groupvit", "short_side": 64, "window": 48, "stride": 32},
        {"background": "constant", "short_side": 64, "window": 48, "stride": 32},
    ],
    ids=lambda changed: changed.get("background", "the profile's"),
)
def test_the_label_map_is_what_evaluate_predicts(segment, trained, tmp_path, changed):
    write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=4, num_test=0), tmp_path / "b")
    benchmark = open_benchmark(BenchmarkConfig(name="miniature", root=tmp_path / "b"))
    student, about = load_student(trained)
    scores = score_student(
        student,
        TextEncoder.load(about["config"]["student"]["clip"]),
        benchmark,
        subject=Subject(kind="student", name="student", fingerprint="f"),
        config=validate(
            ScoringConfig,
            merge(load_profile("miniature").scoring, {"inference": changed}),
            "scoring settings",
        ),
        out=tmp_path / "scores",
    )
    assert len(scores.examples) == 4
    words = [word for own in benchmark.classes.phrases for word in ("--word", own[0])]
    settings = [
        part for name, value in changed.items() for part in ("--set", f"inference.{name}={value}")
    ]
    assert segment(tmp_path / "b" / "JPEGImages", *words, *settings, "--heat")[0] == 0
    for example in scores.examples:
        [mine] = (tmp_path / "out").glob(f"{example.key}-*.labels.png")
        assert mine.read_bytes() == (tmp_path / "scores" / example.prediction).read_bytes()


def test_a_picture_gets_a_label_map_an_overlay_and_a_record(segment, photo, tmp_path):
    code, said = segment(photo, "--word", "cat", "--word", "red boat", "--heat")
    assert code == 0
    out = tmp_path / "out"
    [record] = records(out)
    assert str(photo) in said
    labels = labels_of(out)
    assert (record["height"], record["width"]) == labels.shape == drawn().shape[:2]
    assert (record["background"], record["threshold"]) == ("raw", 0.35)
    assert record["background_area"] == (labels == 0).sum()
    for label, (word, each) in enumerate(
        zip(["cat", "red boat"], record["words"], strict=True), start=1
    ):
        mask = labels == label
        assert (each["word"], each["label"], each["area"]) == (word, label, mask.sum())
        assert each["share"] == pytest.approx(mask.mean())
        assert 0 <= each["best_score"] <= 1
        [heat] = out.glob(f"*.heat-{label:03}-*.png")
        levels = opened(heat)
        assert levels.shape == labels.shape
        assert levels.max() == round(255 * each["best_score"])
        if mask.any():
            coded = each["segmentation"]
            found = decode_rle(coded["counts"], *coded["size"])
            np.testing.assert_array_equal(found, mask)
            assert 0.35 <= each["mean_score"] <= each["best_score"]
        else:
            assert (each["mean_score"], each["segmentation"]) == (None, None)
    assert set(record["files"]) == {
        file.name for file in out.glob("*.png")
    }  # and each is as the record says, else the next run would make it again
    [overlay] = out.glob("*.overlay.png")
    assert min(opened(overlay).shape[:2]) >= 256


def test_what_is_there_is_found_and_what_was_spoilt_is_made_again(segment, photo, tmp_path):
    assert segment(photo, "--word", "cat")[0] == 0
    before = stamps(tmp_path / "out")
    code, said = segment(photo, "--word", "cat")
    assert (code, "was there" in said) == (0, True)
    assert stamps(tmp_path / "out") == before
    spoilt = next((tmp_path / "out").glob("*.labels.png"))
    whole = spoilt.read_bytes()
    spoilt.write_bytes(whole[:-1])
    assert "was there" not in segment(photo, "--word", "cat")[1]
    assert spoilt.read_bytes() == whole
    record = next(file for file in (tmp_path / "out").glob("photo*.json"))
    record.write_text(record.read_text()[:99])
    assert segment(photo, "--word", "cat")[0] == 0
    assert segment(photo, "--word", "cat", "--heat")[0] == 0  # the same question, one file more
    assert len(list((tmp_path / "out").glob("*.heat-*"))) == 1
    assert "was there" in segment(photo, "--word", "cat")[1]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (["--word", "dog"], "words"),
        (["--word", "cat", "--word", "dog"], "words"),
        (["--word", "cat", "--set", "inference.threshold=0.5"], "rule"),
        (["--word", "cat", "--set", "inference.background=softmax"], "rule"),
    ],
)
def test_another_question_is_refused_with_a_way_out(segment, photo, tmp_path, other, named):
    assert segment(photo, "--word", "cat")[0] == 0
    before = stamps(tmp_path / "out")
    code, said = segment(photo, *other)
    assert code == 2
    assert f"other settings ({named}): choose another folder with --out" in said
    assert stamps(tmp_path / "out") == before


def test_another_run_is_another_question(segment, photo, tmp_path, trained, type_line):
    from safetensors.torch import load_file

    from training.checkpoints import Checkpoint, save_checkpoint

    assert segment(photo, "--word", "cat")[0] == 0
    [checkpoint] = (trained / "checkpoints").glob("*")
    weights = load_file(next(checkpoint.glob("*.safetensors")))
    meta = json.loads(next(checkpoint.glob("*.json")).read_text())["meta"]
    later = tmp_path / "later"
    save_checkpoint(later / "checkpoints", Checkpoint(7, meta, weights, None, {}), keep=1)
    line = ("segment", photo, "--word", "cat", "--out", tmp_path / "out", "--run", later)
    code, said = type_line(*line)
    assert code == 2
    assert "other settings (student)" in " ".join(said.split())


def test_settings_by_hand_change_the_rule(segment, photo, tmp_path):
    settings = ["--set", "inference.threshold=0", "--set", "inference.background=softmax"]
    assert segment(photo, "--word", "cat", "--word", "dog", *settings)[0] == 0
    assert labels_of(tmp_path / "out").min() == 1
    [record] = records(tmp_path / "out")
    assert (record["background"], record["threshold"]) == ("softmax", 0)


def test_pictures_of_the_same_name_do_not_meet(segment, tmp_path):
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.PNG").write_bytes(encode_image(drawn(number), "png"))
    (tmp_path / "a" / "notes.txt").write_text("no picture\n")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    shutil.copy(tmp_path / "a" / "x.PNG", tmp_path / "a" / "same.png")
    line = (tmp_path / "a", tmp_path / "b" / "x.PNG", tmp_path / "?" / "x.*")
    code, said = segment(*line, "--word", "cat")
    assert (code, said.count("x.PNG:")) == (0, 2)  # the glob names no other one
    names = {file.name.rsplit("-", 1)[0] for file in (tmp_path / "out").glob("*.labels.png")}
    assert names == {"x", "same"}
    assert len(records(tmp_path / "out")) == 3


def saved(image, **how):
    buffer = io.BytesIO()
    image.save(buffer, **how)
    return buffer.getvalue()


def turned_jpeg():
    exif = Image.Exif()
    exif[0x0112] = EXIF_TURNED
    return saved(Image.new("RGB", (30, 20), "red"), format="JPEG", exif=exif)


KINDS = {
    "a single pixel": (lambda: saved(Image.new("RGB", (1, 1)), format="PNG"), (1, 1)),
    "a strip": (lambda: saved(Image.new("RGB", (333, 17)), format="PNG"), (17, 333)),
    "a pillar": (lambda: saved(Image.new("RGB", (17, 333)), format="JPEG"), (333, 17)),
    "for print": (lambda: saved(Image.new("CMYK", (40, 30)), format="JPEG"), (30, 40)),
    "turned": (turned_jpeg, (30, 20)),
    "grey": (lambda: saved(Image.new("L", (40, 30)), format="JPEG"), (30, 40)),
    "of 16 bits": (lambda: saved(Image.new("I;16", (40, 30)), format="PNG"), (30, 40)),
    "a palette": (lambda: saved(Image.new("P", (40, 30)), format="PNG"), (30, 40)),
    "transparent": (lambda: saved(Image.new("RGBA", (40, 30)), format="PNG"), (30, 40)),
    "grey with alpha": (lambda: saved(Image.new("LA", (40, 30)), format="PNG"), (30, 40)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_any_kind_is_segmented_upright(segment, tmp_path, kind):
    make, shape = KINDS[kind]
    (tmp_path / "x.jpg").write_bytes(make())  # what it is, is read from its bytes
    code, said = segment(tmp_path / "x.jpg", "--word", "cat", "--heat")
    assert code == 0, said
    out = tmp_path / "out"
    assert labels_of(out).shape == shape == read_photograph(tmp_path / "x.jpg").shape[:2]
    [heat] = out.glob("*.heat-*")
    assert opened(heat).shape == shape


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"hello, I am a text\n", "expected a JPEG or PNG signature"),
        (encode_image(drawn(), "png")[:300], "is not a readable image"),
        (saved(Image.new("RGB", (9, 9)), format="GIF"), "which is GIF"),
        (saved(Image.new("RGB", (9, 9)), format="WEBP"), "which is WebP"),
        (
            saved(
                Image.new("RGB", (9, 9)),
                format="GIF",
                save_all=True,
                append_images=[Image.new("RGB", (9, 9), "red")],
            ),
            "which is GIF",
        ),
    ],
    ids=["empty", "text", "cut", "gif", "webp", "animated gif"],
)
def test_what_is_no_picture_does_not_stop_the_others(segment, photo, tmp_path, data, reason):
    (tmp_path / "a-wrong.png").write_bytes(data)
    code, said = segment(tmp_path / "a-wrong.png", photo, "--word", "cat")
    assert code == 3
    assert "1 of 2 pictures have no result" in said
    assert f"{tmp_path / 'a-wrong.png'}" in said
    assert reason in said
    assert len(records(tmp_path / "out")) == 1
    (tmp_path / "a-wrong.png").write_bytes(encode_image(drawn(3), "png"))
    assert segment(tmp_path / "a-wrong.png", photo, "--word", "cat")[0] == 0
    assert len(records(tmp_path / "out")) == 2


def test_a_picture_with_too_many_pixels_is_told(segment, tmp_path):
    (tmp_path / "x.png").write_bytes(png_of(60_000, 60_000))
    code, said = segment(tmp_path / "x.png", "--word", "cat")
    assert (code, "60000 x 60000 pixels" in said) == (3, True)


def test_a_line_of_pixels_is_too_thin_for_windows(segment, tmp_path):
    Image.new("RGB", (40_000, 1)).save(tmp_path / "line.png")
    line = (tmp_path / "line.png", "--word", "cat")
    code, said = segment(*line, "--set", "inference.window=512")
    assert (code, "too thin for windows" in said) == (3, True)
    assert segment(*line, out=tmp_path / "whole")[0] == 0  # the profile has no windows
    assert labels_of(tmp_path / "whole").shape == (1, 40_000)


def test_many_words_and_unknown_ones_are_asked_for(segment, photo, tmp_path):
    words = [f"thing {number}" for number in range(298)] + ["xyzzy", "chat noir \u732b \U0001f408"]
    settings = ["--set", "inference.threshold=0"]
    code, _ = segment(photo, *(part for word in words for part in ("--word", word)), *settings)
    assert code == 0
    [record] = records(tmp_path / "out")
    assert [each["word"] for each in record["words"]] == words
    assert sum(each["area"] for each in record["words"]) == record["width"] * record["height"]


def test_words_with_quotes_lines_and_signs_are_words(segment, photo, tmp_path):
    words = ['"cat"', "it's", "two\nlines", "tab\there", "\U0001f408", "a/b", "..", "<b>", "$(x)"]
    line = [part for word in words for part in ("--word", word)]
    code, said = segment(photo, *line, "--heat", "--set", "inference.threshold=0")
    assert code == 0, said
    [record] = records(tmp_path / "out")
    told = ['"cat"', "it's", "two lines", "tab here", "\U0001f408", "a/b", "..", "<b>", "$(x)"]
    assert [each["word"] for each in record["words"]] == told
    assert len(list((tmp_path / "out").glob("*.heat-*.png"))) == len(words)
    assert set(record["files"]) == {file.name for file in (tmp_path / "out").glob("*.png")}
    assert "was there" in segment(photo, *line, "--heat", "--set", "inference.threshold=0")[1]


def test_folders_and_globs_may_have_spaces(segment, photo, tmp_path):
    folder = tmp_path / "my holiday [2026]"
    (folder / "day one").mkdir(parents=True)
    shutil.copy(photo, folder / "a b.png")
    (folder / "day one" / "c d.PNG").write_bytes(encode_image(drawn(2), "png"))
    (folder / "not a picture.png").mkdir()
    (folder / "gone.png").symlink_to("nowhere")
    glob = tmp_path / "my holiday ?2026?" / "**" / "*.PNG"
    code, said = segment(folder, glob, "--word", "cat")
    assert (code, said.count(".json)")) == (0, 2), said
    names = {file.name.rsplit("-", 1)[0] for file in (tmp_path / "out").glob("*.labels.png")}
    assert names == {"a-b", "c-d"}


@pytest.mark.parametrize(
    "words", [[], ["--word", ""], ["--word", "cat", "--word", " cat "], ["--word", "\udcff"]]
)
def test_words_that_mean_nothing_are_refused_before_anything_is_made(
    segment, photo, tmp_path, words
):
    code, said = segment(photo, *words)
    assert (code, "words are" in said) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_students_profile_must_be_named(segment, photo):
    code, said = segment(photo, "--word", "cat", "--profile", "sd15")
    assert (code, "name the student's profile with --profile" in said) == (2, True)


def test_a_name_that_is_no_utf8_is_shown_as_such(segment, photo, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9 [1].png"
    shutil.copy(photo, odd)
    assert segment(os.fsdecode(odd), "--word", "cat")[0] == 0
    [record] = records(tmp_path / "out")
    assert record["picture"].endswith("caf\ufffd [1].png")


def test_a_diverged_student_makes_nothing_and_claims_no_folder(segment, type_line, photo, tmp_path):
    run = write_run(tmp_path / "nan", nan=True)
    line = ("segment", photo, "--word", "cat", "--run", run, "--out", tmp_path / "out")
    code, said = type_line(*line)
    assert (code, "its training had diverged" in " ".join(said.split())) == (2, True)
    assert segment(photo, "--word", "dog")[0] == 0


def test_a_folder_at_which_somebody_is_at_work_is_left_alone(segment, photo, tmp_path):
    with hold_folder(tmp_path / "out"):
        code, said = segment(photo, "--word", "cat")
    assert (code, "somebody is at work" in said) == (3, True)
    assert not records(tmp_path / "out")


@pytest.fixture
def ask_released(type_line, photo, tmp_path):
    """Ask a file of tensors, with its profile: exit code, and what it said."""

    def run(contents, *more):
        torch.save(contents, tmp_path / "released.pth")
        line = ("--checkpoint", tmp_path / "released.pth", "--out", tmp_path / "out")
        code, said = type_line("segment", photo, "--word", "cat", "--word", "boat", *line, *more)
        return code, " ".join(said.split())

    return run


GEOMETRY = {"width": 96, "embed": 64, "depth": 4, "tokens": 4, "patch": 8, "side": 8}
"""Of the CLIP that ships with the engine."""


def test_a_released_checkpoint_finds_what_its_network_finds(ask_released, photo, tmp_path):
    tensors = {f"module.{name}": each for name, each in released_tensors(**GEOMETRY).items()}
    code, said = ask_released({"meta": {"epoch": 3}, "state_dict": tensors})
    assert code == 0, said
    network = ZegClip.from_upstream(
        tensors, image_size=64, patch_size=8, vision_heads=4, decoder_heads=4
    )
    segmenter = Student(network, TextEncoder.load("weights:clip"), scoring_settings("miniature"))
    expected = segmenter.segment(read_photograph(photo), ["cat", "boat"])
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), expected.labels)
    assert "was there" in ask_released({"meta": {"epoch": 3}, "state_dict": tensors})[1]
    assert "other settings (student)" in ask_released(tensors)[1]  # another file


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({}, "holds no tensors by name"),
        ([1], "holds no tensors by name"),
        ({"state_dict": {"x": 3}}, "holds no tensors by name"),
        ({"state_dict": {"x": torch.zeros(1)}}, "expected the names of a released ZegCLIP"),
        (released_tensors(**{**GEOMETRY, "embed": 32}), "whose student stands on the same CLIP"),
        (
            released_tensors(**GEOMETRY) | {"backbone.class_embedding": torch.full((96,), np.nan)},
            "not finite",
        ),
        (Path("code"), "cannot be read as tensors"),
    ],
    ids=["nothing", "a list", "numbers", "another network", "another CLIP", "diverged", "code"],
)
def test_what_is_no_released_checkpoint_is_refused(ask_released, contents, reason):
    code, said = ask_released(contents)
    assert (code, reason in said) == (2, True), said


MEASURED = """
import resource, sys
from flows.__main__ import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_huge_picture_takes_bounded_memory_whatever_the_number_of_words(trained, tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((10_000, 8_000)).save(tmp_path / "huge.jpg")
    words = [part for number in range(6) for part in ("--word", f"thing {number}")]
    windows = ("short_side=512", "long_side=2048", "window=512")
    settings = [part for each in windows for part in ("--set", f"inference.{each}")]
    line = ["segment", "huge.jpg", *words, "--run", str(trained), "--out", "out", *settings]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *line],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert labels_of(tmp_path / "out").shape == (8_000, 10_000)
    [overlay] = (tmp_path / "out").glob("*.overlay.png")
    assert opened(overlay).shape[1] == 2048
    assert int(done.stderr.split("peak")[1]) < 5_000
