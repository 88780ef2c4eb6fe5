"""Help says what every option is for, and shows command lines that can be typed as they stand."""

import shlex
import sys
from typing import get_args

import pytest

from evaluation.benchmarks.names import BenchmarkName
from flows.__main__ import main
from flows.command_line import app

COMMANDS = [name for name in app if not name.startswith("-")]


@pytest.fixture
def shown(monkeypatch, capsys):
    """Run a command that writes help, and return what it wrote."""

    def run(*words):
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["magicseg", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code, said.err) == (0, "")
        return said.out

    return run


def examples_of(command):
    lines = app[command].help_epilogue.splitlines()
    assert max(map(len, lines)) <= 80, "a terminal would break it"
    text = "\n".join(lines).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def test_without_a_command_the_help_is_shown(shown):
    assert shown() == shown("--help")
    for command in COMMANDS:
        assert f" {command} " in shown()


def test_the_version_is_that_of_the_package(shown):
    from importlib.metadata import version

    assert shown("--version").strip() == version("magicseg-engine")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_says_what_it_is_for(command):
    for argument in app[command].assemble_argument_collection(parse_docstring=True):
        if argument.name != "*":
            assert argument.parameter.help, argument.name


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_command_can_be_typed_as_they_stand(command, shown):
    help_text = " ".join(shown(command, "--help").split())
    examples = examples_of(command)
    assert examples
    for line in examples:
        assert line.split()[:2] == ["magicseg", command]
        assert line.split()[-1] in help_text
        called, _, _ = app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)
        assert called.__name__.replace("_", "-") == command


@pytest.mark.parametrize("command", ["evaluate", "closed-set", "doctor"])
def test_the_names_of_benchmarks_come_from_where_they_are_defined(command, shown):
    text = " ".join(shown(command, "--help").replace("\u2502", " ").split())
    assert ", ".join(get_args(BenchmarkName)) in text


def test_plan_and_generate_explain_the_same_options_in_the_same_words(shown):
    of = {
        command: {
            argument.name: argument.parameter.help
            for argument in app[command].assemble_argument_collection(parse_docstring=True)
            if argument.name != "*"
        }
        for command in ("plan", "generate")
    }
    assert of["plan"].keys() - of["generate"].keys() == {"--json"}
    assert of["generate"].items() <= of["plan"].items()


def test_the_examples_that_make_and_look_at_a_dataset_work(monkeypatch, capsys, tmp_path):
    from flows.generation_parameters import GenerationParameters
    from flows.generation_run import prepare

    monkeypatch.chdir(tmp_path)
    with prepare(GenerationParameters(root="runs/mine", samples=96)):
        pass
    for command in ("plan", "status", "ledger", "verify", "report", "retry", "gc", "quarantine"):
        for line in examples_of(command):
            if "-run" not in line:
                monkeypatch.setattr(sys, "argv", shlex.split(line))
                with pytest.raises(SystemExit) as ended:
                    main()
                assert ended.value.code == 0, (line, capsys.readouterr().err)
