"""Mail addresses: read once from `Name <local@domain>`, with the domain as the DNS knows it.

Knows nothing of messages or of sessions.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from email_validator import EmailNotValidError, validate_email

from notifier.errors import Permanent

CACHED = 8192
"""How many addresses are remembered: reading one takes far longer than building the mail around it."""

_STAND_IN = ".example"
# email-validator refuses these and has no switch for it but a list shared by the whole process. A
# private relay may well serve them, so an address below one is judged with the stand-in at its end.
_SPECIAL_USE = frozenset({"arpa", "invalid", "local", "localhost", "onion", "test"})

_LONGEST = 1024
"""Characters of a name and an address together: far beyond what any mail carries."""
# Nothing here may be matched in more than one way: the text comes from anyone, and is read on the event loop.
_NAMED = re.compile(r"(?P<name>.*)<(?P<spec>[^<>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Address(NamedTuple):
    """One mailbox. `name` may be empty; `local` may need SMTPUTF8; `domain` is lower case, in A-labels."""

    name: str
    local: str
    domain: str

    @property
    def spec(self) -> str:
        """The address alone, as the envelope carries it: `local@domain`."""
        return f"{self.local}@{self.domain}"

    def __str__(self) -> str:
        return f"{self.name} <{self.spec}>" if self.name else self.spec


@lru_cache(CACHED)
def read_address(text: str) -> Address:
    """Read `local@domain` or `Name <local@domain>`, the name quoted or not.

    Local parts may be non-ASCII (RFC 6531), domains internationalised (IDNA 2008), special-use or without
    a dot: whether they exist is for the relay to say. Raises Permanent with code `invalid_destination`.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        raise _invalid(text, f"it is longer than {_LONGEST} characters")
    if _CONTROL.search(text):
        raise _invalid(text, "it holds control characters")
    named = _NAMED.fullmatch(text)
    name, spec = (_name(text, named["name"].strip()), named["spec"].strip()) if named else ("", text)
    return Address(name, *_checked(text, spec))


def _name(text: str, name: str) -> str:
    """Take a display name as people write it: a comma without quotes is theirs, a second address is not."""
    if quoted := _QUOTED.fullmatch(name):
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if "<" in name or ">" in name or ("@" in name and re.search("[,;]", name)):
        raise _invalid(text, "it is more than one; a delivery has one recipient")
    return name


def _checked(text: str, spec: str) -> tuple[str, str]:
    special = spec.rpartition("@")[2].rpartition(".")[2].lower() in _SPECIAL_USE
    try:
        valid = validate_email(
            spec + _STAND_IN if special else spec,
            allow_quoted_local=True,
            check_deliverability=False,
            globally_deliverable=False,
        )
    except EmailNotValidError as error:
        raise _invalid(text, str(error)) from error
    domain = valid.ascii_domain.lower()
    return valid.local_part, domain.removesuffix(_STAND_IN) if special else domain


def _invalid(text: str, problem: str) -> Permanent:
    return Permanent(f"{text[:320]!r} is no mail address: {problem}", code="invalid_destination")
