"""Whom nothing more is sent to: they unsubscribed, bounced, complained, or an operator said so."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from notifier.channels import Receipt
from notifier.channels.address import read_address
from notifier.errors import Bounced, DeliveryError, Permanent, StoreError, Unavailable, Withdrawn
from notifier.model import Job, Suppression, SuppressionReason
from notifier.retry import printable
from notifier.routing import MAIL, MAX_DESTINATION, key_of
from notifier.store.base import Store, SuppressionPage
from notifier.unsubscribing import Unsubscription

EXEMPT = "webhook"
"""The channel that has no recipients who could be left alone: its receivers are paused instead."""

_MAX_DETAIL = 512

_log = structlog.get_logger(__name__)


class Suppressions:
    """The suppressions in one store. So many bounces in a row as `after` suppress an address; 0: none do."""

    def __init__(self, store: Store, clock: Callable[[], float], after: int) -> None:
        self._store = store
        self._clock = clock
        self._after = after

    # What workers ask ----------------------------------------------------------------------------

    def concern(self, job: Job) -> bool:
        """Whether a job has a recipient who could be left alone; else there is nothing to check or note."""
        return _recipient(job) is not None

    async def check(self, job: Job) -> None:
        """Let a job go out, or raise Withdrawn (`suppressed`): its recipient is to be left alone.

        Where the store can't say, nothing goes out either: raises Unavailable (`store_unavailable`).
        """
        if (recipient := _recipient(job)) is None:
            return
        try:
            found = await self._store.suppressed(job.channel, key_of(job.channel, recipient), job.category)
        except StoreError as error:
            problem = f"whether the recipient wants it can't be read: {error}"
            raise Unavailable(problem, code="store_unavailable") from error
        if found is not None:
            raise Withdrawn(_words(found), code="suppressed")

    async def note(self, job: Job, answer: Receipt | DeliveryError) -> None:
        """Take note of what an attempt came to: a bounce counts, a delivery ends the count. Never raises."""
        if not self._after or (recipient := _recipient(job)) is None:
            return
        try:
            if isinstance(answer, Bounced):
                await self._count(job, key_of(job.channel, recipient), answer)
            elif isinstance(answer, Receipt) and self._after > 1:  # else nothing is ever left counted
                await self._store.forget_bounces(job.channel, key_of(job.channel, recipient))
        except Exception:
            _log.exception("a bounce could not be noted", job=job.id)

    async def _count(self, job: Job, recipient: str, bounce: Bounced) -> None:
        if self._after > 1 and not await self._has_enough(job, recipient):
            return
        suppression = Suppression(
            channel=job.channel,
            recipient=recipient,
            reason=SuppressionReason.BOUNCED,
            detail=printable(str(bounce.response or bounce.message), _MAX_DETAIL),
            job_id=job.id,
            created_at=self._clock(),
        )
        if await self._store.add_suppression(suppression):
            _log.info("a recipient is suppressed: it bounced", job=job.id, channel=job.channel)

    async def _has_enough(self, job: Job, recipient: str) -> bool:
        count = await self._store.count_bounce(job.channel, recipient, self._clock())
        return count >= self._after

    # What recipients and operators do ------------------------------------------------------------

    async def unsubscribe(self, wanted: Unsubscription, *, everything: bool, detail: str) -> None:
        """Send a recipient nothing more of the category, or nothing at all; `detail` says how it came."""
        await self._store.add_suppression(
            Suppression(
                channel=wanted.channel,
                recipient=wanted.recipient,
                category=None if everything else wanted.category,
                reason=SuppressionReason.UNSUBSCRIBED,
                detail=detail,
                job_id=wanted.job_id,
                created_at=self._clock(),
            )
        )

    async def covering(self, wanted: Unsubscription) -> Suppression | None:
        """Why a recipient gets nothing more of the category already; None: it does get it."""
        return await self._store.suppressed(wanted.channel, wanted.recipient, wanted.category)

    async def add(self, suppressions: Sequence[Suppression]) -> list[bool]:
        """Keep each; False for one that was there already, and stands as it was. Raises a StoreError."""
        return list(await asyncio.gather(*map(self._store.add_suppression, suppressions)))

    async def drop(self, channel: str, recipient: str, category: str | None) -> bool:
        """Send again: of a category, or what is suppressed altogether. False: there was no such suppression.

        Its bounces count from nothing then.
        """
        recipient = key_of(channel, recipient)
        if category is None:
            await self._store.forget_bounces(channel, recipient)
        return await self._store.drop_suppression(channel, recipient, category)

    async def page(
        self,
        *,
        limit: int,
        channel: str | None = None,
        recipient: str | None = None,
        reason: SuppressionReason | None = None,
        after: int | None = None,
    ) -> SuppressionPage:
        """A page of suppressions, the last added first; a recipient may be written in any way."""
        if recipient is not None:
            recipient = key_of(channel or MAIL, recipient)
        return await self._store.suppressions(
            limit=limit, channel=channel, recipient=recipient, reason=reason, after=after
        )


def _recipient(job: Job) -> str | None:
    """Whom a job is for, where they could be left alone."""
    return None if job.channel == EXEMPT else job.destination


def recipient_key(channel: str, recipient: str) -> str:
    """What a recipient is known by, for one that an operator names.

    Raises Permanent (`invalid_destination`) for what nothing could ever be sent to.
    """
    if channel == MAIL:
        read_address(recipient)
    key = key_of(channel, recipient)
    if not key or len(key) > MAX_DESTINATION or not key.isprintable():
        raise Permanent("the recipient is empty, too long, or not printable", code="invalid_destination")
    return key


def _words(suppression: Suppression) -> str:
    """Say why nothing goes out; what can be grouped comes first."""
    what = "everything" if suppression.category is None else suppression.category
    told = {
        SuppressionReason.UNSUBSCRIBED: f"the recipient unsubscribed from {what}",
        SuppressionReason.BOUNCED: "the recipient's address bounced",
        SuppressionReason.COMPLAINED: f"the recipient complained about {what}",
        SuppressionReason.MANUAL: f"an operator suppressed {what} to the recipient",
    }[suppression.reason]
    return f"{told}: {suppression.detail}" if suppression.detail else told
