"""Samplers: the checkpoint's own, or another one that fits what its network was trained for."""

import inspect
from typing import Any

from models.painting.config import PainterConfig
from models.painting.families import Family, Sampler
from storage.errors import InputError

_CLASSES: dict[Sampler, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "flow-match-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "tcd": ("TCDScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
_FLOW = "FlowMatch"
_MIDDLING_SHIFT = 1.0
"""Where the pipeline says how much to shift for each size, any shift will do to count steps."""


def choose_sampler(own: Any, family: Family, config: PainterConfig) -> Any:
    """The sampler that a configuration asks for, with the settings of the checkpoint's own.

    Args:
        own: The checkpoint's sampler.
        family: Of its pipeline.
        config: Names another one, or none; where the steps lie; how many there are.

    Raises:
        InputError: If the sampler does not fit the family, would draw noise that does not belong
            to the pair, or cannot do what it is asked for.
    """
    if config.scheduler is None:
        _require_own(own, family, config)
        chosen = _made(type(own), own, {}, config)
    else:
        _require_fit(family, config)
        name, options = _CLASSES[config.scheduler]
        chosen = _made(_class(name), own, options | _shift(own, config.scheduler), config)
    _require_steps(chosen, family, config)
    return chosen


def _made(kind: Any, own: Any, options: dict[str, Any], config: PainterConfig) -> Any:
    if config.timestep_spacing is not None:
        if "timestep_spacing" not in inspect.signature(kind).parameters:
            message = (
                f"painter {config.model!r} has the sampler {kind.__name__}, whose steps cannot "
                f"lie {config.timestep_spacing!r}; leave `timestep_spacing` empty"
            )
            raise InputError(message)
        options |= {"timestep_spacing": config.timestep_spacing}
    return kind.from_config(own.config, **options)


def _class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _shift(own: Any, sampler: Sampler) -> dict[str, Any]:
    """How samplers of flows call what others of them call otherwise."""
    shift = own.config.get("flow_shift", own.config.get("shift", 1.0))
    if sampler == "flow-match-euler":
        return {"shift": shift}
    if sampler == "dpm++" and type(own).__name__.startswith(_FLOW):
        prediction = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
        return {"flow_shift": shift, **prediction}
    return {}


def _require_fit(family: Family, config: PainterConfig) -> None:
    if config.scheduler not in family.samplers:
        message = (
            f"painter {config.model!r} is a {family.pipeline}, which sampler "
            f"{config.scheduler!r} does not fit; expected {', '.join(sorted(family.samplers))}, "
            "or leave `scheduler` empty for the checkpoint's own"
        )
        raise InputError(message)


def _require_own(own: Any, family: Family, config: PainterConfig) -> None:
    name = type(own).__name__
    fits = not name.startswith(_FLOW) or "flow-match-euler" in family.samplers
    if len(family.samplers) == 1:
        fits = name == _CLASSES[min(family.samplers)][0]
    if not fits:
        message = (
            f"painter {config.model!r} is a {family.pipeline} with the sampler {name}, which does "
            f"not fit it; set `scheduler` to one of: {', '.join(sorted(family.samplers))}"
        )
        raise InputError(message)
    if own.config.get("stochastic_sampling") and not family.draws:
        message = (
            f"painter {config.model!r} has a sampler with `stochastic_sampling`, whose noise would "
            "belong to no pair; set it to false in scheduler/scheduler_config.json"
        )
        raise InputError(message)


def _require_steps(sampler: Any, family: Family, config: PainterConfig) -> None:
    """Lay out the steps once, so that a number that does not do is told before a run."""
    name = type(sampler).__name__
    if config.steps == 1 and family.in_one_step and name not in family.in_one_step:
        message = (
            f"painter {config.model!r} is a {family.pipeline}, which takes a single step with "
            f"{' or '.join(sorted(family.in_one_step))} and not with {name}; set `steps` to 2 or "
            "more, or `scheduler` to lcm"
        )
        raise InputError(message)
    shifted = {"mu": _MIDDLING_SHIFT} if sampler.config.get("use_dynamic_shifting") else {}
    try:
        sampler.set_timesteps(config.steps, **shifted)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        message = (
            f"painter {config.model!r} with the sampler {name} cannot take "
            f"{config.steps} steps ({error}); set `steps` to another number"
        )
        raise InputError(message) from error
