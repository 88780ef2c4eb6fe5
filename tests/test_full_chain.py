"""The whole chain by the command line on random weights: to a tar and a checkpoint."""

import tempfile
from pathlib import Path

import pytest

from benchmarks.full_chain import CHAIN, measure
from benchmarks.random_models import SMALL


@pytest.mark.filterwarnings("ignore")  # the libraries warn while models are made
@pytest.mark.parametrize(
    "geometry",
    [
        pytest.param(SMALL, marks=[pytest.mark.slow, pytest.mark.timeout(1800)], id="small"),
        pytest.param(CHAIN, marks=[pytest.mark.full, pytest.mark.timeout(3600)], id="full"),
    ],
)
def test_networks_of_any_size_go_from_a_text_to_a_tar_and_a_checkpoint(geometry):
    with tempfile.TemporaryDirectory() as folder:  # pytest would keep the gigabytes
        generated, trained = measure(geometry, Path(folder))
    assert (generated["what"], trained["what"]) == ("generate", "train")
    assert min(generated["peak_mb"], trained["peak_mb"]) > 100
