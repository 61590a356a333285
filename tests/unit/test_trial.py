"""Test-sends by whatever plays the webhook channel: what is told of each, and that none raises."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.builders import NOW, endpoint, event_record

from notifier.channels import Channel, ChannelContext, FunctionChannel, Message, Receipt
from notifier.channels.transport import Answer, PreparedRequest
from notifier.channels.webhook import WebhookChannel
from notifier.config import Config
from notifier.endpoints.trial import Trial, TrialResponse, Trials
from notifier.errors import Permanent, Transient
from notifier.model import JobError, Timings
from notifier.rendering import Renderer

TIMINGS = Timings(connect=0.25, wait=0.5, sent=300, received=2)


class Scripted:
    """A transport that answers one way, and keeps what it was given."""

    def __init__(self, answer: Answer | Transient) -> None:
        self.answer = answer
        self.sent: list[PreparedRequest] = []

    async def open(self) -> None:
        """Nothing to open."""

    async def send(self, request: PreparedRequest, _deadline_seconds: float) -> Answer:
        """Answer as scripted."""
        self.sent.append(request)
        if isinstance(self.answer, Transient):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        """Nothing to close."""


def trials(channel: Channel, folder: Path) -> Trials:
    """Test-sends by a channel, at a time that stands still."""
    return Trials(channel, Renderer(folder), lambda: NOW)


def webhook(transport: Scripted) -> WebhookChannel:
    """The channel itself, before a scripted transport."""
    context = ChannelContext(config=Config(), settings={}, secrets_for=lambda _: [], clock=lambda: NOW)
    return WebhookChannel(context, transport=transport)


async def test_the_exchange_is_told_as_it_was(tmp_path: Path) -> None:
    """The request is the one sent, under an id no job has, sensitive headers hidden; the answer is whole."""
    raw_headers = ((b"Set-Cookie", b"a=1"), (b"X", b"\xff"), (b"Set-Cookie", b"b=2"))
    transport = Scripted(Answer(202, b"o\x00\xff", TIMINGS, raw_headers))
    tried = endpoint(url="https://receiver.example/in?key=1", headers={"X-Token": "t", "X-Shop": "s"})
    trial = await trials(webhook(transport), tmp_path).send(tried, event_record())
    (sent,) = transport.sent
    assert trial.request is not None
    assert (trial.request.method, trial.request.url) == ("POST", sent.url)
    assert trial.request.body == sent.body.decode()
    assert trial.request.headers == sent.headers | {"X-Token": "(hidden)"}
    assert (sent.headers["X-Token"], sent.headers["webhook-id"][:5]) == ("t", "test_")
    assert trial.response == TrialResponse(202, {"Set-Cookie": "a=1, b=2", "X": "\ufffd"}, "o\ufffd\ufffd")
    assert (trial.delivered, trial.error, trial.timings) == (True, None, TIMINGS)


async def test_an_answer_that_is_no_success_is_told_beside_the_error(tmp_path: Path) -> None:
    """Both the response and what a delivery would have made of it."""
    transport = Scripted(Answer(302, b"elsewhere", TIMINGS))
    trial = await trials(webhook(transport), tmp_path).send(endpoint(), event_record())
    assert (trial.delivered, trial.timings) == (False, TIMINGS)
    assert trial.response is not None
    assert trial.response.status_code == 302
    assert trial.error is not None
    assert trial.error.code == "http_302"


async def test_without_an_answer_the_request_is_told(tmp_path: Path) -> None:
    """What broke, and where the time went until it did."""
    transport = Scripted(Transient("no connection", code="connect_failed", timings=TIMINGS))
    trial = await trials(webhook(transport), tmp_path).send(endpoint(), event_record())
    assert trial.request is not None
    assert (trial.response, trial.timings) == (None, TIMINGS)
    assert trial.error == JobError("connect_failed", "no connection")


async def test_a_payload_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """No request, nothing is sent, and the error names the template."""
    transport = Scripted(Answer(200, b"", TIMINGS))
    tried = endpoint(template="nowhere")
    trial = await trials(webhook(transport), tmp_path).send(tried, event_record())
    assert (trial.delivered, trial.request, transport.sent) == (False, None, [])
    assert trial.error is not None
    assert trial.error.code == "template_error"
    assert "nowhere" in trial.error.message


async def raising(error: Exception) -> Receipt:
    """Fail."""
    raise error


async def hanging() -> Receipt:
    """Never end."""
    await asyncio.Event().wait()
    raise AssertionError


async def taking() -> Receipt:
    """Take it."""
    return Receipt(status_code=200, response="thanks")


@pytest.mark.parametrize(
    ("deliver", "told"),
    [
        (taking, Trial(delivered=True, response=TrialResponse(200, {}, "thanks"))),
        (
            lambda: raising(Permanent("no", code="http_410", status_code=410, response="gone")),
            Trial(delivered=False, response=TrialResponse(410, {}, "gone"), error=JobError("http_410", "no")),
        ),
        (
            lambda: raising(ValueError("bad\0")),
            Trial(delivered=False, error=JobError("ValueError", "ValueError: bad\ufffd")),
        ),
        (hanging, Trial(delivered=False, error=JobError("timeout", "no end within 0.01 s"))),
    ],
)
async def test_a_stand_in_is_told_of_by_its_receipt(
    tmp_path: Path, deliver: Callable[[], Awaitable[Receipt]], told: Trial
) -> None:
    """A function that plays the webhook channel: what it returns or raises, within its time."""

    async def function(_message: Message) -> Receipt:
        return await deliver()

    channel = FunctionChannel("webhook", function, 0.01)
    assert await trials(channel, tmp_path).send(endpoint(), event_record()) == told
