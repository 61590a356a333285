"""Mail as bytes: what is built parses back, with the standard library's parser, to what went in."""

import re
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from notifier.channels import Attachment
from notifier.channels.address import Address, read_address
from notifier.channels.mime import Letter, compose
from notifier.errors import Permanent

SENDER = Address("Notifier", "no-reply", "example.com")
ADA = Address("", "ada", "example.org")
NAMED = Address("Ada Lovelace", "ada", "example.org")
MESSAGE_ID = "<job_018f@example.com>"
DATE = 1_700_000_000.0
LONGEST = 998
"""What RFC 5322 §2.1.1 allows of a line: a media type can't be folded."""

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
header_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))
# As texts of one kind of character are what encodings are chosen for.
bodies = st.one_of(
    unicode_text,
    st.text(st.sampled_from("ab =.\t\n"), max_size=400),
    st.text(st.sampled_from("aé \n"), max_size=400),
    st.text(st.sampled_from("日本 \n😀"), max_size=400),
)


def built(recipient: Address = ADA, **changes: Any) -> bytes:
    """A mail of which a test names only what it is about."""
    fields: dict[str, Any] = {
        "sender": SENDER,
        "to": (recipient,),
        "subject": "Hello",
        "html": "<p>Hello</p>",
        "text": "Hello",
        "message_id": MESSAGE_ID,
        "date": DATE,
    }
    return compose(Letter(**(fields | changes)))


def file(**changes: Any) -> Attachment:
    """An attachment of which a test names only what it is about."""
    fields = {"filename": "invoice.pdf", "media_type": "application/pdf", "content": b"%PDF"} | changes
    return Attachment(**fields)


def image(name: str, **changes: Any) -> Attachment:
    """An image that the HTML shows by this name."""
    return file(**{"filename": "logo.png", "media_type": "image/png", "inline": name} | changes)


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
        *({who: (ADA, address)} for who in ("to", "cc") for address in _broken_addresses(bad)),
        {"attachments": [file(filename=bad)]},
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
        ({"headers": [("Bcc", "eve@example.com")]}, "invalid_header"),
        ({"attachments": [Attachment(filename="\ud800", media_type="a/b", content=b"")]}, "invalid_text"),
    ],
)
def test_what_makes_no_mail_is_permanent(changes: dict[str, Any], code: str) -> None:
    """What could only ever be built wrong is refused for good, each cause under its own code."""
    with pytest.raises(Permanent) as caught:
        built(**changes)
    assert caught.value.code == code


# Attachments -------------------------------------------------------------------------------------

file_names = st.one_of(
    header_text,
    st.text(st.sampled_from("ab.pdf \"'\\;=%*"), min_size=1),
    st.text(st.sampled_from("日本é😀.pdf"), min_size=1, max_size=100),
).filter(str.strip)
media_types = st.from_regex(
    r"(application|image|audio|text|font|model)/[A-Za-z0-9][A-Za-z0-9!#$&^_.+\-]{0,60}", fullmatch=True
)
attachments = st.builds(
    Attachment,
    filename=file_names,
    media_type=media_types,
    content=st.one_of(st.binary(max_size=300), unicode_text.map(str.encode)),
)
images = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9._@+\-]{1,128}", fullmatch=True), attachments, max_size=3
).map(lambda named: [msgspec.structs.replace(each, inline=name) for name, each in named.items()])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    files=st.lists(attachments, max_size=3),
    shown=images,
    html=st.none() | bodies,
    text=bodies,
)
@example(files=[file(filename="x" * 500 + "é")], shown=[], html=None, text="")
@example(files=[file(filename='a"b\\c; d=*%41')], shown=[image("l")], html="", text="")
@example(files=[file(filename="=?utf-8?q?no?=", content=b"\r\n.\r\n")], shown=[], html="a", text="b")
def test_attachments_parse_back(
    files: list[Attachment], shown: list[Attachment], html: str | None, text: str
) -> None:
    """Files and inline images of any name and content come back whole, beside bodies that do too."""
    mail = built(html=html, text=text, attachments=[*shown, *files])
    check_lines(mail, longest=LONGEST)
    read = parsed(mail)
    assert not any(part.defects for part in read.walk())
    assert body(read, "plain") == ended(text)
    if html is not None:
        assert body(read, "html") == ended(html)
    assert [seen(part) for part in attached(read)] == [told(each) for each in [*shown, *files]]


