"""A preview shows texts and pictures of a slice, and commits nothing."""

import io
import json
import sys

import pytest
import yaml
from PIL import Image
from rich.console import Console

from flows.generation_parameters import GenerationParameters
from flows.generation_plan import describe_plan
from flows.generation_run import prepare
from flows.preview import make_preview, print_preview
from models.profiles import load_profile
from models.writing.chat_config import ChatWriterConfig
from storage.errors import BudgetError, InputError
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.prices import Prices
from storage.records import Stage
from tasks.rules import MaskRules
from tasks.stages import STAGES


@pytest.fixture
def parameters(tmp_path, chat_server):
    def parameters_(**changes):
        writer = ChatWriterConfig(
            model="small",
            base_url=chat_server.url,
            api_key_env=None,
            prices=Prices(prompt=1000.0, completion=1000.0),
        )
        about = {"root": str(tmp_path / "d"), "samples": 8, "slice": "cat", "writer": writer}
        return GenerationParameters.model_validate(about | changes)

    return parameters_


@pytest.fixture
def answer(chat_server):
    """Let the service answer with these texts."""
    return lambda *texts: chat_server.queue.append(chat_server.completion(texts))


def shown(preview, parameters):
    out = io.StringIO()
    print_preview(preview, parameters, Console(file=out, width=200))
    return out.getvalue()


