"""The Hugging Face hub: small files from its cache or, in one short attempt, from the network."""

import re
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from storage.errors import InputError

_ATTEMPT_SECONDS = 3.0
_REMEMBERED_SECONDS = 60.0
_PART_OF_A_COMMIT = re.compile(r"[0-9a-f]{6,39}")


class _Silence:
    """Since when the hub does not answer, so that four models do not wait for it four times."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, endpoint: str) -> None:
        self._until[endpoint] = time.monotonic() + _REMEMBERED_SECONDS

    def lasts(self, endpoint: str) -> bool:
        return time.monotonic() < self._until.get(endpoint, 0.0)


_SILENCE = _Silence()


def is_offline() -> bool:
    """Whether the hub is not to be asked, or was asked and did not answer a moment ago."""
    return constants.HF_HUB_OFFLINE or _SILENCE.lasts(constants.ENDPOINT)


def find_on_hub(repository: str, name: str, revision: str) -> Path:
    """Find a small file of a hub repository in the cache, or download it.

    The hub's own client asks again and again for minutes when there is no network, so it is only
    called when the hub has answered one request within a few seconds.

    Raises:
        OSError: If the file is not in the cache and the hub does not answer.
    """
    cached = try_to_load_from_cache(
        repository, name, cache_dir=constants.HF_HUB_CACHE, revision=revision
    )
    if isinstance(cached, str):
        return Path(cached)
    if constants.HF_HUB_OFFLINE:
        message = f"{name} is not in the cache, and HF_HUB_OFFLINE is set"
        raise OfflineModeIsEnabled(message)
    if not _answers(constants.ENDPOINT):
        host = urlsplit(constants.ENDPOINT).hostname
        message = f"{name} is not in the cache, and {host} did not answer"
        raise ConnectionError(message)
    return Path(hf_hub_download(repository, name, revision=revision))


def whole_commit(repository: str, revision: str) -> str:
    """Return a revision unless it is a part of a commit, which the hub does not know.

    Raises:
        InputError: If it is; names the whole commit if the cache has it.
    """
    if not _PART_OF_A_COMMIT.fullmatch(revision):
        return revision
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}/snapshots"
    known = sorted(path.name for path in folder.glob(f"{revision}*"))
    whole = f", which is {known[0]}" if len(known) == 1 else ""
    message = (
        f"hub model {repository!r} has {revision!r} as its revision, expected all 40 digits of the "
        f"commit{whole}"
    )
    raise InputError(message)


def _answers(endpoint: str) -> bool:
    """Whether the hub answers at all; looking up its name has no time limit of its own."""
    if _SILENCE.lasts(endpoint):
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=_ATTEMPT_SECONDS)
        except Exception:  # noqa: BLE001 - two libraries with errors of their own
            return
        answered.set()

    thread = threading.Thread(target=ask, name="hub", daemon=True)
    thread.start()
    thread.join(_ATTEMPT_SECONDS)
    if not answered.is_set():
        _SILENCE.note(endpoint)
    return answered.is_set()
