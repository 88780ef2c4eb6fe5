"""Annotations are executed while the tests run: types by beartype, shapes by jaxtyping.

Modules without shapes are checked by beartype alone, which costs next to nothing; jaxtyping's
wrapper takes some 20 microseconds a call, too much for what is called a million times.
"""

import re
import typing
from pathlib import Path

import jaxtyping
from beartype import BeartypeConf, BeartypeDecorPlace, FrozenDict, beartype
from beartype.claw import beartype_packages
from pydantic import ValidationInfo

PACKAGES = ("flows", "tasks", "models", "training", "evaluation", "storage")

_ROOT = Path(__file__).parents[2]
_CONF = BeartypeConf(
    is_pep484_tower=True,  # an int is a float, as PEP 484 and pyright have it
    claw_decor_place_func=BeartypeDecorPlace.FIRST,  # Prefect's flows and tasks stay what they are
    # Their annotations name what is imported for the type checker alone, so that they start light.
    claw_skip_package_names=("flows.commands.benchmarks", "flows.commands.data"),
    claw_is_pep526=False,  # fields of pydantic models hold a FieldInfo while the class is made
    hint_overrides=FrozenDict(
        {
            ValidationInfo: object,  # a Protocol of pydantic's that cannot be asked for
            typing.Self: object,  # jaxtyping decorates methods, and a method knows no class
        }
    ),
)
checked = beartype(conf=_CONF)


def execute_annotations():
    """Have every annotation of the product executed, from the next import on."""
    beartype_packages(PACKAGES, conf=_CONF)
    jaxtyping.install_import_hook([*shaped_modules(), "fakes"], "annotations.checked")


def shaped_modules():
    """The modules that name shapes."""
    paths = [path for package in PACKAGES for path in (_ROOT / package).rglob("*.py")]
    return [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts)
        for path in paths
        if re.search(r"^from jaxtyping import", path.read_text(), re.MULTILINE)
    ]
