"""Relays against a scripted server: what each fault in each phase means, and what becomes of connections."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.clock import Clock
from support.relays import BRIEF, CONTENT, ENVELOPE, fault_of, relay_to, relays_to, warm
from support.smtp_server import (
    DROP,
    GARBAGE,
    HALF,
    HALF_OF_MANY,
    HANG,
    SmtpServer,
    Step,
    client_tls,
    closed_port,
    say,
)

from notifier.channels.replies import Reply
from notifier.channels.smtp import BLOCK, Envelope
from notifier.config import Duration, ReplyRule
from notifier.errors import Bounced, DeliveryError, Permanent, Transient, Unavailable, Unknown

pytestmark = pytest.mark.both_loops

LARGE = ENVELOPE._replace(content=b"Subject: Large\r\n\r\n" + (b"." + b"y" * 70 + b"\r\n") * 200_000)
UTF8 = ENVELOPE._replace(recipient="zoë@xn--mller-kva.de")


async def send_one(server: SmtpServer, envelope: Envelope = ENVELOPE, **changes: Any) -> Reply:
    """Send one mail over relays of its own."""
    async with relays_to(relay_to(server, **changes)) as relays:
        return await relays.send(envelope)


# A mail that arrives -----------------------------------------------------------------------------


async def test_a_mail_arrives_as_it_was_built() -> None:
    """Envelope and content reach the server to the byte, lines that begin with dots too."""
    async with SmtpServer() as server:
        via = f"127.0.0.1:{server.port}"
        assert await send_one(server) == Reply(250, "2.0.0 queued as 1", via)
    (mail,) = server.mails
    assert (mail.sender, mail.recipients) == ("no-reply@example.com", ("ada@example.org",))
    assert mail.content == CONTENT
    assert mail.options == ()


async def test_content_that_lacks_its_last_line_end_gets_it() -> None:
    """A mail whose last line isn't ended, or whose first begins with a dot, arrives all the same."""
    async with SmtpServer() as server:
        await send_one(server, ENVELOPE._replace(content=b".one\r\ntwo"))
    assert server.mails[0].content == b".one\r\ntwo\r\n"


async def test_the_greeting_is_a_legal_ehlo() -> None:
    """EHLO gives this machine's full name or an address literal (RFC 5321 §4.1.4)."""
    async with SmtpServer() as server:
        await send_one(server)
    name = server.commands[0].removeprefix("EHLO ")
    assert name == "[127.0.0.1]" or "." in name


async def test_what_the_server_says_is_kept_up_to_a_kibibyte() -> None:
    """The answer's text is cut at 1 KiB, and holds nothing that a store could not keep."""
    async with SmtpServer() as server:
        server.script("dot", say(250, "ok \0 \udcff\n" + "x" * 2000))
        reply = await send_one(server)
    assert reply.text.startswith("ok \ufffd \ufffd\nxxx")
    assert len(reply.text) <= 1024


# Kept connections --------------------------------------------------------------------------------


async def test_one_connection_carries_many_mails() -> None:
    """A connection is used again, without a command between two mails."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        for _ in range(5):
            await relays.send(ENVELOPE)
    assert (len(server.mails), server.connections) == (5, 1)
    assert server.said("RSET") == server.said("NOOP") == 0


async def test_leave_is_taken_at_the_end() -> None:
    """Closing says QUIT on kept connections."""
    async with SmtpServer() as server:
        async with relays_to(relay_to(server)) as relays:
            await relays.send(ENVELOPE)
        await server.until(lambda: server.open_connections == 0)
    assert server.commands[-1] == "QUIT"


async def test_a_connection_in_use_is_left_as_it_comes_back() -> None:
    """Closing doesn't wait for a mail that is under way; its connection isn't kept after it."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script("rcpt", HANG)
        sending = asyncio.create_task(fault_of(relays))
        await server.until(lambda: server.said("RCPT") == 1)
        await relays.close()
        await server.close_connections()
        await sending
        await relays.send(ENVELOPE)
        await server.until(lambda: server.open_connections == 0)
    assert server.commands[-1] == "QUIT"


