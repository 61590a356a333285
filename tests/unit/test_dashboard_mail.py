"""Reading a mail for a page: whatever its bytes are, something is shown and nothing fails."""

from email.message import EmailMessage

from hypothesis import example, given
from hypothesis import strategies as st

from notifier.dashboard.mail import read_mail


def test_a_usual_mail_is_read() -> None:
    """Headers are decoded, both bodies are found, attachments are named."""
    mail = EmailMessage()
    mail["Subject"] = "Grüße an alle"
    mail["To"] = "Ada <ada@example.com>"
    mail.set_content("text é\n")
    mail.add_alternative("<p>html é</p>", subtype="html")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="rechnung-ä.pdf")
    read = read_mail(mail.as_bytes())
    assert read.subject == "Grüße an alle"
    assert read.header("to") == "Ada <ada@example.com>"
    assert (read.text or "").strip() == "text é"
    assert (read.html or "").strip() == "<p>html é</p>"
    assert read.attachments == ("rechnung-ä.pdf",)


def test_a_body_that_is_missing_is_none() -> None:
    """A mail without HTML has none to show."""
    read = read_mail(b"Subject: a\r\n\r\nplain")
    assert read.html is None
    assert read.text == "plain"


def test_folded_headers_are_unfolded() -> None:
    """A long subject is one line."""
    assert read_mail(b"Subject: one\r\n two\r\n\r\n").subject == "one two"


@given(st.binary(max_size=400))
@example(b"Subject: =?nope?q?x?=\r\nContent-Type: text/html; charset=nope\r\n\r\n\xff")
@example(b"Subject: =?utf-8?b?!!!?=\r\n\r\n")
@example(b"Subject: \xff\xfe\r\n\r\n")
@example(b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n")
@example(b"Content-Type: text/plain; charset*=x'y'%ff\r\n\r\n")
@example(b'Content-Type: text/plain; charset="a\0b"\r\n\r\nx')
@example(b"Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename*0*=q''%zz\r\n\r\nA: b")
@example(b"Content-Transfer-Encoding: base64\r\n\r\n=====")
@example(b"Content-Transfer-Encoding: uuencode\r\n\r\nbegin 666 x\n!!!\n")
def test_no_bytes_are_too_strange(raw: bytes) -> None:
    """Any bytes at all are read without an error, into texts that a page can hold."""
    read = read_mail(raw)
    for text in (read.subject, read.html or "", read.text or "", *read.attachments):
        text.encode("utf-8", "replace")
