"""The templates that ship make mails that one could send: both bodies, whatever is given or left out."""

import re

import pytest
from support.sample_mails import LINK, SAMPLES, TEMPLATES, Sample, channel, sent

from notifier.channels.plaintext import text_from_html

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


def test_every_template_is_tried() -> None:
    """A template that is added has a sample, too."""
    shipped = {path.parent.name for path in TEMPLATES.glob("*/body.html")}
    assert {sample.template for sample in SAMPLES} == shipped


@every_sample
def test_both_bodies_say_the_same(sample: Sample) -> None:
    """Every word of the text stands in the HTML, no line is empty twice, and nothing is left unfilled."""
    mail = sent(sample, channel())
    words = set(re.findall(r"\w+", text_from_html(mail["html"])))
    unseen = {"x", "Look", "CRITICAL", "WARNING"}
    assert set(re.findall(r"\w+", mail["text"])) - unseen <= words
    for body in (mail["text"], mail["html"], mail["subject"]):
        assert not re.search(r"\bNone\b|\{\{|\}\}|\{%|undefined", body)
    assert "\n\n\n" not in mail["text"]
    assert mail["text"].startswith(mail["text"].strip()[0])


@every_sample
def test_it_fits_into_what_mailboxes_show(sample: Sample) -> None:
    """Gmail cuts a mail at 102 KB, and a phone shows some fifty characters of a subject."""
    mail = sent(sample, channel())
    assert len(mail["html"].encode()) < 20_000
    assert len(mail["subject"]) < 50


@every_sample
def test_the_styles_are_in_the_elements(sample: Sample) -> None:
    """Clients that drop style sheets show it all the same; dark mode and phone width stay in one."""
    html = sent(sample, channel())["html"]
    assert not re.search(r"<(h1|p|table|td)(?![^>]*style=)[^>]*>", html)
    assert html.count("@media") == 2
    assert not re.search(r"url\(|@import|<(img|link|script)", html)


@every_sample
def test_it_can_be_unsubscribed_from_where_that_is_possible(sample: Sample) -> None:
    """The link stands in both bodies and in the header, or in none of them."""
    mail = sent(sample, channel())
    places = (mail["text"], mail["html"], mail["raw"].partition("\r\n\r\n")[0])
    assert [LINK in place for place in places] == [sample.unsubscribe_url is not None] * 3


def test_a_receipt_adds_up() -> None:
    """Lines count their quantity; a total that isn't given is what they come to."""
    items = [{"name": "Tea", "price": 12.5, "quantity": 3}, {"name": "Cup", "price": 1000}]
    order = {"number": "1", "currency": "EUR", "items": items}
    text = sent(Sample("", "receipt", order), channel())["text"]
    assert "3 x Tea: 37.50 EUR\n1 x Cup: 1,000.00 EUR\n" in text
    assert "Total: 1,037.50 EUR\n" in text
