"""The email channel: from a job's content to a mail handed to a relay."""

import asyncio
from typing import Any

from notifier.channels import (
    Attachment,
    ChannelContext,
    Content,
    Message,
    Receipt,
    channel,
)
from notifier.channels.address import Address, read_address
from notifier.channels.dkim import Signer
from notifier.channels.mime import Letter, compose
from notifier.channels.plaintext import text_from_html
from notifier.channels.relays import Relays
from notifier.channels.smtp import Envelope
from notifier.channels.styles import inlined
from notifier.config import Config, Relay
from notifier.errors import ConfigError, Permanent, Unavailable, Unknown
from notifier.model import Job

LARGE = 128 * 1024
"""Bytes of attachments and bodies from which on a mail is built beside the event loop."""


@channel("email")
class EmailChannel:
    """Delivers by SMTP over the configured relays, one recipient a mail."""

    parts = frozenset({"subject", "html", "text", "attachments"})
    timeout = None
    """The relays keep to their own times, phase by phase: they know whether the mail may have been taken."""

    def __init__(self, context: ChannelContext) -> None:
        """Read the sender and the key. Raises ConfigError for `channels.email.from` and `.dkim`."""
        section = context.config.channels.email
        self._section = section
        self._sender = _sender(section.from_)
        self._signer = _signer(context.config, self._sender)
        self._relays = Relays(
            section.relays,
            rules=section.rules,
            directory=context.config.directory,
        )
        self._has_relays = bool(section.relays)

    def lane(self, destination: str) -> str:
        """All recipients at one domain share a lane. Raises Permanent with code `invalid_destination`."""
        return f"email:{read_address(destination).domain}"

    async def open(self) -> None:
        """Nothing to get ready: connections are made as mails need them."""

    async def deliver(self, message: Message) -> Receipt:
        """Build the mail and hand it to a relay; what was kept of an earlier attempt goes as it is.

        The same job with the same content is the same mail to the byte, in every attempt. Raises as
        `compose`, `inlined` and `Relays.send` do; Permanent `no_subject`, `no_body`,
        `attachment_too_large`, `message_too_large`; Unavailable `no_relay`. Unknown carries the mail.
        """
        recipient = read_address(message.destination)
        mail = message.kept or await self._built(message)
        if not self._has_relays:
            raise Unavailable("no relay to send by: set channels.email.relays", code="no_relay")
        try:
            reply = await self._relays.send(Envelope(self._sender.spec, recipient.spec, mail))
        except Unknown as error:
            error.content = mail
            raise
        return Receipt(status_code=reply.code, response=reply.text, via=reply.via)

    def preview(self, message: Message) -> dict[str, Any]:
        """The mail that `deliver` would send: its parts, and as `raw` the whole of it."""
        letter = self._letter(message)
        return {
            "from": str(letter.sender),
            "to": str(read_address(message.destination)),
            "subject": letter.subject,
            "html": letter.html,
            "text": letter.text,
            "attachments": [_shown(attachment) for attachment in letter.attachments],
            "raw": self._mail(letter).decode(),
        }

    async def check_relays(self) -> list[tuple[Relay, str | None]]:
        """Connect and log in to each relay, send nothing; say what is wrong with it, or None."""
        return await self._relays.check()

    async def close(self) -> None:
        """Take leave of the relays."""
        await self._relays.close()

    async def _built(self, message: Message) -> bytes:
        def build() -> bytes:
            return self._mail(self._letter(message))

        # Styles and the text from the HTML take as long as all else: they are made there too.
        return build() if _size(message.content) < LARGE else await asyncio.to_thread(build)

    def _mail(self, letter: Letter) -> bytes:
        mail = compose(letter)
        if len(mail) > self._section.max_message:
            raise _too_large(len(mail), self._section.max_message)
        return self._signer.signed(mail) if self._signer else mail

    def _letter(self, message: Message) -> Letter:
        content = message.content
        subject = (content.subject or "").strip()
        if not subject:
            raise Permanent("the template makes no subject (subject.txt)", code="no_subject")
        html, text = self._bodies(message)
        to, cc = _addressed(message.job)
        letter = Letter(
            sender=self._sender,
            to=to,
            cc=cc,
            subject=subject,
            html=html,
            text=text,
            attachments=content.attachments,
            message_id=f"<{message.id}@{self._sender.domain}>",
            # Not the attempt's time, so that a retry is the same mail; what was to wait is not old, though.
            date=max(message.job.created_at, message.event.deliver_at or 0),
            headers=_list_fields(message, self._sender),
        )
        self._check_sizes(letter)
        return letter

    def _bodies(self, message: Message) -> tuple[str | None, str | None]:
        """The HTML as clients need it, and the text; made from the HTML where the template has none."""
        html, text = _present(message.content.html), _present(message.content.text)
        if html is not None and self._section.inline_css:
            html = inlined(html, message.job.template or "")
        if html is not None and text is None:
            text = text_from_html(html)
        return html, text

    def _check_sizes(self, letter: Letter) -> None:
        """Refuse what is too large before it takes up more room, encoded."""
        most = self._section.max_attachment
        for attachment in letter.attachments:
            if len(attachment.content) > most:
                raise Permanent(
                    f"the attachment {attachment.filename!r} has {len(attachment.content):,} bytes; "
                    f"channels.email.max_attachment is {most:,}",
                    code="attachment_too_large",
                )
        if _size(letter) > self._section.max_message:
            raise _too_large(_size(letter), self._section.max_message)


def _sender(text: str) -> Address:
    try:
        return read_address(text)
    except Permanent as error:
        raise ConfigError("channels.email.from", error.message) from error


def _signer(config: Config, sender: Address) -> Signer | None:
    section = config.channels.email.dkim
    return Signer(section, config.directory, sender.domain) if section else None


def _addressed(job: Job) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    """Whom the mail says it is for, which need not be the one it goes to: that may be a bcc."""
    if job.addressed is None:
        return (read_address(job.destination or ""),), ()
    to, cc = job.addressed.to, job.addressed.cc
    return tuple(map(read_address, to)), tuple(map(read_address, cc))


def _list_fields(message: Message, sender: Address) -> list[tuple[str, str]]:
    """One-click unsubscription (RFC 8058), and what the list is called (RFC 2919)."""
    if message.unsubscribe_url is None:
        return []
    return [
        ("List-ID", f"<{message.job.category or 'mail'}.{sender.domain}>"),
        ("List-Unsubscribe", f"<{message.unsubscribe_url}>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    ]


def _present(body: str | None) -> str | None:
    return body if body is not None and body.strip() else None


def _size(made_of: Content | Letter) -> int:
    """About how many bytes there are to build a mail of; never more than it comes to."""
    attached = sum(len(attachment.content) for attachment in made_of.attachments)
    return attached + len(made_of.html or "") + len(made_of.text or "")


def _too_large(size: int, most: int) -> Permanent:
    return Permanent(
        f"the mail has {size:,} bytes; channels.email.max_message is {most:,}", code="message_too_large"
    )


def _shown(attachment: Attachment) -> dict[str, Any]:
    return {
        "filename": attachment.filename,
        "media_type": attachment.media_type,
        "size": len(attachment.content),
        "inline": attachment.inline,
    }
