"""Logins at a relay: by which mechanism, with what, and that nothing of it is told."""

import base64
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.relays import ENVELOPE, OTHER, fault_of, relay_to, relays_to
from support.smtp_server import SmtpServer, client_tls, say

from notifier.errors import Unavailable

LOGIN = {"username": "ada", "password": "sécret-one"}
USERS = {"ada": "sécret-one"}
TOKEN = "ya29.a0ARrdaM-token"


@pytest.mark.parametrize(
    "mechanisms", [("PLAIN", "LOGIN"), ("LOGIN",), ("CRAM-MD5",), ("X-UNKNOWN", "PLAIN")]
)
async def test_logs_in_once_a_connection(mechanisms: tuple[str, ...]) -> None:
    """Name and password are presented by whichever mechanism is offered, once for many mails."""
    async with (
        SmtpServer(users=USERS, mechanisms=mechanisms) as server,
        relays_to(relay_to(server, **LOGIN)) as relays,
    ):
        await relays.send(ENVELOPE)
        await relays.send(ENVELOPE)
    assert len(server.mails) == 2
    assert server.said("AUTH") == 1


@pytest.mark.parametrize("auth", ["plain", "login", "cram-md5"])
async def test_a_configured_mechanism_is_the_one(auth: str) -> None:
    """Where the configuration names one, no other is used, whatever is offered."""
    async with (
        SmtpServer(users=USERS, mechanisms=("PLAIN", "CRAM-MD5", "LOGIN")) as server,
        relays_to(relay_to(server, auth=auth, **LOGIN)) as relays,
    ):
        await relays.send(ENVELOPE)
    assert server.said(f"AUTH {auth.upper()}") == server.said("AUTH") == 1


async def test_a_configured_mechanism_that_is_not_offered_is_a_fault() -> None:
    """It is said which one is missing, and nothing weaker is tried."""
    async with (
        SmtpServer(users=USERS) as server,
        relays_to(relay_to(server, auth="cram-md5", **LOGIN)) as relays,
    ):
        fault = await fault_of(relays)
    assert (type(fault), fault.code) == (Unavailable, "relay_auth")
    assert "does not offer the login CRAM-MD5" in fault.message
    assert server.said("AUTH") == 0


async def test_in_the_clear_the_password_is_not_shown_where_it_need_not_be() -> None:
    """Without TLS the mechanism goes first that doesn't send the password; with it the plain one does."""
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5")
    async with (
        SmtpServer(users=USERS, mechanisms=mechanisms) as clear,
        SmtpServer(users=USERS, mechanisms=mechanisms, tls="implicit") as secure,
    ):
        async with relays_to(relay_to(clear, **LOGIN)) as relays:
            await relays.send(ENVELOPE)
        to_secure = relay_to(secure, tls="implicit", host="localhost", **LOGIN)
        async with relays_to(to_secure, tls=client_tls()) as relays:
            await relays.send(ENVELOPE)
    assert clear.said("AUTH CRAM-MD5") == clear.said("AUTH") == 1
    assert secure.said("AUTH PLAIN") == secure.said("AUTH") == 1


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_wrong_password_is_tried_once(mechanism: str) -> None:
    """A refused login is the relay's fault, not repeated by other mechanisms, and reveals no password."""
    async with (
        SmtpServer(users=USERS, mechanisms=(mechanism, "PLAIN", "LOGIN")) as server,
        relays_to(relay_to(server, username="ada", password="wrong-one", auth=mechanism.lower())) as relays,
    ):
        with capture_logs() as logs:
            fault = await fault_of(relays)
    assert (type(fault), fault.code, fault.status_code) == (Unavailable, "relay_auth", 535)
    assert fault.response == "5.7.8 bad credentials"
    assert "'ada'" in fault.message
    assert "wrong-one" not in fault.message + str(logs)
    assert server.said("AUTH") == 1


async def test_a_mechanism_that_is_only_advertised_is_passed_over() -> None:
    """Where the server doesn't know what it offered, the next mechanism is tried."""
    async with SmtpServer(users=USERS) as server, relays_to(relay_to(server, **LOGIN)) as relays:
        server.script("auth", say(504, "5.5.4 unknown mechanism"))
        await relays.send(ENVELOPE)
    assert server.said("AUTH") == 2


async def test_a_relay_without_logins_is_at_fault() -> None:
    """A login that is configured and can't be presented is an error, not left out."""
    async with SmtpServer() as server, relays_to(relay_to(server, **LOGIN)) as relays:
        fault = await fault_of(relays)
    assert (type(fault), fault.code) == (Unavailable, "relay_auth")
    assert server.said("MAIL") == 0


