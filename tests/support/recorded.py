"""Datasets that fakes make, with attention maps where they are asked for."""

from collections import Counter

from fakes import FakeDetector, FakeRecordingPainter, FakeSegmenter, FakeWriter
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.registry import Role, kind_of
from storage.shards import iterate
from storage.vocabulary import load_vocabulary
from tasks.resident import ResidentModels
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES, stages_of

VOCABULARY = load_vocabulary("miniature")


class Counting(ResidentModels):
    """Fakes for all models; counts how often each is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = Counter()
        self.fakes = {
            Role.WRITER: FakeWriter(),
            Role.PAINTER: FakeRecordingPainter(VOCABULARY),
            Role.DETECTOR: FakeDetector(),
            Role.SEGMENTER: FakeSegmenter(),
        }

    def model(self, config, objects):
        role = kind_of(config).role
        self.asked[role] += 1
        return self.fakes[role] if role in self.fakes else super().model(config, objects)


def generated(root, **changes):
    """The samples of a dataset that fakes made, by index, and which models worked."""
    settings = {"samples": 12, "samples_per_shard": 12, "texts_per_class_set": 2, "batch_size": 4}
    models = Counting()
    with prepare(GenerationParameters(root=str(root), **settings | changes), models=models) as run:
        [shard] = run.planned
        for stage in stages_of(run.recipe):
            make_stage(STAGES[stage], run.work(shard))
    [tar] = (root / "data").glob("*.tar")
    return {sample.index: sample for sample in iterate(tar)}, models.asked
