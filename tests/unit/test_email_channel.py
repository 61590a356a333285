"""The email channel: what a job becomes as a mail, where it goes, and how it is refused."""

import base64
import re
import threading
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.builders import NOW, event_record, job
from support.smtp_server import DROP, SmtpServer, closed_port

from notifier.channels import Attachment, Channel, ChannelContext, Content, Message, Receipt, email
from notifier.channels.email import EmailChannel
from notifier.channels.mime import Letter, compose
from notifier.channels.plaintext import text_from_html
from notifier.config import Channels, Config, DkimSection, Duration, EmailSection, Relay, Size
from notifier.errors import ConfigError, Permanent, Unavailable, Unknown
from notifier.model import Addressed

CONTENT = Content(subject="Welcome, Ada\n", html="<p>Hello <b>Ada</b></p>", text="Hello Ada")


def channel(*relays: Relay, sender: str = "Notifier <no-reply@Example.com>", **section: Any) -> EmailChannel:
    """The channel of a configuration that is only about mail."""
    settings = EmailSection(from_=sender, relays=relays, **section)
    return EmailChannel(
        ChannelContext(
            config=Config(channels=Channels(email=settings)),
            settings={},
            secrets_for=lambda _job: [""],
            clock=lambda: NOW,
        )
    )


def relay_to(server: SmtpServer) -> Relay:
    """This server as a relay."""
    return Relay(host="127.0.0.1", port=server.port, tls="none", timeout=Duration(5))


def message(
    content: Content = CONTENT,
    *,
    destination: str = "Ada <ada@example.org>",
    deliver_at: float | None = None,
    kept: bytes | None = None,
    unsubscribe_url: str | None = None,
    **job_changes: Any,
) -> Message:
    """A job of the email channel that is to be attempted."""
    event = event_record(id="evt_1", type="user.signup", deliver_at=deliver_at)
    changes = {"id": "job_1", "channel": "email", "destination": destination} | job_changes
    return Message(
        job=job(event, **changes),
        event=event,
        content=content,
        kept=kept,
        unsubscribe_url=unsubscribe_url,
    )


def parsed(raw: str | bytes) -> EmailMessage:
    """A mail as the standard library reads it."""
    data = raw.encode() if isinstance(raw, str) else raw
    return BytesParser(policy=policy.default).parsebytes(data)


def test_is_a_channel() -> None:
    """It has everything that the dispatcher asks of a channel, and no use for a payload."""
    built = channel()
    assert isinstance(built, Channel)
    assert built.parts == {"subject", "html", "text", "attachments"}


@pytest.mark.parametrize("sender", ["", "nobody", "a@b@c", "A <a@example.com>, B <b@example.com>"])
def test_a_sender_that_is_none_is_a_configuration_error(sender: str) -> None:
    """A broken `from` is found at start, and the error names its key."""
    with pytest.raises(ConfigError) as caught:
        channel(sender=sender)
    assert caught.value.key == "channels.email.from"


def test_a_mail_has_no_time_but_that_of_its_relays() -> None:
    """A worker never gives an attempt up by itself, so that `unknown` is told as such."""
    assert channel(Relay(timeout=Duration(30))).timeout is None


# Lanes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "lane"),
    [
        ("ada@Example.org", "email:example.org"),
        ("Ada Lovelace <ada@example.org>", "email:example.org"),
        ("zoë@Müller.de", "email:xn--mller-kva.de"),
        ("root@localhost", "email:localhost"),
    ],
)
def test_a_lane_is_a_recipient_domain(destination: str, lane: str) -> None:
    """Recipients at one domain share a lane, however the domain is written."""
    assert channel().lane(destination) == lane


@pytest.mark.parametrize("destination", ["", "ada", "ada@example.org, bob@example.org"])
def test_a_destination_that_is_none_has_no_lane(destination: str) -> None:
    """What is not one address fails at once, as `invalid_destination`."""
    with pytest.raises(Permanent) as caught:
        channel().lane(destination)
    assert caught.value.code == "invalid_destination"


# Mails -------------------------------------------------------------------------------------------


async def test_a_job_arrives_as_a_mail() -> None:
    """Envelope, headers and both bodies are the job's; the receipt is what the relay said."""
    async with SmtpServer() as server:
        sending = channel(relay_to(server))
        await sending.open()
        receipt = await sending.deliver(message())
        await sending.close()
    relay = f"127.0.0.1:{server.port}"
    assert receipt == Receipt(status_code=250, response="2.0.0 queued as 1", via=relay)
    (mail,) = server.mails
    assert (mail.sender, mail.recipients) == ("no-reply@example.com", ("ada@example.org",))
    read = mail.parsed()
    assert {name: str(read[name]) for name in ("From", "To", "Subject", "Message-ID", "Auto-Submitted")} == {
        "From": "Notifier <no-reply@example.com>",
        "To": "Ada <ada@example.org>",
        "Subject": "Welcome, Ada",
        "Message-ID": "<job_1@example.com>",
        "Auto-Submitted": "auto-generated",
    }
    assert [part.get_content().strip() for part in read.iter_parts()] == ["Hello Ada", CONTENT.html]


