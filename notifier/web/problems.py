"""What goes wrong → `application/problem+json` (RFC 9457), the one shape of every error this API answers."""

from collections.abc import Iterable, Mapping
from functools import singledispatch
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from notifier.errors import (
    DrainingError,
    EndpointDeletedError,
    Fault,
    IllegalTransitionError,
    InvalidEndpointError,
    InvalidEventError,
    NotFoundError,
    StoreUnavailableError,
)
from notifier.web.replies import Headers, Reply

MEDIA_TYPE = "application/problem+json"
_HEADERS: Headers = (("Content-Type", MEDIA_TYPE), ("X-Content-Type-Options", "nosniff"))
RETRY_AFTER = "5"
"""Seconds after which a 503 is worth another try: about what a restart takes."""

_KINDS = {
    "invalid-request": "The request isn't understood",
    "idempotency-conflict": "The idempotency key was used before with another event",
    "not-found": "No such thing",
    "illegal-transition": "The job's state doesn't allow it",
    "not-local": "Only this machine is served",
    "draining": "The notifier is stopping",
    "store-unavailable": "The store can't take it now",
    "not-ready": "The notifier isn't ready",
}
"""A problem's kind, the last part of its `type`, and its title; other problems are HTTP's own."""

_log = structlog.get_logger(__name__)


class ProblemFault(Struct, frozen=True, kw_only=True):
    """One thing that is wrong: what, and where (`pointer` into the body, or the query's `parameter`)."""

    detail: str
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET


class Problem(Struct, frozen=True, kw_only=True):
    """A problem document."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemFault] | UnsetType = UNSET


class ProblemError(Exception):
    """Ends a request with a problem document; `kind` is one of `_KINDS`, or None for one of HTTP's own."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        errors: Iterable[ProblemFault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.errors = list(errors)
        self.headers = dict(headers or {})

    @property
    def document(self) -> Problem:
        """The problem as it is answered."""
        return Problem(
            type="about:blank" if self.kind is None else f"urn:notifier:problem:{self.kind}",
            title=HTTPStatus(self.status).phrase if self.kind is None else _KINDS[self.kind],
            status=self.status,
            detail=_encodable(str(self)),
            errors=[_encodable_fault(error) for error in self.errors] or UNSET,
        )


def invalid(faults: Iterable[Fault], *, detail: str = "The body isn't understood.") -> ProblemError:
    """Refuse a body for its faults."""
    errors = [ProblemFault(pointer=fault.pointer, detail=fault.detail) for fault in faults]
    return ProblemError(422, detail, kind="invalid-request", errors=errors)


def invalid_parameter(name: str, detail: str) -> ProblemError:
    """Refuse a query for one of its parameters."""
    fault = ProblemFault(parameter=name, detail=detail)
    return ProblemError(422, "The query isn't understood.", kind="invalid-request", errors=[fault])


def respond(error: Exception, request: web.Request) -> web.Response:
    """Answer what went wrong, as `reply` does."""
    return reply(error, request.method, request.path).response()


def reply(error: Exception, method: str, path: str) -> Reply:
    """Answer what went wrong; what nobody expected is logged, and answered without its inner details."""
    problem = explained(error)
    if problem is None:
        _log.error("request failed", method=method, path=path, exc_info=error)
        problem = ProblemError(500, "Something unexpected went wrong; the log says what.")
    return Reply(problem.status, (*_HEADERS, *problem.headers.items()), msgspec.json.encode(problem.document))


@singledispatch
def explained(_error: Exception) -> ProblemError | None:
    """Say which problem an error is; None for one that nobody expected."""
    return None


@explained.register
def _(error: ProblemError) -> ProblemError:
    return error


@explained.register(InvalidEventError)
@explained.register(InvalidEndpointError)
def _(error: InvalidEventError | InvalidEndpointError) -> ProblemError:
    return invalid(error.faults)


@explained.register
def _(error: NotFoundError) -> ProblemError:
    return ProblemError(404, f"There is {error}.", kind="not-found")


@explained.register
def _(error: IllegalTransitionError | EndpointDeletedError) -> ProblemError:
    return ProblemError(409, f"The {error}.", kind="illegal-transition")


@explained.register
def _(_error: DrainingError) -> ProblemError:
    return _try_again("It takes no more events; its successor will.", "draining")


@explained.register
def _(_error: StoreUnavailableError) -> ProblemError:
    detail = "The store can't say what it keeps. Posting again under the same idempotency key is safe."
    return _try_again(detail, "store-unavailable")


@explained.register
def _(_error: web.RequestPayloadError) -> ProblemError:
    return ProblemError(400, "The body ended early, or isn't encoded as its headers say.")


@explained.register
def _(error: web.HTTPException) -> ProblemError:
    return ProblemError(error.status, f"{error.reason}.")


@explained.register
def _(_error: web.HTTPNotFound) -> ProblemError:
    return ProblemError(404, "There is nothing at this path.")


@explained.register
def _(error: web.HTTPMethodNotAllowed) -> ProblemError:
    allowed = ", ".join(sorted(error.allowed_methods))
    detail = f"{error.method} isn't allowed here; what is: {allowed}."
    return ProblemError(405, detail, headers={"Allow": allowed})


@explained.register
def _(_error: web.HTTPRequestEntityTooLarge) -> ProblemError:
    return ProblemError(413, "The body is larger than server.max_body allows.")


def _try_again(detail: str, kind: str) -> ProblemError:
    return ProblemError(503, detail, kind=kind, headers={"Retry-After": RETRY_AFTER})


def _encodable_fault(fault: ProblemFault) -> ProblemFault:
    pointer = UNSET if fault.pointer is UNSET else _encodable(fault.pointer)
    parameter = UNSET if fault.parameter is UNSET else _encodable(fault.parameter)
    return ProblemFault(detail=_encodable(fault.detail), pointer=pointer, parameter=parameter)


def _encodable(text: str) -> str:
    """Make text fit for UTF-8: a header may hold bytes that aren't."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
