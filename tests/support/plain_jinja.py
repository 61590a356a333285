"""Jinja2's own sandbox with the rules that templates have here, and nothing done to make it quick."""

import re
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import FileSystemLoader, StrictUndefined, pass_eval_context
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from notifier.rendering.sandbox import date


class PlainJinja(ImmutableSandboxedEnvironment):
    """What the templates of a folder must make, however they are made. It neither meters nor hurries."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            loader=FileSystemLoader(folder),
            undefined=StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html"),
            finalize=_text,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.filters |= {"tojson": _tojson, "date": date}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A key goes before what Python's dict has by that name, and that is no value."""
        if type(obj) is dict:
            if attribute in obj:
                return obj[attribute]
            if hasattr(dict, attribute) and not attribute.startswith("_"):
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """By bracket as by dot."""
        if type(obj) is dict and isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)


class PlainPayloads(PlainJinja):
    """The same for `payload.json`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.finalize = _json

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """What a macro makes is the template's own JSON."""
        made = super().call(context, obj, *args, **kwargs)
        return _Made(made) if isinstance(obj, Macro) else made


class _Made(str):
    """What `tojson` made."""

    __slots__ = ()


@pass_eval_context
def _tojson(context: EvalContext, value: Any) -> str:
    made = msgspec.json.encode(value, enc_hook=str).decode()
    if not context.autoescape:
        return _Made(made)
    return Markup(re.sub("[<>&']", lambda found: f"\\u{ord(found[0]):04x}", made))  # noqa: S704


def _text(value: Any) -> Any:
    if value is None:
        raise TypeError("the value is null: `| default(…, true)` writes something else instead")
    return value


def _json(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    if isinstance(value, int | float | _Made | Markup):
        return value
    return _harmless(str(value))


def _harmless(text: str) -> str:
    if re.search(r'["\\\x00-\x1f]', text):
        raise ValueError('a text holds ", \\ or a control character: write it with `| tojson`, unquoted')
    return text
