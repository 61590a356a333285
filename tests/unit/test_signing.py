"""Signatures: what we sign verifies anywhere, and what was changed does not."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from notifier.channels.signing import (
    MAX_SIGNATURES,
    SignatureError,
    Version,
    new_secret,
    parse_secret,
    parse_verifier,
    public_key,
    read_stamp,
    sign,
    verify,
)
from notifier.channels.signing.keys import SymmetricKey

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
PAIR = "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PRIVATE = f"whsk_{PAIR}"
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
SECOND_PRIVATE = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
NOW = 1_700_000_000

bodies = st.binary(min_size=1, max_size=200)
rotations = st.permutations([SECRET, OTHER, PRIVATE, SECOND_PRIVATE])


def signed(body: bytes, *used: str, at: int = NOW, message_id: str = "job_1") -> dict[str, str]:
    """Make the three headers of a request that was signed with the given secrets."""
    signature = sign(message_id, at, body, [parse_secret(secret) for secret in used])
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


def key_of(size: int, prefix: str = "whsec_") -> str:
    """Make a secret of so many bytes."""
    return prefix + base64.b64encode(bytes(size)).decode()


@given(st.binary(max_size=200), bodies)
def test_a_signature_is_the_hmac_of_what_is_signed(secret: bytes, body: bytes) -> None:
    """Whatever the key and its length: past a block it is hashed first (RFC 2104 §2)."""
    key = SymmetricKey(secret)
    made = base64.b64encode(hmac.digest(secret, b"job_1.17." + body, "sha256")).decode()
    assert [key.sign(b"job_1.17.", body) for _ in range(2)] == [f"v1,{made}"] * 2


VECTORS = [
    pytest.param(SECRET, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", id="reference-v1"),
    pytest.param(
        SECOND_PRIVATE,
        "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==",
        id="reference-v1a",
    ),
    pytest.param(
        PRIVATE,
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
        id="svix-v1a",
    ),
]


@pytest.mark.parametrize(("secret", "signature"), VECTORS)
def test_published_vectors(secret: str, signature: str) -> None:
    """The signatures in the tests of the reference libraries (Python, Go) and of Svix come out here too."""
    message_id, at, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    assert sign(message_id, at, body, [parse_secret(secret)]) == signature
    headers = {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}
    verify(headers, body, public_key(secret) or secret, at)


def test_the_published_public_key_belongs_to_its_private_one() -> None:
    """Svix's pair of keys: the second half of the private form is the public key, whichever form it has."""
    assert public_key(PRIVATE) == PUBLIC
    seed = "whsk_" + base64.b64encode(base64.b64decode(PAIR)[:32]).decode()
    assert public_key(seed) == PUBLIC
    assert sign("job_1", NOW, b"", [parse_secret(seed)]) == sign("job_1", NOW, b"", [parse_secret(PRIVATE)])


def test_a_shared_secret_has_no_public_key() -> None:
    """Nothing of a `whsec_` secret may be shown."""
    assert public_key(SECRET) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
writers: list[Callable[[Any], str]] = [
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode(),
    lambda value: json.dumps(value, indent=2),
]


@given(body=st.text(min_size=1, max_size=500), used=rotations)
def test_the_reference_library_verifies_what_we_sign(body: str, used: list[str]) -> None:
    """A receiver with the reference library accepts our headers, whatever the body and the other keys."""
    headers = signed(body.encode(), *used, at=int(time.time()))
    Webhook(SECRET).verify(body.encode(), headers, json_parse=False)


@given(value=json_values, write=st.sampled_from(writers))
def test_the_reference_library_reads_the_json_that_we_sign(value: Any, write: Callable[[Any], str]) -> None:
    """JSON in any spelling arrives as what it says."""
    text = write(value)
    read = Webhook(SECRET).verify(text, signed(text.encode(), SECRET, at=int(time.time())))
    assert read == json.loads(text)


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_the_reference_library_verifies_with_either_secret(secret: str) -> None:
    """With two secrets a receiver that knows only one of them verifies."""
    headers = signed(b"{}", SECRET, OTHER, at=int(time.time()))
    Webhook(secret).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(b"{}", headers)


