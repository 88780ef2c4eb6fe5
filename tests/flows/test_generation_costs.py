"""What `magicseg plan` says a run will cost, beside what a service then counts."""

import hashlib
import io
import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

import models
from flows.generation_costs import cost_lines
from flows.generation_parameters import GenerationParameters
from flows.generation_plan import describe_plan, print_plan
from flows.generation_run import prepare
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from storage.errors import InputError
from storage.ledger import Ledger
from storage.plan import plan_samples
from storage.prices import Prices
from storage.records import Stage
from storage.vocabulary import load_vocabulary
from tasks.prompts import cut_class_sets, write_prompts
from tasks.rules import PromptRules
from tasks.stages import STAGES

ENGLISH = """an old wooden table stands near the tall window while soft evening light falls on green
leaves behind a quiet street where people walk under grey clouds and a narrow river bends past small
houses with red roofs far from the noisy city and its bright shops full of flowers bread paper lamps
and worn leather chairs that nobody has used since early spring"""
WORDS = ENGLISH.split()
PRICES = Prices(prompt=100.0, completion=300.0)

SETS = {
    "short": {
        "system": 'Reply in JSON: {"texts": ["..."]}',
        "request": "{count} short captions, {least} to {most} words each, of:",
        "item": "- {word} (write {forms})",
        "rules": [],
        "avoid": "Not these:",
        "words": [8, 14],
    },
    "long": {
        "system": 'You help a painter. Answer with JSON such as {"texts": ["..."]} only.',
        "request": "Write {count} rich captions of {least} to {most} words. All show:",
        "item": "- {word}{sense} (write {forms})",
        "sense": ", meaning {qualifier}",
        "rules": [
            "Write {most} words at most.",
            *(f"Think of {thing} and say how it looks, feels and sounds." for thing in WORDS[:20]),
        ],
        "avoid": "These are there already, write others:",
        "words": [40, 60],
    },
}


class Service:
    """A model that writes captions as long as it is asked to, and counts tokens as a service does.

    Attributes:
        tokens: Tokens read and written so far.
        calls: Calls so far.
        length: Words of a caption, instead of what is asked for.
        bad: Every so manieth caption names no class.
    """

    def __init__(self, server, tokenizer):
        self.tokens, self.calls, self.length, self.bad = [0, 0], 0, None, 0
        self._tokenizer = tokenizer
        self._server = server
        server.reply = self.reply

    def reply(self, body, _headers):
        message = body["messages"][-1]["content"]
        count = int(re.search(r"(\d+) (?:\w+ )?captions", message)[1])
        least, most = map(int, re.search(r"(\d+) to (\d+) words", message).groups())
        names = re.findall(r'\(write "(.+?)"', message)
        texts = [
            self.caption(f"{body['seed']} {index}", self.length or (least, most), names)
            for index in range(count)
        ]
        written = json.dumps({"texts": texts})
        # the form of a chat: three tokens around each message and three before the answer
        read = 3 + sum(3 + self.count(each["content"]) for each in body["messages"])
        usage = (read, self.count(written))
        self.calls += 1
        self.tokens = [self.tokens[0] + usage[0], self.tokens[1] + usage[1]]
        return self._server.completion(content=written, usage=usage)

    def caption(self, seed, length, names):
        digest = hashlib.sha256(seed.encode()).digest()
        least, most = length
        wanted = least + int.from_bytes(digest[:2]) % (most - least + 1)
        if self.bad and int.from_bytes(digest[2:4]) % self.bad == 0:
            names = []
        own = " and ".join(f"a {name}" for name in names).split()
        draws = hashlib.shake_256(seed.encode()).digest(wanted)
        words = [WORDS[draw % len(WORDS)] for draw in draws[: wanted - len(own)]]
        return " ".join([*words[:3], *own, *words[3:]])

    def count(self, text):
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


class AnyLength:
    max_tokens = 10_000

    def count_tokens(self, text):
        return len(text.split())


