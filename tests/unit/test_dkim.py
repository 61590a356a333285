"""DKIM signatures, as two other implementations see them, and the keys that make them."""

import base64
import re
import subprocess
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from notifier.channels import Attachment
from notifier.channels.address import Address
from notifier.channels.dkim import SIGNED, Signer
from notifier.channels.mime import Letter, compose
from notifier.config import DkimSection
from notifier.errors import ConfigError

PEER = Path(__file__).parents[1] / "support" / "verify_dkim.pl"
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = Ed25519PrivateKey.generate()

PrivateKey = rsa.RSAPrivateKey | Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def pem(
    key: PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption = NoEncryption(),  # noqa: B008 - holds nothing
) -> bytes:
    """A key as its file holds it."""
    return key.private_bytes(Encoding.PEM, form, encryption)


def signer(folder: Path, content: bytes, *, selector: str = "s1", domain: str | None = None) -> Signer:
    """What signs with the key in a file of this content."""
    (folder / "dkim.key").write_bytes(content)
    section = DkimSection(selector=selector, key_file="dkim.key", domain=domain)
    return Signer(section, folder, "example.com")


@pytest.fixture(scope="module", params=["rsa", "ed25519"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """One signer of each kind."""
    key = RSA if request.param == "rsa" else ED25519
    return signer(tmp_path_factory.mktemp(request.param), pem(key))


def mail(subject: str = "Grüße", html: str = "<p>x</p>", text: str = "x", name: str = "Ada") -> bytes:
    """A mail with everything that is signed."""
    return compose(
        Letter(
            sender=Address("Notifier", "no-reply", "example.com"),
            to=(Address(name, "ada", "example.org"), Address("", "zoë", "xn--mller-kva.de")),
            cc=(Address("", "bob", "example.org"),),
            subject=subject,
            html=html,
            text=text,
            attachments=[Attachment(filename="a.bin", media_type="a/b", content=bytes(200))],
            message_id="<job_1@example.com>",
            date=1_700_000_000.0,
            headers=[
                ("List-ID", "<news.example.com>"),
                ("List-Unsubscribe", f"<https://example.com/unsubscribe/{'x' * 300}>"),
                ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
            ],
        )
    )


def accepted(signed: bytes, by: Signer) -> bool:
    """Whether dkimpy takes the signature, having asked for the key at the one name that there is."""
    name, text = by.record
    records = {f"{name}.".encode(): text.encode()}
    try:
        return bool(dkim.DKIM(signed).verify(dnsfunc=lambda wanted, **_: records.get(wanted)))
    except dkim.ValidationError:
        return False


def verdict(signed: bytes, by: Signer, folder: Path) -> str:
    """What Mail::DKIM has to say."""
    (folder / "records").write_text(" ".join(by.record) + "\n")
    done = subprocess.run(  # noqa: S603 - our own script
        ["perl", str(PEER), str(folder / "records")],  # noqa: S607 - the system's
        input=signed,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def header(signed: bytes) -> str:
    """The signature's header, unfolded."""
    return re.sub(r"\r\n[ \t]+", "", signed.decode().partition("\r\nFrom:")[0])


# Signatures --------------------------------------------------------------------------------------


def test_an_independent_implementation_verifies_it(either: Signer) -> None:
    """Dkimpy, in pure Python, takes the signature of either kind of key, with the record that is told."""
    assert accepted(either.signed(mail()), either)


@pytest.mark.parametrize(
    "letter", [mail(), mail(text="a \t b  \r\n\r\n \r\n"), mail(subject="word " * 60 + "end")]
)
def test_another_one_verifies_it(tmp_path: Path, letter: bytes) -> None:
    """Perl's Mail::DKIM, which SpamAssassin uses, takes it too, and refuses what was changed."""
    by = signer(tmp_path, pem(RSA))
    signed = by.signed(letter)
    assert verdict(signed, by, tmp_path) == "pass"
    assert verdict(signed.replace(b"bob@", b"eve@"), by, tmp_path).startswith("fail")


@given(
    subject=st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0")),
    text=st.text(st.characters(codec="utf-8"), max_size=200),
)
def test_any_mail_verifies(either: Signer, subject: str, text: str) -> None:
    """Whatever it says, and however its spaces and empty lines lie."""
    assert accepted(either.signed(mail(subject=subject, text=text)), either)


@pytest.mark.parametrize("name", [name for name in SIGNED if name != "From"])
def test_nothing_that_is_signed_can_be_changed(either: Signer, name: str) -> None:
    """A word more in any of the signed headers and the signature is none; unsubscribing is among them."""
    signed = either.signed(mail())
    changed = re.sub(rb"(?m)^(%s: .)" % name.encode(), rb"\1x", signed, count=1)
    assert changed != signed
    assert not accepted(changed, either)


def test_no_second_sender_can_be_added(either: Signer) -> None:
    """From is signed once more than it is there: another one, before or after, breaks the signature."""
    signed = either.signed(mail())
    for place in (b"From: ", b"To: "):
        changed = signed.replace(b"\r\n" + place, b"\r\nFrom: eve@example.net\r\n" + place, 1)
        assert not accepted(changed, either)
    assert re.search(r"h=From:From:", header(signed))


def test_the_body_is_signed_whole(either: Signer) -> None:
    """Nothing can be appended to it, but spaces and empty lines do not matter: relays touch those."""
    signed = either.signed(mail())
    assert not accepted(signed + b"more\r\n", either)
    assert accepted(signed.replace(b"MIME-Version: 1.0", b"MIME-version:   1.0 ") + b"\r\n\r\n", either)
    assert "c=relaxed/relaxed" in header(signed)
    assert "l=" not in header(signed)


def test_only_headers_that_are_there_are_named(either: Signer) -> None:
    """A mail without Cc and without a way to unsubscribe names neither."""
    bare = b"From: a@example.com\r\nTo: b@example.org\r\nSubject: x\r\n\r\n"
    signed = either.signed(bare)
    assert "h=From:From:To:Subject;" in header(signed)
    assert accepted(signed, either)


def test_the_same_mail_gets_the_same_signature(either: Signer) -> None:
    """A retry is equal to the byte, and every line is short."""
    signed = either.signed(mail())
    assert signed == either.signed(mail())
    assert signed.endswith(mail())
    assert max(map(len, signed.partition(b"\r\nFrom:")[0].split(b"\r\n"))) <= 78


# Keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pem(RSA),
        pem(RSA, PrivateFormat.TraditionalOpenSSL),
        pem(ED25519),
        base64.b64encode(ED25519.private_bytes_raw()) + b"\n",
    ],
)
def test_keys_are_read_as_programs_write_them(tmp_path: Path, content: bytes) -> None:
    """PEM of both forms, and the bare base64 that DKIM programs use for ed25519."""
    by = signer(tmp_path, content)
    assert accepted(by.signed(mail()), by)


def test_the_domain_is_the_senders_unless_one_is_given(tmp_path: Path) -> None:
    """It and the selector say where the key is looked up, as the DNS spells it."""
    assert signer(tmp_path, pem(ED25519)).record[0] == "s1._domainkey.example.com"
    by = signer(tmp_path, pem(ED25519), selector="mail.2026", domain="Müller.de")
    assert by.record[0] == "mail.2026._domainkey.xn--mller-kva.de"
    assert re.fullmatch(r"v=DKIM1; k=ed25519; p=[A-Za-z0-9+/]{43}=", by.record[1])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no private key"),
        (b"not base64!", "no private key"),
        (base64.b64encode(bytes(31)), "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (pem(RSA, encryption=BestAvailableEncryption(b"secret")), "encrypted"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "no use for"),
    ],
)
def test_a_key_that_can_not_sign_is_a_configuration_error(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    """It is found at start, and the error names the key and never what the file holds."""
    with pytest.raises(ConfigError, match=problem) as caught:
        signer(tmp_path, content)
    assert caught.value.key == "channels.email.dkim.key_file"


def test_a_key_that_anyone_can_break_is_a_configuration_error(tmp_path: Path) -> None:
    """Receivers take no signature by an RSA key below 1024 bits (RFC 8301)."""
    short = subprocess.run(["openssl", "genrsa", "768"], capture_output=True, check=True)  # noqa: S607
    with pytest.raises(ConfigError, match="768 bits") as caught:
        signer(tmp_path, short.stdout)
    assert caught.value.key == "channels.email.dkim.key_file"


def test_a_key_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    """The error names the file that was looked for."""
    with pytest.raises(ConfigError, match=r"none\.key") as caught:
        Signer(DkimSection(selector="s1", key_file="none.key"), tmp_path, "example.com")
    assert caught.value.key == "channels.email.dkim.key_file"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"selector": "s_1"}, "selector"),
        ({"selector": "-a"}, "selector"),
        ({"selector": "a..b"}, "selector"),
        ({"selector": "s1; d=evil"}, "selector"),
        ({"domain": "no domain"}, "domain"),
        ({"domain": "a@b"}, "domain"),
    ],
)
def test_names_that_the_dns_can_not_have_are_configuration_errors(
    tmp_path: Path, changes: dict[str, str], key: str
) -> None:
    """A selector or domain that no receiver could look up is found at start."""
    with pytest.raises(ConfigError) as caught:
        signer(tmp_path, pem(ED25519), **changes)
    assert caught.value.key == f"channels.email.dkim.{key}"
