"""SQL by name: each file holds queries under `-- name: …` headers; `{other}` stands for another's text."""

import re
from collections.abc import Mapping
from importlib import resources

_HEADER = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_REFERENCE = re.compile(r"\{(\w+)\}")


def load(file: str) -> Mapping[str, str]:
    """Read the queries of one file of this package, each with the fragments it names put in place."""
    text = resources.files(__package__).joinpath(file).read_text("utf-8")
    _, *parts = _HEADER.split(text)
    raw = dict(zip(parts[::2], (body.strip().rstrip(";") for body in parts[1::2]), strict=True))
    return {
        name: _REFERENCE.sub(lambda found: raw.get(found[1], found[0]), body) for name, body in raw.items()
    }


def script(file: str) -> str:
    """Read a whole file of this package, to be run as it stands."""
    return resources.files(__package__).joinpath(file).read_text("utf-8")
