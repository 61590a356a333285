"""Signatures: what we sign verifies anywhere, and what was changed does not."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from notifier.channels.signing import SignatureError, new_secret, parse_secret, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = 1_700_000_000

bodies = st.binary(min_size=1, max_size=200)


def signed(body: bytes, *used: str, at: int = NOW, message_id: str = "job_1") -> dict[str, str]:
    """Make the three headers of a request that was signed with the given secrets."""
    signature = sign(message_id, at, body, [parse_secret(secret) for secret in used])
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


def key_of(size: int) -> str:
    """Make a secret of so many bytes."""
    return "whsec_" + base64.b64encode(bytes(size)).decode()


def test_published_vector() -> None:
    """The signature in the reference library's own tests comes out here too."""
    signature = sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [parse_secret(SECRET)]
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(body=st.text(min_size=1, max_size=200))
def test_the_reference_library_verifies_what_we_sign(body: str) -> None:
    """A receiver with the reference library accepts our headers, whatever the body."""
    headers = signed(body.encode(), SECRET, at=int(time.time()))
    Webhook(SECRET).verify(body.encode(), headers, json_parse=False)


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_the_reference_library_verifies_with_either_secret(secret: str) -> None:
    """With two secrets a receiver that knows only one of them verifies."""
    headers = signed(b"{}", SECRET, OTHER, at=int(time.time()))
    Webhook(secret).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(b"{}", headers)


@given(body=bodies)
def test_signed_verifies(body: bytes) -> None:
    """What was signed verifies, with header names in any case."""
    headers = {name.title(): value for name, value in signed(body, SECRET).items()}
    verify(headers, body, SECRET, NOW)


@given(body=bodies, data=st.data())
def test_any_changed_byte_does_not_verify(body: bytes, data: st.DataObject) -> None:
    """Changing any one byte of the body breaks the signature."""
    place = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.integers(1, 255))
    changed = body[:place] + bytes([body[place] ^ other]) + body[place + 1 :]
    with pytest.raises(SignatureError, match="no signature matches"):
        verify(signed(body, SECRET), changed, SECRET, NOW)


@given(body=bodies, cut=st.integers(0, 199))
def test_a_cut_or_grown_body_does_not_verify(body: bytes, cut: int) -> None:
    """Neither a shorter nor a longer body passes for the signed one."""
    for other in (body[: cut % len(body)], body + b" "):
        with pytest.raises(SignatureError):
            verify(signed(body, SECRET), other, SECRET, NOW)


@pytest.mark.parametrize(
    ("header", "value"),
    [("webhook-id", "job_2"), ("webhook-timestamp", str(NOW + 1)), ("webhook-signature", "v1,AAAA")],
)
def test_a_changed_header_does_not_verify(header: str, value: str) -> None:
    """Id and timestamp are signed like the body is."""
    with pytest.raises(SignatureError, match="no signature matches"):
        verify(signed(b"{}", SECRET) | {header: value}, b"{}", SECRET, NOW)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    """Of a request without one of the headers the reason names it."""
    headers = signed(b"{}", SECRET)
    del headers[missing]
    with pytest.raises(SignatureError, match=missing):
        verify(headers, b"{}", SECRET, NOW)


@pytest.mark.parametrize(
    ("now", "reason"), [(NOW + 301, "301 s old"), (NOW - 301, "301 s ahead")], ids=["old", "ahead"]
)
def test_a_clock_that_is_off_is_told(now: float, reason: str) -> None:
    """Past the tolerance either way the reason says by how much; within it all is well."""
    with pytest.raises(SignatureError, match=reason):
        verify(signed(b"{}", SECRET), b"{}", SECRET, now)
    verify(signed(b"{}", SECRET), b"{}", SECRET, now, tolerance=301)


@pytest.mark.parametrize("timestamp", ["soon", "-5", "1.5", "1" * 13, "１７", " 1"])
def test_a_timestamp_that_is_no_number_is_told(timestamp: str) -> None:
    """Only whole seconds in plain digits are a timestamp."""
    headers = signed(b"{}", SECRET) | {"webhook-timestamp": timestamp}
    with pytest.raises(SignatureError, match="not a number"):
        verify(headers, b"{}", SECRET, NOW)


@pytest.mark.parametrize("signature", ["v2,abc", "abc", "v1a,abc", "v1"])
def test_only_known_signatures_are_looked_at(signature: str) -> None:
    """A signature of another version is no v1 signature, and does no harm beside one."""
    headers = signed(b"{}", SECRET)
    with pytest.raises(SignatureError, match="no v1 signature"):
        verify(headers | {"webhook-signature": signature}, b"{}", SECRET, NOW)
    verify(headers | {"webhook-signature": f"{signature} {headers['webhook-signature']}"}, b"{}", SECRET, NOW)


def test_new_secrets_are_sound_and_differ() -> None:
    """A made secret has 32 bytes, parses, and is never made twice."""
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32
    parse_secret(first)


def test_missing_padding_is_allowed() -> None:
    """A secret without its `=` is the same secret."""
    padded = key_of(32)
    assert padded.endswith("=")
    assert sign("job_1", NOW, b"", [parse_secret(padded)]) == sign(
        "job_1", NOW, b"", [parse_secret(padded.rstrip("="))]
    )


@pytest.mark.parametrize("size", [24, 64])
def test_the_sizes_of_the_standard_are_allowed(size: int) -> None:
    """24 and 64 bytes are the least and the most that the standard has."""
    parse_secret(key_of(size))


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "starts with whsec_"),
        ("hunter2", "starts with whsec_"),
        ("whsk_" + "A" * 44, "starts with whsec_"),
        ("whsec_", "24 to 64 bytes, got 0"),
        (key_of(23), "24 to 64 bytes, got 23"),
        (key_of(65), "24 to 64 bytes, got 65"),
        ("whsec_" + "!" * 44, "base64"),
        ("whsec_" + "é" * 44, "base64"),
        ("whsec_" + "A" * 45, "base64"),
        ("whsec_" + "A" * 40 + "\n", "base64"),
        ("whsec_" + "-_" * 20, "base64"),
    ],
)
def test_a_bad_secret_is_refused_without_being_shown(secret: str, reason: str) -> None:
    """What is no secret is refused with what was expected, and is not repeated in the message."""
    with pytest.raises(ValueError, match=reason) as refused:
        parse_secret(secret)
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(refused.value)
