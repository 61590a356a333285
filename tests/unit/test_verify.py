"""`notifier verify`: a receiver's developer is told what is wrong, and not just that something is."""

import json
from base64 import b64encode
from codecs import BOM_UTF8
from collections.abc import Callable
from hashlib import sha512
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support.builders import NOW
from support.deliveries import PRIVATE, SECRET, delivery, raw

from notifier.channels.signing import public_key, sign
from notifier.channels.signing.diagnosis import Diagnosis, diagnose
from notifier.channels.signing.keys import SymmetricKey
from notifier.channels.signing.received import Received
from notifier.channels.transport import PreparedRequest
from notifier.cli import main
from notifier.cli.verify import MAX_HEAD, MAX_INPUT
from notifier.model import rfc3339

PUBLIC = public_key(PRIVATE) or ""
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
Spoil = Callable[[bytes], bytes]


def changed(request: PreparedRequest, body: bytes | None = None, /, **headers: str | None) -> Received:
    """The request as it came in, with another body or other headers; None takes a header away."""
    told = request.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    fields = tuple((name, value) for name, value in told.items() if value is not None)
    return Received(fields, request.body if body is None else body)


def undigested(request: PreparedRequest, body: bytes) -> Received:
    """The request with another body, from a sender that writes no Content-Digest."""
    return changed(request, body, **{"Content-Digest": None})


def judged(received: Received, *secrets: str, now: float = NOW) -> Diagnosis:
    """What is found, with SECRET unless told otherwise."""
    return diagnose(received, secrets or (SECRET,), now)


def mark(found: Diagnosis, check: str) -> bool | None:
    """Whether one thing was in order."""
    (only,) = [each.ok for each in found.checks if each.check == check]
    return only


def run(*args: str, stdin: bytes | None = None, secret: str | None = SECRET) -> Result:
    """Run the command at the moment the request was signed."""
    runner = CliRunner(env={"NOTIFIER_VERIFY_SECRET": secret})
    return runner.invoke(main, ["verify", "--now", rfc3339(NOW), *args], input=stdin)


@pytest.mark.parametrize("secret", [SECRET, PRIVATE, PUBLIC])
def test_a_delivery_verifies(secret: str) -> None:
    """As it came, with the secret, the private or the public key: every check is in order."""
    found = judged(changed(delivery(SECRET, PRIVATE)), secret)
    assert found.verified
    assert found.verdict == "the signature is right"
    assert [each.check for each in found.checks if each.ok] == [
        *("webhook-id", "webhook-timestamp", "webhook-signature", "content-digest", "clock", "secret")
    ]


def test_one_of_several_secrets_is_enough() -> None:
    """During a rotation a receiver has two, and is told which one counts."""
    found = judged(changed(delivery(SECRET)), OTHER, SECRET, PUBLIC)
    assert found.verified
    assert [mark(found, f"secret {number}") for number in (1, 2, 3)] == [False, True, False]


@pytest.mark.parametrize(
    ("header", "value", "verdict"),
    [
        ("webhook-id", None, "the header webhook-id is missing"),
        ("webhook-timestamp", "", "the header webhook-timestamp is missing"),
        ("webhook-signature", None, "the header webhook-signature is missing"),
        ("webhook-timestamp", "soon", "webhook-timestamp is not a number of seconds"),
        ("webhook-timestamp", f"{NOW:.0f}000", "it is in milliseconds: expected whole seconds since 1970"),
        ("WEBHOOK-ID", "job_2", "the header webhook-id stands there 2 times"),
        ("webhook-signature", "v2,x " * 101, "webhook-signature holds more than 100 signatures"),
    ],
)
def test_a_header_that_is_not_in_order_is_the_verdict(header: str, value: str | None, verdict: str) -> None:
    """Missing, malformed, doubled: nothing else matters before that is mended."""
    found = judged(changed(delivery(), **{header: value}))
    assert not found.verified
    assert found.verdict == verdict
    assert mark(found, header.lower()) is False


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("AAAA", "expected version,base64"),
        ("v1,!!!!", "a v1 signature is not base64"),
        ("v1,AAAA", "a v1 signature has 3 bytes: expected 32"),
        ("v1a,AAAA", "a v1a signature has 3 bytes: expected 64"),
        ("v1," + "ab" * 32, "a v1 signature is in hex: expected base64"),
        ("{0},{0}", "a v1 signature is not base64 (several stand apart by one space)"),
    ],
)
def test_a_malformed_signature_is_described(value: str, problem: str) -> None:
    """What a sender may have written instead of `v1,<base64>` is told from a wrong one."""
    request = delivery()
    right = request.headers["webhook-signature"]
    found = judged(changed(request, webhook_signature=value.format(right)))
    assert not found.verified
    (told,) = [each.message for each in found.checks if each.check == "webhook-signature"]
    assert told.startswith(problem)


