"""Which addresses a video may come from: public ones, and those of networks that an operator lists.

`ipaddress.is_global` does not tell: Python 3.11 calls 6to4, NAT64, 192.0.0.192 and IPv4-compatible addresses global.
The lists are those of IANA's registries of special-purpose addresses (RFC 6890).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(word) for word in text.split())


NEVER = _networks(
    "0.0.0.0/32 ::/128 224.0.0.0/4 255.255.255.255/32 ff00::/8 "  # unspecified, multicast, broadcast
    "169.254.0.0/16 fe80::/10 fd00:ec2::/32 fd20:ce::/32 "  # link-local; metadata of AWS and Google over IPv6
    "100.100.100.200/32 192.0.0.192/32 168.63.129.16/32 "  # metadata of Alibaba, Oracle and Azure
    "::ffff:0:0/96 2002::/16 2001::/32 64:ff9b:1::/48"  # an IPv4 address in other clothes: mapped, 6to4, Teredo, NAT64
)
"""Not even where a listed network has them: what stands there gives credentials of the machine, or is no server."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""Its last 32 bits are the IPv4 address that is reached."""
_SPECIAL_V4 = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
)
_GLOBAL_V6 = IPv6Network("2000::/3")
"""All of the other IPv6 is reserved, local, multicast, or stands for IPv4."""
_SPECIAL_V6 = _networks("2001::/23 2001:db8::/32 2002::/16 3fff::/20")


def may_be_reached(address: Address, listed: Sequence[Network]) -> bool:
    """Whether a video may come from there; `listed` are networks that are allowed although they are not public."""
    if _is_in(address, NEVER):
        return False
    if isinstance(address, IPv6Address) and address in _NAT64:
        behind = IPv4Address(int(address) & 0xFFFFFFFF)
        return _is_in(address, listed) and may_be_reached(behind, listed)
    return is_public(address) or _is_in(address, listed)


def is_public(address: Address) -> bool:
    """Whether the whole internet reaches the same server there."""
    if isinstance(address, IPv4Address):
        return not _is_in(address, _SPECIAL_V4)
    return address in _GLOBAL_V6 and not _is_in(address, _SPECIAL_V6)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
