"""One timer for all deadlines: nothing ends too early, nor much too late, and nothing rings for nothing."""

import asyncio

from support.virtual_time import VirtualLoop, run

from notifier.channels.deadlines import AT_LEAST, Deadlines


class Exchange:
    """What must end in time, and when it was ended."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.expired_at: float | None = None

    def expire(self) -> None:
        """Note the time."""
        self.expired_at = loop().time()


def loop() -> VirtualLoop:
    """The running loop."""
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


async def until(moment: float) -> None:
    """Let time pass, from timer to timer."""
    while (due := loop().next_timer) is not None and due <= moment:
        loop().now = due
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    loop().now = moment


def test_each_ends_when_it_is_due() -> None:
    """Whatever order they came in, each is expired at its time or just after, and only once."""

    async def watched() -> None:
        deadlines: Deadlines[Exchange] = Deadlines()
        exchanges = [Exchange(due) for due in (5, 3, 3.01, 9, 3.5, 1)]
        for each in exchanges:
            deadlines.watch(each)
        await until(20)
        for each in exchanges:
            assert each.expired_at is not None
            assert each.until <= each.expired_at < each.until + AT_LEAST
        assert not deadlines.under_way

    run(watched())


def test_what_ended_is_not_expired() -> None:
    """One that is forgotten in time hears nothing; those beside it do."""

    async def watched() -> None:
        deadlines: Deadlines[Exchange] = Deadlines()
        ended, late = Exchange(5), Exchange(6)
        deadlines.watch(ended)
        deadlines.watch(late)
        deadlines.forget(ended)
        await until(10)
        assert (ended.expired_at, late.expired_at) == (None, 6)

    run(watched())


def test_one_timer_is_set_for_all() -> None:
    """A thousand exchanges of the same time set one timer, and it isn't set again once none is left."""

    async def watched() -> None:
        deadlines: Deadlines[Exchange] = Deadlines()
        for number in range(1000):
            loop().now = number / 1000
            exchange = Exchange(loop().time() + 15)
            deadlines.watch(exchange)
            deadlines.forget(exchange)
        assert loop().next_timer == 15
        loop().now = 15
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert loop().next_timer is None

    run(watched())


def test_a_nearer_deadline_moves_the_timer() -> None:
    """One with less time than those before it does not wait for them."""

    async def watched() -> None:
        deadlines: Deadlines[Exchange] = Deadlines()
        far, near = Exchange(60), Exchange(1)
        deadlines.watch(far)
        deadlines.watch(near)
        await until(30)
        assert (far.expired_at, near.expired_at) == (None, 1)
        deadlines.close()
        await until(90)
        assert far.expired_at is None

    run(watched())
