"""One class per cause, in one place so that nothing has to import a module for its errors.

A message names what is wrong, where, and what was expected; the same facts are attributes.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from notifier.model import Timings


class NotifierError(Exception):
    """The base of every error that this package raises on purpose."""


class ConfigError(NotifierError):
    """A configuration that can't be used; `key` is its dotted path, e.g. `channels.email.relays[0].port`."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class Fault(NamedTuple):
    """One thing wrong with a posted body: where (RFC 6901 JSON pointer) and what."""

    pointer: str
    detail: str


class InvalidEventError(NotifierError):
    """An event that isn't understood. Nothing of it was stored.

    `index` counts events in the call from 0, where the pointers of its faults don't begin with it.
    """

    def __init__(self, faults: list[Fault], index: int | None = None) -> None:
        super().__init__("; ".join(f"{fault.pointer or 'the body'}: {fault.detail}" for fault in faults))
        self.faults = faults
        self.index = index


class IdempotencyConflictError(NotifierError):
    """The idempotency key was used before with another body; `index` counts events in the call from 0."""

    def __init__(self, key: str, index: int) -> None:
        super().__init__(f"idempotency key {key!r} was used before with another event")
        self.key = key
        self.index = index


class NotFoundError(NotifierError):
    """No such event, job or endpoint."""

    def __init__(self, kind: str, wanted: str) -> None:
        super().__init__(f"no {kind} {wanted!r}")
        self.kind = kind
        self.wanted = wanted


class InvalidEndpointError(NotifierError):
    """An endpoint that can't be as it was asked for. Nothing of it was stored or changed."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.pointer or 'the body'}: {fault.detail}" for fault in faults))
        self.faults = faults


class IllegalTransitionError(NotifierError):
    """The job's state doesn't allow what was asked of it (`model.TRANSITIONS`)."""

    def __init__(self, job_id: str, status: str, action: str) -> None:
        super().__init__(f"job {job_id} is {status}: it can't be {action} now")
        self.job_id = job_id
        self.status = status
        self.action = action


class EndpointDeletedError(NotifierError):
    """The job's endpoint is gone: there is nothing to deliver it to."""

    def __init__(self, job_id: str, endpoint_id: str) -> None:
        super().__init__(f"endpoint {endpoint_id} of job {job_id} was deleted: it goes nowhere any more")
        self.job_id = job_id
        self.endpoint_id = endpoint_id


class DrainingError(NotifierError):
    """The notifier is stopping and takes no events; another try may reach its successor."""


class StoreError(NotifierError):
    """The base of what goes wrong with the store as a whole."""


class StoreUnavailableError(StoreError):
    """The store could not say that it committed: nothing may be taken for stored, nor for lost."""


class StoreInUseError(StoreError):
    """Another process owns this store."""


class StoreTooNewError(StoreError):
    """The store was written by a newer version of this program."""


class StoreSealedError(StoreError):
    """The store holds a secret that none of the keys given opens (`store.secret_key`)."""


class DeliveryError(Exception):
    """The base of what a channel raises.

    `code` is a short stable word that failures are grouped by; `status_code` is the receiver's (HTTP or
    SMTP); `response` is the start of what it said; `retry_after` is how many seconds it asked to wait,
    which its whole lane does. `lane_fault` says that the receiver is in trouble, and not this one job: enough
    of these in a row open the lane's breaker. `timings` says where the time of the exchange went,
    `via` what it went by.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status_code: int | None = None,
        response: str | None = None,
        retry_after: float | None = None,
        lane_fault: bool = False,
        timings: "Timings | None" = None,
        via: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.status_code = status_code
        self.response = response
        self.retry_after = retry_after
        self.lane_fault = lane_fault
        self.timings = timings
        self.via = via


class Transient(DeliveryError):  # noqa: N818 - the channel author's word
    """It may work later: the job is tried again on its schedule."""

    code = "transient"


class Unknown(Transient):
    """All was sent and no answer came: the receiver may have it. Tried again, under the same id.

    `content` is what was sent, to be kept and sent again as it is; None where the next try makes it anew.
    """

    code = "unknown"
    content: bytes | None = None


class Unavailable(Transient):
    """The provider is at fault (relay down, login refused): the lane waits, no attempt is spent."""

    code = "unavailable"


class Permanent(DeliveryError):  # noqa: N818 - the channel author's word
    """It can never work as it is: the job is FAILED until an operator requeues it."""

    code = "permanent"


class Bounced(Permanent):
    """The recipient's side refuses this recipient for good; enough of these suppress the address."""

    code = "bounced"


class Withdrawn(Permanent):
    """Nobody is to get it any more (its endpoint was deleted): the job is CANCELLED."""

    code = "withdrawn"


class TemplateError(Permanent):
    """A template that is missing, broken, or lacks a variable, which `variable` names by its path."""

    code = "template_error"

    def __init__(
        self, problem: str, *, template: str, line: int | None = None, variable: str | None = None
    ) -> None:
        where = template if line is None else f"{template}, line {line}"
        super().__init__(f"{where}: {problem}")
        self.template = template
        self.line = line
        self.problem = problem
        self.variable = variable
