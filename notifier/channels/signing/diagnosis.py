"""Why a received request does not verify, told to the one who has to mend the receiver.

Pure: a request, the secrets to try, a clock. No secret is ever part of what is told.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from notifier.channels.signing import (
    TOLERANCE,
    SignatureError,
    Stamp,
    check_time,
    mistakes,
    parse_verifier,
    read_stamp,
)
from notifier.channels.signing.keys import (
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    SECRET_PREFIX,
    Verifier,
    Version,
    is_whole,
)
from notifier.channels.signing.received import Check, Received, look

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
_FORMS: dict[Version, str] = {"v1": f"the {SECRET_PREFIX} secret", "v1a": f"the {PUBLIC_PREFIX} public key"}
_UNEXPLAINED = {
    True: "another secret signed it, or webhook-id or webhook-timestamp was changed:"
    " the body is as it was sent (its Content-Digest fits)",
    False: "the body was changed on its way: its Content-Digest does not fit",
    None: "another secret signed it, or the body, webhook-id or webhook-timestamp was changed"
    " (there is no Content-Digest to tell which)",
}


class Diagnosis(Struct, frozen=True):
    """Whether a request verifies, why in one sentence, and all that was looked at."""

    verified: bool
    verdict: str
    checks: tuple[Check, ...]


def diagnose(
    received: Received, secrets: Sequence[str], now: float, tolerance: float = TOLERANCE
) -> Diagnosis:
    """Look at everything that verifying depends on, and try what commonly goes wrong.

    `secrets` are `whsec_…`, `whpk_…` or `whsk_…`, well-formed or not: one that matches is enough. `now` and
    `tolerance` are in seconds.
    """
    checks = look(received)
    try:
        stamp = read_stamp(received.headers)
    except SignatureError as error:
        problem = next((each.message for each in checks if each.ok is False), str(error))
        return Diagnosis(False, problem, tuple(checks))
    trial = _Trial(received, stamp, secrets)
    clock = _clock(stamp, now, tolerance, right=trial.right)
    cause = None if trial.right else trial.cause()
    checks += [clock, *trial.checks] + ([Check("cause", False, cause)] if cause else [])
    verdict = trial.verdict(clock) if trial.right else cause or trial.unexplained()
    return Diagnosis(trial.right and clock.ok is True, verdict, tuple(checks))


class _Trial:
    """A request whose headers are in order, and every secret tried on it."""

    def __init__(self, received: Received, stamp: Stamp, secrets: Sequence[str]) -> None:
        self._received = received
        self._stamp = stamp
        self._secrets = secrets
        self._parsed: list[Verifier] = []
        self._keys: list[Verifier] = []
        """Those for which there is a signature to look at."""
        self.checks = [self._check(number, secret) for number, secret in enumerate(secrets, 1)]
        self.right = any(check.ok for check in self.checks)

    def _check(self, number: int, secret: str) -> Check:
        name = "secret" if len(self._secrets) == 1 else f"secret {number}"
        try:
            key = parse_verifier(secret)
        except ValueError as error:
            return Check(name, False, f"{error}{_badly_copied(secret)}")
        self._parsed.append(key)
        version = key.version
        if not self._stamp.of(version):
            return Check(name, False, f"a {_form(secret)} key is for {version} signatures: {self._instead()}")
        self._keys.append(key)
        if self._signed(key, self._received.body):
            return Check(name, True, f"made the {version} signature")
        return Check(name, False, f"made no {version} signature of this id, timestamp and body")

    def _instead(self) -> str:
        """Say which key the request asks for."""
        known = [f"{version}, for {form}" for version, form in _FORMS.items() if self._stamp.of(version)]
        return f"this request has {' and '.join(known) or 'none that is known'}"

    def _signed(self, key: Verifier, body: bytes) -> bool:
        return key.accepts(self._stamp.of(key.version), self._stamp.head, body)

    def cause(self) -> str | None:
        """Find what, undone, makes a signature right, or at least the digest fit."""
        found = self._changed_list() or next(self._mistaken_keys(), None)
        return found or (
            (self._changed_body() or self._lost_body() or self._cut_secret()) if self._keys else None
        )

    def _changed_list(self) -> str | None:
        """Undo what was put into the list of signatures."""
        sent = mistakes.signatures(self._received.values("webhook-signature"))
        head, body = self._stamp.head, self._received.body
        if set(sent) == set(self._stamp.signatures) or not any(
            key.accepts([each for each in sent if each.startswith(f"{key.version},")], head, body)
            for key in self._parsed
        ):
            return None
        return (
            "a space or a comma was put into webhook-signature (one space stands between signatures, none in"
            " them); as it was sent the signature is right"
        )

    def _lost_body(self) -> str | None:
        """Tell of a body that is not there any more, or not whole."""
        body, told = self._received.body, self._received.told_length
        changed = self._received.fits_digest(body) is False
        if not body and self._received.fits_digest(body) is not True:
            likely = "" if changed or told else "perhaps "
            return (
                f"the body is empty: {likely}something read it before, such as a parser or a middleware;"
                " keep the bytes that it read, and verify those"
            )
        if told is not None and len(body) < told and not mistakes.seems_whole(body):
            return f"the body was cut short: {len(body):,} bytes of {told:,} are there (its Content-Length)"
        return None

    def _cut_secret(self) -> str | None:
        if all(map(is_whole, self._secrets)):
            return None
        return (
            "a secret was copied badly, it seems: its base64 ends within a byte, as if its end were missing"
        )

    def _mistaken_keys(self) -> Iterator[str]:
        for secret in self._secrets:
            for how, key in mistakes.keys(secret):
                if self._signed(key, self._received.body):
                    yield f"the signature is right {how}"

    def _changed_body(self) -> str | None:
        received, digested = self._received, None
        changed = received.fits_digest(received.body) is False
        for what, sent in mistakes.bodies(received.body):
            if any(self._signed(key, sent) for key in self._keys):
                return f"{what}; over the bytes as they were sent the signature is right"
            if changed and digested is None and received.fits_digest(sent):
                digested = f"{what} (its Content-Digest says so), and no key given here signed what was sent"
        return digested

    def verdict(self, clock: Check) -> str:
        """Sum up a request with a right signature."""
        return "the signature is right" + ("" if clock.ok else f", but the clock is off: {clock.message}")

    def unexplained(self) -> str:
        """Sum up a request that no key signed, as narrowly as can be known."""
        if not self._keys:
            return f"{self.checks[0].check}: {self.checks[0].message}"
        fits = self._received.fits_digest(self._received.body)
        how = None if fits else mistakes.writer(self._received.body)
        if how is None:
            return _UNEXPLAINED[fits]
        return (
            f"{_UNEXPLAINED[fits]}; it stands as a JSON writer writes ({how}), so perhaps it was parsed and"
            " written anew, which loses the white space of what was sent: verify the bytes as they came"
        )


def _badly_copied(secret: str) -> str:
    """Say what becomes of what begins as a secret does and is none, where that is likely."""
    known = secret.startswith((SECRET_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX))
    return ": it was copied badly, perhaps not whole" if known else ""


def _form(secret: str) -> str:
    return next(each for each in (SECRET_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX) if secret.startswith(each))


def _clock(stamp: Stamp, now: float, tolerance: float, *, right: bool) -> Check:
    off = int(stamp.timestamp) - now
    told = f"signed {_span(abs(off))} {'ago' if off <= 0 else 'from now'}"
    try:
        check_time(stamp.timestamp, now, tolerance)
    except SignatureError:
        known = "the signature itself is right" if right else "and the signature is not right either"
        return Check("clock", False, f"{told}, more than {_span(tolerance)} ({known})")
    return Check("clock", True, f"{told}, within {_span(tolerance)}")


def _span(seconds: float) -> str:
    """Write a time short, but never so coarsely that what is just past the tolerance looks as long."""
    for size, unit in _UNITS:
        if seconds >= 10 * size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.0f} s"
