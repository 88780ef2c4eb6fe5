"""Wrong input: exit code 2, one message that names the value and the way out, no traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.__main__ import main
from models import profiles
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark

PROFILE = Path(profiles.__file__).parent / "data" / "profiles" / "miniature.yaml"


def generate(root, *others):
    return ("generate", "--root", root, "--samples", 8, *others)


def test_an_unknown_class_is_named_with_what_comes_near(refused, tmp_path):
    said = refused(*generate(tmp_path / "d", "--slice", "ballon,cat"))
    assert "ballon" in said
    assert "balloon" in said


def test_an_unknown_profile_is_named_with_the_known_ones(refused, tmp_path):
    said = refused(*generate(tmp_path / "d", "--profile", "minature"))
    assert "minature" in said
    assert "miniature" in said


def test_a_misspelt_key_of_a_file_is_named_with_the_right_one(refused, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"root": "d", "samples": 8, "sampels_per_shard": 4}))
    said = refused("generate", file)
    assert "sampels_per_shard" in said
    assert "samples_per_shard" in said
    assert str(file) in said


def test_a_misspelt_setting_is_named_with_the_right_one(refused, tmp_path):
    said = refused(*generate(tmp_path / "d", "--set", "masks.min_aera=0.1"))
    assert "masks.min_aera" in said
    assert "min_area" in said


def test_a_file_that_is_no_yaml_is_refused(refused, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("root: [")
    assert "is not YAML" in refused("generate", file)


def test_a_file_that_is_not_there_is_refused(refused, tmp_path):
    assert "cannot be read" in refused("generate", tmp_path / "none.yaml")


def test_missing_parameters_are_named(refused):
    assert "'root' is missing" in refused("generate", "--samples", 3)


def test_missing_weights_say_what_to_download_and_where_to_put_it(run, tmp_path):
    code, _, said = run(*generate(tmp_path / "d", "--profile", "sd15"), OPENAI_API_KEY="none")
    assert code == 2
    assert "Traceback" not in said
    assert "hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --revision" in said
    assert "MAGICSEG_WEIGHTS" in said
    assert not (tmp_path / "d").exists()


def test_shards_that_the_slice_does_not_have_are_refused(refused, tmp_path):
    said = refused(*generate(tmp_path / "d", "--shards", "0-9"))
    assert "0-9" in said
    assert "up to 0" in said


def test_a_dataset_that_is_not_there_is_refused(refused, tmp_path):
    assert "there is no dataset" in refused("status", tmp_path / "none")


def test_an_unknown_option_is_refused(refused):
    assert "--sampels" in refused("generate", "--sampels", 3)


def test_other_settings_for_the_same_dataset_are_refused_in_words(refused, tmp_path):
    from flows.generation_parameters import GenerationParameters
    from flows.generation_run import prepare

    with prepare(GenerationParameters(root=str(tmp_path / "d"), samples=8)):
        pass
    said = refused(*generate(tmp_path / "d", "--set", "seed=1"))
    assert "plan.seed: 0 -> 1" in said
    assert "another root" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_says_how_much_is_missing(refused, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(["mount", *options], check=False).returncode:  # noqa: S607
        pytest.skip("no tmpfs can be mounted here")
    try:
        said = refused(*generate(small / "dataset"))
        assert "no room for" in said
        assert "0 MB are free" in said
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)  # noqa: S607


def test_an_unknown_benchmark_is_named_with_those_that_there_are(refused, tmp_path):
    for command in (("evaluate", "--run", tmp_path), ("doctor",)):
        said = refused(*command, "--benchmark", "coco", "--root", tmp_path)
        assert '"coco" for --benchmark' in said
        for name in ("voc21", "context59", "coco_object", "lvis", "open_images", "miniature"):
            assert f'"{name}"' in said


def test_a_misspelt_option_of_a_benchmark_is_named_with_the_right_one(refused, tmp_path):
    command = ("evaluate", "--run", tmp_path, "--root", tmp_path, "--benchmark")
    said = refused(*command, "lvis", "--set", "benchmark.lvis.image=all")
    assert "unknown key 'lvis.image'; did you mean images?" in said
    said = refused(*command, "voc21", "--set", "benchmark.lvis.images=all")
    assert "benchmark voc21 has no such options: leave out lvis" in said


def test_the_doctor_says_which_file_of_a_benchmark_is_missing_and_where_it_is_had(
    monkeypatch, capsys, tmp_path
):
    root = write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0), tmp_path / "b")

    def examined(*options):
        arguments = ("doctor", "--json", "--root", root, *options)
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        findings = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
        assert ended.value.code == (0 if all(row["ok"] for row in findings.values()) else 2)
        return findings

    whole = examined("--benchmark", "miniature")
    assert [row["ok"] for row in whole.values()] == [True, True, True, True]
    said = whole["miniature"]["detail"]
    assert said.startswith("3 images in the split val, 14 classes with background; no published")
    assert whole["every image"]["detail"] == "3 of 3 read with their truth"
    shown = whole["truth"]["detail"]
    assert re.match(r"[2-6] of 14 classes \([a-z ]+ in [123], .*0\.0% of the pixels ignored", shown)
    name = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[0]
    (root / "JPEGImages" / f"{name}.jpg").unlink()
    half = examined("--benchmark", "miniature")
    assert {row["what"] for row in half.values() if not row["ok"]} == {
        "files",
        "every image",
        "fault",
    }
    assert f"{name}.jpg" in half["fault"]["detail"]
    part = examined("--benchmark", "miniature", "--set", "benchmark.available=true")
    assert all(row["ok"] for row in part.values())
    assert "2 of 3 images" in part["files"]["detail"]
    assert f"{name}.jpg" in half["files"]["detail"]
    assert "python -m models.miniature.benchmark" in half["files"]["detail"]
    lvis = examined("--benchmark", "lvis")
    assert [row["ok"] for row in lvis.values()] == [False]
    assert "lvis_v1_val.json.zip" in lvis["lvis"]["detail"]
    points = examined("--benchmark", "open_images", "--split", "test")
    assert [row["ok"] for row in points.values()] == [False]
    assert "oidv7-test-annotations-point-labels.csv" in points["open_images"]["detail"]


def test_the_doctor_lists_every_fault_of_a_benchmark_if_it_looks_deep(
    monkeypatch, refused, capsys, tmp_path
):
    root = write_benchmark(
        DrawnBenchmarkConfig(num_train=0, num_val=40, num_test=0), tmp_path / "b"
    )
    names = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    for name in names[1:4]:
        (root / "SegmentationClass" / f"{name}.png").write_bytes(b"?")
    command = ["magicseg", "doctor", "--benchmark", "miniature", "--root", str(root)]
    monkeypatch.setattr(sys, "argv", [*command, "--deep"])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().out
    assert all(f"{name}.png" in said for name in names[1:4])
    assert "WRONG every image: 37 of 40 read with their truth" in said
    assert "--benchmark" in refused("doctor", "--deep")


def test_the_doctor_needs_the_folder_of_a_benchmark_and_no_other_settings(refused, tmp_path):
    assert "name it with --root" in refused("doctor", "--benchmark", "voc21")
    assert "means nothing here" in refused("doctor", "--set", "benchmark.limit=3")
    said = refused(
        "doctor", "--benchmark", "voc21", "--root", tmp_path, "--set", "templates=single"
    )
    assert "templates=single means nothing here" in said


@pytest.fixture
def planned(monkeypatch, capsys):
    """Run plan and return what it says, as JSON."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["magicseg", "plan", "--json", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return json.loads(said.out)

    return run