async def test_a_large_mail_arrives_whole() -> None:
    """A mail larger than any buffer on the way arrives to the byte, and its connection is used again."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await relays.send(LARGE)
        await relays.send(LARGE)
    assert [mail.content for mail in server.mails] == [LARGE.content] * 2
    assert server.connections == 1


@pytest.mark.parametrize("size", [BLOCK - 4, BLOCK - 3, BLOCK - 2, BLOCK, 2 * BLOCK - 3, 2 * BLOCK - 2])
async def test_a_mail_of_about_a_block_arrives_whole(size: int) -> None:
    """Wherever the blocks end, the dot and its line end follow."""
    content = (b"x" * 70 + b"\r\n") * (size // 72) + b"y" * (size % 72 - 2) + b"\r\n"
    async with SmtpServer() as server:
        await send_one(server, ENVELOPE._replace(content=content))
    assert (server.mails[0].content, len(content)) == (content, size)


async def test_the_size_is_told_where_it_is_asked_for() -> None:
    """A relay that offers SIZE hears of it with MAIL (RFC 1870)."""
    async with SmtpServer(extensions=("SIZE 1000",)) as server:
        await send_one(server)
    assert server.mails[0].options == (f"SIZE={len(CONTENT)}",)


@pytest.mark.parametrize(
    ("phase", "code"),
    [("connect", 220), ("ehlo", 250), ("mail", 250), ("rcpt", 250), ("data", 354), ("dot", 250)],
)
async def test_answers_of_many_lines_are_one(phase: str, code: int) -> None:
    """A reply ends with its last line, and what follows is the next command's."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.always(phase, say(code, "one\ntwo\nthree"))
        await relays.send(ENVELOPE)
        await relays.send(ENVELOPE)
    assert [mail.content for mail in server.mails] == [CONTENT] * 2


async def test_never_more_connections_than_configured() -> None:
    """However many mails go out at once, a relay sees no more than `connections` of us."""
    async with SmtpServer() as server, relays_to(relay_to(server, connections=3)) as relays:
        await asyncio.gather(*(relays.send(ENVELOPE) for _ in range(40)))
    assert len(server.mails) == 40
    assert server.connections == 3


async def test_a_connection_carries_no_more_than_its_share() -> None:
    """After so many mails a connection is closed with QUIT, and the next mail opens another."""
    async with SmtpServer() as server, relays_to(relay_to(server, messages=2)) as relays:
        for _ in range(5):
            await relays.send(ENVELOPE)
        await server.until(lambda: server.said("QUIT") == 2)
    assert [mail.connection for mail in server.mails] == [1, 1, 2, 2, 3]


async def test_an_old_connection_is_not_used() -> None:
    """A connection that was idle for longer than the limit is left before the next mail."""
    clock = Clock()
    async with SmtpServer() as server, relays_to(relay_to(server), clock=clock) as relays:
        await warm(relays, server)
        clock.now += 29
        await relays.send(ENVELOPE)
        clock.now += 30
        await relays.send(ENVELOPE)
    assert [mail.connection for mail in server.mails] == [1, 1, 2]


async def test_a_connection_is_left_at_its_age() -> None:
    """However much it is used, a connection lives no longer than configured."""
    clock = Clock()
    async with (
        SmtpServer() as server,
        relays_to(relay_to(server, age=Duration(60)), clock=clock) as relays,
    ):
        for _ in range(5):
            await relays.send(ENVELOPE)
            clock.advance(20)
    assert [mail.connection for mail in server.mails] == [1, 1, 1, 2, 2]


async def test_idle_connections_are_closed_without_traffic() -> None:
    """A relay doesn't hold our connections open while there is nothing to send."""
    async with SmtpServer() as server, relays_to(relay_to(server, idle=Duration(0.05))) as relays:
        await relays.send(ENVELOPE)
        await server.until(lambda: server.open_connections == 0)
    assert server.said("QUIT") == 1


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    """A kept connection that was closed meanwhile costs nobody anything: a fresh one is opened."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await warm(relays, server)
        await server.close_connections()
        await relays.send(ENVELOPE)
    assert [mail.connection for mail in server.mails] == [1, 2]


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("step", [DROP, GARBAGE, say(421, "4.3.2 closing", drop=True)])
async def test_a_kept_connection_that_breaks_is_replaced_within_the_attempt(phase: str, step: Any) -> None:
    """Whatever breaks a kept connection before the content, the mail goes out at once on a fresh one."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await warm(relays, server)
        server.script(phase, step)
        await relays.send(ENVELOPE)
    assert [mail.connection for mail in server.mails] == [1, 2]


