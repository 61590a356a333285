"""What goes wrong and how it is told."""

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from notifier.errors import (
    DrainingError,
    Fault,
    IllegalTransitionError,
    InvalidEndpointError,
    InvalidEventError,
    NotFoundError,
    StoreUnavailableError,
)
from notifier.web.problems import ProblemError, respond


def told(error: Exception) -> tuple[web.Response, dict[str, Any]]:
    """The answer to an error, and its document."""
    answer = respond(error, make_mocked_request("GET", "/v1/events"))
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert isinstance(answer.body, bytes)
    return answer, json.loads(answer.body)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidEventError([Fault("/type", "is missing")]), 422, "urn:notifier:problem:invalid-request"),
        (InvalidEndpointError([Fault("/url", "no url")]), 422, "urn:notifier:problem:invalid-request"),
        (NotFoundError("job", "job_1"), 404, "urn:notifier:problem:not-found"),
        (
            IllegalTransitionError("job_1", "PROCESSING", "requeued"),
            409,
            "urn:notifier:problem:illegal-transition",
        ),
        (DrainingError(), 503, "urn:notifier:problem:draining"),
        (StoreUnavailableError("disk full"), 503, "urn:notifier:problem:store-unavailable"),
        (web.HTTPNotFound(), 404, "about:blank"),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), 405, "about:blank"),
        (web.HTTPRequestEntityTooLarge(5), 413, "about:blank"),
        (web.RequestPayloadError(), 400, "about:blank"),
        (web.HTTPUpgradeRequired(), 426, "about:blank"),
    ],
)
def test_every_cause_has_its_status_and_type(error: Exception, status: int, kind: str) -> None:
    """RFC 9457's members say the same as the status line."""
    answer, document = told(error)
    assert (answer.status, document["status"], document["type"]) == (status, status, kind)
    assert document["title"]
    assert document["detail"]


def test_faults_of_a_body_come_with_pointers() -> None:
    """`errors` holds each fault: where, and what."""
    _, document = told(InvalidEventError([Fault("/0/type", "is missing"), Fault("", "is empty")]))
    assert document["errors"] == [
        {"detail": "is missing", "pointer": "/0/type"},
        {"detail": "is empty", "pointer": ""},
    ]


@pytest.mark.parametrize("error", [DrainingError(), StoreUnavailableError("disk full")])
def test_what_passes_says_when_to_try_again(error: Exception) -> None:
    """A 503 carries `Retry-After`, and nothing of the store's own words."""
    answer, document = told(error)
    assert int(answer.headers["Retry-After"]) > 0
    assert "disk full" not in json.dumps(document)


def test_a_method_refused_says_which_are_not() -> None:
    """A 405 carries `Allow` (RFC 9110 §15.5.6)."""
    assert told(web.HTTPMethodNotAllowed("PUT", ["POST", "GET"]))[0].headers["Allow"] == "GET, POST"


def test_what_nobody_expected_is_logged_and_not_shown() -> None:
    """A 500 reveals nothing of its cause; the log has it whole."""
    with capture_logs() as logs:
        answer, document = told(RuntimeError("password=hunter2"))
    assert (answer.status, document["title"]) == (500, "Internal Server Error")
    assert "hunter2" not in json.dumps(document)
    assert [str(log["exc_info"]) for log in logs] == ["password=hunter2"]


def test_text_that_is_not_utf8_can_still_be_told() -> None:
    """A header's stray bytes, quoted in a problem, are escaped in it."""
    _, document = told(ProblemError(415, "not \udcff"))
    assert document["detail"] == "not \\udcff"
    _, document = told(InvalidEventError([Fault("/\udcff", "\udcff")]))
    assert document["errors"] == [{"detail": "\\udcff", "pointer": "/\\udcff"}]
