"""What the lines of a batch mean: the same as the replies to calls that are made at once."""

import json

from models.writing.batch_lines import ResultLine
from models.writing.chat_config import EndpointConfig
from models.writing.dialects import explained_fault
from models.writing.faults import read_fault
from storage.errors import EngineError


def judge_line(line: ResultLine, config: EndpointConfig, *, is_proven: bool) -> EngineError:
    """Say what a line without an answer means for its call.

    Args:
        line: What came of the call.
        config: Whom it was asked of.
        is_proven: Whether other calls of the batch were answered.

    Returns:
        DeclinedError for a filter, RefusedError for what is wrong with this request alone,
        TransientError for what may work later, InputError for what somebody must change.
    """
    body = line.body or {"error": {"code": line.code, "message": line.words}}
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return explained_fault(read_fault(line.status, {}, text), config, is_proven=is_proven)