async def test_a_refused_mail_leaves_the_connection_in_use() -> None:
    """After a refused recipient the transaction is forgotten with RSET, and the connection goes on."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script("rcpt", say(550, "no such user"))
        await fault_of(relays)
        await relays.send(ENVELOPE)
    assert (server.connections, server.said("RSET")) == (1, 1)


@pytest.mark.parametrize("step", [DROP, say(500, "what?")])
async def test_a_connection_that_can_not_be_reset_is_replaced(step: Any) -> None:
    """Where RSET fails, a fresh connection takes the mail."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script("rcpt", say(550, "no such user"))
        await fault_of(relays)
        server.script("rset", step)
        await relays.send(ENVELOPE)
    assert [mail.connection for mail in server.mails] == [2]


@pytest.mark.parametrize("phase", ["connect", "ehlo", "mail", "rcpt", "data", "dot"])
async def test_a_cancelled_command_closes_its_connection(phase: str) -> None:
    """Its answer would be taken for the next one's. After the dot it is told that the mail may be there."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script(phase, HANG)
        sending = asyncio.create_task(relays.send(ENVELOPE))
        await server.until(_reached(server, phase))
        sending.cancel()
        with pytest.raises(Unknown if phase == "dot" else asyncio.CancelledError):
            await sending
        await server.until(lambda: server.open_connections == 0)
        await relays.send(ENVELOPE)
        assert server.connections == 2


def _reached(server: SmtpServer, phase: str) -> Callable[[], bool]:
    if phase == "connect":
        return lambda: server.connections == 1
    if phase == "dot":
        return lambda: len(server.mails) == 1
    return lambda: server.said(phase.upper()) == 1


async def test_waiting_for_a_place_ends() -> None:
    """When every connection stays in use for as long as the timeout, a mail is put off."""
    async with (
        SmtpServer() as server,
        relays_to(relay_to(server, connections=1, timeout=Duration(0.2))) as relays,
    ):
        server.always("mail", HANG)
        faults = await asyncio.gather(*(fault_of(relays) for _ in range(3)))
    assert all(isinstance(fault, Unavailable) for fault in faults)
    assert sorted(fault.code for fault in faults) == ["relay_busy", "relay_busy", "relay_down"]


# What replies mean -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "answer", "kind", "code"),
    [
        ("rcpt", say(550, "5.1.1 no such user"), Bounced, "recipient_refused"),
        ("rcpt", say(450, "4.2.1 not now"), Transient, "recipient_deferred"),
        ("rcpt", say(552, "5.2.2 over quota"), Permanent, "mailbox_full"),
        ("rcpt", say(450, "4.7.1 Greylisted,\ncome back"), Transient, "greylisted"),
        ("data", say(554, "5.6.0 what is this?"), Permanent, "message_refused"),
        ("dot", say(550, "5.1.1 no such user"), Bounced, "recipient_refused"),
        ("dot", say(554, "5.7.1 spam message rejected"), Permanent, "message_refused"),
        ("dot", say(451, "4.6.0 can't read it now"), Transient, "message_deferred"),
        ("mail", say(552, "5.3.4 too large"), Permanent, "message_too_large"),
    ],
)
async def test_refusals_of_recipient_and_mail(
    phase: str, answer: Step, kind: type[DeliveryError], code: str
) -> None:
    """Whose matter it is decides the job; code, words and relay are kept, and the connection goes on."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script(phase, answer)
        fault = await fault_of(relays)
        assert (type(fault), fault.code, fault.via) == (kind, code, f"127.0.0.1:{server.port}")
        number = int(answer.lines[-1][:3])
        assert fault.status_code == number
        assert fault.response == "\n".join(line[4:] for line in answer.lines)
        assert f"127.0.0.1:{server.port}: answered {number} to" in fault.message
        await relays.send(ENVELOPE)
        assert server.connections == 1