def committed(root, samples, per_shard):
    """A dataset in which every shard is finished, with nothing but rejections."""
    from flows.generation_parameters import GenerationParameters
    from flows.generation_run import prepare
    from storage.commits import Counts
    from storage.manifest import ManifestRow, encode_manifest
    from storage.payloads import Payload
    from storage.records import Reason, Stage

    parameters = GenerationParameters(root=str(root), samples=samples, samples_per_shard=per_shard)
    with prepare(parameters) as run:
        for shard in run.planned:
            work = run.work(shard)
            rejected = {Reason.UNSAFE: shard.count}
            counts = Counts(requested=shard.count, written=0, rejected=rejected)
            rows = [
                ManifestRow(
                    key=each.key,
                    shard=shard.name,
                    index=each.index,
                    seed=each.seed,
                    status="rejected",
                    class_ids=each.class_ids,
                    class_names=("x",) * len(each.class_ids),
                )
                for each in work.samples
            ]
            about = {"start": shard.start, "stop": shard.stop}
            payload = Payload(b"", encode_manifest(rows), about=about)
            run.store.commit(Stage.SHARDS, shard.name, work.key, payload, counts)


def test_a_plan_of_some_shards_counts_these_alone(planned, tmp_path):
    committed(tmp_path / "d", 10, 2)
    size = ("--root", tmp_path / "d", "--set", "samples_per_shard=2", "--samples")
    for shards, committed_shards, to_do in (("0-1", 2, 0), ("4", 1, 0), ("all", 5, 0)):
        said = planned(*size, 10, "--set", f"shards={shards}")
        assert (said["shards"], said["chosen"]) == (5, committed_shards)
        for stage in said["stages"]:
            assert (stage["committed"], stage["to_do"]) == (committed_shards, to_do)
    said = planned(*size, 14, "--shards", "4-6")
    assert {(stage["committed"], stage["to_do"]) for stage in said["stages"]} == {(1, 2)}


