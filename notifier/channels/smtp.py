"""SMTP: one session with a relay, driven phase by phase; knows nothing of jobs, nor of other sessions.

So it is known what a reply is about, and whether the relay may have taken the mail.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPConnectError, SMTPException, SMTPResponseException

from notifier.config import Relay
from notifier.errors import Permanent, Transient, Unknown

KEPT_RESPONSE = 1024
"""How many bytes of what a server says are kept."""
LONGEST_SEND = 5
"""How many times `relay.timeout` a mail can take on a session: RSET, MAIL, RCPT, DATA, the final dot."""
FAREWELL_TIMEOUT = 5.0
"""How long QUIT waits for its answer, in seconds."""

_SERVICE_CLOSING = 421
# RFC 4954 §4: the server doesn't know the mechanism, or finds it too weak; another may do.
_OTHER_MECHANISM = frozenset({504, 534})
_HOST_NAME = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


class Envelope(NamedTuple):
    """One mail to one recipient; addresses as `local@domain`, content with CRLF line ends."""

    sender: str
    recipient: str
    content: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether an address can't be written in ASCII (RFC 6531)."""
        return not (self.sender.isascii() and self.recipient.isascii())


class Reply(NamedTuple):
    """What a server answered: its code, and the first KiB of its text."""

    code: int
    text: str


class Phase(StrEnum):
    """The commands of a mail transaction (RFC 5321 §3.3), named as errors name them."""

    RSET = "RSET"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    DOT = "the message"


class RelayFault(Exception):  # noqa: N818 - the design's word
    """The relay, not the mail, is at fault: another one may do.

    `code` is one of `relay_down`, `relay_auth`, `relay_tls`, `relay_refused`, `relay_busy`,
    `smtputf8_unsupported`. With `rests`, the relay is best left alone for a while.
    """

    def __init__(
        self, relay: Relay, code: str, problem: str, *, reply: Reply | None = None, rests: bool = True
    ) -> None:
        super().__init__(f"{where(relay)}: {problem}")
        self.relay = relay
        self.code = code
        self.problem = problem
        self.reply = reply
        self.rests = rests

    def again(self) -> "RelayFault":
        """The same fault, to be raised anew: an exception raised twice keeps the frames of both."""
        return RelayFault(self.relay, self.code, self.problem, reply=self.reply, rests=self.rests)


class Broken(Exception):  # noqa: N818 - a state, not an error of anyone's
    """The connection ended and nothing was accepted; `fault` is what to raise if that was the last try."""

    def __init__(self, fault: RelayFault | Transient | Permanent) -> None:
        super().__init__(str(fault))
        self.fault = fault


