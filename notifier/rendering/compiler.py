"""What Jinja2's compiler makes of a template for the sandbox: metered, and with few calls for what all do.

A look-up in plain data stands in the code itself, and the pieces between two statements are put out at once.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import Template, nodes
from jinja2.compiler import CodeGenerator, Frame, optimizeconst
from jinja2.idtracking import VAR_LOAD_RESOLVE
from jinja2.visitor import NodeTransformer

from notifier.rendering.budget import LONG

Piece = str | nodes.Expr
"""What stands between two statements of a template: its own text, or `{{ … }}`."""

OF_A_LOOP = frozenset({"first", "index", "index0", "last", "length", "revindex"})
"""What a `loop` tells of itself that is a number or a truth."""

_HANDS_ON = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)


def names(template: Template) -> frozenset[str] | None:
    """The variables that a compiled template asks for; None where it hands on all that there are."""
    found: frozenset[str] | None = template.root_render_func.__globals__["names"]
    return found


class Compiler(CodeGenerator):
    """Writes Python for a template of the `Sandbox`, whose methods it calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names: set[str] = set()

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802
        """Write the module, and in it the `names`."""
        metered = _Metering().visit(node)
        super().visit_Template(metered, frame)
        hands_on = any(getattr(each, "with_context", True) for each in metered.find_all(_HANDS_ON))
        self.writeline("names = " + ("None" if hands_on else f"frozenset({sorted(self._names)})"))

    def enter_frame(self, frame: Frame) -> None:
        """Write what fetches the variables of a frame, and note which."""
        super().enter_frame(frame)
        loads = frame.symbols.loads.values()
        self._names.update(name for action, name in loads if action == VAR_LOAD_RESOLVE and name)

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        """Write a call; what `_Metering` asks is none of the template's, to be judged and paid for."""
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.write(f"environment.{node.node.name}(context")
        self.signature(node, frame)
        self.write(")")

    # What is looked up ---------------------------------------------------------------------------

    @optimizeconst
    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802
        """Write `data.name`."""
        self._look_up(node.node, node.attr, "getattr", frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        """Write `data["name"]`."""
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            self._look_up(node.node, node.arg.value, "getitem", frame)
        elif isinstance(node.arg, nodes.Slice):
            self._paid_for(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def _look_up(self, owner: nodes.Expr, name: str, otherwise: str, frame: Frame) -> None:
        """A key of a plain dict is there for the taking; whatever else is asked for, the sandbox judges."""
        held = self.temporary_identifier()
        if isinstance(owner, nodes.Name) and owner.name == "loop" and name in OF_A_LOOP:
            there, if_it_is = f"{held}.{name}", "LoopContext"
        else:
            there, if_it_is = f"{held}[{name!r}]", f"dict and {name!r} in {held}"
        self.write(f"({there} if type({held} := ")
        self.visit(owner, frame)
        self.write(f") is {if_it_is} else environment.{otherwise}({held}, {name!r}))")

    # What is made --------------------------------------------------------------------------------

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        """Write `[…]`."""
        self._paid_for(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        """Write `{…}`."""
        self._paid_for(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        """Write `(…)`, which may also be what is assigned to."""
        if node.ctx == "load":
            self._paid_for(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _paid_for(self, visit: Callable[[Any, Frame], None], node: nodes.Expr, frame: Frame) -> None:
        """What a literal or a slice makes is new at each turn of a loop: small lists fill memory as well."""
        self.write("environment.paid(")
        visit(node, frame)
        self.write(")")

    # What is put out -----------------------------------------------------------------------------

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802
        """Write what stands between two statements; what is gathered goes Jinja2's own way."""
        if frame.buffer is not None or frame.require_output_check or frame.eval_ctx.volatile:
            super().visit_Output(node, frame)
            return
        for run in self._runs([self._known(child, frame) for child in node.nodes]):
            if isinstance(run, str):
                self.writeline(f"yield {run!r}")
            else:
                self._put_out(run, node, frame)

    def _known(self, node: nodes.Expr, frame: Frame) -> Piece:
        """What a piece always is; the piece itself where that hangs on the data, or fails until then."""
        try:
            return str(self._output_child_to_const(node, frame, self._make_finalize()))
        except Exception:
            return node

    def _runs(self, pieces: list[Piece]) -> Iterator[str | list[Piece]]:
        """What is joined as it is rendered; texts of the template itself that are long need no copy."""
        run: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, str) and (len(pieces) == 1 or len(piece) >= LONG):
                if run:
                    yield run
                yield piece
                run = []
            else:
                run.append(piece)
        if run:
            yield run

    def _put_out(self, run: list[Piece], node: nodes.Output, frame: Frame) -> None:
        self.writeline("yield context.put_out((", node)
        self.indent()
        for piece in run:
            self.newline(None if isinstance(piece, str) else piece)
            self._text(piece, frame)
            self.write(",")
        self.outdent()
        self.write("))")

    def _text(self, piece: Piece, frame: Frame) -> None:
        """Write what makes text of an expression."""
        if isinstance(piece, str):
            self.write(repr(piece))
        elif isinstance(piece, nodes.CondExpr):
            self._either(piece, frame.soft())
        elif not frame.eval_ctx.autoescape and (value := _written_as_json(piece)) is not None:
            self._asked("json(context, ", value, frame)
        else:
            self._asked("escaped(" if frame.eval_ctx.autoescape else "printed(", piece, frame)

    def _either(self, node: nodes.CondExpr, frame: Frame) -> None:
        """One of two pieces; where there is no `else`, no text."""
        self.write("(")
        self._text(self._known(node.expr1, frame), frame)
        self.write(" if ")
        self.visit(node.test, frame)
        self.write(" else ")
        self._text("" if node.expr2 is None else self._known(node.expr2, frame), frame)
        self.write(")")

    def _asked(self, call: str, node: nodes.Expr, frame: Frame) -> None:
        self.write(f"environment.{call}")
        self.visit(node, frame)
        self.write(")")


def _written_as_json(node: nodes.Expr) -> nodes.Expr | None:
    """The value of `value | tojson`; None for anything else."""
    if not isinstance(node, nodes.Filter) or node.name != "tojson":
        return None
    return None if node.args or node.kwargs or node.dyn_args or node.dyn_kwargs else node.node


class _Metering(NodeTransformer):
    """Has loops and `~` ask the environment, which Jinja2's compiler by itself lets run free."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _asking("turns", [node.iter], node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _asking("joined", node.nodes, node)


def _asking(attribute: str, args: list[Any], instead_of: nodes.Node) -> nodes.Call:
    where = {"lineno": instead_of.lineno, "environment": instead_of.environment}
    return nodes.Call(nodes.EnvironmentAttribute(attribute, **where), args, [], None, None, **where)
