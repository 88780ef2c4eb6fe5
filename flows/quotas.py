"""Quotas: extra samples for classes that yield little, until each has as many as it should.

The extras of a class are the slice of that class alone. They are planned in rounds; a round asks
for as many as the yield so far promises to be enough, in whole class sets. What a round asks for
follows from the parameters and from what became of the samples before it, so whoever looks at the
records comes to the same rounds: on any machine, after a kill, and when all is done.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from pydantic import Field

from flows.generation_run import GenerationRun
from storage.checks import DamagedError
from storage.commits import ClassOutcomes, Commit
from storage.errors import IncompleteError
from storage.plan import ShardRange, most_samples
from storage.records import Reason, Record
from storage.tallies import Tally
from storage.vocabulary import load_vocabulary

Job = tuple[GenerationRun, ShardRange]
"""A shard to be made, and the run that it belongs to."""

_PROBE = 40
"""Most extra samples of a class before one of them was written: they tell whether any will be."""

_BARREN_ROUNDS = 2
"""Rounds in a row of which no sample was written, after which a class gets no more."""

_log = logging.getLogger(__name__)

_NOTHING = ClassOutcomes(planned=0, written=0)


class ClassQuota(Record, frozen=True):
    """How far a class is from its quota."""

    class_id: int
    """Vocabulary index."""
    name: str
    """Display name."""
    planned: int
    """Samples of the slice that name it."""
    written: int
    """Of these, samples whose label map holds it."""
    extra: int
    """Extra samples planned."""
    extra_written: int
    """Of these, samples written."""
    dropped: dict[str, int]
    """The other extra samples, by reason."""
    short: str = ""
    """Why it stays short; empty if it has enough or its extras are still to be made."""

    @property
    def total(self) -> int:
        """Written samples of the class."""
        return self.written + self.extra_written


class QuotaReport(Record, frozen=True):
    """Which classes have as many written samples as they should."""

    min_per_class: int
    """As many as each class should have."""
    most_extra: int
    """Extra samples that may be planned over all classes."""
    rounds: int
    """Rounds of extra samples so far."""
    shards: int = 0
    """Shards that hold them."""
    waits_for: int = Field(default=0, ge=0)
    """Shards of the slice that are to be finished before extras are planned."""
    classes: tuple[ClassQuota, ...] = ()
    """The classes that have extras or are short, by id."""

    @property
    def extra(self) -> int:
        """Extra samples planned, over all classes."""
        return sum(each.extra for each in self.classes)

    @property
    def extra_written(self) -> int:
        """Of these, samples written."""
        return sum(each.extra_written for each in self.classes)

    @property
    def short(self) -> tuple[ClassQuota, ...]:
        """The classes that stay short."""
        return tuple(each for each in self.classes if each.short)


@dataclass(frozen=True)
class Survey:
    """What is finished of a run, and what is to be made next.

    Attributes:
        todo: Shards that are to be made now; more may follow from what becomes of them.
        tally: Where the samples of the finished shards of the slice went.
        quota: How far the classes are, if the run has a quota.
        commits: The records of the finished shards by slice and name.
    """

    todo: tuple[Job, ...]
    tally: Tally
    quota: QuotaReport | None
    commits: Mapping[str, Mapping[str, Commit]]

    def require_samples(self, run: GenerationRun) -> None:
        """Refuse to call a run done of which nothing was written.

        Raises:
            IncompleteError: All that it was asked for is finished and empty.
        """
        extra_written = self.quota.extra_written if self.quota is not None else 0
        if self.todo or self.tally.written or extra_written:
            return
        reasons = ", ".join(f"{why} {count}" for why, count in self.tally.dropped.most_common())
        message = (
            f"slice {run.classes.label} has no sample: all {self.tally.requested} were dropped "
            f"({reasons}); see what is wrong with the models or the rules before making more"
        )
        raise IncompleteError(message)


@dataclass
class _Claim:
    """What a class has and has been given so far.

    Attributes:
        class_id: Vocabulary index.
        of_slice: What became of its samples of the slice.
        start: Where its extras begin in the slice of the class alone.
        stop: Where they end so far.
        written: Extras written.
        dropped: The others, by reason.
        barren: Rounds in a row without a written sample.
        shards: Shards that hold the extras.
    """

    class_id: int
    of_slice: ClassOutcomes
    start: int
    stop: int
    written: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter[Reason])
    barren: int = 0
    shards: int = 0

    def need(self, quota: int) -> int:
        """Extra samples that are likely to be enough, by the yield so far; 0 for no more.

        The samples of the slice may name two classes, so as soon as there are extras these alone
        tell the yield. One more than was counted is taken as planned and as written: no yield is 0.
        """
        lacking = quota - self.of_slice.written - self.written
        if lacking <= 0 or self.barren >= _BARREN_ROUNDS:
            return 0
        extra = self.stop - self.start
        planned, written = self.of_slice.planned, self.of_slice.written
        if extra:
            planned, written = extra, self.written
        enough = -(-lacking * (planned + 1) // (written + 1))
        return enough if self.written else min(enough, _PROBE)

    def take(self, stop: int, outcome: Tally, shards: int) -> None:
        """Note what became of the extras when they were extended."""
        brought = outcome.written - self.written
        self.barren = 0 if brought else self.barren + 1
        self.stop, self.shards = stop, shards
        self.written, self.dropped = outcome.written, outcome.dropped

    def why_short(self, quota: int, *, fits: bool) -> str:
        """Why it gets no more extras; nothing if it has enough.

        Args:
            quota: Written samples that it should have.
            fits: Whether its slice could still grow.
        """
        if self.of_slice.written + self.written >= quota:
            return ""
        if self.barren >= _BARREN_ROUNDS:
            return f"of the last {_BARREN_ROUNDS} rounds of extras none was written"
        return "max_extra allows no more extras" if fits else "its slice cannot grow any more"


def survey(run: GenerationRun) -> Survey:
    """Find what is finished of a run, and what is to be made next; changes nothing.

    Raises:
        DamagedError: A manifest that tells the fate of samples is damaged.
    """
    quota = run.parameters.min_per_class
    commits: dict[str, dict[str, Commit]] = {}
    for name, commit in run.store.log.shards("" if quota else run.classes.slice_id).items():
        commits.setdefault(commit.slice_id, {})[name] = commit
    own = commits.get(run.classes.slice_id, {})
    finished = run.look(own)
    todo = tuple((run, shard) for shard in run.planned if shard.name not in finished)
    tally = _count(run, finished, run.planned)
    if quota is None:
        return Survey(todo, tally, None, commits)
    whole = run.whole()
    there = finished if whole is run else whole.look(own)
    waits_for = len(whole.planned) - len(there)
    if waits_for:
        report = QuotaReport(
            min_per_class=quota, most_extra=_most_extra(run), rounds=0, waits_for=waits_for
        )
        return Survey(todo, tally, report, commits)
    outcomes = (tally if whole is run else _count(run, there, whole.planned)).classes
    jobs, report = _Rounds(run, quota, commits).replay(outcomes)
    return Survey(jobs, tally, report, commits)


def try_survey(run: GenerationRun) -> Survey | None:
    """The same; nothing, with a word in the log, if damage hides it: the run will mend that."""
    try:
        return survey(run)
    except DamagedError as error:
        _log.warning("%s; the run makes it again", error)
        return None


def _count(
    run: GenerationRun, finished: Mapping[str, Commit], shards: Sequence[ShardRange], start: int = 0
) -> Tally:
    """Count the samples of finished shards, as far as they are asked for and not before `start`."""
    wanted = [shard for shard in shards if shard.name in finished and shard.stop > start]
    parts = [
        run.tallies.of(finished[shard.name], max(shard.start, start), shard.stop)
        for shard in wanted
    ]
    return sum(parts, Tally())


def _most_extra(run: GenerationRun) -> int:
    """Extra samples that may be planned; the share is taken as it was written."""
    return int(Fraction(repr(run.parameters.max_extra)) * run.parameters.samples)


def _holding(run: GenerationRun, start: int) -> int:
    """Shards that hold samples from `start` on."""
    return sum(shard.stop > start for shard in run.planned)


class _Rounds:
    """The rounds of extras of a run, replayed from the records.

    Args:
        run: The run.
        quota: Written samples that each class should have.
        commits: The records of the finished shards by slice and name.
    """

    def __init__(
        self, run: GenerationRun, quota: int, commits: Mapping[str, Mapping[str, Commit]]
    ) -> None:
        self._run = run
        self._quota = quota
        self._commits = commits
        self._most = _most_extra(run)
        self._longest = most_samples(run.spec)
        self._class_set = run.spec.texts_per_class_set

    def replay(self, outcomes: Mapping[int, ClassOutcomes]) -> tuple[tuple[Job, ...], QuotaReport]:
        """Go through the rounds until one is not finished, or no more are needed.

        Args:
            outcomes: What became of the samples of the slice, by class.

        Returns:
            The shards of the unfinished round that are to be made, and how far the classes are.
        """
        class_ids = self._run.classes.class_ids
        # the slice of a single class goes on with its own extras
        start = self._run.parameters.samples if len(class_ids) == 1 else 0
        claims = [_Claim(i, outcomes.get(i, _NOTHING), start, start) for i in class_ids]
        rounds = 0
        while stops := self._next_round(claims):
            rounds += 1
            todo: list[Job] = []
            taken: list[tuple[_Claim, GenerationRun, Tally]] = []
            for claim in claims:
                if claim.class_id not in stops:
                    continue
                extras = self._run.of_class(claim.class_id, stops[claim.class_id])
                finished = extras.look(self._commits.get(extras.classes.slice_id, {}))
                left = [shard for shard in extras.planned if shard.name not in finished]
                todo += [(extras, shard) for shard in left]
                outcome = Tally() if left else _count(self._run, finished, extras.planned, start)
                taken.append((claim, extras, outcome))
            if todo:
                for claim, extras, _ in taken:
                    claim.stop, claim.shards = extras.parameters.samples, _holding(extras, start)
                return tuple(todo), self._report(claims, rounds, over=False)
            for claim, extras, outcome in taken:
                claim.take(extras.parameters.samples, outcome, _holding(extras, start))
        return (), self._report(claims, rounds, over=True)

    def _next_round(self, claims: Sequence[_Claim]) -> dict[int, int]:
        """Where the extras of each class end after the next round, for those that get more.

        What `max_extra` leaves is handed out one class set at a time, to each class in turn.
        """
        left = self._most - sum(claim.stop - claim.start for claim in claims)
        needs = {claim.class_id: claim.stop + claim.need(self._quota) for claim in claims}
        stops = {claim.class_id: claim.stop for claim in claims}
        waiting = [claim.class_id for claim in claims]
        while waiting:
            served: list[int] = []
            for class_id in waiting:
                at = stops[class_id]
                end = self._end_of_class_set(at)
                if at < needs[class_id] and end - at <= left and end <= self._longest:
                    stops[class_id] = end
                    left -= end - at
                    served.append(class_id)
            waiting = served
        return {c.class_id: stops[c.class_id] for c in claims if stops[c.class_id] > c.stop}

    def _end_of_class_set(self, position: int) -> int:
        return (position // self._class_set + 1) * self._class_set

    def _report(self, claims: Sequence[_Claim], rounds: int, *, over: bool) -> QuotaReport:
        vocabulary = load_vocabulary(self._run.spec.vocabulary)
        classes: list[ClassQuota] = []
        for claim in claims:
            fits = self._end_of_class_set(claim.stop) <= self._longest
            short = claim.why_short(self._quota, fits=fits) if over else ""
            if claim.stop > claim.start or short:
                dropped = sorted(claim.dropped.items())
                classes.append(
                    ClassQuota(
                        class_id=claim.class_id,
                        name=vocabulary[claim.class_id].name,
                        planned=claim.of_slice.planned,
                        written=claim.of_slice.written,
                        extra=claim.stop - claim.start,
                        extra_written=claim.written,
                        dropped={reason.value: count for reason, count in dropped},
                        short=short,
                    )
                )
        return QuotaReport(
            min_per_class=self._quota,
            most_extra=self._most,
            rounds=rounds,
            shards=sum(claim.shards for claim in claims),
            classes=tuple(classes),
        )
