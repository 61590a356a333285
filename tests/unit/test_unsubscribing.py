"""Unsubscribe links: for whom there is one, what it carries, and that none but ours is read."""

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import job

from notifier.unsubscribing import Unsubscribing, Unsubscription, new_key

KEY = "not a secret, but the key of these tests"
WANTED = Unsubscription("email", "ada@example.com", "news", "job_1")


def links(public_url: str | None = "https://mail.example.com", key: str = KEY) -> Unsubscribing:
    """What writes and reads links, at a public url."""
    return Unsubscribing(key, public_url)


def test_a_job_with_a_category_has_a_link_that_says_all() -> None:
    """The channel, the recipient's key, the category, and the job that it came with."""
    made = job(channel="email", destination="Ada <Ada@Example.com>", category="news")
    url = links().url(made)
    assert url is not None
    start, _, token = url.rpartition("/")
    assert start == "https://mail.example.com/unsubscribe"
    assert links().read(token) == Unsubscription("email", "ada@example.com", "news", made.id)


@pytest.mark.parametrize(
    ("public_url", "start"),
    [
        ("https://example.com/notify", "https://example.com/notify/unsubscribe/"),
        ("https://example.com/notify/", "https://example.com/notify/unsubscribe/"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/unsubscribe/"),
    ],
)
def test_the_link_begins_with_the_public_url(public_url: str, start: str) -> None:
    """Whatever path it has, with or without a slash at its end."""
    url = links(public_url).url(job(channel="email", destination="a@b.example", category="news"))
    assert url is not None
    assert url.startswith(start)


def test_without_a_category_or_a_public_url_there_is_no_link() -> None:
    """Nor for a job of which nobody knows yet whom it is for."""
    made = job(channel="email", destination="a@b.example", category="news")
    assert links(None).url(made) is None
    assert not links(None).offered
    assert links().offered
    assert links().url(job(channel="email", destination="a@b.example")) is None
    assert links().url(job(channel="email", destination=None, category="news")) is None


def test_a_link_fits_a_line_of_a_header() -> None:
    """RFC 5322 §2.1.1: 998 characters, for the longest address and category there are (RFC 5321 §4.5.3.1)."""
    longest = f"{'a' * 64}@{'.'.join(['b' * 63] * 3)}.{'c' * 57}.de"
    url = links("https://mail.example.com").url(job(channel="email", destination=longest, category="n" * 64))
    assert url is not None
    assert len(f"List-Unsubscribe: <{url}>") < 998
    assert re.fullmatch(r"https://[\x21-\x7e]+", url)


@given(st.builds(Unsubscription, *[st.text(st.characters(exclude_categories=["Cs"]))] * 4))
def test_what_is_written_is_read_again(wanted: Unsubscription) -> None:
    """Any text, and only letters in the link that every mail program takes for a part of it."""
    token = links().token(wanted)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert links().read(token) == wanted


@given(st.data())
def test_an_altered_token_is_refused(data: st.DataObject) -> None:
    """Whichever letter is another, left out or put in: also one whose bits count for nothing."""
    token = links().token(WANTED)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCxyz019_-=./ é\n").filter(lambda letter: letter != token[place]))
    replaced = token[:place] + other + token[place + 1 :]
    inserted = token[:place] + other + token[place:]
    assert links().read(replaced) is None
    assert links().read(inserted) is None
    assert links().read(token[:place] + token[place + 1 :]) is None


def test_letters_whose_bits_count_for_nothing_are_refused_too() -> None:
    """Several texts decode to the same bytes; one of them is ours."""
    for length in range(6):
        token = links().token(Unsubscription("email", "a" * length, "news", "job_1"))
        alike = [
            token[:-1] + last
            for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
            if last != token[-1]
        ]
        assert not [each for each in alike if links().read(each)]


def test_a_forged_token_is_refused() -> None:
    """Signed by another key, unsigned, signed for another purpose, or for another recipient."""
    ours = links().token(WANTED)
    forger = links(key=new_key())
    text = json.dumps(["email", "eve@example.com", "news", "job_1"]).encode()
    signature = base64.urlsafe_b64decode(ours + "=")[:32]
    for forged in (text, bytes(32) + text, signature + text, signature):
        assert links().read(base64.urlsafe_b64encode(forged).rstrip(b"=").decode()) is None
    assert links().read(forger.token(WANTED)) is None
    assert forger.read(forger.token(WANTED)) == WANTED


@given(st.text() | st.binary(max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_garbage_is_refused(token: str) -> None:
    """Never an exception: it comes from anyone."""
    assert links().read(token) is None


def test_keys_differ() -> None:
    """And are long enough that nobody guesses one."""
    assert new_key() != new_key()
    assert len(new_key()) >= 43