async def test_attempts_of_a_job_are_the_same_mail() -> None:
    """A retry after an unknown outcome is equal to the byte, `Message-ID` and `Date` among them."""
    async with SmtpServer() as server:
        sending = channel(relay_to(server))
        server.script("dot", DROP)
        with pytest.raises(Unknown):
            await sending.deliver(message())
        await sending.deliver(message())
        await sending.close()
    first, second = server.mails
    assert first.content == second.content
    assert first.parsed()["Date"].datetime.timestamp() == int(NOW)


async def test_what_was_kept_is_sent_as_it_is() -> None:
    """An attempt after an unknown one sends the very bytes of that, whatever the template makes by now."""
    async with SmtpServer() as server:
        sending = channel(relay_to(server))
        server.script("dot", DROP)
        with pytest.raises(Unknown) as caught:
            await sending.deliver(message())
        assert caught.value.content == server.mails[0].content
        changed = Content(subject="Changed", text="Changed")
        await sending.deliver(message(changed, kept=caught.value.content))
        await sending.deliver(message(Content(), kept=caught.value.content))
        await sending.close()
    assert len({mail.content for mail in server.mails}) == 1
    assert server.mails[2].recipients == ("ada@example.org",)


async def test_a_mail_says_whom_it_is_for_and_goes_to_one() -> None:
    """The headers are those of all the jobs; the envelope is this job's recipient, who may be a bcc."""
    addressed = Addressed(to=("Ada <ada@example.org>", "bob@example.org"), cc=("Zoë <zoe@müller.de>",))
    async with SmtpServer() as server:
        sending = channel(relay_to(server))
        await sending.deliver(message(destination="eve@example.net", addressed=addressed))
        await sending.close()
    (mail,) = server.mails
    assert mail.recipients == ("eve@example.net",)
    assert str(mail.parsed()["To"]) == "Ada <ada@example.org>, bob@example.org"
    assert str(mail.parsed()["Cc"]) == "Zoë <zoe@xn--mller-kva.de>"
    assert b"eve" not in mail.content


def test_attachments_go_along() -> None:
    """Files are attached, images stand beside the HTML that shows them; a preview names both."""
    content = msgspec.structs.replace(
        CONTENT,
        attachments=(
            Attachment(filename="a.pdf", media_type="application/pdf", content=b"%PDF"),
            Attachment(filename="l.png", media_type="image/png", content=b"PNG", inline="logo"),
        ),
    )
    preview = channel().preview(message(content))
    assert preview["attachments"] == [
        {"filename": "a.pdf", "media_type": "application/pdf", "size": 4, "inline": None},
        {"filename": "l.png", "media_type": "image/png", "size": 3, "inline": "logo"},
    ]
    (attached,) = parsed(preview["raw"]).iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == ("a.pdf", b"%PDF")


@pytest.mark.parametrize(
    ("size", "limits", "code"),
    [
        (1001, {"max_attachment": Size(1000)}, "attachment_too_large"),
        (1001, {"max_message": Size(1000)}, "message_too_large"),
        (900, {"max_message": Size(1200)}, "message_too_large"),
    ],
)
async def test_what_is_too_large_is_permanent(size: int, limits: dict[str, Any], code: str) -> None:
    """A file beyond its cap, and a mail beyond its own, encoded as it is, are refused with both numbers."""
    file = Attachment(filename="a.bin", media_type="application/octet-stream", content=bytes(size))
    content = msgspec.structs.replace(CONTENT, attachments=(file,))
    with pytest.raises(Permanent, match=r"bytes; channels\.email\.max_") as caught:
        await channel(**limits).deliver(message(content))
    assert caught.value.code == code


async def test_a_large_mail_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built beside the event loop, and is the mail that it would be anyway."""
    file = Attachment(filename="a.bin", media_type="application/octet-stream", content=bytes(1024**2))
    large = message(msgspec.structs.replace(CONTENT, attachments=(file,)))
    threads = []

    def spied(letter: Letter) -> bytes:
        threads.append(threading.current_thread())
        return compose(letter)

    monkeypatch.setattr(email, "compose", spied)
    async with SmtpServer() as server:
        sending = channel(relay_to(server))
        await sending.deliver(large)
        await sending.deliver(message())
        await sending.close()
    assert [thread is threading.main_thread() for thread in threads] == [False, True]
    assert server.mails[0].content == channel().preview(large)["raw"].encode()


async def test_a_long_page_is_read_beside_the_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a megabyte of HTML takes a fifth of a second, in which no other mail would go."""
    threads = []

    def spied(html: str) -> str:
        threads.append(threading.current_thread())
        return text_from_html(html)

    monkeypatch.setattr(email, "text_from_html", spied)
    async with SmtpServer() as server:
        sending = channel(relay_to(server))
        for times in (1, 20_000):
            await sending.deliver(message(Content(subject="Long", html="<p>a word</p>" * times)))
        await sending.close()
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


