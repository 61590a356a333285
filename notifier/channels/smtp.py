"""SMTP: one session with a relay, driven phase by phase; knows nothing of jobs, nor of other sessions.

So it is known what a reply is about, and whether the relay may have taken the mail.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple, cast

from aiosmtplib import SMTP, SMTPConnectError, SMTPException, SMTPResponse, SMTPResponseException
from aiosmtplib.protocol import SMTPProtocol

from notifier.channels.logins import LoginRefused, log_in
from notifier.channels.replies import About, Lesson, Meaning, Phase, Reply, Rules
from notifier.config import Relay
from notifier.errors import Bounced, DeliveryError, Permanent, Transient, Unknown

KEPT_RESPONSE = 1024
"""How many bytes of what a server says are kept."""
BLOCK = 64 * 1024
"""How many bytes of a mail `relay.data_timeout` is for."""
COMMANDS = 4
"""How many commands a mail takes before its content, `relay.timeout` each: RSET, MAIL, RCPT, DATA."""
FAREWELL_TIMEOUT = 5.0
"""How long QUIT waits for its answer, in seconds."""

_SERVICE_CLOSING = 421
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


class RelayFault(Exception):  # noqa: N818 - the design's word
    """The relay, not the mail, is at fault: another one may do.

    `code` is `relay_down`, `relay_tls`, `relay_busy`, `smtputf8_unsupported`, or the word of a rule that a
    reply fits. `phase` is where it was found out, `meaning` what the reply means, None without one. With
    `rests`, the relay is best left alone for a while; `wait` is how many seconds, where that is known.
    """

    def __init__(
        self,
        relay: Relay,
        code: str,
        problem: str,
        *,
        phase: Phase = Phase.CONNECT,
        reply: Reply | None = None,
        meaning: Meaning | None = None,
        rests: bool = True,
        wait: float | None = None,
    ) -> None:
        super().__init__(f"{where(relay)}: {problem}")
        self.relay = relay
        self.code = code
        self.problem = problem
        self.phase = phase
        self.reply = reply
        self.meaning = meaning
        self.rests = rests
        self.wait = wait

    @property
    def lesson(self) -> Lesson | None:
        """What is to be learned from it."""
        return self.meaning.lesson if self.meaning else None

    def again(self, wait: float) -> "RelayFault":
        """The same fault, to be raised anew: an exception raised twice keeps the frames of both."""
        return RelayFault(
            self.relay,
            self.code,
            self.problem,
            phase=self.phase,
            reply=self.reply,
            meaning=self.meaning,
            rests=self.rests,
            wait=wait,
        )


class Broken(Exception):  # noqa: N818 - a state, not an error of anyone's
    """The connection ended and nothing was accepted; `fault` is what to raise if that was the last try.

    `meaning` is that of the reply which ended it, None where it was lost.
    """

    def __init__(self, fault: RelayFault | DeliveryError, meaning: Meaning | None = None) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.meaning = meaning


class Session:
    """One connection, logged in: carries one mail after another."""

    def __init__(self, relay: Relay, client: SMTP, rules: Rules) -> None:
        self.carried = 0
        self.opened_at = 0.0
        self.idle_since = 0.0
        self._relay = relay
        self._client = client
        self._rules = rules
        self._in_transaction = False

    @classmethod
    async def open(cls, relay: Relay, tls: ssl.SSLContext | None, rules: Rules) -> "Session":
        """Connect, say EHLO, secure and log in, within `relay.connect_timeout` in all. Raises RelayFault."""
        client = SMTP(
            hostname=relay.host,
            port=relay.port,
            timeout=None,  # ours are `asyncio.timeout`: `wait_for`, which aiosmtplib has, may lose a cancel
            use_tls=relay.tls == "implicit",
            start_tls=False,
            tls_context=tls,
            local_hostname="localhost",  # or aiosmtplib asks the DNS; `_ehlo_name` says the real one
        )
        try:
            async with asyncio.timeout(relay.connect_timeout):
                await _introduce(relay, client)
        except (SMTPException, OSError, LoginRefused) as error:
            client.close()
            raise _opening_fault(relay, error, rules) from error
        except BaseException:
            client.close()
            raise
        return cls(relay, client, rules)

    @property
    def usable(self) -> bool:
        """Whether the connection stands, with no command under way."""
        return self._client.is_connected

    async def send(self, envelope: Envelope) -> Reply:
        """Run one mail transaction, and return the answer to the final dot.

        Raises Bounced, Permanent or Transient for what the relay says of the recipient or the mail,
        RelayFault for what it says of the sender, of itself or of too much mail, Broken where the connection
        ended before anything was accepted, and Unknown where it ended after the final dot, or we gave it up
        there: a cancellation is told so.
        """
        options = self._options(envelope)
        if self._in_transaction:
            await self._reset()
        self._in_transaction = True
        sender, recipient = envelope.sender.encode(), envelope.recipient.encode()
        self._expect(2, Phase.MAIL, await self._command(Phase.MAIL, b"MAIL", b"FROM:<%b>" % sender, *options))
        self._expect(2, Phase.RCPT, await self._command(Phase.RCPT, b"RCPT", b"TO:<%b>" % recipient))
        self._expect(3, Phase.DATA, await self._command(Phase.DATA, b"DATA"))
        reply = await self._transfer(envelope.content)
        self._in_transaction = False
        self._expect(2, Phase.DOT, reply)
        self.carried += 1
        return reply

    async def quit(self) -> None:
        """Take leave as RFC 5321 §4.1.1.10 asks; the server's answer doesn't matter."""
        try:
            with contextlib.suppress(SMTPException, OSError):
                async with asyncio.timeout(FAREWELL_TIMEOUT):
                    await self._client.quit()
        finally:
            self._client.close()

    def _options(self, envelope: Envelope) -> list[bytes]:
        options = []
        if self._client.supports_extension("size"):  # RFC 1870: too large is said before it is sent
            options.append(b"SIZE=%d" % len(envelope.content))
        if envelope.needs_utf8:
            if not self._client.supports_extension("smtputf8"):
                problem = f"lacks SMTPUTF8, which {envelope.recipient!r} from {envelope.sender!r} needs"
                raise RelayFault(self._relay, "smtputf8_unsupported", problem, rests=False)
            options += (b"SMTPUTF8", b"BODY=8BITMIME")
        return options

    # Commands ------------------------------------------------------------------------------------

    async def _reset(self) -> None:
        """Forget a mail that was refused; a server that can't is left."""
        reply = await self._command(Phase.MAIL, b"RSET")
        if reply.code // 100 != 2:  # noqa: PLR2004 - RFC 5321 §4.2.1
            self._drop()
            problem = f"answered {reply.code} to RSET: {reply.first_line}"
            raise Broken(RelayFault(self._relay, "relay_refused", problem, phase=Phase.MAIL, reply=reply))

    async def _command(self, phase: Phase, *words: bytes) -> Reply:
        """Give a command before the content: whatever breaks here, nothing was accepted."""
        with self._breaking(phase, self._relay.timeout):
            async with asyncio.timeout(self._relay.timeout):
                return _reply(*await self._client.execute_command(*words))

    async def _transfer(self, content: bytes) -> Reply:
        """Send the content and the final dot, and wait for what the relay says of it."""
        protocol = self._client.protocol
        if protocol is None:
            raise Broken(self._breakage(Phase.DATA, "the connection was lost"))
        dotted = _dotted(content)
        end = (len(dotted) - 1) // BLOCK * BLOCK
        if not end:
            return await self._finish(protocol, dotted, None)
        answer = asyncio.ensure_future(protocol.read_response())
        answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        try:
            await self._send_blocks(protocol, dotted, end, answer)
            return await self._finish(protocol, dotted[end:], answer)
        finally:
            answer.cancel()

    async def _send_blocks(
        self, protocol: SMTPProtocol, content: bytes, end: int, answer: "asyncio.Future[SMTPResponse]"
    ) -> None:
        """Send what comes before the last block: what ends here lacks its dot, and was accepted by no one."""
        seconds = self._relay.data_timeout
        for start in range(0, end, BLOCK):
            try:
                with self._breaking(Phase.DOT, seconds):
                    protocol.write(content[start : start + BLOCK])
                    async with asyncio.timeout(seconds):
                        await protocol._drain_helper()  # noqa: SLF001 - aiosmtplib has no other
            finally:
                self._heed(answer)

    def _heed(self, answer: "asyncio.Future[SMTPResponse]") -> None:
        """Raise what the relay said before it had the whole mail; there is no going on after that."""
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            self._drop()
            self._expect(2, Phase.DOT, _reply(*answer.result()))
            raise Broken(self._breakage(Phase.DOT, "it answered before the mail was sent"))

    async def _finish(
        self, protocol: SMTPProtocol, last: bytes, answer: "asyncio.Future[SMTPResponse] | None"
    ) -> Reply:
        """Send the last block: from here on the relay may have the mail, whatever we hear."""
        with self._breaking(Phase.DOT, self._relay.data_timeout):
            protocol.write(last)
        try:
            async with asyncio.timeout(self._relay.dot_timeout):
                return _reply(*await (answer or protocol.read_response()))
        except (SMTPException, OSError, asyncio.CancelledError) as error:
            # Whoever gives it up must hear that it may have arrived; that they are to end, their task knows.
            self._drop()
            via, said = where(self._relay), _said(error, self._relay.dot_timeout)
            raise Unknown(f"{via}: no answer to the message: {said}", code="smtp_unknown", via=via) from error
        except BaseException:
            self._drop()
            raise

    # What became of them -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _breaking(self, phase: Phase, seconds: float) -> Iterator[None]:
        """Close the connection on whatever is raised: a reply that comes late would be taken for the next."""
        try:
            yield
        except (SMTPException, OSError) as error:
            self._drop()
            raise Broken(self._breakage(phase, _said(error, seconds))) from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """Close at once: what is still to be sent must not be, once we have given it up."""
        transport = self._client.transport
        if transport is not None:
            cast("asyncio.WriteTransport", transport).abort()  # uvloop's are no subclasses of it
        self._client.close()

    def _expect(self, kind: int, phase: Phase, reply: Reply) -> None:
        """Go on if the reply's first digit is `kind`; else raise what the refusal means."""
        if reply.code // 100 == kind:
            return
        if reply.code // 100 not in {4, 5}:
            self._drop()
            raise Broken(self._breakage(phase, f"answered {reply.code}: {reply.first_line}"))
        meaning = self._rules.meaning(phase, reply)
        fault = self._refusal(phase, reply, meaning)
        if reply.code == _SERVICE_CLOSING or meaning.lesson is Lesson.MAILS:
            self._drop()
            raise Broken(fault, meaning)
        if meaning.about is About.PROVIDER:
            self._client.close()  # a new one logs in anew
        raise fault

    def _refusal(self, phase: Phase, reply: Reply, meaning: Meaning) -> RelayFault | DeliveryError:
        problem = f"answered {reply.code} to {phase.told}: {reply.first_line}"
        about = meaning.about
        if about in {About.PROVIDER, About.THROTTLE} or (about is About.NETWORK and not phase.of_mail):
            return refused(self._relay, phase, problem, reply, meaning)
        kind: type[DeliveryError] = Permanent if meaning.permanent else Transient
        if about is About.NETWORK:
            kind = Transient
        elif meaning.bounce:
            kind = Bounced
        return kind(
            f"{where(self._relay)}: {problem}",
            code=meaning.word,
            status_code=reply.code,
            response=reply.text,
            via=where(self._relay),
        )

    def _breakage(self, phase: Phase, said: str) -> RelayFault | DeliveryError:
        """Say what a lost connection means. Once MAIL was taken it may be this very mail that breaks it."""
        problem = f"no answer to {phase.told}: {said}"
        if not phase.of_mail:
            return RelayFault(self._relay, "relay_down", problem, phase=phase)
        via = where(self._relay)
        return Transient(f"{via}: {problem}", code="smtp_disconnected", via=via)