def files_of(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


CATS = [f"a cat sits {place}" for place in ("here", "on a box", "in snow", "by a tree", "at sea")]


def test_texts_and_why_others_were_refused_are_shown(parameters, answer, chat_server):
    few = parameters(samples=4, texts_per_class_set=5, prompts={"max_rounds": 1})
    answer(*CATS[:2], "a dog sits here", CATS[0], CATS[4])
    made = make_preview(few)
    assert [row.reason for row in made.rows] == ["", "", "", "class-not-mentioned"]
    text = shown(made, few)
    assert "text: a cat sits here\n  counterfactual: a nothing sits here" in text
    assert "refused at prompts: class-not-mentioned: no cat in 'a dog sits here'" in text
    assert "3 of 4 samples of slice cat would go on" in text
    assert "1 calls in the ledger, 100 tokens read, 50 written, 0.1500 USD" in text
    assert "not kept, because there is no dataset" in text
    assert len(chat_server.requests) == 1


def test_nothing_is_left_where_no_dataset_is(parameters, answer, tmp_path):
    answer(*CATS)
    make_preview(parameters(samples=5, texts_per_class_set=5))
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_keeps_the_answers_alone_and_a_run_pays_nothing_for_them(
    parameters, answer, chat_server, tmp_path
):
    wanted = parameters(samples=5, texts_per_class_set=5)
    with prepare(wanted):
        pass
    before = files_of(tmp_path / "d")
    answer(*CATS)
    made = make_preview(wanted)
    assert "kept in the ledger" in shown(made, wanted)
    new = files_of(tmp_path / "d").keys() - before.keys()
    assert {path.parent.name for path in new} <= {"answers", "open", "lost", "ledger"}
    assert {path: files_of(tmp_path / "d")[path] for path in before} == before
    assert describe_plan(wanted).cost.writer.known_calls == 1
    with prepare(wanted) as run:
        from contextlib import nullcontext

        run.work(run.planned[0]).make_missing(STAGES[Stage.PROMPTS], nullcontext)
    assert len(chat_server.requests) == 1
    assert make_preview(wanted).rows == made.rows
    assert len(chat_server.requests) == 1


def test_other_instructions_can_be_tried_beside_a_dataset(parameters, answer, tmp_path):
    wanted = parameters(samples=5, texts_per_class_set=5)
    with prepare(wanted):
        pass
    (tmp_path / "mine.yaml").write_text(
        'system: \'JSON: {"texts": ["..."]}\'\nrequest: "{count} captions"\nitem: "{word}"\n'
        "avoid: not these\nwords: [3, 9]\n"
    )
    mine = wanted.writer.model_copy(update={"instructions": str(tmp_path / "mine.yaml")})
    answer(*CATS)
    assert make_preview(wanted.model_copy(update={"writer": mine})).rows[0].text == CATS[0]
    assert Ledger(open_objects(tmp_path / "d")).totals().calls == 1


@pytest.mark.parametrize("mode", ["batch", "auto", "run-batch"])
def test_calls_are_made_at_once_in_every_mode(parameters, answer, chat_server, mode):
    wanted = parameters(samples=5, texts_per_class_set=5)
    batches = wanted.writer.model_copy(update={"mode": mode})
    answer(*CATS)
    made = make_preview(wanted.model_copy(update={"writer": batches}))
    assert [row.text for row in made.rows] == CATS
    assert len(chat_server.requests) == 1


def test_the_budget_of_the_dataset_holds(parameters, tmp_path):
    wanted = parameters(samples=5)
    with prepare(wanted):
        pass
    tight = wanted.writer.model_copy(update={"budget_tokens": 10})
    with pytest.raises(BudgetError):
        make_preview(wanted.model_copy(update={"writer": tight}))


def test_pictures_are_painted_into_one_file_where_one_says(tmp_path, quick):
    about = {**quick, "root": str(tmp_path / "d"), "samples": 2, "slice": "cat"}
    free = GenerationParameters.model_validate(about)
    made = make_preview(free, tmp_path / "cat.png")
    with Image.open(tmp_path / "cat.png") as sheet:
        width, height = sheet.size
    assert width > 2 * 2 * 192
    assert height > 192
    assert made.sheet == str(tmp_path / "cat.png")
    assert not (tmp_path / "d").exists()
    assert "pictures: " in shown(made, free)


def test_pictures_that_are_refused_are_told_with_their_text(tmp_path, quick):
    about = {**quick, "root": str(tmp_path / "d"), "samples": 2, "slice": "cat"}
    strict = GenerationParameters.model_validate({**about, "pairs": {"min_deviation": 128.0}})
    made = make_preview(strict, tmp_path / "cat.png")
    assert {row.reason for row in made.rows} == {"blank-image"}
    assert all(row.text for row in made.rows)
    assert not (tmp_path / "cat.png").exists()
    assert "0 of 2 samples" in shown(made, strict)
    assert "pictures: " not in shown(made, strict)


@pytest.mark.parametrize("name", ["cat.jpg", "notes.png", "folder.png"])
def test_no_other_file_is_replaced_and_nothing_asked_before_that_is_known(
    parameters, chat_server, tmp_path, name
):
    (tmp_path / "notes.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=name):
        make_preview(parameters(), tmp_path / name)
    assert chat_server.requests == []
    assert (tmp_path / "notes.png").read_text() == "mine"


def test_the_command_needs_no_root_and_shows_eight_samples(monkeypatch, capsys, tmp_path):
    from flows.__main__ import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("samples: 380000\nslice: cat\n")
    monkeypatch.setattr(sys, "argv", ["magicseg", "preview", "run.yaml", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["rows"]) == 8
    assert made["slice"] == "cat"
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_weights_are_looked_for_before_texts_are_asked_for(parameters, chat_server, tmp_path):
    """Those of what paints over too, which no text needs."""
    profile = tmp_path / "mine.yaml"
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    missing = {"kind": "diffusion", "model": str(tmp_path / "nothing")}
    profile.write_text(yaml.safe_dump(document | {"inpainter": missing}))
    wanted = parameters(profile=str(profile), twins={"way": "inpaint"})
    with pytest.raises(InputError, match="nothing"):
        make_preview(wanted, tmp_path / "cat.png")
    assert chat_server.requests == []


@pytest.mark.slow
def test_objects_are_painted_over_as_the_recipe_says(tmp_path, quick):
    about = {**quick, "root": str(tmp_path / "d"), "samples": 2, "slice": "cat"}
    over = GenerationParameters.model_validate({**about, "twins": {"way": "inpaint"}})
    made = make_preview(over, tmp_path / "over.png")
    assert not any(row.reason for row in made.rows)
    assert (tmp_path / "over.png").is_file()
    strict = over.model_copy(update={"masks": MaskRules(max_area=0.0001, min_area=0.0)})
    refused = make_preview(strict, tmp_path / "none.png")
    assert {row.stage for row in refused.rows} == {"masks"}
    assert not (tmp_path / "none.png").exists()
    assert "refused at masks: mask-too-large" in shown(refused, strict)
