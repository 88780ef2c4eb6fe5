"""What keeps a dataset's specification whole: a checksum in it, and a second copy beside it.

Datasets of version 0.1 have neither until the next run: then the copy is written.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from storage.errors import DataError, InputError
from storage.identity import canonical_json
from storage.layout import SPEC_COPY_PATH, SPEC_PATH
from storage.objects import ObjectStore
from storage.quarantine import put_aside

_CHECKSUM = "checksum"
_FIELDS = {"scheme", "spec"}
_REPAIR = "run 'magicseg verify --repair', which restores it from its copy"
_LOST = "its copy is no better: restore it from a copy of your own"


@dataclass(frozen=True)
class SpecificationDamage:
    """One of the two files is not as it was written.

    Attributes:
        path: Which one.
        problem: What was found.
        restored: The bytes that belong there; nothing if the other one is lost too.
    """

    path: str
    problem: str
    restored: bytes | None

    @property
    def way_out(self) -> str:
        """What to do."""
        return _LOST if self.restored is None else _REPAIR

    def mend(self, objects: ObjectStore) -> bool:
        """Put the file aside and write it anew; returns whether that was possible."""
        if self.restored is None:
            return False
        put_aside(objects, [self.path], self.problem)
        objects.replace(self.path, self.restored)
        return True


def seal(scheme: Any, spec: Any) -> bytes:
    """Write a specification with its checksum, the SHA-256 of the rest as canonical JSON."""
    contents = {"scheme": scheme, "spec": spec}
    found = hashlib.sha256(canonical_json(contents)).hexdigest()
    return canonical_json({_CHECKSUM: found, **contents})


def keep_copy(objects: ObjectStore) -> None:
    """Write the copy of a specification that has just been read or written, if there is none."""
    if objects.size(SPEC_COPY_PATH) is None:
        contents = json.loads(objects.read(SPEC_PATH))
        objects.write_new(SPEC_COPY_PATH, seal(contents["scheme"], contents["spec"]))


def find_damage(objects: ObjectStore) -> list[SpecificationDamage]:
    """Say which of the two files are not as they were written; nothing if there is no dataset."""
    data, copy = _read(objects, SPEC_PATH), _read(objects, SPEC_COPY_PATH)
    if data is None and copy is None:
        return []
    sealed, problem = _look(data)
    copied, copy_problem = _look(copy)
    if copied is not None and not problem and sealed != copied:
        own = data is not None and _CHECKSUM in json.loads(data)
        problem, copy_problem = ("", "differs from it") if own else ("differs from its copy", "")
    if data is not None and not problem and copy is None and _CHECKSUM not in json.loads(data):
        return []  # of version 0.1
    found: list[SpecificationDamage] = []
    if problem:
        found.append(SpecificationDamage(SPEC_PATH, problem, None if copy_problem else copied))
    if copy_problem:
        found.append(SpecificationDamage(SPEC_COPY_PATH, copy_problem, None if problem else sealed))
    return found


def require_whole(objects: ObjectStore) -> None:
    """Refuse a specification that is not as it was written.

    Raises:
        DataError: It is gone, cannot be read, or differs from its checksum or its copy.
    """
    for damage in find_damage(objects):
        if damage.path == SPEC_PATH:
            message = f"{objects.url}/{damage.path} {damage.problem}; {damage.way_out}"
            raise DataError(message)


def _read(objects: ObjectStore, path: str) -> bytes | None:
    try:
        return objects.read(path)
    except FileNotFoundError:
        return None


def _look(data: bytes | None) -> tuple[bytes | None, str]:
    """The sealed form of a file, and what is wrong with it."""
    if data is None:
        return None, "is gone"
    try:
        contents: Any = json.loads(data)
        fields = set(contents)
        if fields - {_CHECKSUM} != _FIELDS:
            names = ", ".join(sorted(map(str, fields))) or "nothing"
            return None, f"cannot be read (it has {names}, expected scheme and spec)"
        sealed = seal(contents["scheme"], contents["spec"])
    except (ValueError, TypeError, RecursionError, InputError) as error:
        return None, f"cannot be read ({error})"
    if _CHECKSUM in fields and sealed != data:
        return None, "is not as it was written: its contents do not give its checksum"
    return sealed, ""
