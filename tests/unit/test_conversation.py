"""An SMTP connection, byte by byte: what is taken for a reply, and what ends the conversation."""

import asyncio

import pytest
from support.lines import Wire
from support.virtual_time import VirtualLoop, run

from notifier.channels.conversation import KEPT_RESPONSE, MOST_HEARD, Conversation
from notifier.channels.deadlines import Deadlines
from notifier.channels.replies import Reply

SECONDS = 10.0
REPLIES = b"250 2.1.0 ok\r\n250-2.1.5 first\r\n250 second \r\n354 go ahead\r\n"
HEARD = [Reply(250, "2.1.0 ok"), Reply(250, "2.1.5 first\nsecond"), Reply(354, "go ahead")]


class Connection(Wire):
    """A wire that someone else spoke on before."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Be taken over."""
        self.protocol = protocol


def new_conversation() -> tuple[Conversation, Connection]:
    """One that nothing was said in yet."""
    wire = Connection()
    conversation = Conversation(wire, Deadlines())
    assert wire.protocol is conversation
    return conversation, wire


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_replies_come_in_any_pieces(size: int) -> None:
    """However they are cut, they are the same, and all there with the last one's last byte."""
    conversation, wire = new_conversation()
    replies = conversation.ask(b"three\r\n", 3, SECONDS)
    for at in range(0, len(REPLIES), size):
        assert not replies.done()
        conversation.data_received(REPLIES[at : at + size])
    assert (replies.result(), wire.written, conversation.is_open) == (HEARD, [b"three\r\n"], True)


async def test_one_thing_is_asked_after_another() -> None:
    """Nothing of the replies to the first is left for the second."""
    conversation, _ = new_conversation()
    for text in ("one", "two"):
        replies = conversation.ask(b"?\r\n", 1, SECONDS)
        conversation.data_received(f"250 {text}\r\n".encode())
        assert replies.result() == [Reply(250, text)]


@pytest.mark.parametrize(
    "said", [b"what is this?\r\n", b"\r\n", b"25\r\n", "٢٥٠\r\n".encode(), b"2x0 ok\r\n"]
)
async def test_what_is_no_reply_ends_it(said: bytes) -> None:
    """What came before it counts, and why it ended is known."""
    problem = "it answered what is no SMTP"
    conversation, wire = new_conversation()
    replies = conversation.ask(b"two\r\n", 2, SECONDS)
    conversation.data_received(b"250 ok\r\n" + said)
    assert replies.result() == [Reply(250, "ok")]
    assert (wire.aborted, str(conversation.problem).partition(":")[0]) == (True, problem)


@pytest.mark.parametrize("more", [b"250-and", b"250 and more\r\n", b"421 bye\r\n"])
async def test_what_is_said_beyond_what_was_asked_for_ends_it(more: bytes) -> None:
    """It would be taken for the answer to what is asked next; what was asked for is heard all the same."""
    for together in (True, False):
        conversation, wire = new_conversation()
        replies = conversation.ask(b"one\r\n", 1, SECONDS)
        for data in [b"250 ok\r\n" + more] if together else [b"250 ok\r\n", more]:
            conversation.data_received(data)
        assert (replies.result(), wire.aborted) == ([Reply(250, "ok")], True)


@pytest.mark.parametrize("flood", [b"250-" + b"x" * MOST_HEARD, b"250-x\r\n" * (MOST_HEARD // 7 + 1)])
async def test_a_flood_ends_it(flood: bytes) -> None:
    """A server can't have us hold whatever it says."""
    conversation, wire = new_conversation()
    replies = conversation.ask(b"?\r\n", 1, SECONDS)
    conversation.data_received(flood)
    assert (replies.result(), wire.aborted, str(conversation.problem)) == ([], True, "it answered too much")


async def test_of_a_long_reply_the_first_kibibyte_is_kept() -> None:
    """As text that every store can keep."""
    conversation, _ = new_conversation()
    replies = conversation.ask(b"?\r\n", 1, SECONDS)
    conversation.data_received(b"250 \0\xff" + b"x" * 2000 + b"\r\n")
    assert replies.result() == [Reply(250, "\ufffd\ufffd" + "x" * (KEPT_RESPONSE - 2))]


async def test_a_lost_connection_ends_it_with_what_was_heard() -> None:
    """What is asked after that is answered at once, by nothing."""
    conversation, wire = new_conversation()
    replies = conversation.ask(b"two\r\n", 2, SECONDS)
    conversation.data_received(b"250 ok\r\n250 ha")
    wire.abort()
    conversation.connection_lost(None)
    assert (replies.result(), str(conversation.problem)) == ([Reply(250, "ok")], "the connection was lost")
    assert await conversation.ask(b"?\r\n", 1, SECONDS) == []
    assert wire.written == [b"two\r\n"]


async def test_who_waits_to_say_more_goes_on_when_it_ends() -> None:
    """Neither a slow peer nor one that is gone leaves anybody waiting."""
    for goes_on in (Conversation.resume_writing, Conversation.close):
        conversation, _ = new_conversation()
        conversation.pause_writing()
        drained = asyncio.ensure_future(conversation.drained())
        await asyncio.sleep(0)
        assert not drained.done()
        goes_on(conversation)
        await drained


def test_each_reply_has_its_time() -> None:
    """One that comes late ends it, however quick those before it were."""

    async def late() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        conversation, wire = new_conversation()
        replies = conversation.ask(b"three\r\n", 3, SECONDS)
        for _ in range(2):
            loop.now += SECONDS - 1
            conversation.data_received(b"250 ok\r\n")
        while not replies.done():
            assert loop.next_timer is not None
            loop.now = max(loop.now, loop.next_timer)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert loop.now == pytest.approx(3 * SECONDS - 2, abs=0.2)
        assert isinstance(conversation.problem, TimeoutError)
        assert (len(replies.result()), wire.aborted) == (2, True)

    run(late())
