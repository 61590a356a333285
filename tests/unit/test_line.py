"""One connection that speaks HTTP/1.1, byte by byte: what is taken for an answer, and what for its end."""

import asyncio

import pytest
from support.lines import new_line

from notifier.channels.line import KEPT_BODY, READ_BODY, Line
from notifier.channels.transport import Answer
from notifier.errors import Transient, Unknown

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\nok"
ANSWERS = {
    "length": (OK, b"ok"),
    "empty": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
    "trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", b""),
    "hints": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
    "bare line ends": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok"),
}


class Pool:
    """Who has a line: whether its last exchange left it fit for another."""

    def __init__(self) -> None:
        self.ends: list[bool] = []
        self.gone: list[Line] = []

    def ended(self, line: Line, *, keep: bool) -> None:
        """Note it, and close what can't serve again."""
        self.ends.append(keep)
        if not keep:
            line.close()

    def lost(self, line: Line) -> None:
        """Note it."""
        self.gone.append(line)


def asked() -> tuple[Line, Pool, asyncio.Future[Answer]]:
    """A line that a request was written to."""
    line, _ = new_line()
    line.owner = pool = Pool()
    return line, pool, line.ask(b"POST")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_comes_in_any_pieces(answer: str, size: int) -> None:
    """However it is cut, it is the same answer, complete with its last byte, and the line serves again."""
    raw, body = ANSWERS[answer]
    line, pool, answered = asked()
    for at in range(0, len(raw), size):
        assert not answered.done()
        line.data_received(raw[at : at + size])
    got = answered.result()
    assert (got.status // 100, got.body, got.timings.received) == (2, body, len(body))
    assert got.retry_after == ("7" if b"Retry-After" in raw else None)
    assert pool.ends == [True]


async def test_one_line_serves_again_and_again() -> None:
    """Each answer is its own request's: nothing of the one before is left in it."""
    line, pool, answered = asked()
    for raw, body in ANSWERS.values():
        line.data_received(raw)
        assert answered.result().body == body
        answered = line.ask(b"POST")
    assert pool.ends == [True] * len(ANSWERS)
    line.data_received(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    got = answered.result()
    assert (got.status, got.body, got.headers()) == (500, b"", [("Content-Length", "0")])


async def test_a_request_goes_out_at_one_go_and_a_large_one_in_pieces() -> None:
    """What is large is handed over only as fast as it is taken, and no further once the answer is there."""
    line, wire = new_line()
    line.ask(b"x" * 1000)
    assert [len(piece) for piece in wire.written] == [1000]
    line, wire = new_line()
    wire.unsent = 100
    line.pause_writing()
    answered = line.ask(b"x" * 5_000_000)
    assert wire.written == []
    line.resume_writing()
    assert b"".join(wire.written) == b"x" * 5_000_000
    line.pause_writing()
    line.data_received(OK)
    assert answered.result().timings.sent == 5_000_000 - 100
    assert max(map(len, wire.written)) < 1_000_000


async def test_an_answer_before_the_rest_of_its_request_ends_the_line() -> None:
    """The answer counts; what of the request is left is not sent, nor is the line used again."""
    line, wire = new_line()
    line.owner = pool = Pool()
    answered = line.ask(b"x" * 100)
    wire.unsent = 40
    line.data_received(OK)
    assert (answered.result().timings.sent, pool.ends, wire.aborted) == (60, [False], True)


@pytest.mark.parametrize("behind", [OK, OK[:1], OK[:20], b"junk", b"\0"])
async def test_an_answer_with_anything_behind_it_stands_alone(behind: bytes) -> None:
    """Nobody asked for what follows: the line serves no more, so that it is never another's answer."""
    line, pool, answered = asked()
    line.data_received(OK + behind)
    assert answered.result().body == b"ok"
    assert pool.ends == [False]


@pytest.mark.parametrize("unasked", [OK, b"x", b"\r\n"])
async def test_a_line_that_is_spoken_to_while_it_is_idle_is_closed(unasked: bytes) -> None:
    """Whatever a peer says between two exchanges can't be the answer to the second."""
    line, _, _ = asked()
    line.data_received(OK)
    assert line.is_open
    line.data_received(unasked)
    assert not line.is_open


async def test_an_answer_before_the_first_request_is_its_answer() -> None:
    """A peer that speaks as it is connected to (it is too busy, say) has said what it has to say."""
    line, _ = new_line()
    line.owner = pool = Pool()
    for piece in (b"HTTP/1.1 503 Busy\r\nConne", b"ction: close\r\nContent-Length: 0\r\n\r\n"):
        line.data_received(piece)
    assert line.ask(b"POST").result().status == 503
    assert pool.ends == [False]


async def test_a_line_whose_peer_spoke_first_serves_no_more() -> None:
    """It may be about to answer what it was asked, too: that must not be the next request's answer."""
    line, _ = new_line()
    line.owner = pool = Pool()
    line.data_received(OK)
    assert line.ask(b"POST").result().status == 200
    assert pool.ends == [False]
    assert not line.is_open


async def test_the_end_of_a_connection_may_end_its_answer() -> None:
    """Once the status is in, what came of the body is the answer's; before, there is none."""
    line, pool, answered = asked()
    line.data_received(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    assert not answered.done()
    line.connection_lost(None)
    assert (answered.result().body, pool.ends) == (b"all of it", [False])
    line, pool, answered = asked()
    line.data_received(OK[:-20])
    line.connection_lost(ConnectionResetError())
    with pytest.raises(Unknown) as lost:
        answered.result()
    assert lost.value.code == "connection_lost"
    assert line.gone.done()


@pytest.mark.parametrize("before", [b"", b"H"])
@pytest.mark.parametrize("served", [True, False])
async def test_only_a_line_that_served_goes_stale(served: bool, before: bytes) -> None:
    """Its request may be sent once more where a peer that had answered before now said nothing at all."""
    line, _, answered = asked()
    if served:
        line.data_received(OK)
        answered = line.ask(b"POST")
    line.data_received(before)
    line.connection_lost(None)
    assert isinstance(answered.exception(), Unknown)
    assert line.went_stale == (served and not before)


async def test_a_line_that_is_late_has_not_gone_stale() -> None:
    """Who was silent until the deadline may well have the request."""
    line, pool, answered = asked()
    line.data_received(OK)
    answered = line.ask(b"POST")
    line.expire()
    line.connection_lost(None)
    failed = answered.exception()
    assert isinstance(failed, Unknown)
    assert (failed.code, line.went_stale, pool.ends) == ("timeout", False, [True, False])
    assert failed.timings is not None
    assert failed.timings.sent == len(b"POST")


async def test_giving_up_closes_the_line_unless_it_was_done() -> None:
    """A cancelled exchange takes its connection with it; one that had ended leaves it to the next."""
    line, pool, answered = asked()
    line.give_up(answered)
    assert (pool.ends, line.is_open) == ([False], False)
    line, pool, answered = asked()
    line.data_received(OK)
    another = line.ask(b"POST")
    line.give_up(answered)
    assert (pool.ends, line.is_open, another.done()) == ([True], True, False)


async def test_an_answer_to_who_gave_up_in_the_same_turn_is_dropped() -> None:
    """The answer of a cancelled exchange disturbs nothing."""
    line, pool, answered = asked()
    answered.cancel()
    line.data_received(OK)
    assert (pool.ends, answered.cancelled()) == ([True], True)


async def test_only_the_start_of_a_body_is_kept_and_not_much_more_is_read() -> None:
    """A body past what is worth reading to its end costs the connection."""
    for size, keep in ((READ_BODY, True), (READ_BODY + 1, False)):
        line, pool, answered = asked()
        line.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"z" * (size - 1))
        line.data_received(b"z" * keep)
        if not keep:
            line.data_received(b"zz")
        got = answered.result()
        assert (got.body, len(got.body)) == (b"z" * KEPT_BODY, KEPT_BODY)
        assert pool.ends[0] == keep


async def test_a_lost_idle_line_is_told() -> None:
    """Its owner lets go of it at once."""
    line, pool, _ = asked()
    line.data_received(OK)
    line.connection_lost(None)
    assert pool.gone == [line]
    assert line.gone.done()


async def test_what_is_wrong_with_an_answer_is_told_without_its_bytes() -> None:
    """The reason is the parser's; what a receiver wrote is not repeated."""
    line, _, answered = asked()
    line.data_received(b"220 secret.example ESMTP\r\n")
    failed = answered.exception()
    assert isinstance(failed, Transient)
    assert failed.code == "bad_response"
    assert failed.message.startswith("the answer can't be read: ")
    assert "secret" not in failed.message
    assert "220" not in failed.message


@pytest.mark.parametrize("told", [True, False])
async def test_a_request_on_a_line_that_was_lost_meanwhile_was_not_sent(told: bool) -> None:
    """Whether its end was told before or is about to be: nothing was written, and that is known."""
    line, wire = new_line()
    if told:
        line.connection_lost(None)
    wire.aborted = True
    answered = line.ask(b"POST")
    if not told:
        line.connection_lost(None)
    failed = answered.exception()
    assert type(failed) is Transient
    assert (failed.code, failed.timings and failed.timings.sent, wire.written) == ("connection_lost", 0, [])


@pytest.mark.parametrize("late", [True, False])
async def test_who_was_not_sent_all_of_a_request_does_not_have_it(late: bool) -> None:
    """Only what went out whole may be there though no answer came."""
    line, _ = new_line()
    line.pause_writing()
    answered = line.ask(b"x" * 5_000_000)
    if late:
        line.expire()
    line.connection_lost(None)
    failed = answered.exception()
    assert type(failed) is Transient
    assert failed.code == ("timeout" if late else "connection_lost")


async def test_what_the_system_did_not_take_in_time_was_not_sent() -> None:
    """Of a small request, too."""
    line, wire = new_line()
    answered = line.ask(b"POST")
    wire.unsent = 1
    line.expire()
    failed = answered.exception()
    assert (type(failed), failed and str(failed)) == (Transient, "the request could not be sent in time")
