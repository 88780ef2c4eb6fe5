"""Whether the packages are there and fit, as it is said before anything is read."""

from importlib.metadata import version
from importlib.util import find_spec

import pytest

from models.labelling.original.config import OriginalDetectorConfig, OriginalSegmenterConfig
from models.registry import build
from storage.errors import InputError

HERE = find_spec("groundingdino") is not None
TOO_NEW = int(version("transformers").partition(".")[0]) >= 5

CONFIGS = [OriginalDetectorConfig(model="weights"), OriginalSegmenterConfig(model="weights")]


@pytest.mark.skipif(HERE, reason="the packages are installed")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@pytest.mark.parametrize("use", [build, lambda config: config.check()])
def test_without_the_packages_it_is_said_how_to_get_them(config, use):
    with pytest.raises(InputError, match=r"pip install 'magicseg-engine\[original\]'") as refused:
        use(config)
    assert "an environment of its own" in str(refused.value)


@pytest.mark.skipif(not TOO_NEW, reason="transformers is old enough")
@pytest.mark.parametrize("use", [build, lambda config: config.check()])
def test_a_release_of_transformers_that_the_package_cannot_use_is_refused(
    use, tmp_path, monkeypatch
):
    for name in ("groundingdino", "torchvision", "timm", "addict", "cv2", "matplotlib", "yapf"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="works with transformers below 5, found 5"):
        use(CONFIGS[0])


@pytest.mark.skipif(not HERE, reason="the packages are not installed")
def test_with_the_packages_the_files_are_looked_for():
    for config in CONFIGS:
        with pytest.raises(InputError, match="'weights' are no existing folder"):
            config.check()
