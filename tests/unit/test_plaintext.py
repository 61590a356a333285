"""HTML to text: everything that a reader would read, nothing else."""

import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.channels.plaintext import LONGEST, text_from_html


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Hello   <b>Ada</b>,</p>\n<p>wel&shy;come &amp; enjoy</p>", "Hello Ada,\n\nwelcome & enjoy\n"),
        ("one<br>two<br/><br>four", "one\ntwo\n\nfour\n"),
        ("<div>one</div><div>two <span>three</span></div>", "one\ntwo three\n"),
        ("<h1>Welcome</h1><h2>To us</h2><h3>All</h3>x", "Welcome\n=======\n\nTo us\n-----\n\nAll\n\nx\n"),
        ("a<hr>b", "a\n\n" + "-" * 40 + "\n\nb\n"),
        ("<blockquote>one<p>two</p></blockquote>three", "> one\n>\n> two\n\nthree\n"),
        ("<p>x</p><pre>if a:\n    b</pre>", "x\n\nif a:\n    b\n"),
        ("caf&eacute; &#8364;5&nbsp;each", "café €5 each\n"),
        ("no markup at all", "no markup at all\n"),
        ("", "\n"),
    ],
)
def test_keeps_the_shape_of_prose(html: str, expected: str) -> None:
    """Paragraphs, breaks, headings, rules, quotations and preformatted text are lines as one reads them."""
    assert text_from_html(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (
            '<a href="https://x.test/a?b=1&amp;c=2">Confirm</a> now',
            "Confirm (https://x.test/a?b=1&c=2) now\n",
        ),
        ('<a href="https://x.test/">https://x.test</a>', "https://x.test\n"),
        ('<a href="mailto:ada@x.test">ada@x.test</a>', "ada@x.test\n"),
        ('<a href="mailto:ada@x.test">write</a>', "write (ada@x.test)\n"),
        ('<a href="https://x.test"><img src="l.png" alt="Logo"></a>', "Logo (https://x.test)\n"),
        ('<a href="https://x.test"><img src="l.png"></a>', "https://x.test\n"),
        ('<a href="#top">up</a> <a href="javascript:x()">run</a> <a name="here">here</a>', "up run here\n"),
    ],
)
def test_keeps_links(html: str, expected: str) -> None:
    """A link is its text with the address after it, unless the text is the address or leads nowhere."""
    assert text_from_html(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Buy:</p><ul><li>tea<li>milk</ul><p>Soon.</p>", "Buy:\n\n- tea\n- milk\n\nSoon.\n"),
        ("<ol start=3><li>a</li><li>b</li></ol>", "3. a\n4. b\n"),
        ("<ul><li>a<ol><li>b</li><li>c</li></ol></li><li>d</li></ul>", "- a\n  1. b\n  2. c\n- d\n"),
        ("<ul><li>one<br>line more</li></ul>", "- one\n  line more\n"),
        ("<li>stray</li>", "- stray\n"),
        ("<ul><li></li></ul><p>after</p>", "after\n"),
    ],
)
def test_keeps_lists(html: str, expected: str) -> None:
    """Lists have their bullets or numbers, and nested ones are indented."""
    assert text_from_html(html) == expected


def test_keeps_tables_readable() -> None:
    """A row is a line, its cells apart; cells that hold paragraphs come one after the other."""
    goods = (
        "<table><tr><th>Item</th><th>Price</th></tr>\n<tr><td>Tea</td>\n<td></td><td>4.00</td></tr></table>"
    )
    layout = "<table><tr><td><p>left</p></td><td><p>right</p></td></tr></table>"
    assert text_from_html(goods) == "Item | Price\nTea | 4.00\n"
    assert text_from_html(layout) == "left\n\nright\n"


