"""SMTP: one session with a relay, driven phase by phase; knows nothing of jobs, nor of other sessions.

So it is known what a reply is about, and whether the relay may have taken the mail.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Collection, Sequence
from typing import NamedTuple, cast

from aiosmtplib import SMTP, SMTPConnectError, SMTPException, SMTPResponseException, SMTPServerDisconnected

from notifier.channels.conversation import Conversation, storable
from notifier.channels.deadlines import Deadlines
from notifier.channels.logins import LoginRefused, log_in
from notifier.channels.replies import About, Lesson, Meaning, Phase, Reply, Rules
from notifier.config import Relay
from notifier.errors import Bounced, DeliveryError, Permanent, Transient, Unknown

BLOCK = 64 * 1024
"""How many bytes of a mail `relay.data_timeout` is for."""
FAREWELL_TIMEOUT = 5.0
"""How long QUIT waits for its answer, in seconds."""

_GO_AHEAD = 354
_SERVICE_CLOSING = 421
_LINE_BREAK = re.compile(rb"[\r\n]")
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


class _Step(NamedTuple):
    """One command of a mail, and the first digit of the reply that lets it go on."""

    phase: Phase
    kind: int
    command: bytes


_RESET = [_Step(Phase.MAIL, 2, b"RSET\r\n")]


class Session:
    """One connection, logged in: carries one mail after another."""

    def __init__(self, relay: Relay, line: Conversation, rules: Rules, extensions: Collection[str]) -> None:
        self.carried = 0
        self.opened_at = 0.0
        self.idle_since = 0.0
        self._relay = relay
        self._line = line
        self._rules = rules
        self._takes_size = "size" in extensions
        self._takes_utf8 = "smtputf8" in extensions
        self._takes_groups = "pipelining" in extensions
        self._in_transaction = False

    @classmethod
    async def open(
        cls, relay: Relay, tls: ssl.SSLContext | None, rules: Rules, deadlines: Deadlines[Conversation]
    ) -> "Session":
        """Connect, say EHLO, secure and log in, within `relay.connect_timeout` in all. Raises RelayFault."""
        client = SMTP(
            hostname=relay.host,
            port=relay.port,
            timeout=None,  # ours is `asyncio.timeout`: `wait_for`, which aiosmtplib has, may lose a cancel
            use_tls=relay.tls == "implicit",
            start_tls=False,
            tls_context=tls,
            local_hostname="localhost",  # or aiosmtplib asks the DNS; `_ehlo_name` says the real one
        )
        try:
            async with asyncio.timeout(relay.connect_timeout):
                await _introduce(relay, client)
            # From here on we speak ourselves: aiosmtplib's commands take a lock, a task and a future each.
            line = Conversation(_transport(client), deadlines)
        except (SMTPException, OSError, LoginRefused) as error:
            client.close()
            raise _opening_fault(relay, error, rules) from error
        except BaseException:
            client.close()
            raise
        return cls(relay, line, rules, client.esmtp_extensions)

    @property
    def usable(self) -> bool:
        """Whether the connection stands, with no command under way."""
        return self._line.is_open

    async def send(self, envelope: Envelope) -> Reply:
        """Run one mail transaction, and return the answer to the final dot.

        Raises Bounced, Permanent or Transient for what the relay says of the recipient or the mail,
        RelayFault for what it says of the sender, of itself or of too much mail, Broken where the connection
        ended before anything was accepted, and Unknown where it ended after the final dot, or we gave it up
        there: a cancellation is told so.
        """
        steps = self._steps(envelope)
        if self._in_transaction:
            await self._reset()
        self._in_transaction = True
        # The first mail goes step by step all the same: if it breaks the connection, it shows at which.
        if self._takes_groups and self.carried:
            await self._go(steps)
        else:
            for step in steps:
                await self._go([step])
        reply = await self._transfer(envelope.content)
        self._in_transaction = False
        self._expect(2, Phase.DOT, reply)
        self.carried += 1
        return reply

    async def quit(self) -> None:
        """Take leave as RFC 5321 §4.1.1.10 asks; the server's answer doesn't matter."""
        try:
            await self._line.ask(b"QUIT\r\n", 1, FAREWELL_TIMEOUT)
        finally:
            self._line.close()

    def _steps(self, envelope: Envelope) -> list[_Step]:
        sender, recipient = envelope.sender.encode(), envelope.recipient.encode()
        if _LINE_BREAK.search(sender + recipient):
            raise ValueError("an address holds a line break")
        return [
            _Step(Phase.MAIL, 2, b"MAIL FROM:<%b>%b\r\n" % (sender, self._options(envelope))),
            _Step(Phase.RCPT, 2, b"RCPT TO:<%b>\r\n" % recipient),
            _Step(Phase.DATA, 3, b"DATA\r\n"),
        ]

    def _options(self, envelope: Envelope) -> bytes:
        # RFC 1870: too large is said before it is sent.
        size = b" SIZE=%d" % len(envelope.content) if self._takes_size else b""
        if not envelope.needs_utf8:
            return size
        if not self._takes_utf8:
            problem = f"lacks SMTPUTF8, which {envelope.recipient!r} from {envelope.sender!r} needs"
            raise RelayFault(self._relay, "smtputf8_unsupported", problem, rests=False)
        return size + b" SMTPUTF8 BODY=8BITMIME"

    # Commands ------------------------------------------------------------------------------------

    async def _reset(self) -> None:
        """Forget a mail that was refused; a server that can't is left."""
        replies = await self._said(_RESET)
        if not replies:
            raise Broken(self._breakage(Phase.MAIL, self._why(self._relay.timeout)))
        reply = replies[0]
        if reply.code // 100 != _RESET[0].kind:
            self._line.close()
            problem = f"answered {reply.code} to RSET: {reply.first_line}"
            raise Broken(RelayFault(self._relay, "relay_refused", problem, phase=Phase.MAIL, reply=reply))

    async def _go(self, steps: Sequence[_Step]) -> None:
        """Take some steps before the content: whatever breaks here, nothing was accepted.

        Several go out in one group (RFC 2920). If one is refused, the first such counts.
        """
        replies = await self._said(steps)
        for (phase, kind, _), reply in zip(steps, replies, strict=False):
            if reply.code // 100 != kind and replies[-1].code == _GO_AHEAD:
                self._line.close()  # it waits for the content of what it refused: not even an empty mail
            self._expect(kind, phase, reply)
        if len(replies) < len(steps):
            raise Broken(self._breakage(steps[len(replies)].phase, self._why(self._relay.timeout)))

    async def _said(self, steps: Sequence[_Step]) -> list[Reply]:
        """Say the commands of some steps; returns the replies, the first few if the connection ended."""
        said = steps[0].command if len(steps) == 1 else b"".join([step.command for step in steps])
        try:
            return await self._line.ask(said, len(steps), self._relay.timeout)
        except BaseException:
            self._line.close()  # a reply that comes late would be taken for the next
            raise

    async def _transfer(self, content: bytes) -> Reply:
        """Send the content and the final dot, and wait for what the relay says of it."""
        dotted = _dotted(content)
        answer = self._line.listen(1)
        try:
            if len(dotted) > BLOCK:
                dotted = await self._all_but_the_end(dotted, answer)
            if answer.done() or not self._line.is_open:
                self._heed(answer)
            self._line.hurry(self._relay.dot_timeout)
            self._line.say(dotted)
            # From here on the relay may have the mail, whatever we hear.
            return await self._answer(answer)
        except BaseException:
            self._line.close()
            raise

    async def _all_but_the_end(self, content: bytes, answer: "asyncio.Future[list[Reply]]") -> bytes:
        """Send what comes before the last block: what ends here lacks its dot, and was accepted by no one."""
        end = (len(content) - 1) // BLOCK * BLOCK
        for start in range(0, end, BLOCK):
            self._line.say(content[start : start + BLOCK])
            try:
                async with asyncio.timeout(self._relay.data_timeout):
                    await self._line.drained()
            except TimeoutError as error:
                said = _told(error, self._relay.data_timeout)
                raise Broken(self._breakage(Phase.DOT, said)) from error
            if answer.done() or not self._line.is_open:
                self._heed(answer)
        return content[end:]

    def _heed(self, answer: "asyncio.Future[list[Reply]]") -> None:
        """Raise what the relay said before it had the whole mail; there is no going on after that."""
        self._line.close()
        replies = answer.result()
        if not replies:
            raise Broken(self._breakage(Phase.DOT, self._why(self._relay.data_timeout)))
        self._expect(2, Phase.DOT, replies[0])
        raise Broken(self._breakage(Phase.DOT, "it answered before the mail was sent"))

    async def _answer(self, answer: "asyncio.Future[list[Reply]]") -> Reply:
        cause = None
        try:
            if replies := await answer:
                return replies[0]
            said = self._why(self._relay.dot_timeout)
        except asyncio.CancelledError as error:
            # Whoever gives it up must hear that it may have arrived; that they are to end, their task knows.
            said, cause = "it was not waited for any longer", error
        via = where(self._relay)
        raise Unknown(f"{via}: no answer to the message: {said}", code="smtp_unknown", via=via) from cause

    def _why(self, seconds: float) -> str:
        return _told(self._line.problem, seconds)

    # What became of them -------------------------------------------------------------------------

    def _expect(self, kind: int, phase: Phase, reply: Reply) -> None:
        """Go on if the reply's first digit is `kind`; else raise what the refusal means."""
        if reply.code // 100 == kind:
            return
        if reply.code // 100 not in {4, 5}:
            self._line.close()
            raise Broken(self._breakage(phase, f"answered {reply.code}: {reply.first_line}"))
        meaning = self._rules.meaning(phase, reply)
        fault = self._refusal(phase, reply, meaning)
        if reply.code == _SERVICE_CLOSING or meaning.lesson is Lesson.MAILS:
            self._line.close()
            raise Broken(fault, meaning)
        if meaning.about is About.PROVIDER:
            self._line.close()  # a new one logs in anew
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


