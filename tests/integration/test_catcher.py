"""The catcher over real sockets: what the real channels send is what the inbox holds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Literal

import aiohttp
import msgspec
import pytest
from support.builders import NOW, event_record, job
from support.egress_proxy import EgressProxy

from notifier import channels
from notifier.channels import Channel, ChannelContext, Content, FunctionChannel, Message, Receipt
from notifier.channels.signing import new_secret
from notifier.config import Config, parse_config
from notifier.dev import LOOPBACK, Catcher, caught
from notifier.errors import Permanent
from notifier.inbox import Hook, Inbox, Mail, Note
from notifier.model import Endpoint, EndpointSecret

SECRETS = [new_secret(), new_secret("v1a"), new_secret()]


@pytest.fixture
async def catcher() -> AsyncIterator[Catcher]:
    """A catcher that listens."""
    made = Catcher(Inbox(), time.time)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def config(catcher: Catcher, tmp_path: object) -> Config:
    """A configuration with relays far away, changed as `notifier dev` changes it."""
    text = (
        '[channels.email]\nfrom = "N <n@example.com>"\n[[channels.email.relays]]\nhost = "mx.example.com"\n'
    )
    return caught(parse_config(text), catcher, tmp_path, None)  # type: ignore[arg-type]  # a Path


@pytest.fixture
async def built(
    catcher: Catcher, config: Config, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, Channel]]:
    """Every channel as `notifier dev` builds it, a plugin's among them."""

    async def send_sms(_message: Message) -> Receipt:
        raise Permanent("the plugin itself must not be called")

    def sms(_context: ChannelContext) -> Channel:
        return FunctionChannel("sms", send_sms, 1.0)

    channels.load(config)
    monkeypatch.setitem(channels._factories, "sms", sms)
    made = catcher.channels(context_of(config))
    for each in made.values():
        await each.open()
    yield made
    for each in made.values():
        await each.close()


def context_of(config: Config) -> Callable[[str], ChannelContext]:
    """Make every channel's context: the same secrets, of which some are being rotated out, sign all."""
    context = ChannelContext(config=config, settings={}, secrets_for=lambda _job: SECRETS, clock=time.time)
    return lambda _name: context


def message(**changes: object) -> Message:
    """A message of one job."""
    record = event_record(body='{"name":"Ada"}')
    return Message(job=job(record, **changes), event=record, content=Content(subject="Hé", html="<p>Hi</p>"))


async def test_a_webhook_is_caught_with_its_signature_verified(
    catcher: Catcher, built: dict[str, Channel]
) -> None:
    """The request for a receiver far away shows its url, host, headers and body, and verifies."""
    sent = message(destination="https://crm.example.com/hooks?a=1")
    sent = Message(job=sent.job, event=sent.event)
    receipt = await built["webhook"].deliver(sent)
    assert receipt.status_code == 204
    (only,) = catcher.inbox
    assert isinstance(only.message, Hook)
    assert only.message.url == "https://crm.example.com/hooks?a=1"
    assert only.message.problem is None
    headers = dict(only.message.headers)
    assert headers["Host"] == "crm.example.com"
    assert headers["webhook-id"] == sent.job.id
    assert b'"data":{"name":"Ada"}' in only.message.body


@pytest.mark.parametrize("signature", ["v1", "v1a"])
async def test_an_endpoints_webhook_is_caught_with_its_own_signature_verified(
    catcher: Catcher, built: dict[str, Channel], signature: Literal["v1", "v1a"]
) -> None:
    """It is verified by the endpoint's secret, and shows the endpoint's url and headers."""
    endpoint = Endpoint(
        id="ep_1",
        url="https://hooks.example.com/in?token=t",
        event_types=("*",),
        headers={"X-Team": "shop"},
        secrets=(EndpointSecret(new_secret(signature), NOW),),
        created_at=NOW,
        updated_at=NOW,
        state_changed_at=NOW,
    )
    sent = message(destination="https://hooks.example.com/in")
    await built["webhook"].deliver(Message(job=sent.job, event=sent.event, endpoint=endpoint))
    (only,) = catcher.inbox
    assert isinstance(only.message, Hook)
    assert only.message.url == endpoint.url
    assert only.message.problem is None
    assert ("X-Team", "shop") in only.message.headers