def test_an_unknown_version_is_named_and_skipped() -> None:
    """Versions to come do no harm."""
    request = delivery()
    right = request.headers["webhook-signature"]
    found = judged(changed(request, webhook_signature=f"v9,x {right}"))
    assert found.verified
    assert "v9 (unknown: skipped), v1" in [each.message for each in found.checks]


@pytest.mark.parametrize(
    ("off", "said"),
    [(301, "signed 301 s ago, more than 300 s"), (-7200, "120 min from now"), (30 * 86400, "30 d ago")],
)
def test_a_clock_that_is_off_is_told_apart_from_a_wrong_signature(off: float, said: str) -> None:
    """By how much, and that the signature itself is right, or that it is not either."""
    found = judged(changed(delivery()), now=NOW + off)
    assert not found.verified
    assert found.verdict.startswith("the signature is right, but the clock is off")
    assert said in found.verdict
    wrong = judged(changed(delivery()), OTHER, now=NOW + off)
    assert "another secret" in wrong.verdict
    assert any("the signature is not right either" in each.message for each in wrong.checks)
    assert diagnose(changed(delivery()), [SECRET], NOW + off, tolerance=abs(off)).verified


def test_with_a_digest_a_wrong_secret_is_told_from_a_changed_body() -> None:
    """A body that fits its digest was not changed; one that does not, was."""
    wrong_secret = judged(changed(delivery()), OTHER)
    assert wrong_secret.verdict.startswith("another secret signed it, or webhook-id or webhook-timestamp was")
    assert mark(wrong_secret, "content-digest") is True
    changed_body = judged(changed(delivery(), b'{"total": 0}'))
    assert changed_body.verdict.startswith("the body was changed on its way")
    assert mark(changed_body, "content-digest") is False


def test_without_a_digest_the_verdict_claims_no_more_than_is_known() -> None:
    """Any of the signed parts may be another; that nothing tells is said."""
    found = judged(undigested(delivery(), b"{}"))
    assert "another secret signed it, or the body, webhook-id or webhook-timestamp" in found.verdict
    assert mark(found, "content-digest") is None


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp"])
def test_a_changed_id_or_timestamp_is_no_changed_body(header: str) -> None:
    """The digest speaks for the body."""
    found = judged(changed(delivery(), **{header: f"{NOW - 1:.0f}"}))
    assert not found.verified
    assert "webhook-id or webhook-timestamp was changed: the body is as it was sent" in found.verdict


def test_other_digests_are_read_too() -> None:
    """sha-512, several at once, several headers; of unknown ones nothing is concluded (RFC 9530)."""
    request = delivery()
    strong = f"sha-512=:{b64encode(sha512(request.body).digest()).decode()}:"
    own = request.headers["Content-Digest"]
    for value, fits in (
        (strong, True),
        (f"md5=:AAAA:, {strong}", True),
        (f"{strong}, sha-256=:AAAA:", False),
        ("sha-256=:A:", False),
        ("md5=:AAAA:", None),
        ("nonsense", None),
    ):
        assert mark(judged(changed(request, **{"Content-Digest": value})), "content-digest") is fits
    twice = Received((*request.headers.items(), ("content-digest", own)), request.body)
    assert mark(judged(twice), "content-digest") is True


