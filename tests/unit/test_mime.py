"""Mail as bytes: what is built parses back, with the standard library's parser, to what went in."""

import re
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.channels.address import Address, read_address
from notifier.channels.mime import compose
from notifier.errors import Permanent

SENDER = Address("Notifier", "no-reply", "example.com")
ADA = Address("", "ada", "example.org")
NAMED = Address("Ada Lovelace", "ada", "example.org")
MESSAGE_ID = "<job_018f@example.com>"
DATE = 1_700_000_000.0

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
header_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))
# As texts of one kind of character are what encodings are chosen for.
bodies = st.one_of(
    unicode_text,
    st.text(st.sampled_from("ab =.\t\n"), max_size=400),
    st.text(st.sampled_from("aé \n"), max_size=400),
    st.text(st.sampled_from("日本 \n😀"), max_size=400),
)


def built(sender: Address = SENDER, recipient: Address = ADA, **changes: Any) -> bytes:
    """A mail of which a test names only what it is about."""
    arguments: dict[str, Any] = {
        "subject": "Hello",
        "html": "<p>Hello</p>",
        "text": "Hello",
        "message_id": MESSAGE_ID,
        "date": DATE,
    }
    return compose(sender, recipient, **(arguments | changes))


def parsed(mail: bytes) -> EmailMessage:
    """The mail as the standard library reads it."""
    return BytesParser(policy=policy.default).parsebytes(mail)


def header_lines(mail: bytes) -> list[str]:
    """The lines of the mail's own headers, as they are."""
    return mail.partition(b"\r\n\r\n")[0].decode().split("\r\n")


def field(mail: bytes, name: str) -> str:
    """One header, unfolded and otherwise as it is."""
    return re.sub(
        r"\r\n(?=[ \t])", "", mail.partition(b"\r\n\r\n")[0].decode().partition(f"{name}: ")[2]
    ).partition("\r\n")[0]


def body(mail: EmailMessage, kind: str) -> str:
    """The body of this kind, its line ends as Python has them."""
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def ended(text: str) -> str:
    """What a body becomes on its way: line ends are unified, and the last line is ended."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def check_lines(mail: bytes, longest: int = 78) -> None:
    """Every line ends in CRLF, holds no other CR or LF, and is no longer than it may be."""
    assert mail.endswith(b"\r\n")
    lines = mail.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= longest


# Whole mails -------------------------------------------------------------------------------------


def test_a_mail_to_the_byte() -> None:
    """A plain mail with both bodies, exactly as it goes out: text first, then HTML."""
    boundary = "=_" + re.findall(rb'boundary="=_(\w+)"', built())[0].decode()
    expected = f"""\
From: Notifier <no-reply@example.com>
To: Ada Lovelace <ada@example.org>
Subject: Welcome
Date: Tue, 14 Nov 2023 22:13:20 +0000
Message-ID: <job_018f@example.com>
MIME-Version: 1.0
Auto-Submitted: auto-generated
Content-Type: multipart/alternative;
 boundary="{boundary}"

--{boundary}
Content-Type: text/plain; charset="utf-8"
Content-Transfer-Encoding: 7bit

Hello

--{boundary}
Content-Type: text/html; charset="utf-8"
Content-Transfer-Encoding: quoted-printable

<p>Z=C3=BCrich hello hello</p>