def attached(mail: EmailMessage) -> list[EmailMessage]:
    """The parts of a mail that are no bodies; `get_filename` would take a name's own quotes away."""
    return [part for part in mail.walk() if "Content-Disposition" in part]


def seen(part: EmailMessage) -> tuple[object, ...]:
    """What the parser makes of an attachment."""
    content_id = part["Content-ID"]
    return (
        part.get_content_type(),
        part["Content-Disposition"].params["filename"],
        part.get_payload(decode=True),
        part.get_content_disposition(),
        str(content_id).strip("<>") if content_id else None,
    )


def told(attachment: Attachment) -> tuple[object, ...]:
    """The same as it went in."""
    return (
        attachment.media_type.lower(),
        attachment.filename,
        attachment.content,
        "attachment" if attachment.inline is None else "inline",
        attachment.inline,
    )


def shape(part: Message) -> object:
    """A mail as the tree of its media types."""
    if not part.is_multipart():
        return part.get_content_type()
    return part.get_content_type(), [shape(inner) for inner in part.iter_parts()]  # type: ignore[attr-defined]


def library_made(html: str | None, text: str, files: list[Attachment]) -> EmailMessage:
    """The same mail as the standard library makes it."""
    made = EmailMessage()
    made.set_content(text)
    if html is not None:
        made.add_alternative(html, subtype="html")
    page = made.get_body(("html",))
    for each in files:
        kind, _, subtype = each.media_type.partition("/")
        name: dict[str, Any] = {"maintype": kind, "subtype": subtype, "filename": each.filename}
        if each.inline is not None and isinstance(page, EmailMessage):
            page.add_related(each.content, cid=f"<{each.inline}>", disposition="inline", **name)
        else:
            made.add_attachment(each.content, **name)
    return made


@pytest.mark.parametrize("html", [None, "<p>Größe</p>"])
@pytest.mark.parametrize(
    "files", [[], [image("logo")], [file()], [image("logo"), image("foot"), file(), file(filename="b.pdf")]]
)
def test_the_standard_library_would_build_the_same_mail(html: str | None, files: list[Attachment]) -> None:
    """Parts nest as the library nests them, and each says and holds the same."""
    if html is None:
        files = [each for each in files if each.inline is None]
    made = parsed(built(html=html, text="Größe", attachments=files))
    theirs = parsed(library_made(html, "Größe", files).as_bytes(policy=policy.SMTP))
    assert shape(made) == shape(theirs)
    assert [seen(each) for each in attached(made)] == [seen(each) for each in attached(theirs)]


def test_the_parts_of_a_full_mail() -> None:
    """Files follow the bodies; images go with the HTML that shows them, which `related` begins with."""
    read = parsed(built(attachments=[file(), image("logo")]))
    assert shape(read) == (
        "multipart/mixed",
        [
            (
                "multipart/alternative",
                ["text/plain", ("multipart/related", ["text/html", "image/png"])],
            ),
            "application/pdf",
        ],
    )
    (related,) = (part for part in read.walk() if part.get_content_type() == "multipart/related")
    assert related.get_param("type") == "text/html"
    assert len({part.get_boundary() for part in read.walk() if part.is_multipart()}) == 3


