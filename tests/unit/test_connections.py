"""Which lines are in use, which wait, and for how long: under a time that the test lets pass."""

import asyncio
from collections.abc import Coroutine
from typing import cast

import pytest
from support.lines import Wire, new_line, new_origin
from support.virtual_time import VirtualLoop, run

from notifier.channels.connections import KEPT_FOR, MOST_KEPT, Connections
from notifier.channels.dials import Dial
from notifier.channels.egress import Egress
from notifier.channels.line import NOTHING, Line
from notifier.channels.origins import Origin

LATER = 1e9
"""A deadline that no test comes to."""


class Dialler:
    """Stands in for the way out: every line comes about, unless the test says otherwise."""

    def __init__(self) -> None:
        self.dialled: list[Line] = []
        self.wires: list[Wire] = []
        self.forbidden: set[Line] = set()
        self.failure: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()

    async def dial(self, origin: Origin) -> Line:
        """Connect."""
        await self.ready.wait()
        if self.failure is not None:
            raise self.failure
        line, wire = new_line(origin)
        self.dialled.append(line)
        self.wires.append(wire)
        return line

    def is_allowed(self, line: Line) -> bool:
        """Whether the guard agrees."""
        return line not in self.forbidden

    async def close(self) -> None:
        """Nothing to let go of."""


def opened(most: int = 2) -> tuple[Connections, Dialler]:
    """Connections of which so many may be in use."""
    dialler = Dialler()
    return Connections(cast("Egress", dialler), most=most), dialler


def connect(connections: Connections, origin: Origin) -> Coroutine[None, None, Line]:
    """Find a line that isn't there yet."""
    return connections.connect(origin, LATER, Dial(NOTHING))


def end(connections: Connections, *lines: Line, keep: bool = True) -> None:
    """End an exchange on each."""
    for line in lines:
        connections.ended(line, keep=keep)


async def passed(moment: float) -> None:
    """Let time pass, and timers ring."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now = moment
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_line_that_served_is_taken_without_waiting() -> None:
    """The last used first; another origin's is never taken."""
    connections, _ = opened()
    here, there = new_origin(), new_origin("other.test")
    assert connections.take(here, LATER) is None
    first, second = await connect(connections, here), await connect(connections, here)
    assert connections.under_way == {first, second}
    end(connections, first, second)
    assert connections.idle == [first, second]
    assert connections.take(there, LATER) is None
    assert connections.take(here, LATER) is second
    assert connections.take(here, LATER) is first
    assert connections.take(here, LATER) is None
    assert connections.idle == []
    assert first.until == LATER


async def test_no_more_lines_are_in_use_than_may_be() -> None:
    """Whoever comes too many waits for its turn, and takes the line that came back, or a new one."""
    connections, dialler = opened()
    here, there = new_origin(), new_origin("other.test")
    first, second = await connect(connections, here), await connect(connections, here)
    waiting = [asyncio.create_task(connect(connections, origin)) for origin in (here, there)]
    await asyncio.sleep(0)
    assert len(dialler.dialled) == 2
    end(connections, first)
    assert await waiting[0] is first
    end(connections, second)
    assert (await waiting[1]).origin is there
    assert len(dialler.dialled) == 3
    assert len(connections.under_way) == 2


async def test_a_place_is_not_taken_from_who_waits_for_it() -> None:
    """A kept line doesn't let later requests pass those that wait."""
    connections, _ = opened(most=1)
    here, there = new_origin(), new_origin("other.test")
    first = await connect(connections, here)
    waiting = asyncio.create_task(connect(connections, there))
    await asyncio.sleep(0)
    end(connections, first)
    assert connections.take(here, LATER) is None
    assert (await waiting).origin is there


@pytest.mark.parametrize("given", [False, True], ids=["before", "as it is given"])
async def test_giving_up_waiting_leaves_the_place_to_the_next(given: bool) -> None:
    """A cancelled wait takes no place with it."""
    connections, _ = opened(most=1)
    here = new_origin()
    first = await connect(connections, here)
    gone, waits = (asyncio.create_task(connect(connections, here)) for _ in range(2))
    await asyncio.sleep(0)
    if given:
        end(connections, first)
        gone.cancel()
    else:
        gone.cancel()
        await asyncio.sleep(0)
        end(connections, first)
    assert await waits is first
    assert gone.cancelled()


