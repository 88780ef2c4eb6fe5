"""Publication of a dataset on a Hugging Face hub: Parquet files and a card, in one commit.

    README.md                              the card, with the header that `datasets` reads
    data/train-<shard>-<content>.parquet   a shard; <content> stands for its samples, 12 hex digits

What a file is called says what is in it, so a shard whose file is on the hub is not even read.
Files are made, sent and removed one at a time, and one commit at the end names them all and takes
the old ones out: a push that was cut leaves the repository as it was. The next one makes the
missing files again, and the hub says which of them it has already.
"""

import hashlib
import logging
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo, RepoFile

from storage.errors import EngineError, InputError, TransientError
from storage.exports.parquet_tables import TABLE_VERSION, write_table
from storage.exports.source_shards import SourceShard
from storage.identity import digest
from storage.layout import CARD_PATH
from storage.records import Record
from storage.redaction import redacted
from storage.vocabulary import Vocabulary

__all__ = ["HubFile", "Publication", "PushPlan", "plan_push", "push_shards"]

_KIND = "dataset"
_OURS = re.compile(r"data/train-.+-[0-9a-f]{12}\.parquet")
_PERMISSION = (
    "set HF_TOKEN to a token that may write to it, or log in with 'hf auth login' "
    "(https://huggingface.co/settings/tokens)"
)
_LATER = "nothing was changed there, run the command again: what was sent is not sent again"

_FAILURES: tuple[type[Exception], ...] = (
    *HfHubHTTPError.__bases__,
    OSError,
    ValueError,
    RuntimeError,
)
"""What the client raises; the first is the error of whichever HTTP library it is built on."""

_log = logging.getLogger(__name__)


class HubFile(Record, frozen=True):
    """A file of the repository."""

    path: str
    """Where it is to be."""
    size: int
    """Bytes; of a file that is still to be made those of its tar, which come near."""


class PushPlan(Record, frozen=True):
    """What a push sends and what it leaves alone."""

    repository: str
    """`name` or `owner/name`."""
    exists: bool
    """Whether the repository is there; else it is made."""
    send: tuple[HubFile, ...]
    """Files that the hub lacks; the card if another one is there."""
    keep: tuple[HubFile, ...]
    """Shards that are there already."""
    remove: tuple[HubFile, ...]
    """Files of shards that have changed or are gone."""
    head: str = ""
    """The commit that all this is compared with; empty if there is none."""
    licence: str = ""
    """What the card's header says of it: what was asked for, or what it has said before."""


@dataclass(frozen=True)
class Publication:
    """What is to be on the hub.

    Attributes:
        shards: The tars, and what of them is left out.
        vocabulary: What their classes are of.
        card: Writes the contents of `README.md`, whose header names a licence or none.
        licence: That licence; if it is empty, the one that the hub's card has already.
    """

    shards: Sequence[SourceShard]
    vocabulary: Vocabulary
    card: Callable[[str], str]
    licence: str = ""

    def files(self) -> dict[str, SourceShard]:
        """The shards by the paths that they have on the hub, in the order of their names."""
        found: dict[str, SourceShard] = {}
        for shard in sorted(self.shards, key=lambda each: each.name):
            name = shard.name.removesuffix(".tar")
            content = digest([TABLE_VERSION, shard.content])[:12]
            stem = name if name.startswith("train-") else f"train-{name}"
            found[f"data/{stem}-{content}.parquet"] = shard
        return found


def plan_push(api: HfApi, repository: str, publication: Publication) -> PushPlan:
    """Compare a repository with a dataset; changes nothing.

    Args:
        api: The hub's client: endpoint and token.
        repository: `name` or `owner/name`.
        publication: What is to be there.

    Raises:
        InputError: The name cannot be, the hub knows no such token, or does not allow to look.
        TransientError: The hub does not answer.
    """
    wanted, licence = publication.files(), publication.licence
    with _explained(api, repository):
        try:
            info = api.dataset_info(repository)
            head = str(info.sha or "")
            licence = licence or _licence_of(info)
            tree = api.list_repo_tree(repository, recursive=True, repo_type=_KIND)
            found = {each.path: each for each in tree if isinstance(each, RepoFile)}
            exists = True
        except RepositoryNotFoundError:
            head, found, exists = "", dict[str, RepoFile](), False
    there = {path: each.size for path, each in found.items()}
    card = publication.card(licence).encode()
    is_new = CARD_PATH not in found or found[CARD_PATH].blob_id != _git_hash(card)
    ours = [path for path in there if _OURS.fullmatch(path)]
    return PushPlan(
        repository=repository,
        exists=exists,
        send=_files(
            [
                *([(CARD_PATH, len(card))] if is_new else []),
                *((path, wanted[path].num_bytes) for path in wanted if path not in there),
            ]
        ),
        keep=_files((path, there[path]) for path in wanted if path in there),
        remove=_files((path, there[path]) for path in ours if path not in wanted),
        head=head,
        licence=licence,
    )


