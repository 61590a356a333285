"""How to prove to a relay who we are, and to tell of it without telling the secret."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from aiosmtplib import SMTP, SMTPAuthenticationError

from notifier.config import Relay

# RFC 4954 §4: the server doesn't know the mechanism, or finds it too weak; another may do.
_OTHER_MECHANISM = frozenset({504, 534})

_MECHANISMS: Mapping[str, Callable[[SMTP, str, str], Awaitable[object]]] = {
    "plain": lambda client, username, secret: client.auth_plain(username, secret),
    "login": lambda client, username, secret: client.auth_login(username, secret),
    "cram-md5": lambda client, username, secret: client.auth_crammd5(username, secret),
    "xoauth2": lambda client, username, secret: client.auth_xoauth2(username, secret),
}


class LoginRefused(Exception):  # noqa: N818 - it is the relay's word
    """The relay didn't let us in, or there is nothing to show it. `code` is its reply's, 0 without one."""

    def __init__(self, problem: str, code: int = 0, text: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.code = code
        self.text = text


async def log_in(relay: Relay, client: SMTP, username: str) -> None:
    """Log in by the configured mechanism, or by the best that is offered. Raises LoginRefused.

    One that is answered for good is the last: a wrong password tried twice locks accounts.
    """
    wanted = _wanted(relay)
    offered = [name for name in wanted if name in client.server_auth_methods]
    if not offered:
        raise LoginRefused(f"does not offer the login {' or '.join(wanted).upper()}")
    secret = await _secret(relay)
    for name in offered:
        try:
            await _MECHANISMS[name](client, username, secret)
        except SMTPAuthenticationError as error:
            if error.code in _OTHER_MECHANISM and name != offered[-1]:
                continue
            text = without_secret(error.message, username, secret)
            first = text.partition("\n")[0]
            problem = f"refused the login of {username!r} by {name.upper()}: {error.code} {first}"
            raise LoginRefused(problem, error.code, text) from None
        else:
            return


def _wanted(relay: Relay) -> Sequence[str]:
    """The mechanisms to try; in the clear, first the one that doesn't show the password."""
    if relay.auth != "auto":
        return (relay.auth,)
    return ("cram-md5", "plain", "login") if relay.tls == "none" else ("plain", "login", "cram-md5")


async def _secret(relay: Relay) -> str:
    """The password, or the access token as the file holds it now: whoever renews it writes it there."""
    if relay.auth != "xoauth2" or relay.token_file is None:
        return relay.password or ""
    try:
        token = (await asyncio.to_thread(Path(relay.token_file).read_text, "utf-8")).strip()
    except OSError as error:
        raise LoginRefused(f"token_file {relay.token_file!r} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LoginRefused(f"token_file {relay.token_file!r} holds no text") from None
    if not token or any(each.isspace() for each in token):
        raise LoginRefused(f"token_file {relay.token_file!r} holds no access token")
    return token


def without_secret(text: str, username: str, secret: str) -> str:
    """Blank out what a relay may repeat of a login, in each form that it was sent in."""
    if not secret:
        return text
    for sent in (f"\0{username}\0{secret}", f"user={username}\x01auth=Bearer {secret}\x01\x01", secret):
        for form in (b64encode(sent.encode()).decode(), sent):
            text = text.replace(form, "…")
    return text