@pytest.fixture(scope="module")
def tokenizer():
    """Byte pairs as language models have them, learnt from English prose: this project's pages."""
    pages = sorted((Path(models.__path__[0]).parent / "docs").glob("*.md"))
    learnt = Tokenizer(BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator([page.read_text(encoding="utf-8") for page in pages], trainer)
    return learnt


@pytest.fixture
def service(chat_server, tokenizer):
    return Service(chat_server, tokenizer)


@pytest.fixture
def parameters(tmp_path, chat_server, tokenizer):
    tokenizer.save(str(tmp_path / "model.json"))

    def parameters_(instructions="paper", samples=300, **writer):
        if instructions in SETS:
            file = tmp_path / f"{instructions}.yaml"
            file.write_text(yaml.safe_dump(SETS[instructions]))
            instructions = str(file)
        defaults = {
            "model": "small",
            "base_url": chat_server.url,
            "api_key_env": None,
            "instructions": instructions,
            "tokenizer": str(tmp_path / "model.json"),
            "prices": PRICES,
        }
        document = yaml.safe_load(
            (Path(models.__path__[0]) / "data/profiles/miniature.yaml").read_text()
        )
        document["vocabulary"] = "lvis1205"
        profile = tmp_path / "wide.yaml"
        profile.write_text(yaml.safe_dump(document))
        return GenerationParameters(
            root=str(tmp_path / "d"),
            samples=samples,
            samples_per_shard=100,
            profile=str(profile),
            writer=ChatWriterConfig(**defaults | writer),
        )

    return parameters_


def write(parameters, start=0, stop=None):
    """Write the texts of some samples, as the stage does; the answers are in the dataset."""
    with prepare(parameters) as run:
        samples = plan_samples(run.spec, run.classes, start, stop or parameters.samples)
        writer = ChatWriter(parameters.writer, Ledger(run.store.objects))
        return write_prompts(
            cut_class_sets(samples, run.spec.texts_per_class_set),
            load_vocabulary(run.spec.vocabulary),
            writer,
            AnyLength(),
            PromptRules(),
        )


def off(estimated, counted):
    return abs(estimated - counted) / counted


@pytest.mark.parametrize("instructions", ["paper", "short", "long"])
def test_the_estimate_is_within_a_tenth_of_what_the_service_counts(
    service, parameters, instructions
):
    wanted = parameters(instructions)
    cost = describe_plan(wanted).cost.writer
    assert service.calls == 0
    write(wanted)
    assert off(cost.calls, service.calls) < 0.1
    read, written = service.tokens
    assert off(cost.prompt_tokens, read) < 0.1
    assert off(cost.completion_tokens, written) < 0.1
    assert off(cost.usd, PRICES.cost(read, written)) < 0.1


def test_a_model_that_writes_otherwise_than_asked_is_known_from_its_answers(service, parameters):
    service.length, service.bad = (9, 11), 4
    wanted = parameters(samples=1000)
    write(wanted, stop=300)
    before, calls = list(service.tokens), service.calls
    assert calls > 40, "a quarter of the texts is refused and asked for again"
    cost = describe_plan(wanted).cost.writer
    assert cost.known_calls == 30
    assert service.calls == calls
    write(wanted, start=300)
    read, written = (now - then for now, then in zip(service.tokens, before, strict=True))
    assert off(cost.calls, service.calls - calls) < 0.1
    assert off(cost.prompt_tokens, read) < 0.1
    assert off(cost.completion_tokens, written) < 0.1
    assert any("answers of this model" in source for source in cost.sources)


def test_a_single_answer_tells_more_than_a_guess(service, parameters):
    service.length = (9, 11)
    write(parameters(), stop=10)
    before = list(service.tokens)
    cost = describe_plan(parameters()).cost.writer
    write(parameters(), start=10)
    assert off(cost.completion_tokens, service.tokens[1] - before[1]) < 0.1


def test_answers_to_other_instructions_teach_nothing(service, parameters):
    write(parameters("short"), stop=100)
    cost = describe_plan(parameters("short")).cost.writer
    assert cost.known_calls == 10
    with pytest.raises(InputError, match="instructions"):
        describe_plan(parameters("long"))  # another dataset


def test_texts_that_are_committed_are_not_counted_again(chat_server, tmp_path):
    config = ChatWriterConfig(model="small", base_url=chat_server.url, api_key_env=None)
    parameters = GenerationParameters(
        root=str(tmp_path / "d"),
        samples=60,
        samples_per_shard=20,
        writer=config,
        prompts={"max_rounds": 1, "duplicate_similarity": None},
    )
    with prepare(parameters) as run:
        work = run.work(run.planned[1])
        work.make_missing(STAGES[Stage.PROMPTS], nullcontext)
    cost = describe_plan(parameters).cost
    assert (cost.samples, cost.writer.class_sets, cost.writer.calls) == (60, 4, 4)
    assert cost.writer.known_calls == 0


def test_a_slice_too_large_to_render_is_sampled_and_says_so(service, parameters):
    wanted = parameters(samples=3000)
    cost = describe_plan(wanted).cost
    assert (cost.writer.class_sets, cost.writer.sampled) == (300, 96)
    write(wanted)
    assert cost.writer.calls == 300
    assert off(cost.writer.prompt_tokens, service.tokens[0]) < 0.1
    assert any("96 evenly chosen of 300" in line for line in cost_lines(cost))


def test_without_a_tokenizer_the_ratio_is_named_and_unknown_prices_are_not_zero(parameters):
    cost = describe_plan(parameters(tokenizer=None, prices=None)).cost
    assert cost.writer.usd is None
    lines = "\n".join(cost_lines(cost))
    assert "estimated at 4.0 characters a token" in lines
    assert "money not known" in lines
    assert "state prices: {prompt: ..., completion: ...}" in lines


def test_the_price_table_has_a_date_and_the_users_prices_come_first():
    def writer(**changes):
        config = ChatWriterConfig(model="gpt-4.1-mini", api_key_env=None, **changes)
        return GenerationParameters(root="memory://none", samples=10, writer=config)

    listed = describe_plan(writer()).cost.writer
    assert listed.usd == pytest.approx(
        (0.40 * listed.prompt_tokens + 1.60 * listed.completion_tokens) / 1e6
    )
    assert "2026-10-03" in listed.prices
    own = describe_plan(writer(prices=PRICES)).cost.writer
    assert own.usd == pytest.approx(PRICES.cost(own.prompt_tokens, own.completion_tokens))
    batches = describe_plan(writer(prices=PRICES, mode="batch")).cost.writer
    assert batches.usd == pytest.approx(own.usd / 2)
    assert "batches cost 0.5 of that" in batches.prices
    elsewhere = describe_plan(writer(base_url="http://127.0.0.1:1/v1")).cost.writer
    assert elsewhere.usd is None


def test_a_budget_that_will_not_do_is_told_before_anything_is_asked(parameters):
    plenty = "\n".join(cost_lines(describe_plan(parameters(budget_usd=1000)).cost))
    assert "0.0000 USD spent of 1000 USD; it will do" in plenty
    tight = "\n".join(cost_lines(describe_plan(parameters(budget_tokens=100)).cost))
    assert "spent of 100 tokens; it will not do: raise it" in tight


def test_a_free_writer_is_free_and_what_was_never_measured_is_not_known(tmp_path):
    plan = describe_plan(GenerationParameters(root=str(tmp_path / "d"), samples=8))
    out = io.StringIO()
    print_plan(plan, Console(file=out, width=200))
    assert "texts: free" in out.getvalue()
    assert "hours not known" in out.getvalue()
    assert plan.cost.writer is None


@pytest.mark.parametrize("contents", [None, b"{}", b"\xff\xfe", b"[1, 2]"])
def test_a_tokenizer_that_is_none_is_refused(parameters, tmp_path, contents):
    if contents is not None:
        (tmp_path / "tokenizer.json").write_bytes(contents)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        describe_plan(parameters(tokenizer=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.server
def test_hours_and_disk_are_measured_from_the_shards_that_are_there(make, quick, tmp_path):
    make(tmp_path / "d", shards="0")
    parameters = GenerationParameters.model_validate({**quick, "root": str(tmp_path / "d")})
    cost = describe_plan(parameters).cost
    assert cost.samples == 8
    assert [each.stage.value for each in cost.stages] == ["pairs", "detections", "masks"]
    assert {each.device for each in cost.stages} == {"cpu"}
    assert all(
        each.seconds == pytest.approx(8 * each.seconds_a_sample, abs=0.1) for each in cost.stages
    )
    tar = next((tmp_path / "d" / "data").glob("*.tar"))
    assert cost.bytes_measured
    assert cost.num_bytes == 2 * 8 * tar.stat().st_size / 4


def test_attention_maps_are_told_by_their_size(tmp_path):
    record = {"mentions": True, "class_prompt": False, "cross": [64]}
    parameters = {"root": str(tmp_path / "d"), "samples": 1000}
    own = GenerationParameters.model_validate({**parameters, "pairs": {"record": record}})
    plan = describe_plan(own)
    assert plan.cost.maps_bytes == 1000 * 3 * 64**2 * 2
    assert any("24.6 MB of attention maps besides" in line for line in cost_lines(plan.cost))
    assert not describe_plan(GenerationParameters.model_validate(parameters)).cost.maps_bytes
