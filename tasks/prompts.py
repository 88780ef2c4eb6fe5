"""Prompts: scene texts that name their classes, and the same texts without them."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from models.protocols import PromptWriter, TextAnswer, TextRequest, TokenCounter, WaitingWriter
from models.registry import Role
from models.writing.likeness import likeness
from models.writing.mentions import CounterfactualRule, counterfactual_text, find_mentions
from storage.errors import TransientError
from storage.plan import index_of
from storage.records import Mention, PlannedSample, Prompt, Reason, Rejected, Stage
from storage.vocabulary import ClassRecord, Vocabulary, load_vocabulary
from tasks.declarations import Declaration, Made, PieceWork
from tasks.recipe import Recipe
from tasks.rules import PromptRules

__all__ = ["ClassSet", "cut_class_sets", "write_prompts"]

Problem = tuple[Reason, str]


@dataclass(frozen=True)
class ClassSet:
    """Samples of the same classes, whose texts are asked for together.

    Attributes:
        samples: Those that need a text, in plan order; all have the same classes.
        known: Texts that other samples of the set have already.
        attempts: How often a writer has failed them before. The rounds of those times come first:
            what was answered then is known and costs nothing.
    """

    samples: tuple[PlannedSample, ...]
    known: tuple[str, ...] = ()
    attempts: int = 0


def cut_class_sets(
    samples: Iterable[PlannedSample],
    size: int,
    known: Iterable[Prompt] = (),
    attempts: Mapping[str, int] | None = None,
) -> list[ClassSet]:
    """Cut samples at the borders of their class sets.

    Args:
        samples: In plan order.
        size: Samples of a class set, `texts_per_class_set` of the plan.
        known: Texts that other samples of these sets have already.
        attempts: How often a writer has failed a sample before, by its key.
    """
    failed = attempts or {}
    texts: dict[int, list[str]] = {}
    for prompt in known:
        texts.setdefault(index_of(prompt.key) // size, []).append(prompt.text)
    sets: list[ClassSet] = []
    for number, members in groupby(samples, key=lambda sample: sample.index // size):
        wanted = tuple(members)
        times = max(failed.get(sample.key, 0) for sample in wanted)
        sets.append(ClassSet(wanted, tuple(texts.get(number, ())), times))
    return sets


def write_prompts(
    class_sets: Sequence[ClassSet],
    vocabulary: Vocabulary,
    writer: PromptWriter,
    tokens: TokenCounter,
    rules: PromptRules,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[Prompt | Rejected]:
    """Write the texts of some samples.

    A class set is one request. Texts that do not pass the rules are asked for again, with those of
    the set that exist already named as ones to avoid.

    Class sets whose answers come hours later have no records either; they are asked for again when
    those are there.

    When the texts are not wanted any more, no further ones are asked for. Class sets that are not
    finished by then have no records: half of a set would be gone on with in another way. What was
    answered is in the writer's ledger, so it is not paid again.

    Args:
        class_sets: The samples.
        vocabulary: Their classes.
        writer: Who writes.
        tokens: Knows how long a text is for the painter.
        rules: What is good enough.
        is_wanted: Whether to go on; asked between two rounds, and while a writer waits.

    Returns:
        One record for each sample, in order, unless they are awaited, or not wanted any more. It
        depends on the arguments and the writer's answers alone, not on how many of them came at the
        same time.

    Raises:
        BudgetError: If a call could pass the writer's budget.
        InputError: If the writer cannot be asked in this way.
        TransientError: If the writer is down; what it answered is not paid again.
    """
    judge = _Judge(tokens, rules.duplicate_similarity, rules.append_classes)
    batches = _batches(class_sets, vocabulary, rules.max_rounds)
    most = max((batch.rounds for batch in batches), default=0)
    for number in range(most):
        wanting = [batch for batch in batches if batch.num_missing and number < batch.rounds]
        if not wanting:
            break
        for batch, answer in zip(wanting, _ask(writer, wanting, number, is_wanted), strict=True):
            batch.take(answer, judge)
        batches = [batch for batch in batches if not batch.is_awaited]
        if not is_wanted():
            cut_short = {id(batch) for batch in wanting if batch.num_missing}
            batches = [batch for batch in batches if id(batch) not in cut_short]
            break
    return [
        record for batch in batches for record in _records(batch, writer.name, rules.counterfactual)
    ]


def first_requests(class_sets: Sequence[ClassSet], vocabulary: Vocabulary) -> list[TextRequest]:
    """What a writer is asked for in the first round, one request a class set.

    Args:
        class_sets: The samples.
        vocabulary: Their classes.
    """
    return [batch.request(0) for batch in _batches(class_sets, vocabulary, 1)]


@dataclass(frozen=True)
class _Text:
    """A text that passed."""

    text: str
    mentions: tuple[Mention, ...]


@dataclass
class _Judge:
    """Decides which texts pass."""

    tokens: TokenCounter
    similarity: float | None
    appends: bool

    def judge(
        self, text: str, classes: Sequence[ClassRecord], others: Sequence[str]
    ) -> _Text | Problem:
        """Let a text pass, or say why not; `others` are the texts of its class set."""
        mentions = find_mentions(text, classes)
        mentioned = {mention.class_id for mention in mentions}
        absent = [record.name for record in classes if record.class_id not in mentioned]
        if absent:
            return Reason.CLASS_NOT_MENTIONED, f"no {' and no '.join(absent)} in {text!r}"
        if self.appends:
            text = f"{text}; {' '.join(record.detector_phrase for record in classes)}"
            mentions = find_mentions(text, classes)
        num_tokens, most = self.tokens.count_tokens(text), self.tokens.max_tokens
        if num_tokens > most:
            excess = f"{num_tokens} tokens, at most {most} are read: {text!r}"
            return Reason.TEXT_TOO_LONG, excess
        for other in others:
            if self.similarity is not None and likeness(text, other) >= self.similarity:
                return Reason.NEAR_DUPLICATE, f"{text!r} is too like {other!r}"
        return _Text(text, mentions)


@dataclass
class _Batch:
    """Samples of a class set, and the texts for the first of them."""

    samples: tuple[PlannedSample, ...]
    classes: tuple[ClassRecord, ...]
    passed: list[str]
    rounds: int
    is_awaited: bool = False
    texts: list[_Text] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def num_missing(self) -> int:
        return len(self.samples) - len(self.texts)

    def request(self, number: int) -> TextRequest:
        """What is asked for in a round."""
        return TextRequest(
            classes=self.classes,
            count=self.num_missing,
            seed=self.samples[0].seed,
            round=number,
            avoid=tuple(self.passed),
        )

    def take(self, answer: TextAnswer, judge: _Judge) -> None:
        """Take what passes; remember why the rest did not."""
        if answer.awaited:
            self.is_awaited = True
            return
        self.problems = []
        for text in answer.texts[: self.num_missing]:
            verdict = judge.judge(_cleaned(text), self.classes, self.passed)
            if isinstance(verdict, _Text):
                self.texts.append(verdict)
                self.passed.append(verdict.text)
            else:
                self.problems.append(verdict)
        if len(self.problems) < self.num_missing:
            reason = Reason.WRITER_REFUSED if answer.refused else Reason.WRITER_FAILED
            self.problems.append((reason, answer.failure or "failed: too few texts came back"))


def _batches(
    class_sets: Sequence[ClassSet], vocabulary: Vocabulary, max_rounds: int
) -> list[_Batch]:
    return [
        _Batch(
            each.samples,
            tuple(vocabulary[class_id] for class_id in each.samples[0].class_ids),
            list(each.known),
            max_rounds * (each.attempts + 1),
        )
        for each in class_sets
    ]


def _ask(
    writer: PromptWriter,
    batches: Sequence[_Batch],
    number: int,
    is_wanted: Callable[[], bool],
) -> list[TextAnswer]:
    requests = [batch.request(number) for batch in batches]
    try:
        if isinstance(writer, WaitingWriter):
            return writer.write_while(requests, is_wanted)
        return writer.write(requests)
    except TransientError as error:
        if is_wanted():  # what was answered is in the ledger: a repetition pays none of it again
            raise
        return [TextAnswer((), f"failed: {error}") for _ in requests]


def _records(batch: _Batch, writer: str, rule: CounterfactualRule) -> Iterator[Prompt | Rejected]:
    for index, sample in enumerate(batch.samples):
        if index < len(batch.texts):
            passed = batch.texts[index]
            yield Prompt(
                key=sample.key,
                text=passed.text,
                counterfactual_text=counterfactual_text(passed.text, passed.mentions, rule=rule),
                mentions=passed.mentions,
                writer=writer,
            )
        else:
            missing = index - len(batch.texts)
            reason, detail = batch.problems[min(missing, len(batch.problems) - 1)]
            yield Rejected(key=sample.key, stage=Stage.PROMPTS, reason=reason, detail=detail)


def _cleaned(text: str) -> str:
    """One line, composed characters, single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    profile = recipe.profile
    return {
        "vocabulary": load_vocabulary(profile.vocabulary).digest,
        "writer": profile.writer.identity(),
        "tokenizer": profile.painter.identity()["weights"],
        "rules": recipe.prompts.identity(),
    }


def _make(work: PieceWork) -> Made:
    profile, models = work.recipe.profile, work.machine.models
    known = (row for row in work.known_rows().values() if isinstance(row, Prompt))
    rows = write_prompts(
        cut_class_sets(work.samples, work.spec.texts_per_class_set, known, work.state.attempts),
        load_vocabulary(profile.vocabulary),
        models.model(profile.writer, work.store.objects),
        models.tokens(profile.painter),
        work.recipe.prompts,
        lambda: not work.machine.progress.is_stopping,
    )
    return Made.of_rows(rows)


DECLARATION = Declaration(
    stage=Stage.PROMPTS,
    version=1,
    inputs=(),
    role=Role.WRITER,
    model=lambda recipe: recipe.profile.writer,
    depends_on=_depends_on,
    make=_make,
    about="a writer gives a text that names every class; from where the names stand comes the "
    "counterfactual text",
)
