"""The page that shows a mail's HTML and text side by side."""

from email.message import EmailMessage

from notifier.cli.page import page


def mail(html: str | None, text: str | None = "Hello <you>") -> EmailMessage:
    """A mail with these bodies."""
    made = EmailMessage()
    made["Subject"] = "Hi <b> & café"
    made["From"] = "Notifier <no-reply@example.com>"
    if text is not None:
        made.set_content(text)
    if html is not None:
        made.add_alternative(html, subtype="html")
    return made


def test_html_and_text_stand_side_by_side() -> None:
    """Each as it is, nothing of them taken for the page's own."""
    made = page(mail('<p title="a">Hello <script>x</script></p>').as_bytes())
    assert 'srcdoc="&lt;p title=&quot;a&quot;&gt;Hello &lt;script&gt;x&lt;/script&gt;&lt;/p&gt;' in made
    assert "<pre>Hello &lt;you&gt;" in made
    assert "<h1>Hi &lt;b&gt; &amp; café</h1>" in made
    assert "Notifier &lt;no-reply@example.com&gt;" in made
    assert "<script" not in made


def test_nothing_of_a_mail_runs() -> None:
    """The frame has no rights but to open links, and the page's policy allows no script anywhere."""
    made = page(mail("<p>x").as_bytes())
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in made
    assert "default-src &#x27;none&#x27;" in made
    assert "script-src" not in made


def test_a_body_that_is_missing_is_not_shown() -> None:
    """A mail of text alone has no frame, one of HTML alone no text."""
    assert "<iframe" not in page(mail(None).as_bytes())
    only_html = EmailMessage()
    only_html.set_content("<p>x", subtype="html")
    assert "<pre>" not in page(only_html.as_bytes())


def test_inline_images_stand_in_their_places() -> None:
    """What the HTML means by `cid:` is in the page; what is attached is named."""
    made = mail('<img src="cid:logo@example.com">')
    body = made.get_payload()[1]  # type: ignore[index]
    body.add_related(b"\x89PNG", "image", "png", cid="<logo@example.com>")  # type: ignore[union-attr]
    made.add_attachment(b"%PDF", "application", "pdf", filename="a.pdf")
    shown = page(made.as_bytes())
    assert "data:image/png;base64,iVBORw==" in shown
    assert "cid:" not in shown
    assert "<td>a.pdf</td>" in shown
