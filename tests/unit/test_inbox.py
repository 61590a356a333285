"""What was caught is kept in memory, within bounds, and whoever waits for it is woken."""

import asyncio

from notifier.inbox import Inbox, Mail


def mail(size: int = 1) -> Mail:
    """A mail of so many bytes."""
    return Mail(sender="a@example.com", recipients=("b@example.com",), raw=b"x" * size)


def numbers(inbox: Inbox) -> list[int]:
    """The numbers of what is kept, in the order it is shown."""
    return [caught.number for caught in inbox]


def test_the_newest_comes_first() -> None:
    """Numbers grow, and are never used twice."""
    inbox = Inbox()
    for moment in (1.0, 2.0, 3.0):
        inbox.add(mail(), moment)
    assert numbers(inbox) == [3, 2, 1]
    assert [caught.at for caught in inbox] == [3.0, 2.0, 1.0]


def test_the_oldest_make_room() -> None:
    """No more messages are kept than the bound allows."""
    inbox = Inbox(max_messages=3)
    for _ in range(5):
        inbox.add(mail(), 0.0)
    assert numbers(inbox) == [5, 4, 3]


def test_bytes_are_bounded_too() -> None:
    """A large message pushes out as many as it needs; one past the bound is kept alone."""
    inbox = Inbox(max_bytes=100)
    for size in (40, 40, 40):
        inbox.add(mail(size), 0.0)
    assert numbers(inbox) == [3, 2]
    inbox.add(mail(1000), 0.0)
    assert numbers(inbox) == [4]


def test_messages_are_found_removed_and_cleared() -> None:
    """What is gone is gone, and its bytes no longer count."""
    inbox = Inbox(max_bytes=100)
    inbox.add(mail(60), 0.0)
    inbox.add(mail(40), 0.0)
    inbox.remove(1)
    assert inbox.get(1) is None
    assert inbox.get(2) is not None
    inbox.add(mail(60), 0.0)
    assert numbers(inbox) == [3, 2]
    inbox.clear()
    assert len(inbox) == 0


async def test_whoever_waits_is_woken_by_every_change() -> None:
    """A change since the version one knows is told at once; otherwise the next one is."""
    inbox = Inbox()
    waiting = asyncio.ensure_future(inbox.changed(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.add(mail(), 0.0)
    version = await waiting
    inbox.clear()
    assert await inbox.changed(version) == version + 1
