"""The Jinja2 environment that templates run in: they read what they are given, and can't eat the machine.

Jinja2's own sandbox keeps a template away from Python's internals, but lets it fill the memory. Here all
that a render makes is paid for from one allowance: what it puts out, what its operators, filters and calls
make on the way, and the turns of its loops. What one operation could multiply is measured beforehand.
"""

import re
import string
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from datetime import UTC, datetime
from datetime import date as calendar_date
from functools import update_wrapper, wraps
from itertools import accumulate, islice
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Any

import msgspec
from jinja2 import BaseLoader, StrictUndefined, Template, Undefined, pass_eval_context
from jinja2.environment import TemplateModule
from jinja2.nodes import EvalContext
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup, escape

from notifier.rendering.budget import LONG, Budget, Budgets, ExcessError
from notifier.rendering.compiler import OF_A_LOOP, Compiler
from notifier.rendering.scope import Scope

WORK_FACTOR = 4
"""How much may be made on the way for each character that may be put out."""

LEAST_WORK = 1024 * 1024
"""What may be made on the way in any case."""

# What it costs, in characters:
_TURN = 16  # to go once through a loop
_CALL = 64  # to call something, or to include a file
_ITEM = 16  # to look at an item of a list, or to make one
_MAX_BITS = 65_536  # of a whole number
_MAX_PRECISION = 100
_STRFTIME = 256  # a character of its layout: Python stops it there

# By itself, no filter makes much more of one of these than it is.
_SCALARS = frozenset({str, int, float, bool, type(None)})
_FORBIDDEN_MEMBERS = frozenset({"encode", "from_bytes", "maketrans", "to_bytes", "translate"})
_MULTIPLYING_METHODS = frozenset({"center", "expandtabs", "join", "ljust", "replace", "rjust", "zfill"})
_SPLITTING_METHODS = frozenset({"rsplit", "split", "splitlines"})
_MULTIPLYING_FILTERS = frozenset({"center", "indent", "join", "replace", "tojson", "urlize", "wordwrap"})
_DIVIDING_FILTERS = frozenset({"batch", "slice"})
# These look at the items of a list without writing them out, so what the items hold doesn't matter.
# `items` is none of them: by itself it makes nothing of a missing variable, and to weigh that is an error.
_STRUCTURAL_FILTERS = frozenset(
    {"batch", "dictsort", "groupby", "list", "map", "max", "min", "reject", "rejectattr", "reverse"}
    | {"select", "selectattr", "slice", "sort", "unique"}
)
_FREE_FILTERS = frozenset({"attr", "count", "d", "default", "first", "last", "length"})  # they make nothing
# The same render must make the same bytes on a retry, so nothing random.
_UNWANTED_FILTERS = frozenset({"random"})
_UNWANTED_GLOBALS = frozenset({"lipsum"})

_PERCENT = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_KEY_WITH_BRACKETS = re.compile(r"%\([^)]*\(")
_DIGITS = re.compile(r"\d+")
_JSON_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"')
_CALLABLE = (BuiltinFunctionType, FunctionType, MethodType, Macro, BlockReference, type)
_SHORT = LONG // 5  # which escaping, to five characters at most, makes no LONG one of
_EXPORTED = frozenset({str, int, float, bool, Macro})
_SIZED = frozenset({list, tuple, dict, str, range})
_CHANGING = (Cycler, Joiner, Namespace)
_LEAVES_THE_STRING = re.compile(r'["\\\x00-\x1f]')


class MissingMember(StrictUndefined):
    """A key that the data lacks while Python's dict has a method of that name: it may be called, no more."""

    __slots__ = ("method",)

    def __init__(self, owner: object, name: str, method: Callable[..., Any]) -> None:
        super().__init__(obj=owner, name=name)
        self.method = method


class Json(str):
    """JSON text, as `tojson` makes it."""

    __slots__ = ()


