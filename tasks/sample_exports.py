"""Sample exports: all samples of a dataset, as another tool reads them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from models.outlines import outline
from storage.exports.fiftyone import FiftyOneForm
from storage.exports.sample_folders import ExportedSamples, export_samples
from storage.exports.samples import SampleForm, describe_source
from storage.exports.source_shards import SourceShard
from storage.exports.yolo import YoloForm
from storage.vocabulary import Vocabulary
from training.data import find_shards

SAMPLE_FORMS: Mapping[str, Callable[[Vocabulary], SampleForm]] = {
    "yolo": lambda vocabulary: YoloForm(vocabulary, outline),
    "fiftyone": FiftyOneForm,
}
"""What makes each form, by its name."""


def export_all_samples(
    dataset: str, form: str, vocabulary: Vocabulary, out: Path
) -> ExportedSamples:
    """Export the shards of a dataset that are not degraded, without the samples left out of it.

    Args:
        dataset: Its root, or a folder of tars.
        form: A name in `SAMPLE_FORMS`.
        vocabulary: What its class indices mean.
        out: Folder of the export.

    Raises:
        DataError: A shard is damaged.
        InputError: There is no shard, or the folder holds something else.
        LeaseHeldError: Somebody else exports there.
    """
    tars = [
        SourceShard(each.path, each.identity, each.excluded, each.corrected)
        for each in find_shards(dataset)
    ]
    words = describe_source(dataset)
    return export_samples(tars, SAMPLE_FORMS[form](vocabulary), vocabulary, words, out)
