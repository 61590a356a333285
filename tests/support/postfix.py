"""Real mail servers from Debian's package `postfix`, on loopback, in folders of their own, each a process.

async with SmtpSink("-r", "RCPT") as sink: ...          # takes mail and forgets it, or refuses, or hangs up
async with Postfix() as server: ...                     # delivers to maildirs below server.mail
Nothing leaves this machine: what is for any other domain is refused.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Self

from support.smtp_server import CERTIFICATE, closed_port

PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/postfix/sbin"
"""Where the programs are looked for: not everyone's PATH has those of the system."""
DOMAIN = "example.org"
MAILBOXES = ("ada", "grace", "zoë")
SIZE_LIMIT = 100_000
MOST_CONNECTIONS = 4
_POLL = 0.01
_PATIENCE = 20.0
_NOBODY = 65534

_MAIN_CF = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = /dev/stdout
myhostname = mail.test
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
default_transport = error:nothing leaves this machine
relay_transport = error:nothing leaves this machine
notify_classes =
smtpd_peername_lookup = no
smtpd_relay_restrictions = reject_unauth_destination
smtpd_client_event_limit_exceptions =
smtpd_client_connection_count_limit = {connections}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {certificate}
message_size_limit = {size}
mailbox_size_limit = 0
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = texthash:{root}/etc/mailboxes
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
"""

_MASTER_CF = """
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix n - n 60  1 pickup
cleanup   unix n - n -   0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n -   - trivial-rewrite
bounce    unix - - n -   0 bounce
defer     unix - - n -   0 bounce
error     unix - - n -   - error
retry     unix - - n -   - error
anvil     unix - - n -   1 anvil
virtual   unix - n n -   - virtual
proxymap  unix - - n -   - proxymap
flush     unix n - n 1000? 0 flush
postlog   unix-dgram n - n - 1 postlogd
"""


def installed(name: str) -> str:
    """Where one of Postfix's programs is. Raises AssertionError saying what installs it."""
    path = shutil.which(name, path=PLACES)
    assert path is not None, f"{name} is missing: `bash .ci/setup test` installs Debian's package postfix"
    return path


class _Server:
    """A process that listens on a port of loopback, ended with all its children."""

    def __init__(self) -> None:
        self.port = closed_port()
        self.log: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def _start(self, *command: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        await until(self._answers)

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        async for line in stream:
            self.log.append(line.decode("utf-8", "replace").rstrip())

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, f"it ended: {self.log}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    async def _stop(self) -> None:
        assert self._process is not None
        assert self._reading is not None
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._process.pid, signal.SIGTERM)
        await self._process.wait()
        await self._reading


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process does: from outside there is nothing to wait on."""
    async with asyncio.timeout(_PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(_POLL)


class SmtpSink(_Server):
    """Postfix's `smtp-sink` with these options; what it takes is in `mails`, one file each."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options

    async def __aenter__(self) -> Self:
        self._root = Path(tempfile.mkdtemp(prefix="smtp-sink-"))
        self._root.chmod(0o777)
        options = [*self._options, "-d", str(self._root / "mail.")]
        if os.geteuid() == 0:
            options += ["-u", "nobody"]
        await self._start(installed("smtp-sink"), *options, f"127.0.0.1:{self.port}", "128")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()
        shutil.rmtree(self._root)

    @property
    def mails(self) -> list[bytes]:
        """What was taken so far, each with the headers that the sink puts before it."""
        return [path.read_bytes() for path in sorted(self._root.iterdir())]


class Postfix(_Server):
    """A whole Postfix: SMTP with STARTTLS (the certificate of `smtp_server`), a queue, delivery to maildirs.

    It has the mailboxes `MAILBOXES` at `DOMAIN`, takes up to `SIZE_LIMIT` bytes and `MOST_CONNECTIONS` of a
    client at once. Must be started by root, as Postfix always is.
    """

    async def __aenter__(self) -> Self:
        self._root = Path(tempfile.mkdtemp(prefix="postfix-"))
        self._root.chmod(0o755)
        self.mail = self._root / "mail"
        self._prepare()
        await self._start(installed("postfix"), "-c", str(self._root / "etc"), "start-fg")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._command, "abort")
        await self._stop()
        shutil.rmtree(self._root)

    def _prepare(self) -> None:
        for name in ("etc", "queue", "data", "mail"):
            (self._root / name).mkdir(mode=0o755)
        shutil.chown(self._root / "data", "postfix", "postfix")
        os.chown(self.mail, _NOBODY, _NOBODY)
        main = _MAIN_CF.format(
            root=self._root,
            certificate=CERTIFICATE,
            size=SIZE_LIMIT,
            connections=MOST_CONNECTIONS,
            domain=DOMAIN,
            nobody=_NOBODY,
        )
        etc = self._root / "etc"
        (etc / "main.cf").write_text(main)
        (etc / "master.cf").write_text(_MASTER_CF.format(port=self.port))
        (etc / "mailboxes").write_text("".join(f"{name}@{DOMAIN} {name}/\n" for name in MAILBOXES))

    def _command(self, word: str) -> None:
        command = [installed("postfix"), "-c", str(self._root / "etc"), word]
        subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - the test's own

    def mails(self, mailbox: str) -> list[bytes]:
        """What was delivered to a mailbox, oldest first, to the byte, with what Postfix puts before it."""
        paths = (self.mail / mailbox / "new").glob("*")
        return [path.read_bytes() for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]

    async def delivered(self, mailbox: str, count: int = 1) -> list[bytes]:
        """Wait until so many mails were delivered to a mailbox, and return them."""
        await until(lambda: len(self.mails(mailbox)) >= count)
        return self.mails(mailbox)


def read(mail: bytes) -> EmailMessage:
    """A mail as the standard library reads it."""
    return BytesParser(policy=policy.default).parsebytes(mail)
