"""Steps as tasks of a flow: what a user interface shows, and what is tried again."""

import sys
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from storage.errors import DataError, InputError, LeaseHeldError
from tasks import step_tasks
from tasks.step_tasks import run_as_task
from tasks.steps import RunStep, StepOutcome

pytestmark = pytest.mark.server

PROGRAM = """
import sys
from pathlib import Path
folder, fails = Path(sys.argv[1]), sys.argv[2:]
tries = len(list(folder.glob("try-*")))
(folder / f"try-{tries}").touch()
if tries < len(fails):
    kind, code = fails[tries].split(":")
    print(f"error: {kind}: no luck")
    sys.exit(int(code))
(folder / "made").write_text("made")
"""


class Touching(RunStep[str]):
    """A step that makes a file, after as many failures as wanted."""

    kind = "touch"
    label = "making of a file"
    folder = Path()

    def __init__(self, folder: Path, *fails: str) -> None:
        self.folder = folder
        self._fails = fails

    def find(self) -> str | None:
        path = self.folder / "made"
        return path.read_text() if path.exists() else None

    def work(self) -> str:
        raise NotImplementedError

    def program(self) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(self.folder), *self._fails]

    def collect(self) -> str:
        return (self.folder / "made").read_text()


@flow
def once(step):
    return run_as_task(step)


@flow
def shown(step):
    state = step_tasks._step_task(step, return_state=True)
    return state.name


def test_a_step_is_done_by_its_program_and_then_found(server, tmp_path):
    step = Touching(tmp_path)
    assert once(step) == StepOutcome("made", found=False)
    assert once(step) == StepOutcome("made", found=True)
    assert len(list(tmp_path.glob("try-*"))) == 1


def test_a_step_that_was_done_before_is_shown_as_cached(server, tmp_path):
    assert shown(Touching(tmp_path)) == "Completed"
    assert shown(Touching(tmp_path)) == "Cached"


def test_a_task_run_has_the_name_of_its_step_whatever_that_is(server, tmp_path):
    step = Touching(tmp_path)
    step.label = "score of {the student} on voc21"
    state = once(step, return_state=True)
    with get_client(sync_client=True) as client:
        [found] = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id={"any_": [state.state_details.flow_run_id]})
        )
    assert found.name == step.label


@pytest.mark.slow
def test_what_may_work_later_is_tried_again(server, tmp_path):
    assert not once(Touching(tmp_path, "TransientError:3")).found
    assert len(list(tmp_path.glob("try-*"))) == 2


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        ("LeaseHeldError:3", LeaseHeldError),
        ("DataError:3", DataError),
        ("InputError:2", InputError),
    ],
)
def test_what_will_not_work_later_is_tried_once_and_keeps_its_kind(server, tmp_path, fail, kind):
    with pytest.raises(kind, match=r"^no luck$"):
        once(Touching(tmp_path, fail))
    assert len(list(tmp_path.glob("try-*"))) == 1