async def test_what_a_relay_repeats_of_a_login_is_blanked_out() -> None:
    """A server that quotes what it was sent, in any form, gets no secret into errors, answers or logs."""
    plain = base64.b64encode(b"\0ada\0s3cret!x").decode()
    word = base64.b64encode(b"s3cret!x").decode()
    async with SmtpServer(users=USERS) as server:
        server.always("auth", say(535, f"5.7.8 not {plain}\nnor {word} nor s3cret!x"))
        async with relays_to(relay_to(server, username="ada", password="s3cret!x")) as relays:
            with capture_logs() as logs:
                fault = await fault_of(relays)
    told = f"{fault.message} {fault.response} {logs}"
    assert not [secret for secret in (plain, word, "s3cret!x") if secret in told]
    assert fault.response == "5.7.8 not …\nnor … nor …"


async def test_a_refused_login_is_not_tried_again_soon() -> None:
    """A relay that refused a login rests for a minute: too many of those lock the account."""
    now = [0.0]
    async with (
        SmtpServer(users=USERS) as server,
        relays_to(relay_to(server, username="ada", password="wrong"), clock=lambda: now[0]) as relays,
    ):
        await fault_of(relays)
        now[0] = 59
        fault = await fault_of(relays)
        assert (server.said("AUTH"), fault.retry_after) == (1, 1)
        now[0] = 60
        await fault_of(relays)
        assert server.said("AUTH") == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("454 4.7.0 Too many login attempts, please try again later", "relay_throttled"),
        ("451 Authentication failed: Maximum credits exceeded", "relay_quota"),
        ("454 4.7.0 Temporary authentication failure", "relay_auth"),
    ],
)
async def test_refused_logins_are_told_apart(answer: str, code: str) -> None:
    """A throttle or a used-up quota at the login is none of the password's doing."""
    async with SmtpServer(users=USERS) as server, relays_to(relay_to(server, **LOGIN)) as relays:
        server.always("auth", say(int(answer[:3]), answer[4:]))
        fault = await fault_of(relays)
    assert (type(fault), fault.code) == (Unavailable, code)


# Access tokens -----------------------------------------------------------------------------------


async def test_the_token_is_read_anew_for_every_login(tmp_path: Path) -> None:
    """Whoever renews the token writes it to the file; the next connection logs in with it."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    users = {"ada": TOKEN}
    async with SmtpServer(users=users, mechanisms=("PLAIN", "XOAUTH2")) as server:
        relay = relay_to(server, username="ada", auth="xoauth2", token_file="token", messages=1)
        async with relays_to(relay, directory=tmp_path) as relays:
            await relays.send(ENVELOPE)
            users["ada"] = "another"
            file.write_text("another")
            await relays.send(ENVELOPE)
    assert len(server.mails) == server.said("AUTH XOAUTH2") == 2


async def test_a_refused_token_is_told_without_it(tmp_path: Path) -> None:
    """The refusal comes after the server's challenge is answered; the token is in no error and no log."""
    (tmp_path / "token").write_text(TOKEN)
    async with SmtpServer(users={"ada": "another"}, mechanisms=("XOAUTH2",)) as server:
        relay = relay_to(server, username="ada", auth="xoauth2", token_file=str(tmp_path / "token"))
        async with relays_to(relay) as relays:
            with capture_logs() as logs:
                fault = await fault_of(relays)
    assert (type(fault), fault.code, fault.status_code) == (Unavailable, "relay_auth", 535)
    assert "XOAUTH2" in fault.message
    assert TOKEN not in f"{fault.message} {fault.response} {logs}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "can't be read: No such file"),
        (b"", "holds no access token"),
        (b"two words", "holds no access token"),
        (b"\xff\xfe", "holds no text"),
    ],
)
async def test_a_token_file_that_is_no_use_is_named(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    """The file and what is wrong with it are told, not what it holds; nothing is sent."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    async with SmtpServer(users={"ada": "x"}, mechanisms=("XOAUTH2",)) as server:
        relay = relay_to(server, username="ada", auth="xoauth2", token_file="token")
        async with relays_to(relay, directory=tmp_path) as relays:
            fault = await fault_of(relays, OTHER)
    assert (type(fault), fault.code) == (Unavailable, "relay_auth")
    assert str(file) in fault.message
    assert problem in fault.message
    assert server.said("AUTH") == 0
