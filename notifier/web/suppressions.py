"""What operators call about suppressions: list, add, drop, and take the whole list out in one file."""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct, structs

from notifier.errors import Fault, NotFoundError, Permanent
from notifier.ingest import MAX_EVENTS
from notifier.model import Category, Destination, Suppression, SuppressionReason, rfc3339
from notifier.suppressions import EXEMPT, recipient_key
from notifier.web import answers
from notifier.web.admin import Moment, Name
from notifier.web.answers import Time
from notifier.web.auth import Scope
from notifier.web.calls import JSON, Answer, Call
from notifier.web.cursors import read_cursor, write_cursor
from notifier.web.problems import invalid
from notifier.web.requests import read_json, read_query

if TYPE_CHECKING:
    from notifier.service import Notifier

_PATH = "/v1/admin/suppressions"
_CSV, _NDJSON = "text/csv", "application/x-ndjson"
_PER_PAGE = 500
_FORMULA = re.compile(r"'*[=+\-@\t\r]")

_log = structlog.get_logger(__name__)


class Which(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which suppressions are meant: all that is given must hold. A recipient may be written in any way."""

    channel: Name | None = None
    recipient: Destination | None = None
    reason: SuppressionReason | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(description="`next_cursor` of the page before")] | None = None


class SuppressionDraft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to send nothing more: of a category, or (null) at all."""

    recipient: Destination
    channel: Name = "email"
    category: Category | None = None
    reason: SuppressionReason = SuppressionReason.MANUAL
    detail: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    created_at: Annotated[Moment, Meta(description="since when; null: now")] | None = None


class Dropped(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which one suppression to forget: that of the category, or (without one) that of everything."""

    recipient: Destination
    channel: Name = "email"
    category: Category | None = None


class SuppressionAnswer(Struct, frozen=True):
    """Whom nothing more is sent to; `category` null means nothing at all."""

    channel: str
    recipient: str
    category: str | None
    reason: SuppressionReason
    detail: str | None
    job_id: Annotated[str | None, Meta(description="the job that led to it")]
    created_at: Time


class SuppressionAdded(SuppressionAnswer, frozen=True):
    """A suppression that was asked for; where it was not added, one like it stands already, as it was."""

    added: bool


class SuppressionList(Struct, frozen=True):
    """A page of suppressions, the last added first; `next_cursor` leads on, and is null at the end."""

    suppressions: list[SuppressionAnswer]
    next_cursor: str | None


class SuppressionDropped(Struct, frozen=True):
    """The suppression that is forgotten."""

    channel: str
    recipient: str
    category: str | None


_drafts = msgspec.json.Decoder(SuppressionDraft | list[SuppressionDraft])


class SuppressionCalls:
    """The calls below `/v1/admin/suppressions`."""

    def __init__(self, notifier: "Notifier") -> None:
        self.notifier = notifier
        self.max_body = notifier.config.server.max_body

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Answer a page of suppressions; or all of them, where CSV or NDJSON is asked for."""
        query = read_query(request, Which)
        if (kind := _export_asked(request)) is not None:
            return await self._export(request, query, kind)
        after = None if query.cursor is None else read_cursor(query.cursor)
        page = await self.notifier.suppressions.page(**_narrowed(query), limit=query.limit, after=after)
        following = None if page.next_position is None else write_cursor(page.next_position)
        return answers.respond(SuppressionList([_answer(each) for each in page.suppressions], following))

    async def add(self, request: web.Request) -> web.Response:
        """Suppress whoever is named, all or none where one can't be; tells of each whether it is new."""
        drafts = await read_json(request, _drafts, self.max_body)
        is_array = isinstance(drafts, list)
        asked = drafts if isinstance(drafts, list) else [drafts]
        if not 1 <= len(asked) <= MAX_EVENTS:
            raise invalid([Fault("", f"expected 1 to {MAX_EVENTS} suppressions, got {len(asked)}")])
        made = self._made(asked, is_array=is_array)
        told = [
            SuppressionAdded(**structs.asdict(_answer(each)), added=added)
            for each, added in zip(made, await self.notifier.suppressions.add(made), strict=True)
        ]
        return answers.respond(told if is_array else told[0])

    async def drop(self, request: web.Request) -> web.Response:
        """Send to a recipient again."""
        wanted = read_query(request, Dropped)
        if not await self.notifier.suppressions.drop(wanted.channel, wanted.recipient, wanted.category):
            raise NotFoundError("suppression", wanted.recipient)
        return answers.respond(SuppressionDropped(wanted.channel, wanted.recipient, wanted.category))

    def _made(self, drafts: Sequence[SuppressionDraft], *, is_array: bool) -> list[Suppression]:
        """Make suppressions of drafts. Raises ProblemError (422) with the faults of all."""
        made: list[Suppression] = []
        faults: list[Fault] = []
        for index, draft in enumerate(drafts):
            pointer = f"/{index}" if is_array else ""
            wrong = [Fault(pointer + fault.pointer, fault.detail) for fault in self._faults(draft)]
            faults += wrong
            if not wrong:
                made.append(_suppression(draft, self.notifier.clock()))
        if faults:
            raise invalid(faults)
        return made

    def _faults(self, draft: SuppressionDraft) -> Iterable[Fault]:
        known = sorted(self.notifier.channels.keys() - {EXEMPT})
        if draft.channel not in known:
            yield Fault("/channel", f"expected one of {', '.join(known)}")
            return
        if draft.created_at is not None and draft.created_at.timestamp() < 0:
            yield Fault("/created_at", "expected no time before 1970")
        try:
            recipient_key(draft.channel, draft.recipient)
        except Permanent as error:
            yield Fault("/recipient", error.message)

    # The whole list ------------------------------------------------------------------------------

    async def _export(self, request: web.Request, query: Which, kind: str) -> web.StreamResponse:
        """Answer everything that is meant, page by page as it is read: a list may be longer than memory."""
        rows, write = self._all(query), _writer(kind)
        first = await anext(rows)  # what goes wrong so far still has an answer of its own
        response = web.StreamResponse(headers={"Content-Type": kind, "X-Content-Type-Options": "nosniff"})
        response.headers["Content-Disposition"] = f'attachment; filename="suppressions.{_ending(kind)}"'
        await response.prepare(request)
        try:
            await response.write(write(first, head=True))
            async for page in rows:
                await response.write(write(page, head=False))
        except Exception as error:
            # The only way left to say that this is not all of it.
            _log.exception("an export of suppressions was cut short", exc_info=error)
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response

    async def _all(self, query: Which) -> AsyncIterator[list[Suppression]]:
        """Read page after page; at least one, be it empty."""
        after = None
        while True:
            page = await self.notifier.suppressions.page(**_narrowed(query), limit=_PER_PAGE, after=after)
            yield page.suppressions
            if (after := page.next_position) is None:
                return


def _narrowed(query: Which) -> dict[str, Any]:
    return {"channel": query.channel, "recipient": query.recipient, "reason": query.reason}


def _suppression(draft: SuppressionDraft, now: float) -> Suppression:
    return Suppression(
        channel=draft.channel,
        recipient=recipient_key(draft.channel, draft.recipient),
        category=draft.category,
        reason=draft.reason,
        detail=draft.detail,
        created_at=now if draft.created_at is None else min(now, draft.created_at.timestamp()),
    )


def _answer(suppression: Suppression) -> SuppressionAnswer:
    told = structs.asdict(suppression) | {"created_at": rfc3339(suppression.created_at)}
    return SuppressionAnswer(**told)


# Files -------------------------------------------------------------------------------------------


def _export_asked(request: web.Request) -> str | None:
    """Say which file is asked for, if one is; the first that `Accept` names."""
    for part in request.headers.get("Accept", "").split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in {_CSV, _NDJSON}:
            return kind
        if kind == JSON:
            return None
    return None


def _ending(kind: str) -> str:
    return "csv" if kind == _CSV else "ndjson"


def _writer(kind: str) -> Callable[..., bytes]:
    return _as_csv if kind == _CSV else _as_ndjson


def _as_ndjson(page: Sequence[Suppression], *, head: bool) -> bytes:  # noqa: ARG001 - it has none
    return b"".join(msgspec.json.encode(_answer(each)) + b"\n" for each in page)


def _as_csv(page: Sequence[Suppression], *, head: bool) -> bytes:
    """Write RFC 4180."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if head:
        writer.writerow(SuppressionAnswer.__struct_fields__)
    writer.writerows([_cell(value) for value in structs.astuple(_answer(each))] for each in page)
    return text.getvalue().encode()


def _cell(value: str | None) -> str:
    """Keep a spreadsheet from taking what strangers wrote for a formula; `suppressions import` undoes it."""
    text = value or ""
    return f"'{text}" if _FORMULA.match(text) else text


# The table ---------------------------------------------------------------------------------------


def calls(notifier: "Notifier") -> list[Call]:
    """Return the calls of this part of the API."""
    suppressions = SuppressionCalls(notifier)
    return [
        Call(
            method="GET",
            path=_PATH,
            name="listSuppressions",
            summary="List whom nothing more is sent to; as CSV or NDJSON, all at once",
            scope=Scope.ADMIN,
            handler=suppressions.show,
            query=Which,
            answers={200: Answer("A page, or the whole list.", SuppressionList, others=(_CSV, _NDJSON))},
            problems=(422, 503),
        ),
        Call(
            method="POST",
            path=_PATH,
            name="addSuppressions",
            summary="Suppress one recipient, or 1 to 1,000 in an array: all, or none where one can't be",
            scope=Scope.ADMIN,
            handler=suppressions.add,
            body={JSON: SuppressionDraft | list[SuppressionDraft]},
            answers={200: Answer("Each, new or not.", SuppressionAdded | list[SuppressionAdded])},
            problems=(413, 415, 422, 503),
        ),
        Call(
            method="DELETE",
            path=_PATH,
            name="dropSuppression",
            summary="Send to a recipient again",
            scope=Scope.ADMIN,
            handler=suppressions.drop,
            query=Dropped,
            answers={200: Answer("It is forgotten.", SuppressionDropped)},
            problems=(404, 422, 503),
        ),
    ]
