"""The email channel: from a job's content to a mail handed to a relay."""

from typing import Any, NamedTuple

from notifier.channels import DEFAULT_TIMEOUT, ChannelContext, Message, Receipt, channel
from notifier.channels.address import Address, read_address
from notifier.channels.mime import compose
from notifier.channels.plaintext import text_from_html
from notifier.channels.relays import Relays
from notifier.channels.smtp import Envelope
from notifier.config import Relay
from notifier.errors import ConfigError, Permanent, Unavailable


class Letter(NamedTuple):
    """A mail before it is bytes. A body that is missing is None."""

    recipient: Address
    subject: str
    html: str | None
    text: str | None
    message_id: str
    date: float


@channel("email")
class EmailChannel:
    """Delivers by SMTP over the configured relays, one recipient a mail."""

    parts = frozenset({"subject", "html", "text"})

    def __init__(self, context: ChannelContext) -> None:
        """Read the sender. Raises ConfigError for `channels.email.from`."""
        section = context.config.channels.email
        self._sender = _sender(section.from_)
        self._relays = Relays(section.relays)
        self._has_relays = bool(section.relays)
        # The relays' own timeouts come first: they know whether the mail may have been taken.
        self.timeout = max(self._relays.patience + 1, DEFAULT_TIMEOUT)

    def lane(self, destination: str) -> str:
        """All recipients at one domain share a lane. Raises Permanent with code `invalid_destination`."""
        return f"email:{read_address(destination).domain}"

    async def open(self) -> None:
        """Nothing to get ready: connections are made as mails need them."""

    async def deliver(self, message: Message) -> Receipt:
        """Build the mail and hand it to a relay.

        The same job with the same content is the same mail to the byte, in every attempt. Raises as
        `compose` and `Relays.send` do; Permanent `no_subject`, `no_body`; Unavailable `no_relay`.
        """
        envelope = self._envelope(message)
        if not self._has_relays:
            raise Unavailable("no relay to send by: set channels.email.relays", code="no_relay")
        reply = await self._relays.send(envelope)
        return Receipt(status_code=reply.code, response=reply.text)

    def preview(self, message: Message) -> dict[str, Any]:
        """The mail that `deliver` would send: its parts, and as `raw` the whole of it."""
        letter = self._letter(message)
        return {
            "from": str(self._sender),
            "to": str(letter.recipient),
            "subject": letter.subject,
            "html": letter.html,
            "text": letter.text,
            "raw": self._compose(letter).decode(),
        }

    async def check_relays(self) -> list[tuple[Relay, str | None]]:
        """Connect and log in to each relay, send nothing; say what is wrong with it, or None."""
        return await self._relays.check()

    async def close(self) -> None:
        """Take leave of the relays."""
        await self._relays.close()

    def _envelope(self, message: Message) -> Envelope:
        letter = self._letter(message)
        return Envelope(self._sender.spec, letter.recipient.spec, self._compose(letter))

    def _compose(self, letter: Letter) -> bytes:
        return compose(
            self._sender,
            letter.recipient,
            subject=letter.subject,
            html=letter.html,
            text=letter.text,
            message_id=letter.message_id,
            date=letter.date,
        )

    def _letter(self, message: Message) -> Letter:
        content = message.content
        subject = (content.subject or "").strip()
        if not subject:
            raise Permanent("the template makes no subject (subject.txt)", code="no_subject")
        html, text = _present(content.html), _present(content.text)
        return Letter(
            recipient=read_address(message.destination),
            subject=subject,
            html=html,
            text=text_from_html(html) if text is None and html is not None else text,
            message_id=f"<{message.id}@{self._sender.domain}>",
            # Not the attempt's time, so that a retry is the same mail; what was to wait is not old, though.
            date=max(message.job.created_at, message.event.deliver_at or 0),
        )


def _sender(text: str) -> Address:
    try:
        return read_address(text)
    except Permanent as error:
        raise ConfigError("channels.email.from", error.message) from error


def _present(body: str | None) -> str | None:
    return body if body is not None and body.strip() else None