@given(body=st.text(min_size=1, max_size=200))
def test_what_the_reference_library_signs_verifies(body: str) -> None:
    """The other way round as well."""
    signature = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    verify(headers, body.encode(), SECRET, NOW)


@given(body=bodies, used=rotations, count=st.integers(1, 4))
def test_signed_verifies(body: bytes, used: list[str], count: int) -> None:
    """What was signed verifies with each of its secrets and public keys, with header names in any case."""
    used = used[:count]
    headers = {name.title(): value for name, value in signed(body, *used).items()}
    for secret in used:
        verify(headers, body, secret, NOW)
        verify(headers, body, public_key(secret) or secret, NOW)


def test_the_newest_key_signs_first() -> None:
    """Signatures stand in the order of the keys, one space between them."""
    value = signed(b"{}", PRIVATE, SECRET)["webhook-signature"]
    alone = [signed(b"{}", secret)["webhook-signature"] for secret in (PRIVATE, SECRET)]
    assert value == " ".join(alone)
    assert [each.partition(",")[0] for each in value.split(" ")] == ["v1a", "v1"]


def changed(data: st.DataObject, text: bytes) -> bytes:
    """Change one byte of a text to any other, leave one out, or put one in."""
    place = data.draw(st.integers(0, len(text) - 1))
    before, after = text[:place], text[place + 1 :]
    how = data.draw(st.sampled_from(["change", "drop", "add"]))
    if how == "change":
        return before + bytes([text[place] ^ data.draw(st.integers(1, 255))]) + after
    if how == "drop":
        return before + after
    return before + data.draw(st.binary(min_size=1, max_size=1)) + text[place:]


@given(body=bodies, used=rotations, count=st.integers(1, 4), data=st.data())
def test_any_changed_byte_does_not_verify(
    body: bytes, used: list[str], count: int, data: st.DataObject
) -> None:
    """One byte changed, dropped or added in body, id, timestamp or signature, and no key verifies it."""
    used = used[:count]
    secret = data.draw(st.sampled_from(used))
    headers = signed(body, *used)
    part = data.draw(st.sampled_from(["body", "webhook-id", "webhook-timestamp", "webhook-signature"]))
    if part == "body":
        body = changed(data, body)
    elif part == "webhook-signature":  # this key's own: another's is none of its receiver's business
        own = signed(body, secret)[part]
        other = changed(data, own.encode()).decode("utf-8", "surrogateescape")
        assume(own not in other.split(" "))  # a space before or after it leaves it as it was
        headers[part] = headers[part].replace(own, other)
    else:
        headers[part] = changed(data, headers[part].encode()).decode("utf-8", "surrogateescape")
    with pytest.raises(SignatureError):
        verify(headers, body, public_key(secret) or secret, 0, tolerance=float("inf"))


@pytest.mark.parametrize("secret", [SECRET, PRIVATE])
@given(data=st.data())
def test_a_signature_has_one_spelling(secret: str, data: st.DataObject) -> None:
    """Other base64 of the same bytes (unused bits, padding, white space) is not what was sent."""
    headers = signed(b"{}", secret)
    own = headers["webhook-signature"]
    bare = own.rstrip("=")
    spellings = [
        bare,
        f"{own}=",
        f"{own}\n",
        *(bare[:-1] + last + own[len(bare) :] for last in "ABCDQgwZ048_-"),
    ]
    spelling = data.draw(st.sampled_from([each for each in spellings if each != own]))
    with pytest.raises(SignatureError, match="no signature matches"):
        verify(headers | {"webhook-signature": spelling}, b"{}", secret, NOW)


