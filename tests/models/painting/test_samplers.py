"""Samplers fit what a network was trained for, or the words say which ones do."""

import diffusers
import numpy as np
import pytest

from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.protocols import PairRequest
from storage.errors import InputError

REQUESTS = [PairRequest("a bus", "a bus", 1), PairRequest("a cat", "a", 2)]


def config(folder, **changes):
    small = {"steps": 2, "guidance": 0.0, "height": 32, "width": 32, "batch_size": 2}
    return PainterConfig(model=str(folder), device="cpu", **(small | changes))


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("StableDiffusionPipeline", "lcm"),
        ("StableDiffusionXLPipeline", "tcd"),
        ("PixArtSigmaPipeline", "euler-ancestral"),
    ],
)
def test_noise_between_steps_belongs_to_the_pair(saved_family, name, scheduler):
    painter = DiffusionPairPainter(config(saved_family(name), scheduler=scheduler))
    together, alone = painter.paint(REQUESTS), painter.paint(REQUESTS[:1])[0]
    assert np.array_equal(together[0].image, alone.image)
    assert np.array_equal(alone.image, alone.counterfactual)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("StableDiffusionPipeline", "flow-match-euler"),
        ("FluxPipeline", "ddim"),
        ("StableDiffusion3Pipeline", "lcm"),
        ("SanaPipeline", "pndm"),
        ("LatentConsistencyModelPipeline", "euler"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused_with_those_that_do(saved_family, name, scheduler):
    with pytest.raises(InputError) as caught:
        DiffusionPairPainter(config(saved_family(name), scheduler=scheduler))
    words = str(caught.value)
    assert f"is a {name}, which sampler '{scheduler}' does not fit; expected " in words
    named = words.partition("expected ")[2].partition(", or leave")[0].split(", ")
    DiffusionPairPainter(config(saved_family(name), scheduler=named[0]))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("StableDiffusionPipeline", diffusers.FlowMatchEulerDiscreteScheduler()),
        ("FluxPipeline", diffusers.EulerDiscreteScheduler()),
    ],
)
def test_a_checkpoints_own_sampler_that_does_not_fit_is_refused(build_family, tmp_path, name, own):
    def change(parts):
        parts["scheduler"] = own

    with pytest.raises(InputError, match=rf"{name} with the sampler {type(own).__name__}.*one of"):
        DiffusionPairPainter(config(build_family(name, tmp_path, change=change)))


def test_noise_that_would_belong_to_no_pair_is_refused(build_family, tmp_path):
    def change(parts):
        parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)

    with pytest.raises(InputError, match=r"stochastic_sampling.*belong to no pair"):
        DiffusionPairPainter(config(build_family("FluxPipeline", tmp_path, change=change)))


def test_another_sampler_of_flows_keeps_the_checkpoints_shift(saved_family):
    painter = DiffusionPairPainter(
        config(saved_family("SanaPipeline"), scheduler="flow-match-euler")
    )
    assert painter._pipeline.scheduler.config.shift == 3.0
    assert painter.paint(REQUESTS)[0].image.std() > 1


def test_steps_that_a_sampler_cannot_take_are_told_before_painting(saved_family):
    model = saved_family("LatentConsistencyModelPipeline")
    with pytest.raises(InputError, match="LCMScheduler cannot take 60 steps"):
        DiffusionPairPainter(config(model, steps=60))
    with pytest.raises(InputError, match="takes a single step with DDPMScheduler or LCMScheduler"):
        DiffusionPairPainter(config(saved_family("PixArtAlphaPipeline"), steps=1))
    single = config(saved_family("PixArtAlphaPipeline"), steps=1, scheduler="lcm")
    assert DiffusionPairPainter(single).paint(REQUESTS)[0].image.std() > 1


def test_spacing_of_steps_is_refused_where_it_would_change_nothing(saved_family):
    with pytest.raises(InputError, match="leave `timestep_spacing` empty"):
        DiffusionPairPainter(config(saved_family("FluxPipeline"), timestep_spacing="trailing"))