class File(Template):
    """A template that remembers nothing of one render in the next."""

    def _get_default_module(self, _ctx: Context | None = None) -> TemplateModule:
        """What an import sees: made once, unless the file sets up what its macros then change."""
        if self._module is None:
            context = self.new_context()
            module = TemplateModule(self, context)
            if any(isinstance(value, _CHANGING) for value in context.vars.values()):
                return module
            self._module = module
        return self._module


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 as templates get it: strict, immutable, HTML escaped where a file's name says so.

    `limit` is how many characters one render may put out.
    """

    intercepted_binops = frozenset({"+", "-", "*", "**", "%"})
    code_generator_class = Compiler
    context_class = Scope
    template_class = File

    def __init__(self, loader: BaseLoader | None = None, *, limit: int) -> None:
        self.budgets = Budgets(max(limit * WORK_FACTOR, LEAST_WORK))
        self._loaded: dict[str, Template] = {}
        super().__init__(
            loader=loader,
            undefined=StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html"),
            finalize=self._printable,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=-1,
        )
        self.filters = {
            name: self._metered(name, function)
            for name, function in (self.filters | {"date": date}).items()
            if name not in _UNWANTED_FILTERS
        }
        self.filters["tojson"] = self.tojson
        for name in _UNWANTED_GLOBALS:
            del self.globals[name]

    @property
    def budget(self) -> Budget:
        """What the render that runs in this thread may still make."""
        return self.budgets.mine

    def produce(self, template: Template, variables: dict[str, Any], room: int) -> str:
        """Render into at most `room` characters, stopping there. Raises whatever the template raises."""
        pieces = []
        for piece in template.root_render_func(Scope(self, variables, template.name, template.blocks)):
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                raise ExcessError("the template puts out too much")
        return "".join(pieces)

    def expression(self, source: str) -> Template:
        """Compile an expression, for `value`. Raises TemplateSyntaxError."""
        return self.compile_expression(source, undefined_to_none=False)._template  # noqa: SLF001 - it is `value` that runs it

    def value(self, template: Template, variables: dict[str, Any]) -> Any:
        """What an `expression` comes to. Raises whatever it raises."""
        scope = Scope(self, variables, None, template.blocks)
        for _ in template.root_render_func(scope):
            pass
        return scope.vars["result"]

    # What is looked up ---------------------------------------------------------------------------

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`data.items` is the event's key, never dict's method."""
        if type(obj) is dict:
            return obj[attribute] if attribute in obj else self._absent(obj, attribute)
        if type(obj) is LoopContext and attribute in OF_A_LOOP:
            return getattr(obj, attribute)
        if type(obj) is TemplateModule and type(value := vars(obj).get(attribute)) in _EXPORTED:
            return value if self._is_public(attribute) else self.unsafe_undefined(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`data["items"]` is the event's key, never dict's method."""
        if type(obj) is dict and isinstance(argument, str):
            return obj[argument] if argument in obj else self._absent(obj, argument)
        if isinstance(argument, Undefined):
            str(argument)  # raises, and names what is missing
        return super().getitem(obj, argument)

    def _absent(self, obj: Any, name: str) -> Any:
        member = super().getattr(obj, name)
        return member if isinstance(member, Undefined) else MissingMember(obj, name, member)

    def make_globals(self, d: Any) -> Any:
        """The environment's own for every template: `Scope` looks there."""
        return d or self.globals

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Jinja2's rules, and no way to bytes or to tables that multiply, nor to a method without its owner.

        Those rules know `data.update` as what changes a dict, but not `dict.update`, which is handed one.
        """
        if not self._is_public(attr) or isinstance(value, MethodDescriptorType):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def _is_public(self, name: str) -> bool:
        return not name.startswith("_") and name not in _FORBIDDEN_MEMBERS

    # What is made --------------------------------------------------------------------------------

    def get_template(self, name: Any, _parent: str | None = None, _globals: Any = None) -> Template:
        """Load a template. An include costs what a call does: templates may include themselves."""
        self.budget.spend(_CALL)
        return self.loaded(name)

    def select_template(self, names: Any, _parent: str | None = None, _globals: Any = None) -> Template:
        """Load the first of several that is there; each costs what one does."""
        tried = list(names)
        self.budget.spend(_CALL * max(1, len(tried)))
        return super().select_template(tried)

    def loaded(self, name: str) -> Template:
        """The template of a file as it stands now, found more quickly than in Jinja2's own cache."""
        known = self._loaded.get(name)
        if known is None or not known.is_up_to_date:
            known = self._loaded[name] = super().get_template(name)
        return known

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, within its allowance."""
        self.budget.spend(_CALL + _ITEM * len(args))
        if isinstance(obj, MissingMember):
            obj = obj.method
        elif obj is Namespace:
            args = tuple(self.paid(dict(each)) for each in args)
        elif isinstance(obj, LoopContext):
            args, kwargs = self._through(context, args, kwargs)
        elif isinstance(owner := getattr(obj, "__self__", None), str):
            args = self._settled(obj.__name__, args)
            self._foresee_method(obj.__name__, owner, args, kwargs)
        elif isinstance(owner, calendar_date):
            self.budget.foresee(self._weight((args, kwargs)) * _STRFTIME)
        return self.paid(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator that can make something large out of something small."""
        if operator in _MODEST and _is_small(left) and _is_small(right):
            return self.binop_table[operator](left, right)
        if operator == "%" and isinstance(left, str):
            self._foresee_percent(left, right)
        elif operator in {"*", "**"}:
            self._foresee_product(operator, left, right)
        made = super().call_binop(context, operator, left, right)
        if isinstance(made, str | list | tuple):
            self.budget.spend(len(made))
            return made
        return self.paid(made)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja2's safe `str.format`, within the allowance."""
        safe = super().wrap_str_format(value)
        if safe is None:
            return None

        def formatted(*args: Any, **kwargs: Any) -> str:
            self._foresee_format(value.__self__, (args, kwargs))
            return safe(*args, **kwargs)

        return update_wrapper(formatted, value)

    def turns(self, _context: Context, iterable: Iterable[Any]) -> Iterable[Any]:
        """What a loop goes through: each turn is paid for, those of a list all at once."""
        if type(iterable) in _SIZED:
            self.budget.spend(_TURN * len(iterable))  # type: ignore[arg-type]
            return iterable
        return self._one_by_one(iterable)

    def _through(
        self, context: Context, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a `loop` is called with, its turns to be paid for as well: `loop(children)`."""
        if args:
            return (self.turns(context, args[0]), *args[1:]), kwargs
        if "iterable" in kwargs:
            return args, kwargs | {"iterable": self.turns(context, kwargs["iterable"])}
        return args, kwargs

    def _one_by_one(self, iterable: Iterable[Any]) -> Iterator[Any]:
        for item in iterable:
            self.budget.spend(_TURN)
            yield item

    def joined(self, context: Context, *operands: Any) -> str:
        """`a ~ b`."""
        self.budget.spend(sum(self._weight(operand) for operand in operands))
        return markup_join(operands) if context.eval_ctx.autoescape else str_join(operands)

    def concat(self, pieces: Iterable[str]) -> str:
        """Join what a macro, a block or `{% set %}` gathered."""
        gathered = list(pieces)
        self.budget.spend(sum(map(len, gathered)))
        return "".join(gathered)

    def paid(self, made: Any) -> Any:
        """Pay for what a call, a filter, a slice or a literal made."""
        if isinstance(made, str):
            self.budget.spend(len(made))
        elif isinstance(made, list | tuple | dict | set):
            self.budget.spend(len(made) * _ITEM)
        return made

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a filter pay: its arguments are weighed before, its result after."""
        if name in _FREE_FILTERS:
            return function
        skip = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def metered(*args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) != skip + 1 or type(args[skip]) not in _SCALARS:
                args = (*args[:skip], *self._settled(name, args[skip:]))
                self._foresee_filter(name, args[skip:], kwargs)
            return self.paid(function(*args, **kwargs))

        return metered

    def _settled(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Turn an iterator that is to be joined into a list that can be weighed."""
        if name != "join" or not args or not isinstance(args[0], Iterator):
            return args
        return (list(islice(self._one_by_one(args[0]), self.budget.total)), *args[1:])

    # What is foreseen ----------------------------------------------------------------------------

    def _foresee_filter(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if name == "format":
            self._weight(args[0])
            self._foresee_percent(str(args[0]), (args[1:], kwargs))
        elif name == "round":
            if any(isinstance(each, int) and abs(each) > _MAX_PRECISION for each in args[1:2]):
                raise ExcessError("round's precision is too large")
        elif name == "indent" and not isinstance(args[0], str):
            self._weight(args[0])
            raise TypeError("indent takes a text")  # and would add a line break to a list of the data itself
        elif name == "date":
            self.budget.foresee(self._weight((args[1:], kwargs)) * _STRFTIME)
        elif name in _DIVIDING_FILTERS:
            self._weight(args[0])
            self.budget.foresee(_ITEM * max(map(self._extent, (*args[1:], *kwargs.values())), default=1))
        elif name in _MULTIPLYING_FILTERS:
            self._foresee_growth(args[0], *args[1:], *kwargs.values())
        elif name not in _STRUCTURAL_FILTERS:
            for each in args:
                self._weight(each)

    def _foresee_method(self, name: str, text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if name in _MULTIPLYING_METHODS:
            named = (value for key, value in kwargs.items() if not key.startswith("_"))
            self._foresee_growth(text, *args, *named)
        elif name in _SPLITTING_METHODS:
            self.budget.foresee(len(text) * _ITEM)

    def _foresee_growth(self, grown: Any, *by: Any) -> None:
        """Whatever pads, repeats or replaces makes at most the product of what it is given."""
        self.budget.foresee(max(1, self._weight(grown)) * max(map(self._extent, by), default=1))

    def _foresee_product(self, operator: str, left: Any, right: Any) -> None:
        if not (isinstance(left, int) and isinstance(right, int)):
            if isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple):
                self.budget.foresee(self._extent(left) * self._extent(right))
            return
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _MAX_BITS and abs(left) > 1:
            raise ExcessError("the number becomes too large")

    def _foresee_percent(self, pattern: str, args: Any) -> None:
        widths = [width for found in _PERCENT.finditer(pattern) for width in found.groups() if width]
        if _KEY_WITH_BRACKETS.search(pattern):
            raise ExcessError("a key that holds brackets is not allowed after %")
        if "*" in widths:
            raise ExcessError("a width that is an argument (%*) is not allowed")
        self._foresee_fields(len(pattern.split("%")), widths, args)

    def _foresee_format(self, pattern: str, args: Any) -> None:
        specs = [spec for _, _, spec, _ in string.Formatter().parse(pattern) if spec is not None]
        if any("{" in spec for spec in specs):
            raise ExcessError("a width that is an argument ({:{}}) is not allowed")
        self._foresee_fields(len(specs), _DIGITS.findall(" ".join(specs)), args)

    def _foresee_fields(self, count: int, widths: list[str], args: Any) -> None:
        if any(len(width) > len(str(self.budget.total)) for width in widths):
            raise ExcessError("a width is too large")
        self.budget.foresee(sum(map(int, widths)) + count * self._weight(args))

    def _extent(self, value: Any) -> int:
        """How large something is, or how often it makes something else repeat; at least 1."""
        return max(1, abs(value) if isinstance(value, int) else self._weight(value))

    def _weight(self, value: Any) -> int:
        """About as many characters as `str` makes of a value; raises ExcessError past the allowance.

        The same list may stand in a list many times, and its text as often, so what lists hold is counted.
        """
        weight, pending = 0, [value]
        while pending:
            item = pending.pop()
            if isinstance(item, str | bytes):
                weight += len(item)
            elif isinstance(item, _CONTAINERS):
                weight += len(item) * _ITEM
                pending += (*item, *item.values()) if isinstance(item, dict) else item
            else:
                weight += _written_length(item)
            self.budget.foresee(weight)
        return weight

    # What is put out -----------------------------------------------------------------------------

    def printed(self, value: Any) -> str:
        """`{{ value }}`, where nothing is escaped."""
        if type(value) is str and len(value) < LONG:
            return value
        return str(self._printable(value))

    def escaped(self, value: Any) -> str:
        """`{{ value }}` in HTML."""
        if type(value) is str and len(value) < _SHORT:
            return _escaped(value)
        return escape(self._printable(value))

    def json(self, context: Context, value: Any) -> str:
        """`{{ value | tojson }}` in what isn't HTML, though it may be the layout of some that is."""
        if context.eval_ctx.autoescape:
            return self.tojson(context.eval_ctx, value)
        if type(value) not in _SCALARS:
            self._foresee_growth(value)
        text = _encode(value).decode()
        if len(text) >= LONG:
            self.budget.spend(len(text))
        return text

    @pass_eval_context
    def tojson(self, context: EvalContext, value: Any, indent: int | None = None) -> str:
        """Write a value as JSON; in HTML also safe inside `<script>` and attributes in single quotes."""
        if type(value) not in _SCALARS or indent is not None:
            self._foresee_growth(value, indent)
        text = _encode(value).decode()
        if indent is not None:
            self.budget.foresee(_indented_length(text, indent))
            text = msgspec.json.format(text, indent=indent)
        if context.autoescape:
            text = _harmless_in_html(text)
        self.budget.spend(len(text))
        return text if context.autoescape else Json(text)

    def _printable(self, value: Any) -> Any:
        """Look at what `{{ … }}` is about to write out, of which escaping makes a copy."""
        if isinstance(value, str):
            if len(value) > _TURN:
                self.budget.spend(len(value))
            return value
        if _is_small(value) or isinstance(value, Undefined):
            return value
        if value is None:
            raise TypeError("the value is null: `| default(…, true)` writes something else instead")
        if isinstance(value, _CALLABLE):
            raise TypeError(
                f"{getattr(value, '__name__', 'this')!r} is a method, not a value: call it with ()"
            )
        self.budget.spend(self._weight(value))
        return value


class JsonSandbox(Sandbox):
    """The same for `payload.json`: a value can't break out of the string it is written into."""

    def printed(self, value: Any) -> str:
        """`{{ value }}`: numbers as they are, texts only where they can do no harm."""
        return str(value if _is_small(value) else self._printable(value))

    def escaped(self, value: Any) -> str:
        """`{{ value }}` in HTML that goes into JSON."""
        return escape(self._printable(value))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """What a macro or a block makes is the template's own JSON."""
        made = super().call(context, obj, *args, **kwargs)
        return Json(made) if isinstance(obj, Macro | BlockReference | LoopContext) else made

    def _printable(self, value: Any) -> Any:
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        value = super()._printable(value)
        if _is_small(value) or isinstance(value, Json | Markup):
            return value
        text = str(value)  # what a list holds can leave the string as well
        if _LEAVES_THE_STRING.search(text):
            raise ValueError('a text holds ", \\ or a control character: write it with `| tojson`, unquoted')
        return text


_MODEST = frozenset({"+", "-", "*"})
_CONTAINERS = (dict, list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)


def _is_small(value: Any) -> bool:
    """Whether it is a number that no sum or product of makes anything large."""
    return type(value) is float or (type(value) is int and -(2**63) < value < 2**63)


def _written_length(value: Any) -> int:
    """About how many digits a whole number has; 1 for anything else that is written in short."""
    if isinstance(value, Undefined):
        str(value)  # raises, and names what is missing
    if isinstance(value, Namespace | TemplateModule):
        raise ExcessError(f"a {type(value).__name__} can't be written out")
    return value.bit_length() // 3 + 1 if isinstance(value, int) else 1


def _as_json(value: Any) -> Any:
    if isinstance(value, Undefined | str):
        return str(value)  # of a missing variable this raises, and names it
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"a {type(value).__name__} can't be written as JSON")


_encode = msgspec.json.Encoder(enc_hook=_as_json).encode


def _indented_length(json: str, indent: int) -> int:
    """At most as many characters as JSON has once each value stands in a line of its own."""
    bare = _JSON_TEXTS.sub("", json)
    depth = max(accumulate((each in "[{") - (each in "]}") for each in bare), default=0)
    lines = bare.count(",") + 2 * (bare.count("[") + bare.count("{"))
    return len(json) + lines * (1 + depth * abs(indent))


def _harmless_in_html(json: str) -> Markup:
    for character in "<>&'":
        json = json.replace(character, f"\\u{ord(character):04x}")
    return Markup(json)  # noqa: S704 - nothing that HTML could mistake is left in it


def _escaped(text: str) -> str:
    """What `markupsafe.escape` makes of a plain text, without the `Markup` around it, which costs more."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&#34;").replace("'", "&#39;")


def date(value: Any, layout: str = "%Y-%m-%d %H:%M %Z") -> str:
    """Write a time by a `strftime` layout: a datetime, an RFC 3339 text, or seconds since the epoch (UTC)."""
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    elif isinstance(value, str):
        value = datetime.fromisoformat(value)
    return str(value.strftime(layout))