async def test_a_declared_proxy_is_not_used(catcher: Catcher, config: Config) -> None:
    """What is caught goes straight to the catcher, and nothing to the egress proxy that is configured."""
    async with EgressProxy() as proxy:
        section = msgspec.structs.replace(config.channels.webhook, proxy=proxy.url())
        with_proxy = msgspec.structs.replace(
            config, channels=msgspec.structs.replace(config.channels, webhook=section)
        )
        webhook = catcher.channels(context_of(with_proxy))["webhook"]
        await webhook.open()
        await webhook.deliver(message(destination="https://a.example/x"))
        await webhook.close()
        assert proxy.connections == 0
    assert len(list(catcher.inbox)) == 1


async def test_a_forged_request_says_why_it_does_not_verify(catcher: Catcher) -> None:
    """What the notifier did not sign is caught, and shown as not verified."""
    url = f"http://{LOOPBACK}:{catcher.webhook_port}/https/a.example:443/x"
    async with aiohttp.ClientSession() as session:
        async with session.post(url, data=b"{}", headers={"webhook-id": "job_x"}) as response:
            assert response.status == 204
        async with session.get(f"http://{LOOPBACK}:{catcher.webhook_port}/other") as response:
            assert response.status == 404
    (only,) = catcher.inbox
    assert isinstance(only.message, Hook)
    assert only.message.problem == "webhook-id names no job of this notifier"


async def problem_of_another(catcher: Catcher, body: bytes | None = None, **changed: str) -> str | None:
    """Send the newest caught request again, changed; what the catcher finds wrong with it."""
    hook = next(iter(catcher.inbox)).message
    assert isinstance(hook, Hook)
    headers = {name: value for name, value in hook.headers if name.startswith("webhook-")}
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    body = hook.body if body is None else body
    url = f"http://{LOOPBACK}:{catcher.webhook_port}/https/a.example:443/x"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers):
        pass
    newest = next(iter(catcher.inbox)).message
    assert isinstance(newest, Hook)
    return newest.problem


async def test_a_changed_body_does_not_verify(catcher: Catcher, built: dict[str, Channel]) -> None:
    """A request under a known id, with another body, is told from the true one."""
    await built["webhook"].deliver(message(destination="https://a.example/x"))
    assert await problem_of_another(catcher) is None
    assert "no signature matches" in (await problem_of_another(catcher, body=b"{}") or "")


async def test_while_secrets_are_rotated_each_must_have_signed(
    catcher: Catcher, built: dict[str, Channel]
) -> None:
    """A receiver may know any of the secrets, of either kind: none may lack its signature."""
    await built["webhook"].deliver(message(destination="https://a.example/x"))
    hook = next(iter(catcher.inbox)).message
    assert isinstance(hook, Hook)
    newest, public, oldest = dict(hook.headers)["webhook-signature"].split(" ")
    assert await problem_of_another(catcher, webhook_signature=f"{oldest} {public} {newest}") is None
    for missing in (f"{newest} {oldest}", f"{newest} {public}", f"{public} {oldest}"):
        assert await problem_of_another(catcher, webhook_signature=missing)


async def test_a_mail_is_caught_over_smtp(catcher: Catcher, built: dict[str, Channel]) -> None:
    """The mail for a relay far away is in the inbox, envelope and bytes."""
    await built["email"].deliver(message(channel="email", destination="ada@example.com", template="w"))
    (only,) = catcher.inbox
    assert isinstance(only.message, Mail)
    assert only.message.sender == "n@example.com"
    assert only.message.recipients == ("ada@example.com",)
    assert only.message.subject == "Hé"
    assert b"\r\nMessage-ID: " in only.message.raw


async def test_a_plugins_message_is_captured_and_the_plugin_not_called(
    catcher: Catcher, built: dict[str, Channel]
) -> None:
    """In its place the inbox gets what it would have been handed; its lane and preview stay its own."""
    sent = message(channel="sms", destination="+331")
    assert await built["sms"].deliver(sent) == Receipt(response="captured")
    (only,) = catcher.inbox
    assert isinstance(only.message, Note)
    assert (only.message.channel, only.message.destination) == ("sms", "+331")
    assert only.message.data == b'{"name":"Ada"}'
    assert only.message.content["subject"] == "Hé"
    assert built["sms"].lane("+331") == "sms"
    assert built["sms"].preview(sent)["destination"] == "+331"
    with pytest.raises(Permanent):
        built["sms"].lane(" ")


async def test_closing_drops_whoever_is_still_connected(catcher: Catcher) -> None:
    """A mail client that stays on the line holds no shutdown up."""
    reader, writer = await asyncio.open_connection(LOOPBACK, catcher.smtp_port)
    assert (await reader.readline()).startswith(b"220 localhost Notifier")
    await catcher.close()
    assert await reader.read() == b""
    writer.close()