def test_without_html_nothing_is_shown_so_all_is_attached() -> None:
    """An inline image of a mail of text alone is not lost."""
    read = parsed(built(html=None, attachments=[image("logo")]))
    assert shape(read) == ("multipart/mixed", ["text/plain", "image/png"])


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("invoice.pdf", ['filename="invoice.pdf"']),
        ('a "b" \\ c.pdf', ["filename*=utf-8''a%20%22b%22%20%5C%20c.pdf"]),
        ("Größe.pdf", ["filename*=utf-8''Gr%C3%B6%C3%9Fe.pdf"]),
        (
            "é" * 20,
            [
                f"filename*0*=utf-8''{'%C3%A9' * 8};",
                f"filename*1*={'%C3%A9' * 10};",
                "filename*2*=%C3%A9%C3%A9",
            ],
        ),
    ],
)
def test_file_names_are_written_as_rfc_2231_has_them(filename: str, expected: list[str]) -> None:
    """Plain names are quoted, all others percent-encoded, in pieces where they are long, on legal lines."""
    mail = built(html=None, attachments=[file(filename=filename)]).decode()
    written = (
        mail.partition("Content-Disposition: attachment;")[2].partition("\r\nContent-")[0].lstrip("\r\n")
    )
    assert written.split("\r\n") == [f" {line}" for line in expected]
    assert all(len(line) <= 76 for line in written.split("\r\n"))


def test_text_files_say_what_they_are_written_in() -> None:
    """Text in UTF-8 says so, for it would be taken for ASCII; other bytes are not claimed to be text."""
    for content, charset in (("é".encode(), "utf-8"), (b"\xe9", None)):
        (attached,) = parsed(
            built(attachments=[file(media_type="text/csv", content=content)])
        ).iter_attachments()
        assert attached.get_content_charset() == charset


@pytest.mark.parametrize(
    "bad",
    [
        file(filename=" "),
        file(media_type="pdf"),
        file(media_type="text/html; charset=x"),
        file(media_type="a/b\r\nX: y"),
        file(media_type="message/rfc822"),
        file(media_type="Multipart/mixed"),
        image(""),
        image("my logo"),
        image("l>\r\nX: y"),
    ],
)
def test_what_can_not_be_attached_is_permanent(bad: Attachment) -> None:
    """No name, no media type, a type that base64 is forbidden to, or a name that no cid can have."""
    with pytest.raises(Permanent) as caught:
        built(attachments=[bad])
    assert caught.value.code == "invalid_attachment"


def test_two_images_of_one_name_are_refused() -> None:
    """It would be left to chance which of them the HTML shows."""
    with pytest.raises(Permanent) as caught:
        built(attachments=[image("logo"), image("logo")])
    assert caught.value.code == "invalid_attachment"


# Recipients --------------------------------------------------------------------------------------


def test_a_mail_says_whom_it_is_for() -> None:
    """To and Cc list everyone in their order, on lines of legal length; there is never a Bcc."""
    many = tuple(Address(f"Someone, the {n}th", f"someone{n}", "example.org") for n in range(30))
    mail = built(to=many, cc=(NAMED, Address("Zoë", "zoe", "example.org")))
    check_lines(mail)
    read = parsed(mail)
    assert [each.addr_spec for each in read["To"].addresses] == [each.spec for each in many]
    assert [each.display_name for each in read["To"].addresses] == [each.name for each in many]
    assert [str(each) for each in read["Cc"].addresses] == [
        "Ada Lovelace <ada@example.org>",
        "Zoë <zoe@example.org>",
    ]
    assert "Bcc" not in read


@given(st.lists(header_text.map(str.strip), min_size=1, max_size=5))
def test_any_list_of_names_leaves_the_addresses_whole(names: list[str]) -> None:
    """Whatever the names hold, there are as many recipients as went in, with their addresses."""
    mail = built(cc=tuple(Address(name, f"u{n}", "example.org") for n, name in enumerate(names)))
    check_lines(mail)
    specs = [each.addr_spec for each in parsed(mail)["Cc"].addresses]
    assert specs == [f"u{n}@example.org" for n in range(len(names))]


def test_a_mail_that_names_no_recipient_says_so() -> None:
    """With everyone in bcc, To is the empty group that RFC 5322 has for it."""
    assert "To: undisclosed-recipients:;" in header_lines(built(to=()))
    assert "To" not in parsed(built(to=(), cc=(ADA,)))


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