class Session:
    """One connection, logged in: carries one mail after another."""

    def __init__(self, relay: Relay, client: SMTP) -> None:
        self.carried = 0
        self.idle_since = 0.0
        self._relay = relay
        self._client = client
        self._in_transaction = False

    @classmethod
    async def open(cls, relay: Relay, tls: ssl.SSLContext | None) -> "Session":
        """Connect, say EHLO, secure and log in, within `relay.timeout` in all. Raises RelayFault."""
        client = SMTP(
            hostname=relay.host,
            port=relay.port,
            timeout=None,  # ours are `asyncio.timeout`: `wait_for`, which aiosmtplib has, may lose a cancel
            use_tls=relay.tls == "implicit",
            start_tls=False,
            tls_context=tls,
            local_hostname="localhost",  # or aiosmtplib asks the DNS; `_ehlo` says the real one
        )
        try:
            async with asyncio.timeout(relay.timeout):
                await _introduce(relay, client)
        except (SMTPException, OSError) as error:
            client.close()
            raise _opening_fault(relay, error) from error
        except BaseException:
            client.close()
            raise
        return cls(relay, client)

    @property
    def usable(self) -> bool:
        """Whether the connection stands, with no command under way."""
        return self._client.is_connected

    async def send(self, envelope: Envelope) -> Reply:
        """Run one mail transaction, and return the answer to the final dot.

        Raises Transient or Permanent for what the relay says of the recipient or the mail, RelayFault for
        what it says of the sender, Broken where the connection ended before anything was accepted, and
        Unknown where it ended after the final dot.
        """
        options = self._options(envelope)
        if self._in_transaction:
            self._expect(2, Phase.RSET, await self._command(Phase.RSET, b"RSET"))
        self._in_transaction = True
        sender, recipient = envelope.sender.encode(), envelope.recipient.encode()
        self._expect(2, Phase.MAIL, await self._command(Phase.MAIL, b"MAIL", b"FROM:<%b>" % sender, *options))
        self._expect(2, Phase.RCPT, await self._command(Phase.RCPT, b"RCPT", b"TO:<%b>" % recipient))
        self._expect(3, Phase.DATA, await self._command(Phase.DATA, b"DATA"))
        reply = await self._transfer(envelope.content)
        self._in_transaction = False
        self.carried += 1
        self._expect(2, Phase.DOT, reply)
        return reply

    async def quit(self) -> None:
        """Take leave as RFC 5321 §4.1.1.10 asks; the server's answer doesn't matter."""
        try:
            with contextlib.suppress(SMTPException, OSError):
                async with asyncio.timeout(FAREWELL_TIMEOUT):
                    await self._client.quit()
        finally:
            self._client.close()

    def _options(self, envelope: Envelope) -> tuple[bytes, ...]:
        if not envelope.needs_utf8:
            return ()
        if not self._client.supports_extension("smtputf8"):
            problem = f"lacks SMTPUTF8, which {envelope.recipient!r} from {envelope.sender!r} needs"
            raise RelayFault(self._relay, "smtputf8_unsupported", problem, rests=False)
        return (b"SMTPUTF8", b"BODY=8BITMIME")

    async def _command(self, phase: Phase, *words: bytes) -> Reply:
        """Give a command before the content: whatever breaks here, nothing was accepted."""
        try:
            async with asyncio.timeout(self._relay.timeout):
                return _reply(*await self._client.execute_command(*words))
        except (SMTPException, OSError) as error:
            self._client.close()
            raise Broken(self._breakage(phase, error)) from error
        except BaseException:
            # Cancelled: the reply would come and be taken for the next command's.
            self._client.close()
            raise

    async def _transfer(self, content: bytes) -> Reply:
        """Send the content and the final dot: from here on the relay may have it, whatever we hear."""
        protocol = self._client.protocol
        if protocol is None:
            raise Broken(self._breakage(Phase.DATA, ConnectionResetError("the connection was lost")))
        try:
            async with asyncio.timeout(self._relay.timeout):
                protocol.write(_dotted(content))
                return _reply(*await protocol.read_response())
        except (SMTPException, OSError) as error:
            self._client.close()
            problem = f"{where(self._relay)}: no answer to the message: {_said(error, self._relay)}"
            raise Unknown(problem, code="smtp_unknown") from error
        except BaseException:
            self._client.close()
            raise

    def _expect(self, kind: int, phase: Phase, reply: Reply) -> None:
        """Go on if the reply's first digit is `kind`; else raise what the refusal means."""
        if reply.code // 100 == kind:
            return
        fault = self._refusal(phase, reply)
        if reply.code == _SERVICE_CLOSING or phase is Phase.RSET:
            self._client.close()
            raise Broken(fault)
        if isinstance(fault, RelayFault) or reply.code // 100 not in {4, 5}:
            self._client.close()
        raise fault

    def _refusal(self, phase: Phase, reply: Reply) -> RelayFault | Transient | Permanent:
        said = f"answered {reply.code} to {phase}: {_first_line(reply.text)}"
        if phase in {Phase.RSET, Phase.MAIL}:
            return RelayFault(self._relay, "relay_refused", said, reply=reply)
        kind = Permanent if reply.code // 100 == 5 else Transient  # noqa: PLR2004 - RFC 5321 §4.2.1
        return kind(
            f"{where(self._relay)}: {said}",
            code=f"smtp_{reply.code}",
            status_code=reply.code,
            response=reply.text,
        )

    def _breakage(self, phase: Phase, error: Exception) -> RelayFault | Transient:
        """Say what a lost connection means. Once MAIL was taken it may be this very mail that breaks it."""
        problem = f"no answer to {phase}: {_said(error, self._relay)}"
        if phase in {Phase.RSET, Phase.MAIL}:
            return RelayFault(self._relay, "relay_down", problem)
        return Transient(f"{where(self._relay)}: {problem}", code="smtp_disconnected")


def where(relay: Relay) -> str:
    """Name a relay as messages do."""
    return f"{relay.host}:{relay.port}"


# Opening -----------------------------------------------------------------------------------------


