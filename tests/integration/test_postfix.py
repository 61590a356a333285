"""Against real servers, Postfix and its `smtp-sink`, on loopback: what arrives, and what refusals mean."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.postfix import DOMAIN, MOST_CONNECTIONS, SIZE_LIMIT, Postfix, SmtpSink, read
from support.program import Program
from support.relays import ENVELOPE, fault_of, relay_to, relays_to
from support.smtp_server import CERTIFICATE, client_tls

from notifier.channels.replies import Reply
from notifier.channels.smtp import Envelope
from notifier.config import Duration
from notifier.errors import Bounced, DeliveryError, Permanent, Transient, Unavailable, Unknown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start Postfix: run these tests as root")
HEADERS = b"""\
From: no-reply@example.com\r
Date: Tue, 1 Sep 2026 12:00:00 +0000\r
Message-ID: <1@example.com>\r
Subject: Hello\r
\r
"""
SUBJECT = "Grüße an {name}, und noch einiges mehr, das nicht in eine Zeile passt"


def mail(recipient: str = f"ada@{DOMAIN}", body: bytes = b"Hello\r\n") -> Envelope:
    """A mail that has all headers that Postfix would add."""
    return Envelope("no-reply@example.com", recipient, HEADERS + body)


@pytest.fixture
async def postfix() -> AsyncIterator[Postfix]:
    """A Postfix that runs."""
    async with Postfix() as server:
        yield server


# Postfix -----------------------------------------------------------------------------------------


def configure(folder: Path, port: int) -> None:
    """Write a configuration whose one relay is this Postfix, with STARTTLS, and a template."""
    (folder / "config.toml").write_text(
        f"""
        [channels.email]
        from = "Zoë's Shop <no-reply@example.com>"
        [[channels.email.relays]]
        host = "localhost"
        port = {port}
        tls = "starttls"
        [[routes]]
        event = "user.signup"
        channel = "email"
        to = "{{{{ data.name }}}} <{{{{ data.email }}}}>"
        template = "welcome"
        """
    )
    template = folder / "templates" / "welcome"
    template.mkdir(parents=True)
    (template / "subject.txt").write_text(SUBJECT.format(name="{{ data.name }}"))
    (template / "body.html").write_text("<p>Hallo <b>{{ data.name }}</b> – schön!</p>")
    (template / "body.txt").write_text("Hallo {{ data.name }} – schön!\n.\n.. Punkte\n")


async def job_of(url: str, event: dict[str, Any]) -> dict[str, Any]:
    """Post an event, and return what its one job is called."""
    async with aiohttp.ClientSession(url) as api, api.post("/v1/events", json=event) as response:
        assert response.status == 202
        (job,) = (await response.json())["jobs"]
        return dict(job)


async def completed(url: str, job_id: str) -> dict[str, Any]:
    """Wait until a job is COMPLETED, and return all that is known of it."""
    async with aiohttp.ClientSession(url) as api:
        while True:
            async with api.get(f"/v1/admin/jobs/{job_id}") as response:
                told = dict(await response.json())
            if told["job"]["status"] == "COMPLETED":
                return told
            assert told["job"]["error"] is None, told["job"]["error"]
            await asyncio.sleep(0.02)


@by_root
async def test_the_installed_program_delivers_to_a_mailbox(tmp_path: Path, postfix: Postfix) -> None:
    """What an event causes lies in the recipient's mailbox: over TLS, once, addressed, and word for word."""
    configure(tmp_path, postfix.port)
    env = {"SSL_CERT_FILE": str(CERTIFICATE)}
    async with Program("serve", "--port", "0", cwd=tmp_path, env=env) as program:
        url = await program.listening()
        data = {"email": f"ada@{DOMAIN}", "name": "Ada Łovelace"}
        job = await job_of(url, {"type": "user.signup", "data": data})
        told = await completed(url, job["id"])
        (raw,) = await postfix.delivered("ada")
    (attempt,) = told["attempts"]
    assert (attempt["outcome"], attempt["status_code"]) == ("delivered", 250)
    assert attempt["via"] == f"localhost:{postfix.port}"
    assert "queued as" in attempt["response"]
    arrived = read(raw)
    assert arrived["Return-Path"] == "<no-reply@example.com>"
    assert "with ESMTPS" in arrived["Received"]
    assert (arrived["From"], arrived["To"]) == (
        "Zoë's Shop <no-reply@example.com>",
        f"Ada Łovelace <ada@{DOMAIN}>",
    )
    assert arrived["Subject"] == SUBJECT.format(name="Ada Łovelace")
    assert arrived["Message-ID"] == f"<{job['id']}@example.com>"
    text, html = arrived.get_body(("plain",)), arrived.get_body(("html",))
    assert text is not None
    assert text.get_content() == "Hallo Ada Łovelace – schön!\n.\n.. Punkte\n"
    assert html is not None
    assert "<b>Ada Łovelace</b> – schön!" in html.get_content()


@by_root
async def test_a_mail_arrives_to_the_byte(postfix: Postfix) -> None:
    """A mail of more than a block, with dots where lines begin, is on disk as it was handed over."""
    body = b"".join(b"." * (number % 3) + b"line %d\r\n" % number for number in range(7000))
    sent = mail(body=body)
    async with relays_to(relay_to(postfix.port)) as relays:
        await relays.send(sent)
    (raw,) = await postfix.delivered("ada")
    assert sent.content.replace(b"\r\n", b"\n") == raw[raw.index(b"From: ") :]


