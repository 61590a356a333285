"""Sending a stream of events: what is refused, retried and recognised, against a scripted server."""

import io
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from notifier.cli import bulk
from notifier.cli.bulk import Batch, Bulk, Tally, batches
from notifier.cli.client import Client, Pointed, Problem, RefusedError, UnreachableError

Answer = Callable[[list[Any]], list[dict[str, Any]]]
AWAY = UnreachableError("http://127.0.0.1:1", "connection refused")


class ScriptedServer:
    """Stands in for the API: raises the errors it is given first, then judges each array by a function."""

    def __init__(self, judge: Answer | None = None, errors: list[Exception] | None = None) -> None:
        self.posted: list[list[Any]] = []
        self._judge = judge or accept
        self._errors = errors or []

    async def post(self, _path: str, body: bytes) -> list[dict[str, Any]]:
        """Take a call as `Client.post` does."""
        events = msgspec.json.decode(body)
        self.posted.append(events)
        if self._errors:
            raise self._errors.pop(0)
        return self._judge(events)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self.slept.append(seconds)
        self.now += seconds


def accept(events: list[Any]) -> list[dict[str, Any]]:
    """Take every event; data says which are known already."""
    return [{"id": "evt_1", "duplicate": event["data"].get("again", False)} for event in events]


def refuse_bad_ones(events: list[Any]) -> list[dict[str, Any]]:
    """Refuse an array with bad data in it, pointing at each."""
    faults = [Pointed(f"/{i}/data/bad", "is bad") for i, event in enumerate(events) if "bad" in event["data"]]
    if faults:
        raise RefusedError(422, Problem(detail="not understood", errors=faults))
    return accept(events)


def refuse_without_saying_which(events: list[Any]) -> list[dict[str, Any]]:
    """Refuse an array with bad data in it, pointing at nothing."""
    if any("bad" in event["data"] for event in events):
        raise RefusedError(413, Problem(detail="too large"))
    return accept(events)


def lines(*data: dict[str, Any]) -> bytes:
    """Write events with these data, one a line."""
    return b"".join(msgspec.json.encode({"type": "a.b", "data": each}) + b"\n" for each in data)


async def send(
    text: bytes, server: ScriptedServer, *, clock: Clock | None = None, retry_for: float = 60.0
) -> Tally:
    """Send a whole stream to a scripted server."""
    clock = clock or Clock()
    tally = Tally()
    sender = Bulk(
        cast("Client", server), tally, retry_for=retry_for, sleep=clock.sleep, clock=lambda: clock.now
    )
    for batch in batches(io.BytesIO(text)):
        await sender.send(batch)
    return tally


def counts(tally: Tally) -> tuple[int, int, int]:
    """Accepted, duplicates, refused."""
    return tally.accepted, tally.duplicates, tally.refused


async def test_every_line_is_posted_and_what_the_server_knew_is_told_apart() -> None:
    """New events and duplicates are counted by the server's answers."""
    tally = await send(lines({"n": 1}, {"n": 2, "again": True}, {"n": 3}), ScriptedServer())
    assert counts(tally) == (2, 1, 0)


async def test_a_line_gets_the_same_key_in_every_run() -> None:
    """Keys come of a line's number and text: runs repeat them, equal lines at two places don't share one."""
    text = lines({"n": 1}, {"n": 1})
    first, second = ScriptedServer(), ScriptedServer()
    await send(text, first)
    await send(text, second)
    keys = [event["idempotency_key"] for event in first.posted[0]]
    assert keys == [event["idempotency_key"] for event in second.posted[0]]
    assert len(set(keys)) == 2


async def test_a_key_of_the_lines_own_is_left_alone() -> None:
    """An event that names its key is posted with it; null is no key."""
    server = ScriptedServer()
    await send(
        b'{"type":"a","data":{},"idempotency_key":"mine"}\n{"type":"a","data":{},"idempotency_key":null}\n',
        server,
    )
    first, second = server.posted[0]
    assert first["idempotency_key"] == "mine"
    assert len(second["idempotency_key"]) == 64


async def test_data_is_posted_as_it_stands_in_the_file() -> None:
    """Adding a key changes nothing else, not even a number that no float can hold."""
    (batch,) = batches(io.BytesIO(b'{"type":"a","data":{"n":1.10000000000000000000001}}'))
    assert b'"data":{"n":1.10000000000000000000001}' in batch.lines[0].text


async def test_a_bad_line_is_named_and_stops_no_other() -> None:
    """Lines that the server points at are refused by their number in the file; the rest goes out."""
    text = b"\n" + lines({"n": 1}, {"bad": 1}, {"n": 2}, {"bad": 2})
    server = ScriptedServer(refuse_bad_ones)
    tally = await send(text, server)
    assert counts(tally) == (2, 0, 2)
    assert [str(refusal) for refusal in tally.take_refusals()] == [
        "line 3: /data/bad: is bad",
        "line 5: /data/bad: is bad",
    ]
    assert len(server.posted) == 2


async def test_where_the_server_does_not_say_which_line_it_is_found_by_halves() -> None:
    """An array that is refused without a pointer is cut down to the line at fault."""
    text = lines(*({"n": n} for n in range(40)), {"bad": 1}, *({"n": n} for n in range(40)))
    tally = await send(text, ScriptedServer(refuse_without_saying_which))
    assert counts(tally) == (80, 0, 1)
    assert [str(refusal) for refusal in tally.take_refusals()] == ["line 41: too large"]


