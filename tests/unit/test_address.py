"""Addresses: what people write becomes one mailbox, or a permanent error that says what is wrong."""

import pytest

from notifier.channels.address import Address, read_address
from notifier.errors import Permanent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.com", Address("", "ada", "example.com")),
        ("  ada@EXAMPLE.Com\n", Address("", "ada", "example.com")),
        ("Ada Lovelace <ada@example.com>", Address("Ada Lovelace", "ada", "example.com")),
        ('"Lovelace, Ada \\"A\\"" <ada@example.com>', Address('Lovelace, Ada "A"', "ada", "example.com")),
        ("Lovelace, Ada <ada@example.com>", Address("Lovelace, Ada", "ada", "example.com")),
        ("ada@example.com <ada@example.com>", Address("ada@example.com", "ada", "example.com")),
        ("<ada@example.com>", Address("", "ada", "example.com")),
        ("Zoë <zoë@müller.de>", Address("Zoë", "zoë", "xn--mller-kva.de")),
        ("ada@xn--mller-kva.de", Address("", "ada", "xn--mller-kva.de")),
        ('"a b"@example.com', Address("", '"a b"', "example.com")),
        ("Ada.Lovelace+tag@example.com", Address("", "Ada.Lovelace+tag", "example.com")),
    ],
)
def test_reads(text: str, expected: Address) -> None:
    """A bare address or one with a name, quoted or not, is read; the domain is lower case, in A-labels."""
    assert read_address(text) == expected


@pytest.mark.parametrize(
    "domain",
    ["localhost", "mail.localhost", "example.com", "shop.test", "printer.local", "mailhost", "x.invalid"],
)
def test_takes_domains_of_tests_and_private_networks(domain: str) -> None:
    """Special-use and dotless domains are taken: whether anybody lives there is for the relay to say."""
    assert read_address(f"ada@{domain}").domain == domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@exa mple.com",
        "ada@-example.com",
        "a..b@example.com",
        "ada@example.com, bob@example.com",
        "ada@example.com, Bob <bob@example.com>",
        "Ada <ada@example.com>, Bob <bob@example.com>",
        "Ada <ada@example.com",
        "Ada <>",
        "x" * 300 + "@example.com",
        "Ada <ada@example.com>\r\nBcc: eve@example.com",
        "Ada\nLovelace <ada@example.com>",
        "ada@example.com\0x",
        "ada@localhost.",
    ],
)
def test_refuses(text: str) -> None:
    """What is not exactly one mailbox is a permanent error, grouped as `invalid_destination`."""
    with pytest.raises(Permanent, match="is no mail address") as caught:
        read_address(text)
    assert caught.value.code == "invalid_destination"


def test_shows_itself_as_people_write_it() -> None:
    """An address prints with its name where it has one."""
    assert str(read_address("Ada <ada@example.com>")) == "Ada <ada@example.com>"
    assert str(read_address("<ada@example.com>")) == "ada@example.com"


def test_what_is_remembered_is_bounded() -> None:
    """A stream of ever new addresses does not fill the memory."""
    assert read_address.cache_info().maxsize is not None


def test_a_text_longer_than_any_address_is_refused_unread() -> None:
    """What a stranger wrote into a form must not keep the event loop busy."""
    with pytest.raises(Permanent, match="longer than"):
        read_address("<" + " " * 2000 + "x")