def _transport(client: SMTP) -> asyncio.Transport:
    """The connection of a client that is logged in."""
    if client.transport is None:
        raise SMTPServerDisconnected("the connection was lost")
    return cast("asyncio.Transport", client.transport)  # uvloop's are no subclasses of it


async def _start_tls(relay: Relay, client: SMTP) -> None:
    """Secure the connection or give it up: a relay that doesn't offer to may be one in the middle."""
    if not client.supports_extension("starttls"):
        raise RelayFault(relay, "relay_tls", "does not offer STARTTLS, which the configuration requires")
    try:
        await client.starttls()
    except (SMTPException, OSError) as error:
        problem = f"STARTTLS failed: {_told(error, relay.connect_timeout)}"
        raise RelayFault(relay, "relay_tls", problem, reply=_reply_in(error)) from error


def _opening_fault(relay: Relay, error: Exception, rules: Rules) -> RelayFault:
    if isinstance(error, LoginRefused):
        return _login_fault(relay, error, rules)
    said = _told(error, relay.connect_timeout)
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
    return Reply(code, storable(text.encode("utf-8", "surrogateescape")))


def _reply_in(error: Exception) -> Reply | None:
    """Return the server's reply that an error carries; one that made no sense has a negative code."""
    if isinstance(error, SMTPResponseException) and error.code > 0:
        return _reply(error.code, error.message)
    return None


def _told(error: Exception, seconds: float) -> str:
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
