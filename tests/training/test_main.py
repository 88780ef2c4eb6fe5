import json

import pytest

from training.__main__ import main


def run(tmp_path, document):
    path = tmp_path / "run.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return main(["--config", str(path)])


def test_a_run_ends_with_zero_and_prints_its_checkpoint(settings, tmp_path, capsys):
    settings["optimiser"]["steps"] = 2
    assert run(tmp_path, settings) == 0
    assert capsys.readouterr().out.strip().endswith("checkpoints/step-00000002")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 3}, "unknown key 'steps'"),
        ({"vocabulary": "lvis"}, "lvis1205"),
        ({"dataset": "nowhere"}, "generate the dataset first"),
        ({"student": {"clip": "no/where"}}, "no/where"),
        ({"device": "cuda:9"}, "device 'cuda:9' is not there"),
        ({"templates": "many"}, "template set"),
        ({"student": {"clip": "", "image_size": 33}}, "image_size"),
    ],
)
def test_wrong_input_ends_with_two_and_names_the_value(settings, tmp_path, capsys, change, message):
    if change.get("student", {}).get("clip") == "":
        change = {"student": {**settings["student"], "image_size": 33}}
    assert run(tmp_path, {**settings, **change}) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_what_is_no_json_or_not_there_ends_with_two(tmp_path, capsys):
    assert run(tmp_path, "{") == 2
    assert "is not JSON" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "none.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err
