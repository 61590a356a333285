"""What a whole notifier tells its operators of endpoints: by the ordinary routes, like any other event."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.builders import event

from notifier.channels import Channel, ChannelContext, FunctionChannel, Message, Receipt
from notifier.config import Config, Retry, Route, Workers
from notifier.endpoints import EndpointDraft
from notifier.errors import InvalidEndpointError, Permanent, Transient
from notifier.model import EndpointState, JobState
from notifier.service import Notifier, Overrides

pytestmark = pytest.mark.timeout(30)
OPS = Route(name="ops", event="notifier.endpoint.*", channel="email", to="ops@example.com", template="ops")
URL = "https://receiver.example/hooks?token=s3cret"


class World:
    """Receivers that answer endpoints as `answer` says, and operators who read their mail."""

    def __init__(self) -> None:
        self.answer: Exception | None = None
        self.mail: asyncio.Queue[Message] = asyncio.Queue()

    async def receive(self, _message: Message) -> Receipt:
        """Answer a webhook."""
        if self.answer is not None:
            raise self.answer
        return Receipt(status_code=200)

    async def read(self, message: Message) -> Receipt:
        """Take a mail."""
        await self.mail.put(message)
        return Receipt()

    def channels(self, _context: Callable[[str], ChannelContext]) -> dict[str, Channel]:
        """Every channel there is."""
        return {
            "webhook": FunctionChannel("webhook", self.receive, 60),
            "email": FunctionChannel("email", self.read, 60),
        }


@pytest.fixture
def world() -> World:
    """Receivers that take everything."""
    return World()


@pytest.fixture
async def notifier(tmp_path: Path, world: World) -> AsyncIterator[Notifier]:
    """A notifier that runs, and tries everything once, with one route for what it reports."""
    for part, text in {"subject.txt": "{{ event.type }}", "payload.json": "{}"}.items():
        (tmp_path / "templates" / "ops").mkdir(parents=True, exist_ok=True)
        (tmp_path / "templates" / "ops" / part).write_text(text)
    (tmp_path / "templates" / "mail").mkdir()
    (tmp_path / "templates" / "mail" / "subject.txt").write_text("x")
    config = Config(
        workers=Workers(concurrency=4),
        retry=Retry(schedule=(), jitter=0),
        routes=(OPS,),
        directory=tmp_path,
    )
    async with Notifier(config, Overrides(channels=world.channels)) as made:
        yield made


async def subscribe(notifier: Notifier, template: str | None = None) -> str:
    """Make an endpoint that takes orders; returns its id."""
    draft = EndpointDraft(url=URL, event_types=("order.*",), template=template)
    made, _ = await notifier.endpoints.create(draft)
    return made.id


async def test_operators_hear_of_an_endpoint_whose_receiver_is_gone(notifier: Notifier, world: World) -> None:
    """410 fails the job, disables the endpoint, and a mail says so, without the url's query."""
    endpoint_id = await subscribe(notifier)
    world.answer = Permanent("the receiver answered 410", code="http_410", status_code=410)
    added = await notifier.submit(event())
    told = await world.mail.get()
    assert told.event.type == "notifier.endpoint.disabled"
    assert told.data["endpoint"]["id"] == endpoint_id
    assert "s3cret" not in str(told.data)
    assert told.content.subject == "notifier.endpoint.disabled"
    assert notifier.endpoints.find(endpoint_id).state is EndpointState.DISABLED
    assert added.jobs[0].endpoint == endpoint_id
    stored, jobs = await notifier.store.event(told.event.id)
    assert (stored.type, [each.route for each in jobs]) == ("notifier.endpoint.disabled", ["ops"])


async def test_an_endpoint_that_was_disabled_is_so_after_a_restart(notifier: Notifier, world: World) -> None:
    """And what comes for it meanwhile is kept."""
    endpoint_id = await subscribe(notifier)
    world.answer = Permanent("the receiver answered 410", code="http_410", status_code=410)
    await notifier.submit(event())
    await world.mail.get()
    await notifier.stop()
    async with Notifier(notifier.config, Overrides(channels=world.channels)) as after:
        assert after.endpoints.find(endpoint_id).state is EndpointState.DISABLED
        added = await after.submit(event())
        assert [(each.endpoint, each.status) for each in added.jobs] == [(endpoint_id, JobState.PENDING)]


async def test_endpoints_are_held_to_the_templates_there_are(notifier: Notifier) -> None:
    """One that is missing, or has nothing for webhooks, is told when it is asked for."""
    assert await subscribe(notifier, template="ops")
    for template, says in (("nope", "no such template"), ("mail", "no payload.json")):
        with pytest.raises(InvalidEndpointError) as raised:
            await subscribe(notifier, template=template)
        (fault,) = raised.value.faults
        assert fault.pointer == "/template"
        assert says in fault.detail


async def test_a_failure_that_opens_no_breaker_is_not_reported(notifier: Notifier, world: World) -> None:
    """It is the job's own; when it was is remembered."""
    endpoint_id = await subscribe(notifier)
    world.answer = Transient("the receiver answered 400", code="http_400", status_code=400)
    added = await notifier.submit(event())
    while (await notifier.store.job(added.jobs[0].id)).status is not JobState.FAILED:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert notifier.endpoints.find(endpoint_id).failing_since is not None
    assert world.mail.empty()
