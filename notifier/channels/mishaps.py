"""What it means for a job that no connection came about. No message holds an address or a url."""

import os
import ssl

import aiohttp

from notifier.channels.dials import Dial
from notifier.channels.guard import REFUSAL, BlockedAddressError
from notifier.channels.proxy import unreachable
from notifier.errors import DeliveryError, Permanent, Transient


def meaning(error: aiohttp.ClientError | OSError, dial: Dial) -> DeliveryError:
    """Say what an attempt to connect that failed means. Of a refused address not even the time is told."""
    if isinstance(error, BlockedAddressError) or (dial.blocked and not dial.dialled):
        # With several addresses aiohttp's error is of any or of all of them; what was noted is exact.
        return Permanent(REFUSAL, code="blocked_address")
    if isinstance(error, aiohttp.InvalidURL):
        return Permanent("the url can't be used", code="invalid_destination")
    made = unreachable() if dial.to_proxy else _unconnected(error, dial)
    made.timings = dial.timings()
    return made


def _unconnected(error: Exception, dial: Dial) -> DeliveryError:
    code, problem = _why_unconnected(error)
    # Who waited for a place among the connections knows nothing of the receiver.
    return Transient(problem, code=code, lane_fault=not dial.queued)


def _why_unconnected(error: Exception) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return "timeout", "no connection came about in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns_failed", "the host name can't be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls_failed", f"TLS failed: {_tls_reason(error)}"
    return "connect_failed", f"no connection: {_os_reason(error)}"


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return (
        cause.reason.replace("_", " ").lower()
        if isinstance(cause, ssl.SSLError)
        else "the handshake broke off"
    )


def _os_reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else "it broke off"