def test_a_body_of_another_length_is_told() -> None:
    """Content-Length says what was sent, where it is known."""
    request = delivery()
    right = changed(request, **{"Content-Length": str(len(request.body))})
    assert mark(judged(right), "content-length") is True
    grown = judged(changed(request, request.body + b"\n", **{"Content-Length": str(len(request.body))}))
    assert mark(grown, "content-length") is False


BODY_MISTAKES = [
    pytest.param(lambda body: body + b"\n", "a newline was added at the end", id="newline"),
    pytest.param(lambda body: body + b"\r\n", "a line end (CRLF) was added", id="crlf-at-the-end"),
    pytest.param(lambda body: b" " + body + b"\n\n", "white space was added", id="white-space"),
    pytest.param(lambda body: body.replace(b"\n", b"\r\n"), "from LF to CRLF", id="crlf"),
    pytest.param(lambda body: BOM_UTF8 + body, "a byte order mark was put before", id="bom"),
]


@pytest.mark.parametrize(("spoil", "said"), BODY_MISTAKES)
@pytest.mark.parametrize("signed", [SECRET, PRIVATE])
def test_a_body_that_tools_touched_is_recognised(spoil: Spoil, said: str, signed: str) -> None:
    """With a digest or without, for either kind of signature, what was done to the body is the verdict."""
    request = delivery(signed, payload='{\n  "a": 1\n}')
    body = spoil(request.body)
    key = public_key(signed) or signed
    for received in (changed(request, body), undigested(request, body)):
        found = judged(received, key)
        assert not found.verified
        assert said in found.verdict
        assert "over the bytes as they were sent the signature is right" in found.verdict
        assert mark(found, "cause") is False


@pytest.mark.parametrize(
    ("sent", "spoil", "said"),
    [
        ("{}\n", lambda body: body[:-1], "the newline at the end of the body was taken off"),
        ("{}\r\n", lambda body: body[:-2], "the line end (CRLF) at the end of the body was taken off"),
        ("{\r\n}", lambda body: body.replace(b"\r\n", b"\n"), "from CRLF to LF"),
        ("\ufeff{}", lambda body: body[3:], "the byte order mark before the body was taken off"),
    ],
)
def test_a_body_that_tools_stripped_is_recognised(sent: str, spoil: Spoil, said: str) -> None:
    """What was taken away is put back to be tried."""
    request = delivery(payload=sent)
    found = judged(changed(request, spoil(request.body)))
    assert said in found.verdict


WRITERS: dict[str, Callable[[Any], str]] = {
    "compact": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "spaced": lambda value: json.dumps(value, ensure_ascii=False),
    "escaped": json.dumps,
    "sorted": lambda value: json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
    "indented": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
}


@pytest.mark.parametrize("sent", ["compact", "spaced", "escaped", "indented"])
@pytest.mark.parametrize("written", WRITERS)
def test_json_that_was_written_anew_is_recognised(sent: str, written: str) -> None:
    """Parsed and serialised again, in any usual manner, it is no longer what was signed."""
    value = {"type": "a.b", "timestamp": "2027", "data": {"total": 1.5, "z": "Ada Löve"}}
    request = delivery(payload=WRITERS[sent](value))
    body = WRITERS[written](value).encode()
    found = judged(undigested(request, body))
    assert found.verified is (sent == written)
    assert ("parsed as JSON and written anew: it was sent" in found.verdict) is (sent != written)


def test_json_whose_sender_sorts_its_keys_is_recognised() -> None:
    """Whatever the order it was brought into."""
    request = delivery(payload='{"a":1,"b":{"c":2,"d":3}}')
    found = judged(undigested(request, b'{"b": {"d": 3, "c": 2}, "a": 1}'))
    assert "without spaces, its keys sorted" in found.verdict


