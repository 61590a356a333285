"""Which addresses a delivery may connect to: checked on the address itself, at the moment of connecting.

Names, spellings and DNS answers all end in an address, so nothing that stands before it is trusted.
"""

import errno
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
"""One entry of `socket.getaddrinfo`, as the connector hands it over."""
OpenSocket = Callable[[AddressInfo], socket.socket]

DENIED: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT; Alibaba Cloud's metadata at 100.100.100.200
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's metadata and wire server, in public space
            "169.254.0.0/16",  # link-local; metadata at 169.254.169.254 and others
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments; Oracle Cloud's metadata at 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: carries IPv4
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # 6bone, given back
            "3fff::/20",  # documentation
        ),
    )
)
"""Never connected to unless `allow_networks` names it (IANA special-purpose registries, RFC 6890)."""

ROUTED_IPV6 = IPv6Network("2000::/3")
"""All the IPv6 that is routed globally (RFC 4291 §2.4, IANA). Everything outside it is denied: loopback,
IPv4-mapped and -compatible (`::/96`), NAT64 (`64:ff9b::/96`, `64:ff9b:1::/48`), discard-only, unique local
(`fc00::/7`, metadata at `fd00:ec2::254`), link-local, site-local (`fec0::/10`), multicast."""


class BlockedAddressError(OSError):
    """An address that the guard refuses. It doesn't say which: the answer must not map a network."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not allowed")


class Guard:
    """Lets connections out to public addresses, and to the networks that the configuration names.

    A network opens exactly itself: an IPv4-mapped IPv6 address is not in an IPv4 network, since what
    lies behind one is up to the operating system; who wants it names it in IPv6.
    """

    def __init__(self, allow_networks: Iterable[str] = ()) -> None:
        self._allowed: tuple[Network, ...] = tuple(map(ip_network, allow_networks))

    def permits(self, host: str) -> bool:
        """Whether this numeric address may be connected to. What can't be read is refused."""
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return _in_any(address, self._allowed) or is_public(address)

    def open_socket(self, info: AddressInfo) -> socket.socket:
        """Make the socket for one address, unconnected. Raises BlockedAddressError."""
        if not self.permits(info[4][0]):
            raise BlockedAddressError
        return new_socket(info)


def only(host: str, port: int) -> OpenSocket:
    """Make a guard that lets connections out to one address and port, and nowhere else."""
    wanted = (str(ip_address(host)), port)

    def open_socket(info: AddressInfo) -> socket.socket:
        if info[4][:2] != wanted:
            raise BlockedAddressError
        return new_socket(info)

    return open_socket


def new_socket(info: AddressInfo) -> socket.socket:
    """Make a socket fit for an address."""
    family, kind, protocol, _, _ = info
    return socket.socket(family, kind, protocol)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet's, by our table and Python's both."""
    if _in_any(address, DENIED) or not address.is_global or address.is_multicast:
        return False
    # A zone only has meaning for addresses that are local to a link (RFC 4007 §6).
    return isinstance(address, IPv4Address) or (address in ROUTED_IPV6 and address.scope_id is None)


def _in_any(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
