from ipaddress import ip_address, ip_network

import pytest

from ivcp.serving.remote_videos.addresses import is_public, may_be_reached

NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.255.255.254"),
    *("169.254.1.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170"),
    *("192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::808:808"),
    *("64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "4000::1", "5f00::1", "fc00::1"),
    *("fd00:ec2::254", "fd12:3456::1", "fe80::1", "fe80::1%2", "febf::1", "fec0::1", "feff::1"),
    *("ff02::1",),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "193.0.0.1"),
    *("2a00:1450::1", "2606:4700::1111"),
]
NEVER = [
    *("169.254.169.254", "fe80::1%2", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192"),
    *("168.63.129.16", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::", "ff02::1", "::ffff:10.0.0.1"),
    *("2002:a00:1::", "2001:0:a00:1::", "64:ff9b:1::a00:1"),
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_addresses_are_not_public(address: str):
    assert not is_public(ip_address(address))
    assert not may_be_reached(ip_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_other_addresses_are(address: str):
    assert may_be_reached(ip_address(address), ())


def test_a_listed_network_is_reached_and_no_other():
    listed = [ip_network("10.1.0.0/16"), ip_network("fd12::/16"), ip_network("::1/128")]
    assert [may_be_reached(ip_address(text), listed) for text in ("10.1.2.3", "fd12::3", "::1")] == [True] * 3
    assert [may_be_reached(ip_address(text), listed) for text in ("10.2.2.3", "fd13::3", "::2")] == [False] * 3


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_disguises_are_not_reached_whatever_is_listed(address: str):
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert may_be_reached(ip_address("10.0.0.1"), everything)
    assert not may_be_reached(ip_address(address), everything)


def test_what_is_behind_a_listed_nat64_is_checked_too():
    nat64 = [ip_network("64:ff9b::/96")]
    assert may_be_reached(ip_address("64:ff9b::8.8.8.8"), nat64)
    for inside in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "100.100.100.200"):
        assert not may_be_reached(ip_address(f"64:ff9b::{inside}"), nat64)
    assert may_be_reached(ip_address("64:ff9b::10.0.0.1"), [*nat64, ip_network("10.0.0.0/8")])