@pytest.mark.parametrize("phase", ["rcpt", "data", "dot"])
async def test_421_on_a_fresh_connection_is_transient(phase: str) -> None:
    """421 drops the connection; when it was a fresh one the job waits for its next attempt."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script(phase, say(421, "4.3.2 closing", drop=True))
        fault = await fault_of(relays)
        assert (type(fault), fault.code, fault.status_code) == (Transient, "relay_closing", 421)
        await server.until(lambda: server.open_connections == 0)


async def test_rules_of_the_configuration_count_first() -> None:
    """What an operator knows of his relay's replies overrules what we think."""
    rule = ReplyRule(means="message", code="550", text="no such user", phase="rcpt")
    async with SmtpServer() as server, relays_to(relay_to(server), rules=[rule]) as relays:
        server.script("rcpt", say(550, "5.1.1 No such user"))
        fault = await fault_of(relays)
    assert (type(fault), fault.code) == (Permanent, "message_refused")


@pytest.mark.parametrize("phase", ["rcpt", "data"])
@pytest.mark.parametrize("step", [DROP, GARBAGE, HANG, HALF, HALF_OF_MANY])
async def test_a_mail_that_breaks_connections_spends_attempts(phase: str, step: Any) -> None:
    """Once MAIL was taken, a connection lost or silent may be this mail's doing: it can't go on for ever."""
    async with SmtpServer() as server, relays_to(relay_to(server, **BRIEF)) as relays:
        server.always(phase, step)
        fault = await fault_of(relays)
    assert (type(fault), fault.code, fault.via) == (
        Transient,
        "smtp_disconnected",
        f"127.0.0.1:{server.port}",
    )
    assert server.mails == []


@pytest.mark.parametrize("step", [DROP, GARBAGE, HANG, HALF, HALF_OF_MANY])
async def test_no_answer_to_the_final_dot_is_unknown(step: Any) -> None:
    """Lost, silent or senseless after the final dot: the relay may have it, and no other is tried."""
    async with (
        SmtpServer() as server,
        SmtpServer() as other,
        relays_to(relay_to(server, **BRIEF), relay_to(other)) as relays,
    ):
        server.script("dot", step)
        fault = await fault_of(relays)
    assert (type(fault), fault.code, fault.via) == (Unknown, "smtp_unknown", f"127.0.0.1:{server.port}")
    assert other.connections == 0


async def test_a_kept_connection_lost_after_the_final_dot_is_unknown_too() -> None:
    """A kept connection is no excuse: after the dot nothing is sent a second time within the attempt."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await warm(relays, server)
        server.script("dot", DROP)
        assert isinstance(await fault_of(relays), Unknown)
        assert len(server.mails) == 2
        assert server.connections == 1


async def test_a_connection_lost_amid_the_content_is_unknown() -> None:
    """Whether the rest still arrived can't be known from here, so it is not said that it didn't."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script("content", DROP)
        assert isinstance(await fault_of(relays), Unknown)