@by_root
async def test_an_address_that_is_not_ascii_arrives(postfix: Postfix) -> None:
    """SMTPUTF8 as Postfix understands it."""
    async with relays_to(relay_to(postfix.port)) as relays:
        await relays.send(mail(f"zoë@{DOMAIN}"))
    (raw,) = await postfix.delivered("zoë")
    assert f"Delivered-To: zoë@{DOMAIN}".encode() in raw


@by_root
async def test_what_postfix_refuses_is_told_apart(postfix: Postfix) -> None:
    """A user that isn't there, a mail that is too large, a domain that we may not send to."""
    async with relays_to(relay_to(postfix.port)) as relays:
        unknown = await fault_of(relays, mail(f"nobody@{DOMAIN}"))
        large = await fault_of(relays, mail(body=b"x" * 70 + b"\r\n" * SIZE_LIMIT))
        elsewhere = await fault_of(relays, mail("ada@example.com"))
        await relays.send(mail())
    via = f"127.0.0.1:{postfix.port}"
    found = [(type(fault), fault.code, fault.status_code) for fault in (unknown, large, elsewhere)]
    assert found == [
        (Bounced, "recipient_refused", 550),
        (Permanent, "message_too_large", 552),
        (Unavailable, "relay_refused", 554),
    ]
    assert {fault.via for fault in (unknown, large, elsewhere)} == {via}


@by_root
async def test_more_connections_than_postfix_takes_are_no_failure(postfix: Postfix) -> None:
    """Its 421 for one connection too many fails no mail: what finds no connection is put off, at no cost.

    Postfix still counts connections for a while that are closed, so it may refuse even the only one.
    """
    async with relays_to(relay_to(postfix.port, connections=3 * MOST_CONNECTIONS)) as relays:
        told = await asyncio.gather(*(relays.send(mail()) for _ in range(60)), return_exceptions=True)
    put_off = [each for each in told if isinstance(each, Unavailable)]
    taken = sum(isinstance(each, Reply) for each in told)
    assert taken + len(put_off) == 60
    assert taken >= MOST_CONNECTIONS
    assert len(await postfix.delivered("ada", taken)) == taken
    assert any("too many connections" in line or "limit exceeded" in line for line in postfix.log)


@by_root
async def test_starttls_with_postfix_is_verified(postfix: Postfix) -> None:
    """With its certificate trusted a mail goes out encrypted, without not at all."""
    relay = relay_to(postfix.port, host="localhost", tls="starttls")
    async with relays_to(relay) as relays:
        fault = await fault_of(relays, mail())
    assert (type(fault), fault.code) == (Unavailable, "relay_tls")
    async with relays_to(relay, tls=client_tls()) as relays:
        await relays.send(mail())
    (raw,) = await postfix.delivered("ada")
    assert b"with ESMTPS" in raw


# smtp-sink ---------------------------------------------------------------------------------------


async def test_every_mail_arrives_once() -> None:
    """Five hundred mails over ten connections: as many files, none twice."""
    async with SmtpSink() as sink:
        async with relays_to(relay_to(sink.port)) as relays:
            sent = [mail(body=b"%d\r\n" % number) for number in range(500)]
            await asyncio.gather(*map(relays.send, sent))
        bodies = sorted(int(taken.rpartition(b"\n\n")[0].rpartition(b"\n\n")[2]) for taken in sink.mails)
    assert bodies == list(range(500))


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        (("-f", "RCPT", "-B", "550 5.1.1 no such user"), Bounced, "recipient_refused"),
        (("-r", "RCPT", "-b", "450 4.2.0 greylisted"), Transient, "greylisted"),
        (("-f", ".", "-B", "554 5.6.0 no"), Permanent, "message_refused"),
        (("-r", "MAIL", "-b", "452 4.3.1 disk full"), Unavailable, "relay_full"),
        (
            ("-r", ".", "-b", "454 Maximum sending rate exceeded"),
            Unavailable,
            "relay_throttled",
        ),
        (("-f", "EHLO"), Unavailable, "relay_refused"),
        (("-q", "CONNECT"), Unavailable, "relay_down"),
        (("-q", "EHLO"), Unavailable, "relay_down"),
        (("-q", "MAIL"), Unavailable, "relay_down"),
        (("-q", "RCPT"), Transient, "smtp_disconnected"),
        (("-q", "DATA"), Transient, "smtp_disconnected"),
        (("-q", "."), Unknown, "smtp_unknown"),
        (("-Q", "CONNECT"), Unavailable, "relay_closing"),
        (("-Q", "MAIL"), Unavailable, "relay_closing"),
        (("-Q", "RCPT"), Transient, "relay_closing"),
        (("-Q", "."), Transient, "relay_closing"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else None,
)
async def test_what_a_server_does_is_told_apart(
    options: tuple[str, ...], kind: type[DeliveryError], code: str
) -> None:
    """Each way in which it refuses or hangs up is known for what it is."""
    async with SmtpSink(*options) as sink, relays_to(relay_to(sink.port)) as relays:
        fault = await fault_of(relays, ENVELOPE)
    assert (type(fault), fault.code, fault.via) == (kind, code, f"127.0.0.1:{sink.port}")


async def test_a_slow_server_gets_a_mail_once() -> None:
    """An answer to the final dot that takes longer than any command may is waited for."""
    async with (
        SmtpSink("-W", ".:1") as sink,
        relays_to(relay_to(sink.port, timeout=Duration(0.5))) as relays,
    ):
        await relays.send(ENVELOPE)
        assert len(sink.mails) == 1