async def test_a_batch_of_nothing_but_bad_lines_is_refused_line_by_line() -> None:
    """A server that names one fault at a time is asked again until none is left, however many there are."""

    def one_at_a_time(_events: list[Any]) -> list[dict[str, Any]]:
        raise RefusedError(422, Problem(errors=[Pointed("/0/type", "is bad")]))

    tally = await send(lines(*({"n": n} for n in range(500))), ScriptedServer(one_at_a_time))
    assert counts(tally) == (0, 0, 500)


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[1]", b'"text"', b'{"type":', b"\xff\xfe", b'{"a":1} {"b":2}'], ids=repr
)
async def test_a_line_that_is_no_object_is_refused_before_it_is_sent(line: bytes) -> None:
    """It is named by its number, and the lines around it are sent."""
    server = ScriptedServer()
    tally = await send(lines({"n": 1}) + line + b"\n" + lines({"n": 2}), server)
    assert counts(tally) == (2, 0, 1)
    assert str(tally.take_refusals()[0]).startswith("line 2: not a JSON object: ")


async def test_blank_lines_line_ends_and_byte_order_marks_are_no_events() -> None:
    """Files from any system are read, and numbers still count from the file's first line."""
    text = b"\xef\xbb\xbf" + lines({"n": 1}).replace(b"\n", b"\r\n") + b"\r\n  \n" + b"bad"
    tally = await send(text, ScriptedServer())
    assert counts(tally) == (1, 0, 1)
    assert tally.take_refusals()[0].line == 4


async def test_a_line_past_all_bounds_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat: what is longer than a line may be is dropped as it is read, and only that."""
    monkeypatch.setattr(bulk, "MAX_LINE", 1000)
    monkeypatch.setattr(bulk, "_READ", 300)
    long = b'{"type":"a","data":{"x":"' + b"x" * 5000 + b'"}}\n'
    tally = await send(lines({"n": 1}) + long + lines({"n": 2}) + long[:-1], ScriptedServer())
    assert counts(tally) == (2, 0, 2)
    assert [refusal.line for refusal in tally.take_refusals()] == [2, 4]


def test_batches_are_bounded_in_number_and_in_bytes() -> None:
    """No array exceeds what a server takes as it comes, and every line is in one."""
    small = lines(*({"n": n} for n in range(1200)))
    large = lines(*({"x": "x" * 100_000} for _ in range(20)))
    found = list(batches(io.BytesIO(small + large)))
    assert sum(len(batch.lines) for batch in found) == 1220
    assert max(len(batch.lines) for batch in found) <= bulk.BATCH
    assert max(batch.size for batch in found) < bulk.BATCH_BYTES + 101_000
    assert found[-1].end == len(small + large)


def test_what_a_slow_writer_wrote_is_not_held_back() -> None:
    """Lines go out as they come: a batch is not filled up first."""

    class Trickle:
        def __init__(self) -> None:
            self.chunks = [lines({"n": 1}), lines({"n": 2}), b""]

        def read1(self, _size: int) -> bytes:
            return self.chunks.pop(0)

    assert [len(batch.lines) for batch in batches(Trickle())] == [1, 1]


async def test_a_server_that_is_away_is_waited_for() -> None:
    """Refused connections are tried again with growing pauses, under the same keys."""
    clock, server = Clock(), ScriptedServer(errors=[AWAY, AWAY, AWAY])
    tally = await send(lines({"n": 1}), server, clock=clock)
    assert counts(tally) == (1, 0, 0)
    assert len(clock.slept) == 3
    assert clock.slept == sorted(clock.slept)
    assert server.posted[0] == server.posted[3]


async def test_retry_after_is_honoured() -> None:
    """A draining server's 503 says how long to wait."""
    clock = Clock()
    server = ScriptedServer(errors=[RefusedError(503, Problem(), retry_after=5.0)])
    assert counts(await send(lines({"n": 1}), server, clock=clock)) == (1, 0, 0)
    assert clock.slept == [5.0]


@pytest.mark.parametrize("error", [AWAY, RefusedError(503, Problem()), RefusedError(500, Problem())], ids=str)
async def test_waiting_has_an_end(error: Exception) -> None:
    """Past --retry-for the last error is the command's."""
    clock = Clock()
    with pytest.raises(type(error)):
        await send(lines({"n": 1}), ScriptedServer(errors=[error] * 100), clock=clock, retry_for=10)
    assert clock.now <= 10


async def test_a_wait_longer_than_allowed_is_not_begun() -> None:
    """A Retry-After past the bound ends the run at once."""
    clock = Clock()
    server = ScriptedServer(errors=[RefusedError(503, Problem(), retry_after=3600.0)])
    with pytest.raises(RefusedError):
        await send(lines({"n": 1}), server, clock=clock)
    assert clock.slept == []


async def test_a_key_that_is_refused_ends_the_run_at_once() -> None:
    """401 and 403 are nothing that another try or fewer lines would mend."""
    server = ScriptedServer(errors=[RefusedError(401, Problem())])
    with pytest.raises(RefusedError):
        await send(lines({"n": 1}), server)
    assert len(server.posted) == 1


async def test_an_empty_stream_posts_nothing() -> None:
    """No events, no request."""
    server = ScriptedServer()
    assert counts(await send(b"\n\n", server)) == (0, 0, 0)
    await Bulk(cast("Client", server), Tally(), retry_for=1).send(Batch(0))
    assert server.posted == []