--{boundary}--
"""
    mail = built(recipient=NAMED, subject="Welcome", html="<p>Zürich hello hello</p>")
    assert mail == expected.replace("\n", "\r\n").encode()


@given(subject=header_text, html=bodies, text=bodies)
@example(subject="=?utf-8?q?no?=", html="a" * 74 + " \nb", text="." * 80)
@example(subject=" spaced  out ", html="a" * 75 + "\t\n", text="From me\n.\n..\n")
@example(subject="x" * 200, html="é" * 3000, text="\0\x0b\x0c\x85\u2028")
@example(subject="word " * 200 + "end", html="", text="")
@example(subject="\ufeff", html="\ufeff", text="\ufeff")
def test_parses_back_to_what_went_in(subject: str, html: str, text: str) -> None:
    """Any subject and bodies come back whole, but that body line ends are CRLF and the last line is ended."""
    mail = built(subject=subject, html=html, text=text)
    check_lines(mail)
    read = parsed(mail)
    assert not read.defects
    assert str(read["Subject"]) == subject
    assert [part.get_content_type() for part in read.iter_parts()] == ["text/plain", "text/html"]
    assert body(read, "plain") == ended(text)
    assert body(read, "html") == ended(html)


@given(bodies)
def test_a_single_body_parses_back(text: str) -> None:
    """A mail with one body is of that kind alone, and comes back whole."""
    for kind, mail in (("plain", built(text=text, html=None)), ("html", built(html=text, text=None))):
        check_lines(mail)
        assert parsed(mail).get_content_type() == f"text/{kind}"
        assert body(parsed(mail), kind) == ended(text)


@given(name=header_text.map(str.strip))
@example(name='Lovelace, "Ada" \\ Countess')
@example(name="=?utf-8?q?no?=")
@example(name="Ünïcödé " * 30 + "end")
@example(name="😀" * 40)
def test_display_names_parse_back(name: str) -> None:
    """Any display name comes back whole, and the address beside it untouched."""
    mail = built(recipient=Address(name, "ada", "example.org"))
    check_lines(mail)
    value = field(mail, "To")
    shown, _, spec = value.rpartition("<") if name else ("", "", value + ">")
    if '"' in shown:
        shown = re.sub(r"\\(.)", r"\1", shown.strip()[1:-1])
    assert str(make_header(decode_header(shown.strip()))) == name
    assert spec == "ada@example.org>"
    assert parsed(mail)["To"].addresses[0].addr_spec == "ada@example.org"


@given(
    name=st.text(st.sampled_from("Adaéß日 ,.\"'\\()"), max_size=20).map(lambda name: " ".join(name.split()))
)
def test_display_names_parse_back_with_the_modern_parser(name: str) -> None:
    """A name of one encoded word comes back from the parser that knows addresses, too (it joins spaces)."""
    address = parsed(built(recipient=Address(name, "ada", "example.org")))["To"].addresses[0]
    assert (address.display_name, address.addr_spec) == (name, "ada@example.org")


@given(st.data())
def test_the_same_arguments_make_the_same_bytes(data: st.DataObject) -> None:
    """A retry of the same content is the same mail to the byte; another message is another boundary."""
    text = data.draw(bodies)
    assert built(text=text) == built(text=text)
    other = built(text=text, message_id="<job_other@example.com>")
    assert parsed(other).get_boundary() != parsed(built(text=text)).get_boundary()


# Headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["Grüße " * 40, "😀" * 100, "日本語の件名" * 30, "é" + "a" * 400])
def test_encoded_words_are_legal(subject: str) -> None:
    """Encoded words are at most 75 characters, their lines at most 76, and each decodes by itself."""
    mail = built(subject=subject, recipient=Address(subject, "ada", "example.org"))
    words = re.findall(r"=\?utf-8\?[qb]\?[^?]*\?=", "\n".join(header_lines(mail)))
    assert max(map(len, words)) <= 75
    assert max(map(len, header_lines(mail))) <= 76
    for word in words:
        assert "\ufffd" not in str(make_header(decode_header(word)))


def test_the_shorter_encoding_of_a_header_is_taken() -> None:
    """A few accents are quoted so that a person can read on; another script is base64."""
    assert field(built(subject="Déjà vu, dear reader"), "Subject").startswith("=?utf-8?q?")
    assert field(built(subject="日本語の件名"), "Subject").startswith("=?utf-8?b?")


def test_long_subjects_fold_between_words() -> None:
    """A long subject of plain words stays plain, folded where a space is."""
    subject = "seventeen words and more " * 8 + "end"
    lines = [line for line in header_lines(built(subject=subject)) if "words" in line]
    assert len(lines) > 1
    assert "".join(lines) == f"Subject: {subject}"


def test_names_are_quoted_only_as_they_need() -> None:
    """Plain words stand as they are, specials are quoted, and a bare address has no brackets."""
    assert field(built(recipient=NAMED), "To") == "Ada Lovelace <ada@example.org>"
    assert field(built(recipient=ADA), "To") == "ada@example.org"
    named = Address('A. "Ada" L', "ada", "example.org")
    assert field(built(recipient=named), "To") == r'"A. \"Ada\" L" <ada@example.org>'


def test_domains_go_out_in_ascii_and_local_parts_as_they_are() -> None:
    """The domain is in A-labels; a local part that is not ASCII stands in UTF-8 (RFC 6532)."""
    mail = built(recipient=read_address("Zoë <zoë@müller.de>"))
    assert "<zoë@xn--mller-kva.de>".encode() in mail
    spec = parsed(mail)["To"].addresses[0].addr_spec
    assert spec.encode("utf-8", "surrogateescape").decode() == "zoë@xn--mller-kva.de"


def test_what_programs_read_is_neither_encoded_nor_folded() -> None:
    """Message-ID, List-* and References go out on one line, letter by letter, however long."""
    url = f"<https://example.com/u/{'x' * 300}>"
    long_id = f"<{'j' * 200}@example.com>"
    mail = built(
        message_id=long_id,
        headers=[("List-Unsubscribe", url), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")],
    )
    lines = header_lines(mail)
    assert f"Message-ID: {long_id}" in lines
    assert f"List-Unsubscribe: {url}" in lines
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines


def test_further_headers_are_written_as_text() -> None:
    """Any other header takes any text, encoded where it must be."""
    mail = built(headers=[("X-Campaign", "Frühling"), ("Organization", "Example Ltd")])
    assert str(parsed(mail)["X-Campaign"]) == "Frühling"
    assert "Organization: Example Ltd" in header_lines(mail)


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\r\nBcc: eve@example.com"])
def test_no_value_can_inject_a_header(character: str) -> None:
    """CR, LF and NUL are refused in every header's value and name, and nothing is built."""
    bad = f"a{character}b"
    cases: list[dict[str, Any]] = [
        {"subject": bad},
        {"message_id": f"<{bad}@example.com>"},
        {"headers": [("X-Note", bad)]},
        {"headers": [("List-Unsubscribe", bad)]},
        {"headers": [(f"X-{bad}", "note")]},
        *({who: address} for who in ("sender", "recipient") for address in _broken_addresses(bad)),
    ]
    for case in cases:
        with pytest.raises(Permanent) as caught:
            built(**case)
        assert caught.value.code == "header_injection", case