def where(relay: Relay) -> str:
    """Name a relay as messages do."""
    return f"{relay.host}:{relay.port}"


def refused(relay: Relay, phase: Phase, problem: str, reply: Reply, meaning: Meaning) -> RelayFault:
    """The fault that a reply tells of. A throttle that can be learned from needs no rest: it is kept to."""
    rests = meaning.about is not About.THROTTLE or meaning.lesson is None
    return RelayFault(relay, meaning.word, problem, phase=phase, reply=reply, meaning=meaning, rests=rests)


# Opening -----------------------------------------------------------------------------------------


async def _introduce(relay: Relay, client: SMTP) -> None:
    await client.connect()
    await client.ehlo(hostname=_ehlo_name(client))
    if relay.tls == "starttls":
        await _start_tls(relay, client)
        await client.ehlo(hostname=_ehlo_name(client))
    if relay.username is not None:
        await log_in(relay, client, relay.username)


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
        problem = f"STARTTLS failed: {_said(error, relay.connect_timeout)}"
        raise RelayFault(relay, "relay_tls", problem, reply=_reply_in(error)) from error


def _opening_fault(relay: Relay, error: Exception, rules: Rules) -> RelayFault:
    if isinstance(error, LoginRefused):
        return _login_fault(relay, error, rules)
    said = _said(error, relay.connect_timeout)
    reply = _reply_in(error)
    if reply is not None:
        meaning = rules.meaning(Phase.CONNECT, reply)
        return refused(relay, Phase.CONNECT, f"refused the connection: {said}", reply, meaning)
    insecure = isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError)
    return RelayFault(relay, "relay_tls" if insecure else "relay_down", f"no session: {said}")


def _login_fault(relay: Relay, error: LoginRefused, rules: Rules) -> RelayFault:
    if error.code <= 0:
        return RelayFault(relay, "relay_auth", error.problem, phase=Phase.AUTH)
    reply = _reply(error.code, error.text)
    return refused(relay, Phase.AUTH, error.problem, reply, rules.meaning(Phase.AUTH, reply))


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


def _said(error: Exception | asyncio.CancelledError, seconds: float) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "it was not waited for any longer"
    if isinstance(error, TimeoutError):
        return f"timed out after {seconds:g} s"
    if reply := _reply_in(error):
        return f"{reply.code} {reply.first_line}"
    if isinstance(error, SMTPConnectError) and error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]  # aiosmtplib wraps an OSError here
    return str(error) or type(error).__name__


def _dotted(content: bytes) -> bytes:
    """Double the dots that begin lines, and end the mail (RFC 5321 §4.5.2)."""
    if content.startswith(b"."):
        content = b"." + content
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    return content.replace(b"\r\n.", b"\r\n..") + end
