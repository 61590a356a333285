"""The registry of endpoints: what operators do with them, and what their receivers make of them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from notifier.channels.signing import Version, new_secret
from notifier.config import WebhookSection
from notifier.endpoints import health
from notifier.endpoints.drafts import (
    MAX_DESCRIPTION,
    EndpointChanges,
    EndpointDraft,
    Rules,
    check,
    text_fault,
)
from notifier.endpoints.headers import with_kept
from notifier.endpoints.health import Turn
from notifier.endpoints.kept import Judge, KeptEndpoints
from notifier.endpoints.rotation import rotated
from notifier.errors import DeliveryError, Fault, InvalidEndpointError, NotFoundError
from notifier.model import Endpoint, EndpointSecret, EndpointState, Event, new_id
from notifier.routing import LaneOf, Router
from notifier.store.base import Store, Submission

_STORE_REST = 1.0
"""Seconds that health is not written after the store failed: the next outcome brings it up again."""

_log = structlog.get_logger(__name__)


class Endpoints:
    """The registry. Nothing changes in memory unless the store committed it.

    `lane_of` and `check_template` are as in `Rules`. `submission` gives an operational event the jobs that it
    causes; `on_events` is called with those that were stored. `on_change` is called with every endpoint at
    `load`, and after each change: with `deleted` set once it is gone, and as paused until its jobs are too.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        router: Router,
        *,
        lane_of: LaneOf,
        check_template: Callable[[str], str | None],
        submission: Callable[[Event], Submission],
        config: WebhookSection,
        on_change: Callable[[Endpoint], None],
        on_events: Callable[[Sequence[Submission]], None],
    ) -> None:
        self._clock = clock
        self._rules = Rules(lane_of, check_template)
        self._config = config
        self._kept = KeptEndpoints(
            store, router.subscriptions, submission=submission, on_change=on_change, on_events=on_events
        )
        self._store_rests_until = 0.0

    async def load(self) -> None:
        """Take in what the store has, and finish the deletions that were cut short. Raises a StoreError."""
        await self._kept.load()
        await self._kept.finish_deletions(self._now)

    # Asked ---------------------------------------------------------------------------------------

    def get(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint as it stands; None for one that is unknown or deleted."""
        return self._kept.get(endpoint_id)

    def find(self, endpoint_id: str) -> Endpoint:
        """The endpoint as it stands. Raises NotFoundError.

        Raises StoreUnavailableError while it is unknown whether its last change was committed.
        """
        return self._kept.find(endpoint_id)

    def all(self) -> list[Endpoint]:
        """Every endpoint, the oldest first. Raises StoreUnavailableError as `find` does."""
        return self._kept.all()

    # Changed by operators ------------------------------------------------------------------------

    async def create(self, draft: EndpointDraft) -> tuple[Endpoint, str]:
        """Add an endpoint. Returns it with its secret, which is never told again.

        Raises InvalidEndpointError, StoreUnavailableError.
        """
        check(msgspec.structs.asdict(draft), self._rules)
        now = self._now()
        secret = draft.secret or new_secret(draft.signature)
        endpoint = Endpoint(
            id=new_id("ep", now),
            url=draft.url,
            event_types=tuple(draft.event_types),
            tenant=draft.tenant,
            when=draft.when,
            description=draft.description,
            headers=dict(draft.headers),
            template=draft.template,
            rate_limit=draft.rate_limit,
            max_in_flight=draft.max_in_flight,
            secrets=(EndpointSecret(secret, now),),
            created_at=now,
            updated_at=now,
            state_changed_at=now,
        )
        await self._kept.add(endpoint)
        return endpoint, secret

    async def change(self, endpoint_id: str, changes: EndpointChanges) -> Endpoint:
        """Change what is given. Raises InvalidEndpointError, NotFoundError, StoreUnavailableError."""
        return await self._kept.change(endpoint_id, lambda present: self._changed(present, changes.given))

    def _changed(self, present: Endpoint, given: dict[str, Any]) -> Turn | None:
        if "headers" in given:
            given = given | {"headers": with_kept(given["headers"] or {}, present.headers)}
        check(given, self._rules)
        if "event_types" in given:
            given = given | {"event_types": tuple(given["event_types"])}
        changed = msgspec.structs.replace(present, **given)
        if changed == present:
            return None
        if changed.url != present.url:  # what failed was another receiver
            changed = msgspec.structs.replace(changed, failing_since=None)
        return Turn(msgspec.structs.replace(changed, updated_at=self._now()))

    async def pause(self, endpoint_id: str, reason: str | None = None) -> Endpoint:
        """Hold its deliveries until it is resumed; one that is stopped already stays as it is.

        Raises InvalidEndpointError (`/reason`), NotFoundError, StoreUnavailableError.
        """
        if problem := text_fault(reason or "", MAX_DESCRIPTION):
            raise InvalidEndpointError([Fault("/reason", problem)])
        words = f"paused by an operator: {reason}" if reason else "paused by an operator"
        return await self._kept.change(endpoint_id, lambda present: self._paused(present, words))

    def _paused(self, present: Endpoint, words: str) -> Turn | None:
        if present.state is not EndpointState.ENABLED:
            return None
        return Turn(self._in_state(present, EndpointState.PAUSED, words))

    async def resume(self, endpoint_id: str) -> Endpoint:
        """Deliver again, with a clean sheet: what failed before counts no more.

        That it recovers is still to be told, where it was told that it fails or is disabled.

        Raises NotFoundError, StoreUnavailableError.
        """
        return await self._kept.change(endpoint_id, self._resumed)

    def _resumed(self, present: Endpoint) -> Turn | None:
        if present.state is EndpointState.ENABLED:
            return None
        enabled = self._in_state(present, EndpointState.ENABLED, None)
        told = present.reported or present.state is EndpointState.DISABLED
        return Turn(msgspec.structs.replace(enabled, failing_since=None, reported=told))

    def _in_state(self, present: Endpoint, state: EndpointState, reason: str | None) -> Endpoint:
        now = self._now()
        return msgspec.structs.replace(
            present, state=state, state_reason=reason, state_changed_at=now, updated_at=now
        )

    async def rotate(
        self,
        endpoint_id: str,
        *,
        secret: str | None = None,
        signature: Version = "v1",
        overlap: float | None = None,
    ) -> tuple[Endpoint, str]:
        """Sign with a new secret, and with the old ones beside it for `overlap` seconds.

        A secret is made, of the kind that `signature` says, where none is given; `overlap` is the
        configuration's where it is left out. Returns the endpoint with the secret, which is never told
        again. Raises InvalidEndpointError, NotFoundError, StoreUnavailableError.
        """
        check({"secret": secret}, self._rules)
        chosen = secret or new_secret(signature)
        lasting = self._config.rotation_overlap if overlap is None else overlap
        endpoint = await self._kept.change(
            endpoint_id, lambda present: Turn(rotated(present, chosen, overlap=lasting, now=self._now()))
        )
        return endpoint, chosen

    async def forget_expired(self, now: float) -> None:
        """Drop the secrets whose overlap is over, and go on with what the store could not do before.

        Raises a StoreError.
        """
        await self._kept.clear_doubts()
        await self._kept.finish_deletions(self._now)
        for each in self._kept.all():
            if len(each.secrets) > 1 and len(each.live_secrets(now)) < len(each.secrets):
                with suppress(NotFoundError):  # deleted meanwhile
                    await self._kept.change(each.id, lambda present: _without_expired(present, now))

    # Deleted -------------------------------------------------------------------------------------

    async def delete(self, endpoint_id: str) -> int:
        """Delete an endpoint and cancel what waits for it. Returns how many jobs were cancelled.

        It gets nothing more as soon as this is stored. Raises NotFoundError, StoreUnavailableError: then
        another call, or upkeep, goes on with it.
        """
        return await self._kept.delete(endpoint_id, self._now)

    # Changed by what its receiver does -----------------------------------------------------------

    async def delivered(self, endpoint_id: str, now: float) -> None:
        """Take note that its receiver took something. Costs nothing while all is well; raises nothing."""
        endpoint = self._kept.get(endpoint_id)
        if endpoint is not None and health.after_success(endpoint) is not None:
            await self._note(endpoint_id, health.after_success, now)

    async def failed(
        self, endpoint_id: str, error: DeliveryError, now: float, *, breaker_opened: bool = False
    ) -> None:
        """Take note that an attempt failed: 410, or failing for too long, disables it. Raises nothing.

        That its lane's breaker opened is reported once a streak.
        """

        def judge(endpoint: Endpoint) -> Turn | None:
            patience = self._config.disable_after
            return health.after_failure(
                endpoint, error, round(now, 6), patience, breaker_opened=breaker_opened
            )

        await self._note(endpoint_id, judge, now)

    async def _note(self, endpoint_id: str, judge: Judge, now: float) -> None:
        """Change what an outcome changes. While the store can't, the next outcome says it again."""
        endpoint = self._kept.get(endpoint_id)
        resting = 0 < self._store_rests_until - now <= _STORE_REST
        if endpoint is None or resting or judge(endpoint) is None:
            return
        try:
            with suppress(NotFoundError):  # deleted meanwhile
                await self._kept.change(endpoint_id, judge)
        except Exception:
            self._store_rests_until = now + _STORE_REST
            _log.exception("an endpoint's health could not be written", endpoint=endpoint_id)

    def _now(self) -> float:
        """The time, as precise as a store keeps it: what is read back is then what was written."""
        return round(self._clock(), 6)


def _without_expired(endpoint: Endpoint, now: float) -> Turn | None:
    live = endpoint.live_secrets(now)
    if len(live) == len(endpoint.secrets):
        return None
    return Turn(msgspec.structs.replace(endpoint, secrets=live))
