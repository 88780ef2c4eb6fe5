"""Loading ahead: the models that a shard needs first are built while its run still starts."""

import contextlib
import logging
import threading
from collections.abc import Iterator

from models.registry import Need, kind_of
from models.writing.chat_config import ChatWriterConfig
from storage.records import Stage
from tasks.earlier_layout import earlier_stages
from tasks.progress import StoppedError
from tasks.stages import STAGES
from tasks.work import ShardWork

_PATIENCE_SECONDS = 20.0

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def loading_ahead(work: ShardWork) -> Iterator[None]:
    """Build the models that a shard's next stages need, in a thread, until the block ends.

    Nobody has to wait for them here: the stage that asks for one waits, or builds it itself. What
    goes wrong is not told here either, because it does so again in that stage, which says whose
    work it was; and a model that no stage asks for is no loss. When the block ends, the one that is
    being built is finished, the run's machine is stopped, and no further one is begun. Somebody who
    interrupts the run waits for it a while only.

    Args:
        work: The shard that is made first; of a run whose work ends with the block.
    """
    # a daemon, so that a process can end that was interrupted
    thread = threading.Thread(target=_load, args=(work,), name="loading-ahead", daemon=True)
    thread.start()
    patience = None
    try:
        yield
    except Exception:
        raise
    except BaseException:
        patience = _PATIENCE_SECONDS
        raise
    finally:
        work.machine.progress.stop()
        thread.join(patience)


def next_stages(work: ShardWork) -> list[Stage]:
    """The stages of a shard that will need their models first; nothing if it is only to be packed.

    That is the first one that has samples to decide about. Texts come quickly, so with them it is
    the painting too, unless their answers may come hours later.
    """
    stages = list(work.keys.inputs)
    earlier = earlier_stages(work)
    for number, stage in enumerate(stages):
        if stage not in earlier and any(state.missing(stage) for state in work.states()):
            comes_at_once = stage is Stage.PROMPTS and not _may_wait(work)
            return stages[number : number + 2] if comes_at_once else [stage]
    return []


def _may_wait(work: ShardWork) -> bool:
    writer = work.recipe.profile.writer
    return isinstance(writer, ChatWriterConfig) and writer.mode != "sync"


def _load(work: ShardWork) -> None:
    try:
        for stage in next_stages(work):
            _load_for(stage, work)
    except StoppedError:
        return
    except Exception:  # noqa: BLE001 - it is met again where the model, or the record, is needed
        _log.info("a model could not be loaded ahead", exc_info=True)


def _load_for(stage: Stage, work: ShardWork) -> None:
    machine, declaration = work.machine, STAGES[stage]
    machine.progress.check(f"the loading of models for {stage}")
    if stage is Stage.PROMPTS:
        machine.models.tokens(work.recipe.profile.painter)
    config = declaration.model(work.recipe)
    if config is None or kind_of(config).need is not Need.DEVICE:
        return
    # the weights share the device with what others compute on it
    with machine.turns.turn(config.device, of=work.shard.name):
        machine.models.model(config, work.store.objects)