@pytest.mark.parametrize("written", WRITERS)
@pytest.mark.parametrize(
    "data", ['{"name": "Ada L\\u00f6ve", "total": 120}', '{"name":"Ada Löve","total":120}']
)
def test_the_notifiers_own_body_is_recognised(data: str, written: str) -> None:
    """Its frame is compact, and the data in it are as the app posted them, in any layout."""
    request = delivery(data=data)
    body = WRITERS[written](json.loads(request.body)).encode()
    found = judged(changed(request, body))
    assert found.verified is (body == request.body)
    assert ("parsed as JSON and written anew" in found.verdict) is not found.verified


def test_a_digest_alone_tells_what_was_done_to_the_body() -> None:
    """Where the secret is wrong as well, both are said."""
    request = delivery()
    found = judged(changed(request, request.body + b"\n"), OTHER)
    assert "a newline was added at the end of the body (its Content-Digest says so)" in found.verdict
    assert "no key given here signed what was sent" in found.verdict


DEEP_TYPE = b'{"type":' + b"[" * 900 + b"]" * 900 + b',"timestamp":"","data":{}}'


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"\xff", b'{"a":"\\ud800"}', DEEP_TYPE, b"9" * 5000, b"null"]
)
def test_any_body_can_be_looked_at(body: bytes) -> None:
    """Too deep, not text, half a letter, a number beyond reason: no guess stops the rest."""
    assert "another secret" in judged(undigested(delivery(), body)).verdict


def test_a_body_that_was_read_before_is_told() -> None:
    """It is empty: surely so where length or digest say that something was sent, else perhaps."""
    request = delivery()
    length = {"Content-Length": str(len(request.body))}
    for received, said in (
        (changed(request, b""), "the body is empty: something read it before"),
        (changed(request, b"", **length, **{"Content-Digest": None}), "the body is empty: something read it"),
        (undigested(request, b""), "the body is empty: perhaps something read it before"),
    ):
        found = judged(received)
        assert found.verdict.startswith(said)
        assert mark(found, "cause") is False
    assert "another secret" in judged(changed(delivery(payload="")), OTHER).verdict


@pytest.mark.parametrize("kept", [1, 40, 80])
def test_a_body_that_was_cut_short_is_told(kept: int) -> None:
    """How much of it is there, by its Content-Length."""
    request = delivery()
    length = {"Content-Length": str(len(request.body))}
    found = judged(changed(request, request.body[:kept], **length))
    assert found.verdict == (
        f"the body was cut short: {kept} bytes of {len(request.body)} are there (its Content-Length)"
    )


def test_a_shorter_body_that_is_whole_was_not_cut() -> None:
    """Written anew it may be shorter; a large one is judged by its end."""
    request = delivery(data='{"total":   120}')
    length = {"Content-Length": str(len(request.body))}
    assert "cut short" not in judged(changed(request, b'{"total":120}', **length)).verdict
    large = b"[" + b"1," * 3_000_000 + b"1]"
    for body, cut in ((large, False), (large[:-1], True)):
        found = judged(changed(request, body, **{"Content-Length": "9000000"}))
        assert ("cut short" in found.verdict) is cut


@pytest.mark.parametrize("digest", [True, False])
def test_json_that_was_written_anew_beyond_recovery_is_told(digest: bool) -> None:
    """White space that no writer puts there is lost for good: that it looks so is all that can be said."""
    request = delivery(data='{ "total":120 , "id":  7 }')
    body = json.dumps(json.loads(request.body)).encode()
    found = judged(changed(request, body) if digest else undigested(request, body))
    assert "with a space after each comma and colon" in found.verdict
    assert "parsed and written anew, which loses the white space of what was sent" in found.verdict
    untouched = judged(changed(request), OTHER)
    assert "written anew" not in untouched.verdict


@pytest.mark.parametrize(
    "spoil",
    [
        lambda signatures: signatures.replace("v1,", "v1, "),
        lambda signatures: signatures.replace("v1,", "v1 ,"),
        lambda signatures: signatures.replace(" ", ", "),
        lambda signatures: f"{signatures[:20]} {signatures[20:]}",
        lambda signatures: f"{signatures[:20]}\t{signatures[20:]}",
    ],
)
def test_a_space_put_into_the_signatures_is_recognised(spoil: Callable[[str], str]) -> None:
    """Behind a comma, before it, amid the base64, or a comma between two: what was sent is right."""
    request = delivery(SECRET, PRIVATE)
    found = judged(changed(request, webhook_signature=spoil(request.headers["webhook-signature"])))
    assert not found.verified
    assert found.verdict.startswith("a space or a comma was put into webhook-signature")
    assert found.verdict.endswith("as it was sent the signature is right")


