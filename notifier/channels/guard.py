"""Which addresses and ports a delivery may connect to: checked on the address, at the moment of connecting.

Names, spellings and DNS answers all end in an address, so nothing that stands before it is trusted.
"""

import errno
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Protocol

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
"""One entry of `socket.getaddrinfo`, as the connector hands it over."""

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


WEB_PORTS = frozenset({80, 443})
"""Where public addresses may be connected to, unless `allow_ports` names more."""

REFUSAL = "the address or port is not allowed"
"""All that is said of a refusal, whatever was refused: an answer must not map a network."""


class BlockedAddressError(OSError):
    """An address that the guard refuses. It doesn't say which."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, REFUSAL)


class Policy(Protocol):
    """What may be connected to."""

    def permits(self, host: str, port: int) -> bool:
        """Whether this numeric address may be connected to at this port. What can't be read is refused."""

    def permits_name(self, port: int) -> bool:
        """Whether a host may be asked for at this port that is only known by a name, which others look up."""


class PublicInternet:
    """Lets connections out to the web's ports of public addresses, and to what the configuration names.

    `allow_ports` are more ports of public addresses; `allow_networks` are open at every port. A network
    opens exactly itself: an IPv4-mapped IPv6 address is not in an IPv4 network, since what lies behind one
    is up to the operating system; who wants it names it in IPv6.
    """

    def __init__(self, allow_networks: Iterable[str] = (), allow_ports: Iterable[int] = ()) -> None:
        self._networks: tuple[Network, ...] = tuple(map(ip_network, allow_networks))
        self._ports = WEB_PORTS.union(allow_ports)
        self._verdict = lru_cache(maxsize=4096)(self._judge)

    def permits(self, host: str, port: int) -> bool:
        """See `Policy.permits`."""
        return self._verdict(host, port)

    def permits_name(self, port: int) -> bool:
        """See `Policy.permits_name`: a name is taken for a public one."""
        return port in self._ports

    def _judge(self, host: str, port: int) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return _in_any(address, self._networks) or (port in self._ports and is_public(address))


class Only:
    """Lets connections out to one address and port, and nowhere else."""

    def __init__(self, host: str, port: int) -> None:
        self._wanted = (str(ip_address(host)), port)

    def permits(self, host: str, port: int) -> bool:
        """See `Policy.permits`."""
        return (host, port) == self._wanted

    def permits_name(self, port: int) -> bool:  # noqa: ARG002 - at no port
        """See `Policy.permits_name`: no name leads there for certain."""
        return False


class Guard:
    """Holds every connection to a policy: as it is made, and before it is used again."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        """What holds now. Another one counts from the moment it is set, for kept connections too."""
        self.refused = 0
        """How many connections were refused."""

    def permits(self, host: str | None, port: int) -> bool:
        """Whether a numeric address, or (None) a host known only by name, may be connected to."""
        return self.policy.permits_name(port) if host is None else self.policy.permits(host, port)

    def refusal(self) -> BlockedAddressError:
        """Count a refusal, and make the error that tells of it."""
        self.refused += 1
        return BlockedAddressError()

    def open_socket(self, info: AddressInfo) -> socket.socket:
        """Make the socket for one address, unconnected. Raises BlockedAddressError."""
        if not self.permits(info[4][0], info[4][1]):
            raise self.refusal()
        return new_socket(info)


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
