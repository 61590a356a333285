"""A scripted SMTP server on loopback: raw asyncio, so that it can misbehave in any phase.

async with SmtpServer() as server:
    server.script("rcpt", say(450, "try later"))    # the next RCPT gets this; all later ones are accepted
    ...  # send to server.port
    await server.until(lambda: server.mails)
"""

import asyncio
import base64
import contextlib
import hmac
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Self, cast

from msgspec import Struct

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""A key and a self-signed certificate for `localhost` and 127.0.0.1, valid until 2120."""


class Mail(Struct, frozen=True, kw_only=True):
    """One mail as it came in: the envelope, the parameters of MAIL, the content with its dots undone."""

    sender: str
    recipients: tuple[str, ...]
    options: tuple[str, ...]
    content: bytes
    connection: int

    def parsed(self) -> EmailMessage:
        """The mail as the standard library reads it."""
        return BytesParser(policy=policy.default).parsebytes(self.content)


class Step(Struct, frozen=True, kw_only=True):
    """What the server does in place of accepting: say `lines`, then perhaps drop the connection or hang."""

    before: asyncio.Event | None = None
    """What it waits for until it says anything; it reads nothing meanwhile."""
    lines: tuple[str, ...] = ()
    raw: bytes = b""
    """What it says after the lines, as it stands."""
    after: asyncio.Event | None = None
    """What it waits for until it goes on; it reads nothing meanwhile."""
    drop: bool = False
    hang: bool = False


def say(code: int, text: str, *, drop: bool = False) -> Step:
    """Answer this; the text's lines make a multi-line reply."""
    *first, last = text.split("\n")
    return Step(lines=(*(f"{code}-{line}" for line in first), f"{code} {last}"), drop=drop)


DROP = Step(drop=True)
"""Close the connection in place of an answer."""
HANG = Step(hang=True)
"""Never answer, until the client or the test closes the connection."""
HALF = Step(raw=b"25", drop=True)
"""Begin to answer, and close the connection."""
HALF_OF_MANY = Step(raw=b"250-one\r\n250-tw", drop=True)
"""The same, amid an answer of several lines."""
GARBAGE = Step(lines=("what is this?",))
"""Answer something that is no SMTP."""


def server_tls() -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_tls() -> ssl.SSLContext:
    """The side of a client that trusts this server and no other."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


class SmtpServer:
    """Accepts every mail but where its script says otherwise, and records what it was told.

    Phases to script: `connect`, `ehlo`, `starttls`, `auth`, `mail`, `rcpt`, `data`, `content` (a
    line of it), `dot`, `rset`, `quit`.
    """

    def __init__(
        self,
        *,
        tls: str = "none",
        users: Mapping[str, str] | None = None,
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN"),
        extensions: tuple[str, ...] = ("8BITMIME",),
        mails_per_connection: int | None = None,
        most_connections: int | None = None,
    ) -> None:
        """`tls` is `none`, `starttls` or `implicit`; `users` turns AUTH on, by name and password or token.

        More than `mails_per_connection` or `most_connections` at once are refused with 421.
        """
        self.mails: list[Mail] = []
        self.commands: list[str] = []
        """Every command line, in order, of all connections."""
        self.connections = 0
        self.open_connections = 0
        self.port = 0
        self.tls = tls
        self.users = users
        self.mechanisms = mechanisms
        self.extensions = extensions
        self.mails_per_connection = mails_per_connection
        self.most_connections = most_connections
        self._scripts: dict[str, deque[Step]] = defaultdict(deque)
        self._always: dict[str, Step] = {}
        self._changed = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def script(self, phase: str, *steps: Step) -> None:
        """Do these, once each, the next times that the phase is reached."""
        self._scripts[phase].extend(steps)

    def always(self, phase: str, step: Step | None) -> None:
        """Do this whenever the phase is reached and nothing else is scripted; None takes it back."""
        if step is None:
            self._always.pop(phase, None)
        else:
            self._always[phase] = step

    def said(self, verb: str) -> int:
        """How many commands of this kind came in."""
        return sum(command.upper().startswith(verb) for command in self.commands)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds that this server would notice."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(holds()))

    async def close_connections(self) -> None:
        """Close every connection, as a server does that is tired of idle ones, and wait until it is done."""
        for writer in self._writers:
            writer.close()
        await self.until(lambda: self.open_connections == 0)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def listen(self) -> None:
        """Start to accept, on the port of last time if there was one."""
        context = server_tls() if self.tls == "implicit" else None
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_exception: object) -> None:
        await self.shut()

    async def shut(self) -> None:
        """Stop to accept, and close every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        conversation = _Conversation(self, reader, writer, self.connections)
        self._writers.add(writer)
        await self.noticed()
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await conversation.run()
        finally:
            self._writers.discard(writer)
            writer.close()
            self.open_connections -= 1
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            await self.noticed()

    def next_step(self, phase: str) -> Step | None:
        """What the script has for a phase now."""
        steps = self._scripts[phase]
        return steps.popleft() if steps else self._always.get(phase)

    async def noticed(self) -> None:
        """Wake those who wait for a change."""
        async with self._changed:
            self._changed.notify_all()