@pytest.mark.parametrize("secret", [SECRET[:20], SECRET[:-1], f"{SECRET[:-1]}…", PRIVATE[:-3], PUBLIC[:20]])
def test_a_secret_that_is_not_whole_is_told(secret: str) -> None:
    """Too short, or no base64 any more: it was copied badly."""
    found = judged(changed(delivery(SECRET, PRIVATE)), secret)
    assert found.verdict.startswith("secret: expected ")
    assert found.verdict.endswith(": it was copied badly, perhaps not whole")


def test_a_secret_whose_end_is_missing_is_told_by_its_last_letter() -> None:
    """Though what is left is still a secret, its base64 ends where no byte does."""
    secret = "whsec_" + "/" * 43 + "="
    assert "copied badly" not in judged(changed(delivery(secret)), OTHER).verdict
    found = judged(changed(delivery(secret)), secret[:-2])
    assert found.verdict.startswith("a secret was copied badly, it seems")


def test_white_space_within_a_secret_is_recognised() -> None:
    """A line that was broken, as terminals and mails do."""
    found = judged(changed(delivery()), f"{SECRET[:20]}\n  {SECRET[20:]}")
    assert found.verdict == "the signature is right without the white space within the secret"


def test_a_large_body_is_not_written_anew() -> None:
    """Reading JSON of any size a hundred ways would take its time: it stays with the cheap guesses."""
    value = {"a": ["x"] * 900_000}
    request = delivery(payload=json.dumps(value, separators=(",", ":")))
    assert not judged(undigested(request, json.dumps(value).encode())).verdict.startswith(
        "the body was parsed"
    )
    assert "a newline was added" in judged(changed(request, request.body + b"\n")).verdict


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f" {SECRET}\n", "without the white space or quotes around the secret"),
        (f"'{SECRET}'", "without the white space or quotes around the secret"),
        (SECRET.removeprefix("whsec_"), "with whsec_ before the secret: its prefix is missing"),
        (PRIVATE.removeprefix("whsk_"), "with whsk_ before the secret: its prefix is missing"),
        (PUBLIC.removeprefix("whpk_"), "with whpk_ before the secret: its prefix is missing"),
        (PUBLIC.replace("whpk_", "whsec_"), "with whpk_ before the secret: it has another's prefix"),
        (PRIVATE.replace("whsk_", "whpk_"), "with whsk_ before the secret: it has another's prefix"),
    ],
)
def test_a_secret_that_was_copied_badly_is_recognised(given: str, said: str) -> None:
    """The signature is right with the secret that was meant, and what to do to it is said."""
    found = judged(changed(delivery(SECRET, PRIVATE)), given)
    assert not found.verified
    assert found.verdict == f"the signature is right {said}"


def test_a_secret_in_the_other_alphabet_is_recognised() -> None:
    """base64url is no base64."""
    secret = "whsec_" + "+/" * 16
    found = judged(changed(delivery(secret)), secret.replace("+", "-").replace("/", "_"))
    assert "base64's usual alphabet" in found.verdict


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SECRET.removeprefix("whsec_"), "if the secret is used as text: whoever signed did not decode"),
        (SECRET, "if the secret is used as text, its prefix with it"),
    ],
)
def test_a_signature_made_with_the_secrets_text_is_recognised(text: str, said: str) -> None:
    """Whoever signed, a test of the receiver's perhaps, forgot to decode it."""
    request = delivery()
    wrong = sign(request.headers["webhook-id"], int(NOW), request.body, [SymmetricKey(text.encode())])
    found = judged(changed(request, webhook_signature=wrong))
    assert not found.verified
    assert said in found.verdict


