"""Credentials in texts: what is shown or logged has none."""

import os
import re

_NAMES = re.compile(r"^(AWS|AZURE|GOOGLE|GCP)_.*(KEY|SECRET|TOKEN|SAS|SIGNATURE|PASSWORD)")
_SHORTEST = 8  # of real ones; shorter values would hide ordinary words
_HIDDEN = "***"
_USER = re.compile(r"(\w+://)[^/\s@]*:[^/\s]*@")
_NAMED_USER = re.compile(r"((?<!abfs)(?<!abfss)://)[^/\s@]*@")
_QUERY = re.compile(r"(\w+://[^\s?#]*)[?#][^\s\"')]*")


def redacted(text: str) -> str:
    """Hide what may be a credential.

    That is whatever a URL has before ``@`` or after ``?``, and the values of the environment's
    variables that hold keys and tokens.
    """
    for name, value in os.environ.items():
        if _NAMES.match(name) and len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN)
    text = _USER.sub(rf"\1{_HIDDEN}@", text)
    text = _NAMED_USER.sub(rf"\1{_HIDDEN}@", text)
    return _QUERY.sub(rf"\1?{_HIDDEN}", text)
