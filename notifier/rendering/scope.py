"""The variables of one template in one render, as what Jinja2 compiled looks them up."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.utils import missing

from notifier.rendering.budget import LONG

if TYPE_CHECKING:
    from notifier.rendering.sandbox import Sandbox

_NO_KEYS: set[str] = set()


class Scope(Context):
    """What Jinja2's context is, made with less.

    Its own copies the variables and the globals each time, which costs more than a short template does.
    """

    environment: "Sandbox"
    """It is asked for the globals, which are the same for all templates.
    """

    def __init__(
        self,
        environment: "Sandbox",
        parent: dict[str, Any],
        name: str | None,
        blocks: Mapping[str, Callable[[Context], Iterator[str]]],
        globals: Any = None,  # noqa: A002, ARG002 - they are the environment's own
    ) -> None:
        self.environment = environment
        self.eval_ctx = EvalContext(environment, name)
        self.parent = parent
        self.vars = {}
        self.exported_vars = set()
        self.globals_keys = _NO_KEYS
        self.name = name
        self.blocks = {name: [block] for name, block in blocks.items()} if blocks else {}

    def resolve_or_missing(self, key: str) -> Any:
        """Look a variable up: what the template set, what it was given, what there is anyway."""
        if key in self.vars:
            return self.vars[key]
        if key in self.parent:
            return self.parent[key]
        return self.environment.globals.get(key, missing)

    def put_out(self, pieces: tuple[str, ...]) -> str:
        """Join what stands between two statements. Pieces that are long were paid for as they were made."""
        text = "".join(pieces)
        made = len(text)
        if made >= LONG:
            made = sum(size for size in map(len, pieces) if size < LONG)
        self.environment.budgets.mine.spend(made)
        return text