class _HangupError(ConnectionError):
    """The script or the client ended the connection."""


class _Conversation:
    """One connection."""

    def __init__(
        self, server: SmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._number = number
        self._secure = server.tls == "implicit"
        self._mails = 0
        self._forget()

    def _forget(self) -> None:
        self._sender: str | None = None
        self._options: tuple[str, ...] = ()
        self._recipients: list[str] = []

    async def run(self) -> None:
        most = self._server.most_connections
        if most is not None and self._server.open_connections > most:
            await self._write("421 4.7.0 mail.test Error: too many connections from 127.0.0.1")
            return
        await self._answer("connect", 220, "mail.test ESMTP scripted")
        handlers = {
            "EHLO": self._ehlo,
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
        }
        while True:
            line = await self._line()
            self._server.commands.append(line)
            await self._server.noticed()
            verb, _, rest = line.partition(" ")
            if verb.upper() == "QUIT":
                await self._answer("quit", 221, "bye")
                return
            handler = handlers.get(verb.upper())
            if handler is None:
                await self._write("502 unknown command")
            else:
                await handler(rest)

    async def _line(self) -> str:
        line = await self._reader.readline()
        if not line:
            raise _HangupError
        return line.decode().rstrip("\r\n")

    async def _write(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape"))
        await self._writer.drain()

    async def _answer(self, phase: str, code: int, text: str) -> bool:
        """Do what the script has for the phase, or else answer; True if the answer was as good as that."""
        step = self._server.next_step(phase)
        if step is None:
            await self._write(*say(code, text).lines)
            return True
        await self._perform(step)
        return bool(step.lines) and step.lines[-1][0] == str(code)[0]

    async def _perform(self, step: Step) -> None:
        if step.before is not None:
            await step.before.wait()
        await self._write(*step.lines)
        self._writer.write(step.raw)
        if step.after is not None:
            await step.after.wait()
        if step.hang:
            await self._reader.read()
        if step.hang or step.drop:
            raise _HangupError

    async def _ehlo(self, _name: str) -> None:
        offers = ["mail.test", *self._server.extensions]
        if self._server.tls == "starttls" and not self._secure:
            offers.append("STARTTLS")
        if self._server.users is not None:
            offers.append("AUTH " + " ".join(self._server.mechanisms))
        await self._answer("ehlo", 250, "\n".join(offers))

    async def _starttls(self, _rest: str) -> None:
        if await self._answer("starttls", 220, "go ahead"):
            await self._writer.start_tls(server_tls())
            self._secure = True

    async def _auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        step = self._server.next_step("auth")
        if step is not None:
            await self._perform(step)
            return
        logins = {
            "PLAIN": self._plain,
            "LOGIN": self._login,
            "CRAM-MD5": self._cram_md5,
            "XOAUTH2": self._xoauth2,
        }
        if await logins[mechanism](initial):
            await self._write("235 2.7.0 welcome")
        else:
            await self._write("535 5.7.8 bad credentials")

    def _knows(self, username: str, secret: str) -> bool:
        return (username, secret) in (self._server.users or {}).items()

    async def _ask(self, question: bytes) -> str:
        """Put a question in Base64, and return the answer as it came."""
        await self._write("334 " + base64.b64encode(question).decode())
        return await self._line()

    async def _plain(self, initial: str) -> bool:
        _, username, password = base64.b64decode(initial).decode().split("\0")
        return self._knows(username, password)

    async def _login(self, initial: str) -> bool:
        username = initial or await self._ask(b"Username:")
        password = await self._ask(b"Password:")
        return self._knows(*(base64.b64decode(answer).decode() for answer in (username, password)))

    async def _cram_md5(self, _initial: str) -> bool:
        """RFC 2195."""
        challenge = b"<1896.697170952@mail.test>"
        answer = base64.b64decode(await self._ask(challenge)).decode()
        username, _, digest = answer.rpartition(" ")
        password = (self._server.users or {}).get(username, "")
        return hmac.compare_digest(digest, hmac.new(password.encode(), challenge, "md5").hexdigest())

    async def _xoauth2(self, initial: str) -> bool:
        """As Gmail does: a refusal is told first in Base64, and has to be answered with an empty line."""
        user, bearer, *_ = base64.b64decode(initial).decode().split("\x01")
        known = self._knows(user.removeprefix("user="), bearer.removeprefix("auth=Bearer "))
        return known or bool(await self._ask(b'{"status":"400","schemes":"Bearer"}'))

    async def _mail(self, rest: str) -> None:
        if self._mails == self._server.mails_per_connection:
            await self._write("421 4.7.0 too many mails on this connection")
            raise _HangupError
        if self._sender is not None:
            await self._write("503 5.5.1 nested MAIL")
        elif await self._answer("mail", 250, "2.1.0 sender ok"):
            address, *options = rest.removeprefix("FROM:").split(" ")
            self._sender, self._options = address[1:-1], tuple(options)

    async def _rcpt(self, rest: str) -> None:
        if self._sender is None:
            await self._write("503 5.5.1 MAIL first")
        elif await self._answer("rcpt", 250, "2.1.5 recipient ok"):
            self._recipients.append(rest.removeprefix("TO:").split(" ")[0][1:-1])

    async def _data(self, _rest: str) -> None:
        if not self._recipients:
            await self._write("503 5.5.1 RCPT first")
        elif await self._answer("data", 354, "end with a dot"):
            content = await self._content()
            mail = Mail(
                sender=self._sender or "",
                recipients=tuple(self._recipients),
                options=self._options,
                content=content,
                connection=self._number,
            )
            self._mails += 1
            self._forget()
            await self._finish(mail)

    async def _finish(self, mail: Mail) -> None:
        """Record what is accepted; with the connection lost in place of an answer, nobody but us knows."""
        step = self._server.next_step("dot")
        if step is None or not step.lines or step.lines[-1].startswith("2"):
            self._server.mails.append(mail)
            await self._server.noticed()
        if step is None:
            await self._write(f"250 2.0.0 queued as {len(self._server.mails)}")
        else:
            await self._perform(step)

    async def _content(self) -> bytes:
        lines = []
        while (line := await self._reader.readline()) != b".\r\n":
            if not line:
                raise _HangupError
            lines.append(line.removeprefix(b"."))
            if (step := self._server.next_step("content")) is not None:
                await self._perform(step)
        return b"".join(lines)

    async def _rset(self, _rest: str) -> None:
        if await self._answer("rset", 250, "2.0.0 forgotten"):
            self._forget()


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast("int", probe.getsockname()[1])
