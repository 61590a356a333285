"""What relays are learned to bear: mails on a connection, connections at once, mails a second; and faults.

A throttle is no bounce, costs a job nothing, and is not run into again.
"""

import asyncio

import pytest
from support.clock import Clock
from support.relays import ENVELOPE, OTHER, fault_of, relay_to, relays_to, warm
from support.smtp_server import DROP, SmtpServer, Step, closed_port, say

from notifier.errors import DeliveryError, Transient, Unavailable

BLOCKED = say(550, "5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org")
TOO_FAST = say(450, "4.7.1 Error: too much mail from 192.0.2.1")
QUOTA = say(454, "Throttling failure: Daily message quota exceeded.")


# Mails on a connection ---------------------------------------------------------------------------


async def test_421_after_so_many_mails_is_run_into_once() -> None:
    """The first 421 loses nothing, and from then on connections are left before the next would come."""
    async with SmtpServer(mails_per_connection=3) as server, relays_to(relay_to(server)) as relays:
        for _ in range(10):
            await relays.send(ENVELOPE)
        await server.until(lambda: server.said("QUIT") == 2)
    assert [mail.connection for mail in server.mails] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert server.said("MAIL") == 11


async def test_a_limit_told_at_the_dot_is_learned_too() -> None:
    """Wherever a connection is ended: what it carried before is what it bears."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await warm(relays, server)
        await warm(relays, server)
        server.script("dot", say(421, "4.7.0 Try again later, closing connection.", drop=True))
        for _ in range(4):
            await relays.send(ENVELOPE)
    assert [mail.connection for mail in server.mails] == [1, 1, 2, 2, 3, 3]


async def test_a_limit_told_with_another_code_is_heeded() -> None:
    """`452 too many messages in this connection` leaves it open, and is no better: a fresh one is used."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await warm(relays, server)
        server.script("mail", say(452, "4.5.3 Too many messages in this connection"))
        for _ in range(3):
            await relays.send(ENVELOPE)
    assert [mail.connection for mail in server.mails] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "step", [DROP, say(421, "4.4.2 timeout exceeded", drop=True), say(421, "4.3.2 shutting down", drop=True)]
)
async def test_a_connection_that_ends_for_other_reasons_teaches_nothing(step: Step) -> None:
    """A restart or a timeout of the server's is no limit."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await warm(relays, server)
        server.script("mail", step)
        for _ in range(4):
            await relays.send(ENVELOPE)
    assert [mail.connection for mail in server.mails] == [1, 2, 2, 2, 2]


async def test_a_relay_may_have_been_given_more() -> None:
    """After ten minutes more is tried, for a limit may have been raised."""
    clock = Clock()
    long = {"idle": 10_000, "age": 10_000}
    async with (
        SmtpServer(mails_per_connection=2) as server,
        relays_to(relay_to(server, messages=10, **long), clock=clock) as relays,
    ):
        for _ in range(4):
            await relays.send(ENVELOPE)
        assert server.said("MAIL") == 5
        server.mails_per_connection = 3
        clock.advance(600)
        for _ in range(6):
            await relays.send(ENVELOPE)
        assert server.said("MAIL") == 11
    assert [mail.connection for mail in server.mails] == [1, 1, 2, 2, 3, 3, 3, 4, 4, 4]


# Connections at once -----------------------------------------------------------------------------


async def test_too_many_connections_are_opened_once() -> None:
    """What was refused waits for the others to come back; no more than those are opened after."""
    async with SmtpServer(most_connections=3) as server, relays_to(relay_to(server)) as relays:
        await asyncio.gather(*(relays.send(ENVELOPE) for _ in range(40)))
        assert len(server.mails) == 40
        opened = server.connections
        assert opened == 10
        await asyncio.gather(*(relays.send(ENVELOPE) for _ in range(40)))
        assert len(server.mails) == 80
        assert server.connections == opened


async def test_where_others_have_all_connections_a_mail_waits() -> None:
    """Refused though we have no other: the provider's matter, at no cost, and the relay is asked again."""
    async with SmtpServer(most_connections=0) as server, relays_to(relay_to(server)) as relays:
        fault = await fault_of(relays)
        assert (type(fault), fault.code, fault.status_code) == (Unavailable, "relay_throttled", 421)
        server.most_connections = None
        await relays.send(ENVELOPE)


