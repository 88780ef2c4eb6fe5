"""Files of scores."""

from pathlib import Path

import pytest

from evaluation.scoring.measured import read_measured
from storage.errors import DataError, InputError


def test_a_broken_scores_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    with pytest.raises(InputError, match=r"scores\.json does not exist"):
        read_measured(path)
    for text, problem in (
        ('{"measure": "labels", "miou": 1}', r"'labels\.subject' is missing"),
        ('{"measure": "points", "p_miou": 1}', r"'points\.subject' is missing"),
        ('{"miou": 1}', "Unable to extract tag"),
        ("{", "Invalid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"scores\.json holds no scores .*{problem}"):
            read_measured(path)
