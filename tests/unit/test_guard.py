"""The guard: what it refuses, what it lets out, and what `allow_networks` opens."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.channels.guard import (
    DENIED,
    REFUSAL,
    BlockedAddressError,
    Guard,
    Only,
    PublicInternet,
    is_public,
)

REFUSED = [
    "0.0.0.0",  # noqa: S104 - to refuse, not to bind
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.1.2.3",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.1.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::8.8.8.8",
    "::127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "::ffff:0:127.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:0808:0808::1",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2606:4700::1111%1",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.9.9.9",
    "93.184.216.34",
    "2606:4700::1111",
    "2a00:1450:4001::8",
    "2400:cb00::1",
]

UNREADABLE = [
    "",
    "localhost",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "1.1.1.1.",
    "[::1]",
    "1.1.1.1:80",
    "１.１.１.１",
    " 1.1.1.1",
    "1.1.1.1\0",
    "::1%",
]


def info(
    host: str, port: int = 80
) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]:
    """Make an address entry as the connector hands it to the guard."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


@pytest.mark.parametrize("host", REFUSED)
def test_what_is_not_public_is_refused(host: str) -> None:
    """Private, local, reserved, tunnelled, IPv4-carrying and metadata addresses get no socket."""
    with pytest.raises(BlockedAddressError):
        Guard(PublicInternet()).open_socket(info(host))


@pytest.mark.parametrize("host", PUBLIC)
def test_what_is_public_gets_a_socket(host: str) -> None:
    """The public internet's addresses get a socket of their family, not yet connected."""
    with Guard(PublicInternet()).open_socket(info(host)) as made:
        assert made.family == info(host)[0]
        with pytest.raises(OSError, match="not connected"):
            made.getpeername()


@pytest.mark.parametrize("host", UNREADABLE)
def test_what_is_no_address_is_refused(host: str) -> None:
    """Anything but a plain numeric address is refused, even where all the internet is allowed."""
    assert not PublicInternet(["0.0.0.0/0", "::/0"]).permits(host, 80)


@given(st.ip_addresses(v=4))
def test_no_ipv4_form_inside_ipv6_gets_out(address: ipaddress.IPv4Address) -> None:
    """Mapped, compatible, NAT64, 6to4: an IPv6 address that carries an IPv4 one is refused for any."""
    carried = int(address)
    forms = [carried, 0xFFFF << 32 | carried, 0x64FF9B << 96 | carried, 0x2002 << 112 | carried << 80]
    assert not any(is_public(ipaddress.IPv6Address(form)) for form in forms)


@given(st.ip_addresses())
def test_never_laxer_than_python(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whatever Python takes for not global, or for multicast, our table refuses too."""
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize("network", DENIED, ids=str)
def test_each_denied_network_is_refused_to_its_edges(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    """The first and the last address of every network in the table are refused."""
    assert not is_public(network[0])
    assert not is_public(network[-1])


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.1.2.3", "192.168.0.1"),
        ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.1/32", "127.0.0.1", "0.0.0.0"),  # noqa: S104 - to refuse, not to bind
        ("127.0.0.1/32", "127.0.0.1", "::1"),
        ("127.0.0.0/8", "127.0.0.1", "::ffff:127.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "::ffff:10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "::10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "64:ff9b::10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "2002:a00:1::"),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "10.0.0.1"),
        ("fd00::/8", "fd12::1", "fc00::1"),
        ("::1/128", "::1", "127.0.0.1"),
        ("169.254.169.254/32", "169.254.169.254", "169.254.169.253"),
    ],
)
def test_an_allowed_network_opens_exactly_itself(network: str, inside: str, outside: str) -> None:
    """What the configuration names is let out; no neighbour and no other form of it is."""
    policy = PublicInternet([network])
    for port in (1, 80, 443, 8080, 65535):
        assert policy.permits(inside, port)
        assert not policy.permits(outside, port)
    assert policy.permits("8.8.8.8", 443)
    assert not policy.permits("8.8.8.8", 8080)


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_are_open_at_the_ports_of_the_web_and_those_named(host: str) -> None:
    """Mail, databases, shells and all else that is no web server are out of reach unless named."""
    for port in (1, 22, 25, 79, 81, 442, 444, 3306, 6379, 8080, 8443, 65535):
        assert not PublicInternet().permits(host, port)
    named = PublicInternet(allow_ports=[8443])
    assert [port for port in (80, 443, 8443, 8444) if named.permits(host, port)] == [80, 443, 8443]


@pytest.mark.parametrize("host", REFUSED)
def test_a_named_port_opens_no_address(host: str) -> None:
    """What is not public stays shut at the ports of the web, and at those named."""
    policy = PublicInternet(allow_ports=[8443])
    assert not any(policy.permits(host, port) for port in (80, 443, 8443))


def test_a_host_known_only_by_name_is_held_to_the_ports() -> None:
    """Where others look names up, the port is all that can be judged here."""
    guard = Guard(PublicInternet(["127.0.0.0/8"], [8443]))
    assert [port for port in (22, 80, 443, 8443) if guard.permits(None, port)] == [80, 443, 8443]
    assert not Guard(Only("127.0.0.1", 80)).permits(None, 80)


def test_another_policy_counts_at_once() -> None:
    """A guard asks the policy that stands, and remembers nothing of the one before."""
    guard = Guard(PublicInternet(["127.0.0.1/32"]))
    assert guard.permits("127.0.0.1", 9)
    guard.policy = PublicInternet()
    assert not guard.permits("127.0.0.1", 9)


def test_refusals_are_counted() -> None:
    """Each socket that is refused is one more; one that is made is none."""
    guard = Guard(PublicInternet())
    guard.open_socket(info("8.8.8.8")).close()
    for host, port in (("127.0.0.1", 80), ("8.8.8.8", 22)):
        with pytest.raises(BlockedAddressError):
            guard.open_socket(info(host, port))
    assert guard.refused == 2


def test_only_one_address_and_port() -> None:
    """The guard for one address refuses another host, another port, and the public internet."""
    open_socket = Guard(Only("127.0.0.1", 8025)).open_socket
    open_socket(info("127.0.0.1", 8025)).close()
    for other in (info("127.0.0.1", 8026), info("127.0.0.2", 8025), info("8.8.8.8", 8025), info("::1", 8025)):
        with pytest.raises(BlockedAddressError):
            open_socket(other)


def test_the_refusal_names_no_address() -> None:
    """The error is the same for every address and port, so that it can't be used to look around."""
    said = set()
    for host, port in [*((host, 80) for host in REFUSED), ("8.8.8.8", 22), ("8.8.8.8", 65535)]:
        with pytest.raises(BlockedAddressError) as refused:
            Guard(PublicInternet()).open_socket(info(host, port))
        said.add(str(refused.value))
    assert said == {f"[Errno 13] {REFUSAL}"}
