"""Reads lists of whom nothing is to be sent to, and adds them to a server's: a bad line stops no other."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct, field

from notifier.cli.client import Client, Pointed, RefusedError, Server
from notifier.cli.program import usage_error
from notifier.cli.send import read_file

REASONS = ("unsubscribed", "bounced", "complained", "manual")
BATCH = 500
"""How many are added in one call; the server takes up to 1,000."""

_PATH = "/v1/admin/suppressions"
_UNREADABLE = 422
_MAX_DETAIL = 512
_FIELDS = frozenset({"channel", "recipient", "category", "reason", "detail", "created_at"})
_RECIPIENTS = ("recipient", "email", "email address", "address")
"""What the column of addresses is called, here and elsewhere."""
_MARKED = re.compile(r"'+[=+\-@\t\r]")
_AT_FAULT = re.compile(r"/(\d+)(/.*)?")


class Entry(Struct, frozen=True):
    """What a file says of one recipient, and the number of its line."""

    line: int
    said: dict[str, Any]


class Refusal(Struct, frozen=True):
    """A line that was not taken, and why."""

    line: int
    problem: str


class Tally(Struct):
    """What became of the lines."""

    added: int = 0
    known: int = 0
    refusals: list[Refusal] = field(default_factory=list)


def entries(name: str, form: str | None) -> Iterator[Entry | Refusal]:
    """Read a file (`-` is stdin) as `csv` or `ndjson`; unsaid, by how it begins.

    One that can't be read is a usage error.
    """
    try:
        text = read_file(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise usage_error(f"{name}: is not UTF-8 text") from None
    ndjson = form == "ndjson" if form else text.lstrip().startswith("{")
    try:
        yield from _from_ndjson(text) if ndjson else _from_csv(text)
    except csv.Error as error:
        raise usage_error(f"{name}: is no CSV: {error}") from None


def _from_ndjson(text: str) -> Iterator[Entry | Refusal]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            said = msgspec.json.decode(line.encode(), type=dict[str, Any])
        except msgspec.MsgspecError as error:
            yield Refusal(number, f"not a JSON object: {error}")
        else:
            yield Entry(number, {name: said[name] for name in _FIELDS & said.keys()})


def _from_csv(text: str) -> Iterator[Entry | Refusal]:
    """Read a table whose first line has names, or a plain list of recipients."""
    rows = csv.reader(io.StringIO(text, newline=""))
    first = next(rows, [])
    names = [cell.strip().lower() for cell in first]
    column = next((names.index(name) for name in _RECIPIENTS if name in names), None)
    if column is None:
        yield from _listed(1, first)
        for row in rows:
            yield from _listed(rows.line_num, row)
        return
    names[column] = "recipient"
    for row in rows:
        said = {name: _unmarked(cell) for name, cell in zip(names, row, strict=False) if cell}
        if said:
            yield Entry(rows.line_num, _ours(said))


def _ours(said: dict[str, str]) -> dict[str, str]:
    """What we know of; what others give for a reason, such as a server's words, is a detail here."""
    ours = {name: said[name] for name in _FIELDS & said.keys()}
    if "reason" in ours and ours["reason"] not in REASONS:
        ours["detail"] = ours.pop("reason")[:_MAX_DETAIL]
    return ours


def _listed(line: int, row: Sequence[str]) -> Iterator[Entry | Refusal]:
    if len(row) > 1:
        yield Refusal(line, "has several columns, and the first line names none of them recipient or email")
    elif row and row[0].strip():
        yield Entry(line, {"recipient": _unmarked(row[0].strip())})


def _unmarked(cell: str) -> str:
    """Take off what an export puts before a cell that a spreadsheet would take for a formula."""
    return cell[1:] if _MARKED.match(cell) else cell


class Import:
    """Adds entries to a server's list. `otherwise` is what holds where an entry doesn't say."""

    def __init__(self, server: Server, otherwise: Mapping[str, str]) -> None:
        self._server = server
        self._otherwise = otherwise
        self._tally = Tally()

    async def run(self, wanted: Iterable[Entry | Refusal]) -> Tally:
        """Add them all; returns what became of them. Raises RefusedError, UnreachableError."""
        stream = iter(wanted)
        async with self._server.client("admin") as client:
            while batch := list(islice(stream, BATCH)):
                self._tally.refusals += [each for each in batch if isinstance(each, Refusal)]
                await self._add(client, [each for each in batch if isinstance(each, Entry)])
        self._tally.refusals.sort(key=lambda refusal: refusal.line)
        return self._tally

    async def _add(self, client: Client, batch: list[Entry]) -> None:
        """Add a batch, less the lines that the server refuses."""
        while batch:
            body = msgspec.json.encode([{**self._otherwise, **each.said} for each in batch])
            try:
                told = await client.post(_PATH, body)
            except RefusedError as error:
                guilty = _guilty(error)
                if not guilty:
                    raise
                self._tally.refusals += [Refusal(batch[n].line, problem) for n, problem in guilty.items()]
                batch = [each for n, each in enumerate(batch) if n not in guilty]
                continue
            added = sum(1 for each in told if each["added"])
            self._tally.added += added
            self._tally.known += len(told) - added
            return


def _guilty(error: RefusedError) -> dict[int, str]:
    """Which of a batch the server found fault with, and what."""
    if error.status != _UNREADABLE:
        return {}
    return dict(filter(None, map(_pointed, error.problem.errors)))


def _pointed(fault: Pointed) -> tuple[int, str] | None:
    found = _AT_FAULT.fullmatch(fault.pointer)
    return (int(found[1]), f"{(found[2] or '')[1:]}: {fault.detail}".lstrip(": ")) if found else None