@pytest.mark.parametrize(
    ("signed", "given", "said"),
    [
        (SECRET, PUBLIC, "a whpk_ key is for v1a signatures: this request has v1, for the whsec_ secret"),
        (SECRET, PRIVATE, "a whsk_ key is for v1a signatures: this request has v1, for the whsec_ secret"),
        (
            PRIVATE,
            SECRET,
            "a whsec_ key is for v1 signatures: this request has v1a, for the whpk_ public key",
        ),
    ],
)
def test_a_key_of_the_other_kind_is_told(signed: str, given: str, said: str) -> None:
    """A public key can't verify v1, nor a shared secret v1a: which one is needed is said."""
    assert judged(changed(delivery(signed)), given).verdict.startswith(f"secret: {said}")


def test_a_request_of_unknown_versions_alone_is_told() -> None:
    """Nothing here could verify it."""
    found = judged(changed(delivery(), webhook_signature="v9,x"))
    assert found.verdict == "secret: a whsec_ key is for v1 signatures: this request has none that is known"


@pytest.mark.parametrize("secret", ["hunter2hunter2", "whsec_hunter2", "whsk_hunter2!", "whpk_AAAA"])
def test_a_secret_that_is_none_is_told_and_not_shown(secret: str) -> None:
    """What was expected is said; what stood there is not."""
    request = delivery()
    found = judged(changed(request, request.body + b"\n"), secret)
    assert not found.verified
    assert found.verdict.startswith("secret: expected ")
    assert "hunter2" not in str(found)


