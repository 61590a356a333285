"""Imports point one way (DESIGN §3), SQL stands only in the store, and no one else names a backend."""

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "notifier"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

STREET: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"notifier", "server", "dev", "bench"}),
    frozenset({"service"}),
    frozenset({"intake"}),
    frozenset(
        {
            *("web", "dashboard", "dispatch", "upkeep", "explain", "preview", "replays"),
            *("suppressions", "unsubscribing"),
        }
    ),
    frozenset({"endpoints"}),
    frozenset({"store", "channels", "rendering", "routing", "ingest", "cloudevents", "inbox"}),
    frozenset({"retry", "config", "faults"}),
    frozenset({"model"}),
    frozenset({"errors", "metrics", "logs"}),
)
"""The rooms of the package, from the door inwards: a room may look into its neighbours and those below."""

APART = {
    ("store", "channels"),
    ("channels", "store"),
    ("channels", "retry"),
    ("web", "channels"),
    ("dashboard", "channels"),
    ("dispatch", "web"),
    ("web", "dispatch"),
}
"""Who must not know whom, though the street would let them: channels only raise, the web only asks."""

DATABASES = {"sqlite3", "aiosqlite", "asyncpg", "psycopg", "psycopg2", "sqlalchemy"}
STATEMENT = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(UNIQUE\s+)?(TABLE|INDEX)|"
    r"ALTER\s+TABLE|DROP\s+TABLE|PRAGMA|BEGIN\s+IMMEDIATE|ORDER\s+BY|GROUP\s+BY|ON\s+CONFLICT)\b",
    re.DOTALL,
)
BACKEND = re.compile(r"sqlite|postgres|psycopg|asyncpg", re.IGNORECASE)
DEFAULT_URL = "sqlite:///notifier.db"


def room(module: str) -> str:
    """The part of the package that a module stands in: `notifier.web.app` stands in `web`."""
    return module.split(".")[1] if "." in module else module


def depth(module: str) -> int:
    """How far down the street a module stands."""
    (found,) = [number for number, rooms in enumerate(STREET) if room(module) in rooms]
    return found


@cache
def tree(module: str) -> ast.Module:
    """The syntax of a module."""
    return ast.parse(MODULES[module].read_text("utf-8"))


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node that is there at run time: what only a type checker reads is not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from running(child)


def imports(syntax: ast.Module) -> Iterator[str]:
    """The full names of what is imported, at the top or late, of this package and of others."""
    for node in running(syntax):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written out in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module or ""


def of_ours(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    return {name for name in imports(tree(module)) if name.split(".")[0] == "notifier"}


def texts(syntax: ast.Module) -> Iterator[str]:
    """The strings of a module, f-strings among them, that are not documentation."""
    documentation = {
        node.value
        for node in ast.walk(syntax)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(syntax):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.value


OUTSIDE_THE_STORE = [module for module in MODULES if room(module) != "store"]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_place_on_the_street(module: str) -> None:
    """A new room is placed in `STREET` on purpose, where its imports are meant to go."""
    assert sum(room(module) in rooms for rooms in STREET) == 1


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    """Nothing imports what stands above it, not even late."""
    assert not [name for name in of_ours(module) if depth(name) < depth(module)]


@pytest.mark.parametrize("module", MODULES)
def test_rooms_that_must_not_know_each_other_do_not(module: str) -> None:
    """The store and the channels above all: each can be replaced without a look at the other."""
    assert not [name for name in of_ours(module) if (room(module), room(name)) in APART]


def test_no_two_rooms_import_each_other() -> None:
    """Neighbours may know one another one way only."""
    rooms: dict[str, set[str]] = {}
    for module in MODULES:
        rooms.setdefault(room(module), set()).update(map(room, of_ours(module)))
    order = TopologicalSorter({name: known - {name} for name, known in rooms.items()})
    assert set(order.static_order()) == set(rooms)


def test_no_two_modules_import_each_other() -> None:
    """Within a room there is an order too."""
    order = TopologicalSorter({module: of_ours(module) - {module} for module in MODULES})
    assert set(order.static_order()) == set(MODULES)


def test_metrics_import_nothing_of_ours() -> None:
    """Anyone may count anything: so that no one gets entangled by it."""
    assert of_ours("notifier.metrics") == set()


def test_nothing_imports_the_front_door() -> None:
    """`import notifier` is for those outside; within, a name is taken from where it stands."""
    assert not [module for module in MODULES if "notifier" in of_ours(module)]


@pytest.mark.parametrize("module", OUTSIDE_THE_STORE)
def test_a_store_is_known_by_its_protocol_alone(module: str) -> None:
    """Outside the store no one imports a backend, nor a database's driver."""
    of_the_store = {name for name in of_ours(module) if room(name) == "store"}
    assert of_the_store <= {"notifier.store", "notifier.store.base"}
    assert not DATABASES & {name.split(".")[0] for name in imports(tree(module))}


@pytest.mark.parametrize("module", OUTSIDE_THE_STORE)
def test_sql_stands_nowhere_outside_the_store(module: str) -> None:
    """No string of any other module holds a statement, or a piece of one."""
    assert not [text for text in texts(tree(module)) if STATEMENT.search(text)]


@pytest.mark.parametrize("module", OUTSIDE_THE_STORE)
def test_a_backend_is_named_nowhere_outside_the_store(module: str) -> None:
    """Neither in a string nor as a name; only the configuration's default says which one it means."""
    names = [node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)]
    attributes = [node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)]
    words = itertools.chain(texts(tree(module)), names, attributes)
    named = [word for word in words if BACKEND.search(word)]
    assert named == ([DEFAULT_URL] if module == "notifier.config.sections" else [])


def test_the_walk_sees_what_it_is_to_see() -> None:
    """Late imports, submodules taken from their package, and statements in f-strings; not what types need."""
    syntax = ast.parse(
        '''
"""SELECT seq FROM documentation"""
from typing import TYPE_CHECKING
from notifier import channels
if TYPE_CHECKING:
    from notifier.service import Notifier
def late(name):
    """PRAGMA docstring"""
    import sqlite3
    from notifier.store import sql, open_store
    return f"SELECT {name} FROM job", f"DELETE FROM {name}"
'''
    )
    assert set(imports(syntax)) == {
        "typing",
        "notifier.channels",
        "sqlite3",
        "notifier.store.sql",
        "notifier.store",
    }
    assert not [text for text in texts(syntax) if "docu" in text or "docstring" in text]
    assert any(STATEMENT.search(text) for text in texts(syntax))