def test_unsubscribing_takes_one_click() -> None:
    """Where there is a link it stands in the headers that RFC 8058 has for it, whole and unfolded."""
    url = "https://notify.example.com/unsubscribe/" + "x" * 300
    raw = channel().preview(message(unsubscribe_url=url, category="news"))["raw"]
    assert f"\r\nList-Unsubscribe: <{url}>\r\n" in raw
    assert "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw
    assert "\r\nList-ID: <news.example.com>\r\n" in raw
    assert "List-" not in channel().preview(message(category="news"))["raw"]


def test_a_scheduled_mail_is_dated_to_its_time() -> None:
    """A mail that was to wait bears the time that it was to go out at, and not an old one."""
    raw = channel().preview(message(deliver_at=NOW + 86400))["raw"]
    assert parsed(raw)["Date"].datetime.timestamp() == int(NOW + 86400)


def test_text_is_made_from_the_html_where_there_is_none() -> None:
    """A template without body.txt, or with an empty one, still makes a mail with text."""
    for text in (None, " \n"):
        preview = channel().preview(message(Content(subject="Hi", html="<h1>Hi</h1><p>Ada</p>", text=text)))
        assert preview["text"] == "Hi\n==\n\nAda\n"
        assert parsed(preview["raw"]).get_content_type() == "multipart/alternative"


def test_style_sheets_become_attributes() -> None:
    """What a sheet says stands on the elements, counts for the text too; `inline_css = false` leaves it."""
    html = "<style>p{color:red} i{display:none}</style><p>Ada</p><div style=display:none>x</div>"
    content = Content(subject="Hi", html=html)
    preview = channel().preview(message(content))
    assert '<p style="color: red;">Ada</p>' in preview["html"]
    assert preview["text"] == "Ada\n"
    assert channel(inline_css=False).preview(message(content))["html"] == html


def test_mails_are_signed_where_there_is_a_key(tmp_path: Path) -> None:
    """With `channels.email.dkim` every mail begins with a signature as the sender's domain."""
    key = Ed25519PrivateKey.generate()
    (tmp_path / "dkim.key").write_text(base64.b64encode(key.private_bytes_raw()).decode())
    dkim = DkimSection(selector="s1", key_file=str(tmp_path / "dkim.key"))
    raw = channel(dkim=dkim).preview(message())["raw"]
    assert raw.startswith("DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.com;")


def test_text_alone_makes_a_plain_mail() -> None:
    """A template with text and no HTML makes text/plain."""
    preview = channel().preview(message(Content(subject="Hi", text="Ada", html="\n")))
    assert parsed(preview["raw"]).get_content_type() == "text/plain"
    assert preview["html"] is None


def test_a_preview_is_the_mail_that_would_go_out() -> None:
    """It has sender, recipient, subject, both bodies and the raw mail, in JSON's types."""
    preview = channel().preview(message(destination="zoë@müller.de"))
    assert msgspec.json.decode(msgspec.json.encode(preview)) == preview
    raw = preview.pop("raw")
    assert preview == {
        "from": "Notifier <no-reply@example.com>",
        "to": "zoë@xn--mller-kva.de",
        "subject": "Welcome, Ada",
        "html": CONTENT.html,
        "text": CONTENT.text,
        "attachments": [],
    }
    assert str(parsed(raw)["Subject"]) == "Welcome, Ada"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (Content(html="<p>x</p>"), "no_subject"),
        (Content(subject=" \n", html="<p>x</p>"), "no_subject"),
        (Content(subject="Hi"), "no_body"),
        (Content(subject="Hi", html=" ", text="\n"), "no_body"),
        (Content(subject="Hi\r\nBcc: eve@example.com", text="x"), "header_injection"),
    ],
)
async def test_content_that_makes_no_mail_is_permanent(content: Content, code: str) -> None:
    """Without subject or body, or with a line break in the subject, nothing is sent, now or later."""
    async with SmtpServer() as server:
        with pytest.raises(Permanent) as caught:
            await channel(relay_to(server)).deliver(message(content))
        assert server.connections == 0
    assert caught.value.code == code


async def test_without_relays_the_operator_is_told_what_to_set() -> None:
    """No relay configured costs no attempt, and the message names the key."""
    with pytest.raises(Unavailable, match=re.escape("channels.email.relays")) as caught:
        await channel().deliver(message())
    assert caught.value.code == "no_relay"


async def test_relays_can_be_checked() -> None:
    """Each relay is tried without a mail, and the bad one's problem is said."""
    async with SmtpServer() as server:
        down = Relay(host="127.0.0.1", port=closed_port(), tls="none")
        checked = await channel(relay_to(server), down).check_relays()
    assert [relay for relay, _ in checked] == [relay_to(server), down]
    assert checked[0][1] is None
    assert checked[1][1]
    assert server.mails == []