def test_a_setting_for_text_may_look_like_a_number(planned, tmp_path):
    at = ("--root", tmp_path / "d", "--samples", 20, "--set", "samples_per_shard=2")
    assert planned(*at, "--set", "shards=9")["chosen"] == 1
    assert planned(*at, "--set", "slice=10:12")["num_classes"] == 2


@pytest.mark.parametrize("text", ["10:12", "'10:12'", '"10:12"'])
def test_a_range_in_a_file_is_a_range(planned, tmp_path, text):
    file = tmp_path / "run.yaml"
    file.write_text(f"root: {tmp_path / 'd'}\nsamples: 1e1\nslice: {text}\nshards: 0\n")
    said = planned(file)
    assert (said["slice"], said["samples"], said["chosen"]) == ("10:12", 10, 1)


@pytest.mark.parametrize("name", ["no", "off", "2024-01-01", "~x"])
def test_a_class_may_be_called_what_yaml_once_took_for_something_else(refused, tmp_path, name):
    file = tmp_path / "run.yaml"
    file.write_text(f"root: d\nsamples: 3\nslice: {name}\n")
    assert f'class name "{name}" is not in vocabulary' in refused("plan", file)


def test_a_key_that_is_not_set_is_told_before_a_dataset_is_begun(refused, tmp_path, monkeypatch):
    monkeypatch.delenv("MISSING_KEY", raising=False)
    writer = "writer={kind: chat, model: m, api_key_env: MISSING_KEY}"
    said = refused("generate", "--root", tmp_path / "d", "--samples", 4, "--set", writer)
    assert "MISSING_KEY is not set" in said
    assert not (tmp_path / "d").exists()


def test_the_doctor_asks_the_writers_service_once_and_says_what_that_cost(
    monkeypatch, capsys, chat_server, tmp_path
):
    shipped = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    writer = {"kind": "chat", "model": "m", "base_url": chat_server.url, "api_key_env": None}
    prices = {"prompt": 1.0, "completion": 2.0}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**shipped, "writer": {**writer, "prices": prices}}))

    def answer():
        command = ["magicseg", "doctor", "--json", "--profile", str(file)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        findings = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
        assert ended.value.code == (0 if all(row["ok"] for row in findings.values()) else 2)
        return findings["writer's answer"]

    said = answer()
    assert said["ok"]
    assert "100 tokens read and 50 written, for 0.000200 USD" in said["detail"]
    assert len(chat_server.requests) == 1
    chat_server.queue = [chat_server.error(401, "no such key")]
    said = answer()
    assert not said["ok"]
    assert "no such key" in said["detail"]
    assert len(chat_server.requests) == 2


def doctor_says(type_line, *arguments):
    code, said = type_line("doctor", "--json", *arguments)
    findings = {row["what"]: row for row in json.loads(said)}
    assert code == (0 if all(row["ok"] for row in findings.values()) else 2)
    return findings


def test_the_doctor_looks_for_what_the_recipe_of_a_file_needs(type_line, tmp_path):
    document = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    profile, file = tmp_path / "mine.yaml", tmp_path / "run.yaml"
    profile.write_text(yaml.safe_dump(document))
    plain = {"profile": str(profile), "root": str(tmp_path / "d"), "samples": 4}
    file.write_text(yaml.safe_dump(plain))
    said = doctor_says(type_line, file)
    assert said["space"]["ok"]
    assert "inpainter" not in said
    said = doctor_says(type_line, file, "--set", "twins.way=inpaint")
    assert said["inpainter"]["ok"]
    assert "the painter's own: weights:painter" in said["inpainter"]["detail"]
    file.write_text(yaml.safe_dump(plain | {"twins": {"way": "inpaint"}}))
    missing = {"kind": "diffusion", "model": str(tmp_path / "nothing")}
    profile.write_text(yaml.safe_dump(document | {"inpainter": missing}))
    said = doctor_says(type_line, file)
    assert not said["inpainter"]["ok"]
    assert str(tmp_path / "nothing") in said["inpainter"]["detail"]
    assert "scout" in doctor_says(type_line, "--set", "others.way=ignore")
