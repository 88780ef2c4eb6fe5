import subprocess
import sys

import pytest

from models.closed_sets.openmmlab import MODELS
from storage.errors import InputError

WITHOUT = """
import sys
sys.modules["mmengine"] = None
from storage.errors import InputError
try:
    import models.closed_sets.openmmlab
except InputError as error:
    print(error)
"""


def test_a_missing_package_is_an_error_with_the_way_out():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    assert "mmsegmentation cannot be used" in done.stdout
    assert "pip install 'magicseg-engine[mmseg]'" in done.stdout


def test_operators_can_be_imported_and_not_called():
    import torch
    from mmcv.ops import point_sample, sigmoid_focal_loss

    assert "mmcv._ext" not in sys.modules
    assert point_sample is not None
    with pytest.raises(InputError, match=r"compiled operator .* was called"):
        sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), 2.0, 0.25)


def test_networks_of_mmsegmentation_can_be_built():
    assert MODELS.get("ASPPHead").__module__ == "mmseg.models.decode_heads.aspp_head"