@given(data=st.data())
def test_no_other_key_verifies(data: st.DataObject) -> None:
    """A request is verified by the keys that signed it, and by none beside them."""
    everyone = data.draw(rotations)
    count = data.draw(st.integers(1, 3))
    headers = signed(b"{}", *everyone[:count])
    for secret in everyone[count:]:
        with pytest.raises(SignatureError):
            verify(headers, b"{}", secret, NOW)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    """Of a request without one of the headers, or with an empty one, the reason names it."""
    headers = signed(b"{}", SECRET)
    with pytest.raises(SignatureError, match=missing):
        verify(headers | {missing: ""}, b"{}", SECRET, NOW)
    del headers[missing]
    with pytest.raises(SignatureError, match=missing):
        verify(headers, b"{}", SECRET, NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_stands_there_twice_is_refused(name: str) -> None:
    """Whoever reads on might take the other one, even where both say the same."""
    headers = signed(b"{}", SECRET)
    with pytest.raises(SignatureError, match=f"{name} stands there 2 times"):
        verify(headers | {name.upper(): headers[name]}, b"{}", SECRET, NOW)


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


def test_a_timestamp_is_taken_as_it_is_written() -> None:
    """The same number in other digits is not what was signed."""
    headers = signed(b"{}", SECRET) | {"webhook-timestamp": f"0{NOW}"}
    with pytest.raises(SignatureError, match="no signature matches"):
        verify(headers, b"{}", SECRET, NOW)


@pytest.mark.parametrize("signature", ["v2,abc", "abc", "v1b,abc", "v1", "v", ",", ",abc", "é,abc"])
@pytest.mark.parametrize("secret", [SECRET, PRIVATE])
def test_only_known_signatures_are_looked_at(signature: str, secret: str) -> None:
    """A signature of another version, or of none, counts for nothing, and harms none beside it."""
    headers = signed(b"{}", secret)
    version = parse_secret(secret).version
    with pytest.raises(SignatureError, match=f"no {version} signature"):
        verify(headers | {"webhook-signature": signature}, b"{}", secret, NOW)
    verify(headers | {"webhook-signature": f"{signature} {headers['webhook-signature']}"}, b"{}", secret, NOW)


@pytest.mark.parametrize("value", ["v1,", "v1,é", "v1,\udcff", "v1,AAAA", "v1,!", "v1,AAAA,AAAA"])
@pytest.mark.parametrize("version", ["v1", "v1a"])
def test_a_malformed_signature_matches_nothing(value: str, version: Version) -> None:
    """Neither base64 that is none nor bytes that are no text make it fail other than by saying no."""
    secret = SECRET if version == "v1" else PUBLIC
    headers = signed(b"{}", SECRET) | {"webhook-signature": value.replace("v1", version)}
    with pytest.raises(SignatureError, match="no signature matches"):
        verify(headers, b"{}", secret, NOW)


def test_bytes_that_are_no_text_are_signed_as_they_came() -> None:
    """An id of any bytes, as servers hand it on (PEP 383), is compared byte by byte."""
    assert read_stamp([*(signed(b"", SECRET) | {"webhook-id": "\udcff"}).items()]).head.startswith(b"\xff.")


def test_no_request_is_worth_endless_looking() -> None:
    """What holds more signatures than any rotation is refused before any is looked at."""
    headers = signed(b"{}", PRIVATE)
    own = headers["webhook-signature"]
    verify(headers | {"webhook-signature": "v2,x " * (MAX_SIGNATURES - 1) + own}, b"{}", PRIVATE, NOW)
    with pytest.raises(SignatureError, match="more than 100 signatures"):
        verify(headers | {"webhook-signature": "v2,x " * MAX_SIGNATURES + own}, b"{}", PRIVATE, NOW)


@pytest.mark.parametrize(("version", "prefix"), [("v1", "whsec_"), ("v1a", "whsk_")])
def test_new_secrets_are_sound_and_differ(version: Version, prefix: str) -> None:
    """A made secret has 32 bytes, signs what its version says, and is never made twice."""
    first, second = new_secret(version), new_secret(version)
    assert first != second
    assert len(base64.b64decode(first.removeprefix(prefix), validate=True)) == 32
    assert parse_secret(first).version == version
    verify(signed(b"{}", first), b"{}", public_key(first) or first, NOW)


def test_v1_is_what_is_made_unless_asked_otherwise() -> None:
    """Every library knows it."""
    assert new_secret().startswith("whsec_")


@pytest.mark.parametrize("padded", [key_of(32), PRIVATE, SECOND_PRIVATE])
def test_missing_padding_is_allowed(padded: str) -> None:
    """A secret without its `=` is the same secret."""
    assert padded.endswith("=")
    assert sign("job_1", NOW, b"", [parse_secret(padded)]) == sign(
        "job_1", NOW, b"", [parse_secret(padded.rstrip("="))]
    )


@pytest.mark.parametrize("size", [24, 64])
def test_the_sizes_of_the_standard_are_allowed(size: int) -> None:
    """24 and 64 bytes are the least and the most that the standard has."""
    parse_secret(key_of(size))


BAD_SECRETS = [
    ("", "starts with whsec_ or whsk_"),
    ("hunter2", "starts with whsec_ or whsk_"),
    ("whsec_", "24 to 64 bytes, got 0"),
    (key_of(23), "24 to 64 bytes, got 23"),
    (key_of(65), "24 to 64 bytes, got 65"),
    ("whsec_" + "!" * 44, "base64 after whsec_"),
    ("whsec_" + "é" * 44, "base64"),
    ("whsec_" + "A" * 45, "base64"),
    ("whsec_" + "A" * 40 + "\n", "base64"),
    ("whsec_" + "-_" * 20, "base64"),
    ("whsk_", "32 bytes, or 64 .*, got 0"),
    (key_of(31, "whsk_"), "32 bytes, or 64 .*, got 31"),
    (key_of(33, "whsk_"), "32 bytes, or 64 .*, got 33"),
    (key_of(65, "whsk_"), "32 bytes, or 64 .*, got 65"),
    (key_of(64, "whsk_"), "second half is its public key"),
    ("whsk_" + "!" * 44, "base64 after whsk_"),
]


@pytest.mark.parametrize(("secret", "reason"), [*BAD_SECRETS, (PUBLIC, "starts with whsec_ or whsk_")])
def test_a_bad_secret_is_refused_without_being_shown(secret: str, reason: str) -> None:
    """What is no secret is refused with what was expected, and is not repeated in the message."""
    with pytest.raises(ValueError, match=reason) as refused:
        parse_secret(secret)
    hidden = secret.partition("_")[2] or secret
    assert not hidden or hidden not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        *BAD_SECRETS,
        (key_of(31, "whpk_"), "public key of 32 bytes, got 31"),
        (key_of(64, "whpk_"), "public key of 32 bytes, got 64"),
        ("whpk_" + "!" * 44, "base64 after whpk_"),
    ],
)
def test_what_can_not_verify_is_refused_too(secret: str, reason: str) -> None:
    """For verifying there are public keys beside the secrets, as strictly read."""
    with pytest.raises(ValueError, match=reason):
        parse_verifier(secret)
    with pytest.raises(ValueError, match=reason):
        verify(signed(b"{}", SECRET), b"{}", secret, NOW)


@pytest.mark.parametrize("secret", [SECRET, PRIVATE, SECOND_PRIVATE])
def test_a_key_shows_nothing_of_itself(secret: str) -> None:
    """What is printed ends in logs."""
    key = parse_secret(secret)
    shown, encoded = repr(key) + repr(vars(key)), secret.partition("_")[2]
    raw = base64.b64decode(encoded)
    assert not [form for form in (encoded, repr(raw), raw.hex()) if form in shown]
