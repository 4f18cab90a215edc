"""What network addresses mean: which a blueprint may have an agent connect to, and which are this machine's own."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# All of IPv6 that is given out [RFC 4291, IANA]. Some of it is not global; that is asked of each address.
_GIVEN_OUT = ip_network("2000::/3")
# NAT64's well-known prefix [RFC 6052]: the last 32 bits are an IPv4 address.
_NAT64 = ip_network("64:ff9b::/96")
# Public by their number, and yet of the machine's own surroundings: Azure's metadata, Oracle's, relays of 6to4.
_NOT_PUBLIC = tuple(ip_network(text) for text in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"))


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return networks such as "10.0.0.0/8"; raise ValueError for what is none."""
    return tuple(ip_network(text) for text in texts)


def may_connect(text: str, allowed: Sequence[Network]) -> bool:
    """Return whether the address ``text`` is public, or in a network that is ``allowed``.

    An IPv6 address that stands for an IPv4 one is as that one is. A scope ("%eth0") makes no difference.
    """
    address = ip_address(text.partition("%")[0])
    meant = _meant(address)
    if any(one in network for one in (address, meant) for network in allowed):
        return True
    if isinstance(meant, IPv6Address):
        inside = meant.sixtofour
        return _public(meant) and (inside is None or _public(inside))
    return _public(meant)


def _meant(address: Address) -> Address:
    if not isinstance(address, IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GIVEN_OUT:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