def test_drops_what_nobody_reads() -> None:
    """Scripts, styles, the title, comments and hidden preheaders are gone; what follows them is not."""
    html = (
        "<html><head><title>t</title><style>p{}</style></head><body><!-- c --><script>if(a<b)x()</script>"
        '<div style="color:red; display : NONE"><div>pre</div>header</div><span hidden>h</span><p>seen</p>'
        "<!--[if mso]><p>outlook</p><![endif]--></body></html>"
    )
    assert text_from_html(html) == "seen\n"


@given(st.text(alphabet="<>/!-abpliuotr&;#\"'= \n", max_size=200))
def test_takes_any_input(html: str) -> None:
    """However broken the HTML, there is text and never an error."""
    assert text_from_html(html).endswith("\n")


@given(st.lists(st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1), min_size=1))
def test_loses_no_word(words: list[str]) -> None:
    """Every word stands in the text, in its order, whatever elements it was in."""
    kinds = ("p", "li", "td", "h1", "blockquote", "div", "b")
    html = "".join(f"<{kinds[i % 7]}>{word}</{kinds[i % 7]}> " for i, word in enumerate(words))
    text = text_from_html(html)
    position = 0
    for word in words:
        position = text.index(word, position) + len(word)


@pytest.mark.parametrize("html", ["<p>kept</p><![x]>", "<p>kept</p><!DOCTYPE [<!x"])
def test_a_declaration_that_makes_no_sense_costs_no_content(html: str) -> None:
    """What the parser gives up on is still read, without its tags."""
    assert "kept" in text_from_html(html)


def test_what_is_hidden_by_a_head_that_stays_open_ends_with_it() -> None:
    """A page whose head is never closed has a body all the same."""
    assert text_from_html("<head><title>t</title><body><p>seen") == "seen\n"


def test_a_break_ends_a_row() -> None:
    """What comes after it is no further cell."""
    assert text_from_html("<tr><td>a</td><br><td>b</td></tr>") == "a\nb\n"


@pytest.mark.parametrize("reference", ["&#" + "1" * 5000 + ";", "&#x" + "f" * 5000 + ";"])
def test_a_number_that_is_no_character_is_shown_as_none(reference: str) -> None:
    """However many digits it has: reading thousands of them is an error to Python."""
    assert text_from_html(f"<p>a{reference}b</p>") == "a\ufffdb\n"


@pytest.mark.parametrize(
    "hostile",
    [
        "<!--",
        "<a ",
        "<a href='",
        "<a href=\"'><a \"'",
        '<a \'"><a "',
        "</",
        "</a ",
        "<script>",
        "<script></scrip",
        "<![",
        "<?",
        "<blockquote>x<br>",
        "<ul><li>",
        "<ul><li>x",
        "x<b>",
        "<td>x</td>",
        "<a href=x>x",
        "<td> </td>",
        "<pre>\n",
        "<div hidden>",
        "<h1>x</h1>",
        "<a " + "b" * 50 + "='",
        "&#",
        "&" + "a" * 40,
        "<a x" + " " * 500,
    ],
)
def test_no_page_takes_long(hostile: str) -> None:
    """The time, and the text, grow with the page's length alone, whatever is repeated in it or left open."""
    began = time.process_time()
    text = text_from_html(hostile * (LONGEST // len(hostile)))
    assert time.process_time() - began < 5
    assert len(text) < 20 * LONGEST


def test_a_link_ends_where_the_next_begins() -> None:
    """As in browsers: links never stand in one another, however many are left open."""
    assert text_from_html('<a href="https://a.example">one<a href="https://b.example">two</a>') == (
        "one (https://a.example)two (https://b.example)\n"
    )


def test_a_page_leaves_nothing_to_the_garbage_collector() -> None:
    """What a mail was made of is gone with it: collecting it would cost the mails to come."""
    page = "<h1>x</h1><ul><li><a href=y>z</a></ul><pre>a</pre><table><tr><td>b<td>c</table>"
    text_from_html(page)
    gc.collect()
    gc.disable()
    try:
        text_from_html(page)
        assert gc.collect() == 0
    finally:
        gc.enable()