async def test_a_large_mail_whose_end_was_not_sent_can_not_have_arrived() -> None:
    """Lost while there was more to send: without its final dot nobody accepts a mail, and that is known."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        server.script("content", DROP)
        fault = await fault_of(relays, LARGE)
    assert (type(fault), fault.code) == (Transient, "smtp_disconnected")


# Patience ----------------------------------------------------------------------------------------


async def test_a_slow_acceptor_is_waited_for() -> None:
    """A relay that takes longer over the final dot than any command may take gets the mail once."""
    thought = asyncio.Event()
    async with SmtpServer() as server, relays_to(relay_to(server, timeout=Duration(0.2))) as relays:
        server.script("dot", Step(before=thought, lines=("250 2.0.0 scanned",)))
        asyncio.get_running_loop().call_later(0.6, thought.set)
        reply = await relays.send(ENVELOPE)
    assert reply.text == "2.0.0 scanned"
    assert len(server.mails) == 1


async def test_a_relay_that_takes_no_more_of_a_mail_is_given_up() -> None:
    """Each block has its time; the mail is not half accepted, and the connection is closed at once."""
    async with SmtpServer() as server:
        server.script("content", Step(before=asyncio.Event()))
        async with relays_to(relay_to(server, data_timeout=Duration(0.3))) as relays:
            fault = await fault_of(relays, LARGE)
    assert (type(fault), fault.code) == (Transient, "smtp_disconnected")
    assert "timed out after 0.3 s" in fault.message


async def test_a_refusal_amid_a_large_mail_is_heard() -> None:
    """What a relay says before it has the whole mail counts, and the rest isn't sent after it."""
    async with SmtpServer() as server:
        server.script("content", Step(lines=say(552, "5.3.4 too large").lines, after=asyncio.Event()))
        async with relays_to(relay_to(server, data_timeout=Duration(0.5))) as relays:
            fault = await fault_of(relays, LARGE)
    assert (type(fault), fault.code, fault.status_code) == (Permanent, "message_too_large", 552)


async def test_a_slow_connection_has_its_own_time() -> None:
    """Connecting, with greeting and EHLO, may take as long as is configured for it, whatever commands may."""
    thought = asyncio.Event()
    async with SmtpServer() as server, relays_to(relay_to(server, timeout=Duration(0.2))) as relays:
        server.script("connect", Step(before=thought, lines=("220 at last",)))
        asyncio.get_running_loop().call_later(0.5, thought.set)
        await relays.send(ENVELOPE)
        server.script("connect", HANG)
    async with SmtpServer() as server:
        server.script("connect", HANG)
        async with relays_to(relay_to(server, connect_timeout=Duration(0.2))) as relays:
            assert "timed out after 0.2 s" in (await fault_of(relays)).message


# Commands in groups, RFC 2920 --------------------------------------------------------------------


