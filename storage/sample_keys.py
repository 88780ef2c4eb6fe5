"""Sample keys: each of them in one tar only, whatever datasets the tars come from."""

from collections.abc import Iterable

from storage.errors import DataError


class UniqueKeys:
    """Knows in which tar each sample was met first.

    Keys of two datasets of one slice were the same before a dataset had a part in them.
    """

    def __init__(self) -> None:
        self._tars: dict[str, str] = {}

    def add(self, keys: Iterable[str], tar: str) -> None:
        """Note the samples of a tar.

        Args:
            keys: Their keys.
            tar: Its path or URL.

        Raises:
            DataError: One of them is in another tar too; names both.
        """
        for key in keys:
            first = self._tars.setdefault(key, tar)
            if first != tar:
                message = (
                    f"sample {key} is in {first} and in {tar}, expected it in one tar: if the two "
                    "are of different datasets, join these by 'magicseg merge', which gives their "
                    "samples keys of their own; if one is a copy of the other, remove it"
                )
                raise DataError(message)