def push_shards(
    api: HfApi,
    plan: PushPlan,
    publication: Publication,
    *,
    public: bool = False,
    note: Callable[[str], None] = _log.info,
) -> str:
    """Send what a plan says, and commit it at once.

    Args:
        api: The hub's client: endpoint and token.
        plan: What `plan_push` found.
        publication: What the plan was made for.
        public: Whether a repository that has to be made can be read by everybody.
        note: Told of each file.

    Returns:
        The URL of the commit; nothing if the hub has it all.

    Raises:
        DataError: A shard is damaged.
        InputError: There is no token, or the hub does not allow to write.
        TransientError: The hub does not answer, or somebody else has pushed meanwhile.
    """
    require_token(api)
    if not plan.send and not plan.remove:
        return ""
    sending = {each.path for each in plan.send}
    shards = {path: each for path, each in publication.files().items() if path in sending}
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete(each.path) for each in plan.remove
    ]
    if CARD_PATH in sending:
        operations.append(CommitOperationAdd(CARD_PATH, publication.card(plan.licence).encode()))
    head = plan.head
    if not plan.exists:
        with _explained(api, plan.repository):
            api.create_repo(plan.repository, repo_type=_KIND, private=not public, exist_ok=True)
            head = str(api.repo_info(plan.repository, repo_type=_KIND).sha or "")
    with tempfile.TemporaryDirectory(prefix="magicseg-push-") as folder:
        for number, (path, shard) in enumerate(shards.items(), start=1):
            place = Path(folder) / f"{number}.parquet"
            if not write_table(shard.samples(publication.vocabulary), place):
                note(f"{path} would be empty: all of its samples are left out")
                continue
            note(f"{number} of {len(shards)}: {path}, {place.stat().st_size:,} bytes")
            operations.append(_send(api, plan.repository, path, place))
        with _explained(api, plan.repository):
            done = api.create_commit(
                plan.repository,
                operations,
                commit_message=f"{len(shards)} new shards, {len(plan.keep)} as they were",
                repo_type=_KIND,
                parent_commit=head or None,
            )
    return str(done.commit_url)


def _licence_of(info: DatasetInfo) -> str:
    """The licence that the card on the hub has, if it has one."""
    found: Any = info.card_data.get("license") if info.card_data else None
    return found if isinstance(found, str) else ""


def _git_hash(data: bytes) -> str:
    """What git calls a small file; of large ones a repository has a pointer."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def require_token(api: HfApi) -> None:
    """Raise InputError unless there is a token; it is neither shown nor tried."""
    if not (api.token or get_token()):
        message = f"there is no token for {api.endpoint}: {_PERMISSION}"
        raise InputError(message)


def _send(api: HfApi, repository: str, path: str, place: Path) -> CommitOperationAdd:
    """Send a file, and remove it here if the hub has it: the commit needs its digest alone."""
    operation = CommitOperationAdd(path, place)
    with _explained(api, repository):
        api.preupload_lfs_files(repository, [operation], repo_type=_KIND)
    if getattr(operation, "_is_uploaded", False):  # what is small may go with the commit
        place.unlink()
    return operation


def _files(found: Iterable[tuple[str, int]]) -> tuple[HubFile, ...]:
    return tuple(HubFile(path=path, size=size) for path, size in sorted(found))


@contextmanager
def _explained(api: HfApi, repository: str) -> Generator[None]:
    """Say in our words what the hub's client raises; no header and no token is part of them."""
    try:
        yield
    except HFValidationError as error:
        message = f"{repository!r} is no name of a repository, expected owner/name: {error}"
        raise InputError(message) from None
    except OfflineModeIsEnabled:
        message = "HF_HUB_OFFLINE is set, and a push needs the hub: unset it"
        raise InputError(message) from None
    except _FAILURES as error:
        raise _translated(api, repository, error) from None


def _translated(api: HfApi, repository: str, error: BaseException) -> EngineError:
    found = _answer(error)
    if found is None:
        cause = error.__cause__ or error
        said = redacted(f"{type(cause).__name__}: {cause}".splitlines()[0])
        return TransientError(f"{api.endpoint} could not be asked ({said}); {_LATER}")
    status, said = found.response.status_code, redacted(found.server_message or "no reason given")
    if status == 401:
        return InputError(f"{api.endpoint} does not know the token (401, {said}): {_PERMISSION}")
    if status == 403:
        message = f"the token may not write to {repository} (403, {said}): {_PERMISSION}"
        return InputError(message)
    if status in (409, 412):
        message = f"somebody else has changed {repository} meanwhile ({status}, {said}); {_LATER}"
        return TransientError(message)
    if status == 429 or status >= 500:
        return TransientError(f"{api.endpoint} answered {status} ({said}); {_LATER}")
    return InputError(f"{api.endpoint} refused {repository} ({status}, {said})")


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    """The answer of the hub behind an error, if there was one."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error
