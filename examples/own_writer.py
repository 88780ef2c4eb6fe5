"""A writer of your own: anything with a name and a method write meets PromptWriter.

    python examples/own_writer.py "cat,boat,rocket"

The stage's plain function asks it, checks its texts, and makes the counterfactual texts. To use it
in a run, give it a configuration and a row in models/registry.py: CONTRIBUTING.md says how.
"""

import sys
from collections.abc import Sequence

from models.profiles import load_profile
from models.protocols import PromptWriter, TextAnswer, TextRequest
from models.registry import build_tokens
from storage.plan import DatasetSpec, plan_shard
from storage.records import Rejected
from storage.slices import resolve_slice
from storage.vocabulary import load_vocabulary
from tasks.prompts import cut_class_sets, write_prompts
from tasks.rules import PromptRules

PLACES = ("on a hill", "by a lake", "in the fog", "under a red sky", "near a wall")


class PlaceWriter:
    """Puts the classes at a place that follows from the request's seed."""

    name = "places"

    def write(self, requests: Sequence[TextRequest]) -> list[TextAnswer]:
        """Answer every request, in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: TextRequest) -> TextAnswer:
        names = " and ".join(f"a {record.forms[0]}" for record in request.classes)
        first = request.seed + request.round
        places = [PLACES[(first + number) % len(PLACES)] for number in range(request.count)]
        return TextAnswer(tuple(f"{names} {place}" for place in places))


def main(classes: str) -> None:
    """Write the texts of one small shard."""
    vocabulary = load_vocabulary("miniature")
    spec = DatasetSpec(vocabulary="miniature", samples_per_shard=8, texts_per_class_set=2)
    shard = plan_shard(spec, resolve_slice(vocabulary, classes), 0, 8)
    tokens = build_tokens(load_profile("miniature").painter)
    writer: PromptWriter = PlaceWriter()
    class_sets = cut_class_sets(shard.samples, spec.texts_per_class_set)
    for result in write_prompts(class_sets, vocabulary, writer, tokens, PromptRules()):
        if isinstance(result, Rejected):
            print(f"{result.key}: {result.reason.value}, {result.detail}")
        else:
            print(f"{result.text} -> {result.counterfactual_text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
