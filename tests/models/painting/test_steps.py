"""What a painter's steps must do: be known to the processor, and reach the network where it is."""

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

from models.painting.steps import keep_steps_on_the_processor

ELSEWHERE = torch.device("meta")
"""A device that cannot be asked for a value: whoever does so fails, where a GPU is waited for."""


class Network(torch.nn.Module):
    """Stands where a U-Net does, and notes where its steps lie."""

    device = ELSEWHERE

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, latents, step, **_others):
        self.seen.append(step)
        return latents


def painted(sampler, network, latents, given="placed"):
    """The loop of the library's pipelines."""
    sampler.set_timesteps(5, device=ELSEWHERE)
    for step in sampler.timesteps:
        scaled = sampler.scale_model_input(latents, step)
        noise = network(scaled, step) if given == "placed" else network(scaled, step=step)
        latents = sampler.step(noise, step, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize("kind", [PNDMScheduler, DDIMScheduler, EulerDiscreteScheduler])
def test_nothing_is_asked_of_the_device(kind):
    options = {"skip_prk_steps": True} if kind is PNDMScheduler else {}
    sampler, network = kind(**options), Network()
    keep_steps_on_the_processor(sampler, network)
    found = painted(sampler, network, torch.zeros(1, 4, 8, 8, device=ELSEWHERE))
    assert found.device == ELSEWHERE
    assert len(network.seen) >= 5
    assert {step.device for step in network.seen} == {ELSEWHERE}
    again = len(network.seen)
    painted(sampler, network, torch.zeros(1, 4, 8, 8, device=ELSEWHERE))
    assert all(
        old is new for old, new in zip(network.seen, network.seen[again:], strict=False)
    )  # not handed over twice


def test_without_it_the_device_is_asked():
    with pytest.raises(Exception, match=r"meta|Cannot copy|item"):
        painted(
            PNDMScheduler(skip_prk_steps=True),
            Network(),
            torch.zeros(1, 4, 8, 8, device=ELSEWHERE),
        )


def test_steps_on_the_networks_own_device_and_named_ones_are_left_alone():
    sampler, network = PNDMScheduler(skip_prk_steps=True), Network()
    keep_steps_on_the_processor(sampler, network)
    own = torch.zeros((), device=ELSEWHERE)
    network(torch.zeros(1), own)
    network(torch.zeros(1), 7)
    network(torch.zeros(1), step=3)
    assert network.seen[0] is own
    assert network.seen[1:] == [7, 3]