async def _introduce(relay: Relay, client: SMTP) -> None:
    await client.connect()
    await client.ehlo(hostname=_ehlo_name(client))
    if relay.tls == "starttls":
        await _start_tls(relay, client)
        await client.ehlo(hostname=_ehlo_name(client))
    if relay.username is not None:
        await _log_in(relay, client, relay.username, relay.password or "")


def _ehlo_name(client: SMTP) -> str:
    """This machine's full name where it has one, else its address (RFC 5321 §4.1.4); the DNS isn't asked."""
    name = socket.gethostname()
    if _HOST_NAME.fullmatch(name):
        return name
    address = str(client.get_transport_info("sockname")[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


async def _start_tls(relay: Relay, client: SMTP) -> None:
    """Secure the connection or give it up: a relay that doesn't offer to may be one in the middle."""
    if not client.supports_extension("starttls"):
        raise RelayFault(relay, "relay_tls", "does not offer STARTTLS, which the configuration requires")
    try:
        await client.starttls()
    except (SMTPException, OSError) as error:
        problem = f"STARTTLS failed: {_said(error, relay)}"
        raise RelayFault(relay, "relay_tls", problem, reply=_reply_in(error)) from error


_MECHANISMS: Mapping[str, Callable[[SMTP, str, str], Awaitable[object]]] = {
    "plain": lambda client, username, password: client.auth_plain(username, password),
    "login": lambda client, username, password: client.auth_login(username, password),
    "cram-md5": lambda client, username, password: client.auth_crammd5(username, password),
}


async def _log_in(relay: Relay, client: SMTP, username: str, password: str) -> None:
    """Try what is offered until one is answered for good: a wrong password tried twice locks accounts."""
    refusal: SMTPAuthenticationError | None = None
    for mechanism in (name for name in _MECHANISMS if name in client.server_auth_methods):
        try:
            await _MECHANISMS[mechanism](client, username, password)
        except SMTPAuthenticationError as error:
            refusal = error
            if error.code not in _OTHER_MECHANISM:
                break
        else:
            return
    if refusal is None:
        raise RelayFault(relay, "relay_auth", "offers none of the logins PLAIN, LOGIN and CRAM-MD5")
    said = _without_password(_said(refusal, relay), username, password)
    reply = _reply_in(refusal)
    if reply is not None:
        reply = Reply(reply.code, _without_password(reply.text, username, password))
    problem = f"refused the login of {username!r}: {said}"
    raise RelayFault(relay, "relay_auth", problem, reply=reply) from None


def _without_password(text: str, username: str, password: str) -> str:
    """Blank out what a relay may repeat of a login, in each form that it was sent in."""
    for secret in (f"\0{username}\0{password}", password):
        for form in (b64encode(secret.encode()).decode(), secret):
            text = text.replace(form, "…")
    return text


def _opening_fault(relay: Relay, error: Exception) -> RelayFault:
    reply = _reply_in(error)
    if reply is not None:
        return RelayFault(
            relay, "relay_refused", f"refused the connection: {_said(error, relay)}", reply=reply
        )
    insecure = isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError)
    return RelayFault(relay, "relay_tls" if insecure else "relay_down", f"no session: {_said(error, relay)}")


# What was said -----------------------------------------------------------------------------------


def _reply(code: int, text: str) -> Reply:
    """Keep what every store can: the first KiB, as Unicode, without NUL."""
    kept = text.encode("utf-8", "surrogateescape")[:KEPT_RESPONSE]
    return Reply(code, kept.decode("utf-8", "replace").replace("\0", "\ufffd"))


def _reply_in(error: Exception) -> Reply | None:
    """Return the server's reply that an error carries; one that made no sense has a negative code."""
    if isinstance(error, SMTPResponseException) and error.code > 0:
        return _reply(error.code, error.message)
    return None


def _said(error: Exception, relay: Relay) -> str:
    if isinstance(error, TimeoutError):
        return f"timed out after {relay.timeout:g} s"
    if reply := _reply_in(error):
        return f"{reply.code} {_first_line(reply.text)}"
    if isinstance(error, SMTPConnectError) and error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]  # aiosmtplib wraps an OSError here
    return str(error) or type(error).__name__


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _dotted(content: bytes) -> bytes:
    """Double the dots that begin lines, and end the mail (RFC 5321 §4.5.2)."""
    if content.startswith(b"."):
        content = b"." + content
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    return content.replace(b"\r\n.", b"\r\n..") + end