@given(body=st.binary(max_size=300), place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_change_is_ever_taken_for_verified(body: bytes, place: int, flip: int) -> None:
    """Whatever is guessed and tried, only the bytes and the secret as they are count for the exit code."""
    request = delivery(payload=body.decode("latin-1"))
    spoiled = bytearray(request.body or b"x")
    spoiled[place % len(spoiled)] ^= flip
    assert not judged(changed(request, bytes(spoiled))).verified
    assert judged(changed(request)).verified


# The command


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_a_captured_request_is_read_from_a_file_or_stdin(tmp_path: Path, line_end: str) -> None:
    """Head, blank line, body, exactly as they came; exit 0 where it verifies."""
    request = raw(delivery(payload='{"a":\r\n\r\n1}\n'), line_end=line_end)
    file = tmp_path / "request"
    file.write_bytes(request)
    for result in (run(str(file)), run("-", stdin=request)):
        assert result.exit_code == 0
        assert result.output.endswith("\nVerified: the signature is right.\n")
        assert "✗" not in result.output
        assert "✓ content-digest: the body is as it was sent\n" in result.output


def test_a_request_without_its_first_line_is_read_too() -> None:
    """Many a log has headers and body alone."""
    assert run("-", stdin=raw(delivery()).partition(b"\r\n")[2]).exit_code == 0


def test_a_request_is_taken_in_parts(tmp_path: Path) -> None:
    """Each header by itself, names in any case, white space around values; the body from a file or stdin."""
    request = delivery()
    body = tmp_path / "body"
    body.write_bytes(request.body)
    headers = [f"--header={name.upper()}:  {value} " for name, value in request.headers.items()]
    assert run(*headers, "--body", str(body)).exit_code == 0
    assert run(*headers, "--body", "-", stdin=request.body).exit_code == 0
    assert run(*headers, "--body", "-", stdin=b"{}").exit_code == 1


def test_what_does_not_verify_is_exit_code_1_with_a_mark_a_line() -> None:
    """One line a check, the verdict last, nothing on stderr, and nowhere the secret."""
    result = run("-", stdin=raw(delivery()) + b"\n")
    assert result.exit_code == 1
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("Not verified: a newline was added at the end of the body")
    assert all(line[:2] in {"✓ ", "✗ ", "· "} for line in lines[:-2])
    assert SECRET not in result.output
    assert SECRET.removeprefix("whsec_") not in result.output


def test_several_secrets_come_from_the_environment_or_from_options() -> None:
    """In the variable white space stands between them, and may end it; options come before it."""
    request = raw(delivery())
    assert run("-", stdin=request, secret=f"{OTHER} {SECRET}\n").exit_code == 0
    assert run("-", "--secret", SECRET, "--secret", OTHER, stdin=request, secret=None).exit_code == 0
    assert run("-", "--secret", OTHER, stdin=request).exit_code == 1


def test_scripts_get_json() -> None:
    """Whether, why, and every check; no text in it that a terminal would obey."""
    request = raw(delivery()).replace(b"webhook-id: ", b"webhook-id: \x1b[31m\xff")
    result = run("-", "--json", stdin=request)
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert told["verified"] is False
    assert told["verdict"].startswith("another secret signed it, or webhook-id")
    assert told["checks"][0]["check"] == "webhook-id"
    assert told["checks"][0]["ok"] is True
    assert told["checks"][0]["message"].startswith(r"\x1b[31m\udcff")
    assert run("-", "--json", stdin=raw(delivery())).exit_code == 0


def test_nothing_in_a_request_reaches_the_terminal_as_it_is() -> None:
    """A captured request may come from anyone."""
    request = raw(delivery()).replace(b"webhook-signature: ", b"webhook-signature: v\x1b]0;x\x07,\xff ")
    assert run("-", stdin=request).exit_code == 0
    request = raw(delivery()).replace(b"webhook-id: ", b"webhook-id: \x1b[2J\xe2\x80\xae")
    for text in (run("-", stdin=request).output, run("-", stdin=b"a\x1b[31m\n\n").output):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_the_tolerance_can_be_set() -> None:
    """In seconds; 300 unless told otherwise."""
    request = raw(delivery(now=NOW - 400))
    assert run("-", stdin=request).exit_code == 1
    assert run("-", "--tolerance", "400", stdin=request).exit_code == 0


def test_without_a_moment_given_the_clock_is_this_machines() -> None:
    """A request of another time has a right signature, and a clock that is off."""
    result = CliRunner().invoke(main, ["verify", "-", "--secret", SECRET], input=raw(delivery(now=1e9)))
    assert result.exit_code == 1
    assert "Not verified: the signature is right, but the clock is off" in result.output


@pytest.mark.parametrize(
    ("args", "stdin", "said"),
    [
        ((), b"", "give either the request as a FILE, or its --body and each --header"),
        (("--header", "a: b"), b"", "give either the request as a FILE"),
        (("-", "--body", "-"), b"", "give either the request as a FILE"),
        (("-", "--header", "a: b"), b"", "give either the request as a FILE"),
        (("/nowhere",), b"", "/nowhere: No such file"),
        (("--body", "/nowhere"), b"", "/nowhere: No such file"),
        (("-",), b"POST / HTTP/1.1\r\na: b\r\n", "expected a request: its head, a blank line, its body"),
        (("-",), b"x" * (MAX_HEAD + 1) + b"\n\n", "expected a request"),
        (("-",), b"x" * (MAX_INPUT + 1), "larger than 32 MiB"),
        (("-",), b"not a header\n\n", "expected a header 'name: value'"),
        (("--header", "nothing", "--body", "-"), b"", "expected a header 'name: value', got 'nothing'"),
        (("-", "--now", "yesterday"), b"", "expected RFC 3339"),
        (("-", "--now", "2026-01-31T12:00:00"), b"", "expected a time with its zone"),
        (("-", "--tolerance", "-1"), b"", "'--tolerance'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_read_is_a_usage_error(args: tuple[str, ...], stdin: bytes, said: str) -> None:
    """Exit code 2, and one line that says what was expected."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1


def test_a_secret_is_asked_for() -> None:
    """Without one there is nothing to verify with, and both ways to give it are named."""
    result = run("-", stdin=raw(delivery()), secret=None)
    assert result.exit_code == 2
    assert "by --secret or NOTIFIER_VERIFY_SECRET" in result.stderr


def test_the_largest_request_is_looked_at_in_bounded_time() -> None:
    """Every guess is tried on 32 MiB, each with one pass over it."""
    body = b"x" * (MAX_INPUT - 2048)
    assert "another secret" in judged(undigested(delivery(), body)).verdict
