"""Where the samples of a shard are, in a few dozen bytes a sample."""

from collections.abc import Mapping, Sequence

import numpy as np

from storage.sample_members import Extent, SampleParts, sample_parts


class ShardIndex:
    """The samples of a shard by place.

    Args:
        samples: Members of each sample by extension, by its key, see `storage.shards.read_index`.
    """

    def __init__(self, samples: Mapping[str, Mapping[str, Extent]]) -> None:
        self.keys: Sequence[str] = tuple(samples)
        # samples of one shard are of few kinds
        kinds = dict.fromkeys(sample_parts(members) for members in samples.values())
        self._kinds = list(kinds)
        numbers = {kind: number for number, kind in enumerate(kinds)}
        most = max((len(kind.every) for kind in kinds), default=0)
        self._kind_of = np.zeros(len(samples), np.uint8)  # (samples,)
        self._extents = np.zeros((len(samples), most, 2), np.int64)  # offset and size of each part
        for place, members in enumerate(samples.values()):
            parts = sample_parts(members)
            self._kind_of[place] = numbers[parts]
            for part, extension in enumerate(parts.every):
                self._extents[place, part] = members[extension]

    def __len__(self) -> int:
        return len(self.keys)

    def parts(self, place: int) -> SampleParts:
        """What is what among the members of a sample."""
        return self._kinds[self._kind_of[place]]

    def extents(self, place: int) -> list[Extent]:
        """Offset and size of each of its parts, in the order of `SampleParts.every`."""
        count = len(self.parts(place).every)
        return [(offset, size) for offset, size in self._extents[place, :count].tolist()]
