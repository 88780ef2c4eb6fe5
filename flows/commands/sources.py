"""Sources on the command line: `[LAYOUT:]PLACE[,split=NAME][,weight=NUMBER]`."""

import re
from typing import Any, get_args

from storage.errors import InputError
from storage.paths import check_place

_OPTION = re.compile(r"(.*),\s*(split|weight)=([^,=]*)", re.DOTALL)


def read_source(text: str) -> dict[str, Any]:
    """Read what `--data` says as fields of `DataSource`.

    Raises:
        InputError: If the place is none, an option is named twice, or a weight is no number.
    """
    from flows.data_sources import RealLayout
    from storage.yaml_text import parse_value

    values: dict[str, Any] = {}
    left = text
    while match := _OPTION.fullmatch(left):
        left, name, value = match.groups()
        if name in values:
            message = f"--data is {text!r}, which gives {name} twice: give it once"
            raise InputError(message)
        values[name] = parse_value(value, f"{name} of --data") if name == "weight" else value
    layout, colon, place = left.partition(":")
    if colon and layout in get_args(RealLayout):
        return {"layout": layout, "path": check_place(place, "the folder of --data"), **values}
    return {"path": check_place(left, "--data"), **values}
