"""Settling: what came of a batch goes into the ledger, line by line, whatever order it has."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.writing.batch_judging import judge_line
from models.writing.batch_lines import ResultLine, read_requests, read_results
from models.writing.calls import DeclinedError, RefusedError
from models.writing.chat_config import EndpointConfig
from models.writing.paid_answers import paid_answer
from storage.batch_jobs import BatchEnd, BatchIntent, Fate, NoAnswer
from storage.errors import InputError
from storage.ledger import Ledger

_log = logging.getLogger(__name__)

_WRITERS = 16
_STEP = 256
"""Answers that are written down between two looks at whether to go on."""
_SHOWN = 300
"""Characters of a message that are kept of a call without an answer."""


@dataclass(frozen=True)
class Settled:
    """What came of a batch.

    Attributes:
        end: What is written down of it.
        refusal: Why the service refused calls that it would refuse again; nothing if it did not.
    """

    end: BatchEnd
    refusal: InputError | None


class Settlement:
    """Takes in what came of one batch; one that was cut short is simply begun again.

    Args:
        ledger: Where the answers go.
        intent: The batch.
        now: The present time.
        check: Called now and then; what it raises ends the work.
    """

    def __init__(
        self, ledger: Ledger, intent: BatchIntent, now: datetime, check: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._intent = intent
        self._now = now
        self._check = check
        self._about = ledger.batches.about(intent.job)
        self._asked = EndpointConfig(
            model=intent.model, base_url=intent.base_url, api_key_env=None, prices=intent.prices
        )

    def concerns(self, data: bytes) -> bool:
        """Whether a file has a line about a call of the batch."""
        return any(line.key in self._about for line in read_results(data))

    def settle(self, files: Iterable[bytes], status: str) -> Settled:
        """Write the answers down, and say what became of every call.

        Args:
            files: Output files and error files, in any order.
            status: The service's last word on the batch.
        """
        lines, repeated, unknown = self._by_key(files)
        answers = [line for line in lines.values() if line.is_answer]
        self._add(answers)
        unanswered: dict[str, NoAnswer] = {}
        refusal: InputError | None = None
        for key in self._about:
            line = lines.get(key)
            if line is None:
                unanswered[key] = self._unmentioned(status)
            elif not line.is_answer:
                unanswered[key], error = self._judged(line, is_proven=bool(answers))
                refusal = refusal or error
        end = BatchEnd(
            status=status,
            answered=len(self._about) - len(unanswered),
            repeated=repeated,
            unknown=unknown,
            unanswered=unanswered,
            ended=self._now,
        )
        self._report(end)
        return Settled(end, refusal)

    def _by_key(self, files: Iterable[bytes]) -> tuple[dict[str, ResultLine], int, int]:
        """The line that counts for each call: an answer before anything else, then the first."""
        found: dict[str, ResultLine] = {}
        repeated = unknown = 0
        for line in (line for file in files for line in read_results(file)):
            if line.key not in self._about:
                unknown += 1
                continue
            before = found.get(line.key)
            repeated += before is not None
            if before is None or (line.is_answer and not before.is_answer):
                found[line.key] = line
        return found, repeated, unknown

    def _add(self, lines: list[ResultLine]) -> None:
        bodies = read_requests(self._ledger.batches.requests(self._intent.job), self._intent.job)
        with ThreadPoolExecutor(_WRITERS) as pool:
            for start in range(0, len(lines), _STEP):
                self._check()
                step = lines[start : start + _STEP]
                list(pool.map(lambda line: self._file(line, bodies.get(line.key, {})), step))

    def _file(self, line: ResultLine, body: dict[str, Any]) -> None:
        """File an answer, unless a settlement that was cut short has done so."""
        response = line.response or {}
        found = self._ledger.find(line.key)
        if found is not None and found.response == response:
            return
        request = {"base_url": self._intent.base_url, "body": body, **self._about[line.key]}
        seconds = max(0.0, (self._now - self._intent.created).total_seconds())
        self._ledger.add(paid_answer(line.key, request, response, self._intent.prices, seconds))

    def _unmentioned(self, status: str) -> NoAnswer:
        """A batch that ran to its end has failed what it says nothing of; a file may be a part."""
        is_whole = status == "completed" and self._intent.door == "service"
        fate = Fate.FAILED if is_whole else Fate.OPEN
        return NoAnswer(fate=fate, message=f"the batch is {status} and says nothing of it")

    def _judged(self, line: ResultLine, *, is_proven: bool) -> tuple[NoAnswer, InputError | None]:
        if line.is_unfinished:
            return NoAnswer(fate=Fate.OPEN, message=line.words[:_SHOWN] or line.code), None
        error = judge_line(line, self._asked, is_proven=is_proven)
        self._ledger.add_error(line.key, str(error))
        said = str(error)[:_SHOWN]
        if isinstance(error, DeclinedError):
            return NoAnswer(fate=Fate.DECLINED, message=said), None
        if isinstance(error, InputError) and not isinstance(error, RefusedError):
            return NoAnswer(fate=Fate.OPEN, message=said), error
        return NoAnswer(fate=Fate.FAILED, message=said), None

    def _report(self, end: BatchEnd) -> None:
        fates = Counter(each.fate.value for each in end.unanswered.values())
        rest = ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()))
        _log.info(
            "batch %s is %s: %d calls answered%s",
            self._intent.job,
            end.status,
            end.answered,
            f", {rest}" if rest else "",
        )
        if end.unknown:
            _log.warning(
                "batch %s: %d lines are about no call of it, or cannot be read; they are left out",
                self._intent.job,
                end.unknown,
            )
        if end.repeated:
            _log.warning(
                "batch %s: %d calls came more than once; each is counted once",
                self._intent.job,
                end.repeated,
            )