def _broken_addresses(bad: str) -> list[Address]:
    return [Address(bad, "a", "b.c"), Address("", bad, "b.c"), Address("", "a", bad)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"headers": [("Subject", "again")]}, "invalid_header"),
        ({"headers": [("message-id", "<a@b>")]}, "invalid_header"),
        ({"headers": [("No Name", "x")]}, "invalid_header"),
        ({"headers": [("", "x")]}, "invalid_header"),
        ({"headers": [("List-Unsubscribe", "<https://müller.de/>")]}, "invalid_header"),
        ({"headers": [("List-Unsubscribe", " ")]}, "invalid_header"),
        ({"headers": [("List-Unsubscribe", "<https://x.test/" + "x" * 1000 + ">")]}, "header_too_long"),
        ({"message_id": "job_1"}, "invalid_header"),
        ({"message_id": "<a b@example.com>"}, "invalid_header"),
        ({"subject": "\ud800"}, "invalid_text"),
        ({"text": "\ud800"}, "invalid_text"),
        ({"recipient": Address("\ud800", "a", "b.c")}, "invalid_text"),
        ({"html": None, "text": None}, "no_body"),
    ],
)
def test_what_makes_no_mail_is_permanent(changes: dict[str, Any], code: str) -> None:
    """What could only ever be built wrong is refused for good, each cause under its own code."""
    with pytest.raises(Permanent) as caught:
        built(**changes)
    assert caught.value.code == code


# Bodies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("short lines\nof ASCII\n", "7bit"),
        ("x" * 78, "7bit"),
        ("x" * 79, "quoted-printable"),
        ("a form feed\x0c in it, and text enough around it", "quoted-printable"),
        ("Mit freundlichen Grüßen aus Köln", "quoted-printable"),
        ("日本語の本文", "base64"),
        ("\0" * 10, "base64"),
    ],
)
def test_the_encoding_fits_the_content(text: str, encoding: str) -> None:
    """Short lines of ASCII go as they are; the rest as what is shorter of the two."""
    assert parsed(built(text=text, html=None))["Content-Transfer-Encoding"] == encoding


def test_quoted_printable_keeps_its_own_limit() -> None:
    """No quoted-printable line is longer than 76, not even where a space at its end is escaped."""
    for length in range(70, 82):
        mail = built(text="é" + "a" * length + " \nb", html=None)
        assert max(map(len, mail.partition(b"\r\n\r\n")[2].split(b"\r\n"))) <= 76
        assert body(parsed(mail), "plain") == "é" + "a" * length + " \nb\n"


def test_no_body_can_hold_the_boundary() -> None:
    """A body that holds the boundary which the message would get makes it get another."""
    boundary = parsed(built()).get_boundary()
    mail = built(text=f"one\n--{boundary}\ntwo")
    assert parsed(mail).get_boundary() != boundary
    assert body(parsed(mail), "plain") == f"one\n--{boundary}\ntwo\n"