async def test_a_failed_or_cancelled_dial_gives_its_place_back() -> None:
    """The one place there is serves on."""
    connections, dialler = opened(most=1)
    here = new_origin()
    dialler.failure = ConnectionRefusedError()
    with pytest.raises(ConnectionRefusedError):
        await connect(connections, here)
    dialler.failure = None
    dialler.ready.clear()
    dialling = asyncio.create_task(connect(connections, here))
    await asyncio.sleep(0)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    dialler.ready.set()
    assert (await connect(connections, here)).is_open


async def test_what_can_not_serve_again_is_closed() -> None:
    """So is a kept line that closed, or that leads where it may no longer lead."""
    connections, dialler = opened(most=3)
    here = new_origin()
    lines = [await connect(connections, here) for _ in range(3)]
    end(connections, lines[0], keep=False)
    end(connections, *lines[1:])
    dialler.wires[1].aborted = True
    dialler.forbidden.add(lines[2])
    assert connections.take(here, LATER) is None
    assert [wire.aborted for wire in dialler.wires] == [True] * 3
    assert connections.idle == []


async def test_an_idle_line_that_is_lost_is_let_go_of() -> None:
    """It doesn't count among those that are kept."""
    connections, _ = opened()
    here = new_origin()
    line = await connect(connections, here)
    end(connections, line)
    line.connection_lost(None)
    assert (connections.idle, here.idle) == ([], [])


async def test_of_too_many_idle_lines_the_longest_idle_goes() -> None:
    """Whomever it leads to."""
    connections, dialler = opened(most=MOST_KEPT + 2)
    origins = [new_origin(f"host{number}.test") for number in range(MOST_KEPT + 2)]
    lines = [await connect(connections, origin) for origin in origins]
    end(connections, *lines)
    assert connections.idle == lines[2:]
    assert [wire.aborted for wire in dialler.wires[:3]] == [True, True, False]


def test_idle_lines_are_closed_after_a_while() -> None:
    """Each in its time, by one timer that isn't set once none is left."""

    async def kept() -> None:
        connections, dialler = opened()
        here = new_origin()
        first, second = await connect(connections, here), await connect(connections, here)
        end(connections, first)
        await passed(KEPT_FOR - 1)
        end(connections, second)
        assert connections.idle == [first, second]
        await passed(KEPT_FOR)
        assert connections.idle == [second]
        await passed(2 * KEPT_FOR - 1)
        assert (connections.idle, here.idle) == ([], [])
        assert [wire.aborted for wire in dialler.wires] == [True, True]
        assert connections._sweeping is None

    run(kept())


def test_what_is_under_way_ends_at_its_deadline() -> None:
    """Its line is closed, and its place is free."""

    async def late() -> None:
        connections, dialler = opened(most=1)
        line = await connections.connect(new_origin(), 15.0, Dial(NOTHING))
        answer = line.ask(b"POST")
        await passed(15)
        assert answer.exception() is not None
        assert (dialler.wires[0].aborted, connections.under_way) == (True, set())
        assert (await connect(connections, new_origin())).is_open

    run(late())


async def test_closing_closes_all_and_waits_for_it() -> None:
    """Idle lines, those in use, and one that comes about too late."""
    connections, dialler = opened(most=3)
    here = new_origin()
    idle, used = await connect(connections, here), await connect(connections, here)
    end(connections, idle)
    connections.take(here, LATER)
    end(connections, idle)
    answer = used.ask(b"POST")
    dialler.ready.clear()
    late = asyncio.create_task(connect(connections, new_origin("other.test")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(connections.close())
    await asyncio.sleep(0)
    assert [wire.aborted for wire in dialler.wires] == [True, True]
    assert not closing.done()
    for line in (idle, used):
        line.connection_lost(None)
    await closing
    assert answer.exception() is not None
    dialler.ready.set()
    with pytest.raises(Exception, match="closed"):
        await late
    assert dialler.wires[2].aborted
