import os
import subprocess
import sys

import pytest

from bad_places import make_place
from flows.__main__ import main
from processes import end_processes


@pytest.fixture
def magicseg(tmp_path):
    """The command line as people run it: a process of its own, in an empty folder."""

    processes = []

    def start(*arguments, **variables):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
        }
        environment |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", **variables}
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    end_processes(processes)


@pytest.fixture
def run(magicseg):
    """Run a command to its end: exit code, standard output, standard error."""

    def finish(*arguments, **variables):
        process = magicseg(*arguments, **variables)
        out, err = process.communicate(timeout=500)
        return process.returncode, out, err

    return finish


@pytest.fixture
def quick(tmp_path):
    """Generation parameters for the shipped models, made quick: few steps, and rules that let most
    of the blurry pictures through."""
    import yaml

    from models.profiles import load_profile

    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["painter"] |= {"steps": 3, "batch_size": 4}
    document["labeller"]["detector"] |= {
        "box_threshold": 0.02,
        "text_threshold": 0.01,
        "batch_size": 4,
    }
    file = tmp_path / "quick.yaml"
    file.write_text(yaml.safe_dump(document))
    return {
        "profile": str(file),
        "samples": 12,
        "samples_per_shard": 4,
        "texts_per_class_set": 1,
        "detections": {"counterfactual": "record", "require": "any"},
        "masks": {"min_area": 0.0, "max_area": 1.0},
    }


@pytest.fixture
def tars():
    """Digests of the published shards of a dataset, by file name."""
    import hashlib

    def digests(root):
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((root / "data").glob("*.tar"))
        }

    return digests


@pytest.fixture
def make(server, quick):
    """Run the generating flow in this process, and return its final state and summary."""
    from flows.generate_dataset import generate_dataset
    from flows.generation_form import form_values
    from flows.generation_parameters import GenerationParameters

    def run(root, **changes):
        parameters = GenerationParameters.model_validate({**quick, "root": str(root), **changes})
        state = generate_dataset(**form_values(parameters), return_state=True)
        return state, state.result()

    return run


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a command that must be refused, and return what it said."""

    from flows.__main__ import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as error:
            main()
        assert error.value.code == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return " ".join(said.split())

    return run


def drawn(number):
    """A sample of the drawn world that shows one object."""
    import numpy as np

    from models.miniature import world
    from storage.codecs import encode_image, encode_label_map
    from storage.shards import Sample

    scene = world.sample_scene(np.random.default_rng(number), class_ids=[number % 14])
    labels = np.where(world.masks(scene)[0], scene.things[0].class_id + 1, 0)
    image = encode_image(world.render(scene), "png")
    return Sample(
        key=f"{number:016x}",
        index=number,
        text="a drawing",
        counterfactual_text="nothing",
        class_ids=(scene.things[0].class_id,),
        class_names=(world.CLASSES[scene.things[0].class_id],),
        mentions=(),
        seed=number,
        instances=(),
        image_bytes=image,
        counterfactual_bytes=image,
        mask_bytes=encode_label_map(labels.astype(np.uint16)),
    )


@pytest.fixture(scope="session")
def drawn_tar():
    """Bytes of a tar of drawn scenes, one of each class."""
    from storage.shards import pack

    return bytes(pack([drawn(number) for number in range(14)]))


@pytest.fixture
def dataset(tmp_path, drawn_tar):
    """A folder with one tar of drawn scenes, one of each class."""
    folder = tmp_path / "tars"
    folder.mkdir()
    (folder / "train-0.tar").write_bytes(drawn_tar)
    return folder


@pytest.fixture
def commit_drawn():
    """Commit so many shards of one drawn sample each to a dataset, new or not."""
    from storage.commits import Counts
    from storage.manifest import describe_samples, encode_manifest
    from storage.payloads import Payload
    from storage.records import PlannedSample, PlannedShard, Stage
    from storage.shards import pack
    from storage.store import Store

    def commit(root, count):
        store = Store.create(root, {"seed": 7})
        for index in range(count):
            sample = drawn(index)
            ids = sample.class_ids
            planned = PlannedSample(key=sample.key, index=index, class_ids=ids, seed=index)
            shard = PlannedShard(slice_id=sample.key[:8], index=index, samples=(planned,))
            names = dict(zip(ids, sample.class_names, strict=True))
            rows = describe_samples(shard, names, samples=[sample], dropped=[])
            payload = Payload(data=pack([sample]), manifest=encode_manifest(rows))
            store.commit(Stage.SHARDS, shard.name, f"{index:016x}", payload, Counts.of(1, 1, []))
        return store

    return commit


@pytest.fixture(scope="session")
def place(tmp_path_factory, drawn_tar):
    """A folder with what bad command lines name, see `bad_places`."""
    folder = tmp_path_factory.mktemp("place")
    make_place(folder, drawn_tar)
    return folder


@pytest.fixture
def typed(monkeypatch, capsys, place):
    """Type a command line in the place: exit code and what standard error shows."""

    from flows.__main__ import main

    def run(line):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["magicseg", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def type_line(monkeypatch, capsys):
    """Run the command line in this process: exit code, and what it said."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return run
