"""The places of a pool: who gets one, in which order, and that none is lost."""

import asyncio

import pytest

from notifier.channels.relays import Places


class Allowed:
    """How many there are, as a test says."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> int:
        """The number."""
        return self.number


async def waiting(places: Places) -> "asyncio.Task[None]":
    """Someone who wants a place, and has come as far as to wait for one."""
    task = asyncio.create_task(places.take(60))
    await asyncio.sleep(0)
    return task


async def test_places_are_given_in_turn() -> None:
    """Who came first gets the next one, and nobody gets past those who wait."""
    places = Places(Allowed(1))
    await places.take(60)
    first, second = await waiting(places), await waiting(places)
    places.leave()
    third = await waiting(places)
    await first
    assert (second.done(), third.done(), places.taken) == (False, False, 1)
    places.leave()
    await second
    places.leave()
    await third
    places.leave()
    assert places.taken == 0


async def test_who_gave_up_is_passed_over() -> None:
    """A place isn't kept for someone who is gone."""
    places = Places(Allowed(1))
    await places.take(60)
    gone, next_one = await waiting(places), await waiting(places)
    gone.cancel()
    places.leave()
    await next_one
    assert gone.cancelled()
    assert places.taken == 1


async def test_a_place_given_to_one_who_gives_up_goes_on() -> None:
    """Cancelled between being given a place and taking it: the next one gets it."""
    places = Places(Allowed(1))
    await places.take(60)
    gone, next_one = await waiting(places), await waiting(places)
    places.leave()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await next_one
    assert places.taken == 1


async def test_fewer_places_are_heeded_as_they_come_back() -> None:
    """Nothing is taken away from those who have one; it is the next ones who wait. More wake several."""
    allowed = Allowed(3)
    places = Places(allowed)
    for _ in range(3):
        await places.take(60)
    allowed.number = 1
    first, second = await waiting(places), await waiting(places)
    places.leave()
    places.leave()
    await asyncio.sleep(0)
    assert not first.done()
    allowed.number = 2
    places.leave()
    await asyncio.gather(first, second)
    assert places.taken == 2