# Mails a second ----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data", "dot"])
async def test_a_throttle_costs_nothing_and_slows_down(phase: str) -> None:
    """After it, mails go out at half the rate; one that would wait long is put off, and told for how long."""
    clock = Clock()
    async with SmtpServer() as server, relays_to(relay_to(server), clock=clock) as relays:
        await relays.send(ENVELOPE)
        clock.advance(9)
        server.script(phase, TOO_FAST)
        fault = await fault_of(relays)
        assert (type(fault), fault.code, fault.status_code) == (Unavailable, "relay_throttled", 450)
        await relays.send(OTHER)
        put_off = await fault_of(relays)
        assert (type(put_off), put_off.code) == (Unavailable, "relay_throttled")
        assert "mails a second" in put_off.message
        assert put_off.retry_after == pytest.approx(9)
        clock.advance(9)
        await relays.send(ENVELOPE)
    assert len(server.mails) == 3


async def test_a_mail_whose_turn_is_near_waits_for_it() -> None:
    """A short wait isn't worth putting a mail off."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        await asyncio.gather(*(relays.send(ENVELOPE) for _ in range(40)))
        server.script("mail", TOO_FAST)
        await fault_of(relays)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(relays.send(ENVELOPE) for _ in range(3)))
        took = asyncio.get_running_loop().time() - began
    assert len(server.mails) == 43
    assert 0.08 < took < 1


async def test_the_next_relay_takes_what_is_too_much_for_the_first() -> None:
    """A throttled relay gets what it bears, and the next one the rest."""
    clock = Clock()
    async with (
        SmtpServer() as first,
        SmtpServer() as second,
        relays_to(relay_to(first), relay_to(second), clock=clock) as relays,
    ):
        first.script("mail", TOO_FAST)
        await relays.send(ENVELOPE)
        assert len(second.mails) == 1
        for _ in range(3):
            await relays.send(ENVELOPE)
    assert (len(first.mails), len(second.mails)) == (1, 3)


async def test_a_used_up_quota_lets_the_relay_rest() -> None:
    """No rate helps there: the relay is left alone for a while."""
    clock = Clock()
    async with SmtpServer() as server, relays_to(relay_to(server), clock=clock) as relays:
        server.always("dot", QUOTA)
        assert (await fault_of(relays)).code == "relay_quota"
        fault = await fault_of(relays)
        assert (type(fault), fault.code, fault.retry_after) == (Unavailable, "relay_quota", 5)
    assert server.said("DATA") == 1


# Whose fault it is -------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["rcpt", "data", "dot"])
async def test_a_providers_fault_costs_nothing(phase: str) -> None:
    """A blocklist is no bounce, wherever it is told of: another relay is tried, or the mail waits."""
    async with SmtpServer() as server, SmtpServer() as other:
        server.always(phase, BLOCKED)
        async with relays_to(relay_to(server), relay_to(other)) as relays:
            await relays.send(ENVELOPE)
        async with relays_to(relay_to(server)) as relays:
            fault = await fault_of(relays)
    assert len(other.mails) == 1
    assert (type(fault), fault.code, fault.status_code) == (Unavailable, "relay_blocked", 550)
    assert fault.via == f"127.0.0.1:{server.port}"


async def test_a_relay_rests_when_it_refuses_one_after_another() -> None:
    """One mail that is refused stops nobody else; two in a row, and the relay is let alone."""
    clock = Clock()
    async with SmtpServer() as server, relays_to(relay_to(server), clock=clock) as relays:
        await relays.send(OTHER)
        server.script("dot", BLOCKED)
        await fault_of(relays)
        await relays.send(OTHER)
        server.script("dot", BLOCKED, BLOCKED)
        await fault_of(relays, OTHER)
        await fault_of(relays, OTHER._replace(recipient="joan@example.net"))
        said = server.said("MAIL")
        fault = await fault_of(relays)
    assert (fault.code, fault.retry_after) == ("relay_blocked", 5)
    assert server.said("MAIL") == said


async def test_a_mail_that_alone_is_refused_is_at_fault_itself() -> None:
    """What others don't have, a mail has by itself: it spends its attempts, and nobody waits for it."""
    async with SmtpServer() as server, relays_to(relay_to(server)) as relays:
        kinds: list[type[DeliveryError]] = []
        for _ in range(3):
            server.script("dot", BLOCKED)
            kinds.append(type(fault := await fault_of(relays)))
            await relays.send(OTHER)
    assert kinds == [Unavailable, Transient, Unavailable]
    assert fault.via == f"127.0.0.1:{server.port}"


async def test_a_relay_rests_longer_the_longer_it_is_at_fault() -> None:
    """5, 10, 20, 40 and then always 60 seconds; the first success ends it."""
    clock = Clock()
    port = closed_port()
    async with relays_to(relay_to(port), clock=clock) as relays:
        rests = []
        for _ in range(6):
            fault = await fault_of(relays)
            rests.append(fault.retry_after or 0)
            clock.advance(rests[-1])
        server = SmtpServer()
        server.port = port
        async with server:
            await relays.send(ENVELOPE)
        clock.advance(31)
        assert (await fault_of(relays)).retry_after == 5
    assert rests == [5, 10, 20, 40, 60, 60]