class GroupServer:
    """Takes the commands of the first mail one by one, and says nothing to the next ones' until DATA came.

    Then it says `said`; and if that lets the content come, it takes it.
    """

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.groups: list[bytes] = []
        self.contents: list[bytes] = []
        self.connections = 0

    async def __aenter__(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 group.test\r\n")
        await reader.readline()
        writer.write(b"250-group.test\r\n250 PIPELINING\r\n")
        for answer in (b"250 ok", b"250 ok", b"354 go ahead"):
            await reader.readline()
            assert not reader._buffer  # type: ignore[attr-defined]  # there is nobody else to ask
            writer.write(answer + b"\r\n")
        await self._take_content(reader, writer)
        while True:
            self.groups.append(await reader.readuntil(b"DATA\r\n"))
            writer.write(self.said)
            if not self.said.endswith(b"354 go ahead\r\n"):
                return
            await self._take_content(reader, writer)

    async def _take_content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.contents.append(await reader.readuntil(b"\r\n.\r\n"))
        writer.write(b"250 taken\r\n")


GROUP = b"MAIL FROM:<no-reply@example.com>\r\nRCPT TO:<ada@example.org>\r\nDATA\r\n"


async def test_commands_go_out_in_groups_where_a_relay_takes_them() -> None:
    """Each mail but the first then costs two round trips instead of four."""
    server = GroupServer(b"250 ok\r\n250 ok\r\n354 go ahead\r\n")
    async with server as port, relays_to(relay_to(port)) as relays:
        for _ in range(3):
            assert (await relays.send(ENVELOPE)).text == "taken"
    assert (server.groups, len(server.contents), server.connections) == ([GROUP, GROUP], 3, 1)


async def test_the_content_of_what_was_refused_is_not_sent_in_any_case() -> None:
    """A relay that would take it all the same gets nothing: the connection is closed."""
    server = GroupServer(b"250 ok\r\n550 5.1.1 no such user\r\n354 go ahead\r\n")
    async with server as port, relays_to(relay_to(port)) as relays:
        await relays.send(ENVELOPE)
        assert isinstance(await fault_of(relays), Bounced)
        await relays.send(ENVELOPE)
    assert (len(server.contents), server.connections) == (2, 2)


async def test_a_group_that_breaks_its_connection_is_taken_apart() -> None:
    """On a fresh connection the mail goes step by step: there is nothing that two mails are to blame for."""
    server = GroupServer(b"")
    async with server as port, relays_to(relay_to(port)) as relays:
        for _ in range(2):
            await relays.send(ENVELOPE)
    assert (server.groups, len(server.contents), server.connections) == ([GROUP], 2, 2)


@pytest.mark.parametrize(
    ("phase", "answer", "code"),
    [
        ("mail", say(451, "4.3.0 not now"), "relay_refused"),
        ("rcpt", say(550, "5.1.1 no such user"), "recipient_refused"),
        ("data", say(554, "5.6.0 what is this?"), "message_refused"),
    ],
)
async def test_of_a_group_the_first_refusal_counts(phase: str, answer: Step, code: str) -> None:
    """Those that follow from it don't; after a RSET the connection goes on, if the relay isn't at fault."""
    async with SmtpServer(extensions=("PIPELINING",)) as server, relays_to(relay_to(server)) as relays:
        await warm(relays, server)
        server.script(phase, answer)
        assert (await fault_of(relays)).code == code
        if phase != "mail":
            await relays.send(ENVELOPE)
            assert (server.connections, server.said("RSET"), len(server.mails)) == (1, 1, 2)


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("step", [DROP, GARBAGE, HANG, HALF, say(421, "4.3.2 closing", drop=True)])
async def test_a_group_that_breaks_a_kept_connection_goes_out_on_a_fresh_one(phase: str, step: Any) -> None:
    """Wherever in the group it broke: nothing was accepted."""
    async with SmtpServer(extensions=("PIPELINING",)) as server:
        async with relays_to(relay_to(server, timeout=Duration(0.3))) as relays:
            await warm(relays, server)
            server.script(phase, step)
            await relays.send(ENVELOPE)
        assert [mail.connection for mail in server.mails] == [1, 2]


# Addresses that need SMTPUTF8 --------------------------------------------------------------------


async def test_smtputf8_is_asked_for_only_where_it_is_needed() -> None:
    """A local part that is not ASCII goes out with SMTPUTF8, any other address without."""
    async with (
        SmtpServer(extensions=("8BITMIME", "SMTPUTF8")) as server,
        relays_to(relay_to(server)) as relays,
    ):
        await relays.send(ENVELOPE)
        await relays.send(UTF8)
    plain, international = server.mails
    assert plain.options == ()
    assert international.options == ("SMTPUTF8", "BODY=8BITMIME")
    assert international.recipients == ("zoë@xn--mller-kva.de",)


async def test_without_smtputf8_such_an_address_is_permanent() -> None:
    """A relay that lacks SMTPUTF8 can never take such a mail; others go on over the same connection."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        fault = await fault_of(relays, UTF8)
        assert (type(fault), fault.code) == (Permanent, "smtputf8_unsupported")
        assert "lacks SMTPUTF8" in fault.message
        await relays.send(ENVELOPE)
        assert server.connections == 1


async def test_another_relay_may_have_smtputf8() -> None:
    """The mail goes to the relay that can take it, and waits for it while it is down."""
    async with SmtpServer() as plain, SmtpServer(extensions=("SMTPUTF8",)) as able:
        async with relays_to(relay_to(plain), relay_to(able)) as relays:
            await relays.send(UTF8)
        async with relays_to(relay_to(plain), relay_to(closed_port())) as relays:
            fault = await fault_of(relays, UTF8)
    assert len(able.mails) == 1
    assert (type(fault), fault.code) == (Unavailable, "relay_down")


# Relay faults ------------------------------------------------------------------------------------


async def test_nothing_listening_is_the_relays_fault() -> None:
    """A refused connection costs the job nothing, and says which relay it was."""
    port = closed_port()
    async with relays_to(relay_to(port)) as relays:
        fault = await fault_of(relays)
    assert (type(fault), fault.code) == (Unavailable, "relay_down")
    assert fault.message.startswith(f"127.0.0.1:{port}: ")


async def test_a_name_that_does_not_resolve_is_the_relays_fault() -> None:
    """A host that is no host is a relay that is down."""
    async with relays_to(relay_to(25, host="no host")) as relays:
        assert (await fault_of(relays)).code == "relay_down"


@pytest.mark.parametrize("phase", ["connect", "ehlo", "mail"])
@pytest.mark.parametrize("step", [DROP, GARBAGE, HANG, HALF, HALF_OF_MANY])
async def test_a_relay_without_an_answer_is_down(phase: str, step: Any) -> None:
    """Lost, senseless or silent up to MAIL: the relay is at fault, and the connection is closed."""
    async with SmtpServer() as server:
        server.always(phase, step)
        async with relays_to(relay_to(server, **BRIEF)) as relays:
            fault = await fault_of(relays)
        await server.until(lambda: server.open_connections == 0)
    assert (type(fault), fault.code) == (Unavailable, "relay_down")


@pytest.mark.parametrize("phase", ["connect", "ehlo", "mail"])
@pytest.mark.parametrize("code", [451, 550, 554])
async def test_a_relay_that_refuses_us_is_at_fault(phase: str, code: int) -> None:
    """4xx and 5xx at the greeting, at EHLO or for our sender are the provider's matter, not the job's."""
    async with SmtpServer() as server:
        server.script(phase, say(code, "5.7.1 not you"))
        async with relays_to(relay_to(server)) as relays:
            fault = await fault_of(relays)
    assert (type(fault), fault.code, fault.status_code) == (Unavailable, "relay_refused", code)
    assert fault.response == "5.7.1 not you"


async def test_the_next_relay_takes_over_and_the_first_is_returned_to() -> None:
    """While the first relay rests after a fault the second takes all; then the first is tried again."""
    clock = Clock()
    first, second = SmtpServer(), SmtpServer()
    async with first, second, relays_to(relay_to(first), relay_to(second), clock=clock) as relays:
        first.always("connect", say(421, "later"))
        await relays.send(ENVELOPE)
        await relays.send(ENVELOPE)
        assert (first.connections, len(second.mails)) == (1, 2)
        clock.now += 5
        first.always("connect", None)
        await relays.send(ENVELOPE)
        await relays.send(ENVELOPE)
    assert (len(first.mails), len(second.mails)) == (2, 2)


async def test_while_every_relay_rests_nobody_waits() -> None:
    """Jobs that come while all relays rest are put off at once, with the fault that made them rest."""
    clock = Clock()
    async with SmtpServer() as server:
        server.always("connect", say(554, "5.7.1 blocked"))
        async with relays_to(relay_to(server), clock=clock) as relays:
            faults = [await fault_of(relays) for _ in range(3)]
            assert server.connections == 1
            clock.now += 5
            await fault_of(relays)
            assert server.connections == 2
    assert {(fault.code, fault.status_code) for fault in faults} == {("relay_refused", 554)}


async def test_one_mail_at_a_time_tries_a_relay_that_rested() -> None:
    """After the rest one mail finds out whether the relay is back; the others don't wait with it."""
    clock = Clock()
    async with (
        SmtpServer() as server,
        SmtpServer() as spare,
        relays_to(relay_to(server), relay_to(spare), clock=clock) as relays,
    ):
        server.script("connect", say(421, "later"), HANG)
        await relays.send(ENVELOPE)
        clock.now += 5
        probe = asyncio.create_task(relays.send(ENVELOPE))
        await server.until(lambda: server.connections == 2)
        await relays.send(ENVELOPE)
        assert (server.connections, len(spare.mails)) == (2, 2)
        await server.close_connections()
        await probe
        assert len(spare.mails) == 3


async def test_when_all_are_down_the_first_ones_fault_names_it() -> None:
    """The message tells of every relay; the code is that of the relay that should have taken the mail."""
    async with SmtpServer() as server:
        server.script("mail", say(550, "5.7.1 not you"))
        port = closed_port()
        async with relays_to(relay_to(server), relay_to(port)) as relays:
            fault = await fault_of(relays)
    assert (type(fault), fault.code, fault.status_code) == (Unavailable, "relay_refused", 550)
    assert f":{server.port}: " in fault.message
    assert f":{port}: " in fault.message


# TLS ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_secured_connection_is_verified(tls: str) -> None:
    """With a certificate that is trusted for the host's name, the mail goes out encrypted."""
    async with (
        SmtpServer(tls=tls) as server,
        relays_to(relay_to(server, tls=tls, host="localhost"), tls=client_tls()) as relays,
    ):
        await relays.send(ENVELOPE)
        await relays.send(ENVELOPE)
    assert (len(server.mails), server.connections) == (2, 1)
    assert server.said("STARTTLS") == (1 if tls == "starttls" else 0)
    assert server.said("EHLO") == (2 if tls == "starttls" else 1)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_an_untrusted_certificate_is_refused(tls: str) -> None:
    """A certificate that nobody trusted vouches for ends the session before anything is said."""
    async with (
        SmtpServer(tls=tls, users={"ada": "secret"}) as server,
        relays_to(relay_to(server, tls=tls, username="ada", password="secret")) as relays,
    ):
        fault = await fault_of(relays)
    assert (type(fault), fault.code) == (Unavailable, "relay_tls")
    assert "CERTIFICATE_VERIFY_FAILED" in fault.message
    assert server.said("AUTH") == server.said("MAIL") == 0


async def test_a_certificate_for_another_name_is_refused() -> None:
    """A trusted certificate that is another host's is no better; `127.1` is the same host, not that name."""
    async with SmtpServer(tls="implicit") as server:
        async with relays_to(relay_to(server, tls="implicit", host="127.1"), tls=client_tls()) as relays:
            fault = await fault_of(relays)
        assert server.mails == []
    assert (type(fault), fault.code) == (Unavailable, "relay_tls")
    assert "127.1" in fault.message


async def test_starttls_is_never_optional() -> None:
    """Where STARTTLS was stripped, nothing is sent: neither the mail nor the password."""
    async with (
        SmtpServer(users={"ada": "secret"}) as server,
        relays_to(relay_to(server, tls="starttls", username="ada", password="secret")) as relays,
    ):
        fault = await fault_of(relays)
    assert (type(fault), fault.code) == (Unavailable, "relay_tls")
    assert "does not offer STARTTLS" in fault.message
    assert server.said("AUTH") == server.said("MAIL") == 0


@pytest.mark.parametrize("step", [say(454, "4.7.0 no TLS now"), DROP])
async def test_a_failed_starttls_is_the_relays_fault(step: Any) -> None:
    """A relay that offers STARTTLS and then can't is not spoken to in the clear."""
    async with SmtpServer(tls="starttls") as server:
        server.script("starttls", step)
        async with relays_to(relay_to(server, tls="starttls"), tls=client_tls()) as relays:
            assert (await fault_of(relays)).code == "relay_tls"
    assert server.said("MAIL") == 0


async def test_implicit_tls_to_a_plain_server_is_a_tls_fault() -> None:
    """A relay that doesn't speak TLS where it should is told apart from one that is down."""
    async with (
        SmtpServer() as server,
        relays_to(relay_to(server, tls="implicit", connect_timeout=Duration(2))) as relays,
    ):
        assert (await fault_of(relays)).code == "relay_tls"


# Checking ----------------------------------------------------------------------------------------


async def test_a_check_tries_everything_but_a_mail() -> None:
    """A check connects, logs in and takes leave at each relay, and says what is wrong with which."""
    async with SmtpServer(users={"ada": "secret"}) as server:
        good = relay_to(server, username="ada", password="secret")
        wrong = relay_to(server, username="ada", password="wrong")
        down = relay_to(closed_port())
        async with relays_to(good, wrong, down) as relays:
            checked = await relays.check()
        await server.until(lambda: server.open_connections == 0)
    problems = [problem for _, problem in checked]
    assert [relay for relay, _ in checked] == [good, wrong, down]
    assert problems[0] is None
    assert problems[1] is not None
    assert "bad credentials" in problems[1]
    assert problems[2] is not None
    assert (server.said("QUIT"), server.said("MAIL")) == (1, 0)
